r"""A linear classifier on Gaussian classes: class, cross-class and within-class eigenvalues in closed form.

Features are :math:`x = t\, e_c + z` with standard normal z for an example of the class c, logits are linear in x, and the probabilities
are those of a classifier that errs evenly: :math:`1 - \alpha` for the right class, :math:`\alpha / (C - 1)` for each other. The expected
Gauss-Newton matrix over such data is :math:`\frac1C \sum_c U_c \otimes (t^2 e_c e_c^T + I)` with :math:`U_c = diag\, p_c - p_c p_c^T`.
With :math:`s = t^2` and :math:`u = \frac{\alpha}{C - 1} (2 - \frac{\alpha C}{C - 1})` it has four groups of equal eigenvalues:

* C outliers :math:`u + \frac{\alpha}{C - 1} s (1 - \alpha)`, one for each class,
* C (C - 2) of :math:`u + \frac{\alpha}{C - 1} \frac{s}{C}`, for pairs of classes,
* (D - C) (C - 1) of :math:`u`, from the noise in the other features, and
* D zeros, of equal changes of all logits.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from ...operators import LinearOperator, aslinearoperator, diagonal_operator, kronecker
from ..laws.law import check_whole
from .softmax_sample import SoftmaxSample
from .streams import check_seed, normal_array


@dataclasses.dataclass(frozen=True)
class GaussianClasses:
    """The expected Gauss-Newton matrix of a linear classifier on Gaussian classes, and draws of it.

    Parameters
    ----------
    num_classes : int
        C, at least 2.
    num_features : int
        D, at least C; the matrix has order C D, with a row of D parameters for each class.
    separation : float
        t, length of the class means in units of the noise.
    mistake : float
        Probability of all wrong classes together, between 0 and 1.

    References
    ----------
    V. Papyan, *Traces of class/cross-class structure pervade deep learning spectra*, J. Mach. Learn. Res. 21 (2020), which treats
    multinomial logistic regression on these data; the eigenvalues are re-derived here.

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.random_matrices.models import GaussianClasses
    >>> model = GaussianClasses(num_classes=3, num_features=5, separation=10.0, mistake=0.2)
    >>> model.groups
    [(8.17, 3), (3.503333..., 3), (0.17, 4), (0.0, 5)]
    >>> bool(np.allclose(np.linalg.eigvalsh(model.expected_gauss_newton().to_dense()), model.eigenvalues(), atol=1e-12))
    True
    """

    num_classes: int
    num_features: int
    separation: float
    mistake: float

    def __post_init__(self) -> None:
        check_whole("num_classes", self.num_classes, 2)
        check_whole("num_features", self.num_features, self.num_classes)
        if isinstance(self.separation, bool) or not 0 <= self.separation < math.inf:
            raise ValueError(f"The argument separation must be a finite number that is not negative, but is {self.separation!r}.")
        if isinstance(self.mistake, bool) or not 0 < self.mistake < 1:
            raise ValueError(f"The argument mistake must lie strictly between 0 and 1, but is {self.mistake!r}.")

    @property
    def probabilities(self) -> np.ndarray:
        """Probabilities of the examples of each class, shape (C, C)."""
        each = np.full((self.num_classes,) * 2, self.mistake / (self.num_classes - 1))
        np.fill_diagonal(each, 1 - self.mistake)
        return each

    @property
    def groups(self) -> list[tuple[float, int]]:
        """Pairs (eigenvalue, multiplicity), descending where the mistake is below ``1 - 1 / C``: classes, pairs, noise, zeros."""
        classes, features = self.num_classes, self.num_features
        unit, strength = self.mistake / (classes - 1), self.separation**2
        noise = unit * (2 - self.mistake * classes / (classes - 1))
        return [
            (noise + unit * strength * (1 - self.mistake), classes),
            (noise + unit * strength / classes, classes * (classes - 2)),
            (noise, (features - classes) * (classes - 1)),
            (0.0, features),
        ]

    def eigenvalues(self) -> np.ndarray:
        """All eigenvalues, ascending, shape (C D,)."""
        return np.sort(np.concatenate([np.full(count, value) for value, count in self.groups]))

    def expected_gauss_newton(self) -> LinearOperator:
        """The expected matrix, shape (C D, C D), as a sum of C Kronecker products; the Fisher matrix of the classifier."""
        total: LinearOperator | None = None
        for c, p in enumerate(self.probabilities):
            softmax = aslinearoperator(np.diag(p) - np.outer(p, p), hermitian=True)
            second = np.ones(self.num_features)
            second[c] += self.separation**2
            term = kronecker(softmax, diagonal_operator(second / self.num_classes))
            total = term if total is None else total + term
        assert total is not None
        return total

    def sample(self, num_examples: int, *, seed: int = 0) -> SoftmaxSample:
        """Jacobian blocks, probabilities and labels of drawn features, for classes as equal in size as they can be.

        Parameters
        ----------
        num_examples : int
            N. The blocks take N C C D numbers, most of them zero: for small models.
        seed : int
            Of the features.

        Returns
        -------
        SoftmaxSample
            Its Gauss-Newton matrix tends to the expected one as N grows.
        """
        count, classes, features = check_whole("num_examples", num_examples, 1), self.num_classes, self.num_features
        labels = np.arange(count) % classes
        x = normal_array((count, features), scale=1.0, seed=check_seed(seed), domain="model/gaussian classes")
        x[np.arange(count), labels] += self.separation
        jacobian = np.zeros((count, classes, classes, features))
        jacobian[:, np.arange(classes), np.arange(classes)] = x[:, None]
        return SoftmaxSample(jacobian.reshape(count, classes, -1), self.probabilities[labels], labels)
