"""Laws on one interval that an angle parametrises, so that a density without bound at an edge costs no accuracy."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev

from .law import SpectralLaw, check_levels, check_whole, like
from .numerical_law import discrete_jacobi

_DEGREES = (32, 64, 128, 256, 512, 1024, 2048, 4096)


class AngleLaw(SpectralLaw):
    """A law whose places ``x(angle)`` fall from the upper edge at 0 to the lower edge at pi, with a smooth mass per angle.

    A subclass gives `_places`, `_mass_rate` and `_angular_density`, besides `support`, `atoms`, `moment` and `stieltjes`. The
    distribution function is the integral of the Chebyshev interpolant of the mass rate, whose degree grows until it has converged.
    """

    @abc.abstractmethod
    def _places(self, angle: np.ndarray) -> np.ndarray:
        """Place of each angle in (0, pi)."""

    @abc.abstractmethod
    def _mass_rate(self, angle: np.ndarray) -> np.ndarray:
        """Mass per unit of angle: density times ``-dx / d angle``."""

    @abc.abstractmethod
    def _angular_density(self, angle: np.ndarray) -> np.ndarray:
        """Density at the place of each angle."""

    @property
    def _atom(self) -> float:
        return sum(mass for _, mass in self.atoms)

    @functools.cached_property
    def _above(self) -> np.ndarray:
        """Chebyshev coefficients, in ``2 angle / pi - 1``, of the mass between the upper edge and the place of an angle."""
        coefficients = interpolant(lambda t: np.pi / 2 * self._mass_rate(np.pi / 2 * (1 + t)))
        integral = chebyshev.chebint(coefficients, lbnd=-1)
        # The mass of the continuous part is known; what the interpolant misses is spread in proportion.
        return np.asarray(integral * ((1 - self._atom) / chebyshev.chebval(1.0, integral)))

    def _mass_above(self, angle: np.ndarray) -> np.ndarray:
        return np.clip(chebyshev.chebval(2 * angle / np.pi - 1, self._above), 0.0, 1 - self._atom)

    def _angle(self, x: np.ndarray) -> np.ndarray:
        """Angle of each place strictly inside the support, by bisection."""
        low, high = np.zeros(x.shape), np.full(x.shape, np.pi)
        for _ in range(54):
            middle = (low + high) / 2
            above = self._places(middle) > x
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        return (low + high) / 2

    def pdf(self, x: Any) -> Any:
        """Density of the continuous part at `x`; it integrates to one minus the mass of `atoms`.

        Parameters
        ----------
        x : array
            Points. Where the support begins at zero the density is infinite there.

        Returns
        -------
        array
            The shape of `x`.
        """
        x = np.asarray(x, dtype=np.float64)
        ((a, b),) = self.support
        inside = (x > a) & (x < b)
        density = np.zeros(x.shape)
        if inside.any():
            density[inside] = self._angular_density(self._angle(x[inside]))
        if a == 0:
            density = np.where(x == 0, np.inf, density)
        return like(np.where(np.isnan(x), np.nan, density))

    def cdf(self, x: Any) -> Any:
        """Share of the eigenvalues at or below `x`; the shape of `x`."""
        x = np.asarray(x, dtype=np.float64)
        ((a, b),) = self.support
        share = np.where(x >= b, 1.0, np.where(x >= min(a, 0.0), self._atom, 0.0))
        inside = (x > a) & (x < b)
        if inside.any():
            share[inside] = 1 - self._mass_above(self._angle(x[inside]))
        return like(np.where(np.isnan(x), np.nan, share))

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
        for _ in range(54):
            middle = (low + high) / 2
            short = self._mass_above(middle) < 1 - q
            low, high = np.where(short, middle, low), np.where(short, high, middle)
        angle = (low + high) / 2
        inside = (q > self._atom) & (q < 1) & (angle > 0) & (angle < np.pi)
        place = np.where(q <= self._atom, 0.0 if self._atom > 0 else a, np.where(q < 1, a, b))
        if inside.any():
            place[inside] = np.clip(self._places(angle[inside]), a, b)
        return like(place)

    def jacobi_coefficients(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """What k Lanczos steps give in the limit: coefficients of the orthogonal polynomials of the law.

        Parameters
        ----------
        k : int
            Steps.

        Returns
        -------
        alphas : numpy.ndarray
            Shape (k,).
        betas : numpy.ndarray
            Shape (k,); the last one lies beyond the k x k matrix.
        """
        k = check_whole("k", k, 1)
        return discrete_jacobi(*self._nodes(k), k)

    def _nodes(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Places and weights of Fejer's first rule in the angle, fine enough for k orthogonal polynomials, with the atoms."""
        from scipy import fft

        count = len(self._above) + 4 * k
        integrals = np.zeros(count)  # of the Chebyshev polynomials
        integrals[::2] = 2 / (1 - np.arange(0, count, 2) ** 2.0)
        angle = np.pi / 2 * (1 + chebyshev.chebpts1(count)[::-1])
        weights = fft.dct(integrals, type=3) / count * np.pi / 2 * self._mass_rate(angle)
        weights *= (1 - self._atom) / weights.sum()
        places = [place for place, _ in self.atoms]
        masses = [mass for _, mass in self.atoms]
        return np.concatenate([places, self._places(angle)]), np.concatenate([masses, weights])


def interpolant(function: Callable[[np.ndarray], np.ndarray], tolerance: float = 1e-14) -> np.ndarray:
    """Chebyshev coefficients on [-1, 1] of a smooth function, of the lowest degree of a doubling sequence that suffices.

    Parameters
    ----------
    function : callable
        Of an array of points.
    tolerance : float
        The last eighth of the coefficients is below this share of the largest one, or of one where that is larger.

    Returns
    -------
    numpy.ndarray
        The coefficients.
    """
    from scipy import fft

    for degree in _DEGREES:
        values = function(chebyshev.chebpts1(degree + 1)[::-1])
        coefficients = fft.dct(values, type=2) / (degree + 1)
        coefficients[0] /= 2
        if np.abs(coefficients[-(degree // 8) :]).max() <= tolerance * max(np.abs(coefficients).max(), 1.0):
            break
    return np.asarray(coefficients)
