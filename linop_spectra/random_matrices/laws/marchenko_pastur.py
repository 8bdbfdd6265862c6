"""The Marchenko-Pastur law: eigenvalues of a sample covariance matrix of pure noise."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from . import transforms
from .law import SpectralLaw, check_levels, check_positive, check_whole, like


@dataclasses.dataclass(frozen=True)
class MarchenkoPastur(SpectralLaw):
    """Limit of the spectrum of ``X X^T / n``, where X is p x n with independent entries of mean zero.

    The limit is for p and n growing at a fixed ratio ``c = p / n``. With ``s = variance`` the density is
    ``sqrt((b - x)(x - a)) / (2 pi c s x)`` on ``[a, b] = s (1 -+ sqrt(c))^2``; for ``c > 1`` a share ``1 - 1 / c`` of the
    eigenvalues is exactly zero.

    Parameters
    ----------
    ratio : float
        ``c = p / n``, number of variables over number of samples.
    variance : float
        Of the entries of X.

    References
    ----------
    V. A. Marchenko and L. A. Pastur, *Distribution of eigenvalues for some sets of random matrices*, Math. USSR Sb. 1 (1967).

    Examples
    --------
    >>> import linop_spectra as ls
    >>> law = ls.random_matrices.MarchenkoPastur(ratio=0.25)
    >>> law.support, law.moment(2)
    ([(0.25, 2.25)], 1.25)
    >>> ls.random_matrices.MarchenkoPastur(ratio=4.0).atoms
    [(0.0, 0.75)]
    """

    ratio: float
    variance: float = 1.0

    def __post_init__(self) -> None:
        for name, meaning in (("ratio", "the number of variables over the number of samples"), ("variance", "that of the entries")):
            object.__setattr__(self, name, check_positive(name, getattr(self, name), meaning))

    @property
    def support(self) -> list[tuple[float, float]]:
        """Ends of the continuous part; the atom at zero, if any, is in `atoms`."""
        root = math.sqrt(self.ratio)
        return [(self.variance * (1 - root) ** 2, self.variance * (1 + root) ** 2)]

    @property
    def atoms(self) -> list[tuple[float, float]]:
        """Pairs (place, mass): the share ``1 - 1 / ratio`` at zero when the ratio is above one."""
        return [(0.0, 1 - 1 / self.ratio)] if self.ratio > 1 else []

    @property
    def _atom(self) -> float:
        return max(0.0, 1 - 1 / self.ratio)

    def pdf(self, x: Any) -> Any:
        """Density of the continuous part at `x`; it integrates to ``min(1, 1 / ratio)``.

        Parameters
        ----------
        x : array
            Points. At zero the density is infinite when the ratio is one.

        Returns
        -------
        array
            The shape of `x`.
        """
        x = np.asarray(x, dtype=np.float64)
        ((a, b),) = self.support
        inside = (x >= a) & (x <= b)
        at = np.where(inside, x, b)
        with np.errstate(divide="ignore", invalid="ignore"):
            density = np.sqrt((b - at) * ((at - a) / at) / at) / (2 * np.pi * self.ratio * self.variance)
        if a == 0:
            density = np.where(at == 0, np.inf, density)
        return like(np.where(inside, density, np.where(np.isnan(x), np.nan, 0.0)))

    def cdf(self, x: Any) -> Any:
        """Share of the eigenvalues at or below `x`, in closed form; the shape of `x`."""
        x = np.asarray(x, dtype=np.float64)
        ((a, b),) = self.support
        at = np.clip(x, a, b)
        mass = self._atom + self._mass_to_angle(2 * np.arctan2(np.sqrt(at - a), np.sqrt(b - at)))
        share = np.select([np.isnan(x), x >= b, x >= a, x >= 0], [np.nan, 1.0, np.minimum(mass, 1.0), self._atom], 0.0)
        return like(share)

    def _mass_to_angle(self, angle: np.ndarray) -> np.ndarray:
        """Continuous mass between the lower edge and ``a + (b - a) sin^2(angle / 2)``, without cancellation at the edges."""
        c, root = self.ratio, math.sqrt(self.ratio)
        # psi - angle, where tan(psi / 2) = sqrt(b / a) tan(angle / 2).
        if c <= 1:
            difference = 2 * np.arctan2(root * np.sin(angle), 1 - root * np.cos(angle))
            total = c * (2 * angle + difference) - difference + 2 * root * np.sin(angle)
        else:
            difference = 2 * np.arctan2(np.sin(angle), root - np.cos(angle))
            total = 2 * angle + difference - c * difference + 2 * root * np.sin(angle)
        return np.maximum(total / (2 * np.pi * c), 0.0)

    def quantile(self, q: Any) -> Any:
        """Smallest place whose `cdf` reaches `q`; the shape of `q`.

        Raises
        ------
        ValueError
            When `q` is not between 0 and 1.
        """
        q = check_levels(q)
        ((a, b),) = self.support
        low, high = np.zeros(q.shape), np.full(q.shape, np.pi)
        for _ in range(60):  # bisection of the angle, down to rounding
            middle = (low + high) / 2
            short = self._atom + self._mass_to_angle(middle) < q
            low, high = np.where(short, middle, low), np.where(short, high, middle)
        place = np.where(q >= 1, b, a + (b - a) * np.sin(high / 2) ** 2)
        return like(np.where(q <= self._atom, 0.0 if self._atom > 0 else a, place))

    def moment(self, k: int) -> float:
        """Mean of the k-th powers of the eigenvalues, by the sum over Narayana numbers.

        Raises
        ------
        ValueError
            When `k` is not a whole number of at least 0.
        """
        k = check_whole("k", k, 0)
        if k == 0:
            return 1.0
        terms = (self.ratio**r / (r + 1) * math.comb(k, r) * math.comb(k - 1, r) for r in range(k))
        return self.variance**k * math.fsum(terms)

    def mean(self) -> float:
        """Mean eigenvalue: the variance of the entries."""
        return self.variance

    def var(self) -> float:
        """Variance of the eigenvalues, ``variance^2 ratio``."""
        return self.variance**2 * self.ratio

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
        z = np.asarray(z, dtype=np.complex128) + 0.0  # minus zero becomes zero: real points are seen from above
        ((a, b),) = self.support
        # The root as a product has its cut on [a, b] only; the quotient form does not cancel at large z.
        with np.errstate(divide="ignore", invalid="ignore"):
            out = -2 / (z + self.variance * (self.ratio - 1) + np.sqrt(z - a) * np.sqrt(z - b))
        return like(out)

    def _self_energy(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``z - 1 / G`` and its derivative, from ``z = R(G) + 1 / G``."""
        g = -np.asarray(self.stieltjes(z), dtype=np.complex128)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            value = self.variance / (1 - self.ratio * self.variance * g)
            turn = self.ratio * (value * g) ** 2  # the derivative of R times the square of G
            return value, turn / (turn - 1)

    def r_transform(self, w: Any) -> Any:
        """``variance / (1 - ratio variance w)``, continued to all real and complex `w` except its pole; the shape of `w`.

        Raises
        ------
        ValueError
            At the pole, ``w = 1 / (ratio variance)``.
        """
        return like(self._over("r_transform", 1 - self.ratio * self.variance * transforms.points(w), self.variance))

    def s_transform(self, w: Any) -> Any:
        """``1 / (variance (1 + ratio w))``, continued to all real and complex `w` except its pole; the shape of `w`.

        Raises
        ------
        ValueError
            At the pole, ``w = -1 / ratio``.
        """
        return like(self._over("s_transform", self.variance * (1 + self.ratio * transforms.points(w)), 1.0))

    def _over(self, name: str, below: np.ndarray, above: float) -> np.ndarray:
        if np.any(below == 0):
            raise ValueError(f"The argument w meets the pole of the {name} of a Marchenko-Pastur law of ratio {self.ratio}.")
        return np.asarray(above / below)

    def jacobi_coefficients(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """What k Lanczos steps give in the limit: coefficients of the orthogonal polynomials of the law.

        Parameters
        ----------
        k : int
            Steps.

        Returns
        -------
        alphas : numpy.ndarray
            Shape (k,): the variance, then ``variance (1 + ratio)``.
        betas : numpy.ndarray
            Shape (k,): ``variance sqrt(ratio)``; the last one lies beyond the k x k matrix.
        """
        k = check_whole("k", k, 1)
        alphas = np.full(k, self.variance * (1 + self.ratio))
        alphas[0] = self.variance
        return alphas, np.full(k, self.variance * math.sqrt(self.ratio))
