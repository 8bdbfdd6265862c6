"""Hessians with respect to what a model computes with instead of its parameters: its inputs, or a layer's outputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends import Array
from ..operators import LinearOperator
from .linearization import Batch, ModelFunctions, Point, SupportsVariables
from .matrices import HessianOperator

if TYPE_CHECKING:
    from .objective import Objective

Substitute = Callable[[SupportsVariables, Point, Batch], tuple[ModelFunctions, Point]]


class InputHessianOperator(LinearOperator):
    """Hessian of the objective with respect to the arrays that go into the model, or that a layer gives.

    The rows stand batch after batch, each batch's arrays in C order with the examples first. Examples do not interact unless the
    statistics of a batch couple them, so that the matrix is block-diagonal over examples, and always over batches. Weight decay, which
    does not depend on these arrays, has no part in it.

    Parameters
    ----------
    objective : Objective
        Model, loss, parameters and data.
    substitute : callable
        ``substitute(functions, point, batch)`` gives the functions of these arrays, at their present values.

    Attributes
    ----------
    batches : tuple of slice
        Rows of each batch.
    """

    def __init__(self, objective: Objective, substitute: Substitute) -> None:
        functions = objective.functions
        if not isinstance(functions, SupportsVariables):
            raise TypeError(
                "Hessians with respect to inputs and activations do not exist for a model of this framework; pass it as a model of torch, "
                "JAX or TensorFlow."
            )
        self.objective = objective
        self._terms: float | None = None
        with functions.session():
            found = [(batch, *substitute(functions, objective.point, batch)) for batch in objective.batches()]
        self._hessians: list[HessianOperator] = []
        ends = [0]
        for batch, own, point in found:
            own.averages = False  # the terms of all batches count together
            own.memory_budget = functions.memory_budget // len(found)
            part = objective._derived(functions=own, point=point, data=own.sequence([batch]), weight_decay=0.0)
            self._hessians.append(HessianOperator(part))
            ends.append(ends[-1] + own.num_parameters)
        self.batches = tuple(slice(first, last) for first, last in itertools.pairwise(ends))
        types = {hessian.dtype for hessian in self._hessians}
        super().__init__((ends[-1],) * 2, np.result_type(*types), hermitian=True, backend=functions.backend)

    def _scale(self) -> float:
        """Factor of the sum; the first question costs a pass of the model."""
        if self._terms is None:
            self._terms = 0.0
            for hessian in self._hessians:
                part = hessian.objective
                with part.functions.session():
                    self._terms += sum(part.functions.loss_sum(part.point, batch)[1] for batch in part.batches())
        return self.objective.scale(self._terms)

    def _matmat(self, x: Array) -> Array:
        rows, factor = self.backend.empty((x.shape[1], self.shape[0]), self.dtype), self._scale()
        for place, hessian in zip(self.batches, self._hessians, strict=True):
            rows[:, place] = factor * hessian.matmat(x[place, :]).T
        return rows.T

    def unflatten(self, vector: Any) -> list[Any]:
        """A vector of shape (n,) as named arrays of the framework, one mapping for each batch."""
        vector = self.backend.asarray(vector)
        return [
            hessian.objective.unflatten(vector[place]) for place, hessian in zip(self.batches, self._hessians, strict=True)
        ]

    @property
    def unit_rounding(self) -> float:
        """Relative rounding of products: that of the narrowest type among the parameters and the arrays."""
        own = max(hessian.unit_rounding for hessian in self._hessians)
        return max(own, self.objective.functions.unit_rounding)

    @property
    def engine(self) -> str:
        """How products are computed, and why so; before the first product this question costs one product."""
        return "; ".join(dict.fromkeys(hessian.engine for hessian in self._hessians))

    def derivative_error(self, seed: int = 0) -> float | None:
        """Relative distance from central differences of the gradient in these arrays, in double precision on the first batch."""
        return self._hessians[0].derivative_error(seed)
