"""The arcsine law: the free sum of two random signs."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from .law import SpectralLaw, check_levels, check_positive, check_whole, like


@dataclasses.dataclass(frozen=True)
class Arcsine(SpectralLaw):
    """Limit of the spectrum of ``s (P + Q)``, P and Q free reflections with as many eigenvalues 1 as -1, where ``variance = 2 s^2``.

    With ``b = sqrt(2 variance)`` the density is ``1 / (pi sqrt(b^2 - x^2))`` on ``[-b, b]``. It is also the limit of the
    spectrum of a long path or ring graph.

    Parameters
    ----------
    variance : float
        Of the law.

    References
    ----------
    D. Voiculescu, K. Dykema and A. Nica, *Free Random Variables*, AMS (1992).

    Examples
    --------
    >>> import linop_spectra as ls
    >>> law = ls.random_matrices.Arcsine(variance=2.0)
    >>> law.support, [law.moment(2 * k) for k in range(4)]
    ([(-2.0, 2.0)], [1.0, 2.0, 6.0, 20.0])
    """

    variance: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "variance", check_positive("variance", self.variance, "that of the law"))

    @property
    def _edge(self) -> float:
        return math.sqrt(2 * self.variance)

    @property
    def support(self) -> list[tuple[float, float]]:
        """The one interval, ``[-sqrt(2 variance), sqrt(2 variance)]``."""
        return [(-self._edge, self._edge)]

    def pdf(self, x: Any) -> Any:
        """Density at `x`, infinite at both ends; the shape of `x`."""
        x, b = np.asarray(x, dtype=np.float64), self._edge
        at = np.clip(x, -b, b)
        with np.errstate(divide="ignore"):
            density = 1 / (np.pi * np.sqrt((b - at) * (b + at)))
        return like(np.where(np.abs(x) > b, 0.0, density))

    def cdf(self, x: Any) -> Any:
        """Share of the eigenvalues at or below `x`, in closed form; the shape of `x`."""
        x, b = np.asarray(x, dtype=np.float64), self._edge
        at = np.clip(x, -b, b)
        return like(2 / np.pi * np.arctan2(np.sqrt(b + at), np.sqrt(b - at)))

    def quantile(self, q: Any) -> Any:
        """Smallest place whose `cdf` reaches `q`; the shape of `q`.

        Raises
        ------
        ValueError
            When `q` is not between 0 and 1.
        """
        return like(np.asarray(self._edge * np.sin(np.pi * (check_levels(q) - 0.5))))

    def moment(self, k: int) -> float:
        """Mean of the k-th powers: a central binomial coefficient times ``(variance / 2)^(k / 2)``, zero for odd k.

        Raises
        ------
        ValueError
            When `k` is not a whole number of at least 0.
        """
        k = check_whole("k", k, 0)
        return 0.0 if k % 2 else (self.variance / 2) ** (k // 2) * math.comb(k, k // 2)

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
        z, b = np.asarray(z, dtype=np.complex128), self._edge
        with np.errstate(divide="ignore", invalid="ignore"):
            return like(-1 / (np.sqrt(z - b) * np.sqrt(z + b)))

    def jacobi_coefficients(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """What k Lanczos steps give in the limit: coefficients of the Chebyshev polynomials.

        Parameters
        ----------
        k : int
            Steps.

        Returns
        -------
        alphas : numpy.ndarray
            Shape (k,), zero.
        betas : numpy.ndarray
            Shape (k,): the root of the variance, then that of half the variance; the last one lies beyond the k x k matrix.
        """
        k = check_whole("k", k, 1)
        betas = np.full(k, math.sqrt(self.variance / 2))
        betas[0] = math.sqrt(self.variance)
        return np.zeros(k), betas
