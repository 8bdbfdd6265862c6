"""How far a Gauss rule, and a random probe, can be from the spectrum.

Quadrature: the distribution function of any measure with the given moments lies between two step functions (Chebyshev, Markov,
Stieltjes; Chen, Trogdon and Ubaru, 2021). Sampling: for a probe uniform on the sphere the mass of j of n eigenvalues is
Beta(j/2, (n-j)/2) distributed (complex: Beta(j, n-j)), exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy

if TYPE_CHECKING:
    from .deflation import Deflation


def envelope(nodes: np.ndarray, weights: np.ndarray, x: np.ndarray, *, exact: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bound on the distribution function at `x` of every measure with this Gauss rule.

    Parameters
    ----------
    nodes, weights : numpy.ndarray
        The rule, ascending, shape (k,).
    x : numpy.ndarray
        Points.
    exact : bool
        Whether the rule is the measure itself: then both bounds are its distribution function.

    Returns
    -------
    tuple of numpy.ndarray
        Lower and upper bound, the shape of `x`.
    """
    steps = np.concatenate([[0.0], np.cumsum(weights)])
    at_or_below = np.searchsorted(nodes, x, side="right")
    if exact or len(nodes) == 0:
        return steps[at_or_below], steps[at_or_below]
    k = len(nodes)
    lower = steps[np.maximum(at_or_below - 1, 0)]
    upper = steps[np.minimum(at_or_below + 1, k)]
    return lower, upper


def kolmogorov(weights: np.ndarray) -> float:
    """Bound on the Kolmogorov distance of a Gauss rule from its measure: its largest weight."""
    return float(np.max(weights, initial=0.0))


def wasserstein(nodes: np.ndarray, weights: np.ndarray, low: float, high: float) -> float:
    """Bound on the Wasserstein-1 distance of a Gauss rule from its measure, which is supported in [low, high]."""
    if len(nodes) == 0:
        return 0.0
    ends = np.concatenate([[min(low, nodes[0])], nodes, [max(high, nodes[-1])]])
    padded = np.concatenate([[0.0], weights, [0.0]])
    return float(np.sum(np.maximum(padded[:-1], padded[1:]) * np.diff(ends)))


def mean_wasserstein(d: Deflation) -> float:
    """Mean over the probes of the quadrature part of the Wasserstein bound, of what is not pinned."""
    parts = []
    for rule, (nodes, weights) in zip(d.rules, d.rest, strict=True):
        low, high = rule.nodes[0] - rule.residuals[0], rule.nodes[-1] + rule.residuals[-1]
        if len(nodes) and nodes[0] > rule.nodes[0]:
            low = nodes[0]  # what lies below is pinned
        if len(nodes) and nodes[-1] < rule.nodes[-1]:
            high = nodes[-1]
        parts.append(0.0 if rule.exact else wasserstein(nodes, weights, low, high))
    return float(np.mean(parts))


def sampling_interval(
    lower: np.ndarray, upper: np.ndarray, dimension: int, num_probes: int, confidence: float, *, complex_valued: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Interval for the share of eigenvalues, given that the probes' mean mass lies between `lower` and `upper`.

    The mean mass of p probes varies like a binomial share of ``p (n + 2) / 2`` draws (complex: ``p (n + 1)``); the interval is
    that of Clopper and Pearson (1934) with this number, so that it does not shrink to nothing at 0 and 1.
    """
    draws = num_probes * (dimension + 1.0) if complex_valued else num_probes * (dimension + 2) / 2
    tail = (1 - confidence) / 2
    lower, upper = np.clip(lower, 0.0, 1.0), np.clip(upper, 0.0, 1.0)
    low = np.where(lower > 0, scipy.stats.beta.ppf(tail, draws * np.maximum(lower, 1e-300), draws * (1 - lower) + 1), 0.0)
    high = np.where(upper < 1, scipy.stats.beta.ppf(1 - tail, draws * upper + 1, draws * np.maximum(1 - upper, 1e-300)), 1.0)
    return np.asarray(low), np.asarray(high)


def sampling_kolmogorov(dimension: int, num_probes: int, failure_probability: float, *, complex_valued: bool = False) -> float:
    """Bound on the Kolmogorov distance of the probes' mean measure from the spectrum (Chen, Trogdon and Ubaru, 2021)."""
    rate = 2.0 * num_probes * (dimension + 1) if complex_valued else num_probes * (dimension + 2.0)
    return float(min(1.0, np.sqrt(np.log(2 * max(dimension, 1) / failure_probability) / rate)))


def sampling_wasserstein(
    nodes: np.ndarray, weights: np.ndarray, dimension: int, num_probes: int, confidence: float, *, complex_valued: bool = False
) -> float:
    """Wasserstein-1 distance that sampling exceeds with probability ``1 - confidence``, by the Gaussian limit of the Beta law.

    The distance is ``int |F_v - F| dx`` with ``Var F_v = 2 F (1 - F) / (p (n + 2))``. Its quantile is largest when all
    deviations move together; that case is taken.
    """
    if len(nodes) < 2:
        return 0.0
    variance = 1.0 / (num_probes * (dimension + 1)) if complex_valued else 2.0 / (num_probes * (dimension + 2))
    cumulative = np.cumsum(weights)[:-1]
    spread = np.sum(np.sqrt(np.clip(cumulative * (1 - cumulative), 0, None)) * np.diff(nodes))
    return float(scipy.stats.norm.ppf(0.5 + confidence / 2) * np.sqrt(variance) * spread)
