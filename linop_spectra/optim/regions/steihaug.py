"""Conjugate gradients that end on the boundary of a trust region."""

from __future__ import annotations

import math
import time
import warnings

from ...backends import Array
from ...operators import LinearOperator
from .subproblem import MOST_STEPS, SubproblemResult

_LONGEST = 1e140
"""Largest radius over the gradient's norm, so that its square is finite."""


def steihaug(
    operator: LinearOperator,
    gradient: Array,
    radius: float,
    *,
    num_steps: int | None,
    tol: float,
    preconditioner: LinearOperator | None,
    before: int,
    name: str,
) -> SubproblemResult:
    """The first point on the path of conjugate gradients that is a minimiser or lies on the boundary.

    The path starts at zero and its norm grows; at a direction of negative curvature it goes straight to the boundary (T. Steihaug, 1983;
    P. L. Toint, 1981). With a preconditioner all norms of the step are those of its inverse (A. R. Conn, N. I. M. Gould and Ph. L.
    Toint, *Trust-Region Methods*, 2000, algorithm 7.5.1), which follow from the recurrence at no product.
    """
    began = time.perf_counter()
    backend, n = operator.backend, operator.shape[0]
    tol = max(tol, 20 * operator.unit_rounding)

    def dot(x: Array, y: Array) -> float:
        return float(backend.dot(x, y))

    def precondition(residual: Array) -> Array:
        return residual if preconditioner is None else backend.asarray(preconditioner.matvec(residual), dtype=operator.dtype)

    step = backend.empty((n,), operator.dtype)
    step[...] = 0
    size = float(backend.norm(gradient))
    # In units of the gradient's norm, whose square might underflow.
    unit = size or 1.0
    residual = gradient / unit
    radius = min(radius / unit, _LONGEST)
    preconditioned = precondition(residual)
    norm = float(backend.norm(residual))
    rz = _positive(dot(residual, preconditioned), norm)
    direction = -1.0 * preconditioned
    # Squares of the norms of step and direction, and their inner product.
    ss, sp, pp = 0.0, 0.0, rz
    most = min(2 * n, MOST_STEPS) if num_steps is None else num_steps
    taken, boundary = 0, False
    while norm > tol and taken < most:
        product = operator.matvec(direction)
        taken += 1
        curvature = dot(direction, product)
        if not math.isfinite(curvature):
            raise FloatingPointError(f"Product {taken} with the operator in the trust-region step is not finite.")
        # The step length that leaves the region; written so that nothing cancels.
        room = max(radius * radius - ss, 0.0)
        root = math.sqrt(sp * sp + pp * room)
        leave = room / (sp + root) if sp > 0.0 else (root - sp) / pp
        length = rz / curvature if curvature > 0.0 else math.inf
        boundary = length >= leave
        length = min(length, leave)
        backend.axpy(length, direction, step)
        backend.axpy(length, product, residual)
        norm = float(backend.norm(residual))
        if boundary:
            break
        preconditioned = precondition(residual)
        new = _positive(dot(residual, preconditioned), norm)
        ss, sp = ss + length * (2 * sp + length * pp), new / rz * (sp + length * pp)
        pp = new + (new / rz) ** 2 * pp
        direction = (new / rz) * direction - preconditioned
        rz = new
    converged = boundary or norm <= tol
    step, residual, norm = unit * step, unit * residual, unit * norm
    if num_steps is None and not converged:
        warnings.warn(
            f"{name} stopped after {taken} conjugate gradient steps at a residual of {norm:.2g}, above tol times the "
            f"gradient's norm, {tol * size:.2g}. Pass num_steps= for more, a larger tol, or a preconditioner.",
            stacklevel=4,
        )
    # residual = g + A s, so that s^T A s needs no further product.
    model = 0.5 * (dot(gradient, step) + dot(residual, step))
    return SubproblemResult(
        step, math.nan, model, float(backend.norm(step)), norm, taken, operator.num_matvecs - before, converged, False, math.nan,
        time.perf_counter() - began,
    )  # fmt: skip


def _positive(rz: float, norm: float) -> float:
    if norm > 0.0 and not rz > 0.0:
        raise ValueError(
            f"The argument preconditioner is not positive definite: for a residual r of norm {norm:.3g}, r^T M r is {rz:.3g}. Pass a "
            "symmetric positive definite approximation of the inverse, for example the inverse of the diagonal's modulus."
        )
    return rz
