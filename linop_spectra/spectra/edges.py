"""Ends of the bulk from the tail of the Jacobi coefficients.

Once isolated eigenvalues are resolved, the coefficients of a bulk on one interval [a, b] settle at ``(a + b) / 2`` and
``(b - a) / 4``. That reads the edges off the coefficients without looking at the Ritz values, which outliers move.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ..krylov import LanczosResult
from .deflation import Deflation

# 99 % quantile of the Tracy-Widom law for real symmetric matrices.
_TRACY_WIDOM_99 = 2.0234
_SHORTEST = 16


@dataclasses.dataclass(frozen=True)
class Edges:
    """Ends of the bulk and how far beyond each an eigenvalue has to lie to count as an outlier."""

    low: float
    high: float
    low_margin: float
    high_margin: float

    def outside(self, value: float, residual: float) -> bool:
        """Whether an eigenvalue, given its residual, lies outside."""
        return value - residual > self.high + self.high_margin or value + residual < self.low - self.low_margin


def bulk_edges(run: LanczosResult, deflation: Deflation) -> Edges:
    """Edges from the second half of the coefficients; from the unresolved nodes when the run is too short for that."""
    n = run.dimension
    # The coefficients of n discrete eigenvalues shrink towards step n: only the first third speaks of the bulk.
    last = min(run.num_steps, max(_SHORTEST, n // 3))
    tails = []
    for probe in range(run.num_probes):
        alphas, betas = run.jacobi(probe)
        if len(alphas) >= last >= _SHORTEST and betas[last - 1] > 0:
            tails.append((alphas[last // 2 : last], betas[last // 2 : last]))
    if not tails:
        return _edges_of_nodes(deflation)
    alpha, beta = (np.mean(part, axis=0) for part in zip(*tails, strict=True))
    quarter = float(np.mean(beta))
    width = _TRACY_WIDOM_99 * quarter * n ** (-2 / 3)
    half = len(alpha) // 2
    ends, margins = [], []
    for sign in (-2.0, 2.0):
        edge = alpha + sign * beta
        # A bulk with tails has coefficients that still drift: its edge is not settled, and the margin says so.
        drift = abs(float(np.mean(edge[half:]) - np.mean(edge[:half])))
        scatter = 2 * float(np.std(edge)) / np.sqrt(len(edge))
        ends.append(float(np.mean(edge)))
        margins.append(width + scatter + 2 * drift)
    return Edges(ends[0], ends[1], margins[0], margins[1])


def _edges_of_nodes(deflation: Deflation) -> Edges:
    bulk = np.concatenate([nodes[~sharp] for (nodes, _), sharp in zip(deflation.rest, deflation.rest_sharp, strict=True)])
    if len(bulk) == 0:
        nodes, weights = deflation.pooled()
        # Everything is isolated: the bulk is a node that many eigenvalues share, or there is none.
        bulk = nodes[weights > np.max(weights) / 2] if deflation.rest_dimension else nodes
    return Edges(float(bulk.min()), float(bulk.max()), 0.0, 0.0)
