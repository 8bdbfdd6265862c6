"""Smooth views of a discrete measure, by five methods, with isolated eigenvalues kept apart.

Whatever the method, what has mass at a point stays a point: outliers, and isolated multiple eigenvalues such as the zeros of a
matrix of low rank. They enter as narrow Gaussians; the method is applied to the rest, and both together have mass one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np
from scipy import special

from . import broadening
from .chebyshev import Interval, chebyshev_moments
from .kpm import Kernel, KernelPolynomial, damping
from .maxent import MaximumEntropy, maximum_entropy
from .pchip import MidstepCurve
from .terminator import TerminatedFraction, jacobi_from_rule

if TYPE_CHECKING:
    from .density import SpectralDensity
    from .measure import SpectralMeasure

Broadening = float | Literal["adaptive"]
Method = Literal["gaussian", "pchip", "kpm", "terminator", "maxent"]
MULTIPLE = 10.83
"""An isolated eigenvalue is a point of mass when its weight is so many times 1/n: a simple one has more once in a thousand probes."""
MOST_ENTROPY_MOMENTS = 40
"""Moments that the maximum entropy method takes by default; further ones mostly describe the probe."""
_FEWEST_COEFFICIENTS = 16


class Model(Protocol):
    """A measure with a density."""

    def density(self, x: Any) -> np.ndarray:
        """Density at `x`."""

    def cdf(self, x: Any) -> np.ndarray:
        """Mass at or below `x`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Bumps:
    """A sum of Gaussians."""

    places: np.ndarray
    masses: np.ndarray
    widths: np.ndarray

    def density(self, x: Any) -> np.ndarray:
        """Density at `x`; it integrates to the sum of the masses."""
        return broadening.gaussians(np.asarray(x, dtype=np.float64), self.places, self.masses, self.widths)[0]

    def cdf(self, x: Any) -> np.ndarray:
        """Mass at or below `x`."""
        x = np.asarray(x, dtype=np.float64)
        out = np.zeros(x.shape)
        for place, mass, width in zip(self.places, self.masses, self.widths, strict=True):
            out += mass * special.ndtr((x - place) / width)
        return out


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """A measure as points of mass and a rest that may be smoothed.

    Attributes
    ----------
    points : Bumps
        Outliers and isolated multiple eigenvalues, the same for all probes.
    outlier : numpy.ndarray
        Which of them are outliers (bool).
    rest : tuple of (numpy.ndarray, numpy.ndarray)
        Nodes and weights of each probe; the masses of the points and the mean of the sums of these weights add up to one.
    interval : tuple of float
        Ends of the rest: its nodes, widened by their residuals.
    whole : tuple of bool
        For each probe, whether its rest is the whole rule.
    """

    points: Bumps
    outlier: np.ndarray
    rest: tuple[tuple[np.ndarray, np.ndarray], ...]
    interval: Interval
    whole: tuple[bool, ...]


def split(S: SpectralMeasure) -> Split:
    """Take the points of mass out of a measure."""
    d, floor = S.deflation, S.noise_floor
    chosen = _points(S)
    masses, widths = np.zeros(len(chosen)), np.zeros(len(chosen))
    rest, whole, ends = [], [], []
    for probe, rule in enumerate(d.rules):
        weights, _ = d.of_probe(probe)
        at = [d.atoms[i].places[probe] for i in chosen]
        masses += weights[at] / len(d.rules)
        keep = ~_nodes_of(S, probe, chosen)
        widths += broadening.widths(rule.nodes, ~keep, floor)[at] / len(d.rules)
        rest.append((rule.nodes[keep], weights[keep]))
        whole.append(bool(keep.all()))
        if keep.any():
            first, last = np.flatnonzero(keep)[[0, -1]]
            ends.append((rule.nodes[first] - rule.residuals[first], rule.nodes[last] + rule.residuals[last]))
    places = np.array([d.atoms[i].value for i in chosen])
    interval = (float(min(low for low, _ in ends)), float(max(high for _, high in ends))) if ends else (0.0, 0.0)
    is_outlier = np.array([i in S._edges.outliers for i in chosen], dtype=bool)
    return Split(Bumps(places, masses, widths), is_outlier, tuple(rest), interval, tuple(whole))


def _points(S: SpectralMeasure) -> list[int]:
    """Positions of the atoms that are points of mass."""
    d = S.deflation
    return [i for i, atom in enumerate(d.atoms) if i in S._edges.outliers or (atom.value not in d.pinned and atom.weight * d.n > MULTIPLE)]


def _nodes_of(S: SpectralMeasure, probe: int, atoms: Iterable[int]) -> np.ndarray:
    """Which nodes of a probe belong to some atoms."""
    out = np.zeros(len(S.deflation.rules[probe].nodes), dtype=bool)
    out[[S.deflation.atoms[i].places[probe] for i in atoms]] = True
    return out


def gaussian(S: SpectralMeasure, x: np.ndarray, width: Broadening, outliers: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Broadened density; and of the part that sampling moves, the density again and the mean square of its kernel."""
    d = S.deflation
    total, moving, square = np.zeros(x.shape), np.zeros(x.shape), np.zeros(x.shape)
    for bumps, moves in _gaussian_parts(S, width, outliers):
        first, second = broadening.gaussians(x, bumps.places, bumps.masses / len(d.rules), bumps.widths)
        total += first
        if moves:
            moving, square = moving + first, square + second
    return total, moving, square


def gaussian_cdf(S: SpectralMeasure, x: np.ndarray, width: Broadening) -> np.ndarray:
    """Distribution function of the broadened density."""
    return np.asarray(sum(bumps.cdf(x) for bumps, _ in _gaussian_parts(S, width, True)) / len(S.deflation.rules))


def _gaussian_parts(S: SpectralMeasure, width: Broadening, outliers: bool) -> list[tuple[Bumps, bool]]:
    """For each probe the pinned nodes, which no other probe would move, and the others."""
    if width != "adaptive" and not (isinstance(width, (int, float)) and not isinstance(width, bool) and 0 < width < math.inf):
        raise ValueError(f"The argument broadening must be 'adaptive' or a positive width, but is {width!r}.")
    d, parts = S.deflation, []
    for probe, rule in enumerate(d.rules):
        weights, is_pinned = d.of_probe(probe)
        outside = _nodes_of(S, probe, S._edges.outliers)
        if width == "adaptive":
            sigma = broadening.widths(rule.nodes, _nodes_of(S, probe, _points(S)), S.noise_floor)
        else:
            sigma = np.full(len(rule.nodes), float(width))
        for chosen, moves in ((is_pinned, False), (~is_pinned, True)):
            keep = chosen if outliers else chosen & ~outside
            parts.append((Bumps(rule.nodes[keep], weights[keep], sigma[keep]), moves))
    return parts


def check_options(method: Any, broadening: Any, num_moments: Any, kernel: Any, *, step: bool = False) -> None:
    """Raise unless the method is known (``"step"`` too if `step`) and the options belong to it."""
    known = (*(("step",) if step else ()), *get_args(Method))
    if method not in known:
        raise ValueError(f"The argument method is {method!r}, but must be one of {', '.join(map(repr, known))}.")
    if method != "gaussian" and broadening != "adaptive":
        raise ValueError(f"The argument broadening belongs to method='gaussian', not to {method!r}; leave it out.")
    if method not in ("kpm", "maxent") and num_moments is not None:
        raise ValueError(f"The argument num_moments belongs to method='kpm' or 'maxent', not to {method!r}; leave it out.")
    if method != "kpm" and kernel is not None:
        raise ValueError(f"The argument kernel belongs to method='kpm', not to {method!r}; leave it out.")
    if kernel is not None:
        damping(1, kernel)


def evaluate(
    S: SpectralDensity,
    x: np.ndarray,
    what: Literal["density", "cdf"],
    method: Method,
    num_moments: int | None,
    kernel: Kernel | None,
    *,
    outliers: bool,
) -> np.ndarray:
    """Density or distribution function of a smooth view; its models are kept for the next call."""
    key = (method, num_moments, kernel)
    if key not in S._views:
        parts = split(S)
        S._views[key] = parts, models(S, parts, *key)
    parts, shared = S._views[key]
    points, keep = parts.points, np.ones(len(parts.outlier), dtype=bool) if outliers else ~parts.outlier
    out = getattr(Bumps(points.places[keep], points.masses[keep], points.widths[keep]), what)(x)
    for model, share in shared:
        out = out + share * getattr(model, what)(x)
    return np.asarray(out)


def models(S: SpectralMeasure, parts: Split, method: Method, num_moments: int | None, kernel: Kernel | None) -> list[tuple[Model, float]]:
    """What the method makes of the rest of a measure: models and their shares."""
    count = len(parts.rest)
    if method in ("kpm", "maxent"):
        nodes = np.concatenate([x for x, _ in parts.rest])
        weights = np.concatenate([w for _, w in parts.rest]) / count
        fewest = min(len(x) for x, _ in parts.rest)
        low, high = parts.interval
        if fewest < 2 or not high - low > 4 * np.finfo(float).eps * max(abs(low), abs(high)):
            _check_moments(num_moments, fewest, low, high)
            return [(_bumps(S, *part), 1 / count) for part in parts.rest if len(part[0])]
        limit = 2 * fewest - 1
        if num_moments is not None:
            _check_moments(num_moments, fewest, low, high)
            limit = int(num_moments)
        else:
            # Further moments of n discrete eigenvalues would resolve them one by one.
            limit = min(limit, max(8, S.deflation.rest_dimension // 2), MOST_ENTROPY_MOMENTS if method == "maxent" else limit)
        mu = chebyshev_moments(nodes, weights, limit + 1, parts.interval)
        if method == "kpm":
            return [(KernelPolynomial(mu, parts.interval, kernel or "jackson"), 1.0)]
        return [(_entropy(mu, parts.interval, fixed=num_moments is not None), 1.0)]
    out: list[tuple[Model, float]] = []
    for probe, (nodes, weights) in enumerate(parts.rest):
        if len(nodes) == 0:
            continue
        if method == "pchip":
            narrow = max(S.noise_floor, 1e-12 * float(np.max(np.abs(nodes))), 1e-140)
            single = broadening.adaptive_widths(nodes[:1], S.noise_floor)[0]
            out.append((MidstepCurve(nodes, weights, narrow if len(nodes) > 1 else single), 1 / count))
        else:
            out += [(model, share / count) for model, share in _terminated(S, probe, nodes, weights, parts.whole[probe])]
    return out


def _check_moments(num_moments: Any, fewest: int, low: float, high: float) -> None:
    if num_moments is None:
        return
    if isinstance(num_moments, (bool, np.bool_)) or not isinstance(num_moments, (int, np.integer)) or num_moments < 1:
        raise ValueError(f"The argument num_moments must be a whole number of at least 1, but is {num_moments!r}.")
    if num_moments > 2 * fewest - 1:
        raise ValueError(
            f"The argument num_moments is {num_moments}, but what is not an isolated eigenvalue has {fewest} nodes in "
            f"[{low:.6g}, {high:.6g}] and so {max(2 * fewest - 1, 0)} moments beyond its mass; take more steps or ask for fewer."
        )


def _entropy(mu: np.ndarray, interval: Interval, *, fixed: bool) -> MaximumEntropy:
    """The density of maximum entropy, from fewer moments where no density has all of them."""
    model = maximum_entropy(mu, interval)
    if fixed and not model.converged:
        raise ValueError(
            f"No density that can be computed has these {len(mu) - 1} moments (the nearest misses them by {model.gradient_norm:.1e}): the "
            "measure has points of mass or its edges are sharper; pass a smaller num_moments=."
        )
    while not model.converged:
        mu = mu[: max(1, int(0.75 * len(mu)))]
        model = maximum_entropy(mu, interval)
    return model


def _bumps(S: SpectralMeasure, nodes: np.ndarray, weights: np.ndarray) -> Bumps:
    return Bumps(nodes, weights, broadening.adaptive_widths(nodes, S.noise_floor))


def _terminated(S: SpectralMeasure, probe: int, nodes: np.ndarray, weights: np.ndarray, whole: bool) -> list[tuple[Model, float]]:
    """The terminated fraction of one probe, its atoms outside of the band as Gaussians."""
    alphas, betas = S.run.jacobi(probe)
    if not whole or len(S.deflation.pinned) or len(alphas) != len(nodes):
        alphas, betas = jacobi_from_rule(nodes, weights)
        alphas = alphas[: len(betas)]
    elif betas[-1] == 0.0:
        alphas, betas = alphas[:-1], betas[:-1]
    # The coefficients of n discrete eigenvalues shrink towards step n: only the first third speaks of a bulk.
    last = max(_FEWEST_COEFFICIENTS, S.deflation.rest_dimension // 3)
    alphas, betas = alphas[:last], betas[:last]
    if len(betas) == 0:
        return [(_bumps(S, nodes, weights), 1.0)]
    fraction = TerminatedFraction(alphas, betas)
    share = float(weights.sum())
    parts: list[tuple[Model, float]] = [(_Band(fraction), share)]
    if fraction.atoms:
        places, masses = (np.array(column) for column in zip(*fraction.atoms, strict=True))
        low, high = fraction.edges
        line = np.concatenate([[-np.inf], places[places < low], [low, high], places[places > high], [np.inf]])
        below, above = line[np.searchsorted(line, places) - 1], line[np.searchsorted(line, places) + 1]
        distance = np.minimum(places - below, above - places)
        floor = max(S.noise_floor, 1e-12 * float(np.max(np.abs(places))), 1e-140)
        parts.append((Bumps(places, masses, np.maximum(broadening.SPACINGS * distance, floor)), share))
    return parts


@dataclasses.dataclass(frozen=True, eq=False)
class _Band:
    """The continuous part of a terminated fraction."""

    fraction: TerminatedFraction

    def density(self, x: Any) -> np.ndarray:
        """Density at `x`."""
        return self.fraction.density(x)

    def cdf(self, x: Any) -> np.ndarray:
        """Mass of the band at or below `x`."""
        return np.interp(np.asarray(x, dtype=np.float64), *self.fraction.table)
