"""The loop that all estimators share: products in blocks until a tolerance, a budget or the user ends it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from scipy import special

from .._progress import Progress, ProgressBar
from ..backends import Array
from ..krylov.lanczos import check_time_budget
from ..krylov.orthonormal import OrthonormalRows
from ..krylov.scaling import unit_of
from ..operators import LinearOperator

BLOCK = 8
"""Vectors multiplied at a time."""
_FEWEST = 10
"""Products before a tolerance is looked at."""


class EstimationInterrupted(RuntimeError):
    """A product failed in the middle of an estimate; what was found before is kept.

    Attributes
    ----------
    partial : Estimate or DiagonalEstimate or None
        The estimate from the products before, marked as not converged; None where there is none yet.
    step : int
        Products before the one that failed.
    """

    def __init__(self, message: str, partial: Any, step: int) -> None:
        super().__init__(message)
        self.partial = partial
        self.step = step


class NonFiniteEstimateError(EstimationInterrupted, FloatingPointError):
    """A product with the operator held NaN or infinity."""


class NonFiniteProduct(Exception):
    """Raised by `multiply`; the message names the product."""


class Sampler(Protocol):
    """An estimate that grows by blocks of products."""

    @property
    def spent(self) -> int:
        """Products so far that count."""

    @property
    def doubling(self) -> bool:
        """Whether a tolerance is looked at only when the products have doubled."""

    @property
    def useful(self) -> bool:
        """Whether what there is so far is an estimate."""

    def advance(self, limit: int) -> int:
        """Take a block of at most `limit` products, all or nothing; returns how many, zero when no more are of use."""

    def met(self, tol: float) -> bool:
        """Whether half the 95 % interval is within `tol` of the estimate."""


def sample(
    sampler: Sampler,
    allowed: int,
    *,
    tol: float | None,
    time_budget: float | None,
    progress: Progress,
    description: str,
    finish: Callable[[float, bool], Any],
) -> Any:
    """Let a sampler grow, and return ``finish(seconds, converged)``.

    Parameters
    ----------
    sampler : Sampler
        What to grow.
    allowed : int
        Products allowed.
    tol : float or None
        Stop when the sampler has met it.
    time_budget : float or None
        Seconds after which no block is begun.
    progress : bool, callable or None
        As for `ProgressBar`.
    description : str
        For the bar.
    finish : callable
        Makes the result.

    Returns
    -------
    object
        What `finish` makes; converged means that nothing cut the estimate short and `tol` was met.

    Raises
    ------
    NonFiniteEstimateError, EstimationInterrupted
        When a product fails; the estimate of those before is in ``.partial``.
    """
    check_time_budget(time_budget)
    began = time.perf_counter()
    complete, look, longest = True, _FEWEST, 0.0

    def partial() -> Any:
        return finish(time.perf_counter() - began, False) if sampler.useful else None

    with ProgressBar(progress, allowed, description, unit="product") as bar:
        while sampler.spent < allowed:
            block_began = time.perf_counter()
            if time_budget is not None and sampler.spent and block_began - began + longest > time_budget:
                complete = False
                break
            try:
                taken = sampler.advance(allowed - sampler.spent)
            except KeyboardInterrupt:
                if not sampler.useful:
                    raise
                complete = False
                break
            except NonFiniteProduct as error:
                kept = f"; what follows from the {sampler.spent} products before its block is in .partial" if sampler.useful else ""
                raise NonFiniteEstimateError(f"{error}{kept}.", partial(), sampler.spent) from error
            except Exception as error:
                if not sampler.useful:
                    raise
                raise EstimationInterrupted(
                    f"A product with the operator failed after {sampler.spent} others ({type(error).__name__}: {error}); "
                    "the estimate from those is kept in .partial.",
                    partial(),
                    sampler.spent,
                ) from error
            if taken == 0:
                break
            longest = max(longest, time.perf_counter() - block_began)
            bar.advance(taken)
            if tol is not None and sampler.spent >= look:
                if sampler.met(tol):
                    break
                look = 2 * sampler.spent if sampler.doubling else sampler.spent
    return finish(time.perf_counter() - began, complete and (tol is None or sampler.met(tol)))


def multiply(operator: LinearOperator, rows: Array, done: int) -> tuple[Array, np.ndarray]:
    """Products with rows, as rows of our own, and their Euclidean norms on the host.

    Parameters
    ----------
    operator : LinearOperator
        Of shape (m, n).
    rows : array
        Shape (k, n).
    done : int
        Products before these, to name one that is not finite.

    Returns
    -------
    tuple
        Array of shape (k, m), and norms of shape (k,).
    """
    backend, k = operator.backend, rows.shape[0]
    products = operator.matmat(rows.T)
    own = backend.empty((k, operator.shape[0]), operator.dtype)
    for i in range(k):
        own[i, :] = products[:, i]
    norms = np.real(backend.fetch([backend.norm(own[i, :]) for i in range(k)])).astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(norms))
    if len(bad):
        raise NonFiniteProduct(f"Product {done + int(bad[0]) + 1} with the operator holds NaN or infinity")
    return own, norms


class ScaledProducts:
    """Products in a unit of their own, a power of two that the first of them that is not zero decides; vectors are rows.

    Attributes
    ----------
    unit : float
        What the products are multiplied by, and results have to be divided by.
    largest : float
        Largest norm of a product so far, in that unit.
    """

    def __init__(self, operator: LinearOperator, like: ScaledProducts | None = None) -> None:
        self._operator = operator
        self._known: float | None = None if like is None else like._known
        self.largest: float = 0.0 if like is None else like.largest

    @property
    def unit(self) -> float:
        """What the products are multiplied by."""
        return 1.0 if self._known is None else self._known

    def __call__(self, rows: Array, done: int, *, adjoint: bool = False) -> Array:
        """Products, as rows of our own; `done` products before these."""
        operator = self._operator.H if adjoint else self._operator
        products, norms = multiply(operator, rows, done)
        if self._known is None:
            self._known = unit_of(operator, norms)
        if self.unit != 1.0:
            for i in range(products.shape[0]):
                operator.backend.scale_into(products[i, :], self.unit, products[i, :])
        self.largest = max(self.largest, float(norms.max()) * self.unit)
        return products


def unit_rows(operator: LinearOperator, indices: range) -> Array:
    """Unit vectors as rows."""
    return operator.backend.asarray(np.eye(len(indices), operator.shape[1], indices.start, dtype=operator.dtype))


def random_rows(operator: LinearOperator, indices: range, kind: Any, seed: int, domain: str) -> Array:
    """Random vectors whose entries have variance one, as rows."""
    n = operator.shape[1]
    rows = operator.backend.probes(n, indices, kind=kind, seed=seed, domain=domain, dtype=operator.dtype)
    if kind == "sphere":
        rows *= math.sqrt(n)
    return rows


def share_outside(operator: LinearOperator, products: Any) -> float:
    """Share of the squared Frobenius norm outside of the span of products with random signs, judged by leaving each one out.

    What the others do not span of a product with isotropic vector i is ``1 / |row i of R^-1|``; its square has the expectation
    of the squared Frobenius norm of what is outside.
    """
    rows = OrthonormalRows(operator.backend, operator.shape[0], operator.dtype)
    rows.append(products)
    R = rows.coefficients
    if R.shape[0] < R.shape[1]:
        return 0.0
    left = 1.0 / np.sum(np.abs(np.linalg.inv(R)) ** 2, axis=1)
    return float(left.sum() / np.sum(np.abs(R) ** 2))


def mean_with_error(samples: np.ndarray) -> tuple[float, float, float]:
    """Mean of independent samples, its standard error, and degrees of freedom for Student's t.

    A quadratic form of random signs is close to a sum of chi-squares with different weights: skewed, and with heavier tails
    than the normal law, so that its variance is known worse than m - 1 degrees of freedom say. The variance of a sample variance
    is ``sigma^4 (kappa / m + 2 / (m - 1))`` with the excess kurtosis kappa, and the degrees of freedom are two over its relative
    size (Satterthwaite, 1946). Here kappa is the larger of its estimate and 3/2 of the squared skewness, which is what it is for one
    chi-square: a small sample shows its skewness before its tails.

    Returns
    -------
    tuple of float
        Mean, standard error (infinite for one sample), degrees of freedom.
    """
    m = len(samples)
    largest = float(np.max(np.abs(samples), initial=0.0))
    if 0 < largest < math.inf and not 1e-60 < largest < 1e60:  # up to fourth powers are taken
        unit = math.ldexp(1.0, min(max(math.frexp(largest)[1], -1000), 1000))
        mean, error, dof = mean_with_error(samples / unit)
        return mean * unit, error * unit, dof
    mean = float(np.mean(samples))
    if m < 2:
        return mean, math.inf, 1.0
    error, kappa = float(np.std(samples, ddof=1)) / math.sqrt(m), 0.0
    if m > 3 and error > 1e-12 * abs(mean):
        skewness, kurtosis = _shape(samples - mean)
        kappa = max(kurtosis, 1.5 * skewness**2, 0.0)
    return mean, error, max(1.0, 2 / (kappa / m + 2 / (m - 1)))


def _shape(deviations: np.ndarray) -> tuple[float, float]:
    """Skewness and excess kurtosis of four or more samples, freed of bias (Joanes and Gill, 1998, G1 and G2), from deviations of the mean.

    For a few dozen numbers it takes a twentieth of the time of SciPy's functions of these names.
    """
    m, squares = len(deviations), deviations**2
    second = float(np.mean(squares))
    skewness = float(np.mean(squares * deviations)) / second**1.5 * math.sqrt(m * (m - 1)) / (m - 2)
    fourth = float(np.mean(squares**2)) / second**2
    return skewness, ((m * m - 1) * fourth - 3 * (m - 1) ** 2) / ((m - 2) * (m - 3))


def half_width(error: float, dof: float) -> float:
    """Half of a 95 % interval."""
    return float(special.stdtrit(dof, 0.975)) * error if error > 0 else 0.0
