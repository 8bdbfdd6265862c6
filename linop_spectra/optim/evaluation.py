"""What a method sees of the loss at the start of a step, with everything counted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any, Literal, get_args

from ..backends import Array, Backend
from ..curvature import Objective
from ..curvature.non_finite import NonFiniteLossError
from ..operators import LinearOperator

CurvatureMatrix = Literal["hessian", "ggn", "fisher"]
Matrix = CurvatureMatrix | Callable[[Objective], LinearOperator]


def check_matrix(matrix: Any) -> None:
    """Raise unless `matrix` names a curvature matrix or makes one from an objective."""
    if not callable(matrix) and matrix not in get_args(CurvatureMatrix):
        raise ValueError(
            f"The argument matrix is {matrix!r}, but must be one of {', '.join(map(repr, get_args(CurvatureMatrix)))}, or a function that "
            "makes an operator from an objective."
        )


def make_matrix(matrix: Matrix, objective: Objective) -> LinearOperator:
    """The curvature matrix of an objective that `matrix` names or makes."""
    if callable(matrix):
        return matrix(objective)
    return getattr(objective, matrix)()


class Start:
    """Loss, gradient and curvature where a step begins.

    Attributes
    ----------
    objective : Objective
        At `theta`, on the data of the gradient.
    curvature : Objective
        At `theta`, on the data of the curvature; the same object where none was given.
    theta, gradient : array
        Shape (n,), not to be written to.
    loss, gradient_norm : float
        Of `objective`.
    state : mapping
        State of the optimiser; not to be written to.
    step : int
        Number of this step, from zero.
    num_values, num_gradients : int
        Evaluations so far.
    """

    def __init__(self, objective: Objective, curvature: Objective | None, theta: Array, state: Mapping[str, Any], step: int) -> None:
        self.objective = objective.with_parameters(theta)
        self.curvature = self.objective if curvature is None else curvature.with_parameters(theta)
        self.theta, self.step = theta, step
        self.state = MappingProxyType(dict(state))
        self.loss, self.gradient = self.objective.value_and_gradient()
        self.num_values, self.num_gradients = 0, 1
        self._operators: list[Any] = []
        self.gradient_norm = float(self.backend.norm(self.gradient))
        if not math.isfinite(self.gradient_norm):
            raise NonFiniteLossError(
                "The gradient at the start of the step is not finite although the loss is; look for functions without a derivative at "
                "these parameters. The optimiser's state is as it was."
            )

    @property
    def backend(self) -> Backend:
        """Array library of the vectors."""
        return self.objective.functions.backend

    @property
    def num_matvecs(self) -> int:
        """Products with the operators that `operator` and `count` know, and those of `add_matvecs`."""
        return sum(operator.num_matvecs for operator in self._operators)

    def operator(self, matrix: Matrix) -> LinearOperator:
        """A curvature matrix on the data of the curvature; its products are counted."""
        return self.count(make_matrix(matrix, self.curvature))

    def count(self, operator: LinearOperator) -> LinearOperator:
        """Count the products of an operator, from zero."""
        self._operators.append(operator)
        return operator

    def add_matvecs(self, count: int) -> None:
        """Count products that are not those of an operator: with parts of the data, as many as they cost over all of it."""
        self._operators.append(SimpleNamespace(num_matvecs=count))

    def curvature_gradient(self) -> Array:
        """Gradient on the data of the curvature, shape (n,); costs nothing where that is the gradient's own."""
        if self.curvature is self.objective:
            return self.gradient
        self.num_gradients += 1
        return self.curvature.gradient()

    def loss_after(self, step: Array) -> float:
        """Loss on the gradient's data after `step`, infinite where it is not finite."""
        self.num_values += 1
        try:
            return self.objective.with_parameters(self.theta + step).value()
        except NonFiniteLossError:
            return math.inf

    def dot(self, x: Array, y: Array) -> float:
        """Inner product as a number on the host."""
        return float(self.backend.dot(x, y))

    def norm(self, x: Array) -> float:
        """Euclidean norm as a number on the host."""
        return float(self.backend.norm(x))
