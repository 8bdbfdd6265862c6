"""Conjugate gradients on the damped quadratic model of a loss, with the iterates on the way."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, cast

from ...backends import Array
from ...krylov.cg import ConjugateGradients, NegativeCurvatureError
from ...krylov.linear_system import FailedProductError, LinearSystem
from ...operators import LinearOperator

Ending = Literal["progress", "residual", "max steps", "flat", "negative curvature"]
_SPACING = 1.3


@dataclasses.dataclass(frozen=True, eq=False)
class Iterate:
    r"""A vector s, and the model :math:`\phi(s) = g^\top s + \frac12 s^\top (A + \delta) s` there.

    Attributes
    ----------
    number : int
        Of the step of conjugate gradients, from zero.
    step : array
        s, shape (n,).
    linear, quadratic : float
        :math:`g^\top s` and :math:`s^\top (A + \delta) s`.
    """

    number: int
    step: Array
    linear: float
    quadratic: float


@dataclasses.dataclass(frozen=True, eq=False)
class QuadraticPath:
    """What conjugate gradients found.

    Attributes
    ----------
    iterates : list of Iterate
        After the steps 1, 2, 3, 4, 6, 8, 11, ..., each about 1.3 times the one before, and the last.
    num_steps : int
        Steps of conjugate gradients.
    ending : str
        ``"progress"``: too little of it; ``"residual"``: the system is solved up to rounding; ``"max steps"``; ``"flat"``: a direction
        without curvature; ``"negative curvature"``.
    lowest_curvature : float
        The negative one, or NaN.
    """

    iterates: list[Iterate]
    num_steps: int
    ending: Ending
    lowest_curvature: float


def quadratic_path(
    operator: LinearOperator, gradient: Array, *, damping: float, guess: Array | None, preconditioner: LinearOperator | None,
    tolerance: float, max_steps: int,
) -> QuadraticPath:  # fmt: skip
    r"""Minimise :math:`g^\top s + \frac12 s^\top (A + \delta) s` by conjugate gradients, as far as it is worth it.

    It ends when the model has gained little over the last steps, :math:`(\phi_i - \phi_{i-k}) / \phi_i < k \epsilon` with
    :math:`k = \max(10, i/10)` (Martens, 2010, section 4.4), or the residual is rounding. At negative curvature it ends with the
    iterate so far, or, where that is zero, with a step as long as for positive curvature of the same size.

    Parameters
    ----------
    operator : LinearOperator
        A, Hermitian.
    gradient : array
        g, shape (n,), not zero.
    damping : float
        :math:`\delta`.
    guess : array, optional
        To start from, where the model is lower there than at zero; that costs a product.
    preconditioner : LinearOperator, optional
        Approximation of the inverse of :math:`A + \delta`, positive definite.
    tolerance : float
        :math:`\epsilon`; zero goes on until the residual is rounding.
    max_steps : int
        At most as many steps.
    """
    backend, n = operator.backend, operator.shape[0]
    scale = float(backend.norm(gradient))
    rows = backend.empty((1, n), operator.dtype)
    backend.scale_into(gradient, -1.0 / scale, rows[0, :])
    solutions = backend.empty((1, n), operator.dtype)
    solutions[...] = 0.0
    # In units in which the gradient has norm one.
    system = LinearSystem(operator, damping, preconditioner, rows, solutions)
    try:
        residual = _begin(system, guess, scale)
        iteration = ConjugateGradients(system, residual, [0])
        return _run(system, iteration, scale, tolerance, max_steps)
    except FailedProductError as error:
        raise cast(Exception, error.__cause__) from None


def _begin(system: LinearSystem, guess: Array | None, scale: float) -> Array:
    """Put the guess in place where it is better than zero; the residual there."""
    backend = system.backend
    if guess is not None:
        backend.scale_into(guess, 1.0 / scale, system.X[0, :])
        residual, _ = system.residuals([0])
        if _model(system, residual[0, :])[2] < 0:
            return residual
        system.X[...] = 0.0
    residual = system.empty(1)
    residual[...] = system.B
    return residual


def _model(system: LinearSystem, residual: Array) -> tuple[float, float, float]:
    """The linear part, the quadratic form and the value of the model at the present solution."""
    x = system.X[0, :]
    along, left = system.fetch([system.real_dot(system.B[0, :], x), system.real_dot(residual, x)])
    return -float(along), float(along - left), -0.5 * float(along + left)


def _run(system: LinearSystem, iteration: ConjugateGradients, scale: float, tolerance: float, max_steps: int) -> QuadraticPath:
    linear, quadratic, value = _model(system, iteration.R[0, :])
    values = [value]
    iterates: list[Iterate] = []
    solved = system.eps**0.75
    ending: Ending = "max steps"
    lowest = math.nan
    kept, next_kept, number = -1, 1, 0

    def keep() -> None:
        nonlocal kept
        if kept < number:
            iterates.append(Iterate(number, system.X[0, :] * scale, linear * scale**2, quadratic * scale**2))
            kept = number

    while number < max_steps:
        if iteration.estimates[0] <= solved:
            ending = "residual"
            break
        try:
            iteration.step()
        except NegativeCurvatureError as error:
            ending, lowest = "negative curvature", error.quotient
            if value >= 0:
                linear, quadratic, value = _downhill(system, iteration, error.quotient)
                number += 1
            break
        if iteration.stopped[0] and iteration.estimates[0] > 0.0:
            ending = "flat"
            break
        number += 1
        linear, quadratic, value = _model(system, iteration.R[0, :])
        values.append(value)
        if number >= next_kept:
            keep()
            next_kept = max(number + 1, math.ceil(next_kept * _SPACING))
        window = max(10, number // 10)
        if tolerance and number > window and value < 0 and (value - values[number - window]) / value < window * tolerance:
            ending = "progress"
            break
    else:
        ending = "residual" if iteration.estimates[0] <= solved else "max steps"
    keep()
    return QuadraticPath(iterates, number, ending, lowest)


def _downhill(system: LinearSystem, iteration: ConjugateGradients, quotient: float) -> tuple[float, float, float]:
    """Go along the first direction as far as for curvature of the opposite sign; the model there."""
    slope, curvature = float(iteration.rz[0]), quotient * float(iteration.pp[0])
    length = slope / abs(curvature)
    system.backend.scale_into(iteration.P[0, :], length, system.X[0, :])
    linear, quadratic = -slope * length, curvature * length**2
    return linear, quadratic, linear + 0.5 * quadratic
