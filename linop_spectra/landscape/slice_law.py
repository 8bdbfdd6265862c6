r"""Law of the curvature along a random direction.

For a direction uniform on the sphere in n dimensions, the second derivative is :math:`q = \sum_i \lambda_i z_i^2 / \sum_i z_i^2` with
independent normal z. Its mean is the mean eigenvalue, its variance :math:`2 v / (n + 2)` with the variance v of the eigenvalues. Far from
the mean, :math:`P(q \ge x) = P(\sum_i (\lambda_i - x) z_i^2 \ge 0)` is the tail of a weighted sum of chi-squares, which a saddle point
approximates uniformly (Lugannani and Rice, 1980; for ratios of quadratic forms Lieberman, 1994).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import scipy
from scipy import optimize, special

_CENTRAL = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class SliceLaw:
    """Law of the curvature along a random unit direction, for a spectrum.

    Parameters
    ----------
    eigenvalues : numpy.ndarray
        Places, shape (k,), float64.
    multiplicities : numpy.ndarray
        How many eigenvalues lie at each, shape (k,); they sum to the dimension and need not be whole.

    Examples
    --------
    >>> import numpy as np
    >>> law = SliceLaw(np.array([0.0, 1.0]), np.array([999.0, 1.0]))  # one eigenvalue in a thousand: a Beta law
    >>> law.mean, round(law.standard_deviation, 6)
    (0.001, 0.001412)
    """

    eigenvalues: np.ndarray
    multiplicities: np.ndarray

    @classmethod
    def of(cls, spectrum: Any) -> SliceLaw:
        """The law for a `SpectralDensity`."""
        return cls(np.asarray(spectrum.nodes, dtype=np.float64), spectrum.dimension * np.asarray(spectrum.weights, dtype=np.float64))

    @property
    def dimension(self) -> float:
        """Number of eigenvalues."""
        return float(self.multiplicities.sum())

    @property
    def mean(self) -> float:
        """Trace over dimension."""
        return float(self.multiplicities @ self.eigenvalues / self.dimension)

    @functools.cached_property
    def standard_deviation(self) -> float:
        """Root of twice the eigenvalues' variance over the dimension plus two."""
        variance = self.multiplicities @ (self.eigenvalues - self.mean) ** 2 / self.dimension
        return float(np.sqrt(2 * variance / (self.dimension + 2)))

    def log_survival(self, x: float) -> float:
        """Natural logarithm of the chance that a slice has a curvature of at least `x`; minus infinity beyond the largest eigenvalue.

        A saddle point approximation. Its relative error is small wherever several eigenvalues lie above `x`; of the Beta law of
        a single one, its worst case, it is below 17 %.
        """
        present = self.multiplicities > 0
        a, m = self.eigenvalues[present] - x, self.multiplicities[present]
        if a.max() <= 0:
            return 0.0 if (a == 0).all() else -np.inf
        if a.min() >= 0:
            return 0.0
        a = a / np.abs(a).max()  # the sign of the sum is all that counts
        mean = float(m @ a)
        variance, third = 2 * float(m @ a**2), 8 * float(m @ a**3)
        s = _saddle_point(a, m)
        y = 2 * s * a
        # K(s), with the linear part, which nearly cancels, taken out of the sum.
        cumulant = -0.5 * float(m @ (np.log1p(-y) + y)) + s * mean
        w = np.sign(s) * np.sqrt(max(-2 * cumulant, 0.0))
        if abs(w) < _CENTRAL:
            z, skewness = -mean / np.sqrt(variance), third / variance**1.5
            density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
            return float(np.log(scipy.stats.norm.sf(z) + skewness * (z**2 - 1) * density / 6))
        u = s * np.sqrt(2 * float(m @ (a / (1 - y)) ** 2))
        # Far out the tail underflows, its ratio to the normal density does not.
        log_density = -(w**2) / 2 - 0.5 * np.log(2 * np.pi)
        mills = np.exp(scipy.stats.norm.logsf(w) - log_density) if w > -30 else np.inf
        if not np.isfinite(mills):
            return 0.0
        return float(min(0.0, log_density + np.log(max(mills + 1 / u - 1 / w, np.finfo(float).tiny))))

    def survival(self, x: float) -> float:
        """Chance that a slice has a curvature of at least `x`; see `log_survival`."""
        return float(np.exp(self.log_survival(x)))

    def sample(self, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
        """Curvatures of random slices, drawn from the law; eigenvalues that differ by a hundredth of their deviation count as one."""
        generator = np.random.default_rng(seed)
        above, below = np.zeros(shape), np.zeros(shape)
        for value, count in self._grouped():
            squares = generator.gamma(count / 2, size=shape)
            above += (value - self.mean) * squares
            below += squares
        return self.mean + above / below

    def _grouped(self) -> list[tuple[float, float]]:
        """Means and multiplicities of groups of close eigenvalues: the variance of a slice loses less than a ten-thousandth."""
        present = self.multiplicities > 0
        order = np.argsort(self.eigenvalues[present])
        values, counts = self.eigenvalues[present][order], self.multiplicities[present][order]
        width = 0.01 * self.standard_deviation * np.sqrt((self.dimension + 2) / 2)
        groups: list[tuple[float, float]] = []
        first = 0
        while first < len(values):
            last = max(int(np.searchsorted(values, values[first] + width, side="right")), first + 1)
            count = float(counts[first:last].sum())
            groups.append((float(counts[first:last] @ values[first:last] / count), count))
            first = last
        return groups


def _saddle_point(a: np.ndarray, m: np.ndarray) -> float:
    """Where the derivative of the cumulant function is zero, for weights of both signs."""

    def derivative(s: float) -> float:
        return float(m @ (a / (1 - 2 * s * a)))

    low, high = 1 / (2 * a.min()), 1 / (2 * a.max())
    # The derivative grows from minus to plus infinity; near the ends it is steep, so the bracket shrinks towards them.
    for shrink in 10.0 ** -np.arange(1.0, 15.0):
        left, right = low * (1 - shrink), high * (1 - shrink)
        if derivative(left) < 0 < derivative(right):
            return float(optimize.brentq(derivative, left, right, xtol=1e-300, rtol=8.9e-16, maxiter=500))
    return float(high * (1 - 1e-15) if derivative(0.0) < 0 else low * (1 - 1e-15))


def chance_of_any(log_survival: float, count: int) -> float:
    """Chance that at least one of `count` independent events happens, each with a chance that is given by its logarithm."""
    return float(-np.expm1(count * special.log1p(-np.exp(log_survival)))) if log_survival < 0 else 1.0
