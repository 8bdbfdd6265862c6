r"""Fisher matrices of the likelihood whose negative logarithm the loss is.

With the summed loss of a batch, :math:`T` terms over all batches and the Jacobian :math:`J` of the outputs, they are
:math:`\frac1T \sum J^\top M J + \lambda I` with

- exact: the covariance of the loss's gradient in the outputs when targets come from the model itself. It is the Hessian of the loss in
  the outputs, so that the matrix is the Gauss-Newton matrix;
- Monte-Carlo: the mean of :math:`g g^\top` over such gradients for targets that were drawn, an unbiased estimate;
- empirical: :math:`g g^\top` for the targets of the data, one gradient for each example. It is no Fisher matrix of any model
  distribution (Kunstner, Hennig and Balles, 2019), and has no weight decay term.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends import Array
from .cache import Part
from .examples import count_examples, random_numbers, require_examples, require_sum_over_rows
from .linearization import Accumulator, Native, Outputs
from .matrices import GaussNewtonOperator, OutputCurvatureOperator

if TYPE_CHECKING:
    from .objective import Objective


_START, _GRADIENTS = "place of the first random number", "gradients for drawn targets"


class FisherOperator(GaussNewtonOperator):
    r"""Exact Fisher matrix, :math:`J^\top F J` with the Fisher matrix `F` of the likelihood in its own natural parameters.

    For cross-entropy, binary cross-entropy and squared errors it equals the Gauss-Newton matrix (Martens, 2020, section 9), class
    weights, masks and label smoothing included; other losses do not say which likelihood they belong to.
    """

    def __init__(self, objective: Objective) -> None:
        _require_likelihood(objective)
        super().__init__(objective)


class MonteCarloFisherOperator(OutputCurvatureOperator):
    r"""Monte-Carlo Fisher matrix: for each term of the loss the mean of :math:`g g^\top` over targets drawn from the model.

    The targets are drawn once, by the seed: the operator is a fixed matrix, whose expectation over seeds is the exact one. The random
    numbers belong to the place of a term in the data, so that the matrix depends neither on the sizes of the batches nor on the
    framework.

    Parameters
    ----------
    objective : Objective
        Model, loss, parameters and data.
    num_samples : int
        Targets that are drawn for each term.
    seed : int
        Of the random numbers.
    """

    def __init__(self, objective: Objective, num_samples: int = 1, seed: int = 0) -> None:
        _require_likelihood(objective)
        self.num_samples, self.seed = num_samples, seed
        self._position = 0
        super().__init__(objective, positive_semidefinite=True if objective.weight_decay >= 0 else None)

    def _like(self, objective: Objective) -> MonteCarloFisherOperator:
        return MonteCarloFisherOperator(objective, self.num_samples, self.seed)

    def _products(self, x: Array) -> Array:
        self._position = 0
        return super()._products(x)

    def _add_products(self, part: Part, columns: Sequence[Native], totals: Sequence[Accumulator]) -> None:
        # In this order one forward pass gives both; the number of terms looks whether outputs and targets fit.
        outputs, _ = part.linearization.outputs, part.linearization.num_terms
        part.notes[_START] = self._position
        self._position += math.prod(self.objective.functions.noise_of(outputs, part.batch)[1])
        if _GRADIENTS not in part.notes:
            size = self.num_samples * math.prod(outputs.shape) * self.dtype.itemsize
            if self._linearizations.reserve(size) if part.kept else self._linearizations.fits(size):
                part.notes[_GRADIENTS] = list(self._drawn(part))
        super()._add_products(part, columns, totals)

    def _in_outputs(self, part: Part, u: Outputs) -> Outputs:
        total: Any = None
        for gradient in part.notes.get(_GRADIENTS) or self._drawn(part):
            product = self.objective.functions.rank_one(gradient, u, "term")
            total = product if total is None else total + product
        return total / self.num_samples

    def _drawn(self, part: Part) -> Iterator[Outputs]:
        """A gradient in the outputs for each sample."""
        functions, outputs = self.objective.functions, part.linearization.outputs
        kind, shape = functions.noise_of(outputs, part.batch)
        count, start = math.prod(shape), part.notes.get(_START, 0)
        for sample in range(self.num_samples):
            noise = random_numbers(kind, count, seed=self.seed, sample=sample, start=start).reshape(shape)
            yield functions.sampled_gradient(outputs, part.batch, noise)

    def _details(self) -> str:
        return f"{self.num_samples} samples, seed {self.seed}"


class EmpiricalFisherOperator(OutputCurvatureOperator):
    r"""Empirical Fisher matrix :math:`\frac1T \sum_n g_n g_n^\top` of the gradients of the examples' summed losses.

    :math:`T` is the number of terms: of examples for cross-entropy of one position each, of elements for squared errors. Weight decay
    is not part of it.
    """

    def __init__(self, objective: Objective) -> None:
        require_examples(objective)
        self._looked = False
        super().__init__(objective, positive_semidefinite=True)

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


def _require_likelihood(objective: Objective) -> None:
    if objective.functions.fisher_refusal is not None:
        raise TypeError(objective.functions.fisher_refusal)


def fisher_operator(objective: Objective, kind: str, num_samples: int, seed: int) -> OutputCurvatureOperator:
    """The Fisher matrix of that kind; see `Objective.fisher`."""
    for name, value, least in (("num_samples", num_samples, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"The argument {name} must be a whole number of at least {least}, but is {value!r}.")
    if kind == "mc":
        return MonteCarloFisherOperator(objective, int(num_samples), int(seed))
    if kind not in ("exact", "empirical"):
        raise ValueError(f"The argument kind is {kind!r}, but must be 'exact', 'mc' or 'empirical'.")
    if num_samples != 1 or seed != 0:
        raise ValueError(f"The arguments num_samples and seed belong to kind='mc'; leave them out for kind={kind!r}.")
    return FisherOperator(objective) if kind == "exact" else EmpiricalFisherOperator(objective)
