"""A density on one interval, integrated to near rounding by piecewise polynomials in the angle."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.polynomial import legendre

_POINTS = 24
"""Legendre points, and coefficients, of one panel."""
_TOLERANCE = 1e-12
_GRADES = 26
_MOST_PANELS = 4000

_NODES, _WEIGHTS = legendre.leggauss(_POINTS)
_ANALYSIS = (np.arange(_POINTS) + 0.5)[:, None] * legendre.legvander(_NODES, _POINTS - 1).T * _WEIGHTS
"""Values at the nodes to Legendre coefficients."""


@dataclasses.dataclass(frozen=True, eq=False)
class Panels:
    """Legendre series, panel by panel, of the density of the angle t in ``x = middle - radius cos(t)``.

    Parameters
    ----------
    low, high : float
        The interval.
    edges : numpy.ndarray
        Angles at which the panels meet, shape (m + 1,), from 0 to pi.
    series : numpy.ndarray
        Coefficients of the density of the angle on each panel, shape (m, 24).
    """

    low: float
    high: float
    edges: np.ndarray
    series: np.ndarray

    @classmethod
    def fit(cls, density: Callable[[np.ndarray], np.ndarray], low: float, high: float) -> Panels:
        """Panels for a density on (low, high), halved until converged and graded towards ends with a strong singularity."""
        starts, ends = np.linspace(0, np.pi, 5)[:-1], np.linspace(0, np.pi, 5)[1:]
        kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        total = 0
        for depth in range(40):
            t = (starts[:, None] + ends[:, None]) / 2 + (ends - starts)[:, None] / 2 * _NODES
            # The angle counted from the upper end, from small panels without cancellation.
            x = place(t.ravel(), low, high)
            x = np.clip(x, np.nextafter(low, high), np.nextafter(high, low))
            values = density(x).reshape(t.shape) * ((high - low) / 2 * np.sin(t))
            series = values @ _ANALYSIS.T
            # Relative to the whole, whose mass is of order one: what the panel leaves out.
            tail = np.abs(series[:, -3:]).max(axis=1) * (ends - starts)
            done = ~(tail > _TOLERANCE) | ((ends - starts) < 1e-14)
            if total + len(starts) > _MOST_PANELS:
                done[:] = True
            kept.append((starts[done], ends[done], series[done]))
            total += int(done.sum())
            if np.all(done):
                break
            starts, ends = starts[~done], ends[~done]
            new: list[np.ndarray] = []
            for a, b in zip(starts, ends, strict=True):
                if depth == 2 and (a == 0 or b == np.pi):
                    grades = np.concatenate([[0.0], 4.0 ** np.arange(-_GRADES, 1)]) * (b - a)
                    new.append(a + grades if a == 0 else (b - grades)[::-1])
                else:
                    new.append(np.array([a, (a + b) / 2, b]))
            starts = np.concatenate([cuts[:-1] for cuts in new])
            ends = np.concatenate([cuts[1:] for cuts in new])
            wide = ends > starts
            starts, ends = starts[wide], ends[wide]
        start = np.concatenate([part[0] for part in kept])
        order = np.argsort(start)
        edges = np.append(start[order], np.pi)
        return cls(low, high, edges, np.concatenate([part[2] for part in kept])[order])

    @property
    def _widths(self) -> np.ndarray:
        return np.diff(self.edges)

    @property
    def _below(self) -> np.ndarray:
        """Mass below each meeting place, shape (m + 1,)."""
        return np.concatenate([[0.0], np.cumsum(self._widths * self.series[:, 0])])

    @property
    def mass(self) -> float:
        """Mass of the interval."""
        return float(self._below[-1])

    def scaled(self, factor: float) -> Panels:
        """The same shape with another mass."""
        return dataclasses.replace(self, series=self.series * factor)

    def _within(self, panel: np.ndarray, local: np.ndarray) -> np.ndarray:
        """Mass between the lower end of a panel and the local place in [-1, 1]."""
        series = self.series[panel].T
        degrees = 2.0 * np.arange(_POINTS)[:, None] + 1
        # The integral of P_n is (P_(n+1) - P_(n-1)) / (2 n + 1), which vanishes at -1; that of P_0 is 1 + x.
        scaled = series / degrees
        integral = np.zeros((_POINTS + 1, series.shape[1]))
        integral[1:] += scaled
        integral[: _POINTS - 1] -= scaled[1:]
        integral[0] += scaled[0]
        return legendre.legval(local, integral, tensor=False) * self._widths[panel] / 2

    def cdf(self, x: np.ndarray) -> np.ndarray:
        """Mass at or below each place, shape (k,)."""
        t = angle(np.clip(x, self.low, self.high), self.low, self.high)
        panel = np.clip(np.searchsorted(self.edges, t, side="right") - 1, 0, len(self.edges) - 2)
        local = np.clip(2 * (t - self.edges[panel]) / self._widths[panel] - 1, -1, 1)
        below = self._below
        mass = np.clip(below[panel] + self._within(panel, local), below[panel], below[panel + 1])
        return np.select([x <= self.low, x >= self.high], [0.0, below[-1]], mass)

    def quantile(self, mass: np.ndarray) -> np.ndarray:
        """Place below which this much mass lies, by bisection of the angle within its panel; shape (k,)."""
        below = self._below
        panel = np.clip(np.searchsorted(below, mass, side="left") - 1, 0, len(self.edges) - 2)
        low, high = np.full(mass.shape, -1.0), np.ones(mass.shape)
        rest = mass - below[panel]
        for _ in range(52):
            middle = (low + high) / 2
            short = self._within(panel, middle) < rest
            low, high = np.where(short, middle, low), np.where(short, high, middle)
        t = self.edges[panel] + (high + 1) / 2 * self._widths[panel]
        return np.clip(place(t, self.low, self.high), self.low, self.high)

    def rule(self, degree: int) -> tuple[np.ndarray, np.ndarray]:
        """Nodes and weights that integrate polynomials in x up to this degree to rounding."""
        # On a panel of angle w, x^d turns through d w / 2; the rule follows about twenty radians beside the density.
        parts = np.maximum(1, np.ceil(degree * self._widths / 20)).astype(np.int64)
        panel = np.repeat(np.arange(len(parts)), parts)
        first = np.concatenate([np.arange(count) for count in parts])
        count = parts[panel]
        local = (2 * first[:, None] + 1 + _NODES) / count[:, None] - 1
        t = self.edges[panel][:, None] + (local + 1) / 2 * self._widths[panel][:, None]
        values = legendre.legval(local, self.series[panel].T[:, :, None], tensor=False)
        weights = values * _WEIGHTS * (self._widths[panel] / 2 / count)[:, None]
        return place(t.ravel(), self.low, self.high), np.maximum(weights.ravel(), 0.0)


def place(t: np.ndarray, low: float, high: float) -> np.ndarray:
    """``middle - radius cos(t)``, counted from the nearer end so that small distances keep their digits."""
    width = high - low
    return np.where(t < np.pi / 2, low + width * np.sin(t / 2) ** 2, high - width * np.cos(t / 2) ** 2)


def angle(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Angle of a place in [low, high]."""
    return np.asarray(2 * np.arctan2(np.sqrt(x - low), np.sqrt(high - x)))
