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


@dataclasses.dataclass(frozen=True)
class Edges:
    """Ends of the bulk and how far beyond them an eigenvalue has to lie to count as an outlier."""

    low: float
    high: float
    margin: float

    def outside(self, value: float, residual: float) -> bool:
        """Whether an eigenvalue, given its residual, lies outside."""
        return value - residual > self.high + self.margin or value + residual < self.low - self.margin


def bulk_edges(run: LanczosResult, deflation: Deflation) -> Edges:
    """Edges from the second half of the coefficients; from the remaining nodes when the run is too short for that."""
    tails = []
    for probe in range(run.num_probes):
        alphas, betas = run.jacobi(probe)
        k = len(alphas)
        if k >= 16 and betas[-1] > 0:
            tails.append((alphas[k // 2 :], betas[k // 2 :]))
    if not tails:
        bulk = np.concatenate([nodes[~sharp] for (nodes, _), sharp in zip(deflation.rest, deflation.rest_sharp, strict=True)])
        if len(bulk) == 0:  # everything is isolated: no bulk to be outside of but the heaviest node
            nodes, weights = deflation.pooled()
            bulk = nodes[[int(np.argmax(weights))]]
        return Edges(float(bulk.min()), float(bulk.max()), 0.0)
    alpha, beta = (np.concatenate(part) for part in zip(*tails, strict=True))
    center, quarter = float(np.mean(alpha)), float(np.mean(beta))
    error = 2 * float(np.sqrt((np.var(alpha) + 4 * np.var(beta)) / len(alpha)))
    return Edges(center - 2 * quarter, center + 2 * quarter, error + _TRACY_WIDOM_99 * quarter * run.dimension ** (-2 / 3))
