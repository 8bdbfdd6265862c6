"""Statistics of a comparison, computed alike for the measurement and for every draw of the null, and their p-values.

The measurement is row 0 of every array. Under the null it is one draw among the others, so that the rank of its statistic among all
rows gives an exact p-value, whatever is estimated from the rows together.
"""

from __future__ import annotations

import numpy as np

_RIDGE = 0.1


def gauss_rules(alphas: np.ndarray, betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gauss rules pooled over the probes.

    Parameters
    ----------
    alphas, betas : numpy.ndarray
        Shapes (count, p, k) and (count, p, k - 1).

    Returns
    -------
    tuple of numpy.ndarray
        Nodes and weights, each of shape (count, p k); the weights of each row sum to one.
    """
    count, probes, k = alphas.shape
    jacobi = np.zeros((count, probes, k, k))
    steps = np.arange(k)
    jacobi[..., steps, steps] = alphas
    jacobi[..., steps[1:], steps[:-1]] = betas
    nodes, vectors = np.linalg.eigh(jacobi)  # the lower triangle
    return nodes.reshape(count, -1), vectors[..., 0, :].reshape(count, -1) ** 2 / probes


def distances(nodes: np.ndarray, weights: np.ndarray, other_nodes: np.ndarray, other_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wasserstein-1 and Kolmogorov distance of each row of rules from the same row of others, or from one other rule.

    The distribution functions are compared half-way between the nodes of the other rule, and beyond its ends: at the nodes themselves
    the difference is about half of a step, whatever the measure.

    Parameters
    ----------
    nodes, weights : numpy.ndarray
        Shape (count, m).
    other_nodes, other_weights : numpy.ndarray
        Shape (count, l) or (1, l).

    Returns
    -------
    tuple of numpy.ndarray
        Each of shape (count,).
    """
    count = len(nodes)
    shape = (count, other_nodes.shape[1])
    places = np.concatenate([nodes, np.broadcast_to(other_nodes, shape)], axis=1)
    masses = np.concatenate([weights, np.broadcast_to(-other_weights, shape)], axis=1)
    order = np.argsort(places, axis=1, kind="stable")
    places = np.take_along_axis(places, order, axis=1)
    difference = np.abs(np.cumsum(np.take_along_axis(masses, order, axis=1), axis=1))[:, :-1]
    gaps = np.diff(places, axis=1)
    if other_nodes.shape[1] == 1:  # one node has no place between
        return np.sum(difference * gaps, axis=1), np.zeros(count)
    halves = np.diff(other_nodes, axis=1) / 2
    between = np.concatenate(
        [other_nodes[:, :1] - halves[:, :1], other_nodes[:, :-1] + halves, other_nodes[:, -1:] + halves[:, -1:]], axis=1
    )
    of_other = np.concatenate([np.zeros((len(other_nodes), 1)), np.cumsum(other_weights, axis=1)], axis=1)
    largest = np.zeros(count)
    for place, share in zip(between.T, of_other.T, strict=True):
        below = np.sum(np.where(nodes <= place[:, None], weights, 0.0), axis=1)
        largest = np.maximum(largest, np.abs(below - share))
    return np.sum(difference * gaps, axis=1), np.minimum(largest, 1.0)


def mahalanobis(rows: np.ndarray) -> np.ndarray:
    """Squared Mahalanobis distance of each row from the mean of all, shape (count,).

    The correlations are shrunk towards none by a tenth, so that few rows in many dimensions do no harm. Columns that never vary are
    left out.
    """
    centred = rows - rows.mean(axis=0)
    spread = centred.std(axis=0)
    used = spread > 1e-13 * np.max(np.abs(rows), initial=np.finfo(float).tiny)
    if not np.any(used):
        return np.zeros(len(rows))
    scaled = centred[:, used] / spread[used]
    correlation = (1 - _RIDGE) * (scaled.T @ scaled) / len(rows) + _RIDGE * np.eye(scaled.shape[1])
    return np.asarray(np.sum(scaled * np.linalg.solve(correlation, scaled.T).T, axis=1))


def deviations(rows: np.ndarray) -> np.ndarray:
    """Row 0 in standard deviations of the other rows from their mean; zero where nothing varies and nothing differs."""
    null = rows[1:]
    spread, shift = null.std(axis=0), rows[0] - null.mean(axis=0)
    rounding = 1e-13 * np.max(np.abs(rows), initial=np.finfo(float).tiny)
    return np.asarray(np.where(np.abs(shift) <= rounding, 0.0, shift / np.maximum(spread, rounding)))


def rank_p_values(statistic: np.ndarray) -> np.ndarray:
    """Share of the rows whose statistic is at least that of each row, shape (count,)."""
    ordered = np.sort(statistic)
    return (len(statistic) - np.searchsorted(ordered, statistic, side="left")) / len(statistic)


def combined_p_value(p_values: np.ndarray) -> float:
    """Chance that the smallest p-value of a draw is as small as that of row 0, for p-values of shape (tests, count)."""
    smallest = p_values.min(axis=0)
    return float(np.mean(smallest <= smallest[0]))
