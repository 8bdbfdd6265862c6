"""Traces of functions of a Hermitian operator, by stochastic Lanczos quadrature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..krylov import LanczosInterrupted
from ..results import Estimate
from ..spectra import SpectralDensity, spectral_density

Function = Callable[[np.ndarray], np.ndarray]


def trace_function(A: Any, f: Function, *, tol: float | None = None, **options: Any) -> Estimate:
    """Trace of ``f(A)`` for a Hermitian operator.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Hermitian operator.
    f : callable
        Real function of an array of eigenvalues.
    tol : float, optional
        Take steps, and then probes, until half the 95 % interval of this trace is within `tol` times its modulus, or the largest numbers
        are reached; then ``converged`` is False.
    **options
        Of `linop_spectra.spectral_density`: ``num_steps``, ``num_probes`` (with `tol` the largest numbers), ``seed``,
        ``time_budget``, ...

    Returns
    -------
    Estimate
        With statistical, quadrature and rounding error; see `SpectralDensity.expectation`.

    Raises
    ------
    ValueError
        When `f` is not finite at a Ritz value, or the operator is not Hermitian.
    TypeError
        When `f` is complex.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> A = ls.diagonal_operator(np.linspace(1.0, 2.0, 40))
    >>> bool(np.isclose(ls.trace_function(A, np.log).value, np.log(np.linspace(1.0, 2.0, 40)).sum()))
    True
    """
    return density_for(A, f, tol, options).trace(f)


def logdet(A: Any, *, shift: float = 0.0, tol: float | None = None, **options: Any) -> Estimate:
    """Logarithm of the determinant of ``A + shift I``, which must be positive definite.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Hermitian operator.
    shift : float
        Added to every eigenvalue.
    tol : float, optional
        As for `trace_function`: relative half-width of the 95 % interval of the logarithm.
    **options
        Of `linop_spectra.spectral_density`.

    Returns
    -------
    Estimate
        Natural logarithm, with statistical, quadrature and rounding error.

    Raises
    ------
    ValueError
        When a Ritz value plus the shift is not positive: then the matrix is not positive definite.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> ls.logdet(ls.identity(10), shift=1.0).value
    6.93...
    """
    tiny = np.finfo(np.float64).tiny
    # Before it is known that all is positive, the logarithm has to be finite everywhere.
    S = density_for(A, lambda x: np.log(np.maximum(x + shift, tiny)), tol, options)
    lowest = float(S.nodes[0]) + shift
    if abs(lowest) <= S.noise_floor:
        raise ValueError(
            f"The operator plus shift is not positive definite: one eigenvalue is zero up to rounding (Ritz value {lowest:.1e}, noise "
            f"floor {S.noise_floor:.1e}). Raise the argument shift, which is {shift!r}, or take the null space out with deflate(A, ...)."
        )
    if not lowest > 0:
        raise ValueError(
            f"The operator plus shift has the Ritz value {lowest:.6g}, so it is not positive definite and has no real log-determinant; "
            f"raise the argument shift, which is {shift!r}."
        )
    return S.trace(lambda x: np.log(x + shift))


def density_for(A: Any, f: Function, tol: float | None, options: dict[str, Any]) -> SpectralDensity:
    """A spectral density that meets `tol` for the trace of `f`, where there is one."""
    if tol is None:
        return spectral_density(A, **options)
    try:
        return spectral_density(A, tol=tol, target=f, **options)
    except LanczosInterrupted as error:
        # The function, not the operator, has failed while the tolerance was looked at.
        if isinstance(error.__cause__, (ValueError, TypeError)) and str(error.__cause__).startswith("The function is"):
            raise error.__cause__ from None
        raise
