"""The Silverstein equation: what generalised Marchenko-Pastur and weighted Gram laws have in common."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq

from .discrete_law import DiscreteLaw
from .fixed_point import self_energy_with_slope
from .fixed_point_law import FixedPointLaw
from .law import SpectralLaw
from .transforms import ends


class SilversteinLaw(FixedPointLaw):
    """A law whose transform follows from ``z = s + c int t s / (s - t) dH(t)``, with s minus one over the companion transform.

    With a population H of atoms the edges of the support are the critical values of the right side, found on each interval
    between the atoms.

    References
    ----------
    J. W. Silverstein and S.-I. Choi, *Analysis of the limiting spectral distribution of large dimensional random matrices*,
    J. Multivariate Anal. 54 (1995).
    """

    @property
    @abc.abstractmethod
    def _population_law(self) -> SpectralLaw:
        """The law H of t."""

    @property
    @abc.abstractmethod
    def _slope_ratio(self) -> float:
        """The factor c."""

    def _map(self, omega: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        energy, energy_slope = self_energy_with_slope(self._population_law, omega)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            value = 1 / (omega - energy)
            excess = energy * value  # omega G - 1, without cancellation
            excess_slope = energy_slope * value - energy * value**2 * (1 - energy_slope)
        return z - self._slope_ratio * omega * excess, -self._slope_ratio * (excess + omega * excess_slope)

    @functools.cached_property
    def _hull(self) -> tuple[float, float]:
        if isinstance(self._population_law, DiscreteLaw):
            return self._intervals[0][0], self._intervals[-1][1]
        low, high = ends(self._population_law)
        reach = (1 + self._slope_ratio**0.5) ** 2
        return min(low, 0.0) * reach, max(high, 0.0) * reach

    @property
    def _relative(self) -> bool:
        return self._hull[0] <= 1e-6 * self._hull[1]

    def _candidates(self) -> np.ndarray:
        low, high = self._hull
        return np.concatenate([high * 10.0 ** np.linspace(-12, 0, 100), low * 10.0 ** np.linspace(-12, 0, 100)])

    def _gap_of(self, omega: np.ndarray, z: np.ndarray) -> np.ndarray:
        return gap_index(self._population_law, omega.real)

    @functools.cached_property
    def _intervals(self) -> tuple[tuple[float, float], ...]:
        if isinstance(self._population_law, DiscreteLaw):
            places, weights = np.array(self._population_law.places), np.array(self._population_law.weights)
            return silverstein_intervals(places[places != 0], weights[places != 0], self._slope_ratio)
        return super()._intervals


def silverstein_intervals(places: np.ndarray, weights: np.ndarray, ratio: float) -> tuple[tuple[float, float], ...]:
    """Support of the continuous part for a population of atoms, none of them at zero, ascending.

    The complement of the support is the image of the real s at which ``ratio sum weight (place / (s - place))^2``, a convex function
    between the atoms, is below one.
    """
    strength = ratio * weights * places**2

    def rise(s: float) -> float:
        return float((strength / (s - places) ** 2).sum()) - 1

    def turn(s: float) -> float:
        return -float((strength / (s - places) ** 3).sum())

    def image(s: float) -> float:
        return s * (1 + ratio * float((weights * (places / (s - places))).sum()))

    def root(function: Callable[[float], float], low: float, high: float) -> float:
        return float(brentq(function, low, high, xtol=1e-300, rtol=8.9e-16, maxiter=500))

    far = float(np.sqrt(strength.sum()))
    reach = np.sqrt(strength) * (1 - 1e-12)
    size = float(np.abs(places).max())

    def outer(end: int, sign: float) -> float:
        return root(rise, places[end] + sign * reach[end], places[end] + sign * far * (1 + 1e-12))

    found = [image(outer(0, -1.0))]
    # Two neighbouring atoms alone may keep the function above one.
    between = (np.cbrt(strength[:-1]) + np.cbrt(strength[1:])) ** 3 / np.diff(places) ** 2 < 1
    for i in np.flatnonzero(between):
        low, high = places[i] + reach[i], places[i + 1] - reach[i + 1]
        if not low < high:
            continue
        if turn(low) >= 0 or turn(high) <= 0:
            continue
        bottom = root(turn, low, high)
        if rise(bottom) < 0:
            found += [image(root(rise, low, bottom)), image(root(rise, bottom, high))]
    found.append(image(outer(len(places) - 1, 1.0)))
    # A hard edge at zero is a rounding away from it.
    edges = [0.0 if abs(edge) < 1e-14 * size else edge for edge in found]
    return tuple((edges[j], edges[j + 1]) for j in range(0, len(edges), 2))


def gap_index(law: SpectralLaw, x: np.ndarray) -> np.ndarray:
    """Number of the gap between parts of the law in which each place lies; the two outer ones are one, through infinity."""
    parts = np.sort(np.array([a for a, _ in law.support] + [place for place, _ in law.atoms]))
    return np.searchsorted(parts, x) % len(parts)
