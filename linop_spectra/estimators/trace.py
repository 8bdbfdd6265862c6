"""Trace of an operator from products with random vectors."""

from __future__ import annotations

import math
import time
from typing import Any, Literal, get_args

import numpy as np

from .._progress import Progress, ProgressBar
from ..krylov.lanczos import check_count, check_time_budget
from ..operators import LinearOperator, aslinearoperator
from ..results import Estimate

TraceMethod = Literal["auto", "hutchinson", "exact"]
DEFAULT_MATVECS = 100
_BLOCK = 8


def trace(
    A: Any,
    *,
    method: TraceMethod = "auto",
    num_matvecs: int | None = None,
    tol: float | None = None,
    seed: int = 0,
    time_budget: float | None = None,
    progress: Progress = None,
) -> Estimate:
    """Trace of a square operator.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Square operator of shape (n, n); a real one need not be Hermitian, a complex one must be, so that the trace is real.
    method : {"auto", "hutchinson", "exact"}
        ``"hutchinson"`` averages ``z^H A z`` over vectors of random signs; ``"exact"`` takes n products with unit vectors;
        ``"auto"`` is exact where n products are allowed, else Hutchinson.
    num_matvecs : int, optional
        Products allowed, 100 by default.
    tol : float, optional
        Stop when half the 95 % interval is below `tol` times the estimate; at least ten products are taken.
    seed : int
        Seed of the signs.
    time_budget : float, optional
        Seconds after which the estimate so far is returned, with ``converged`` False; Ctrl-C does the same.
    progress : bool or callable, optional
        True shows a bar.

    Returns
    -------
    Estimate
        With the standard error of the mean and its degrees of freedom; ``converged`` is False where `tol` was not met.

    References
    ----------
    M. F. Hutchinson, *A stochastic estimator of the trace of the influence matrix*, Commun. Stat. Simul. Comput. 18 (1989).

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> ls.trace(ls.diagonal_operator(np.arange(10.0))).value
    45.0
    """
    operator = aslinearoperator(A)
    n = operator.shape[0]
    if operator.shape[1] != n:
        raise ValueError(f"A trace needs a square operator, but this one has shape {operator.shape}.")
    if operator.dtype.kind == "c" and operator.hermitian is not True:
        raise ValueError(
            "The trace of a complex operator that is not Hermitian is no real number; take those of (A + A.H) / 2 and of "
            "(A - A.H) / 2j, or pass hermitian=True to aslinearoperator if it is."
        )
    if method not in get_args(TraceMethod):
        raise ValueError(f"The argument method is {method!r}, but must be one of {', '.join(get_args(TraceMethod))}.")
    allowed = DEFAULT_MATVECS if num_matvecs is None else check_count("num_matvecs", num_matvecs)
    if tol is not None and not tol > 0:
        raise ValueError(f"The argument tol must be positive, but is {tol!r}.")
    check_time_budget(time_budget)
    if method == "exact" and num_matvecs is not None and allowed < n:
        raise ValueError(f"The exact trace takes {n} products, but num_matvecs allows {allowed}; use method='hutchinson'.")
    exact = method == "exact" or (method == "auto" and n <= allowed)
    total = n if exact else allowed
    began = time.perf_counter()
    samples: list[float] = []
    converged = True
    with ProgressBar(progress, total, "trace", unit="product") as bar:
        while len(samples) < total:
            if time_budget is not None and samples and time.perf_counter() - began > time_budget:
                converged = False
                break
            indices = range(len(samples), min(len(samples) + _BLOCK, total))
            try:
                samples += _forms(operator, indices, seed, exact)
            except KeyboardInterrupt:
                if exact or not samples:
                    raise
                converged = False
                break
            bar.advance(len(indices))
            if not exact and tol is not None and len(samples) >= 10 and _half_width(samples) <= tol * abs(np.mean(samples)):
                break
    seconds = time.perf_counter() - began
    if not np.all(np.isfinite(samples)):
        raise FloatingPointError("A product with the operator holds NaN or infinity, so it has no trace.")
    if exact and len(samples) == n:
        return Estimate(float(np.sum(samples)), num_matvecs=n, seconds=seconds, method="exact")
    if exact:
        raise TimeoutError(f"The exact trace took {len(samples)} of {n} products within the time budget; use method='hutchinson'.")
    count = len(samples)
    converged = converged and count > 1  # one sample says nothing of its error
    if tol is not None and converged:
        converged = bool(count > 1 and _half_width(samples) <= tol * abs(np.mean(samples)))
    error = float(np.std(samples, ddof=1) / math.sqrt(count)) if count > 1 else math.inf
    return Estimate(
        float(np.mean(samples)), standard_error=error, num_matvecs=count, degrees_of_freedom=max(count - 1, 1), seconds=seconds,
        method="hutchinson", converged=converged,
    )  # fmt: skip


def _forms(operator: LinearOperator, indices: range, seed: int, exact: bool) -> list[float]:
    """``z^H A z`` for unit vectors or for vectors of random signs."""
    backend, n = operator.backend, operator.shape[0]
    if exact:
        rows = backend.asarray(np.eye(len(indices), n, indices.start, dtype=operator.dtype))
    else:
        rows = backend.probes(n, indices, kind="sign", seed=seed, domain="trace", dtype=operator.dtype)
    products = operator.matmat(rows.T)
    own = backend.empty((n,), operator.dtype)
    forms = []
    for i in range(len(indices)):
        own[...] = products[:, i]
        forms.append(backend.dot(rows[i], own))
    return [float(value) for value in np.real(backend.fetch(forms))]


def _half_width(samples: list[float]) -> float:
    from scipy import stats

    return float(stats.t.ppf(0.975, len(samples) - 1) * np.std(samples, ddof=1) / math.sqrt(len(samples)))
