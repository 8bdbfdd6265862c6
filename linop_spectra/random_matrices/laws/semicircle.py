"""The semicircle law: eigenvalues of a large symmetric matrix of independent entries."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from . import transforms
from .law import SpectralLaw, check_levels, check_positive, check_whole, like


@dataclasses.dataclass(frozen=True)
class Semicircle(SpectralLaw):
    """Limit of the spectrum of a symmetric n x n matrix whose entries are independent with mean zero and variance ``variance / n``.

    With ``s^2 = variance`` the density is ``sqrt(4 s^2 - x^2) / (2 pi s^2)`` on ``[-2 s, 2 s]``. The operator `wigner` follows it.

    Parameters
    ----------
    variance : float
        Variance of the law, which is n times that of the entries.

    References
    ----------
    E. P. Wigner, *On the distribution of the roots of certain symmetric matrices*, Ann. of Math. 67 (1958).

    Examples
    --------
    >>> import linop_spectra as ls
    >>> law = ls.random_matrices.Semicircle(variance=1.0)
    >>> law.support, [law.moment(2 * k) for k in range(5)]
    ([(-2.0, 2.0)], [1.0, 1.0, 2.0, 5.0, 14.0])
    >>> law.cdf(0.0)
    0.5
    """

    variance: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "variance", check_positive("variance", self.variance, "n times that of the entries"))

    @property
    def _edge(self) -> float:
        return 2 * math.sqrt(self.variance)

    @property
    def support(self) -> list[tuple[float, float]]:
        """The one interval, ``[-2 sqrt(variance), 2 sqrt(variance)]``."""
        return [(-self._edge, self._edge)]

    def pdf(self, x: Any) -> Any:
        """Density at `x`; the shape of `x`."""
        x, b = np.asarray(x, dtype=np.float64), self._edge
        at = np.clip(x, -b, b)
        return like(np.sqrt((b - at) * (b + at)) / (2 * np.pi * self.variance))

    def cdf(self, x: Any) -> Any:
        """Share of the eigenvalues at or below `x`, in closed form; the shape of `x`."""
        x, b = np.asarray(x, dtype=np.float64), self._edge
        at = np.clip(np.abs(x), 0.0, b)
        tail = _minus_sine(4 * np.arctan2(np.sqrt(b - at), np.sqrt(b + at))) / (2 * np.pi)
        return like(np.where(x > 0, 1 - tail, tail))

    def quantile(self, q: Any) -> Any:
        """Smallest place whose `cdf` reaches `q`; the shape of `q`.

        Raises
        ------
        ValueError
            When `q` is not between 0 and 1.
        """
        q = check_levels(q)
        tail = np.minimum(q, 1 - q)
        target = 2 * np.pi * tail
        u = np.cbrt(6 * target)
        for _ in range(6):  # Newton's method for u - sin u = target: convex, and the start is at most 18 % short
            with np.errstate(invalid="ignore"):
                u = np.where(tail > 0, u - (_minus_sine(u) - target) / (2 * np.sin(u / 2) ** 2), 0.0)
        place = np.where(tail == 0.5, 0.0, self._edge * np.cos(u / 2))
        return like(np.where(q < 0.5, -place, place))

    def moment(self, k: int) -> float:
        """Mean of the k-th powers: a Catalan number times ``variance^(k / 2)``, zero for odd k.

        Raises
        ------
        ValueError
            When `k` is not a whole number of at least 0.
        """
        k = check_whole("k", k, 0)
        half = k // 2
        return 0.0 if k % 2 else self.variance**half * (math.comb(k, half) // (half + 1))

    def mean(self) -> float:
        """Zero."""
        return 0.0

    def var(self) -> float:
        """The variance."""
        return self.variance

    def stieltjes(self, z: Any) -> Any:
        """Stieltjes transform, the mean of ``1 / (lambda - z)``.

        Parameters
        ----------
        z : array
            Complex points; on the support the limit from above is taken, whose imaginary part is pi times `pdf`.

        Returns
        -------
        array
            Complex, the shape of `z`.
        """
        z, b = np.asarray(z, dtype=np.complex128) + 0.0, self._edge  # minus zero becomes zero: real points are seen from above
        # The root as a product has its cut on the support only; the quotient form does not cancel at large z.
        return like(-2 / (z + np.sqrt(z - b) * np.sqrt(z + b)))

    def _self_energy(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``z - 1 / G`` and its derivative, from the equation ``variance G^2 - z G + 1 = 0``."""
        g = -np.asarray(self.stieltjes(z), dtype=np.complex128)
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.variance * g, self.variance * g**2 / (self.variance * g**2 - 1)

    def r_transform(self, w: Any) -> Any:
        """``variance w``, continued to all real and complex `w`; the shape of `w`."""
        return like(self.variance * transforms.points(w))

    def jacobi_coefficients(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """What k Lanczos steps give in the limit: coefficients of the orthogonal polynomials of the law.

        Parameters
        ----------
        k : int
            Steps.

        Returns
        -------
        alphas : numpy.ndarray
            Shape (k,): zeros.
        betas : numpy.ndarray
            Shape (k,): ``sqrt(variance)``; the last one lies beyond the k x k matrix.
        """
        k = check_whole("k", k, 1)
        return np.zeros(k), np.full(k, math.sqrt(self.variance))


def _minus_sine(u: np.ndarray) -> np.ndarray:
    """``u - sin(u)`` without cancellation at small u; over 2 pi it is the mass beyond ``2 s cos(u / 2)``."""
    square = np.minimum(u, 0.5) ** 2
    series = np.ones_like(square)
    for product in (156, 110, 72, 42, 20):  # (2 j + 2) (2 j + 3)
        series = 1 - square / product * series
    return np.asarray(np.where(u < 0.5, u * square / 6 * series, u - np.sin(u)))
