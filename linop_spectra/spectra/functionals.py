"""Errors of the mean of a function over the eigenvalues: what other probes, more steps and exact arithmetic would change."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..krylov import LanczosResult
from .deflation import Deflation, node_rounding
from .quadrature import GaussRule
from .truncation import Truncation, variation

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
    if values.shape != nodes.shape:
        values = np.broadcast_to(values, nodes.shape)
    if not np.all(np.isfinite(values)):
        bad = nodes[~np.isfinite(values)][0]
        raise ValueError(
            f"The function is not finite at the Ritz value {bad:.6g}; choose one that is defined on "
            f"[{nodes.min():.6g}, {nodes.max():.6g}], for example by adding a shift."
        )
    return values


def defined_at_zero(f: Function, floor: float) -> Function:
    """`f`, with its value at zero where rounding has moved a zero eigenvalue to a place at which `f` is not defined."""

    def tolerant(x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            values = np.asarray(f(x))
            lost = ~np.isfinite(values) & (np.abs(x) <= floor)
            return np.where(lost, np.broadcast_to(np.asarray(f(np.zeros_like(x))), x.shape), values) if np.any(lost) else values

    return tolerant


def _spread(rule: GaussRule, nodes: np.ndarray, weights: np.ndarray, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """The nodes of one probe; of a single step two, which have its second moment as well."""
    if len(rule.nodes) > 1 or rule.exact or len(nodes) != 1:
        return nodes, weights
    return nodes + beta * np.array([-1.0, 1.0]), np.full(2, 0.5) * weights.sum()


def sampling_error(d: Deflation, f: Function, *, complex_valued: bool) -> tuple[float, float]:
    """Standard error of the mean of `f` over the eigenvalues that are not pinned, and its degrees of freedom.

    For probes uniform on the sphere the variance is ``2 Var f / (p (n + 2))`` (complex: ``Var f / (p (n + 1))``), exactly.
    """
    n, probes = d.rest_dimension, len(d.rules)
    if n < 2:
        return 0.0, math.inf
    spread = [_spread(rule, *one, float(rule.residuals[0])) for rule, one in zip(d.rules, d.rest, strict=True)]
    nodes = np.concatenate([x for x, _ in spread])
    weights = np.concatenate([w for _, w in spread]) / probes
    try:
        values = evaluate(f, nodes)
    except ValueError:
        if all(len(rule.nodes) > 1 for rule in d.rules):
            raise
        return math.inf, 1.0  # one step does not tell where the eigenvalues are
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


def truncations(run: LanczosResult, d: Deflation) -> tuple[Truncation | None, ...]:
    """What judges the rule of each probe, for any function; None where it is exact."""
    return tuple(None if rule.exact else Truncation(*run.jacobi(probe)) for probe, rule in enumerate(d.rules))


def quadrature_error(judges: Sequence[Truncation | None], d: Deflation, f: Function) -> float:
    """Error of the mean of `f` that more steps would change: truncation of the rules, and residuals of pinned eigenvalues."""
    steps = [0.0 if judge is None else judge.error(lambda x: evaluate(f, x)) for judge in judges]
    pinned = [atom for atom in d.atoms if atom.value in d.pinned]
    values, shifts = np.array([atom.value for atom in pinned]), np.array([atom.shift for atom in pinned])
    return float(np.mean(steps)) + float(np.sum(variation(f, values, shifts))) / d.n


def rounding_error(run: LanczosResult, d: Deflation, f: Function) -> float:
    """Error of the mean of `f` by the rounding of the nodes."""
    nodes, weights = d.pooled()
    rounding = np.full(len(nodes), node_rounding(run, d.rules))
    # To first order the errors of the nodes cancel down to one unit of rounding of the norm.
    return float(weights @ variation(f, nodes, rounding, linear_share=0.25 / math.sqrt(run.num_steps)))
