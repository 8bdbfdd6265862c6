r"""Multinomial logistic regression at zero weights, where the curvature is known in closed form.

With all weights zero every class has probability 1/C, and the Hessian, the Gauss-Newton matrix and the Fisher matrix of the mean
cross-entropy are all :math:`\frac1C (I - \frac1C 1 1^T) \otimes \frac1n X^T X`, whatever the labels.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal

import numpy as np

from ...operators import LinearOperator, aslinearoperator, kronecker
from ..laws.law import SpectralLaw, check_levels, check_positive, check_whole, like
from ..laws.marchenko_pastur import MarchenkoPastur
from ..laws.numerical_law import discrete_jacobi
from .streams import check_seed, normal_array

Layout = Literal["class rows", "class columns"]


def logistic_hessian_at_zero(inputs: Any, num_classes: int, *, layout: Layout = "class rows") -> LinearOperator:
    """The Hessian of multinomial logistic regression without bias at zero weights.

    Parameters
    ----------
    inputs : array
        Features X, shape (n, d).
    num_classes : int
        C, at least 2.
    layout : {"class rows", "class columns"}
        Order of the parameters: a row for each class, shape (C, d), as in torch, or a column for each class, shape (d, C), as in JAX
        and Keras; read row by row.

    Returns
    -------
    LinearOperator
        Shape (C d, C d), positive semidefinite; a product costs 2 C d n multiplications.

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.random_matrices.models import logistic_hessian_at_zero
    >>> logistic_hessian_at_zero(np.eye(2), 2).to_dense()[0, ::2]
    array([ 0.125, -0.125])
    """
    x, classes = _check_inputs(inputs), check_whole("num_classes", num_classes, 2)
    matrix = aslinearoperator(x, hermitian=False if x.shape[0] == x.shape[1] else None)
    gram = (1 / x.shape[0]) * (matrix.H @ matrix)
    softmax = aslinearoperator(((np.eye(classes) - 1 / classes) / classes).astype(x.dtype), hermitian=True)
    softmax.positive_semidefinite = True
    if layout not in ("class rows", "class columns"):
        raise ValueError(f"The argument layout is {layout!r}, but must be 'class rows' or 'class columns'.")
    return kronecker(softmax, gram) if layout == "class rows" else kronecker(gram, softmax)


def logistic_eigenvalues_at_zero(inputs: Any, num_classes: int) -> np.ndarray:
    """All eigenvalues of `logistic_hessian_at_zero`: those of ``X^T X / (n C)``, each C - 1 times, and d zeros.

    Parameters
    ----------
    inputs : array
        Features X, shape (n, d).
    num_classes : int
        C, at least 2.

    Returns
    -------
    numpy.ndarray
        Ascending, shape (C d,).

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.random_matrices.models import logistic_eigenvalues_at_zero
    >>> logistic_eigenvalues_at_zero(np.eye(2), 2)
    array([0.  , 0.  , 0.25, 0.25])
    """
    x, classes = _check_inputs(inputs), check_whole("num_classes", num_classes, 2)
    n, d = x.shape
    squares = np.zeros(d)
    squares[: min(n, d)] = np.linalg.svd(x, compute_uv=False).astype(np.float64) ** 2
    return np.sort(np.concatenate([np.zeros(d), np.repeat(squares / (n * classes), classes - 1)]))


@dataclasses.dataclass(frozen=True)
class LogisticLaw(SpectralLaw):
    """Limit of the spectrum of `logistic_hessian_at_zero` for Gaussian features.

    A share ``1 / C`` of zeros, and the rest as the Marchenko-Pastur law of the features' covariance divided by C.

    Parameters
    ----------
    ratio : float
        ``d / n``, features over examples.
    num_classes : int
        C.
    variance : float
        Of the features.

    Examples
    --------
    >>> from linop_spectra.random_matrices.models import LogisticLaw
    >>> law = LogisticLaw(ratio=0.25, num_classes=5)
    >>> law.support, law.atoms
    ([(0.05, 0.45)], [(0.0, 0.2)])
    """

    ratio: float
    num_classes: int
    variance: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratio", check_positive("ratio", self.ratio, "the number of features over the number of examples"))
        object.__setattr__(self, "variance", check_positive("variance", self.variance, "that of the features"))
        check_whole("num_classes", self.num_classes, 2)

    @functools.cached_property
    def _features(self) -> MarchenkoPastur:
        return MarchenkoPastur(ratio=self.ratio, variance=self.variance / self.num_classes)

    @property
    def _zeros(self) -> float:
        return 1 / self.num_classes

    @property
    def support(self) -> list[tuple[float, float]]:
        """Ends of the continuous part."""
        return self._features.support

    @property
    def atoms(self) -> list[tuple[float, float]]:
        """The zeros: of the direction in which all logits grow, and of features that are more than examples."""
        return [(0.0, self._zeros + (1 - self._zeros) * dict(self._features.atoms).get(0.0, 0.0))]

    def pdf(self, x: Any) -> Any:
        """Density of the continuous part at `x`; the shape of `x`."""
        return (1 - self._zeros) * self._features.pdf(x)

    def cdf(self, x: Any) -> Any:
        """Share of the eigenvalues at or below `x`; the shape of `x`."""
        x = np.asarray(x, dtype=np.float64)
        return like(np.where(x >= 0, self._zeros, 0.0) + (1 - self._zeros) * np.asarray(self._features.cdf(x)))

    def quantile(self, q: Any) -> Any:
        """Smallest place whose `cdf` reaches `q`; the shape of `q`."""
        q = check_levels(q)
        rest = np.clip((q - self._zeros) / (1 - self._zeros), 0.0, 1.0)
        return like(np.where(q <= self._zeros, 0.0, np.asarray(self._features.quantile(rest))))

    def moment(self, k: int) -> float:
        """Mean of the k-th powers."""
        return 1.0 if check_whole("k", k, 0) == 0 else (1 - self._zeros) * self._features.moment(k)

    def stieltjes(self, z: Any) -> Any:
        """Stieltjes transform; on the support the limit from above."""
        z = np.asarray(z, dtype=np.complex128)
        with np.errstate(divide="ignore", invalid="ignore"):
            return like(-self._zeros / z + (1 - self._zeros) * np.asarray(self._features.stieltjes(z)))

    def jacobi_coefficients(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """What k Lanczos steps give in the limit: alphas and betas, each of shape (k,)."""
        k = check_whole("k", k, 1)
        nodes, weights = self._features.gauss_rule(k + 1)
        return discrete_jacobi(np.append(nodes, 0.0), np.append((1 - self._zeros) * weights, self._zeros), k)


@dataclasses.dataclass(frozen=True, eq=False)
class MultinomialLogistic:
    """Multinomial logistic regression on Gaussian features with balanced labels, the same for every framework.

    Parameters
    ----------
    num_features : int
        d; the model has C d parameters, no bias.
    num_examples : int
        n.
    num_classes : int
        C.
    seed : int
        Of the features.
    dtype : dtype
        float64 or float32.

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.random_matrices.models import MultinomialLogistic
    >>> problem = MultinomialLogistic(20, 80, 3)
    >>> bool(np.allclose(np.linalg.eigvalsh(problem.hessian_at_zero().to_dense()), problem.eigenvalues_at_zero(), atol=1e-12))
    True
    """

    num_features: int
    num_examples: int
    num_classes: int
    seed: int = 0
    dtype: Any = np.float64

    def __post_init__(self) -> None:
        check_whole("num_features", self.num_features, 1)
        check_whole("num_examples", self.num_examples, 1)
        check_whole("num_classes", self.num_classes, 2)
        check_seed(self.seed)
        object.__setattr__(self, "dtype", np.dtype(self.dtype))

    @functools.cached_property
    def inputs(self) -> np.ndarray:
        """Features, shape (n, d)."""
        return normal_array((self.num_examples, self.num_features), scale=1.0, seed=self.seed, domain="model/logistic", dtype=self.dtype)

    @property
    def targets(self) -> np.ndarray:
        """Labels 0, 1, ..., C - 1, 0, 1, ..., shape (n,)."""
        return np.arange(self.num_examples) % self.num_classes

    @property
    def law(self) -> LogisticLaw:
        """Limit of the spectrum at zero weights."""
        return LogisticLaw(ratio=self.num_features / self.num_examples, num_classes=self.num_classes)

    def hessian_at_zero(self, *, layout: Layout = "class rows") -> LinearOperator:
        """The Hessian at zero weights; see `logistic_hessian_at_zero`."""
        return logistic_hessian_at_zero(self.inputs, self.num_classes, layout=layout)

    def eigenvalues_at_zero(self) -> np.ndarray:
        """All its eigenvalues, ascending, shape (C d,)."""
        return logistic_eigenvalues_at_zero(self.inputs, self.num_classes)


def _check_inputs(inputs: Any) -> np.ndarray:
    x = np.asarray(inputs)
    if x.ndim != 2 or x.size == 0 or x.dtype.kind not in "biuf":
        raise ValueError(f"The argument inputs must be real features of shape (n, d), but has shape {x.shape} and dtype {x.dtype}.")
    return x if x.dtype.kind == "f" else x.astype(np.float64)
