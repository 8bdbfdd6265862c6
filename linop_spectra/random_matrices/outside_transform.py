"""The Cauchy transform of a law on the real line outside of it, where outliers are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import optimize

from .laws.discrete_law import DiscreteLaw
from .laws.law import SpectralLaw


class OutsideTransform:
    """Cauchy transform of a law at real places outside of its parts, and its slope."""

    def __init__(self, cauchy: Callable[[complex], complex], parts: list[tuple[float, float]], points: list[float]) -> None:
        self._cauchy = cauchy
        self.points = points
        self.parts = _merged(parts + [(place, place) for place in points])
        self.lowest, self.highest = self.parts[0][0], self.parts[-1][1]
        self.span = max(abs(self.lowest), abs(self.highest), self.highest - self.lowest)

    def __call__(self, x: float) -> float:
        """The transform at a real place outside."""
        return self._cauchy(complex(x)).real

    def slope(self, x: float) -> float:
        """Derivative: differences into the complex plane, where the transform is analytic, extrapolated to the axis."""
        gap = min(min(abs(x - a), abs(x - b)) for a, b in self.parts)
        step = 1e-3 * gap
        wide, narrow = (self._cauchy(complex(x, h)).imag / h for h in (step, step / 2))
        return (4 * narrow - wide) / 3

    def at_edge(self, upper: bool) -> float:
        """The transform at the outer side of the highest or lowest edge; infinite at an atom."""
        edge = self.highest if upper else self.lowest
        if edge in self.points:
            return math.inf
        with np.errstate(divide="ignore", invalid="ignore"):
            value = self(edge)
        if not math.isfinite(value) or abs(value) > 1e8 / self.span:
            return math.inf  # a density that does not vanish at the edge
        return value


def outside_transform(name: str, law: Any) -> OutsideTransform:
    """The transform of a law, or of a pair of arrays (places, weights); errors name the argument."""
    if not isinstance(law, SpectralLaw):
        try:
            places, weights = law
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"The argument {name} must be a law or a pair of arrays (places, weights), but is of type {type(law).__name__}."
            ) from error
        law = DiscreteLaw(places, weights)
    atoms = [float(place) for place, mass in law.atoms if mass > 0]
    parts = [(float(a), float(b)) for a, b in law.support if b > a]
    if not all(math.isfinite(end) for part in parts for end in part):
        raise ValueError(f"The argument {name} reaches to infinity, so that no eigenvalue is apart from it.")
    return OutsideTransform(lambda z: -complex(law.stieltjes(z)), parts, atoms)


def _merged(parts: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The parts in ascending order, those that touch joined."""
    out: list[tuple[float, float]] = []
    for a, b in sorted(parts):
        if out and a <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], b))
        else:
            out.append((a, b))
    return out


def outside_root(f: Callable[[float], float], edge: float, far: float) -> float:
    """The root of f between an edge, where it may be infinite, and a place beyond the root."""
    near = edge
    for shrink in range(1, 52):
        candidate = edge + (far - edge) * 2.0**-shrink
        value = f(candidate)
        if value == 0:
            return candidate
        if (value > 0) != (f(far) > 0):
            near = candidate
            break
    if near == edge or f(far) == 0:
        return far if f(far) == 0 else edge
    return float(optimize.brentq(f, near, far, xtol=1e-15 * max(abs(near), abs(far)), rtol=4 * np.finfo(float).eps))
