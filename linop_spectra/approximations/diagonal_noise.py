"""What the sampling error of an estimated diagonal does to its properties: without it, noise would pass for information."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..results import Estimate

_DEVIATIONS = 2.0


class DiagonalNoise:
    r"""The entries of a diagonal that is known up to a standard error each, and intervals for what follows from them.

    The sum of the squares of `n` noisy entries holds the noise as well, for random signs about :math:`|A|_F^2 / m` after `m` products,
    which for a large matrix is far more than the diagonal's own. It is taken off, and every other property gets an interval.

    Parameters
    ----------
    entries, standard_error : numpy.ndarray
        Shape (n,), float64.
    """

    def __init__(self, entries: np.ndarray, standard_error: np.ndarray) -> None:
        self.entries, self.error = entries, standard_error
        # An extreme of n entries reaches as far as the extreme of n normal numbers does.
        self.reach = math.sqrt(2 * math.log(max(len(entries), 2))) + 1

    @property
    def size(self) -> float:
        """Root of the mean squared error of an entry."""
        return math.sqrt(float(np.mean(self.error**2)))

    def trace(self) -> Estimate:
        """Sum of the entries; errors of two entries i, j share the square of the matrix's entry (i, j), which doubles the variance."""
        return Estimate(math.fsum(self.entries), standard_error=math.sqrt(2 * math.fsum(self.error**2)), method="estimated diagonal")

    def sum(self, f: Callable[[np.ndarray], np.ndarray]) -> Estimate:
        """Sum of a function of the entries; the interval adds up what each entry may change."""
        half = _DEVIATIONS / 2 * np.abs(f(self.entries + self.error) - f(self.entries - self.error))
        return Estimate(math.fsum(f(self.entries)), quadrature_error=math.fsum(half), method="estimated diagonal")

    def frobenius_norm(self) -> Estimate:
        """Root of the sum of squares without what the noise adds."""
        noise = self.error**2
        square = max(math.fsum(self.entries**2) - math.fsum(noise), 0.0)
        spread = _DEVIATIONS * math.sqrt(2 * math.fsum(noise**2) + 4 * math.fsum(np.maximum(self.entries**2 - noise, 0.0) * noise))
        value, low, high = math.sqrt(square), math.sqrt(max(square - spread, 0.0)), math.sqrt(square + spread)
        return Estimate(value, quadrature_error=max(value - low, high - value), method="estimated diagonal without its noise")

    def largest_modulus(self) -> Estimate:
        """Largest modulus of an entry."""
        return self._extreme(np.abs(self.entries), 1.0)

    def smallest(self) -> Estimate:
        """Smallest entry."""
        return self._extreme(-self.entries, -1.0)

    def _extreme(self, sizes: np.ndarray, sign: float) -> Estimate:
        value, margin = float(sizes.max()), self.reach * self.error
        error = max(value - float((sizes - margin).max()), float((sizes + margin).max()) - value)
        return Estimate(sign * value, quadrature_error=error, method="estimated diagonal")

    def share_below(self, place: float) -> Estimate:
        """Share of entries below a place."""
        return self._counted(self.entries - place, _DEVIATIONS * self.error, 1 / len(self.entries))

    def count_outside(self, low: float, high: float) -> Estimate:
        """Number of entries outside of an interval."""
        return self._counted(np.minimum(self.entries - low, high - self.entries), self.reach * self.error, 1.0)

    @staticmethod
    def _counted(distances: np.ndarray, margin: np.ndarray, unit: float) -> Estimate:
        """How many distances are negative, and how many certainly and possibly are."""
        value, least, most = (unit * float(np.sum(distances + shift < 0)) for shift in (0.0, margin, -margin))
        return Estimate(value, quadrature_error=max(value - least, most - value), method="estimated diagonal")

    @property
    def wasserstein(self) -> float:
        """Bound on the Wasserstein distance between the estimated entries and the entries."""
        return _DEVIATIONS * float(np.mean(self.error))

    @property
    def kolmogorov(self) -> float:
        """About how much of the entries the noise carries over one place."""
        ordered, window = np.sort(self.entries), 2 * _DEVIATIONS * self.size
        inside = np.searchsorted(ordered, ordered + window, side="right") - np.arange(len(ordered))
        return float(inside.max()) / len(ordered)

    def sentence(self) -> str:
        """What a reader should know."""
        own = self.frobenius_norm().value / math.sqrt(len(self.entries))
        return (
            f"is estimated, with a standard error of {self.size:.2g} for an entry beside entries of {own:.2g} (roots of mean squares); its "
            "norm is without that noise, and the intervals of its other rows hold it"
        )
