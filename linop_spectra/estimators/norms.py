"""Norms of an operator from products with vectors."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from .._progress import Progress
from ..krylov import eigsh, svds
from ..operators import LinearOperator, aslinearoperator
from ..results import Estimate
from .functions import density_for
from .sampling import BLOCK, half_width, mean_with_error, multiply, random_rows, sample, unit_rows
from .trace import budget_of


def spectral_norm(
    A: Any, *, tol: float = 1e-6, seed: int = 0, time_budget: float | None = None, progress: Progress = None
) -> Estimate:
    """Spectral norm, the largest singular value.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Operator of shape (m, n); one that is not known to be Hermitian needs a product with its adjoint.
    tol : float
        Relative tolerance of the residual.
    seed : int
        Seed of the starting vector.
    time_budget : float, optional
        Seconds.
    progress : bool or callable, optional
        True shows a bar.

    Returns
    -------
    Estimate
        The value is a lower bound; ``quadrature_error`` is the residual norm: some singular value lies within it. Which one
        is not certain: a starting vector that happens to be orthogonal to the leading singular vector would miss it.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> round(ls.spectral_norm(ls.diagonal_operator(np.linspace(-3.0, 2.0, 500))).value, 6)
    3.0
    """
    operator = aslinearoperator(A)
    options: dict[str, Any] = {"tol": tol, "seed": seed, "time_budget": time_budget, "progress": progress}
    if operator.hermitian:
        pair = eigsh(operator, k=1, which="LM", **options)
        value, error, method = float(abs(pair.eigenvalues[0])), float(pair.residual_norms[0]), "thick-restart Lanczos"
        products, seconds, converged = pair.num_matvecs, pair.seconds, bool(pair.converged[0])
    else:
        triplet = svds(operator, k=1, **options)
        value, error, method = float(triplet.singular_values[0]), float(triplet.residual_norms[0]), "thick-restart Golub-Kahan"
        products, seconds, converged = triplet.num_matvecs, triplet.seconds, bool(triplet.converged[0])
    return Estimate(
        value, quadrature_error=error, rounding_error=4 * operator.unit_rounding * value, num_matvecs=products, seconds=seconds,
        method=method, converged=converged,
    )  # fmt: skip


def frobenius_norm(
    A: Any,
    *,
    num_matvecs: int | None = None,
    tol: float | None = None,
    seed: int = 0,
    time_budget: float | None = None,
    progress: Progress = None,
) -> Estimate:
    """Frobenius norm, from ``E |A z|^2`` over vectors of random signs; exact where n products are allowed.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Operator of shape (m, n), real or complex.
    num_matvecs : int, optional
        Products allowed: 100 by default, 1000 with `tol` (exact then up to n = 100).
    tol : float, optional
        Stop when half the 95 % interval is within `tol` times the estimate; looked at after every eight products, from ten on.
    seed : int
        Seed of the signs.
    time_budget : float, optional
        Seconds after which the estimate so far is returned, with ``converged`` False; Ctrl-C does the same.
    progress : bool or callable, optional
        True shows a bar.

    Returns
    -------
    Estimate
        The standard error is carried over from that of the squared norm, with its degrees of freedom.

    Raises
    ------
    NonFiniteEstimateError, EstimationInterrupted
        When a product fails; the estimate from those before is in ``.partial``.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> ls.frobenius_norm(ls.diagonal_operator(np.array([3.0, 4.0]))).value
    5.0
    """
    operator = aslinearoperator(A)
    n = operator.shape[1]
    allowed, exact = budget_of(n, num_matvecs, tol)
    sampler = _Squares(operator, seed, exact)

    def finish(seconds: float, converged: bool) -> Estimate:
        if exact and sampler.spent < n:
            raise TimeoutError(
                f"The exact norm took {sampler.spent} of {n} products before it was ended; pass a num_matvecs below {n} for an estimate."
            )
        value, error, dof = sampler.found()
        return Estimate(
            value, standard_error=error, rounding_error=4 * operator.unit_rounding * value, num_matvecs=sampler.spent,
            degrees_of_freedom=dof, seconds=seconds, method="exact" if exact else "hutchinson",
            converged=converged and math.isfinite(error),
        )  # fmt: skip

    result: Estimate = sample(
        sampler, n if exact else allowed, tol=tol, time_budget=time_budget, progress=progress, description="Frobenius norm", finish=finish
    )
    return result


class _Squares:
    """Squared lengths of products with unit vectors or random signs, in units of the largest: squares of the extremes are no numbers."""

    doubling = False

    def __init__(self, operator: LinearOperator, seed: int, exact: bool) -> None:
        self._operator, self._seed, self._exact = operator, seed, exact
        self._norms: list[float] = []

    @property
    def spent(self) -> int:
        """Products so far."""
        return len(self._norms)

    @property
    def useful(self) -> bool:
        """Whether there is an estimate already."""
        return bool(self._norms) and (not self._exact or self.spent == self._operator.shape[1])

    def advance(self, limit: int) -> int:
        """One block."""
        indices = range(self.spent, self.spent + min(BLOCK, limit))
        if self._exact:
            rows = unit_rows(self._operator, indices)
        else:
            rows = random_rows(self._operator, indices, "sign", self._seed, "frobenius")
        _, norms = multiply(self._operator, rows, self.spent)
        self._norms += [float(norm) for norm in norms]
        return len(indices)

    def found(self) -> tuple[float, float, float]:
        """Norm, standard error and degrees of freedom."""
        norms = np.array(self._norms)
        scale = float(norms.max()) or 1.0
        squares = (norms / scale) ** 2
        if self._exact:
            return scale * math.sqrt(math.fsum(squares)), 0.0, math.inf
        mean, error, dof = mean_with_error(squares)
        root = math.sqrt(mean)
        if mean == 0.0:
            return 0.0, 0.0 if len(norms) > 1 else math.inf, dof
        return scale * root, scale * error / (2 * root), dof

    def met(self, tol: float) -> bool:
        """Whether half the 95 % interval is within `tol` of the norm."""
        value, error, dof = self.found()
        return half_width(error, dof) + 4 * self._operator.unit_rounding * value <= tol * value


def nuclear_norm(A: Any, *, tol: float | None = None, **options: Any) -> Estimate:
    """Nuclear norm, the sum of the singular values; see `schatten_norm`, of which it is the case p = 1.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> from linop_spectra.estimators import nuclear_norm
    >>> round(nuclear_norm(ls.diagonal_operator(np.array([3.0, -4.0, 0.5]))).value, 10)
    7.5
    """
    return schatten_norm(A, 1.0, tol=tol, **options)


def schatten_norm(A: Any, p: float, *, tol: float | None = None, **options: Any) -> Estimate:
    """Schatten norm, ``(sum of sigma^p)^(1/p)`` over the singular values.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Operator of shape (m, n); one that is not known to be Hermitian needs a product with its adjoint.
    p : float
        Positive; 1 is the nuclear norm, 2 is `frobenius_norm`, infinity is `spectral_norm`.
    tol : float, optional
        Relative half-width of the 95 % interval to be reached; for infinity the tolerance of the residual.
    **options
        Of `linop_spectra.spectral_density`, or of the two functions named.

    Returns
    -------
    Estimate
        From the spectral density of the operator and the function ``|x|^p``, or of ``A^H A`` (the smaller of the two
        Gram operators) and ``x^(p/2)``, whose products count twice. The errors are those of the sum, carried over by the slope of the root.
        For small p what is near zero counts most: it is seen to the noise floor only, of a Gram operator to its root.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> from linop_spectra.estimators import schatten_norm
    >>> round(schatten_norm(ls.diagonal_operator(np.array([3.0, -4.0])), 4).value ** 4, 8)
    337.0
    """
    if isinstance(p, bool) or not p > 0:
        raise ValueError(f"The argument p must be positive (or infinity), but is {p!r}.")
    if p == math.inf:
        return spectral_norm(A, **(options if tol is None else {"tol": tol, **options}))
    if p == 2:
        return frobenius_norm(A, tol=tol, **options)
    operator, power, factor = aslinearoperator(A), float(p), 1
    if operator.hermitian is not True:
        operator, power, factor = gram_operator(operator), power / 2, 2
    # The root makes relative errors smaller by a factor p.
    S = density_for(operator, lambda x: modulus(x, factor) ** power, None if tol is None else p * tol, options)
    scale = S.norm_estimate or 1.0
    total = S.trace(lambda x: (modulus(x, factor) / scale) ** power)
    value = total.value ** (1 / p) if total.value > 0 else 0.0
    unit = scale ** (1 / factor)
    slope = unit * value / (p * total.value) if total.value > 0 else 0.0
    return dataclasses.replace(
        total, value=unit * value, standard_error=slope * total.standard_error, quadrature_error=slope * total.quadrature_error,
        rounding_error=slope * total.rounding_error, num_matvecs=factor * total.num_matvecs,
    )  # fmt: skip


def gram_operator(operator: LinearOperator) -> LinearOperator:
    """``A^H A`` or ``A A^H``, whichever is smaller; its eigenvalues are the squared singular values."""
    return operator.H @ operator if operator.shape[0] >= operator.shape[1] else operator @ operator.H


def modulus(x: np.ndarray, factor: int) -> np.ndarray:
    """Modulus of eigenvalues; those of a Gram operator (`factor` 2) are not negative but for rounding."""
    return np.abs(x) if factor == 1 else np.maximum(x, 0.0)
