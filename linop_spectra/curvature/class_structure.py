r"""Papyan's decomposition of the Gauss-Newton matrix of softmax cross-entropy by classes.

For an example `i` of class `c` with probabilities :math:`p_i`, :math:`g_{i,c'} = J_i^\top (e_{c'} - p_i)` is minus the gradient of the
loss that it would have if its class were `c'`. With weights :math:`w_{i,c'} = p_{i,c'} / N` the Gauss-Newton matrix is
:math:`G = \sum_{i,c'} w_{i,c'} g_{i,c'} g_{i,c'}^\top`, and the law of total variance, used twice, splits it. With

.. math::

    w_{c,c'} &= \sum_{i \in c} w_{i,c'}, &\quad g_{c,c'} &= \sum_{i \in c} w_{i,c'} g_{i,c'} / w_{c,c'}, \\
    w_c &= \sum_{c' \ne c} w_{c,c'}, &\quad g_c &= \sum_{c' \ne c} w_{c,c'} g_{c,c'} / w_c,

the parts are :math:`A_1 = \sum_c w_c g_c g_c^\top`, :math:`A_2 = \sum_c w_{c,c} g_{c,c} g_{c,c}^\top`,
:math:`B_1 = \sum_c \sum_{c' \ne c} w_{c,c'} (g_{c,c'} - g_c)(g_{c,c'} - g_c)^\top` and
:math:`B_2 = \sum_{c,c'} B_{2,c,c'}` with :math:`B_{2,c,c'} = \sum_{i \in c} w_{i,c'} (g_{i,c'} - g_{c,c'})(g_{i,c'} - g_{c,c'})^\top`.
Because all :math:`w_{i,c'}` are divided by the number `N` of all examples, the parts add up for classes of any sizes. For classes of
equal size they are those of Papyan (2020), "Traces of class/cross-class structure pervade deep learning spectra", Journal of
Machine Learning Research 21, with :math:`\Sigma_c` centred on :math:`g_c` (printed there as :math:`g_{c'}`, with which they do not add up).

Since :math:`\sum_{c'} p_{i,c'} (e_{c'} - p_i) = 0`, also :math:`w_c g_c = -w_{c,c} g_{c,c}`: the part :math:`A_2` has the range of
:math:`A_1`, and is smaller by the factor :math:`w_c / w_{c,c}` in each class, the odds of a mistake.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from ..backends import Array
from .class_means import ClassMeans, divide, off_diagonal
from .class_traces import ClassTraces
from .classification import Classification, read_classes
from .output_space import OutputSpaceOperator

if TYPE_CHECKING:
    from .objective import Objective

Coefficients = Callable[[np.ndarray, np.ndarray], np.ndarray]
_GRAM_PARTS = ("A1", "A2", "B1")
_PARTS = (*_GRAM_PARTS, "B2")


class ClassStructure:
    r"""The Gauss-Newton matrix of a classifier as a sum of four parts: means of classes, and spreads around them.

    Made by `Objective.class_structure`. All parts are positive semidefinite operators, and
    ``A1 + A2 + B1 + B2`` is the Gauss-Newton matrix of the loss (of `Objective.ggn` without its weight decay). They share the linearised
    batches. The means of all pairs of classes (num_classes**2 * num_parameters numbers) are stored only while their Gram matrix is made,
    and only where they fit a quarter of the memory budget.

    Parameters
    ----------
    objective : Objective
        Model, parameters and data.
    classification : Classification
        Probabilities, classes and weights of its examples.

    Attributes
    ----------
    A1, A2, B1, B2 : OutputSpaceOperator
        The parts, each of shape (num_parameters, num_parameters).
    probabilities : numpy.ndarray
        Softmax of the outputs, shape (num_positions, num_classes).
    targets : numpy.ndarray
        Class of each position, shape (num_positions,); -1 where it is masked and counts for nothing.
    counts : numpy.ndarray
        Examples of each class, shape (num_classes,).
    label_smoothing : float
        What label smoothing gives to each wrong class; it leaves the Gauss-Newton matrix as it is.
    cross_class_weights : numpy.ndarray
        :math:`w_{c,c'}`, shape (num_classes, num_classes): the probability of `c'` summed over the examples of class `c` and divided by the
        number of all examples, so that they sum to one for a mean loss; times the weight of each example's loss, where it has one.
    class_weights : numpy.ndarray
        :math:`w_c = \sum_{c' \ne c} w_{c,c'}`, shape (num_classes,).

    Examples
    --------
    >>> import numpy as np, torch, linop_spectra as ls
    >>> generator = torch.Generator().manual_seed(0)
    >>> inputs = torch.randn(30, 5, generator=generator, dtype=torch.float64)
    >>> objective = ls.objective(torch.nn.Linear(5, 3).double(), "cross_entropy", (inputs, torch.arange(30) % 3))
    >>> parts = objective.class_structure()
    >>> total = parts.A1 + parts.A2 + parts.B1 + parts.B2
    >>> bool(np.allclose(total.to_dense(), objective.ggn().to_dense(), atol=1e-14))
    True
    >>> parts.spectrum("A1").shape, parts.spectrum("A1+A2+B1").shape
    ((3,), (9,))
    """

    def __init__(self, objective: Objective, classification: Classification) -> None:
        self.objective = objective
        self._means = means = ClassMeans(objective, classification)
        self.probabilities, self.targets, self.num_classes = means.probabilities, means.targets, means.num_classes
        self.cross_class_weights, self.class_weights = means.pair_weights, means.class_weights
        self.counts = np.bincount(self.targets[self.targets >= 0], minlength=self.num_classes)
        self.label_smoothing = classification.smoothing

    # -- operators -----------------------------------------------------------------------------------------------------

    @cached_property
    def A1(self) -> OutputSpaceOperator:
        """Second moment of the class means :math:`g_c`; its rank is at most the number of classes."""
        return self.sum_of("A1")

    @cached_property
    def A2(self) -> OutputSpaceOperator:
        """Second moment of the means :math:`g_{c,c}` towards the right class, of the same range as `A1`."""
        return self.sum_of("A2")

    @cached_property
    def B1(self) -> OutputSpaceOperator:
        """Spread of the cross-class means :math:`g_{c,c'}` around the class means :math:`g_c`."""
        return self.sum_of("B1")

    @cached_property
    def B2(self) -> OutputSpaceOperator:
        """Spread of the examples' gradients around the cross-class means."""
        return self.sum_of("B2")

    def sum_of(self, parts: str) -> OutputSpaceOperator:
        """A sum of parts as one operator, whose product costs as much as that of one part.

        Parameters
        ----------
        parts : str
            Any of A1, A2, B1 and B2, as in ``"A1+A2"``.

        Returns
        -------
        OutputSpaceOperator
            Shape (num_parameters, num_parameters).

        Raises
        ------
        ValueError
            When a part is none of the four, or comes twice.
        """
        chosen = self._parts(parts, _PARTS)
        means, others = self._means, off_diagonal(np.ones((self.num_classes, self.num_classes)))

        def coefficients(forms: np.ndarray, pairs: np.ndarray) -> np.ndarray:
            of_pairs = np.zeros_like(pairs)
            if "A1" in chosen or "B1" in chosen:
                of_classes = others * means.of_classes(pairs)[:, None]
                of_pairs += of_classes * ("A1" in chosen) + (off_diagonal(pairs) - of_classes) * ("B1" in chosen)
            if "A2" in chosen:
                of_pairs += np.diag(np.diag(pairs))
            if "B2" in chosen:
                return forms + means.spread(of_pairs - pairs)
            return means.spread(of_pairs)

        def remake(small: Objective) -> OutputSpaceOperator:
            return small.class_structure().sum_of(parts)

        return OutputSpaceOperator(means.space, self._kernel(coefficients), parts, remake)

    def B2_class(self, c: int, other: int | None = None) -> OutputSpaceOperator:
        r"""The part of `B2` that comes from the examples of one class.

        Parameters
        ----------
        c : int
            Class of the examples: :math:`B_{2,c} = \sum_{c'} B_{2,c,c'}`.
        other : int, optional
            The class `c'`, for :math:`B_{2,c,c'}` alone.

        Returns
        -------
        OutputSpaceOperator
            Batches without such examples cost nothing. Traces of all at once: `B2_traces`.
        """
        self._check_class(c, "c")
        if other is not None:
            self._check_class(other, "other")
        chosen = np.zeros((self.targets.size, self.num_classes), dtype=bool)
        chosen[self.targets == c, slice(None) if other is None else other] = True
        active = np.array([chosen[positions].any() for positions in self._means.batches])
        name = f"B2_class({c})" if other is None else f"B2_class({c}, {other})"

        def remake(small: Objective) -> OutputSpaceOperator:
            return small.class_structure().B2_class(c, other)

        def coefficients(forms: np.ndarray, pairs: np.ndarray) -> np.ndarray:
            return np.where(chosen, forms - self._means.spread(pairs), 0.0)

        return OutputSpaceOperator(self._means.space, self._kernel(coefficients), name, remake, active)

    def _kernel(self, coefficients: Coefficients) -> Callable[[np.ndarray], np.ndarray]:
        """The sum over (i, c') of ``w y g`` in output space, where `y` follows from all ``<g, v>`` and their means over pairs."""
        means = self._means

        def kernel(outputs: np.ndarray) -> np.ndarray:
            forms = means.forms(outputs)
            return means.to_outputs(means.weights * coefficients(forms, means.of_pairs(forms))).reshape(-1)

        return kernel

    # -- means ---------------------------------------------------------------------------------------------------------

    def class_means(self) -> Array:
        """The class means :math:`g_c`.

        Returns
        -------
        array
            Shape (num_classes, num_parameters), on the objective's backend; zero for a class that does not occur.
        """
        return self._means.combinations(range(self.num_classes), self._means.class_rows())

    def cross_class_means(self, c: int) -> Array:
        """The means :math:`g_{c,c'}` of one class `c`, for all `c'`.

        Returns
        -------
        array
            Shape (num_classes, num_parameters), on the objective's backend; zero for a class that does not occur.
        """
        self._check_class(c, "c")
        rows = np.diag(divide(np.ones(self.num_classes), self.cross_class_weights[c]))
        return self._means.combinations([c] * self.num_classes, rows)

    # -- small matrices with the same eigenvalues ----------------------------------------------------------------------

    def gram(self, parts: str) -> np.ndarray:
        """Gram matrix of the vectors whose outer products add up to some of the parts: its nonzero eigenvalues are theirs.

        Where all vectors fit a quarter of the memory budget, they come from one product with the transposed Jacobian each, over the
        examples of their class. Otherwise the inner products are streamed: block by block, means go back and forward again.

        Parameters
        ----------
        parts : str
            Any of A1, A2 and B1, as in ``"A1"`` or ``"A1+A2+B1"``.

        Returns
        -------
        numpy.ndarray
            Float64. Without B1 of shape (num_classes, num_classes), from one vector for each class, at the cost of num_classes
            products with the transposed Jacobian, and as many with the Jacobian where it is streamed. With B1 of shape
            (num_classes**2, num_classes**2), row ``c * num_classes + c'`` for the pair of classes (with zeros where a pair has no part),
            at the cost of num_classes**2 of them.

        Raises
        ------
        ValueError
            When a part is none of the three.
        MemoryError
            When the matrix does not fit the objective's memory budget.
        """
        chosen = self._parts(parts, _GRAM_PARTS)
        if "B1" not in chosen:
            # A2 as multiples of the class means, because w_c g_c = - w_{c,c} g_{c,c}.
            towards_own = divide(self.class_weights, np.sqrt(np.diag(self.cross_class_weights)))
            lengths = np.hypot(np.sqrt(self.class_weights) * ("A1" in chosen), towards_own * ("A2" in chosen))
            return np.asarray(lengths[:, None] * self._gram_of_classes * lengths)
        classes = self.num_classes
        gram = self._gram_of_pairs
        roots = np.sqrt(self.cross_class_weights)
        if "A2" not in chosen:
            roots = off_diagonal(roots)
        if "A1" not in chosen:
            # Centre: subtract the class mean, which lies in the span of the same class's vectors.
            centre = np.einsum("cd,ce->ced", self._means.class_rows() * self.cross_class_weights, 1 - np.eye(classes))
            change = sparse.block_diag([np.eye(classes) - block for block in centre], format="csr")
            gram = change @ (change @ gram).T
        lengths = roots.reshape(-1)
        return np.asarray(lengths[:, None] * gram * lengths)

    def spectrum(self, parts: str) -> np.ndarray:
        """Eigenvalues of a sum of some of the parts A1, A2, B1, all but zeros.

        Parameters
        ----------
        parts : str
            As for `gram`.

        Returns
        -------
        numpy.ndarray
            Ascending, shape (num_classes,), or (num_classes**2,) with B1; as many zeros among them as the vectors have linear
            relations.
        """
        return np.asarray(np.linalg.eigvalsh(self.gram(parts)))

    @cached_property
    def _gram_of_classes(self) -> np.ndarray:
        return self._means.gram_of_classes()

    @cached_property
    def _gram_of_pairs(self) -> np.ndarray:
        return self._means.gram_of_pairs()

    def _parts(self, parts: str, allowed: tuple[str, ...]) -> set[str]:
        chosen = [part.strip() for part in parts.split("+")] if isinstance(parts, str) else []
        if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(allowed):
            why = "" if "B2" in allowed else "; B2 has a vector for each example, so take its spectrum from the operator"
            raise ValueError(
                f"The argument parts is {parts!r}, but must be a sum of some of {', '.join(allowed[:-1])} and {allowed[-1]}, such as "
                f"'{'+'.join(allowed)}'{why}."
            )
        return set(chosen)

    # -- traces --------------------------------------------------------------------------------------------------------

    def B2_traces(self, num_probes: int | None = 64, seed: int = 0) -> ClassTraces:
        r"""Traces of all :math:`B_{2,c,c'}` from the same products.

        For a vector `z` of random signs, :math:`\sum_{i \in c} w_{i,c'} \langle g_{i,c'} - g_{c,c'}, z \rangle^2` has the trace as its
        expectation (Hutchinson, 1989); one product with the Jacobian gives it for all pairs.

        Parameters
        ----------
        num_probes : int or None
            Random vectors. None, or at least as many as there are parameters, takes the unit vectors instead, which is exact.
        seed : int
            Of the random vectors.

        Returns
        -------
        ClassTraces
            Values and standard errors.
        """
        if num_probes is not None and (isinstance(num_probes, bool) or int(num_probes) != num_probes or num_probes < 1):
            raise ValueError(
                f"The argument num_probes is {num_probes!r}, but must be a whole number of at least one, or None for exact traces."
            )
        began, means = time.perf_counter(), self._means
        functions, n = self.objective.functions, self.objective.num_parameters
        exact = num_probes is None or num_probes >= n
        count = n if exact or num_probes is None else int(num_probes)
        total = np.zeros((1, self.num_classes, self.num_classes))
        samples = []
        for first in range(0, count, means.space.block):
            indices = range(first, min(first + means.space.block, count))
            if exact:
                rows = functions.backend.asarray(np.eye(len(indices), n, first, dtype=functions.dtype))
            else:
                rows = functions.backend.probes(n, indices, kind="sign", seed=seed, domain="trace", dtype=functions.dtype)
            for outputs in means.space.push(rows.T):
                forms = means.forms(outputs)
                sample = means.sum_over_classes(means.weights * (forms - means.spread(means.of_pairs(forms))) ** 2)
                if exact:
                    total[0] += sample
                else:
                    samples.append(sample)
        found = total if exact else np.array(samples)
        return ClassTraces(found, exact=exact, num_matvecs=count, seconds=time.perf_counter() - began)

    # -- words ---------------------------------------------------------------------------------------------------------

    @property
    def engine(self) -> str:
        """How products are computed, and why so; before the first product this question costs one product."""
        return self.A1.engine

    def _check_class(self, c: int, name: str) -> None:
        if isinstance(c, bool) or not isinstance(c, int | np.integer) or not 0 <= c < self.num_classes:
            raise ValueError(f"The argument {name} is {c!r}, but must be a class from 0 to {self.num_classes - 1}.")

    def __repr__(self) -> str:
        return (
            f"ClassStructure({self.num_classes} classes, {int(self.counts.sum()):,} examples, {self.objective.num_parameters:,} "
            "parameters): A1 + A2 + B1 + B2"
        )


def class_structure(objective: Objective) -> ClassStructure:
    """The class structure of an objective; see `Objective.class_structure`."""
    return ClassStructure(objective, read_classes(objective))
