r"""How much the curvature of a batch varies: Hessian variance, its dependence on the direction, and what it does to eigenvalues.

For K disjoint batches with the Hessians :math:`H_b` of :math:`n_b` examples each, and :math:`H = \sum_b n_b H_b / \sum_b n_b`, a batch that
is the mean of :math:`n_b` examples has :math:`1 / n_b` of the variance of one. Therefore
:math:`\hat\sigma^2_z = \frac{1}{K - 1} \sum_b n_b |(H_b - H) z|^2` is unbiased for the variance of one term along a unit vector z,
whatever the sizes of the batches, and a batch of B examples has :math:`V = \hat\sigma^2 / B`. For equal batches this is
:math:`\frac{1}{K - 1} \sum_b |(H_b - H) z|^2`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from typing import Any

import numpy as np

from ..._memory import format_bytes, parse_budget
from ..._progress import Progress, ProgressBar
from ...backends import Array
from ...estimators.field_variance import unit_row, variance_from_squares
from ...estimators.sampling import random_rows, unit_rows
from ...krylov import eigsh
from ...krylov.lanczos import check_count
from ...operators import LinearOperator
from ...random_matrices.models import MinibatchModel, MinibatchPrediction
from ...results import Estimate, PathLike, register, save_result
from ..objective import Objective
from .batches import BatchSet
from .metric import CURVATURE, Metric, ratio_metric
from .source import require_objective

VARIANCE = f"({CURVATURE})^2"


@register("hessian variance")
@dataclasses.dataclass(frozen=True, eq=False)
class HessianVariance:
    r"""Variance of the Hessian of a batch, by direction.

    Attributes
    ----------
    estimate : Estimate
        :math:`V_z`: the mean of :math:`|(H_B - E H_B) z|^2` over unit vectors z, which is the squared Frobenius norm of the fluctuation
        over the number of parameters. Its standard error is that by the batches (jackknife) and by the directions.
    directional : tuple of Estimate
        :math:`V_u` along each of the directions that were given.
    batch_size : float
        Examples of the (largest) batch that all variances are for; they are inversely proportional to it.
    num_examples : float
        Of all data.
    num_batches : int
        K.
    num_parameters : int
        P.
    num_matvecs : int
        Products with the Hessian of one batch; K of them cost what one with the Hessian of all data costs.
    seconds : float
        Wall-clock time.
    batches : BatchSet or None
        The batches, for further directions; None after loading.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature.metrics import hessian_variance
    >>> inputs = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> objective = ls.objective(model, "mse", (inputs, torch.zeros(4, 1)), batch_size=1)
    >>> found = hessian_variance(objective)  # the variance of 2 x^2 = 2, 8, 18, 32
    >>> round(found.isotropic, 4), round(found.kappa([1.0]), 4)
    (172.0, 1.0)
    """

    estimate: Estimate
    directional: tuple[Estimate, ...]
    batch_size: float
    num_examples: float
    num_batches: int
    num_parameters: int
    num_matvecs: int
    seconds: float
    batches: BatchSet | None = dataclasses.field(default=None, repr=False)

    @property
    def isotropic(self) -> float:
        """V_z, the variance averaged over all directions; unit (loss/parameter^2)^2."""
        return self.estimate.value

    @property
    def standard_error(self) -> float:
        """Standard error of `isotropic`."""
        return self.estimate.standard_error

    @property
    def per_example(self) -> float:
        """Isotropic variance of batches of a single example."""
        return self.isotropic * self.batch_size

    def along(self, u: Any) -> float:
        """V_u, the variance along a vector of any length but zero, shape (num_parameters,); K products of one batch."""
        return self.estimate_along(u).value

    def estimate_along(self, u: Any) -> Estimate:
        """V_u with its standard error by the batches; see `along`.

        Raises
        ------
        ValueError
            When the vector is zero or of another shape, or the result was loaded from a file.
        """
        began, batches = time.perf_counter(), self._batches()
        row = unit_row(batches.first, u)
        products = batches.products(row)
        found = variance_from_squares(batches.squares(products), vary=False, weights=batches.relative)
        return _finish(found, batches, products, time.perf_counter() - began, "variance over batches, one direction")

    def kappa(self, u: Any) -> float:
        """V_u / V_z: one where the noise is the same in all directions, as the additive model of batches assumes."""
        return self.estimate_kappa(u).value

    def estimate_kappa(self, u: Any) -> Metric:
        """V_u / V_z with the errors of both, taken as independent."""
        if not self.isotropic > 0:
            raise ValueError("The Hessian is the same in every batch, so that the ratio of its variances is not defined.")
        return ratio_metric(self.estimate_along(u), self.estimate, name="kappa", note="V_u / V_z", least=0.0)

    def at(self, batch_size: float) -> float:
        """V_z of batches of another size, drawn from an endless stream."""
        if not batch_size > 0:
            raise ValueError(f"The argument batch_size must be positive, but is {batch_size!r}.")
        return self.per_example / float(batch_size)

    def predicted(
        self, batch_size: float, *, eigenvalues: Any = None, eigenvectors: Any = None, bulk: float = 0.0, without_replacement: bool = True
    ) -> MinibatchPrediction:
        r"""Extreme eigenvalues of the Hessian of a batch, and the cap of the learning rate that follows.

        Each eigenvalue moves away from the bulk by :math:`V_u / (\lambda - \text{bulk})` with the variance along its own eigenvector.

        Parameters
        ----------
        batch_size : float
            B, in examples.
        eigenvalues, eigenvectors : array, optional
            Of the Hessian of all data, shapes (k,) and (num_parameters, k). Without vectors the isotropic variance shifts all of them. By
            default both ends are found first, once.
        bulk : float
            Where most eigenvalues are.
        without_replacement : bool
            Whether batches are drawn from these examples, and a batch of all of them has no noise; else from an endless stream.

        Returns
        -------
        MinibatchPrediction
            With ``largest``, ``smallest``, ``overlaps`` and ``learning_rate_cap(momentum)``.
        """
        variances: np.ndarray | None
        if eigenvalues is None:
            values, variances = self._extremes
        else:
            values = np.atleast_1d(np.asarray(eigenvalues, dtype=np.float64))
            variances = None if eigenvectors is None else self._along_columns(eigenvectors, values.size)
        per_example = None if variances is None else variances * self.batch_size
        if not self.isotropic > 0:
            raise ValueError(
                "The Hessian is the same in every batch: batches have the eigenvalues of all data, and there is nothing to predict."
            )
        total = round(self.num_examples) if without_replacement else None
        model = MinibatchModel(values, self.per_example, total, bulk, per_example, self.num_parameters)
        return model.at(batch_size)

    @functools.cached_property
    def _extremes(self) -> tuple[np.ndarray, np.ndarray]:
        operator = self._batches().whole.hessian()
        count = min(2, operator.shape[0])
        pairs = eigsh(operator, k=count, which="BE", tol=1e-4, verify=False)
        return pairs.eigenvalues, self._along_columns(pairs.eigenvectors, count)

    def _along_columns(self, vectors: Any, count: int) -> np.ndarray:
        given = self._batches().whole.functions.backend.asarray(vectors)
        if tuple(given.shape) != (self.num_parameters, count):
            raise ValueError(
                f"The argument eigenvectors must have shape ({self.num_parameters}, {count}), one column for each eigenvalue, but "
                "has shape "
                f"{tuple(given.shape)}."
            )
        return np.array([self.along(given[:, j]) for j in range(count)])

    def _batches(self) -> BatchSet:
        if self.batches is None:
            raise ValueError("This Hessian variance was loaded from a file, which holds no batches; measure it again for other directions.")
        return self.batches

    def save(self, path: PathLike) -> None:
        """Write the numbers to `path` (``.npz``), without the batches; `linop_spectra.load` reads them back."""
        scalars = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "batches"}
        scalars["estimate"] = dataclasses.asdict(self.estimate)
        scalars["directional"] = [dataclasses.asdict(one) for one in self.directional]
        save_result(path, "hessian variance", scalars, {})

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> HessianVariance:
        estimate, directional = Estimate(**scalars.pop("estimate")), tuple(Estimate(**one) for one in scalars.pop("directional"))
        return cls(estimate, directional, **scalars)

    def __str__(self) -> str:
        low, high = self.estimate.confidence_interval()
        lines = [
            f"V_z = {self.isotropic:.6g} (95 % interval {low:.6g} to {high:.6g}) for batches of {self.batch_size:g}, from "
            f"{self.num_batches} batches"
        ]
        lines += [f"V_u = {one.value:.6g}, {one.value / self.isotropic:.3g} of V_z" for one in self.directional if self.isotropic > 0]
        return "\n".join(lines)


def hessian_variance(
    obj: Objective,
    *,
    direction: Any = None,
    num_probes: int = 8,
    seed: int = 0,
    memory_budget: int | float | str | None = None,
    progress: Progress = None,
) -> HessianVariance:
    r"""Variance of the Hessian of a batch, averaged over all directions and along given ones.

    It decides how the extreme eigenvalues, and with them the largest stable learning rate, depend on the batch size. Its standard error
    is by a jackknife over the batches, which is the sampling of the data already.

    Parameters
    ----------
    obj : Objective
        With at least two batches, the larger of which all variances refer to; batches of different sizes are weighted by their sizes.
        They should be random parts of the data.
    direction : array, optional
        One vector or several as columns, shape (num_parameters,) or (num_parameters, k), of any length but zero.
    num_probes : int
        Random directions for the average; from the number of parameters on, the unit vectors instead, which is exact.
    seed : int
        Of the random directions.
    memory_budget : int, float, str or None
        For the products of all batches with a vector or more, by default 40 % of the memory.
    progress : bool or callable, optional
        True shows a bar of batches.

    Returns
    -------
    HessianVariance
        With ``isotropic``, ``along(u)``, ``kappa(u)`` and ``predicted(batch_size)``. It costs `num_probes` products with the Hessian of
        all data, and one for each direction.

    Raises
    ------
    ValueError
        When there is only one batch, or a direction is zero or of another shape.
    MemoryError
        When the products with a single vector do not fit the budget.
    NonFiniteEstimateError
        When a product holds NaN or infinity.

    References
    ----------
    D. Granziol, S. Zohren and S. Roberts, *Learning rates as a function of batch size: a random matrix theory approach to neural
    network training*, J. Mach. Learn. Res. 23 (2022).

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature.metrics import hessian_variance
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    >>> objective = ls.objective(model, "cross_entropy", (torch.randn(64, 5), torch.randint(0, 3, (64,))), batch_size=8)
    >>> found = hessian_variance(objective)
    >>> found.num_batches, found.isotropic > 0, found.predicted(16).largest > found.predicted(64).largest
    (8, True, True)
    """
    began = time.perf_counter()
    batches = BatchSet.of(require_objective(obj, "Hessian variance"), "Hessian variance")
    n, num_probes = obj.num_parameters, check_count("num_probes", num_probes)
    exact = num_probes >= n
    count = n if exact else num_probes
    first = batches.first
    directions = [] if direction is None else _columns(first, direction)
    chunks = _chunks(batches, count, memory_budget)
    squares, largest = [], 0.0
    products: list[Array] = []
    with ProgressBar(progress, len(batches.parts) * (len(chunks) + len(directions)), "Hessian variance", unit="batch") as bar:
        for indices in chunks:
            if exact:
                rows = unit_rows(first, indices)
            else:
                rows = random_rows(first, indices, "sign", seed, "field variance")
                rows /= math.sqrt(n)
            products = batches.products(rows, bar)
            squares.append(batches.squares(products))
            largest = max(largest, _longest(first, products))
        isotropic = variance_from_squares(np.concatenate(squares, axis=1), vary=not exact, weights=batches.relative)
        along = []
        for row in directions:
            started = time.perf_counter()
            own = batches.products(row, bar)
            found = variance_from_squares(batches.squares(own), vary=False, weights=batches.relative)
            along.append(_finish(found, batches, own, time.perf_counter() - started, "variance over batches, one direction"))
    seconds = time.perf_counter() - began
    method = "variance over batches" if exact else "variance over batches, random directions"
    estimate = dataclasses.replace(
        isotropic,
        rounding_error=_rounding(isotropic.value, largest, first),
        num_matvecs=len(batches.parts) * count,
        seconds=seconds,
        method=method,
    )
    return HessianVariance(
        estimate, tuple(along), batches.size, float(batches.sizes.sum()), len(batches.parts), n,
        len(batches.parts) * (count + len(directions)), seconds, batches,
    )  # fmt: skip


def _finish(found: Estimate, batches: BatchSet, products: list[Array], seconds: float, method: str) -> Estimate:
    first = batches.first
    return dataclasses.replace(
        found,
        rounding_error=_rounding(found.value, _longest(first, products), first),
        num_matvecs=len(products),
        seconds=seconds,
        method=method,
    )


def _longest(operator: LinearOperator, products: list[Array]) -> float:
    backend = operator.backend
    return max(float(np.real(backend.fetch([backend.norm(own[i, :]) for i in range(own.shape[0])])).max()) for own in products)


def _rounding(variance: float, longest: float, operator: LinearOperator) -> float:
    each = 2 * operator.unit_rounding * longest
    return 2 * math.sqrt(max(variance, 0.0)) * each + each**2


def _columns(operator: LinearOperator, direction: Any) -> list[Array]:
    given = operator.backend.asarray(direction, dtype=operator.dtype)
    if len(given.shape) == 2:
        return [unit_row(operator, given[:, j]) for j in range(given.shape[1])]
    return [unit_row(operator, given)]


def _chunks(batches: BatchSet, count: int, memory_budget: int | float | str | None) -> list[range]:
    operator, k = batches.first, len(batches.parts)
    budget = parse_budget(memory_budget, total=operator.backend.total_memory())
    each = (k + 2) * operator.shape[0] * operator.dtype.itemsize
    if each > budget:
        raise MemoryError(
            f"The products of {k} batches with one vector take {format_bytes(each)}, over the budget of {format_bytes(budget)}; "
            "make larger batches, "
            "or pass memory_budget= to allow more."
        )
    step = max(1, min(count, budget // each, 64))
    return [range(start, min(start + step, count)) for start in range(0, count, step)]
