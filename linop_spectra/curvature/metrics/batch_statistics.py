r"""Statistics of batches: how much loss, gradient and Hessian vary, and what that does to eigenvalues, learning rates and intervals.

The quantities of the Deep Curvature Suite (Granziol et al., 2019), each without bias and for batches of any sizes. All come from one pass
over the batches, each with the starting vectors of the Lanczos run, both extreme eigenvectors and the direction of the gradient.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..._memory import format_bytes, parse_budget
from ..._progress import Progress, ProgressBar
from ...estimators.field_variance import variance_from_squares
from ...random_matrices.models import MinibatchModel, MinibatchPrediction
from ...results import Estimate
from ..objective import Objective
from .batches import BatchSet
from .hessian_variance import VARIANCE, HessianVariance
from .influence import BatchInfluence, Effect, base_rows, standard_error
from .metric import CURVATURE, Metric, plain, ratio_metric
from .noise_scale import gram_of, signal_and_noise
from .shared_run import SharedRun
from .source import require_objective

DIRECTIONS = 4
"""Random directions at least, for a standard error of the isotropic variance."""

_MOST = 50.0
"""Logarithm of a variance's upper end over itself at most, so that it is finite."""

Slopes = Mapping[str, Callable[[BatchInfluence], Effect]]


@dataclasses.dataclass(frozen=True, eq=False)
class BatchStatistics:
    """How much loss, gradient and Hessian vary from batch to batch.

    Attributes
    ----------
    batch_size, num_examples : float
        Examples of the largest batch, to which the variances refer, and of all data.
    num_batches : int
        K.
    loss, loss_variance : Metric
        Mean loss, and the variance of that of a batch; units loss and loss^2.
    gradient_squared, gradient_variance : Metric
        Squared norm of the gradient without what its noise adds, and the variance of a batch's gradient (trace of its covariance).
    hessian : HessianVariance
        V_z, and V_u along the smallest and the largest eigenvector and the gradient, where there is one.
    mean_eigenvalue : Metric
        tr H / P.
    shrinkage : Metric
        Weight of the Hessian in the best linear combination with that multiple of the identity, ``1 - V_N / d^2`` (Ledoit and Wolf,
        2004), with the variance V_N of the Hessian of all data and the squared distance d^2 from the identity over P: one for endless data.
    eigenvalues : numpy.ndarray
        Smallest and largest eigenvalue of all data, shape (2,).
    sampling : dict of str to tuple of float
        What the choice of the data does to a metric: standard error and bias, by name.
    not_sampled : dict of str to str
        Why that is not known of a metric that was asked for, by name.
    num_matvecs : int
        Products with the Hessian of one batch.
    seconds : float
        Wall-clock time.
    """

    batch_size: float
    num_examples: float
    num_batches: int
    loss: Metric
    loss_variance: Metric
    gradient_squared: Metric
    gradient_variance: Metric
    hessian: HessianVariance
    mean_eigenvalue: Metric
    shrinkage: Metric
    eigenvalues: np.ndarray
    sampling: dict[str, tuple[float, float]]
    not_sampled: dict[str, str]
    num_matvecs: int
    seconds: float

    def predicted(self, batch_size: float) -> MinibatchPrediction:
        """Extreme eigenvalues of the Hessian of a batch and the cap of the learning rate, from the variances along both eigenvectors."""
        return self._prediction(batch_size, [one.value for one in self._variances])

    def predicted_interval(self, batch_size: float, level: float = 0.95) -> tuple[MinibatchPrediction, MinibatchPrediction]:
        """The same with all variances at the lower and at the upper end of their intervals, which few batches leave wide.

        The intervals are those of the logarithms: a variance that came out small by chance has a small error by chance, too. Where examples
        with heavy tails decide, they still hold less than they say (34 of 40 for a regression of 256 examples in 16 batches). The
        eigenvalues of all data are taken as they are.
        """
        least = np.finfo(np.float64).tiny * self.num_examples  # the model has no noise of exactly zero
        values = [max(one.value, least) for one in self._variances]
        halves = [one.confidence_interval(level)[1] - one.value for one in self._variances]
        factors = [math.exp(min(half / value, _MOST)) for half, value in zip(halves, values, strict=True)]
        low, high = (
            self._prediction(batch_size, [value * factor**sign for value, factor in zip(values, factors, strict=True)])
            for sign in (-1, 1)
        )  # fmt: skip
        return low, high

    @property
    def _variances(self) -> tuple[Estimate, ...]:
        """V_z, and V_u along the smallest and the largest eigenvector."""
        return self.hessian.estimate, *self.hessian.directional[:2]

    def _prediction(self, batch_size: float, variances: list[float]) -> MinibatchPrediction:
        per_example = np.array(variances) * self.batch_size
        count, order = round(self.num_examples), self.hessian.num_parameters
        return MinibatchModel(self.eigenvalues, float(per_example[0]), count, 0.0, per_example[1:], order).at(batch_size)

    @property
    def kappa(self) -> tuple[float, float]:
        """V_u / V_z along the smallest and the largest eigenvector: one where the noise is the same in all directions."""
        return tuple(one.value / self.hessian.isotropic for one in self.hessian.directional[:2])  # type: ignore[return-value]

    def sizes(self) -> list[float]:
        """Batch sizes of the table: powers of two up to all data."""
        most = int(math.log2(self.num_examples))
        return [float(2**power) for power in range(min(4, most), most + 1)]

    def table(self) -> list[dict[str, float]]:
        """For each size: V_z, predicted extreme eigenvalues, and learning-rate caps without and with a momentum of 0.9.

        ``largest_low`` and ``largest_high`` are the 95 % interval of ``largest`` by that of the variances.
        """
        rows = []
        for size in self.sizes():
            if not self.hessian.isotropic > 0:
                break
            found, (low, high) = self.predicted(size), self.predicted_interval(size)
            stable = found.largest > 0
            rows.append(
                {
                    "batch_size": size, "variance": found.variance, "smallest": found.smallest, "largest": found.largest,
                    "largest_low": low.largest, "largest_high": high.largest,
                    "learning_rate_cap": found.learning_rate_cap() if stable else math.inf,
                    "learning_rate_cap_momentum": found.learning_rate_cap(0.9) if stable else math.inf,
                }
            )  # fmt: skip
        return rows

    def metrics(self) -> dict[str, Metric]:
        """The numbers as metrics, by name."""
        of = self.hessian
        size = f"batches of {self.batch_size:g}"
        out = {
            "loss_variance": self.loss_variance, "gradient_variance": self.gradient_variance,
            "hessian_variance": Metric.of(of.estimate, name="hessian_variance", unit=VARIANCE, note=f"V_z, {size}", least=0.0),
            "shrinkage": self.shrinkage,
        }  # fmt: skip
        for name, estimate in zip(("smallest", "largest"), of.directional, strict=False):
            if of.isotropic > 0:
                out[f"kappa_{name}"] = _ratio(estimate, of.estimate, f"kappa_{name}", f"V_u / V_z along the {name} eigenvector")
        # What a report counts are products with all data.
        return {name: metric.with_changes(num_matvecs=round(metric.num_matvecs / self.num_batches)) for name, metric in out.items()}

    def to_json(self) -> dict[str, Any]:
        """Numbers and table as plain objects."""
        rows = {name: metric.to_json() for name, metric in self.metrics().items()}
        return plain({"batch_size": self.batch_size, "num_batches": self.num_batches, "metrics": rows, "by_batch_size": self.table()})

    def __str__(self) -> str:
        lines = [
            f"{'batch size':>12s} {'V_z':>11s} {'smallest':>11s} {'largest':>11s} {'95 % interval':>21s} {'rate cap':>11s} "
            f"{'at momentum 0.9':>16s}"
        ]
        for row in self.table():
            interval = f"{row['largest_low']:.4g} to {row['largest_high']:.4g}"
            lines.append(
                f"{row['batch_size']:12,.0f} {row['variance']:11.4g} {row['smallest']:11.4g} {row['largest']:11.4g} {interval:>21s} "
                f"{row['learning_rate_cap']:11.4g} {row['learning_rate_cap_momentum']:16.4g}"
            )
        return "\n".join(lines)


def batch_statistics(obj: Objective, *, progress: Progress = None, **options: Any) -> BatchStatistics:
    """Variances of loss, gradient and Hessian over batches, and the extreme eigenvalues by batch size that follow.

    One Lanczos run, and as many products with all data as there are probes, but at least four, plus three. Standard errors of variances
    are by a jackknife over the batches, which is the sampling of the data already.

    Parameters
    ----------
    obj : Objective
        With at least two batches, random parts of the data.
    progress : bool or callable, optional
        True shows bars.
    **options
        Of `SharedRun.of`: ``num_steps``, ``num_probes``, ``seed``, ``memory_budget``, ...

    Returns
    -------
    BatchStatistics
        Printing it shows the table by batch size.

    Raises
    ------
    ValueError
        When there is only one batch.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature import metrics
    >>> _ = torch.manual_seed(0)
    >>> objective = ls.objective(torch.nn.Linear(5, 3), "cross_entropy", (torch.randn(64, 5), torch.randint(0, 3, (64,))), batch_size=8)
    >>> found = metrics.batch_statistics(objective)
    >>> found.num_batches, 0 < found.shrinkage.value < 1, found.predicted(8).largest > found.predicted(32).largest
    (8, True, True)
    """
    objective = require_objective(obj, "batch statistics")
    batches = BatchSet.of(objective, "batch statistics")
    return measure_batches(SharedRun.of(objective, progress=progress, **options), batches, progress=progress)


def measure_batches(
    shared: SharedRun, batches: BatchSet, *, slopes: Slopes | None = None, memory_budget: Any = None, progress: Progress = None
) -> BatchStatistics:
    """The statistics from a run that is there; see `batch_statistics`.

    Parameters
    ----------
    shared : SharedRun
        Of the Hessian, with its vectors.
    batches : BatchSet
        Of the same objective.
    slopes : mapping of str to callable, optional
        What the choice of the data does to a metric, by name, from the `BatchInfluence`; see `sampling` of the result.
    memory_budget : int, float, str or None
        For the products of all batches at a time.
    progress : bool or callable, optional
        True shows a bar of batches.

    Raises
    ------
    ValueError
        When the run kept no vectors.
    MemoryError
        When the products do not fit.
    """
    began = time.perf_counter()
    m, n, backend = shared.density.run.num_probes, int(shared.operator.shape[0]), shared.operator.backend
    more = max(0, DIRECTIONS - m)
    rows = base_rows(shared, more)
    fixed = int(rows.shape[0]) - more
    if more:
        seed = shared.density.run.seed
        rows[fixed:, :] = backend.probes(n, range(m, m + more), kind="sphere", seed=seed, domain="probe", dtype=shared.operator.dtype)
    count, needed = len(batches.parts), (len(batches.parts) + 1) * int(rows.shape[0] + 2) * n * shared.operator.dtype.itemsize
    if needed > (budget := parse_budget(memory_budget, total=backend.total_memory())):
        raise MemoryError(
            f"The products of {count} batches take {format_bytes(needed)}, over the budget of {format_bytes(budget)}; make larger "
            "batches, or raise "
            "memory_budget."
        )
    with ProgressBar(progress, count, "batches", unit="batch") as bar:
        products = batches.products(rows, bar)
    squares = batches.squares(products)
    random = [*range(m), *range(fixed, fixed + more)]
    isotropic = variance_from_squares(squares[:, random], vary=len(random) < n, weights=batches.relative)
    directional = tuple(variance_from_squares(squares[:, j : j + 1], vary=False, weights=batches.relative) for j in range(m, fixed))
    seconds = time.perf_counter() - began
    spent = count * int(rows.shape[0])
    isotropic, *along = (
        dataclasses.replace(one, num_matvecs=count * weight, seconds=seconds, method="variance over batches")
        for one, weight in ((isotropic, len(random)), *((one, 1) for one in directional))
    )
    total = float(batches.sizes.sum())
    variance = HessianVariance(isotropic, tuple(along), batches.size, total, count, n, spent, seconds, batches)
    gradients = batches.gradients
    gram = gram_of(batches, gradients)
    signal, noise = signal_and_noise(gram, batches.sizes)
    mean, mean_error = _mean_eigenvalue(shared)
    (smallest, _), (largest, _) = shared.density.extreme_eigenvalues()
    middle = batches.mean(products)
    for own in products:
        own -= middle
    influence = BatchInfluence(shared, batches, products, memory_budget=memory_budget)
    sampling, not_sampled = effects_of(influence, slopes or {})
    spent += count * influence.num_matvecs
    return BatchStatistics(
        batches.size,
        total,
        count,
        _loss(batches),
        _loss_variance(batches),
        Metric(
            signal, name="gradient_squared", unit="(loss/parameter)^2", note="|G|^2 without the noise of the data", method="batch gradients"
        ),
        _gradient_variance(gram, batches, noise),
        variance,
        Metric(mean, standard_error=mean_error, name="mean_eigenvalue", unit=CURVATURE, note="tr H / P"),
        _shrinkage(shared, variance),
        np.array([smallest, largest]),
        sampling,
        not_sampled,
        spent,
        time.perf_counter() - began,
    )


def effects_of(influence: BatchInfluence, slopes: Slopes) -> tuple[dict[str, tuple[float, float]], dict[str, str]]:
    """Standard error and bias by the choice of the data of what the shared run gives and of functions of it, and why of what not."""
    effects: dict[str, Callable[[BatchInfluence], Effect]] = {
        "smallest_eigenvalue": lambda own: own.end(upper=False), "largest_eigenvalue": lambda own: own.end(upper=True), **slopes
    }  # fmt: skip
    if influence.shared.gradient_norm > 0:
        effects = {"gradient_norm": BatchInfluence.gradient_norm, "gradient_curvature": BatchInfluence.gradient_curvature, **effects}
    found, refused = {}, {}
    for name, effect in effects.items():
        try:
            own = effect(influence)
        except (ValueError, ArithmeticError, MemoryError) as error:
            refused[name] = str(error)
            continue
        found[name] = (influence.error(own), own.bias)
    return found, refused


def _mean_eigenvalue(shared: SharedRun) -> tuple[float, float]:
    found = shared.density.expectation(lambda x: x)
    return found.value, found.standard_error


def _shrinkage(shared: SharedRun, variance: HessianVariance) -> Metric:
    """Intensity of Ledoit and Wolf, by the mean square distance of the eigenvalues from their mean."""
    S = shared.density
    mean = S.expectation(lambda x: x).value
    spread = S.expectation(lambda x: (x - mean) ** 2)
    of_all = variance.per_example / variance.num_examples
    if not spread.value > 0:
        return Metric(0.0, name="shrinkage", note="the Hessian is a multiple of the identity", least=0.0, most=1.0)
    ratio = of_all / spread.value
    error = ratio * math.hypot(
        variance.standard_error / variance.isotropic if variance.isotropic > 0 else 0.0, spread.standard_error / spread.value
    )
    return Metric(
        max(0.0, 1 - ratio),
        standard_error=error,
        degrees_of_freedom=variance.estimate.degrees_of_freedom,
        num_matvecs=variance.num_matvecs,
        name="shrinkage",
        note="1 - V_N P / |H - tr H / P|_F^2",
        least=0.0,
        most=1.0,
        method="variance over batches",
    )


def _loss(batches: BatchSet) -> Metric:
    weights = batches.sizes / batches.sizes.sum()
    mean, count = float(weights @ batches.losses), len(weights)
    return Metric(
        mean, sampling_error=standard_error(weights, batches.losses), sampling_degrees=float(count - 1), name="loss", unit="loss",
        note="without weight decay", num_examples=float(batches.examples.sum()),
    )  # fmt: skip


def _loss_variance(batches: BatchSet) -> Metric:
    weights = batches.sizes / batches.sizes.sum()
    squares = (batches.losses - float(weights @ batches.losses)) ** 2
    found = variance_from_squares(squares[:, None], vary=False, weights=batches.relative)
    return Metric.of(
        found, name="loss_variance", unit="loss^2", note=f"batches of {batches.size:g}", method="variance over batches", least=0.0
    )


def _gradient_variance(gram: np.ndarray, batches: BatchSet, noise: float) -> Metric:
    weights = batches.sizes / batches.sizes.sum()
    distance = np.diag(gram) - 2 * gram @ weights + float(weights @ gram @ weights)
    found = variance_from_squares(np.maximum(distance, 0.0)[:, None], vary=False, weights=batches.relative)
    return Metric.of(
        found, value=noise / batches.size, name="gradient_variance", unit="(loss/parameter)^2", note=f"trace, batches of {batches.size:g}",
        method="variance over batches", least=0.0,
    )  # fmt: skip


def _ratio(numerator: Estimate, denominator: Estimate, name: str, note: str) -> Metric:
    """A ratio of two estimates as a metric without a unit."""
    return ratio_metric(numerator, denominator, name=name, note=note, least=0.0)
