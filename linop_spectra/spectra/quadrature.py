"""Gauss and Gauss-Radau rules of a Lanczos run, and the mass that can sit at a point.

All of it follows from the Jacobi coefficients (Golub and Welsch, 1969; Golub, 1973; Akhiezer, 1965).
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from ..krylov.tridiagonal import ritz


@dataclasses.dataclass(frozen=True, eq=False)
class GaussRule:
    """The Gauss rule of one probe.

    Attributes
    ----------
    nodes : numpy.ndarray
        Ritz values, ascending, shape (k,).
    weights : numpy.ndarray
        Squared first components of the eigenvectors, shape (k,); they sum to one.
    residuals : numpy.ndarray
        Residual norms of the Ritz pairs, shape (k,).
    vectors : numpy.ndarray
        Eigenvectors of the Jacobi matrix as columns, shape (k, k).
    exact : bool
        Whether the Krylov space is invariant, so that the rule is the spectral measure of the probe itself.
    """

    nodes: np.ndarray
    weights: np.ndarray
    residuals: np.ndarray
    vectors: np.ndarray
    exact: bool

    @functools.cached_property
    def norm(self) -> float:
        """Largest node in modulus."""
        return float(np.max(np.abs(self.nodes)))

    @functools.cached_property
    def gaps(self) -> np.ndarray:
        """Distance of each node from its nearest neighbour, infinite for a single node."""
        steps = np.diff(self.nodes, prepend=-np.inf, append=np.inf)
        return np.minimum(steps[:-1], steps[1:])


def gauss_rule(alphas: np.ndarray, betas: np.ndarray) -> GaussRule:
    """Gauss rule of Jacobi coefficients, each of shape (k,), the last beta being the residual norm.

    Examples
    --------
    >>> rule = gauss_rule(np.array([0.0, 0.0]), np.array([1.0, 0.5]))
    >>> rule.nodes.round(12), rule.weights.round(12)
    (array([-1.,  1.]), array([0.5, 0.5]))
    """
    nodes, vectors = ritz(alphas, betas)
    weights = vectors[0] ** 2
    return GaussRule(nodes, weights / weights.sum(), np.abs(betas[-1] * vectors[-1]), vectors, bool(betas[-1] == 0.0))


def mass_bracket(alphas: np.ndarray, betas: np.ndarray, z: float) -> tuple[float, float]:
    """Lower and upper bound on the mass of the spectral measure below `z`, by a Gauss-Radau rule with a node there.

    Rigorous for every measure with these coefficients: the mass strictly below `z` is at least the weights of the rule's
    nodes below `z`, and at most those plus the weight of the node at `z` (Chebyshev, Markov, Stieltjes; Golub, 1973).

    Parameters
    ----------
    alphas, betas : numpy.ndarray
        Jacobi coefficients, shape (k,), the last beta being the residual norm.
    z : float
        The point.

    Returns
    -------
    tuple of float
        Lower and upper bound, between 0 and 1.
    """
    if betas[-1] == 0.0:
        rule = gauss_rule(alphas, betas)
        below = min(float(rule.weights[rule.nodes < z].sum()), 1.0)
        return below, below
    nodes, vectors = ritz(*radau_coefficients(alphas, betas, z))
    weights = vectors[0] ** 2
    at = int(np.argmin(np.abs(nodes - z)))
    # The node at z moves by rounding: count by position, not by comparison.
    below = float(weights[:at].sum())
    return min(below, 1.0), min(below + float(weights[at]), 1.0)


def radau_coefficients(alphas: np.ndarray, betas: np.ndarray, z: float) -> tuple[np.ndarray, np.ndarray]:
    """Jacobi coefficients of the (k + 1)-point rule with a prescribed node at `z`.

    The last diagonal entry is ``z + d_k`` with ``(T - z I) d = beta_k^2 e_k``; by elimination it is
    ``z + beta_k^2 / pivot_k``, with the last pivot of ``T - z I``.
    """
    tiny = np.finfo(np.float64).tiny
    scale = max(float(np.max(np.abs(alphas - z))), float(np.max(betas)), tiny)
    pivot = alphas[0] - z
    for alpha, beta in zip(alphas[1:], betas[:-1], strict=True):
        if abs(pivot) < np.finfo(np.float64).eps * scale * 1e-3:
            pivot = np.finfo(np.float64).eps * scale * 1e-3  # z is a node of a shorter rule: step aside by less than rounding
        pivot = alpha - z - beta * (beta / pivot)
    if abs(pivot) < np.finfo(np.float64).eps * scale * 1e-3:
        pivot = np.finfo(np.float64).eps * scale * 1e-3
    last = z + betas[-1] * (betas[-1] / pivot)
    return np.append(alphas, last), np.append(betas, 0.0)


def christoffel_mass(alphas: np.ndarray, betas: np.ndarray, x: np.ndarray, rounding: float = 0.0) -> np.ndarray:
    """Largest mass that a measure with these coefficients can have at `x`: ``1 / sum_j p_j(x)^2``, j = 0 .. k.

    The polynomials amplify rounding near a node that has converged; there the node's own weight is added.

    Here ``p_j`` are the orthonormal polynomials. Far outside the spectrum
    the polynomials overflow, and the mass is zero.

    Parameters
    ----------
    alphas, betas : numpy.ndarray
        Jacobi coefficients, shape (k,).
    x : numpy.ndarray
        Points, any shape.
    rounding : float
        Distance below which places are not told apart.

    Returns
    -------
    numpy.ndarray
        Masses between 0 and 1, the shape of `x`.
    """
    x = np.asarray(x, dtype=np.float64)
    rule = gauss_rule(alphas, betas)
    near = np.abs(x[..., None] - rule.nodes) <= max(rounding, 4 * np.finfo(np.float64).eps * rule.norm)
    on_nodes = (near * rule.weights).sum(axis=-1)
    if rule.exact:
        return np.minimum(on_nodes, 1.0)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.minimum(on_nodes + _christoffel(alphas, betas, x), 1.0)


def _christoffel(alphas: np.ndarray, betas: np.ndarray, x: np.ndarray) -> np.ndarray:
    previous, current = np.zeros_like(x), np.ones_like(x)
    total = np.ones_like(x)
    before = 0.0
    for alpha, beta in zip(alphas, betas, strict=True):
        previous, current = current, ((x - alpha) * current - before * previous) / beta
        before = beta
        total = total + current**2
        # Beyond this size the mass is zero in double precision; clipping keeps the recurrence from overflowing.
        large = ~(np.abs(current) <= 1e150)
        total = np.where(large, np.inf, total)
        current, previous = np.where(large, 1e150, current), np.where(large, 1e150, previous)
    return 1.0 / total
