"""What the Gauss-Newton matrix leaves of the Hessian."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .cache import Part
from .finite_differences import residual_error, small_objective
from .linearization import Accumulator, Native, SupportsResidual
from .matrices import CurvatureOperator

if TYPE_CHECKING:
    from .objective import Objective


class ResidualOperator(CurvatureOperator):
    r"""Hessian minus Gauss-Newton matrix, :math:`\sum_i \partial_i \ell\, \nabla^2 f_i` over the outputs :math:`f_i`.

    The second derivatives of the outputs are computed as such where the adapter has them: exactly zero where the outputs are linear in
    a parameter, as the blocks of all weights of a piecewise linear network. Otherwise it is the difference of both products, from one
    pass over the batches. The weight decay term cancels.
    """

    def __init__(self, objective: Objective) -> None:
        if objective.functions.gauss_newton_refusal is not None:
            raise TypeError(objective.functions.gauss_newton_refusal)
        super().__init__(objective)

    @property
    def identity_multiple(self) -> float:
        """None: weight decay is in both matrices."""
        return 0.0

    def _add_product(self, part: Part, v: Native, total: Accumulator) -> None:
        linearization = part.linearization
        if isinstance(linearization, SupportsResidual):
            total.add(linearization.residual(v))
            return
        total.add(linearization.hvp(v))
        total.add(linearization.vjp(-linearization.loss_hessian(linearization.jvp(v))))

    def derivative_error(self, seed: int = 0) -> float | None:
        """Distance from differences of the gradient and of the outputs, relative to the Hessian, on a small part of the data."""
        small = small_objective(self.objective)
        return residual_error(type(self)(small), small, seed)
