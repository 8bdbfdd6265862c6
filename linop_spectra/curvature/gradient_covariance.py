"""Covariance of the gradient of one example."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ..backends import Array
from .cache import Part
from .examples import count_examples, require_examples, require_sum_over_rows
from .linearization import Outputs
from .matrices import OutputCurvatureOperator

if TYPE_CHECKING:
    from .objective import Objective


@dataclasses.dataclass(frozen=True)
class _Moments:
    """Gradient of the data's loss, and the factor of the sum of the examples' outer products."""

    gradient: Array
    factor: float


class GradientCovarianceOperator(OutputCurvatureOperator):
    r"""Covariance of the gradient of one example drawn at random, :math:`\frac1N \sum_n \tilde g_n \tilde g_n^\top - g g^\top`.

    :math:`\tilde g_n` is ``N / T`` times the gradient of the summed loss of example `n`, with `N` examples and `T` terms, so that its
    mean is the gradient :math:`g` of the data's loss. Weight decay, which is the same for every example, is in neither.

    Parameters
    ----------
    objective : Objective
        Model, loss, parameters and data.
    centered : bool
        Whether :math:`g g^\top` is taken off; without, it is the second moment.
    """

    def __init__(self, objective: Objective, *, centered: bool = True) -> None:
        require_examples(objective)
        self._looked = False
        self.centered = centered
        self._moments: _Moments | None = None
        super().__init__(objective, positive_semidefinite=True)

    def _like(self, objective: Objective) -> GradientCovarianceOperator:
        # The gradient that is taken off has no part in the check against differences.
        return GradientCovarianceOperator(objective, centered=False)

    @property
    def identity_multiple(self) -> float:
        """None: the gradients are those of the data alone."""
        return 0.0

    def _in_outputs(self, part: Part, u: Outputs) -> Outputs:
        count_examples(self.objective, part, u)
        if not self._looked:
            require_sum_over_rows(self.objective, part)
            self._looked = True
        return self.objective.functions.rank_one(part.linearization.loss_gradient(), u, "example")

    def _factor(self, terms: float) -> float:
        return self._measured().factor

    def _products(self, x: Array) -> Array:
        gradient, backend = self._measured().gradient, self.backend
        products = super()._products(x)
        if not self.centered:
            return products
        rows = products.T
        for j in range(x.shape[1]):
            backend.axpy(-float(backend.fetch([backend.dot(gradient, x[:, j])])[0]), gradient, rows[j])
        return rows.T

    def _measured(self) -> _Moments:
        """The moments; the first question costs a gradient over the data."""
        if self._moments is None:
            functions = self.objective.functions
            gradient = functions.backend.empty((self.objective.num_parameters,), self.dtype)
            terms, examples = 0.0, 0
            with functions.session():
                total = functions.accumulator(gradient)
                for part in self._linearizations.parts(1):
                    slope = part.linearization.loss_gradient()
                    examples += count_examples(self.objective, part, slope)
                    total.add(part.linearization.vjp(slope))
                    terms += part.linearization.num_terms
                scale = self.objective.scale(terms)
                total.finish(scale)
            self._moments = _Moments(gradient, examples * scale**2)
        return self._moments
