r"""Linear regression with Gaussian features, whose Hessian is a Wishart matrix: the same problem for every framework.

With the mean over all elements of the squared errors, and no factor 1/2, as everywhere in this library, the Hessian is
:math:`\frac2n X^T X` for every parameter. Its spectrum follows the Marchenko-Pastur law of ratio :math:`p / n` and variance 2.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from ...operators import LinearOperator, aslinearoperator
from ..laws.law import check_positive, check_whole
from ..laws.marchenko_pastur import MarchenkoPastur
from ..outliers import Outlier, spiked_wishart_outlier
from .streams import check_seed, normal_array


@dataclasses.dataclass(frozen=True, eq=False)
class LinearRegression:
    """A linear model ``x -> w . x`` without bias, Gaussian features and noisy targets.

    Parameters
    ----------
    num_features : int
        p, also the number of parameters.
    num_examples : int
        n.
    spikes : sequence of float
        Population variances of the first features; all others have variance one.
    noise : float
        Standard deviation of the targets around the true model.
    seed : int
        Everything is a function of it.
    dtype : dtype
        float64 or float32; the numbers are made in double precision and rounded.

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.random_matrices.models import LinearRegression
    >>> problem = LinearRegression(50, 200, seed=1)
    >>> eigenvalues = np.linalg.eigvalsh(problem.hessian().to_dense())
    >>> problem.law.support  # twice that of the law of ratio 1/4
    [(0.5, 4.5)]
    >>> bool(eigenvalues.min() > 0.4) and bool(eigenvalues.max() < 4.7)
    True
    """

    num_features: int
    num_examples: int
    spikes: tuple[float, ...] = ()
    noise: float = 1.0
    seed: int = 0
    dtype: Any = np.float64

    def __post_init__(self) -> None:
        check_whole("num_features", self.num_features, 1)
        check_whole("num_examples", self.num_examples, 1)
        spikes = tuple(check_positive("spikes", float(spike), "variances of the first features") for spike in self.spikes)
        if len(spikes) > self.num_features:
            raise ValueError(f"The argument spikes has {len(spikes)} variances, but there are only {self.num_features} features.")
        object.__setattr__(self, "spikes", spikes)
        if not (isinstance(self.noise, (int, float)) and 0 <= self.noise < math.inf):
            raise ValueError(f"The argument noise must be a finite number that is not negative, but is {self.noise!r}.")
        check_seed(self.seed)
        resolved = np.dtype(self.dtype)
        if resolved.kind != "f":
            raise TypeError(f"The argument dtype is {resolved}, but features are real floating-point numbers.")
        object.__setattr__(self, "dtype", resolved)

    @property
    def ratio(self) -> float:
        """``p / n``."""
        return self.num_features / self.num_examples

    @property
    def population(self) -> np.ndarray:
        """Variances of the features, shape (p,)."""
        variances = np.ones(self.num_features)
        variances[: len(self.spikes)] = self.spikes
        return variances

    @functools.cached_property
    def inputs(self) -> np.ndarray:
        """Features, shape (n, p)."""
        shape = (self.num_examples, self.num_features)
        x = normal_array(shape, scale=1.0, seed=self.seed, domain="model/linear regression/inputs", dtype=self.dtype)
        x *= np.sqrt(self.population).astype(self.dtype)
        return x

    @functools.cached_property
    def weights(self) -> np.ndarray:
        """Parameters of the true model, shape (p,), of length about one."""
        scale = 1 / math.sqrt(self.num_features)
        return normal_array((self.num_features,), scale=scale, seed=self.seed, domain="model/linear regression/weights", dtype=self.dtype)

    @functools.cached_property
    def targets(self) -> np.ndarray:
        """Targets, shape (n, 1): the true model plus noise."""
        domain = "model/linear regression/noise"
        noise = normal_array((self.num_examples,), scale=float(self.noise), seed=self.seed, domain=domain, dtype=self.dtype)
        return np.asarray((self.inputs @ self.weights + noise)[:, None])

    def hessian(self) -> LinearOperator:
        """``(2 / n) X^T X``, the Hessian of the mean squared error, shape (p, p)."""
        return self._hessian_of(self.inputs)

    def batch_hessians(self, batch_size: int) -> list[LinearOperator]:
        """Hessians of disjoint batches of one size, in the order of the examples; a remainder is left out.

        Parameters
        ----------
        batch_size : int
            At most n.

        Returns
        -------
        list of LinearOperator
            Each of shape (p, p).
        """
        size = check_whole("batch_size", batch_size, 1)
        if size > self.num_examples:
            raise ValueError(f"The argument batch_size is {size}, but there are only {self.num_examples} examples.")
        return [self._hessian_of(self.inputs[first : first + size]) for first in range(0, self.num_examples - size + 1, size)]

    def _hessian_of(self, inputs: np.ndarray) -> LinearOperator:
        x = aslinearoperator(inputs, hermitian=False if inputs.shape[0] == inputs.shape[1] else None)
        return (2 / inputs.shape[0]) * (x.H @ x)

    @property
    def law(self) -> MarchenkoPastur:
        """Limit of the Hessian's spectrum, spikes apart: variance 2, because there is no factor 1/2 in the loss."""
        return MarchenkoPastur(ratio=self.ratio, variance=2.0)

    def outliers(self, batch_size: int | None = None) -> list[Outlier]:
        """What each spike gives in the Hessian of all examples, or of a batch.

        Parameters
        ----------
        batch_size : int, optional
            Examples; all of them by default.

        Returns
        -------
        list of Outlier
            In the order of the spikes, with fluctuations.
        """
        size = self.num_examples if batch_size is None else check_whole("batch_size", batch_size, 1)
        ratio = self.num_features / size
        return [spiked_wishart_outlier(2 * spike, ratio=ratio, variance=2.0, n=size) for spike in self.spikes]

    def field_variance(self, spike: float | None = None) -> float:
        r"""Exact variance of one example's Hessian :math:`2 x x^T`, around the population's.

        Parameters
        ----------
        spike : float, optional
            Along an eigenvector of the population with this variance: :math:`4 (l\, tr \Sigma + l^2)`. Without it the average over all
            directions.

        Returns
        -------
        float
            Of a batch of B: this over B.
        """
        variances = self.population
        if spike is not None:
            spike = check_positive("spike", spike, "a population variance")
            return float(4 * (spike * variances.sum() + spike**2))
        return float(4 * (variances.sum() ** 2 + (variances**2).sum()) / self.num_features)
