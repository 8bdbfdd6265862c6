"""How many eigenvalues matter: effective dimensions and ranks, each from one spectral density; see `spectral_sums` for their errors."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from ..operators import aslinearoperator
from ..results import Estimate
from ..spectra import SpectralDensity, spectral_density
from . import spectral_sums
from .functions import density_for
from .norms import gram_operator


def effective_dimension(A: Any, damping: float, *, tol: float | None = None, **options: Any) -> Estimate:
    """Effective dimension, the sum of ``lambda / (lambda + damping)`` over the eigenvalues of a positive semidefinite operator.

    It is the number of directions that the data determine against a prior of precision `damping` (Gull, 1989; MacKay, 1992),
    and the degrees of freedom of ridge regression.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Positive semidefinite operator.
    damping : float
        Positive, in the unit of the eigenvalues.
    tol : float, optional
        Relative half-width of the 95 % interval to be reached, by more steps and probes.
    **options
        Of `linop_spectra.spectral_density`.

    Returns
    -------
    Estimate
        Between 0 and n.

    Raises
    ------
    ValueError
        When `damping` is not positive, or the operator certainly has negative eigenvalues.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> from linop_spectra.estimators import effective_dimension
    >>> round(effective_dimension(ls.diagonal_operator(np.array([9.0, 1.0])), damping=1.0).value, 8)
    1.4
    """
    if not 0 < damping < math.inf:
        raise ValueError(f"The argument damping must be positive, but is {damping!r}.")

    def share(x: Any) -> Any:
        return spectral_sums.share(x, damping)

    S = density_for(A, share, tol, options)
    _require_positive(S, "effective dimension", "use the absolute value of the operator, or its square root of A.H @ A")
    return S.trace(share)


def stable_rank(A: Any, **options: Any) -> Estimate:
    """Stable rank ``|A|_F^2 / |A|_2^2``, between one and the rank; for any operator.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Operator of shape (m, n); one that is not known to be Hermitian needs a product with its adjoint.
    **options
        Of `linop_spectra.spectral_density`, but for ``tol``.

    Returns
    -------
    Estimate
        The largest Ritz value takes the place of the spectral norm; its residual is part of the quadrature error.

    Raises
    ------
    ValueError
        When the operator is zero.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> from linop_spectra.estimators import stable_rank
    >>> round(stable_rank(ls.diagonal_operator(np.array([2.0, -2.0, 1.0]))).value, 8)
    2.25
    """
    S, factor = _density(A, options)
    found = spectral_sums.stable_rank(S, factor).estimate(S)
    return dataclasses.replace(found, num_matvecs=factor * found.num_matvecs)


def participation_ratio(A: Any, **options: Any) -> Estimate:
    """Participation ratio ``(tr A)^2 / |A|_F^2`` of the eigenvalues of a positive semidefinite operator.

    It is n for a multiple of the identity and r for r equal eigenvalues among zeros. Also the squared ratio of signal to noise of a
    Hutchinson sample, up to a factor of two.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Positive semidefinite operator.
    **options
        Of `linop_spectra.spectral_density`, but for ``tol``.

    Returns
    -------
    Estimate
        Between 1 and n.

    Raises
    ------
    ValueError
        When the operator is zero, or certainly has negative eigenvalues.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> from linop_spectra.estimators import participation_ratio
    >>> round(participation_ratio(ls.diagonal_operator(np.array([1.0, 2.0, 3.0]))).value, 6)  # 36 / 14
    2.571429
    """
    _no_tolerance(options)
    S = spectral_density(A, **options)
    _require_positive(S, "participation ratio", "use stable_rank or effective_rank")
    return spectral_sums.participation_ratio(S).estimate(S)


def spectral_entropy(A: Any, **options: Any) -> Estimate:
    """Spectral entropy ``-sum p ln p`` with ``p = sigma / (sum of sigma)`` over the singular values, in nats.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Operator of shape (m, n); one that is not known to be Hermitian needs a product with its adjoint.
    **options
        Of `linop_spectra.spectral_density`, but for ``tol``.

    Returns
    -------
    Estimate
        Between 0 and ``log(n)``.

    Raises
    ------
    ValueError
        When the operator is zero.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> from linop_spectra.estimators import spectral_entropy
    >>> spectral_entropy(ls.identity(100)).value  # log(100)
    4.605...
    """
    S, factor = _density(A, options)
    found = spectral_sums.spectral_entropy(S, factor).estimate(S)
    return dataclasses.replace(found, num_matvecs=factor * found.num_matvecs)


def effective_rank(A: Any, **options: Any) -> Estimate:
    """Effective rank, the exponential of the `spectral_entropy` (Roy and Vetterli, EUSIPCO 2007).

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Operator of shape (m, n).
    **options
        As for `spectral_entropy`.

    Returns
    -------
    Estimate
        Between 1 and n.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> from linop_spectra.estimators import effective_rank
    >>> effective_rank(ls.diagonal_operator(np.array([3.0, -1.0]))).value  # 4 / 3 ** 0.75
    1.7547...
    """
    S, factor = _density(A, options)
    found = spectral_sums.effective_rank(S, factor).estimate(S)
    return dataclasses.replace(found, num_matvecs=factor * found.num_matvecs)


def _density(A: Any, options: dict[str, Any]) -> tuple[SpectralDensity, int]:
    """Spectral density of a Hermitian operator, or of the Gram operator, for which products count twice."""
    _no_tolerance(options)
    operator = aslinearoperator(A)
    factor = 1 if operator.hermitian is True else 2
    return spectral_density(operator if factor == 1 else gram_operator(operator), **options), factor


def _no_tolerance(options: dict[str, Any]) -> None:
    if "tol" in options:
        raise ValueError("The argument tol is for sums over the spectrum, not for a ratio of them; pass num_steps and num_probes.")


def _require_positive(S: SpectralDensity, name: str, fix: str) -> None:
    """Raise where negative eigenvalues are certain: mass below minus the noise floor that no measure with these moments is without."""
    lower, _ = S.negative_mass()
    if lower > 0:
        (lowest, _), _ = S.extreme_eigenvalues()
        raise ValueError(
            f"The {name} is for positive semidefinite operators, but this one certainly has negative eigenvalues: the smallest "
            f"Ritz value is {lowest:.6g}, and at least {lower:.2g} of the probes' mass is negative; {fix}."
        )
