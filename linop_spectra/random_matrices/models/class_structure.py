r"""Three levels of classes: gradients that cluster by class, by pair of classes and by example, and the spectrum that they give.

With :math:`g_{i,c'} = J_i^T (e_{c'} - p_i)` for an example i of the class c, the Gauss-Newton matrix of softmax cross-entropy is
:math:`\sum_{i,c'} w_{i,c'} g_{i,c'} g_{i,c'}^T` with :math:`w_{i,c'} = p_{i,c'} / N`. The law of total variance, used twice, splits it into
the means of classes, the right class, the spread of pairs around classes, and the spread of examples around pairs:
:math:`A_1 + A_2 + B_1 + B_2`. `Objective.class_structure` does so for a network without ever holding these vectors; here they are arrays.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np

from ...operators import LinearOperator, low_rank
from ..laws.law import check_positive, check_whole
from .softmax_sample import SoftmaxSample
from .streams import check_seed, normal_array

_DOMAIN = "model/class structure/"


@dataclasses.dataclass(frozen=True, eq=False)
class ClassDecomposition:
    """The four parts of a Gauss-Newton matrix, as sums of outer products.

    Attributes
    ----------
    class_means : numpy.ndarray
        :math:`g_c`, shape (C, D): means over the wrong classes; zero for a class that does not occur.
    pair_means : numpy.ndarray
        :math:`g_{c,c'}`, shape (C, C, D).
    class_weights : numpy.ndarray
        :math:`w_c`, shape (C,): sums of the pairs' weights over the wrong classes.
    pair_weights : numpy.ndarray
        :math:`w_{c,c'}`, shape (C, C), of sum one.
    sample : SoftmaxSample
        What is decomposed.

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.random_matrices.models import ClassStructureModel, class_decomposition
    >>> model = ClassStructureModel(num_classes=4, num_examples=40, dimension=60)
    >>> parts = class_decomposition(model.sample)
    >>> total = parts.A1 + parts.A2 + parts.B1 + parts.B2
    >>> bool(np.allclose(total.to_dense(), model.sample.gauss_newton().to_dense(), atol=1e-15))
    True
    """

    class_means: np.ndarray
    pair_means: np.ndarray
    class_weights: np.ndarray
    pair_weights: np.ndarray
    sample: SoftmaxSample

    @functools.cached_property
    def A1(self) -> LinearOperator:
        """Second moment of the class means; of rank C at most."""
        return low_rank(self.class_means.T, self.class_weights)

    @functools.cached_property
    def A2(self) -> LinearOperator:
        """Second moment of the means towards the right class, of the same range as `A1`."""
        right = np.arange(len(self.class_weights))
        return low_rank(self.pair_means[right, right].T, self.pair_weights[right, right])

    @functools.cached_property
    def B1(self) -> LinearOperator:
        """Spread of the pairs' means around the class means; of rank C (C - 2) at most."""
        wrong = ~np.eye(len(self.class_weights), dtype=bool)
        spread = (self.pair_means - self.class_means[:, None])[wrong]
        return low_rank(spread.T, self.pair_weights[wrong])

    @functools.cached_property
    def B2(self) -> LinearOperator:
        """Spread of the examples around the pairs' means."""
        sample = self.sample
        spread = sample.class_gradients() - self.pair_means[sample.labels]
        weights = sample.probabilities / sample.num_examples
        return low_rank(spread.reshape(-1, sample.dimension).T, weights.reshape(-1).astype(spread.dtype))

    @property
    def means_alone(self) -> LinearOperator:
        """``A1 + A2`` in closed form, the sum over classes of ``w_c / p_c`` times the outer square of the class mean.

        Here ``p_c`` is the mean probability of the right class, ``w_{c,c}`` over the share of the class. Because the gradients of an
        example have the mean zero, ``w_c g_c = - w_{c,c} g_{c,c}``, and so the two parts have one range.
        """
        right = np.diag(self.pair_weights)
        shares = right + self.class_weights
        factors = np.divide(self.class_weights * shares, right, out=np.zeros_like(right), where=right > 0)
        return low_rank(self.class_means.T, factors)


def class_decomposition(sample: SoftmaxSample) -> ClassDecomposition:
    """The parts A1, A2, B1 and B2 of a Gauss-Newton matrix whose Jacobian is given.

    Parameters
    ----------
    sample : SoftmaxSample
        Jacobian blocks, probabilities and labels of any class sizes.

    Returns
    -------
    ClassDecomposition
        Means, weights and parts.

    References
    ----------
    V. Papyan, *Traces of class/cross-class structure pervade deep learning spectra*, J. Mach. Learn. Res. 21 (2020). The spread of the
    pairs is centred on :math:`g_c`; with the :math:`g_{c'}` that is printed there the parts do not add up.
    """
    classes = sample.num_classes
    gradients = sample.class_gradients()
    weights = np.asarray(sample.probabilities, dtype=np.float64) / sample.num_examples
    pair_weights = np.zeros((classes, classes))
    pair_means = np.zeros((classes, classes, sample.dimension), gradients.dtype)
    for c in range(classes):
        members = sample.labels == c
        pair_weights[c] = weights[members].sum(axis=0)
        sums = np.einsum("ik,ikd->kd", weights[members], gradients[members])
        pair_means[c] = np.divide(sums, pair_weights[c][:, None], out=np.zeros_like(sums), where=pair_weights[c][:, None] > 0)
    wrong = pair_weights * (1 - np.eye(classes))
    class_weights = wrong.sum(axis=1)
    sums = np.einsum("ck,ckd->cd", wrong, pair_means)
    class_means = np.divide(sums, class_weights[:, None], out=np.zeros_like(sums), where=class_weights[:, None] > 0)
    return ClassDecomposition(class_means, pair_means, class_weights, pair_weights, sample)


@dataclasses.dataclass(frozen=True, eq=False)
class ClassStructureModel:
    r"""Gradients on three scales, whose Gauss-Newton matrix has three groups of eigenvalues.

    For a wrong class c' the gradient of an example i of the class c is
    :math:`g_{i,c'} = s_1 a_c + s_2 b_{c,c'} + s_3 e_{i,c'}` with independent Gaussian vectors of unit mean square length, and towards the
    right class what makes their mean under p zero. The right class has the probability 1 - mistake, the others share the rest. With
    :math:`s_1 \gg s_2 \gg s_3` there are C outliers, then C (C - 2) eigenvalues, then the rest.

    Parameters
    ----------
    num_classes, num_examples, dimension : int
        C (at least 3), N (at least C; classes are as equal as they can be) and D.
    scales : tuple of float
        s_1, s_2 and s_3.
    mistake : float
        Probability of all wrong classes together, between 0 and 1.
    seed : int
        Everything is a function of it.

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.random_matrices.models import ClassStructureModel
    >>> model = ClassStructureModel(num_classes=4, num_examples=40, dimension=200)
    >>> eigenvalues = np.linalg.eigvalsh(model.sample.gauss_newton().to_dense())[::-1]
    >>> model.group_sizes
    (4, 8)
    >>> bool(eigenvalues[3] > 10 * eigenvalues[4]) and bool(eigenvalues[11] > 10 * eigenvalues[12])
    True
    """

    num_classes: int = 10
    num_examples: int = 300
    dimension: int = 1000
    scales: tuple[float, float, float] = (100.0, 10.0, 1.0)
    mistake: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("num_classes", self.num_classes, 3)
        check_whole("num_examples", self.num_examples, self.num_classes)
        check_whole("dimension", self.dimension, 1)
        check_seed(self.seed)
        if len(self.scales) != 3:
            raise ValueError(f"The argument scales must be three numbers, of classes, pairs and examples, but is {self.scales!r}.")
        object.__setattr__(self, "scales", tuple(check_positive("scales", float(s), "of classes, pairs and examples") for s in self.scales))
        if not 0 < self.mistake < 1:
            raise ValueError(f"The argument mistake must lie strictly between 0 and 1, but is {self.mistake!r}.")

    @functools.cached_property
    def sample(self) -> SoftmaxSample:
        """Jacobian blocks, probabilities and labels; the blocks are the gradients themselves."""
        classes, count, dimension = self.num_classes, self.num_examples, self.dimension
        labels = np.arange(count) % classes
        first, second, third = self.scales
        gradients = self._normals((count, classes, dimension), third, "examples")
        gradients += (
            self._normals((classes, 1, dimension), first, "classes") + self._normals((classes, classes, dimension), second, "pairs")
        )[labels]
        probabilities = np.full((count, classes), self.mistake / (classes - 1))
        rows = np.arange(count)
        probabilities[rows, labels] = 1 - self.mistake
        gradients[rows, labels] = 0
        # The gradients of one example have mean zero, so that J_i^T (e_c - p_i) gives them back.
        gradients[rows, labels] = -np.einsum("ik,ikd->id", probabilities, gradients) / (1 - self.mistake)
        return SoftmaxSample(gradients, probabilities, labels)

    def _normals(self, shape: tuple[int, ...], scale: float, part: str) -> np.ndarray:
        return normal_array(shape, scale=scale / math.sqrt(self.dimension), seed=self.seed, domain=_DOMAIN + part)

    @property
    def group_sizes(self) -> tuple[int, int]:
        """Eigenvalues of the upper two groups, C and C (C - 2)."""
        return self.num_classes, self.num_classes * (self.num_classes - 2)

    @property
    def group_means(self) -> tuple[float, float]:
        """Expected mean eigenvalue of the upper two groups for classes of equal size: the traces of A1 + A2 and of B1 over their ranks."""
        classes, wrong = self.num_classes, self.num_classes - 1
        first, second, third = (scale**2 for scale in self.scales)
        pair = second + third * classes / self.num_examples  # mean over the N / C examples of a class
        of_classes = self.mistake / (classes * (1 - self.mistake)) * (first + pair / wrong)
        # The spread of C - 1 vectors around their mean has C - 2 directions.
        of_pairs = self.mistake / (classes * wrong) * pair
        return of_classes, of_pairs
