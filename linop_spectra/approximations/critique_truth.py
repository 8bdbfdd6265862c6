"""What a critique measures of the matrix itself, once for all approximations."""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from typing import Any, Literal

import numpy as np

from ..backends import Array
from ..estimators import trace
from ..estimators.sampling import mean_with_error, multiply, random_rows, unit_rows
from ..krylov import LanczosResult, eigsh, solve
from ..krylov.dense import DENSE, is_stored_matrix
from ..krylov.tridiagonal import ritz
from ..operators import LinearOperator, aslinearoperator
from ..operators.matrix import MatrixOperator
from ..results import Estimate
from ..spectra import SpectralDensity, spectral_density
from .haar_null import HaarDiagonal

TRACE_SHARE = 1e-2
"""Share of the nuclear norm that errors of a trace are at least measured by: the trace itself may cancel."""
_TRACE_PRODUCTS = 100
_SOLVE_TOLERANCE = 1e-6
_GOOD_ENOUGH = 1e-2
"""Bound on the error of a Newton step, or on the sine of the angle of a subspace, up to which an earlier run is taken for it."""
_SAME_START = 1e-3
_GRID = 257


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
    """The matrix, its spectrum and its leading eigenvectors.

    Attributes
    ----------
    operator : LinearOperator
        The matrix; an explicit one where it was formed.
    density : SpectralDensity
        Of it.
    exact : numpy.ndarray or None
        All eigenvalues in ascending order, where the matrix is explicit and small.
    vectors : Array or None
        Their eigenvectors as columns, with `exact`.
    top_values, top_residuals : numpy.ndarray
        Eigenvalues of largest modulus, in falling modulus, one more than were asked for where there is one; and their residuals.
    top_vectors : Array
        Their vectors, shape (n, k).
    num_pairs : int
        Pairs that were asked for.
    resolution : float
        Relative half-width of an interval that is narrow enough.
    seed : int
        Of further estimates.
    notes : tuple of str
        What a reader should know.
    along_gradient : LanczosResult or None
        A run with the matrix that was started at the right side of the Newton steps.
    """

    operator: LinearOperator
    density: SpectralDensity
    exact: np.ndarray | None
    vectors: np.ndarray | None
    top_values: np.ndarray
    top_residuals: np.ndarray
    top_vectors: Array
    num_pairs: int
    resolution: float
    seed: int
    notes: tuple[str, ...] = ()
    along_gradient: LanczosResult | None = None

    @property
    def order(self) -> int:
        """Rows of the matrix."""
        return self.operator.shape[0]

    @property
    def floor(self) -> float:
        """Modulus below which eigenvalues are not told from zero."""
        return self.density.noise_floor

    @functools.cached_property
    def spectrum(self) -> tuple[np.ndarray, np.ndarray]:
        """Nodes, zero up to the noise floor, and weights."""
        if self.exact is not None:
            return snapped(self.exact, self.floor), np.full(self.order, 1 / self.order)
        return snapped(self.density.nodes, self.floor), self.density.weights

    @functools.cached_property
    def deviation(self) -> float:
        """Standard deviation of the eigenvalues."""
        nodes, weights = self.spectrum
        mean = float(weights @ nodes)
        return math.sqrt(float(weights @ (nodes - mean) ** 2))

    def _sum(self, f: Any) -> Estimate:
        if self.exact is None:
            return self.density.trace(f)
        return Estimate(math.fsum(f(self.exact)), rounding_error=self.order * self.floor * 1e-3, method="dense")

    @functools.cached_property
    def trace(self) -> Estimate:
        """Sum of the eigenvalues; by an estimator of its own where the spectral density leaves too much open."""
        return self.refined_trace(self._sum(lambda x: x), self.operator)

    def refined_trace(self, found: Estimate, operator: LinearOperator) -> Estimate:
        """A trace, or where its interval is too wide that by another estimator."""
        low, high = found.confidence_interval(0.95)
        if high - low <= 2 * self.resolution * max(abs(found.value), TRACE_SHARE * self.nuclear_norm):
            return found
        return trace(operator, num_matvecs=_TRACE_PRODUCTS, tol=0.75 * self.resolution, seed=self.seed)

    @functools.cached_property
    def nuclear_norm(self) -> float:
        """Sum of their moduli."""
        return self._sum(np.abs).value

    @functools.cached_property
    def frobenius_norm(self) -> Estimate:
        """Root of the sum of their squares."""
        unit = self.density.norm_estimate or 1.0
        squares = self._sum(lambda x: (x / unit) ** 2)
        root = math.sqrt(max(squares.value, 0.0))
        slope = unit / (2 * root) if root else 0.0
        return dataclasses.replace(
            squares, value=unit * root, standard_error=slope * squares.standard_error, quadrature_error=slope * squares.quadrature_error,
            rounding_error=slope * squares.rounding_error,
        )  # fmt: skip

    @property
    def spectral_norm(self) -> Estimate:
        """Largest modulus."""
        value = float(abs(self.top_values[0]))
        return Estimate(value, quadrature_error=float(self.top_residuals[0]), rounding_error=self.floor, method="eigsh")

    @functools.cached_property
    def smallest(self) -> Estimate:
        """Smallest eigenvalue."""
        if self.exact is not None:
            return Estimate(float(self.exact[0]), rounding_error=self.floor, method="dense")
        (value, residual), _ = self.density.extreme_eigenvalues()
        for known, error in zip(self.top_values, self.top_residuals, strict=True):
            if known < value:
                value, residual = float(known), float(error)
        return Estimate(value, quadrature_error=residual, rounding_error=self.floor, method="extreme Ritz value")

    @functools.cached_property
    def negative_mass(self) -> Estimate:
        """Share of eigenvalues below minus the noise floor."""
        if self.exact is not None:
            return Estimate(float(np.mean(self.exact < -self.floor)), method="dense")
        value = float(self.density.weights[self.density.nodes < -self.floor].sum())
        low, high = (float(end) for end in self.density.cdf_band(-2 * self.floor, 0.95))
        if self.operator.positive_semidefinite:
            value = low = high = 0.0
        return Estimate(value, quadrature_error=max(value - low, high - value, 0.0), method="band of the distribution")

    def effective_dimension(self, damping: float) -> Estimate:
        """Sum of ``x / (x + damping)`` over the positive eigenvalues."""
        return self._sum(lambda x: effective_share(x, damping))

    @functools.cached_property
    def edges(self) -> tuple[float, float]:
        """Where outliers begin: half-way between the bulk and the next of them; without any, a tenth of the bulk's width beyond it."""
        low, high = self.density.bulk_edges()
        margin = 0.1 * (high - low) + self.floor
        values = [outlier.value for outlier in self.density.outliers()]
        below, above = [x for x in values if x < low], [x for x in values if x > high]
        return (low + max(below)) / 2 if below else low - margin, (high + min(above)) / 2 if above else high + margin

    @property
    def num_outliers(self) -> int:
        """Isolated eigenvalues outside of the bulk."""
        return len(self.density.outliers())

    @functools.cached_property
    def spectrum_errors(self) -> tuple[float, float]:
        """What is not known of the spectrum, as a Wasserstein and as a Kolmogorov distance."""
        if self.exact is not None:
            return self.floor, 0.0
        return self.density.wasserstein_bound, self.density.kolmogorov_bound

    @functools.cached_property
    def null(self) -> HaarDiagonal:
        """Law of the diagonal in a random basis."""
        return HaarDiagonal(*self.spectrum, order=self.order)

    @functools.cached_property
    def null_measure(self) -> tuple[np.ndarray, np.ndarray]:
        """That law as a discrete measure."""
        law, (nodes, _) = self.null, self.spectrum
        reach = 10 * math.sqrt(law.variance)
        grid = np.linspace(max(nodes.min(), law.mean - reach), min(nodes.max(), law.mean + reach), _GRID)
        if not grid[-1] > grid[0]:
            return np.array([law.mean]), np.ones(1)
        mass = np.diff(np.concatenate([[0.0], np.maximum.accumulate(law.cdf(grid[1:-1])), [1.0]]))
        return (grid[1:] + grid[:-1]) / 2, mass

    def newton_step(self, gradient: Array, damping: float) -> tuple[Array, float]:
        """Inverse of the matrix plus damping, times the gradient; and a bound on its relative error, where there is one.

        The bound is the residual over the smallest eigenvalue of the sum, and infinite where that is not positive.
        """
        backend = self.operator.backend
        if self.exact is not None and self.vectors is not None:
            g = backend.to_numpy(gradient)
            coefficients = self.vectors.conj().T @ g
            sums = self.exact + damping
            if np.abs(sums).min() > 1e-14 * np.abs(sums).max():
                return backend.asarray(self.vectors @ (coefficients / sums), dtype=self.operator.dtype), 0.0
        known = self._step_of_the_run(gradient, damping)
        if known is not None and known[1] <= _GOOD_ENOUGH:
            return known
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            most = min(10 * self.order, 20 * self.density.num_steps)
            found = solve(self.operator, gradient, shift=damping, tol=_SOLVE_TOLERANCE, max_iterations=most)
        return found.x, self._step_error(found.x, float(found.residual_norms[0]), damping)

    def _step_error(self, step: Array, residual: float, damping: float) -> float:
        smallest = self.smallest.value - self.smallest.quadrature_error
        smallest = (max(smallest, 0.0) if self.operator.positive_semidefinite else smallest) + damping
        size = float(np.linalg.norm(self.operator.backend.to_numpy(step)))
        return residual / (smallest * size) if smallest > 0 and size > 0 else math.inf

    def _step_of_the_run(self, gradient: Array, damping: float) -> tuple[Array, float] | None:
        """The step in the Krylov space of the gradient, which holds those for all dampings; None without such a run."""
        run, backend = self.along_gradient, self.operator.backend
        if run is None or run.vectors is None or not run.vectors.bases:
            return None
        basis = run.vectors.bases[0]
        first = backend.contiguous(basis.row(0), self.operator.dtype)
        inner, length = (float(np.real(x)) for x in backend.fetch([backend.dot(first, gradient), backend.norm(gradient)]))
        if not abs(inner - length) <= _SAME_START * length:  # the run of another gradient
            return None
        values, vectors = ritz(*run.jacobi(0))
        sums = values + damping
        if not np.abs(sums).min() > 1e-14 * np.abs(sums).max():
            return None
        coefficients = length * (vectors @ (vectors[0] / sums))
        step = backend.asarray(basis.combine(coefficients[None, :])[0], dtype=self.operator.dtype)
        taken = int(run.num_steps_taken[0])
        residual = float(run.betas[0, taken - 1]) * abs(float(coefficients[-1]))
        rounding = self.operator.unit_rounding * math.sqrt(taken) * float(np.abs(sums).max()) * float(np.linalg.norm(coefficients))
        return step, self._step_error(step, residual + rounding, damping)


def effective_share(x: np.ndarray, damping: float) -> np.ndarray:
    """``x / (x + damping)`` of what is positive."""
    positive = np.maximum(x, 0.0)
    return np.asarray(positive / (positive + damping)) if damping > 0 else (positive > 0).astype(float)


def snapped(values: np.ndarray, floor: float) -> np.ndarray:
    """Values, with zeros where they are no more than the noise floor."""
    return np.where(np.abs(values) <= floor, 0.0, values)


def measure(
    operator: LinearOperator, *, num_steps: int, num_probes: int | Literal["auto"], num_pairs: int, resolution: float, seed: int,
    density: SpectralDensity | None, along_gradient: LanczosResult | None = None,
) -> Truth:  # fmt: skip
    """Measure a matrix; small ones are formed, where that is no dearer than their spectral density.

    Leading eigenpairs and Newton steps come from earlier runs where those have converged.
    """
    n = operator.shape[0]
    probes = 4 if num_probes == "auto" else int(num_probes)
    stored = is_stored_matrix(operator)
    exact = vectors = None
    if density is None and ((stored and n <= DENSE) or n <= num_steps * probes):
        dense = operator.matrix if stored else operator.backend.to_numpy(operator.to_dense())  # type: ignore[attr-defined]
        dense = np.asarray(dense.toarray() if hasattr(dense, "toarray") else dense)
        dense = (dense + dense.conj().T) / 2
        exact, vectors = np.linalg.eigh(dense.astype(np.complex128 if dense.dtype.kind == "c" else np.float64))
        backend = operator.backend
        kept = MatrixOperator(backend.asarray(np.ascontiguousarray(dense), dtype=operator.dtype), operator.dtype, True, backend)
        positive = operator.positive_semidefinite
        operator = aslinearoperator(kept, positive_semidefinite=True) if positive else kept
    S = density or spectral_density(operator, num_steps=min(num_steps, n), num_probes=num_probes, seed=seed)
    wanted = min(num_pairs + 1, n)
    notes: tuple[str, ...] = ()
    if exact is not None and vectors is not None:
        order = np.argsort(-np.abs(exact), kind="stable")[:wanted]
        top = operator.backend.asarray(np.ascontiguousarray(vectors[:, order]), dtype=operator.dtype)
        return Truth(operator, S, exact, vectors, exact[order], np.zeros(wanted), top, num_pairs, resolution, seed)
    known = None if density is None else _leading_ritz_pairs(density, operator, num_pairs)
    if known is not None:
        return Truth(operator, S, None, None, *known, num_pairs, resolution, seed, along_gradient=along_gradient)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pairs = eigsh(operator, k=wanted, which="LM", tol=1e-5, seed=seed, max_matvecs=max(4 * num_steps, 20 * wanted))
    if not pairs.converged.all():
        notes = (f"{int((~pairs.converged).sum())} of {wanted} leading eigenpairs did not converge",)
    order = np.argsort(-np.abs(pairs.eigenvalues), kind="stable")
    top = operator.backend.gather(pairs.eigenvectors, order)
    return Truth(
        operator, S, None, None, pairs.eigenvalues[order], pairs.residual_norms[order], top, num_pairs, resolution, seed, notes,
        along_gradient,
    )  # fmt: skip


def _leading_ritz_pairs(density: SpectralDensity, operator: LinearOperator, num_pairs: int) -> tuple[np.ndarray, np.ndarray, Array] | None:
    """Values, residuals and vectors of one more than `num_pairs` leading pairs of a run; None where they are not good enough."""
    run = density.run
    if not run.counts_eigenvalues or run.vectors is None or not run.vectors.bases:
        return None
    values, small = ritz(*run.jacobi(0))
    wanted = min(num_pairs + 1, operator.shape[0])
    if len(values) < wanted:
        return None
    order = np.argsort(-np.abs(values), kind="stable")[:wanted]
    residuals = np.asarray(run.residual_norms[0], dtype=np.float64)[order]
    gap = abs(values[order[-2]]) - abs(values[order[-1]]) if wanted > num_pairs else math.inf
    if not (gap > 0 and 2 * residuals.max() <= _GOOD_ENOUGH * gap):
        return None
    columns = run.vectors.bases[0].combine(np.ascontiguousarray(small.T[order])).T
    return values[order], residuals, operator.backend.asarray(columns, dtype=operator.dtype)


def probe_products(operator: LinearOperator, count: int, seed: int) -> tuple[Array, Array, bool]:
    """Vectors as rows, products with them as rows, and whether they are all unit vectors rather than random signs."""
    exact = operator.shape[0] <= count
    rows = unit_rows(operator, range(operator.shape[0])) if exact else random_rows(operator, range(count), "sign", seed, "critique")
    return rows, multiply(operator, rows, 0)[0], exact


def distance(approximation: LinearOperator, rows: Array, products: Array, exact: bool) -> Estimate:
    """Frobenius norm of what an approximation misses, from ``E |(A - B) z|^2``."""
    backend = approximation.backend
    own = multiply(approximation, rows, 0)[0]
    norms = np.real(backend.fetch([backend.norm(products[i, :] - own[i, :]) for i in range(rows.shape[0])])).astype(np.float64)
    scale = float(norms.max()) or 1.0
    squares = (norms / scale) ** 2
    if exact:
        return Estimate(scale * math.sqrt(math.fsum(squares)), method="exact")
    mean, error, dof = mean_with_error(squares)
    root = math.sqrt(mean)
    return Estimate(
        scale * root, standard_error=scale * error / (2 * root) if root else 0.0, degrees_of_freedom=dof, method="hutchinson",
        num_matvecs=len(norms),
    )  # fmt: skip
