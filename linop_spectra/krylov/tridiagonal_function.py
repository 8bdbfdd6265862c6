"""A function of a Jacobi matrix times the first unit vector, with an error estimate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import linalg

from ..operators import LinearOperator
from .tridiagonal import ritz

_SLOWEST = 0.9
"""Ratio of successive changes beyond which the extrapolation trusts them no more."""


class MatrixFunction:
    """The coefficients ``f(T) e_1`` of ``f(A) b / |b|`` in a Lanczos basis.

    Parameters
    ----------
    f : callable
        Function of an array of eigenvalues.
    operator : LinearOperator
        Says how exact its products are, and whether its eigenvalues cannot be negative.
    """

    def __init__(self, f: Callable[[np.ndarray], Any], operator: LinearOperator) -> None:
        self.f = f
        self.eps = operator.unit_rounding
        self.positive = operator.positive_semidefinite is True

    def apply(self, alphas: np.ndarray, betas: np.ndarray, *, strict: bool) -> tuple[np.ndarray, float]:
        """``f(T) e_1`` for all steps, and an estimate of its error.

        Parameters
        ----------
        alphas, betas : numpy.ndarray
            Of a Lanczos run, each of shape (k,).
        strict : bool
            Whether to raise where f is not finite at a Ritz value; else the estimate is infinite.

        Returns
        -------
        coefficients : numpy.ndarray
            Shape (k,), float64 or complex128.
        error : float
            Estimated norm of ``f(A) b / |b| - V f(T) e_1``. The changes made by the last two quarters of the steps are continued as
            a geometric series, and what rounding of T changes is added.

        Raises
        ------
        ValueError
            When f is not finite at a Ritz value, or returns another shape.
        """
        k = len(alphas)
        y = self._coefficients(alphas, betas, 0.0, strict)
        if y is None:
            return np.zeros(k), float("inf")
        scale = float(np.max(np.abs(alphas)) + np.max(betas))
        invariant = betas[-1] <= 0.0
        error = 0.0 if invariant else self._truncation(alphas, betas, y)
        shifted = [self._coefficients(alphas, betas, sign * 4 * self.eps * scale, False) for sign in (1, -1)]
        rounding = max((vector_norm(other - y) for other in shifted if other is not None), default=0.0)
        return y, error + rounding + 4 * self.eps * vector_norm(y)

    def _truncation(self, alphas: np.ndarray, betas: np.ndarray, y: np.ndarray) -> float:
        k = len(alphas)
        if k == 1:
            return float("inf")  # one number says nothing of what more would change
        last = max(1, k // 4)
        fewer = [self._coefficients(alphas[: k - i * last], betas[: k - i * last], 0.0, False) for i in (1, 2) if k - i * last > 0]
        known = [other for other in fewer if other is not None]
        if len(known) < len(fewer):
            return float("inf")
        changes = [_distance(longer, shorter) for longer, shorter in zip([y, *known], known, strict=False)]
        if len(changes) < 2 or changes[0] >= _SLOWEST * changes[1]:
            return changes[0] / (1 - _SLOWEST)
        return changes[0] / (1 - changes[0] / changes[1])

    def _coefficients(self, alphas: np.ndarray, betas: np.ndarray, shift: float, strict: bool) -> np.ndarray | None:
        values, vectors = ritz(alphas, betas)
        values = values + shift
        rounding = 8 * self.eps * float(np.max(np.abs(values), initial=0.0))
        if self.positive:
            values = np.maximum(values, 0.0)
        at = self._evaluate(values)
        bad = ~np.isfinite(at)
        near_zero = bad & (np.abs(values) <= rounding)
        if near_zero.any():  # an eigenvalue zero that rounding has made negative, for a square root
            at = np.where(near_zero, self._evaluate(np.zeros(1))[0], at)
            bad = ~np.isfinite(at)
        if bad.any():
            if not strict:
                return None
            worst = values[np.flatnonzero(bad)[0]]
            raise ValueError(
                f"The function f is {at[np.flatnonzero(bad)[0]]} at the Ritz value {worst:.9g}; f(A) b needs a function that is finite "
                "between the extreme eigenvalues of the operator. Shift the operator, or change f there."
            )
        return np.asarray(vectors @ (at * vectors[0]))

    def _evaluate(self, values: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            at = np.asarray(self.f(values.copy()))
        if at.shape == ():
            at = np.full(values.shape, at)
        if at.shape != values.shape or at.dtype.kind not in "biufc":
            raise ValueError(
                f"The function f should map an array of eigenvalues to as many numbers, but for shape {values.shape} it returned shape "
                f"{at.shape} and dtype {at.dtype}; write it with NumPy functions."
            )
        return at.astype(np.complex128 if at.dtype.kind == "c" else np.float64)


def _distance(longer: np.ndarray, shorter: np.ndarray) -> float:
    padded = longer.copy()
    if np.iscomplexobj(shorter) and not np.iscomplexobj(padded):
        padded = padded.astype(np.complex128)
    padded[: len(shorter)] -= shorter
    return vector_norm(padded)


def vector_norm(x: np.ndarray) -> float:
    """Euclidean norm, also where the squares of the entries leave the range of double precision."""
    return float(linalg.norm(x, check_finite=False))
