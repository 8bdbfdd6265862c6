"""Laws whose transform follows from the fixed point of a map: its solution on the real line, and the edges of the support."""

from __future__ import annotations

import abc
import functools
from typing import Any

import numpy as np

from .fixed_point import fixed_point
from .law import like
from .numerical_law import NumericalLaw

_SCAN = 600
_BLOCK = 20_000


class FixedPointLaw(NumericalLaw):
    """A law given by a map of the upper half-plane, see `fixed_point`, and by what its fixed point says about the transform.

    Subclasses define `_map`, `_cauchy_from`, `_hull` and `atoms`. The support is found from the fixed points on the real line,
    which are real off the support and are not on it.
    """

    @abc.abstractmethod
    def _map(self, omega: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Image of omega and its derivative."""

    @abc.abstractmethod
    def _cauchy_from(self, omega: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Cauchy transform at z from the fixed point."""

    @property
    @abc.abstractmethod
    def _hull(self) -> tuple[float, float]:
        """An interval that holds the law."""

    @property
    def _relative(self) -> bool:
        """Whether the law may be unbounded at zero, where fixed points then need their relative digits."""
        return False

    def _gap_of(self, omega: np.ndarray, z: np.ndarray) -> np.ndarray:
        """A number that changes between real fixed points only when part of the law lies between their z; shape (m,)."""
        return np.zeros(omega.shape)

    def _candidates(self) -> np.ndarray:
        """Places near which a narrow part of the support may lie."""
        return np.empty(0)

    @property
    def _scale(self) -> float:
        low, high = self._hull
        return high - low

    def _solve(self, z: np.ndarray) -> np.ndarray:
        out = np.empty(z.shape, dtype=np.complex128)
        for first in range(0, len(z), _BLOCK):
            part = z[first : first + _BLOCK]
            out[first : first + _BLOCK] = self._solve_block(part)
        return out

    def _solve_block(self, z: np.ndarray) -> np.ndarray:
        return fixed_point(self._map, z, self._scale, relative=self._relative)[0]

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
        z = np.asarray(z, dtype=np.complex128)
        flat = z.ravel() + 0.0  # minus zero becomes zero: real points are seen from above
        upper = np.where(flat.imag < 0, flat.conj(), flat)
        value = -self._cauchy_from(self._solve(upper), upper)
        return like(np.where(flat.imag < 0, value.conj(), value).reshape(z.shape))

    def _density(self, x: np.ndarray) -> np.ndarray:
        z = x.astype(np.complex128)
        value: np.ndarray = -self._cauchy_from(self._solve(z), z).imag / np.pi
        return np.where(np.isfinite(value), value, 0.0)

    @property
    def support(self) -> list[tuple[float, float]]:
        """Intervals that carry the continuous part, ascending."""
        return list(self._intervals)

    def _height(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far the fixed point is from the real line, which is zero off the support, and the gap in which it is when real."""
        z = x.astype(np.complex128)
        omega = self._solve(z)
        size = np.maximum(np.abs(omega), 1e-300) if self._relative else self._scale
        return omega.imag / size, self._gap_of(omega, z)

    @functools.cached_property
    def _intervals(self) -> tuple[tuple[float, float], ...]:
        low, high = self._hull
        width = high - low
        if width == 0:
            return ()
        noise = 1e-8
        t = np.pi * (np.arange(_SCAN) + 0.5) / _SCAN
        inner = (low + high) / 2 - width / 2 * np.cos(t)
        ends = np.array([low + 1e-13 * width, high - 1e-13 * width])
        x = np.unique(np.clip(np.concatenate([inner, self._candidates(), ends]), *ends))
        height, gap = self._height(x)
        places = np.array([place for place, _ in self.atoms])
        for _ in range(45):
            new = self._between(x, height, gap, noise, places)
            if len(new) == 0:
                break
            more, gaps = self._height(new)
            x, height, gap = np.concatenate([x, new]), np.concatenate([height, more]), np.concatenate([gap, gaps])
            order = np.argsort(x)
            x, height, gap = x[order], height[order], gap[order]
        on = height > noise
        starts = np.flatnonzero(on & ~np.concatenate([[False], on[:-1]]))
        stops = np.flatnonzero(on & ~np.concatenate([on[1:], [False]]))
        if len(starts) == 0:
            return ()
        tops = np.array([height[i : j + 1].max() for i, j in zip(starts, stops, strict=True)])
        off = np.concatenate([np.where(starts == 0, np.nan, x[np.maximum(starts - 1, 0)]),
                              np.where(stops == len(x) - 1, np.nan, x[np.minimum(stops + 1, len(x) - 1)])])  # fmt: skip
        bounds = np.repeat([low, high], len(starts))
        edges = self._edges(off, x[np.concatenate([starts, stops])], np.tile(tops, 2), noise, bounds).reshape(2, -1)
        return tuple((float(a), float(b)) for a, b in edges.T)

    def _between(self, x: np.ndarray, height: np.ndarray, gap: np.ndarray, noise: float, atoms: np.ndarray) -> np.ndarray:
        """Places to look at: between real fixed points that some part of the law must separate, and where the support nearly ends."""
        on = height > noise
        wide = np.diff(x) > 1e-12 * self._scale
        parted = ~on[:-1] & ~on[1:] & (gap[:-1] != gap[1:]) & wide
        for place in atoms:  # an atom alone separates them too
            parted &= ~((x[:-1] < place) & (place < x[1:]) & (np.diff(x) < 1e-6 * self._scale))
        middles = (x[:-1][parted] + x[1:][parted]) / 2
        dips = np.flatnonzero((height[1:-1] < height[:-2]) & (height[1:-1] < height[2:]) & on[:-2] & on[1:-1] & on[2:]) + 1
        dips = dips[(x[dips + 1] - x[dips - 1] > 1e-6 * self._scale)]
        fine = [x[i - 1] + (x[i + 1] - x[i - 1]) * np.array([0.2, 0.4, 0.6, 0.8]) for i in dips]
        return np.setdiff1d(np.concatenate([middles, *fine]), x)

    def _edges(self, off: np.ndarray, on: np.ndarray, tops: np.ndarray, noise: float, ends: np.ndarray) -> np.ndarray:
        """Edges between places off and on the support; those of `ends` where nothing lies off it.

        The square of the imaginary part is linear at an edge: bisection to where it is small, then the line.
        """
        known = ~np.isnan(off)
        out = ends.copy()
        if not np.any(known):
            return out
        off, on, tops = off[known], on[known], tops[known]
        level = np.maximum(3e-4 * tops, noise)
        levels = np.stack([level, 2 * level, 4 * level])
        one, two, four = self._crossing(np.broadcast_to(off, levels.shape), np.broadcast_to(on, levels.shape), levels)
        # At distances 1, 4 and 16: a square root is told from another edge.
        with np.errstate(divide="ignore", invalid="ignore"):
            square_root = np.abs((four - two) / (two - one) - 4) < 0.2
        found = one - (two - one) / 3
        if not np.all(square_root):
            other = ~square_root
            found[other] = self._crossing(off[other], one[other], np.full(int(other.sum()), noise))
        out[known] = found
        return out

    def _crossing(self, off: np.ndarray, on: np.ndarray, level: np.ndarray) -> np.ndarray:
        """Places at which the imaginary part rises through the level, by section into sixteen."""
        shares = np.arange(1, 16) / 16
        for _ in range(14):
            width = on - off
            inner = off[..., None] + width[..., None] * shares
            inside = self._height(inner.ravel())[0].reshape(inner.shape) > level[..., None]
            count = np.where(inside.any(axis=-1), inside.argmax(axis=-1), 15)
            off, on = off + width * (count / 16), off + width * ((count + 1) / 16)
            if np.all(np.abs(on - off) <= 1e-15 * self._scale):
                break
        return on
