r"""Sharpness: how much the loss rises near the parameters, in the worst case and on average.

Each has a closed form for a quadratic loss :math:`L(w) + g^\top e + \tfrac12 e^\top H e`, which the curvature gives, and one by
evaluating the loss itself. Where both differ, the radius is beyond the quadratic model. None of them is invariant to a change of the
parameters that leaves the function as it is; the adaptive ones are for rescalings of single parameters.
"""

from __future__ import annotations

import functools
import math
import time
from typing import Any, Literal

import numpy as np
from scipy import optimize

from ...backends import to_numpy
from ...krylov.tridiagonal import ritz
from ...operators import LinearOperator
from ..non_finite import NonFiniteLossError
from ..objective import Objective
from ..preconditioned import PreconditionedOperator
from .batches import BatchSet
from .extremes import largest_eigenvalue
from .influence import BatchInfluence, Effect, standard_error
from .metric import CURVATURE, Metric
from .resampling import resampled
from .shared_run import SharedRun, run_of
from .source import inner, operator_of, positive, require_objective
from .sums import trace


def sam_sharpness(obj: Objective, radius: float = 0.05, *, sampling: bool = False) -> Metric:
    r"""Rise of the loss by a step of this length along the gradient, :math:`L(w + \rho g / |g|) - L(w)` (Foret et al., 2021), in its unit.

    One gradient and two forward passes. To second order it is :math:`\rho |g| + \tfrac12 \rho^2 g^\top H g / |g|^2`. Pitfall: at a
    minimum, where the gradient vanishes, it says nothing of the worst direction; `worst_case_sharpness` does.

    Parameters
    ----------
    obj : Objective
        Model, loss, parameters and data.
    radius : float
        Length of the step, in units of the parameters.
    sampling : bool
        Whether the interval also holds the sampling of the data, which turn the step and change both losses: one more gradient and two
        forward passes, and the gradients of all batches.

    Raises
    ------
    ValueError
        When the gradient is zero.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature import metrics
    >>> model = torch.nn.Linear(1, 1, bias=False).double()
    >>> with torch.no_grad():
    ...     _ = model.weight.copy_(torch.tensor([[2.0]]))
    >>> objective = ls.objective(model, "mse", (torch.ones(1, 1).double(), torch.zeros(1, 1).double()))  # w^2
    >>> round(metrics.sam_sharpness(objective, 0.1).value, 8)  # 2.1^2 - 2^2
    0.41
    """
    began, objective = time.perf_counter(), require_objective(obj, "sharpness")
    radius = positive("radius", radius)
    gradient = objective.gradient()
    length = math.sqrt(inner(objective, gradient, gradient))
    if not length > 0:
        raise ValueError("The gradient is exactly zero, so that there is no step along it; use worst_case_sharpness.")
    before = objective.value()
    there = objective.with_parameters(objective.parameters() + (radius / length) * gradient)
    after = there.value()
    found = Metric(
        after - before,
        rounding_error=_rounding(objective, before, after),
        seconds=time.perf_counter() - began,
        method="two values of the loss",
        name="sam_sharpness",
        unit="loss",
        note=f"L(w + {radius:g} g/|g|) - L(w)",
    )
    if not sampling:
        return found
    batches = BatchSet.of(objective, "sampling of the sharpness")
    slope, direction = there.gradient(), gradient / length
    # A turn of the direction by what is across it in a batch's gradient.
    across = slope - inner(objective, slope, direction) * direction
    turns = np.array([inner(objective, across, own) for own in batches.gradients])
    return with_error(found, batches, batches.losses_at(there.parameters()) - batches.losses + radius / length * turns)


def with_error(found: Metric, batches: BatchSet, influence: np.ndarray) -> Metric:
    """A metric with the sampling error that the influence of each batch shows, shape (K,)."""
    weights = batches.sizes / batches.sizes.sum()
    return found.with_changes(
        sampling_error=standard_error(weights, influence), sampling_degrees=float(len(weights) - 1),
        num_examples=float(batches.examples.sum()),
    )  # fmt: skip


def worst_case_sharpness(source: Any, radius: float = 0.05, *, sampling: bool = False, **options: Any) -> Metric:
    r"""Largest rise of the loss's quadratic model in a ball, :math:`\max_{|e| \le \rho} g^\top e + \tfrac12 e^\top H e`; unit loss.

    From the Lanczos runs at the gradient and at a probe. At a minimum it is :math:`\tfrac12 \rho^2 \lambda_1`. The maximum is taken over
    the Krylov space of the gradient (as in a trust-region method, Gould et al., 1999) and along the top eigenvector.

    Parameters
    ----------
    source : Objective or SharedRun
        Of the Hessian.
    radius : float
        Of the ball, in units of the parameters.
    sampling : bool
        Whether the interval also holds the sampling of the data: how the model at the worst step depends on them, one product more than
        every `SharedRun.influence` takes. Its bias is that of the curvature along the largest eigenvector.
    **options
        Of `SharedRun.of`.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature import metrics
    >>> model = torch.nn.Linear(1, 1, bias=False).double()
    >>> with torch.no_grad():
    ...     _ = model.weight.copy_(torch.tensor([[2.0]]))
    >>> objective = ls.objective(model, "mse", (torch.ones(1, 1).double(), torch.zeros(1, 1).double()))  # w^2
    >>> round(metrics.worst_case_sharpness(objective, 0.1).value, 8)  # 2.1^2 - 2^2
    0.41
    """
    radius = positive("radius", radius)
    shared = source if isinstance(source, SharedRun) else run_of(require_objective(source, "sharpness"), options)
    top = largest_eigenvalue(shared.density)
    best = 0.5 * radius**2 * max(top.value, 0.0)
    if (inside := _in_krylov_space(shared, radius)) is not None:
        best = max(best, inside[0])
    found = Metric(
        best, quadrature_error=0.5 * radius**2 * top.quadrature_error, rounding_error=0.5 * radius**2 * top.rounding_error,
        num_matvecs=shared.num_matvecs, seconds=shared.seconds, method="quadratic model in the Krylov space of the gradient",
        converged=top.converged, name="worst_case_sharpness", unit="loss", note=f"quadratic model, |e| <= {radius:g}", least=0.0,
    )  # fmt: skip
    return shared.influence.carry(found, effect_of_worst_case(shared.influence, radius)) if sampling else found


def _in_krylov_space(shared: SharedRun, radius: float) -> tuple[float, np.ndarray] | None:
    """Largest rise in the Krylov space of the gradient, and its step in the basis of that."""
    if shared.along_gradient is None:
        return None
    values, vectors = ritz(*shared.along_gradient.jacobi(0))
    rise, step = maximum_in_ball(values, shared.gradient_norm * vectors[0], radius)
    return rise, vectors @ step


def effect_of_worst_case(data: BatchInfluence, radius: float) -> Effect:
    """Effect of the choice of the data on `worst_case_sharpness`: on the model at the worst step, which itself changes nothing."""
    shared = data.shared
    top = float(shared.density.extreme_eigenvalues()[1][0])
    vector, inside = shared.ritz_rows([-1])[0], _in_krylov_space(shared, radius)
    along = shared.along_gradient
    if inside is not None and inside[0] >= 0.5 * radius**2 * max(top, 0.0):
        if along is None or along.vectors is None or not along.vectors.bases:
            raise ValueError("The Lanczos run at the gradient kept no vectors; raise its memory_budget.")
        step = along.vectors.bases[0].combine(inside[1][None, :])[0]
    else:
        step = radius * vector
    share = inner(shared.operator, shared.operator.backend.contiguous(step), vector) ** 2
    found = data.rise(step)
    return Effect(found.influence, 0.5 * share * data.end(upper=True).bias)


def maximum_in_ball(eigenvalues: np.ndarray, slopes: np.ndarray, radius: float) -> tuple[float, np.ndarray]:
    r"""Maximum of :math:`\sum_i s_i x_i + \tfrac12 \lambda_i x_i^2` over a ball, and where it is.

    With the multiplier :math:`\mu \ge \lambda_1`, the maximiser is :math:`x_i = s_i / (\mu - \lambda_i)` where that has the length of the
    radius, or lies inside for :math:`\mu = 0`; what is missing in length goes along the top eigenvector.

    Examples
    --------
    >>> round(maximum_in_ball(np.array([2.0]), np.array([4.0]), 0.1)[0], 8)
    0.41
    >>> round(maximum_in_ball(np.array([-1.0, 2.0]), np.array([0.0, 0.0]), 1.0)[0], 8)
    1.0
    """
    size = float(np.linalg.norm(slopes))
    top = float(eigenvalues.max())
    scale = max(abs(top), float(np.abs(eigenvalues).max()), size / radius, np.finfo(np.float64).tiny)

    def length(mu: float) -> float:
        return float(np.linalg.norm(slopes / (mu - eigenvalues)))

    if top < 0 and length(0.0) <= radius:
        return float(np.sum(slopes**2 / -eigenvalues) / 2), slopes / -eigenvalues
    low, high = max(top, 0.0) + 1e-14 * scale, max(top, 0.0) + size / radius + scale
    if length(low) <= radius:  # the hard case: the gradient hardly meets the top eigenvector
        x = slopes / (low - eigenvalues)
        missing = math.sqrt(max(radius**2 - float(x @ x), 0.0))
        place = int(np.argmax(eigenvalues))
        x[place] += math.copysign(missing, x[place])
        x *= radius / max(float(np.linalg.norm(x)), radius)
    else:
        mu = float(optimize.brentq(lambda m: 1 / length(m) - 1 / radius, low, high, xtol=1e-16 * scale, rtol=1e-14))
        x = slopes / (mu - eigenvalues)
    return float(slopes @ x + 0.5 * eigenvalues @ x**2), x


def average_sharpness(
    source: Any,
    deviation: float = 0.01,
    *,
    method: Literal["quadratic", "sampled"] = "quadratic",
    num_samples: int = 16,
    seed: int = 0,
    sampling: bool = False,
    **options: Any,
) -> Metric:
    r"""Mean rise of the loss under Gaussian noise, :math:`E L(w + \sigma \varepsilon) - L(w)`; unit loss.

    ``"quadratic"``: :math:`\tfrac12 \sigma^2\, \mathrm{tr}\, H`, from the trace. ``"sampled"``: pairs of opposite noise, two forward
    passes each. On the sphere of radius r it is that of the deviation ``r / sqrt(P)``. Pitfall: the trace cancels between positive and
    negative curvature.

    Parameters
    ----------
    source : Objective, SharedRun or SpectralDensity
        The loss, or for ``"quadratic"`` also what knows the trace.
    deviation : float
        Of each parameter's noise.
    method : {"quadratic", "sampled"}
        The quadratic model, or values of the loss.
    num_samples : int
        Pairs of opposite noise.
    seed : int
        Of the noise.
    sampling : bool
        Whether the interval also holds the sampling of the data: as for the trace, or from the rises in each batch, as many forward passes
        again.
    **options
        Of `linop_spectra.trace`, for ``"quadratic"``.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature import metrics
    >>> objective = ls.objective(torch.nn.Linear(3, 1, bias=False).double(), "mse", (torch.eye(3).double(), torch.ones(3, 1).double()))
    >>> round(metrics.average_sharpness(objective, 0.1).value, 8)  # half of 0.01 times a trace of two
    0.01
    """
    deviation = positive("deviation", deviation)
    if method == "quadratic":
        found = trace(source, sampling=sampling, **options)
        return found.scaled(0.5 * deviation**2).with_changes(
            name="average_sharpness", unit="loss", note=f"quadratic model, noise of deviation {deviation:g}"
        )
    if method != "sampled":
        raise ValueError(f"The argument method is {method!r}, but must be 'quadratic' or 'sampled'.")
    if options:
        raise TypeError(f"The method 'sampled' has no use for the options {', '.join(sorted(options))}.")
    began = time.perf_counter()
    objective = source.objective if isinstance(source, SharedRun) else require_objective(source, "sharpness")
    if sampling:
        measure = functools.partial(average_sharpness, deviation=deviation, method="sampled", num_samples=num_samples, seed=seed)
        return resampled(objective, measure, "average sharpness", mean=True)
    rises = sampled_rises(objective, deviation, num_samples, seed)
    error = float(np.std(rises, ddof=1) / math.sqrt(len(rises))) if len(rises) > 1 else math.inf
    return Metric(
        float(rises.mean()),
        standard_error=error,
        degrees_of_freedom=float(max(len(rises) - 1, 1)),
        seconds=time.perf_counter() - began,
        method="pairs of opposite noise",
        name="average_sharpness",
        unit="loss",
        note=f"values of the loss, noise of deviation {deviation:g}",
    )


def sampled_rises(objective: Objective, deviation: float, num_samples: int, seed: int) -> np.ndarray:
    """Rise of the loss under noise and its opposite, averaged over both, for each of so many pairs."""
    if isinstance(num_samples, bool) or not isinstance(num_samples, int | np.integer) or num_samples < 1:
        raise ValueError(f"The argument num_samples must be a whole number of at least 1, but is {num_samples!r}.")
    backend, theta, before = objective.functions.backend, objective.parameters(), objective.value()
    out = np.empty(num_samples)
    for index in range(num_samples):
        noise = backend.probes(objective.num_parameters, [index], kind="normal", seed=seed, domain="weight noise", dtype=objective.dtype)[0]
        both = [objective.with_parameters(theta + sign * deviation * noise).value() for sign in (1.0, -1.0)]
        out[index] = (both[0] + both[1]) / 2 - before
    return out


def adaptive_hessian(obj: Objective, matrix: Any = None) -> LinearOperator:
    r"""The Hessian in units of the parameters, :math:`D_w H D_w` with :math:`D_w = \mathrm{diag}\, |w|`, as an operator; unit loss.

    Parameters
    ----------
    obj : Objective
        Model, loss, parameters and data.
    matrix : operator, optional
        Another symmetric matrix of the parameters.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature import metrics
    >>> model = torch.nn.Linear(2, 1, bias=False).double()
    >>> with torch.no_grad():
    ...     _ = model.weight.copy_(torch.tensor([[3.0, 0.0]]))
    >>> objective = ls.objective(model, "mse", (torch.eye(2).double(), torch.zeros(2, 1).double()))
    >>> metrics.adaptive_hessian(objective).to_dense()
    array([[9., 0.],
           [0., 0.]])
    """
    objective = require_objective(obj, "adaptive sharpness")
    return PreconditionedOperator(operator_of(objective if matrix is None else matrix), abs(objective.parameters()))


def adaptive_sharpness(
    obj: Objective, radius: float = 1.0, *, kind: Literal["worst", "average"] = "worst", sampling: bool = False, **options: Any
) -> Metric:
    r"""Sharpness with the noise of each parameter in proportion to its size (Kwon et al., 2021; Andriushchenko et al., 2023); unit loss.

    ``"worst"``: :math:`\tfrac12 \rho^2 \lambda_1(D_w H D_w)`, the largest rise at a minimum over :math:`|e / w| \le \rho`; one Lanczos
    run. ``"average"``: :math:`\tfrac12 \rho^2\, \mathrm{tr}(D_w H D_w)`, noise of deviation :math:`\rho |w|`. Invariant to rescaling
    single parameters against each other, and to nothing else.

    Parameters
    ----------
    obj : Objective
        Model, loss, parameters and data.
    radius : float
        Relative, without unit.
    kind : {"worst", "average"}
        Which one.
    sampling : bool
        Whether the interval also holds the sampling of the data: for ``"average"`` from the trace of each group of batches, as many
        products again, for ``"worst"`` by leaving out groups of batches, at most ten, nine more runs.
    **options
        Of `linop_spectra.spectral_density` or `linop_spectra.trace`.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature import metrics
    >>> model = torch.nn.Linear(2, 1, bias=False).double()
    >>> with torch.no_grad():
    ...     _ = model.weight.copy_(torch.tensor([[3.0, 1.0]]))
    >>> objective = ls.objective(model, "mse", (torch.eye(2).double(), torch.zeros(2, 1).double()))
    >>> round(metrics.adaptive_sharpness(objective).value, 8), round(metrics.adaptive_sharpness(objective, kind="average").value, 8)
    (4.5, 5.0)
    """
    radius = positive("radius", radius)
    if kind not in ("worst", "average"):
        raise ValueError(f"The argument kind is {kind!r}, but must be 'worst' or 'average'.")
    if sampling:
        measure = functools.partial(adaptive_sharpness, radius=radius, kind=kind, **options)
        return resampled(require_objective(obj, "adaptive sharpness"), measure, "adaptive sharpness", mean=kind == "average")
    operator = adaptive_hessian(obj)
    found = largest_eigenvalue(operator, **options) if kind == "worst" else trace(operator, **options)
    half, what = 0.5 * radius**2, "largest eigenvalue" if kind == "worst" else "trace"
    note = f"{half:g} times the {what} of D H D, D = |w|"
    return found.scaled(half).with_changes(name=f"adaptive_sharpness_{kind}", unit="loss", note=note)


def critical_sharpness(
    obj: Objective, *, direction: Any = None, tol: float = 1e-2, max_values: int = 64, sampling: bool = False
) -> Metric:
    r"""Two over the learning rate at which a step stops lowering the loss, :math:`2 / \eta_c` (Kalra et al., 2026); unit loss/parameter^2.

    No products: about ten values of the loss, by doubling and halving. For a quadratic along the gradient it is the curvature there,
    ``g.H.g / |g|^2``. Pitfall: it is of one direction only, not the largest eigenvalue.

    Parameters
    ----------
    obj : Objective
        Model, loss, parameters and data.
    direction : array, optional
        Update that the learning rate multiplies, as a step of descent, shape (num_parameters,); minus the gradient by default.
    tol : float
        Relative tolerance of the learning rate.
    max_values : int
        Evaluations of the loss at most.
    sampling : bool
        Whether the interval also holds the sampling of the data, by the implicit function of the learning rate: one more gradient and two
        forward passes, and without a `direction` the gradients of all batches.

    Raises
    ------
    ValueError
        When the gradient is zero, no small step lowers the loss, or no large one raises it.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature import metrics
    >>> objective = ls.objective(torch.nn.Linear(2, 1, bias=False).double(), "mse", (torch.eye(2).double(), torch.ones(2, 1).double()))
    >>> round(metrics.critical_sharpness(objective, tol=1e-6).value, 4)
    1.0
    """
    began, objective = time.perf_counter(), require_objective(obj, "critical sharpness")
    backend = objective.functions.backend
    step = -objective.gradient() if direction is None else backend.asarray(direction, dtype=objective.dtype)
    if tuple(step.shape) != (objective.num_parameters,):
        raise ValueError(f"The argument direction must have shape ({objective.num_parameters},), but has shape {tuple(step.shape)}.")
    length = math.sqrt(inner(objective, step, step))
    if not 0 < length < math.inf:
        raise ValueError(f"The direction has length {length}; at a stationary point pass a direction= that is not zero.")
    theta, before, values = objective.parameters(), objective.value(), 1

    def rises(rate: float) -> bool:
        nonlocal values
        if values >= max_values:
            raise ValueError(
                f"No learning rate where the loss is back at its value was found in {max_values} evaluations: it falls, or rises, "
                "at every step along the "
                "direction that was tried."
            )
        values += 1
        try:
            return not objective.with_parameters(theta + rate * step).value() <= before
        except NonFiniteLossError:
            return True

    scale = math.sqrt(float(np.sum(np.square(to_numpy(theta), dtype=np.float64)))) or 1.0
    high = 0.1 * scale / length
    if rises(high):
        low = high / 2
        smallest = 1e-3 * math.sqrt(objective.functions.unit_rounding) * scale / length
        while rises(low):
            low, high = low / 2, low
            if low < smallest:
                raise ValueError("No step along the direction lowers the loss, however small; pass a direction= of descent.")
    else:
        low, high = high, 2 * high
        while not rises(high):
            low, high = high, 2 * high
    while high / low > 1 + tol:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if rises(middle) else (middle, high)
    rate = math.sqrt(low * high)
    found = Metric(
        2 / rate, quadrature_error=(1 / low - 1 / high), seconds=time.perf_counter() - began, method=f"{values} values of the loss",
        name="critical_sharpness", unit=CURVATURE, note="2 / learning rate at which the loss is back at its value", least=0.0,
    )  # fmt: skip
    if not sampling:
        return found
    batches = BatchSet.of(objective, "sampling of the critical sharpness")
    there = objective.with_parameters(theta + rate * step)
    slope = there.gradient()
    change = batches.losses_at(there.parameters()) - batches.losses
    if direction is None:
        change = change - rate * np.array([inner(objective, slope, own) for own in batches.gradients])
    # L(w + rate s) = L(w): what a batch adds to the left side moves the rate, and 2 / rate by -2 / rate^2 times as much.
    return with_error(found, batches, 2 / rate**2 * change / inner(objective, slope, step))


def _rounding(objective: Objective, *values: float) -> float:
    return 4 * objective.functions.unit_rounding * max(abs(value) for value in values)
