r"""Means of gradients over classes and pairs of classes, as linear maps of the outputs of all examples.

With :math:`g_{i,c'} = J_i^\top (e_{c'} - p_i)` every mean is :math:`J^\top` of weights in output space, and its inner product with a vector
`v` follows from :math:`J v`. So no mean is ever stored to compute with another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from .._memory import format_bytes
from ..backends import Array
from .classification import Classification
from .output_space import OutputSpace

if TYPE_CHECKING:
    from .objective import Objective


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
        self.objective = objective
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
        gram = np.empty((classes, classes))
        for first in range(0, classes, self.space.block):
            block = range(first, min(first + self.space.block, classes))
            vectors = self.combinations(block, rows[first : block.stop])
            for c, outputs in zip(block, self.space.push(vectors.T), strict=True):
                gram[:, c] = self.of_classes(self.of_pairs(self.forms(outputs)))
        return (gram + gram.T) / 2

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
        for first in range(0, len(pairs), self.space.block):
            block = pairs[first : first + self.space.block]
            rows = np.zeros((len(block), classes))
            rows[np.arange(len(block)), block[:, 1]] = 1 / self.pair_weights[block[:, 0], block[:, 1]]
            vectors = self.combinations(block[:, 0].tolist(), rows)
            for (c, other), outputs in zip(block, self.space.push(vectors.T), strict=True):
                gram[:, c * classes + other] = self.of_pairs(self.forms(outputs)).reshape(-1)
        gram += gram.T.copy()
        gram /= 2
        return gram


def off_diagonal(matrix: np.ndarray) -> np.ndarray:
    """A copy with zeros on the diagonal."""
    copy = np.array(matrix)
    np.fill_diagonal(copy, 0)
    return copy


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient of arrays of one shape, zero where the denominator is."""
    return np.divide(numerator, denominator, out=np.zeros(denominator.shape), where=denominator > 0)
