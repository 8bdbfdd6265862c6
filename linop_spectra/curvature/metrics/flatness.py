"""Flatness measures that take the scale of the parameters into account: Fisher-Rao norm, relative flatness, PAC-Bayes deviation."""

from __future__ import annotations

import functools
import math
import time
from typing import Any, Literal

import numpy as np

from ...backends import to_numpy
from ...estimators import spectral_sums
from ...estimators.sampling import mean_with_error
from ..non_finite import NonFiniteLossError
from ..objective import Objective
from .influence import BatchInfluence, Effect
from .metric import Metric
from .resampling import resampled
from .shared_run import SharedRun
from .sharpness import sampled_rises
from .source import inner, positive, require_objective
from .sums import trace


def fisher_rao_norm(obj: Objective, kind: Literal["exact", "empirical"] = "exact", *, sampling: bool = False) -> Metric:
    r"""Fisher-Rao norm :math:`\theta^\top F \theta` (Liang, Poggio, Rakhlin and Stokes, 2019), squared as they define it; unit loss (nats).

    One product. With the empirical Fisher matrix of a network without biases whose activations are homogeneous, of L + 1 layers, it is
    exactly :math:`(L + 1)^2 E \langle \partial \ell / \partial f, f \rangle^2`. It is invariant to rescalings that leave such a network
    as it is. Weight decay is left out.

    Parameters
    ----------
    obj : Objective
        With a loss that is a negative log-likelihood, for ``"exact"``.
    kind : {"exact", "empirical"}
        Expectation over targets of the model, or the targets of the data.
    sampling : bool
        Whether the interval also holds the sampling of the data, from the norm of each group of batches: one product more.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature import metrics
    >>> model = torch.nn.Linear(1, 1, bias=False).double()
    >>> with torch.no_grad():
    ...     _ = model.weight.copy_(torch.tensor([[3.0]]))
    >>> objective = ls.objective(model, "mse", (torch.ones(1, 1).double(), torch.zeros(1, 1).double()))
    >>> metrics.fisher_rao_norm(objective).value, metrics.fisher_rao_norm(objective, "empirical").value  # 2 w^2, and (2 w^2)^2
    (18.0, 324.0)
    """
    began, objective = time.perf_counter(), require_objective(obj, "Fisher-Rao norm")
    if kind not in ("exact", "empirical"):
        raise ValueError(f"The argument kind is {kind!r}, but must be 'exact' or 'empirical'.")
    if sampling:
        return resampled(objective, functools.partial(fisher_rao_norm, kind=kind), "Fisher-Rao norm", mean=True)
    theta = objective.parameters()
    operator = objective.fisher(kind)
    product = operator.matvec(theta)
    value = inner(objective, theta, product) - operator.identity_multiple * inner(objective, theta, theta)
    return Metric(
        value,
        rounding_error=8 * operator.unit_rounding * abs(value),
        num_matvecs=1,
        seconds=time.perf_counter() - began,
        method="one product",
        name="fisher_rao_norm",
        unit="loss" if kind == "exact" else "loss^2",
        note=f"theta.F.theta with the {kind} Fisher matrix",
        least=0.0,
    )


def relative_flatness(
    obj: Objective, parameter: str, *, output_axis: int | None = None, num_probes: int = 16, seed: int = 0, sampling: bool = False
) -> Metric:
    r"""Relative flatness of one layer, :math:`\sum_{s,s'} \langle w_s, w_{s'} \rangle\, \mathrm{tr}\, H_{s s'}` (Petzka et al., 2021).

    In units of the loss. Over the neurons s of a layer with the weights :math:`w_s`. With random signs E it is the mean of
    :math:`\mathrm{vec}(W E)^\top H\, \mathrm{vec}(W E)`; one product with the layer's block each. Invariant to rescaling whole layers
    against each other. Pitfall: it is of one layer, and negative where the curvature is.

    Parameters
    ----------
    obj : Objective
        Model, loss, parameters and data.
    parameter : str
        Name of a weight with two axes or more.
    output_axis : int, optional
        Axis of the neurons. By default 0, as in torch, for a parameter called ``weight``, and the last one, as in JAX and Keras, for any
        other.
    num_probes : int
        Matrices of random signs; from the square of the inputs of a neuron on, unit matrices instead, which is exact.
    seed : int
        Of the signs.
    sampling : bool
        Whether the interval also holds the sampling of the data, from each group of batches: as many products again.

    Raises
    ------
    ValueError
        When there is no such parameter, or it is no matrix.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature import metrics
    >>> model = torch.nn.Linear(2, 1, bias=False).double()
    >>> with torch.no_grad():
    ...     _ = model.weight.copy_(torch.tensor([[3.0, 4.0]]))
    >>> objective = ls.objective(model, "mse", (torch.eye(2).double(), torch.zeros(2, 1).double()))
    >>> round(metrics.relative_flatness(objective, "weight").value, 8)  # |w|^2 times the trace of the identity
    50.0
    """
    began, objective = time.perf_counter(), require_objective(obj, "relative flatness")
    if parameter not in objective.blocks:
        raise ValueError(f"The argument parameter is {parameter!r}, but there are {', '.join(map(repr, objective.blocks))}.")
    if isinstance(num_probes, bool) or not isinstance(num_probes, int | np.integer) or num_probes < 1:
        raise ValueError(f"The argument num_probes must be a whole number of at least 1, but is {num_probes!r}.")
    array = np.asarray(to_numpy(objective.unflatten(objective.parameters())[parameter]), dtype=np.float64)
    if array.ndim < 2:
        raise ValueError(
            f"The parameter {parameter!r} has shape {array.shape}, but relative flatness is for weights with neurons and inputs."
        )
    axis = (0 if parameter.rsplit(".", 1)[-1] == "weight" else array.ndim - 1) if output_axis is None else output_axis
    if not -array.ndim <= axis < array.ndim:
        raise ValueError(f"The argument output_axis is {output_axis!r}, but the parameter {parameter!r} has shape {array.shape}.")
    wide = np.moveaxis(array, axis, 0)
    weights = wide.reshape(wide.shape[0], -1)
    if sampling:
        given: dict[str, Any] = {"parameter": parameter, "output_axis": output_axis, "num_probes": num_probes, "seed": seed}
        return resampled(objective, lambda own: relative_flatness(own, **given), "relative flatness", mean=True)
    block, inputs = objective.hessian().block(parameter), weights.shape[1]
    exact = num_probes >= inputs**2
    samples = []
    count = inputs**2 if exact else num_probes
    for index in range(count):
        if exact:
            # One unit matrix at a time: column i of W at column j.
            mixed = np.zeros_like(weights)
            mixed[:, index % inputs] = weights[:, index // inputs]
        else:
            mixed = weights @ np.random.default_rng([seed, index]).choice([-1.0, 1.0], (inputs, inputs)).astype(np.float64)
        # Every column of W E counts: rows of the block in the order of the parameter.
        vector = np.moveaxis(mixed.reshape(wide.shape), 0, axis).reshape(-1)
        row = objective.functions.backend.asarray(np.ascontiguousarray(vector, dtype=objective.dtype))
        samples.append(inner(objective, row, block.matvec(row)))
    values = np.array(samples)
    mean, error, dof = (math.fsum(values), 0.0, math.inf) if exact else mean_with_error(values)
    if not exact and len(values) == 1:
        error = math.inf
    rounding = 8 * block.unit_rounding * float(np.abs(values).max()) * (count if exact else 1)
    return Metric(
        mean, standard_error=error, degrees_of_freedom=dof, rounding_error=rounding, num_matvecs=count, seconds=time.perf_counter() - began,
        method="exact" if exact else "random signs", name="relative_flatness", unit="loss", note=f"parameter {parameter}",
    )  # fmt: skip


def pac_bayes_deviation(
    source: Any,
    rise: float = 0.1,
    *,
    method: Literal["quadratic", "sampled"] = "quadratic",
    num_samples: int = 8,
    seed: int = 0,
    sampling: bool = False,
    **options: Any,
) -> Metric:
    r"""Largest deviation of Gaussian noise on all parameters that raises the loss by `rise` on average; unit parameter.

    ``"quadratic"``: :math:`\sigma^2 = 2 \tau / \mathrm{tr}\, H`, from the trace. ``"sampled"``: from values of the loss, by bisection
    with the same noise at every deviation. Its square over the squared norm of the weights is the flatness of PAC-Bayes bounds (Neyshabur
    et al., 2017; Jiang et al., 2020). Pitfall: the quadratic model holds only near the parameters; where both differ, trust the second.

    Parameters
    ----------
    source : Objective, SharedRun or SpectralDensity
        The loss, or for ``"quadratic"`` also what knows the trace.
    rise : float
        tau, in units of the loss.
    method : {"quadratic", "sampled"}
        The quadratic model, or values of the loss.
    num_samples : int
        Pairs of opposite noise.
    seed : int
        Of the noise.
    sampling : bool
        Whether the interval also holds the sampling of the data: as for the trace, or from the rises at the deviation in each batch, as
        many forward passes as these take.
    **options
        Of `linop_spectra.trace`, for ``"quadratic"``.

    Raises
    ------
    ValueError
        When the trace is not positive, or the loss never rises by so much.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature import metrics
    >>> objective = ls.objective(torch.nn.Linear(2, 1, bias=False).double(), "mse", (torch.eye(2).double(), torch.ones(2, 1).double()))
    >>> round(metrics.pac_bayes_deviation(objective, 0.04).value, 8)  # a trace of two
    0.2
    """
    rise = positive("rise", rise)
    if method == "quadratic":
        found = trace(source, sampling=sampling, **options)
        if not found.value > 0:
            raise ValueError(
                f"The trace of the Hessian is {found.value:.6g}; only where it is positive does noise raise the quadratic model. "
                "Use method='sampled'."
            )
        value = math.sqrt(2 * rise / found.value)
        names = ("standard_error", "quadrature_error", "rounding_error", "sampling_error")
        errors = {name: value / (2 * found.value) * getattr(found, name) for name in names}
        # The inverse root bends: to second order noise of the trace raises it.
        errors["bias"] = value * (0.375 * (found.sampling_error / found.value) ** 2 - 0.5 * found.bias / found.value)
        note = f"noise that raises the quadratic model by {rise:g}"
        return found.with_changes(value=value, **errors, name="pac_bayes_deviation", unit="parameter", note=note, least=0.0)
    if method != "sampled":
        raise ValueError(f"The argument method is {method!r}, but must be 'quadratic' or 'sampled'.")
    if options:
        raise TypeError(f"The method 'sampled' has no use for the options {', '.join(sorted(options))}.")
    began = time.perf_counter()
    objective = source.objective if isinstance(source, SharedRun) else require_objective(source, "PAC-Bayes deviation")
    low, high, rises = 0.0, 1e-3, np.zeros(1)
    for _ in range(40):
        rises = _rises(objective, high, num_samples, seed)
        if not rises.mean() <= rise:
            break
        low, high = high, 2 * high
    else:
        raise ValueError(f"The loss does not rise by {rise:g} under noise of any deviation up to {low:.3g}; pass a smaller rise.")
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        found_rises = _rises(objective, middle, num_samples, seed)
        if found_rises.mean() <= rise:
            low, rises = middle, found_rises
        else:
            high = middle
    value = (low + high) / 2
    own = _rises(objective, value, num_samples, seed)
    error = float(np.std(own, ddof=1) / math.sqrt(len(own))) if len(own) > 1 else math.inf
    # The rise grows about with the square of the deviation.
    found = Metric(
        value, standard_error=value / (2 * rise) * error, quadrature_error=(high - low) / 2, degrees_of_freedom=float(max(len(own) - 1, 1)),
        seconds=time.perf_counter() - began, method="pairs of opposite noise", name="pac_bayes_deviation", unit="parameter",
        note=f"noise that raises the loss by {rise:g}", least=0.0,
    )  # fmt: skip
    if not sampling:
        return found
    rises_of = resampled(
        objective, lambda one: Metric(float(sampled_rises(one, value, num_samples, seed).mean())), "PAC-Bayes deviation", mean=True
    )
    return found.with_changes(
        sampling_error=value / (2 * rise) * rises_of.sampling_error, sampling_degrees=rises_of.sampling_degrees,
        num_examples=rises_of.num_examples,
    )  # fmt: skip


def effect_of_deviation(data: BatchInfluence, rise: float = 0.1) -> Effect:
    """Effect of the choice of the data on the quadratic `pac_bayes_deviation`."""
    total = data.shared.density.trace().value
    if not total > 0:
        raise ValueError(f"The trace of the Hessian is {total:.6g}; only where it is positive does noise raise the quadratic model.")
    effect = data.function(spectral_sums.trace(data.shared.density))
    return data.through([total], [effect], lambda v: [-0.5 * math.sqrt(2 * rise) * v[0] ** -1.5])


def _rises(objective: Objective, deviation: float, num_samples: int, seed: int) -> np.ndarray:
    """Rises, infinite where the loss is not finite."""
    try:
        return sampled_rises(objective, deviation, num_samples, seed)
    except NonFiniteLossError:
        return np.array([np.inf])
