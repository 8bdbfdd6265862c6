"""Traces of functions of a Hermitian operator, by stochastic Lanczos quadrature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..results import Estimate
from ..spectra import spectral_density


def trace_function(A: Any, f: Callable[[np.ndarray], np.ndarray], **options: Any) -> Estimate:
    """Trace of ``f(A)`` for a Hermitian operator.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Hermitian operator.
    f : callable
        Function of an array of eigenvalues.
    **options
        Of `linop_spectra.spectral_density`: ``num_steps``, ``num_probes``, ``seed``, ``time_budget``, ...

    Returns
    -------
    Estimate
        With statistical and quadrature error; see `SpectralDensity.expectation`.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> A = ls.diagonal_operator(np.linspace(1.0, 2.0, 40))
    >>> bool(np.isclose(ls.trace_function(A, np.log).value, np.log(np.linspace(1.0, 2.0, 40)).sum()))
    True
    """
    return spectral_density(A, **options).trace(f)


def logdet(A: Any, *, shift: float = 0.0, **options: Any) -> Estimate:
    """Logarithm of the determinant of ``A + shift I``, which must be positive definite.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Hermitian operator.
    shift : float
        Added to every eigenvalue.
    **options
        Of `linop_spectra.spectral_density`.

    Returns
    -------
    Estimate
        Natural logarithm, with statistical and quadrature error.

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
    S = spectral_density(A, **options)
    lowest = float(S.nodes[0]) + shift
    if not lowest > 0:
        raise ValueError(
            f"The operator plus shift has the Ritz value {lowest:.6g}, so it is not positive definite and has no real log-determinant; "
            f"raise the argument shift, which is {shift!r}."
        )
    return S.trace(lambda x: np.log(x + shift))
