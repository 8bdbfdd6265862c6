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
# The first two eigenvalues at an edge are about 2 beta n^(-2/3) apart; five times that is far.
_EDGE_SPACINGS = 10.0


@dataclasses.dataclass(frozen=True)
class Edges:
    """Ends of the bulk, and the isolated eigenvalues outside of it (positions in ``Deflation.atoms``)."""

    low: float
    high: float
    outliers: tuple[int, ...]


def bulk_edges(run: LanczosResult, deflation: Deflation, floor: float) -> Edges:
    """Split what was measured into bulk and outliers.

    A first guess comes from the Jacobi tail, with a margin for what that cannot know. Going outwards from there, an isolated
    eigenvalue starts the outliers when it keeps a distance that neighbours at the edge of a bulk do not keep; what is closer
    still belongs to the bulk. Zero, up to the noise floor, is no outlier. The edges are the last nodes inside.

    Parameters
    ----------
    run : LanczosResult
        The coefficients.
    deflation : Deflation
        Rules and isolated eigenvalues.
    floor : float
        Noise floor.

    Returns
    -------
    Edges
        Ends and outliers.
    """
    # Where every node has converged the tail of the coefficients is made of isolated eigenvalues: it shows no bulk.
    guess = None if all(sharp.all() for sharp in deflation.sharp) else _tail_edges(run, deflation)
    if guess is None:
        nodes = _unresolved(deflation)
        low, high, spacing = float(nodes.min()), float(nodes.max()), 0.0
    else:
        low, high, spacing = guess
    atoms = deflation.atoms
    inside = np.concatenate([rule.nodes[(rule.nodes >= low) & (rule.nodes <= high)] for rule in deflation.rules])
    outliers: list[int] = []
    ends = []
    for sign, edge in ((-1.0, low), (1.0, high)):
        outward = sorted((i for i, atom in enumerate(atoms) if sign * (atom.value - edge) > 0), key=lambda i: sign * atoms[i].value)
        last = float(sign * np.max(sign * inside)) if len(inside) else edge
        # Unresolved nodes beyond the guess are bulk as well.
        beyond = [node for rule, mask in zip(deflation.rules, deflation.sharp, strict=True) for node in rule.nodes[~mask]]
        last = float(sign * max([sign * last, *(sign * node for node in beyond)]))
        for position, i in enumerate(outward):
            distance = sign * (atoms[i].value - last) - atoms[i].residual
            if distance > spacing and sign * (atoms[i].value - edge) > atoms[i].residual:
                outliers += [j for j in outward[position:] if abs(atoms[j].value) > floor]
                break
            last = float(sign * max(sign * last, sign * atoms[i].value))
        ends.append(last)
    return Edges(ends[0], ends[1], tuple(sorted(outliers)))


def _tail_edges(run: LanczosResult, deflation: Deflation) -> tuple[float, float, float] | None:
    """Edges moved outwards by their uncertainty, and the distance that neighbours at the edge do not keep."""
    # Eigenvalues that sit on one place count once, and the coefficients of n discrete eigenvalues shrink towards step n:
    # only the first third speaks of the bulk.
    heaviest = max((atom.weight for atom in deflation.atoms), default=0.0)
    n = max(1.0, run.dimension * (1 - heaviest))
    last = min(run.num_steps, max(_SHORTEST, int(n // 3)))
    tails = []
    for probe in range(run.num_probes):
        alphas, betas = run.jacobi(probe)
        if len(alphas) >= last >= _SHORTEST and betas[last - 1] > 0:
            tails.append((alphas[last // 2 : last], betas[last // 2 : last]))
    if not tails:
        return None
    alpha, beta = (np.mean(part, axis=0) for part in zip(*tails, strict=True))
    scale = float(np.mean(beta)) * n ** (-2 / 3)
    half = len(alpha) // 2
    ends = []
    for sign in (-2.0, 2.0):
        edge = alpha + sign * beta
        # A bulk with tails has coefficients that still drift: its edge is not settled, and the margin says so.
        drift = abs(float(np.mean(edge[half:]) - np.mean(edge[:half])))
        scatter = 2 * float(np.std(edge)) / np.sqrt(len(edge))
        ends.append(float(np.mean(edge)) + np.sign(sign) * (_TRACY_WIDOM_99 * scale + scatter + 2 * drift))
    return float(ends[0]), float(ends[1]), _EDGE_SPACINGS * scale


def _unresolved(deflation: Deflation) -> np.ndarray:
    nodes = np.concatenate([nodes[~sharp] for (nodes, _), sharp in zip(deflation.rest, deflation.rest_sharp, strict=True)])
    if len(nodes) == 0:
        nodes, weights = deflation.pooled()
        # Everything is isolated: the bulk is a node that many eigenvalues share, or there is none.
        nodes = nodes[weights > np.max(weights) / 2] if deflation.rest_dimension else nodes
    return nodes
