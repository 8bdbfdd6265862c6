r"""The logit-clustering model of Fort and Ganguli: gradients of logits that cluster by logit, and what follows for the curvature.

For an example of the label y the gradient of the logit k is :math:`c_k + d_{y,k} + E_k`: a vector of the logit, one of the pair of
label and logit (the original model has none), and noise of the example. The logits are Gaussian, and their scale grows in training until
the softmax freezes. Without curvature of the logits the Hessian is :math:`\frac1N \sum_i J_i^T (diag\, p_i - p_i p_i^T) J_i`.

Its spectrum follows from a deterministic equivalent (re-derived here). With the eigenvalues :math:`a_i` and eigenvectors :math:`v_i` of all
:math:`diag\, p - p p^T`, weights :math:`w_i = a_i / N` and :math:`u_i = w_i D \sigma_E^2`, the bulk has the Stieltjes transform m of
:math:`z = -1 / m + \sigma_E^2 \sum_i w_i / (1 + u_i m)`. With the Gram matrix :math:`\Gamma` of the mean gradients, outliers are where an
eigenvalue of :math:`\Gamma^{1/2} S \Gamma^{1/2}`, :math:`S = \sum_i w_i v_i v_i^T / (1 + u_i m)`, equals :math:`-1 / m`. The vectors
:math:`v_i` have no part along equal logits, so that clusters of logits alone give C - 1 outliers, not C; vectors of pairs of label and
logit, with probabilities that know the label, give more.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np
from scipy import optimize, special

from ..laws.law import check_positive, check_whole
from ..laws.weighted_gram_law import WeightedGramLaw
from .random_energy import expected_uncertainty
from .softmax_sample import SoftmaxSample, softmax
from .streams import check_seed, normal_array

_DOMAIN = "model/logit clustering/"
_GROUPS = 512
"""Groups that the weights are averaged in for the law of the bulk, which moves its edge by less than 0.3 %."""


@dataclasses.dataclass(frozen=True, eq=False)
class LogitClustering:
    """A draw of the logit-clustering model, and its predictions.

    Parameters
    ----------
    num_classes, num_examples, dimension : int
        C, N and D.
    cluster_scale : float, optional
        Standard deviation of the entries of c_k, by default ``1 / sqrt(D)``.
    noise_scale : float, optional
        Standard deviation of the entries of E, by default ``0.7 / sqrt(D)``.
    logit_scale : float
        Standard deviation of the logits.
    cluster_lengths : array, optional
        Factors of c_k, shape (C,); ones by default.
    pair_scale : float
        Standard deviation of the entries of d, the means of pairs of label and logit.
    label_boost : float
        Added to the logit of the label.
    seed : int
        Everything is a function of it.
    dtype : dtype
        Of the gradients, float64 or float32.

    References
    ----------
    S. Fort and S. Ganguli, *Emergent properties of the local geometry of neural loss landscapes*, arXiv:1910.05929 (2019).

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> from linop_spectra.random_matrices.models import LogitClustering
    >>> model = LogitClustering(num_classes=5, num_examples=100, dimension=300)
    >>> top = ls.eigsh(model.sample.gauss_newton(), k=5, which="LA").eigenvalues
    >>> predicted = model.outliers(given_means=True)
    >>> len(predicted), bool(np.abs(top[1:] / predicted[::-1] - 1).max() < 0.1), bool(top[0] < 1.2 * model.bulk_edge)
    (4, True, True)
    """

    num_classes: int = 10
    num_examples: int = 300
    dimension: int = 1000
    cluster_scale: float | None = None
    noise_scale: float | None = None
    logit_scale: float = 1.0
    cluster_lengths: Any = None
    pair_scale: float = 0.0
    label_boost: float = 0.0
    seed: int = 0
    dtype: Any = np.float64

    def __post_init__(self) -> None:
        check_whole("num_classes", self.num_classes, 2)
        check_whole("num_examples", self.num_examples, 1)
        check_whole("dimension", self.dimension, 1)
        check_seed(self.seed)
        for name, default in (("cluster_scale", 1.0), ("noise_scale", 0.7)):
            value = getattr(self, name)
            value = default / math.sqrt(self.dimension) if value is None else value
            object.__setattr__(self, name, check_positive(name, value, "a standard deviation"))
        for name in ("logit_scale", "pair_scale"):
            value = getattr(self, name)
            if isinstance(value, bool) or not (isinstance(value, (int, float, np.number)) and 0 <= value < math.inf):
                raise ValueError(f"The argument {name} must be a finite number that is not negative, but is {value!r}.")
        lengths = np.ones(self.num_classes) if self.cluster_lengths is None else np.asarray(self.cluster_lengths, dtype=np.float64)
        if lengths.shape != (self.num_classes,) or not np.all((lengths >= 0) & np.isfinite(lengths)):
            raise ValueError(
                f"The argument cluster_lengths must be {self.num_classes} finite factors that are not negative, but has shape "
                f"{lengths.shape}."
            )
        object.__setattr__(self, "cluster_lengths", lengths)
        object.__setattr__(self, "dtype", np.dtype(self.dtype))

    # -- the draw ------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def means(self) -> np.ndarray:
        """Mean gradients ``c_k + d_{y,k}``, shape (C, C, D), by label and logit; with ``pair_scale=0`` the same for all labels."""
        classes = self.num_classes
        clusters = self._normals((classes, self.dimension), self.cluster_scale, "clusters") * self.cluster_lengths[:, None]
        if self.pair_scale == 0:
            return np.broadcast_to(clusters, (classes, classes, self.dimension))
        return np.asarray(clusters + self._normals((classes, classes, self.dimension), self.pair_scale, "pairs"))

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """Labels, uniform and independent, shape (N,)."""
        uniform = special.ndtr(self._normals((self.num_examples,), 1.0, "labels"))
        return np.minimum((uniform * self.num_classes).astype(np.int64), self.num_classes - 1)

    @functools.cached_property
    def logits(self) -> np.ndarray:
        """Logits, shape (N, C)."""
        z = self._normals((self.num_examples, self.num_classes), 1.0, "logits") * self.logit_scale
        z[np.arange(self.num_examples), self.labels] += self.label_boost
        return np.asarray(z)

    @functools.cached_property
    def sample(self) -> SoftmaxSample:
        """Jacobian blocks, probabilities and labels, with the Gauss-Newton matrix, the gradient and the kernel ``J J^T``."""
        shape = (self.num_examples, self.num_classes, self.dimension)
        scale = float(self.noise_scale or 0.0)
        jacobian = normal_array(shape, scale=scale, seed=self.seed, domain=_DOMAIN + "noise", dtype=self.dtype)
        jacobian += self.means[self.labels]
        return SoftmaxSample(jacobian, softmax(self.logits), self.labels)

    def _normals(self, shape: tuple[int, ...], scale: float | None, part: str) -> np.ndarray:
        return normal_array(shape, scale=float(scale or 0.0), seed=self.seed, domain=_DOMAIN + part)

    # -- predictions ---------------------------------------------------------------------------------------------------

    def expected_trace(self) -> float:
        """Mean of the trace of the Gauss-Newton matrix over draws, ``D (sigma_c^2 + sigma_d^2 + sigma_E^2) E[1 - sum p^2]``.

        The first variance is times the mean square of `cluster_lengths`.
        """
        clusters = float(self.cluster_scale or 0.0) ** 2 * float((self.cluster_lengths**2).mean())
        entries = clusters + self.pair_scale**2 + float(self.noise_scale or 0.0) ** 2
        uncertainty = expected_uncertainty(self.num_classes, self.logit_scale, label_boost=self.label_boost)
        return self.dimension * entries * uncertainty

    @functools.cached_property
    def weights(self) -> np.ndarray:
        """Weights of the noise in the bulk: eigenvalues of ``diag p - p p^T`` of the drawn logits, shape (N C,)."""
        return self._softmax[0].reshape(-1)

    @functools.cached_property
    def _softmax(self) -> tuple[np.ndarray, np.ndarray]:
        classes = SoftmaxSample(np.zeros((self.num_examples, self.num_classes, 1)), softmax(self.logits), self.labels)
        return classes.softmax_weights()

    @property
    def _noise(self) -> float:
        """Mean squared length of the noise."""
        return self.dimension * float(self.noise_scale or 0.0) ** 2

    @functools.cached_property
    def _edge(self) -> float:
        """The transform m at the upper edge of the bulk: where the place z(m) has its minimum."""
        w = self.weights / self.num_examples
        u = w * self._noise
        lowest = -1 / u.max()

        def slope(m: float) -> float:
            return float(1 - (self._noise / self.dimension) * (w * u * (m / (1 + u * m)) ** 2).sum())

        return float(optimize.brentq(slope, lowest * (1 - 1e-14), lowest * 1e-14, xtol=1e-15 * abs(lowest), rtol=1e-14))

    def _place(self, m: float) -> float:
        w = self.weights / self.num_examples
        return float(-1 / m + self._noise / self.dimension * (w / (1 + w * self._noise * m)).sum())

    @property
    def bulk_edge(self) -> float:
        """Upper edge of the bulk, from the drawn logits."""
        return self._place(self._edge) if np.any(self.weights > 0) else 0.0

    @functools.cached_property
    def bulk_law(self) -> WeightedGramLaw:
        """Law of the bulk, from the drawn logits: of a weighted Gram matrix of the noise alone.

        Raises
        ------
        ValueError
            When the softmax is frozen beyond rounding, so that all weights are zero.
        """
        values = self._softmax[0]
        # One eigenvalue of every diag p - p p^T is zero but for rounding: that of equal logits.
        groups = np.array_split(np.sort(values[:, 1:], axis=None), min(_GROUPS, values[:, 1:].size))
        places = np.array([0.0, *(group.mean() for group in groups)]) * self.num_classes
        shares = np.array([self.num_examples, *map(len, groups)]) / values.size
        noise = float(self.noise_scale or 0.0) ** 2
        return WeightedGramLaw(places, shares, ratio=self.dimension / values.size, variance=noise)

    def outliers(self, *, given_means: bool = False) -> np.ndarray:
        """Eigenvalues above the bulk that the deterministic equivalent predicts from the drawn logits.

        Parameters
        ----------
        given_means : bool
            Whether to take the drawn mean gradients too; without, their expected inner products.

        Returns
        -------
        numpy.ndarray
            Descending. With clusters of one length and no pairs C - 1, which differ by the draw of logits only, or none below the
            threshold.
        """
        values, vectors = self._softmax
        if not np.any(values > 0):
            return np.zeros(0)
        classes, w = self.num_classes, values / self.num_examples
        groups = [self.labels == y for y in range(classes)] if self.pair_scale > 0 else [np.ones(self.num_examples, bool)]
        root = self._root_of_gram(given_means, len(groups))

        def strengths(m: float) -> np.ndarray:
            each = w / (1 + w * self._noise * m)
            blocks = np.zeros((len(groups) * classes,) * 2)
            for index, chosen in enumerate(groups):
                rows = slice(index * classes, (index + 1) * classes)
                scaled = vectors[chosen] * np.sqrt(each[chosen])[:, None, :]
                flat = scaled.transpose(1, 0, 2).reshape(classes, -1)
                blocks[rows, rows] = flat @ flat.T
            return np.linalg.eigvalsh(root @ blocks @ root)[::-1]

        edge = self._edge
        beyond = int(np.sum(1 + edge * strengths(edge) < 0))
        nearest = -1e-12 * abs(edge)
        found = [
            self._place(optimize.brentq(lambda m, j=j: 1 + m * strengths(m)[j], edge, nearest, rtol=1e-12)) for j in range(beyond)
        ]
        return np.array(found)

    def _root_of_gram(self, given_means: bool, groups: int) -> np.ndarray:
        """Symmetric root of the inner products of the mean gradients."""
        classes = self.num_classes
        if given_means:
            means = self.means[:groups].reshape(groups * classes, self.dimension)
            gram = means @ means.T
        else:
            clusters = np.diag((float(self.cluster_scale or 0.0) * self.cluster_lengths) ** 2)
            gram = self.dimension * (np.tile(clusters, (groups, groups)) + self.pair_scale**2 * np.eye(groups * classes))
        squares, basis = np.linalg.eigh(gram)
        return np.asarray((basis * np.sqrt(np.maximum(squares, 0.0))) @ basis.T)
