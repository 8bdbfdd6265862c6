"""Quantiles of a measure: on the smooth distribution function, and with a band by inverting that of the distribution function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import smoothing

if TYPE_CHECKING:
    from .density import SpectralDensity

_POINTS_BETWEEN_NODES = 16
ROUNDING = 1e-12
"""Of sums of weights: a quantile that is a step of the distribution function is the lower end of the step."""


def check_probabilities(q: Any) -> np.ndarray:
    """Numbers between 0 and 1, or a ValueError that names the argument."""
    q = np.asarray(q, dtype=np.float64)
    if np.any((q < 0) | (q > 1) | np.isnan(q)):
        raise ValueError("The argument q must lie between 0 and 1.")
    return q


def interpolated(S: SpectralDensity, q: np.ndarray) -> np.ndarray:
    """Places where the monotone curve through the middles of the steps reaches `q`; points of mass stay steps."""
    parts = smoothing.split(S)
    curves = smoothing.models(S, parts, "pchip", None, None)
    order = np.argsort(parts.points.places, kind="stable")
    points, masses = parts.points.places[order], parts.points.masses[order]
    ends = [end for curve, _ in curves for end in getattr(curve, "support", ())]
    nodes = np.unique(np.concatenate([*(x for x, _ in parts.rest), ends]))
    steps = np.linspace(0, 1, _POINTS_BETWEEN_NODES, endpoint=False)
    fine = np.append((nodes[:-1, None] + np.diff(nodes)[:, None] * steps).ravel(), nodes[-1:])
    fine = fine[~np.isin(fine, points)]
    # Every point of mass stands twice: below its step and above it.
    x = np.concatenate([fine, points, points])
    below = np.concatenate([[0.0], np.cumsum(masses)])
    steps_before = np.concatenate([below[np.searchsorted(points, fine)], below[:-1], below[1:]])
    mass = sum((share * curve.cdf(x) for curve, share in curves), steps_before)
    order = np.lexsort((mass, x))
    mass = np.maximum.accumulate(mass[order])
    return np.asarray(np.interp(q, mass / mass[-1], x[order]))


def quantile_band(S: SpectralDensity, q: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the places where the band of the distribution function holds `q`."""
    d, rules = S.deflation, S.deflation.rules
    places = np.unique(np.concatenate([rule.nodes for rule in rules]))
    low, high = S.cdf_band(places, confidence)
    _, first = S.cdf_band(np.nextafter(places[:1], -np.inf), confidence)
    least, most = S.interval
    # The band is constant between the nodes. A quantile lies at or above the first node where the upper side reaches q, and at or
    # below the first one where the lower side does.
    upper_side = np.maximum.accumulate(np.concatenate([first, high]))
    lower = np.concatenate([[least], places])[np.minimum(np.searchsorted(upper_side + ROUNDING, q), len(places))]
    upper = np.concatenate([places, [most]])[np.searchsorted(np.maximum.accumulate(low), q)]
    error = S.noise_floor + max((atom.shift for atom in d.atoms if atom.value in d.pinned), default=0.0)
    return lower - error, upper + error
