"""Checks of curvature products against finite differences, in double precision on a few examples.

The check multiplies with an operator of the same class on a small copy of the objective. In double precision the step can be
so short that the kinks of piecewise linear networks do not matter; where one is met all the same, a shorter step decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ..backends import random_vector, to_numpy
from ..operators import LinearOperator
from .cache import Part
from .linearization import Batch, Outputs

if TYPE_CHECKING:
    from .matrices import OutputCurvatureOperator
    from .objective import Objective

Middle = Callable[[Part, Outputs], Outputs]

EXAMPLES = 8
_RELATIVE_STEPS = (1e-5, 1e-6, 1e-7)
_GOOD_ENOUGH = 1e-6


def small_objective(objective: Objective) -> Objective:
    """The objective on at most eight examples of its first batch, with everything in double precision."""
    functions, point = objective.functions, objective.point
    batch = next(iter(objective.batches()))
    part = functions.take(batch, np.arange(EXAMPLES))
    with functions.session():
        try:
            usable = part is not None and functions.loss_sum(point, part)[1] > 0  # something else than masked positions
        except (RuntimeError, ValueError, IndexError, TypeError):
            usable = False  # arrays whose rows are no examples
        if not usable:
            part = batch
        double, point, part = functions.in_double_precision(point, part)
    return objective._derived(functions=double, point=point, data=double.sequence([part]))


def _direction(objective: Objective, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    theta = np.array(to_numpy(objective.parameters()))
    v = random_vector(theta.size, kind="normal", seed=seed, domain="derivative check", index=0, dtype=np.dtype(float))
    scale = float(np.linalg.norm(theta)) or float(np.sqrt(theta.size))
    return theta, v, scale / float(np.linalg.norm(v))


def _relative(difference: float, scale: float) -> float:
    return difference if scale == 0 else difference / scale


def _least(error_at: Callable[[float], float], scale: float) -> float:
    """The smallest error over a few steps: a right product agrees at one of them, a wrong one at none."""
    best = np.inf
    for relative_step in _RELATIVE_STEPS:
        best = min(best, error_at(relative_step * scale))
        if best < _GOOD_ENOUGH:
            break
    return float(best)


def hessian_error(operator: LinearOperator, objective: Objective, seed: int) -> float:
    """Relative distance of a product of `operator` from central differences of the gradient of `objective`."""
    theta, v, scale = _direction(objective, seed)
    product = to_numpy(operator @ v)

    def error_at(step: float) -> float:
        reference = _slope_of_gradient(objective, theta, v, step)
        return _relative(float(np.linalg.norm(product - reference)), float(np.linalg.norm(reference)))

    return _least(error_at, scale)


def gauss_newton_error(operator: OutputCurvatureOperator, objective: Objective, seed: int, middle: Middle | None = None) -> float:
    """Relative distance of a product of `operator` from one whose Jacobian and output Hessian are central differences.

    Besides the vector, which relies on reverse mode for the transposed Jacobian, the quadratic form is compared, which does not.
    `middle` stands in for the output Hessian where the matrix has something else in its middle.
    """
    theta, v, scale = _direction(objective, seed)
    product = to_numpy(operator @ v) - operator.identity_multiple * v

    def error_at(step: float) -> float:
        expected, form = _through_outputs(objective, theta, v, step, middle, operator._factor)
        vector = _relative(float(np.linalg.norm(product - expected)), float(np.linalg.norm(expected)))
        return max(vector, _relative(abs(float(v @ product) - form), abs(form)))

    with objective.functions.session():
        return _least(error_at, scale)


def residual_error(operator: LinearOperator, objective: Objective, seed: int) -> float:
    """Distance of a product of `operator` from the difference of both references above, relative to the Hessian's."""
    theta, v, scale = _direction(objective, seed)
    product = to_numpy(operator @ v)

    def error_at(step: float) -> float:
        hessian = _slope_of_gradient(objective, theta, v, step) - objective.weight_decay * v
        reference = hessian - _through_outputs(objective, theta, v, step, None, objective.scale)[0]
        return _relative(float(np.linalg.norm(product - reference)), float(np.linalg.norm(hessian)))

    with objective.functions.session():
        return _least(error_at, scale)


def jacobian_error(operator: LinearOperator, objective: Objective, seed: int) -> float:
    """Relative distance of a product of `operator` from central differences of the outputs of `objective`."""
    theta, v, scale = _direction(objective, seed)
    product = to_numpy(operator @ v)
    (batch,) = objective.batches()

    def error_at(step: float) -> float:
        reference = _slope_of_outputs(objective, batch, theta, v, step)
        return _relative(float(np.linalg.norm(product - reference)), float(np.linalg.norm(reference)))

    with objective.functions.session():
        return _least(error_at, scale)


def _slope_of_gradient(objective: Objective, theta: np.ndarray, v: np.ndarray, step: float) -> np.ndarray:
    ahead, behind = (to_numpy(objective.with_parameters(theta + sign * step * v).gradient()) for sign in (1, -1))
    return np.asarray((ahead - behind) / (2 * step))


def _slope_of_outputs(objective: Objective, batch: Batch, theta: np.ndarray, v: np.ndarray, step: float) -> np.ndarray:
    functions = objective.functions
    points = (objective.with_parameters(theta + sign * step * v).point for sign in (1, -1))
    ahead, behind = (functions.flat_outputs(functions.outputs_at(point, batch)) for point in points)
    return np.asarray((ahead - behind) / (2 * step))


def _through_outputs(
    objective: Objective, theta: np.ndarray, v: np.ndarray, step: float, middle: Middle | None, scale: Callable[[float], float]
) -> tuple[np.ndarray, float]:
    """A matrix with `middle` in its middle, or the Hessian in output space, times `v`, and its quadratic form."""
    functions = objective.functions
    (batch,) = objective.batches()
    slope = _slope_of_outputs(objective, batch, theta, v, step)
    linearization = functions.linearize(objective.point, batch, num_products=1)
    outputs = linearization.outputs
    flat = functions.flat_outputs(outputs)
    if middle is not None:
        part = Part(batch, linearization, kept=False)
        curved = functions.flat_outputs(middle(part, functions.outputs_from(slope, outputs)))
    else:
        size = float(abs(slope).max())
        shift = 1e-5 * max(1.0, float(abs(flat).max())) / size if size > 0 else 1.0
        moved = (functions.outputs_from(flat + sign * shift * slope, outputs) for sign in (1, -1))
        ahead, behind = (functions.flat_outputs(functions.output_gradient(place, batch)) for place in moved)
        curved = (ahead - behind) / (2 * shift)
    reference = functions.backend.empty((theta.size,), np.dtype(float))
    total = functions.accumulator(reference)
    total.add(linearization.vjp(functions.outputs_from(curved, outputs)))
    factor = scale(linearization.num_terms)
    total.finish(factor)
    return to_numpy(reference), float(slope @ curved) * factor
