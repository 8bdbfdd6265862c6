"""Checks of curvature products against finite differences, in double precision on a few examples.

The check multiplies with an operator of the same class on a small copy of the objective. In double precision the step can be
so short that the kinks of piecewise linear networks do not matter; where one is met all the same, a shorter step decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends import random_vector, to_numpy
from ..operators import LinearOperator

if TYPE_CHECKING:
    from .objective import Objective

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
        ahead, behind = (to_numpy(objective.with_parameters(theta + sign * step * v).gradient()) for sign in (1, -1))
        reference = (ahead - behind) / (2 * step)
        return _relative(float(np.linalg.norm(product - reference)), float(np.linalg.norm(reference)))

    return _least(error_at, scale)


def gauss_newton_error(operator: LinearOperator, objective: Objective, seed: int) -> float:
    """Relative distance of a product of `operator` from one whose Jacobian and output Hessian are central differences.

    Besides the vector, which relies on reverse mode for the transposed Jacobian, the quadratic form is compared, which does not.
    """
    theta, v, scale = _direction(objective, seed)
    functions = objective.functions
    product = to_numpy(operator @ v) - objective.weight_decay * v
    (batch,) = objective.batches()

    def point(parameters: np.ndarray) -> Any:
        return objective.with_parameters(parameters).point

    def error_at(step: float) -> float:
        ahead, behind = (functions.outputs_at(point(theta + sign * step * v), batch) for sign in (1, -1))
        slope = (ahead - behind) / (2 * step)
        linearization = functions.linearize(objective.point, batch, num_products=1)
        outputs = linearization.outputs
        size = float(abs(slope).max())
        shift = 1e-5 * max(1.0, float(abs(outputs).max())) / size if size > 0 else 1.0
        curved = (
            functions.output_gradient(outputs + shift * slope, batch) - functions.output_gradient(outputs - shift * slope, batch)
        ) / (2 * shift)
        reference = functions.backend.empty((theta.size,), np.dtype(float))
        total = functions.accumulator(reference)
        total.add(linearization.vjp(curved))
        factor = objective.scale(linearization.num_terms)
        total.finish(factor)
        expected = to_numpy(reference)
        vector = _relative(float(np.linalg.norm(product - expected)), float(np.linalg.norm(expected)))
        form = float((slope * curved).sum()) * factor
        return max(vector, _relative(abs(float(v @ product) - form), abs(form)))

    with functions.session():
        return _least(error_at, scale)
