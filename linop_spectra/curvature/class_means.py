r"""Means of gradients over classes and pairs of classes, as linear maps of the outputs of all examples.

With :math:`g_{i,c'} = J_i^\top (e_{c'} - p_i)` every mean is :math:`J^\top` of weights in output space, and its inner product with a vector
`v` follows from :math:`J v`. So no mean needs to be stored to compute with another one; where all of them fit a quarter of the memory
budget, one matrix product of them takes the place of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from .._memory import format_bytes
from ..backends import Array, to_numpy
from .class_batches import sorted_by_class
from .classification import Classification, read_classes
from .output_space import OutputSpace

if TYPE_CHECKING:
    from .objective import Objective

_KEPT_SHARE = 0.25
"""Of the memory budget, for vectors whose inner products are wanted."""
_COLUMNS = 1 << 16
"""Entries of each that are copied to double precision at a time."""


class ClassMeans:
    r"""The means :math:`g_{c,c'}` and :math:`g_c` of `linop_spectra.curvature.class_structure`, and their inner products.

    Parameters
    ----------
    objective : Objective
        Model, parameters and data.
    classification : Classification
        Probabilities, classes and weights of its examples.

    Attributes
    ----------
    space : OutputSpace
        The Jacobian of all outputs.
    batches : list of slice
        Positions of each batch.
    weights : numpy.ndarray
        :math:`w_{i,c'}`, shape (num_positions, num_classes); zero at masked positions.
    pair_weights : numpy.ndarray
        :math:`w_{c,c'}`, shape (num_classes, num_classes).
    class_weights : numpy.ndarray
        :math:`w_c`, shape (num_classes,).
    """

    def __init__(self, objective: Objective, classification: Classification) -> None:
        self.objective, self._classification = objective, classification
        self.probabilities, self.targets = classification.probabilities, classification.targets
        self.num_classes = classes = classification.num_classes
        self.space = OutputSpace(objective, classification.sizes, classification.places)
        self.batches = classification.batches
        self.weights = classification.weights[:, None] * self.probabilities
        used = np.flatnonzero(self.targets >= 0)
        self._membership = sparse.csr_array((np.ones(used.size), (self.targets[used], used)), shape=(classes, self.targets.size))
        self.pair_weights = self.sum_over_classes(self.weights)
        self.class_weights = off_diagonal(self.pair_weights).sum(axis=1)

    # -- inner products with one vector --------------------------------------------------------------------------------

    def forms(self, outputs: np.ndarray) -> np.ndarray:
        """``<g_{i,c'}, v> = (J v)_{i,c'} - p_i . (J v)_i`` from ``J v``, shape (num_positions, num_classes)."""
        outputs = outputs.reshape(self.probabilities.shape)
        return np.asarray(outputs - (self.probabilities * outputs).sum(axis=1, keepdims=True))

    def of_pairs(self, forms: np.ndarray) -> np.ndarray:
        """``<g_{c,c'}, v>``, shape (num_classes, num_classes); zero where there is nothing to average."""
        return divide(self.sum_over_classes(self.weights * forms), self.pair_weights)

    def of_classes(self, pairs: np.ndarray) -> np.ndarray:
        """``<g_c, v>`` from ``<g_{c,c'}, v>``, shape (num_classes,)."""
        return divide(off_diagonal(self.pair_weights * pairs).sum(axis=1), self.class_weights)

    def sum_over_classes(self, of_positions: np.ndarray) -> np.ndarray:
        """For each class the sum of the rows of its positions."""
        return np.asarray(self._membership @ of_positions)

    def spread(self, of_classes: np.ndarray) -> np.ndarray:
        """To each position the row of its class; masked positions have no weight and get any."""
        return of_classes[self.targets]

    def to_outputs(self, coefficients: np.ndarray, positions: slice | None = None) -> np.ndarray:
        """The vector of output space that :math:`J^T` takes to the sum over (i, c') of ``coefficients[i, c'] g_{i,c'}``."""
        probabilities = self.probabilities[positions or slice(None)]
        return np.asarray(coefficients - probabilities * coefficients.sum(axis=1, keepdims=True))

    # -- the vectors themselves ----------------------------------------------------------------------------------------

    def class_rows(self) -> np.ndarray:
        """What `combinations` makes the class means from, shape (num_classes, num_classes)."""
        each = divide(np.ones(self.num_classes), self.class_weights)
        return off_diagonal(np.repeat(each[:, None], self.num_classes, axis=1))

    def combinations(self, classes: Sequence[int], rows: np.ndarray) -> Array:
        """For each `j` the sum over c' of ``rows[j, c'] w_{c,c'} g_{c,c'}`` with the class ``c = classes[j]``.

        Parameters
        ----------
        classes : sequence of int
            Of length k.
        rows : numpy.ndarray
            Shape (k, num_classes).

        Returns
        -------
        array
            Shape (k, num_parameters), on the objective's backend.
        """

        def of_batch(j: int, index: int) -> np.ndarray | None:
            positions = self.batches[index]
            members = self.targets[positions] == classes[j]
            if not members.any():
                return None
            return self.to_outputs(self.weights[positions] * np.where(members[:, None], rows[j], 0.0), positions)

        return self.space.pull(len(classes), of_batch)

    # -- inner products with each other --------------------------------------------------------------------------------

    def gram_of_classes(self) -> np.ndarray:
        """Inner products of the class means, shape (num_classes, num_classes)."""
        classes, rows = self.num_classes, self.class_rows()
        if self._fit(classes):
            return _gram(self._in_few_batches().combinations(range(classes), rows))
        gram = np.empty((classes, classes))
        for first in range(0, classes, self.space.block):
            block = range(first, min(first + self.space.block, classes))
            vectors = self.combinations(block, rows[first : block.stop])
            for c, outputs in zip(block, self.space.push(vectors.T), strict=True):
                gram[:, c] = self.of_classes(self.of_pairs(self.forms(outputs)))
        return (gram + gram.T) / 2

    def _fit(self, count: int) -> bool:
        """Whether so many vectors fit memory together: then their inner products need no Jacobian."""
        functions = self.objective.functions
        return count * functions.num_parameters * functions.dtype.itemsize <= _KEPT_SHARE * functions.memory_budget

    def gram_of_pairs(self) -> np.ndarray:
        """Inner products of the cross-class means, shape (num_classes**2, num_classes**2), in the order of (c, c')."""
        classes, budget = self.num_classes, self.objective.functions.memory_budget
        size = classes**4 * 8
        if 4 * size > budget:
            raise MemoryError(
                f"The Gram matrix of all pairs of {classes} classes takes {format_bytes(size)}, and four times that with what its "
                f"eigenvalues need, over the memory_budget of {format_bytes(budget)}; take the spectrum of the operators instead."
            )
        pairs = np.argwhere(self.pair_weights > 0)
        gram = np.zeros((classes**2, classes**2))
        if self._fit(len(pairs)):
            places = pairs[:, 0] * classes + pairs[:, 1]
            gram[np.ix_(places, places)] = _gram(self._in_few_batches()._of_pairs(pairs))
            return gram
        for first in range(0, len(pairs), self.space.block):
            block = pairs[first : first + self.space.block]
            vectors = self._of_pairs(block)
            for (c, other), outputs in zip(block, self.space.push(vectors.T), strict=True):
                gram[:, c * classes + other] = self.of_pairs(self.forms(outputs)).reshape(-1)
        gram += gram.T.copy()
        gram /= 2
        return gram

    def _in_few_batches(self) -> ClassMeans:
        """The same means from batches of few classes each, for as long as vectors are taken from them; else the means themselves."""
        objective = sorted_by_class(self.objective, self._classification)
        if objective is None:
            return self
        means = ClassMeans(objective, read_classes(objective))
        # A loss that weights examples by what else is in their batch is another one on other batches.
        difference = np.abs(means.pair_weights - self.pair_weights).max()
        return means if difference <= np.sqrt(objective.functions.unit_rounding) * self.pair_weights.max() else self

    def _of_pairs(self, pairs: np.ndarray) -> Array:
        """The means ``g_{c,c'}`` of these pairs, shape (pairs, num_parameters)."""
        rows = np.zeros((len(pairs), self.num_classes))
        rows[np.arange(len(pairs)), pairs[:, 1]] = 1 / self.pair_weights[pairs[:, 0], pairs[:, 1]]
        return self.combinations(pairs[:, 0].tolist(), rows)


def _gram(vectors: Array) -> np.ndarray:
    """Inner products of rows, in double precision."""
    count, n = vectors.shape
    gram = np.zeros((count, count))
    for first in range(0, n, _COLUMNS):
        columns = np.asarray(to_numpy(vectors[:, first : first + _COLUMNS]), dtype=np.float64)
        gram += columns @ columns.T
    return gram


def off_diagonal(matrix: np.ndarray) -> np.ndarray:
    """A copy with zeros on the diagonal."""
    copy = np.array(matrix)
    np.fill_diagonal(copy, 0)
    return copy


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient of arrays of one shape, zero where the denominator is."""
    return np.divide(numerator, denominator, out=np.zeros(denominator.shape), where=denominator > 0)
