"""A smooth distribution function through the middle of the steps of a Gauss rule.

At its nodes the distribution function of a measure lies within the step of its Gauss rule, on average in its middle. A monotone
cubic through the middles is a distribution function, its derivative a density without any bandwidth.

References
----------
F. N. Fritsch and R. E. Carlson, *Monotone piecewise cubic interpolation*, SIAM J. Numer. Anal. 17 (1980).
"""

from __future__ import annotations

from typing import Any

import numpy as np

OVERHANG = 1 / 3
"""How far the curve reaches beyond the outer nodes, in units of their distance to the next."""


class MidstepCurve:
    """Monotone cubic through ``(theta_j, w_1 + ... + w_{j-1} + w_j / 2)``, from zero to the whole mass.

    Beyond the first and the last node it goes on for a third of the distance to the next one: there a density ends that vanishes like a
    root.

    Parameters
    ----------
    nodes, weights : numpy.ndarray
        The rule, strictly ascending, shape (k,).
    width : float
        How far a single node reaches on either side, and the least distance of two nodes that are told apart.

    Examples
    --------
    >>> curve = MidstepCurve(np.array([-1.0, 0.0, 1.0]), np.full(3, 1 / 3), 0.1)
    >>> float(curve.cdf(0.0).round(12)), float(curve.cdf(9.0))
    (0.5, 1.0)
    """

    def __init__(self, nodes: np.ndarray, weights: np.ndarray, width: float) -> None:
        from scipy.interpolate import PchipInterpolator

        # In units of order one: SciPy's slopes are products of two differences.
        self._unit = float(np.max(np.abs(nodes), initial=0.0)) or 1.0
        nodes, weights = _apart(np.asarray(nodes) / self._unit, weights, width / self._unit)
        width = width / self._unit
        middle = np.cumsum(weights) - weights / 2
        first, last = (nodes[1] - nodes[0], nodes[-1] - nodes[-2]) if len(nodes) > 1 else (width / OVERHANG, width / OVERHANG)
        self._low, self._high, self._mass = nodes[0] - first * OVERHANG, nodes[-1] + last * OVERHANG, float(weights.sum())
        x = np.concatenate([[self._low], nodes, [self._high]])
        self._curve = PchipInterpolator(x, np.concatenate([[0.0], middle, [self._mass]]), extrapolate=False)
        self._slope = self._curve.derivative()

    @property
    def support(self) -> tuple[float, float]:
        """Where the curve starts and ends."""
        return float(self._low * self._unit), float(self._high * self._unit)

    def density(self, x: Any) -> np.ndarray:
        """Slope of the curve at `x`, zero beyond its ends; it integrates to the mass."""
        x = np.asarray(x, dtype=np.float64) / self._unit
        inside = (x >= self._low) & (x <= self._high)
        return np.where(inside, np.maximum(self._slope(np.clip(x, self._low, self._high)), 0.0), 0.0) / self._unit

    def cdf(self, x: Any) -> np.ndarray:
        """Mass at or below `x`."""
        x = np.asarray(x, dtype=np.float64) / self._unit
        inside = np.clip(self._curve(np.clip(x, self._low, self._high)), 0.0, self._mass)
        return np.where(x >= self._high, self._mass, inside)


def _apart(nodes: np.ndarray, weights: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes closer than `least` become one, at their centre of mass."""
    group = np.concatenate([[0], np.cumsum(np.diff(nodes) > least)])
    masses = np.bincount(group, weights)
    places = np.bincount(group, weights * nodes) / np.where(masses > 0, masses, 1.0)
    plain = np.bincount(group, nodes) / np.bincount(group)
    return np.where(masses > 0, places, plain), masses
