"""Errors of the mean of a function over the eigenvalues: what other probes, more steps and exact arithmetic would change."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..krylov import LanczosResult
from .deflation import Deflation, node_rounding
from .truncation import truncation_error, variation

Function = Callable[[np.ndarray], np.ndarray]


def evaluate(f: Function, nodes: np.ndarray) -> np.ndarray:
    """Values of `f` at the nodes.

    Raises
    ------
    ValueError
        When one of them is not finite.
    """
    if len(nodes) == 0:
        return np.zeros(0)
    with np.errstate(all="ignore"):
        values = np.asarray(f(nodes))
    if values.dtype.kind == "c":
        raise TypeError("The function is complex on the eigenvalues; pass its real and its imaginary part one after the other.")
    values = values.astype(np.float64)
    values = np.broadcast_to(values, nodes.shape)
    if not np.all(np.isfinite(values)):
        bad = nodes[~np.isfinite(values)][0]
        raise ValueError(
            f"The function is not finite at the Ritz value {bad:.6g}; choose one that is defined on "
            f"[{nodes.min():.6g}, {nodes.max():.6g}], for example by adding a shift."
        )
    return values


def sampling_error(d: Deflation, f: Function, *, complex_valued: bool) -> tuple[float, float]:
    """Standard error of the mean of `f` over the eigenvalues that are not pinned, and its degrees of freedom.

    For probes uniform on the sphere the variance is ``2 Var f / (p (n + 2))`` (complex: ``Var f / (p (n + 1))``), exactly.
    """
    n, probes = d.rest_dimension, len(d.rules)
    if n < 2:
        return 0.0, math.inf
    nodes = np.concatenate([x for x, _ in d.rest])
    weights = np.concatenate([w for _, w in d.rest]) / probes
    values = evaluate(f, nodes)
    deviation = values - np.sum(weights * values)
    scale = float(np.max(np.abs(deviation)))
    if scale <= 1e-14 * float(np.max(np.abs(values), initial=0.0)):
        return 0.0, math.inf  # nothing but rounding
    deviation = deviation / scale  # squares of the extremes are no numbers
    variance = float(np.sum(weights * deviation**2))
    draws = probes * ((n + 1) if complex_valued else (n + 2) / 2)
    # Each weight is a chi-square share, so the variance estimate itself has this many degrees of freedom.
    dof = 2 * draws * variance**2 / float(np.sum(weights * deviation**4))
    return scale * math.sqrt(variance / draws), max(1.0, dof)


def quadrature_error(run: LanczosResult, d: Deflation, f: Function) -> float:
    """Error of the mean of `f` that more steps would change: truncation of the rules, and residuals of pinned eigenvalues."""
    steps = [
        0.0 if rule.exact else truncation_error(*run.jacobi(probe), lambda x: evaluate(f, x)) for probe, rule in enumerate(d.rules)
    ]
    pinned = [atom for atom in d.atoms if atom.value in d.pinned]
    values, shifts = np.array([atom.value for atom in pinned]), np.array([atom.shift for atom in pinned])
    return float(np.mean(steps)) + float(np.sum(variation(f, values, shifts))) / d.n


def rounding_error(run: LanczosResult, d: Deflation, f: Function) -> float:
    """Error of the mean of `f` by the rounding of the nodes."""
    nodes, weights = d.pooled()
    rounding = np.full(len(nodes), node_rounding(run, d.rules))
    # To first order the errors of the nodes cancel down to one unit of rounding of the norm.
    return float(weights @ variation(f, nodes, rounding, linear_share=0.25 / math.sqrt(run.num_steps)))
