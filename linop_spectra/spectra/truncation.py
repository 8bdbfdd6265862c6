"""How far a Gauss rule of k points is from the integral of a function, judged by what shorter and neighbouring rules give."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .quadrature import gauss_rule, radau_coefficients

Function = Callable[[np.ndarray], np.ndarray]
_SLOWEST = 0.95
"""Convergence slower than this ratio is not extrapolated further."""


class Truncation:
    """Error of the k-point Gauss rule of one probe, for one function after the other.

    The rules that it is judged by do not depend on the function: they are found once.

    Parameters
    ----------
    alphas, betas : numpy.ndarray
        Jacobi coefficients, shape (k,), the last beta being the residual norm.
    """

    def __init__(self, alphas: np.ndarray, betas: np.ndarray) -> None:
        self._coefficients = alphas, betas
        k = len(alphas)
        rule = gauss_rule(alphas, betas)
        shorter = (gauss_rule(alphas[:steps], betas[:steps]) for steps in (max(1, 3 * k // 4), max(1, k // 2)))
        self._rules = [(one.nodes, one.weights) for one in (rule, *shorter)]
        self._ends = tuple((float(rule.nodes[end]), sign * float(rule.residuals[end])) for end, sign in ((0, -1.0), (-1, 1.0)))
        self._radau: dict[float, tuple[np.ndarray, np.ndarray]] = {}

    def error(self, f: Function) -> float:
        """Estimate of the error for `f`, not negative.

        The largest of three: the change since half of the steps; the rest of a geometric series through the rules of k/2, 3k/4
        and k steps; and the distance from the Gauss-Radau rules with a node at either end of the spectrum, which bracket the
        integral where the derivatives of `f` keep their signs (Golub and Meurant, 2010).
        """
        full, late, early = (float(f(nodes) @ weights) for nodes, weights in self._rules)
        last, before = abs(full - late), abs(late - early)
        error = max(last, abs(full - early))
        if before > 0 and last > 1e-12 * abs(full):
            ratio = min(last / before, _SLOWEST)
            error = max(error, last * ratio / (1 - ratio))
        for node, reach in self._ends:
            radau = self._radau_integral(f, node, reach)
            if radau is not None:
                error = max(error, abs(full - radau))
        return error

    def _radau_integral(self, f: Function, node: float, reach: float) -> float | None:
        """Integral by the Gauss-Radau rule with a node beyond the last one, as far out as `f` is defined."""
        for _ in range(30):
            if reach == 0.0:
                return None
            nodes, weights = self._radau_rule(node + reach)
            try:
                return float(f(nodes) @ weights)
            except ValueError:  # not defined there
                reach /= 2
        return None

    def _radau_rule(self, place: float) -> tuple[np.ndarray, np.ndarray]:
        if place not in self._radau:
            rule = gauss_rule(*radau_coefficients(*self._coefficients, place))
            self._radau[place] = rule.nodes, rule.weights
        return self._radau[place]


def variation(f: Function, nodes: np.ndarray, shifts: np.ndarray, *, linear_share: float = 1.0) -> np.ndarray:
    """What moving each node by up to its shift does to `f`: its curvature there, and a share of its slope.

    Rounding errors of nodes are as often up as down, so that most of their first-order effect on an average cancels; where `f`
    bends within the shift, near a singularity, it does not. A side where `f` is not defined leaves the other one, in full.
    """
    with np.errstate(all="ignore"):
        center, left, right = (
            np.broadcast_to(np.asarray(f(x), dtype=np.float64), nodes.shape) for x in (nodes, nodes - shifts, nodes + shifts)
        )
        both = np.abs(left + right - 2 * center) / 2 + linear_share * np.abs(right - left) / 2
        one_sided = np.where(np.isfinite(right), np.abs(right - center), np.where(np.isfinite(left), np.abs(left - center), 0.0))
    return np.where(np.isfinite(both), both, one_sided)
