r"""Evidence of the data and effective dimension under Gaussian priors, by Laplace's approximation, for a range of precisions at once.

With the summed loss :math:`E` (a negative log-likelihood), its Gauss-Newton matrix with the eigenvalues :math:`\mu_i`, and a prior of
precision :math:`\alpha` for each of P parameters (MacKay, *A practical Bayesian framework for backpropagation networks*, Neural Comput.
4, 1992, eq. 2.15),

.. math::

    \log Z(\alpha) = -E(\theta) - \tfrac{\alpha}{2} |\theta|^2 + \tfrac P2 \log \alpha - \tfrac12 \sum_i \log(\mu_i + \alpha), \qquad
    \gamma(\alpha) = \sum_i \frac{\mu_i}{\mu_i + \alpha}.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from typing import Any, Literal

import numpy as np

from ...results import Estimate, PathLike, html_table, register, save_result
from ...spectra import spectral_density
from ..objective import Objective
from .influence import BatchInfluence
from .metric import Metric
from .shared_run import run_of
from .source import inner, require_objective


@register("laplace evidence")
@dataclasses.dataclass(frozen=True, eq=False)
class LaplaceEvidence:
    """Evidence and effective dimension by prior precision.

    Attributes
    ----------
    prior_precisions : numpy.ndarray
        alpha, ascending, shape (k,).
    log_evidence, log_evidence_error : numpy.ndarray
        log Z, and half of its 95 % interval, shape (k,), in nats. The factor of the likelihood that the loss leaves out is that of
        `log_constant`.
    effective_dimension, effective_dimension_error : numpy.ndarray
        gamma, and half of its 95 % interval, shape (k,).
    log_evidence_sampling, effective_dimension_sampling : numpy.ndarray
        Standard errors by the choice of the data, shape (k,); empty where that was not asked for.
    log_evidence_bias, effective_dimension_bias : numpy.ndarray
        How much they exceed, on average, those of the mean curvature of endless data, shape (k,); empty likewise.
    sampling_degrees, num_examples : float
        Of Student's t distribution for these, and the examples that they are for.
    parameter_norm : float
        Norm of the parameters.
    loss : float
        Summed loss.
    num_matvecs : int
        Products.
    seconds : float
        Wall-clock time.
    """

    prior_precisions: np.ndarray
    log_evidence: np.ndarray
    log_evidence_error: np.ndarray
    effective_dimension: np.ndarray
    effective_dimension_error: np.ndarray
    parameter_norm: float
    loss: float
    num_matvecs: int
    seconds: float
    log_evidence_sampling: np.ndarray = dataclasses.field(default_factory=functools.partial(np.zeros, 0))
    effective_dimension_sampling: np.ndarray = dataclasses.field(default_factory=functools.partial(np.zeros, 0))
    log_evidence_bias: np.ndarray = dataclasses.field(default_factory=functools.partial(np.zeros, 0))
    effective_dimension_bias: np.ndarray = dataclasses.field(default_factory=functools.partial(np.zeros, 0))
    sampling_degrees: float = math.inf
    num_examples: float = 0.0

    @property
    def best(self) -> float:
        """The precision of the list with the largest evidence."""
        return float(self.prior_precisions[int(np.argmax(self.log_evidence))])

    @property
    def updated(self) -> np.ndarray:
        """MacKay's next precision ``gamma / |theta|^2`` for each, shape (k,); it is the same where the evidence is stationary."""
        return self.effective_dimension / self.parameter_norm**2

    def metrics(self) -> dict[str, Metric]:
        """The best precision, its evidence and effective dimension, as metrics by name."""
        place = int(np.argmax(self.log_evidence))
        cost: dict[str, Any] = {"num_matvecs": self.num_matvecs, "seconds": self.seconds, "method": "stochastic Lanczos quadrature"}
        note = f"at the prior precision {self.best:.4g}, the best of {len(self.prior_precisions)}"
        return {
            "laplace_prior_precision": Metric(
                self.best, name="laplace_prior_precision", unit="1/parameter^2", note="largest evidence of the list"
            ),
            "laplace_log_evidence": Metric(
                float(self.log_evidence[place]),
                quadrature_error=float(self.log_evidence_error[place]),
                **self._sampling(self.log_evidence_sampling, self.log_evidence_bias, place),
                name="laplace_log_evidence",
                unit="nat",
                note=note,
                **cost,
            ),
            "laplace_effective_dimension": Metric(
                float(self.effective_dimension[place]),
                quadrature_error=float(self.effective_dimension_error[place]),
                **self._sampling(self.effective_dimension_sampling, self.effective_dimension_bias, place),
                name="laplace_effective_dimension",
                note=note,
                least=0.0,
                **cost,
            ),
        }

    def _sampling(self, errors: np.ndarray, biases: np.ndarray, place: int) -> dict[str, Any]:
        if not self.num_examples:
            return {}
        return {
            "sampling_error": float(errors[place]), "bias": float(biases[place]), "sampling_degrees": self.sampling_degrees,
            "num_examples": self.num_examples,
        }  # fmt: skip

    def save(self, path: PathLike) -> None:
        """Write the numbers to `path` (``.npz``); `linop_spectra.load` reads them back."""
        arrays = {
            name: value
            for name in (field.name for field in dataclasses.fields(self))
            if isinstance(value := getattr(self, name), np.ndarray)
        }
        names = ("parameter_norm", "loss", "num_matvecs", "seconds", "sampling_degrees", "num_examples")
        scalars = {name: getattr(self, name) for name in names}
        save_result(path, "laplace evidence", scalars, arrays)

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> LaplaceEvidence:
        fields: dict[str, Any] = {**scalars, **arrays}
        return cls(**fields)

    def __str__(self) -> str:
        lines = [f"{'precision':>11s} {'log evidence':>14s} {'+-':>9s} {'dimension':>11s} {'+-':>9s}"]
        for row in zip(
            self.prior_precisions,
            self.log_evidence,
            self.log_evidence_error,
            self.effective_dimension,
            self.effective_dimension_error,
            strict=True,
        ):
            lines.append("{:11.4g} {:14.7g} {:9.2g} {:11.5g} {:9.2g}".format(*row))
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return html_table([("largest evidence", f"{self.log_evidence.max():.6g} nats at the precision {self.best:.4g}")])


def laplace_evidence(
    obj: Objective,
    prior_precisions: Any = None,
    *,
    matrix: Literal["ggn", "fisher"] = "ggn",
    log_constant: float = 0.0,
    sampling: bool = False,
    **options: Any,
) -> LaplaceEvidence:
    """Evidence of the data and effective dimension for a range of prior precisions, from one Lanczos run.

    Weight decay is no part of it: the prior takes its place. Pitfalls: the parameters have to be the maximum of the posterior for the
    evidence at a precision to be right there (at others it is that of the expansion about these parameters); and the loss has to be a
    negative log-likelihood, for ``"mse"`` that of normal elements of variance 1/2.

    Parameters
    ----------
    obj : Objective
        At a minimum of the regularised loss.
    prior_precisions : array, optional
        Positive, of each parameter, shape (k,); by default 25 from 1e-4 to 1e4 over the mean square of the parameters.
    matrix : {"ggn", "fisher"}
        A positive semidefinite matrix.
    log_constant : float
        Logarithm of the factor of the likelihood of all data that the loss leaves out; for ``"mse"`` minus half the number of elements
        times ``log(pi)``.
    sampling : bool
        Whether the sampling of the data is measured too, by the influence of each batch on the summed loss and on the matrix. It takes
        at least two batches, the Lanczos run of `SharedRun.of`, and as many products with all data as there are probes, plus three, plus
        one for each of 8 to 32 eigenvectors. The evidence is of all N examples: its error is that of another N of them.
    **options
        Of `linop_spectra.spectral_density`; with `sampling` of `SharedRun.of`.

    Returns
    -------
    LaplaceEvidence
        Arrays over the precisions.

    Raises
    ------
    TypeError
        When the loss has no such matrix.
    ValueError
        When a precision is not positive.

    Examples
    --------
    >>> import numpy as np, torch, linop_spectra as ls
    >>> from linop_spectra.curvature import metrics
    >>> model = torch.nn.Linear(1, 1, bias=False).double()
    >>> with torch.no_grad():
    ...     _ = model.weight.copy_(torch.tensor([[0.5]]))
    >>> objective = ls.objective(model, "mse", (torch.ones(1, 1).double(), torch.ones(1, 1).double()))
    >>> found = metrics.laplace_evidence(objective, [2.0], log_constant=-0.5 * np.log(np.pi))
    >>> expected = -0.5 * np.log(2 * np.pi) - 0.5  # the target 1 is normal with the variance 1/2 + 1/2
    >>> bool(np.isclose(found.log_evidence[0], expected))
    True
    """
    began, objective = time.perf_counter(), require_objective(obj, "evidence")
    if matrix not in ("ggn", "fisher"):
        raise ValueError(f"The argument matrix is {matrix!r}, but must be 'ggn' or 'fisher'; the Hessian may be indefinite.")
    objective = dataclasses.replace(objective, weight_decay=0.0)
    theta = objective.parameters()
    squared, n = inner(objective, theta, theta), objective.num_parameters
    if prior_precisions is None:
        if not squared > 0:
            raise ValueError("All parameters are zero, so that they suggest no scale of the prior; pass prior_precisions.")
        prior_precisions = np.geomspace(1e-4, 1e4, 25) * n / squared
    alphas = np.sort(np.atleast_1d(np.asarray(prior_precisions, dtype=np.float64)))
    if alphas.ndim != 1 or alphas.size == 0 or not (np.isfinite(alphas) & (alphas > 0)).all():
        raise ValueError(f"The argument prior_precisions must be positive finite numbers of shape (k,), but is {prior_precisions!r}.")
    total, terms = loss_sum(objective)
    scale = terms if objective.functions.averages else 1.0
    data: BatchInfluence | None = None
    if sampling:
        shared = run_of(objective, {**options, "matrix": matrix})
        S, data = shared.density, shared.influence
    else:
        S = spectral_density(objective.ggn() if matrix == "ggn" else objective.fisher(), **options)
    values, errors, dimensions, dimension_errors = (np.empty(alphas.size) for _ in range(4))
    for index, alpha in enumerate(alphas):
        logs = S.trace(functools.partial(_logarithm, scale / alpha))
        share = S.trace(functools.partial(_share, scale / alpha))
        # P/2 log alpha goes into the sum: log(mu / alpha + 1) has no cancellation.
        values[index] = log_constant - total - 0.5 * alpha * squared - 0.5 * logs.value
        errors[index], dimensions[index], dimension_errors[index] = 0.5 * _half(logs), share.value, _half(share)
    found = LaplaceEvidence(
        alphas, values, errors, dimensions, dimension_errors, math.sqrt(squared), total, S.num_matvecs, time.perf_counter() - began
    )
    return found if data is None else _with_sampling(found, data, scale, began)


def _with_sampling(found: LaplaceEvidence, data: BatchInfluence, scale: float, began: float) -> LaplaceEvidence:
    evidence, dimension = [], []
    for alpha in found.prior_precisions:
        factor = scale / float(alpha)
        logs = data.sum(functools.partial(_slope_of_logarithm, factor))
        evidence.append((-scale) * data.loss() + (-0.5) * logs)
        dimension.append(data.sum(functools.partial(_slope_of_share, factor)))
    return dataclasses.replace(
        found,
        log_evidence_sampling=np.array([data.error(one) for one in evidence]),
        effective_dimension_sampling=np.array([data.error(one) for one in dimension]),
        log_evidence_bias=np.array([one.bias for one in evidence]),
        effective_dimension_bias=np.array([one.bias for one in dimension]),
        sampling_degrees=float(len(data.weights) - 1),
        num_examples=float(data.batches.examples.sum()),
        num_matvecs=data.shared.num_matvecs + data.num_matvecs,
        seconds=time.perf_counter() - began,
    )


def _slope_of_logarithm(factor: float, x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, factor / (1 + factor * np.maximum(x, 0.0)), 0.0)


def _slope_of_share(factor: float, x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, factor / (1 + factor * np.maximum(x, 0.0)) ** 2, 0.0)


def _logarithm(factor: float, x: np.ndarray) -> np.ndarray:
    return np.asarray(np.log1p(factor * np.maximum(x, 0.0)))


def _share(factor: float, x: np.ndarray) -> np.ndarray:
    scaled = factor * np.maximum(x, 0.0)
    return np.asarray(scaled / (scaled + 1.0))


def _half(estimate: Estimate) -> float:
    low, high = estimate.confidence_interval(0.95)
    return (high - low) / 2


def loss_sum(objective: Objective) -> tuple[float, float]:
    """Summed loss, and the number of its terms."""
    functions, total, terms = objective.functions, 0.0, 0.0
    with functions.session():
        for batch in objective.batches():
            own = functions.loss_sum(objective.point, batch)
            total, terms = total + own[0], terms + own[1]
    return total, terms
