"""The Jacobian of the outputs of all examples, and the neural tangent kernel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..backends import Array, to_numpy
from ..operators import LinearOperator
from .finite_differences import jacobian_error, small_objective
from .linearization import Batch
from .out_of_memory import Pieces, in_smaller_plans
from .output_space import OutputSpace

if TYPE_CHECKING:
    from .objective import Objective


class JacobianOperator(LinearOperator):
    """Jacobian of the outputs of all batches, one after another and each in C order, with respect to the parameters.

    Parameters
    ----------
    objective : Objective
        Model, parameters and data; of the loss only which outputs it takes matters.

    Raises
    ------
    TypeError
        When the loss does not say what the outputs are.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> jacobian = ls.objective(model, "mse", (torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(2, 1))).jacobian()
    >>> jacobian.to_dense()
    array([[1., 2.],
           [3., 4.]], dtype=float32)
    """

    def __init__(self, objective: Objective) -> None:
        functions, pieces = objective.functions, Pieces(objective)

        def count() -> list[int]:
            with functions.session():
                batches = objective.batches() if pieces.count == 1 else objective.data
                return [sum(_count_outputs(objective, piece) for piece in pieces.of(batch)) for batch in batches]

        sizes = in_smaller_plans(count, pieces.retreat, pieces.sentence)
        self.objective = objective
        self._space = OutputSpace(objective, sizes, [None] * len(sizes))
        super().__init__((self._space.num_outputs, objective.num_parameters), objective.dtype, backend=functions.backend)

    def _matmat(self, x: Array) -> Array:
        return self.backend.asarray(np.ascontiguousarray(self._space.push(x), dtype=self.dtype)).T

    def _rmatmat(self, x: Array) -> Array:
        rows = to_numpy(x.T)
        return self._space.pull(x.shape[1], lambda j, index: rows[j, self._space.batches[index]]).T

    @property
    def batches(self) -> tuple[slice, ...]:
        """Rows of each batch."""
        return tuple(self._space.batches)

    @property
    def blocks(self) -> Mapping[str, slice]:
        """Columns of each parameter."""
        return self.objective.blocks

    @property
    def unit_rounding(self) -> float:
        """Relative rounding of products: that of the narrowest type among the parameters."""
        return self.objective.functions.unit_rounding

    @property
    def engine(self) -> str:
        """How products are computed, and why so; before the first product this question costs one product."""
        if not self._space.started:
            self._matmat(self.backend.asarray(self.objective.parameters()).reshape(-1, 1))
        return self._space.engine()

    def derivative_error(self, seed: int = 0) -> float | None:
        """Relative distance from central differences of the outputs, in double precision on a small part of the data."""
        small = small_objective(self.objective)
        return jacobian_error(JacobianOperator(small), small, seed)


def _count_outputs(objective: Objective, batch: Batch) -> int:
    outputs = objective.functions.outputs_at(objective.point, batch)
    if not hasattr(outputs, "shape"):
        raise TypeError(
            f"The Jacobian needs the model's outputs as one array, but they are a {type(outputs).__name__}; pass a loss "
            "that takes one array out of them, such as BatchLoss(outputs=fn(model, batch), loss=fn(outputs, batch))."
        )
    return math.prod(outputs.shape)


class NeuralTangentKernel(LinearOperator):
    r"""The kernel :math:`J J^\top` of a Jacobian (Jacot, Gabriel and Hongler, 2018), not normalised.

    A product takes one pass over the batches for :math:`J^\top` and one for :math:`J`; what is kept serves both.
    """

    def __init__(self, jacobian: JacobianOperator) -> None:
        self.jacobian = jacobian
        outputs = jacobian.shape[0]
        super().__init__((outputs, outputs), jacobian.dtype, positive_semidefinite=True, backend=jacobian.backend)

    def _matmat(self, x: Array) -> Array:
        return self.jacobian.matmat(self.jacobian.rmatmat(x))

    @property
    def engine(self) -> str:
        """How products are computed, and why so."""
        return self.jacobian.engine

    def derivative_error(self, seed: int = 0) -> float | None:
        """That of the Jacobian."""
        return self.jacobian.derivative_error(seed)

    def _children(self) -> tuple[LinearOperator, ...]:
        return (self.jacobian,)
