r"""The curvature of a mini-batch: that of all data plus noise, and what the noise does to the extreme eigenvalues.

In the model of Granziol, Zohren and Roberts (2022, J. Mach. Learn. Res. 23) the Hessian of a batch of B of N examples is
:math:`H_B = H + \epsilon`, where :math:`\epsilon` is a Wigner matrix whose entries have variance :math:`\sigma^2 / b` with the effective
batch size :math:`b = B / (1 - B / N)`. All that counts is :math:`V_B = P \sigma^2 / b`, the mean squared length of :math:`\epsilon z` for a
unit vector z, which `linop_spectra.estimators.field_variance` measures from products. An eigenvalue at the distance d from the bulk of H
moves away from it by :math:`V_B / d` where :math:`|d| > \sqrt{V_B}`, and otherwise drowns in a bulk of half-width :math:`2 \sqrt{V_B}`.

Where the noise is not the same in all directions, second-order perturbation theory gives the shift :math:`V_u / d` instead, with the
variance :math:`V_u = E |\epsilon u|^2` along the eigenvector: it is the sum over all other eigenvectors of
:math:`E (u_j^T \epsilon u)^2 / (\lambda - \lambda_j)`, with their eigenvalues at the bulk. For linear regression it is the shift of Baik,
Ben Arous and Peche, which the isotropic form misses.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from ...operators import LinearOperator, aslinearoperator
from ..ensembles.wigner import wigner
from ..laws.law import check_positive, check_whole, like
from .streams import derived_seed


def effective_batch_size(batch_size: Any, num_examples: int | None = None) -> Any:
    """The batch size with which examples drawn anew would vary as much as ones drawn without replacement, ``B / (1 - B / N)``.

    Parameters
    ----------
    batch_size : array
        B, at least 1 and at most N.
    num_examples : int, optional
        N. Without it examples are drawn from an endless stream, and the effective size is the size.

    Returns
    -------
    float or array
        The shape of `batch_size`; infinite for a batch of all examples.

    Examples
    --------
    >>> effective_batch_size(2048, 50_000).__round__(1)
    2135.5
    """
    sizes = np.asarray(batch_size, dtype=np.float64)
    if not np.all(sizes >= 1):
        raise ValueError(f"The argument batch_size must be at least 1, but is {batch_size!r}.")
    if num_examples is None:
        return like(sizes)
    total = check_whole("num_examples", num_examples, 1)
    if np.any(sizes > total):
        raise ValueError(f"The argument batch_size is {batch_size!r}, but there are only {total} examples.")
    with np.errstate(divide="ignore"):
        return like(sizes / (1 - sizes / total))


def shifted_eigenvalue(eigenvalue: Any, variance: Any, *, bulk: float = 0.0) -> Any:
    """An eigenvalue of the mean operator as a noisy one has it, ``lambda + V / (lambda - bulk)``.

    Parameters
    ----------
    eigenvalue : array
        Of the mean operator.
    variance : array
        V: the isotropic variance, or for noise that depends on the direction the one along the eigenvector.
    bulk : float
        Where most eigenvalues are.

    Returns
    -------
    float or array
        The edge ``bulk +- 2 sqrt(V)`` where the eigenvalue is no farther than ``sqrt(V)`` from the bulk; there the
        formula has its turning point.

    Examples
    --------
    >>> shifted_eigenvalue(3.0, 3 * 0.25, bulk=1.0)  # as a spike of 3 in linear regression with a ratio of 0.25
    3.375
    """
    distance = np.asarray(eigenvalue, dtype=np.float64) - bulk
    variances = np.asarray(variance, dtype=np.float64)
    if not np.all(variances >= 0):
        raise ValueError(f"The argument variance must not be negative, but is {variance!r}.")
    edge = np.where(distance < 0, -2.0, 2.0) * np.sqrt(variances)
    with np.errstate(divide="ignore", invalid="ignore"):
        outside = distance + variances / distance
    return like(bulk + np.where(distance**2 > variances, outside, edge))


@dataclasses.dataclass(frozen=True, eq=False)
class MinibatchPrediction:
    """Extreme eigenvalues of the Hessian of a batch.

    Attributes
    ----------
    batch_size, effective_batch_size : float
        B, and b = B / (1 - B / N).
    variance : float
        V_B, the isotropic variance at this batch size.
    eigenvalues : numpy.ndarray
        What each eigenvalue of the mean becomes, shape (k,): an outlier, or an edge of the bulk.
    overlaps : numpy.ndarray
        Squared inner products of the eigenvectors with those of the mean, shape (k,); zero where it is not separated.
    separated : numpy.ndarray
        Which of them are outliers, shape (k,).
    standard_deviations : numpy.ndarray or None
        Of the outliers from batch to batch, shape (k,), under Gaussian noise; None where the order was not given, NaN at an edge.
    bulk : float
        Where the bulk of the mean is.
    """

    batch_size: float
    effective_batch_size: float
    variance: float
    eigenvalues: np.ndarray
    overlaps: np.ndarray
    separated: np.ndarray
    standard_deviations: np.ndarray | None
    bulk: float

    @property
    def threshold(self) -> float:
        """Distance from the bulk beyond which an eigenvalue of the mean is seen in a batch, the root of the variance."""
        return math.sqrt(self.variance)

    @property
    def half_width(self) -> float:
        """Half-width of the bulk that the noise makes of equal eigenvalues, twice the root of the variance."""
        return 2 * math.sqrt(self.variance)

    @property
    def largest(self) -> float:
        """Largest eigenvalue."""
        return float(max(self.eigenvalues.max(initial=-math.inf), self.bulk + self.half_width))

    @property
    def smallest(self) -> float:
        """Smallest eigenvalue."""
        return float(min(self.eigenvalues.min(initial=math.inf), self.bulk - self.half_width))

    def learning_rate_cap(self, momentum: float = 0.0) -> float:
        """Largest learning rate at which gradient descent with this batch's curvature is stable, ``2 (1 + momentum) / largest``.

        Raises
        ------
        ValueError
            When the momentum is not at least 0 and below 1, or no eigenvalue is positive.
        """
        if not 0 <= momentum < 1:
            raise ValueError(f"The argument momentum must be at least 0 and below 1, but is {momentum!r}.")
        if self.largest <= 0:
            raise ValueError(f"The largest eigenvalue is {self.largest:.6g}; without a positive one no learning rate is too large.")
        return 2 * (1 + momentum) / self.largest


@dataclasses.dataclass(frozen=True, eq=False)
class MinibatchModel:
    """Extreme eigenvalues against batch size, from those of all data and the variance of one example's Hessian.

    Parameters
    ----------
    eigenvalues : array
        Outliers of the mean operator, shape (k,).
    variance : float
        V of batches of effective size one: a measured variance times the effective size of the batches it was measured on.
    num_examples : int, optional
        N, for batches drawn without replacement.
    bulk : float
        Where most eigenvalues of the mean operator are.
    directional_variances : array, optional
        V_u along the eigenvector of each eigenvalue, shape (k,), at effective size one. Then each outlier is shifted by its own.
    order : int, optional
        P, for standard deviations.

    Examples
    --------
    >>> from linop_spectra.random_matrices.models import MinibatchModel
    >>> model = MinibatchModel([30.0, 12.0, 6.0, 3.0, -8.0], variance=1000.0, num_examples=50_000, order=1000)
    >>> batch = model.at(32)
    >>> round(batch.largest, 2), round(batch.smallest, 2), round(batch.half_width, 2)
    (31.04, -11.9, 11.18)
    """

    eigenvalues: Any
    variance: float
    num_examples: int | None = None
    bulk: float = 0.0
    directional_variances: Any = None
    order: int | None = None

    def __post_init__(self) -> None:
        values = np.atleast_1d(np.asarray(self.eigenvalues, dtype=np.float64))
        if values.ndim != 1 or not np.all(np.isfinite(values)):
            raise ValueError(f"The argument eigenvalues must be finite numbers of shape (k,), but has shape {values.shape}.")
        object.__setattr__(self, "eigenvalues", values)
        object.__setattr__(self, "variance", check_positive("variance", self.variance, "that of batches of effective size one"))
        if self.num_examples is not None:
            check_whole("num_examples", self.num_examples, 1)
        if self.order is not None:
            check_whole("order", self.order, 1)
        if self.directional_variances is not None:
            own = np.asarray(self.directional_variances, dtype=np.float64)
            if own.shape != values.shape or not np.all((own >= 0) & np.isfinite(own)):
                raise ValueError(
                    f"The argument directional_variances must be {values.size} finite numbers that are not negative, one for each "
                    f"eigenvalue, but has shape {own.shape}."
                )
            object.__setattr__(self, "directional_variances", own)

    def at(self, batch_size: float) -> MinibatchPrediction:
        """The prediction at one batch size.

        Parameters
        ----------
        batch_size : float
            B.

        Returns
        -------
        MinibatchPrediction
            Eigenvalues, overlaps and edges.
        """
        effective = effective_batch_size(float(batch_size), self.num_examples)
        variance = self.variance / effective
        own = np.full(self.eigenvalues.shape, variance) if self.directional_variances is None else self.directional_variances / effective
        squared = (self.eigenvalues - self.bulk) ** 2
        separated = squared > own
        overlaps = np.where(separated, 1 - own / np.where(separated, squared, 1.0), 0.0)
        deviations = None
        if self.order is not None:
            deviations = np.where(separated, np.sqrt(2 * own * overlaps / self.order), np.nan)
        eigenvalues = np.asarray(shifted_eigenvalue(self.eigenvalues, own, bulk=self.bulk))
        return MinibatchPrediction(float(batch_size), effective, variance, eigenvalues, overlaps, separated, deviations, self.bulk)


@dataclasses.dataclass(frozen=True)
class BatchSizeFit:
    """An eigenvalue of all data and its noise, from what batches of several sizes have.

    Attributes
    ----------
    eigenvalue : float
        theta, the limit of large batches.
    variance : float
        kappa_2, the variance at effective size one: the shift is ``variance / (theta b)``.
    eigenvalue_error, variance_error : float
        Standard errors of the regression; infinite from two batch sizes.
    """

    eigenvalue: float
    variance: float
    eigenvalue_error: float
    variance_error: float


def fit_batch_sizes(batch_sizes: Any, outliers: Any, *, num_examples: int | None = None, bulk: float = 0.0) -> BatchSizeFit:
    """An eigenvalue and its variance from one outlier at several batch sizes, by regression on the inverse effective size.

    The model is ``outlier = theta + kappa_2 / ((theta - bulk) b)``, the first two terms of ``theta + R(1 / theta)`` with the R-transform
    of the noise.

    Parameters
    ----------
    batch_sizes : array
        Shape (m,), at least two different ones.
    outliers : array
        The eigenvalue of a batch of each size, shape (m,).
    num_examples : int, optional
        N, for batches drawn without replacement.
    bulk : float
        Where most eigenvalues are.

    Returns
    -------
    BatchSizeFit
        With standard errors.

    References
    ----------
    N. P. Baskerville, J. P. Keating, F. Mezzadri, J. Najnudel and D. Granziol, *Universal characteristics of deep neural network loss
    surfaces from random matrix theory*, J. Phys. A 55 (2022), for the model.

    Examples
    --------
    >>> sizes = [16, 32, 64, 128]
    >>> fit = fit_batch_sizes(sizes, [10 + 200 / (10 * b) for b in sizes])
    >>> round(fit.eigenvalue, 9), round(fit.variance, 6)
    (10.0, 200.0)
    """
    sizes, values = np.asarray(batch_sizes, dtype=np.float64), np.asarray(outliers, dtype=np.float64)
    if sizes.ndim != 1 or sizes.shape != values.shape or np.unique(sizes).size < 2 or not np.all(np.isfinite(values)):
        raise ValueError(
            f"The arguments batch_sizes and outliers must be two lists of one length with at least two different sizes and finite "
            f"eigenvalues, but have shapes {sizes.shape} and {values.shape}."
        )
    inverse = 1 / np.asarray(effective_batch_size(sizes, num_examples))
    design = np.stack([np.ones_like(inverse), inverse], axis=1)
    (theta, slope), *_ = np.linalg.lstsq(design, values, rcond=None)
    residual, free = values - design @ (theta, slope), sizes.size - 2
    covariance = np.linalg.inv(design.T @ design) * (float(residual @ residual) / free if free > 0 else math.inf)
    distance = theta - bulk
    # The variance is the product of slope and distance, whose errors are correlated.
    gradient = np.array([slope, distance])
    errors = np.sqrt(np.diag(covariance)) if free > 0 else np.full(2, math.inf)
    of_variance = math.sqrt(max(0.0, float(gradient @ covariance @ gradient))) if free > 0 else math.inf
    return BatchSizeFit(float(theta), float(slope * distance), float(errors[0]), of_variance)


def minibatch_operators(
    mean: Any, *, variance: float, batch_size: int, num_batches: int, num_examples: int | None = None, seed: int = 0, **options: Any
) -> list[LinearOperator]:
    """Draws of the additive model: a fixed operator plus a Wigner matrix of its own for each batch.

    Parameters
    ----------
    mean : LinearOperator or what `aslinearoperator` takes
        The Hessian of all data, Hermitian, of order P.
    variance : float
        V at effective size one: P times the variance of the entries of one example's noise.
    batch_size : int
        B, below N.
    num_batches : int
        How many.
    num_examples : int, optional
        N, for the effective batch size.
    seed : int
        Of the noise; every batch has a stream of its own.
    **options
        Of `wigner`, such as ``dtype`` and ``memory_budget``.

    Returns
    -------
    list of LinearOperator
        Independent of each other given the mean.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> mean = ls.diagonal_operator(np.r_[5.0, np.zeros(299)])
    >>> batch, = minibatch_operators(mean, variance=32.0, batch_size=32, num_batches=1)
    >>> bool(abs(ls.eigsh(batch, k=1, which="LA").eigenvalues[0] - 5.2) < 0.3)
    True
    """
    operator = aslinearoperator(mean)
    count = check_whole("num_batches", num_batches, 1)
    size = check_whole("batch_size", batch_size, 1)
    effective = effective_batch_size(size, num_examples)
    if math.isinf(effective):
        raise ValueError(f"The argument batch_size is {size}, which is all examples: such a batch has no noise.")
    each = check_positive("variance", variance, "that of batches of effective size one") / effective
    options = {"dtype": operator.dtype, "backend": operator.backend, **options}
    seeds = [derived_seed(seed, "minibatch", index) for index in range(count)]
    return [operator + wigner(operator.shape[0], variance=each, seed=own, **options) for own in seeds]
