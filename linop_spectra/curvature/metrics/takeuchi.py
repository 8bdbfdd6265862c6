"""Takeuchi's information criterion: covariance of the gradients in the metric of the curvature."""

from __future__ import annotations

import math
import time
from typing import Any, Literal

import numpy as np

from ... import estimators
from ...backends import Array
from ...estimators.sampling import mean_with_error
from ...krylov import solve
from ...krylov.lanczos import check_count
from ...operators import LinearOperator
from ..objective import Objective
from .metric import Metric, ratio_metric
from .resampling import resampled
from .source import inner, require_objective


def takeuchi_criterion(
    obj: Objective,
    *,
    matrix: Literal["ggn", "hessian", "fisher"] = "ggn",
    damping: float = 0.0,
    num_probes: int = 16,
    tol: float = 1e-6,
    seed: int = 0,
    sampling: bool = False,
) -> Metric:
    r"""Takeuchi's information criterion :math:`\mathrm{tr}(H^{-1} C)` with the covariance C of one example's gradient; no unit.

    Per probe one product with C and one system with H. Known value: the number of parameters for a well-specified likelihood at its
    maximum; four times that where the noise has twice the deviation that the likelihood says. Over N it estimates the gap between
    training and test loss. Pitfalls: for a network H is singular, and the damping decides the value; the loss has to be a negative
    log-likelihood for the known values (for ``"mse"`` the noise of each element has the variance 1/2).

    Parameters
    ----------
    obj : Objective
        With independent examples.
    matrix : {"ggn", "hessian", "fisher"}
        H, which has to be positive definite once damped.
    damping : float
        Multiple of the identity added to H.
    num_probes : int
        Random signs; from the number of parameters on all unit vectors, which is exact up to `tol`.
    tol : float
        Of the linear systems.
    seed : int
        Of the signs.
    sampling : bool
        Whether the interval also holds the sampling of the data, by leaving out groups of batches, at most ten: nine times the products on
        top.

    Raises
    ------
    TypeError
        When the loss does not show its examples, or has no such matrix.
    ValueError
        When the system has no accurate solution: H is singular or indefinite.

    References
    ----------
    V. Thomas et al., *On the interplay between noise and curvature and its effect on optimization and generalization*, AISTATS (2020).

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature import metrics
    >>> model = torch.nn.Linear(1, 1, bias=False).double()
    >>> with torch.no_grad():
    ...     _ = model.weight.copy_(torch.tensor([[2.0]]))
    >>> data = (torch.ones(2, 1).double(), torch.tensor([[1.0], [3.0]]).double())
    >>> round(metrics.takeuchi_criterion(ls.objective(model, "mse", data)).value, 6)  # residuals of 1: 4 r^2 / 2
    2.0
    """
    began, objective = time.perf_counter(), require_objective(obj, "Takeuchi criterion")
    if sampling:
        given: dict[str, Any] = {"matrix": matrix, "damping": damping, "num_probes": num_probes, "tol": tol, "seed": seed}
        return resampled(objective, lambda own: takeuchi_criterion(own, **given), "Takeuchi criterion")
    curvature, covariance = _matrices(objective, matrix)
    if not 0 <= damping < math.inf:
        raise ValueError(f"The argument damping must be a finite number of at least 0, but is {damping!r}.")
    n, count = objective.num_parameters, check_count("num_probes", num_probes)
    exact = count >= n
    count = n if exact else count
    before = curvature.num_matvecs
    samples = np.empty(count)
    residual = 0.0
    for index in range(count):
        z = _probe(objective, index, exact, seed)
        b = covariance.matvec(z)
        length = math.sqrt(inner(objective, b, b))
        if length == 0.0:
            samples[index] = 0.0
            continue
        # Conjugate gradients refuse an indefinite matrix by name; minimal residuals would not.
        found = solve(curvature, b, shift=damping, tol=tol, method="auto")
        if bool(found.least_squares[0]) or float(found.residual_norms[0]) > 1e3 * tol * length:
            raise ValueError(
                f"The system with the {matrix} matrix{f' plus {damping:g} I' if damping else ''} has no accurate solution (relative "
                "residual "
                f"{float(found.residual_norms[0]) / length:.1e}): it is singular or nearly so. Raise the argument damping, which is "
                f"{damping!r}."
            )
        residual = max(residual, float(found.residual_norms[0]) / length)
        samples[index] = inner(objective, z, found.x)
    value, error, dof = (math.fsum(samples), 0.0, math.inf) if exact else mean_with_error(samples)
    return Metric(
        value,
        standard_error=error,
        degrees_of_freedom=dof,
        rounding_error=residual * float(np.abs(samples).sum()) / (1 if exact else count),
        num_matvecs=curvature.num_matvecs - before + count,
        seconds=time.perf_counter() - began,
        method="exact" if exact else "random signs and linear systems",
        name="takeuchi_criterion",
        note=f"tr((H + {damping:g} I)^-1 C), H the {matrix} matrix; {n} for a well-specified likelihood",
    )


def trace_ratio(
    obj: Objective, *, matrix: Literal["ggn", "hessian", "fisher"] = "ggn", num_matvecs: int = 32, seed: int = 0, sampling: bool = False
) -> Metric:
    r"""The ratio :math:`\mathrm{tr}\, C / \mathrm{tr}\, H` of gradient covariance to curvature (Thomas et al., 2020).

    A proxy of `takeuchi_criterion`, up to the factor P.

    Two traces. Known value: one for a well-specified likelihood at its maximum.

    Parameters
    ----------
    obj : Objective
        With independent examples.
    matrix : {"ggn", "hessian", "fisher"}
        H.
    num_matvecs : int
        Products for each trace.
    seed : int
        Of the probes.
    sampling : bool
        Whether the interval also holds the sampling of the data, by leaving out groups of batches, at most ten: nine times the products on
        top.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature import metrics
    >>> model = torch.nn.Linear(1, 1, bias=False).double()
    >>> with torch.no_grad():
    ...     _ = model.weight.copy_(torch.tensor([[2.0]]))
    >>> data = (torch.ones(2, 1).double(), torch.tensor([[1.0], [3.0]]).double())
    >>> round(metrics.trace_ratio(ls.objective(model, "mse", data)).value, 6)
    2.0
    """
    objective = require_objective(obj, "Takeuchi criterion")
    if sampling:
        given: dict[str, Any] = {"matrix": matrix, "num_matvecs": num_matvecs, "seed": seed}
        return resampled(objective, lambda own: trace_ratio(own, **given), "ratio of traces")
    curvature, covariance = _matrices(objective, matrix)
    of_noise, of_curvature = (estimators.trace(one, num_matvecs=num_matvecs, seed=seed) for one in (covariance, curvature))
    if not of_curvature.value != 0:
        raise ValueError(f"The trace of the {matrix} matrix is zero, so that the ratio is not defined.")
    return ratio_metric(of_noise, of_curvature, name="trace_ratio", note="tr C / tr H; 1 for a well-specified likelihood")


def _matrices(objective: Objective, matrix: str) -> tuple[LinearOperator, LinearOperator]:
    if matrix not in ("ggn", "hessian", "fisher"):
        raise ValueError(f"The argument matrix is {matrix!r}, but must be 'ggn', 'hessian' or 'fisher'.")
    covariance = objective.gradient_covariance()
    return getattr(objective, matrix)(), covariance


def _probe(objective: Objective, index: int, exact: bool, seed: int) -> Array:
    backend, n = objective.functions.backend, objective.num_parameters
    if exact:
        unit = np.zeros(n, dtype=objective.dtype)
        unit[index] = 1.0
        return backend.asarray(unit)
    return backend.probes(n, [index], kind="sign", seed=seed, domain="information criterion", dtype=objective.dtype)[0]
