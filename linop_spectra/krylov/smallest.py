"""Eigenvalues of smallest modulus, in the middle of the spectrum: by factorisation where there is a matrix, else by a filter."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import linalg

from .._memory import parse_budget
from ..backends import Array
from ..operators import LinearOperator
from ..operators.matrix import MatrixOperator
from .dense import DENSE, is_stored_matrix
from .eigen_result import EigenResult
from .extreme import extreme
from .orthonormal import OrthonormalRows
from .recurrence import Recurrence
from .search import Search, from_dense, with_true_residuals
from .storage import BasisPlan
from .tridiagonal import ritz

_NULL = 1e10  # eigenvalues of the inverse beyond this, times the norm, belong to the null space
_PILOT_STEPS = 15
_LARGEST_DEGREE = 400


class InverseOperator(LinearOperator):
    """The inverse of ``A - sigma I`` for an explicit sparse matrix, by SciPy's sparse LU factorisation (SuperLU)."""

    def __init__(self, operator: MatrixOperator, sigma: float) -> None:
        from scipy import sparse
        from scipy.sparse.linalg import splu

        n = operator.shape[0]
        matrix = sparse.csc_array(operator.matrix).astype(np.result_type(operator.dtype, np.float64))
        self._factors = splu(sparse.csc_matrix(matrix - sigma * sparse.eye_array(n, format="csc")))
        super().__init__(operator.shape, np.result_type(operator.dtype, np.float64), hermitian=True, backend="numpy")

    def _matmat(self, x: Array) -> Array:
        return self._factors.solve(np.ascontiguousarray(x))


class Beside(LinearOperator):
    """An operator restricted to the vectors orthogonal to orthonormal rows, on the host."""

    def __init__(self, inner: LinearOperator, rows: Array) -> None:
        self.inner, self.rows = inner, rows
        super().__init__(inner.shape, inner.dtype, hermitian=True, backend=inner.backend)

    def _project(self, x: Array) -> Array:
        return x - self.rows.T @ (self.rows.conj() @ x)

    def _matmat(self, x: Array) -> Array:
        return self._project(self._project(self.inner.matmat(self._project(x))))


def is_sparse_matrix(operator: LinearOperator) -> bool:
    """Whether an operator is an explicit sparse matrix on the host."""
    return is_stored_matrix(operator) and hasattr(operator.matrix, "nnz")  # type: ignore[attr-defined]


def spectral_interval(operator: LinearOperator, start: Array) -> tuple[float, int]:
    """Upper bound on the norm by a short Lanczos run, and the products spent (Y. Zhou and R.-C. Li, 2011)."""
    state = Recurrence(operator, start, plan=BasisPlan("full", str(operator.dtype), 0, 0))
    for _ in range(min(_PILOT_STEPS, operator.shape[0])):
        if state.exhausted:
            break
        state.step()
    state.fetch()
    alphas, betas = np.array(state.alphas)[:, 0], np.array(state.betas)[:, 0]
    return float(np.max(np.abs(ritz(alphas, betas)[0])) + betas[-1]), state.num_matvecs


def filtered_iteration(
    operator: LinearOperator, k: int, *, tol: float, seed: int, start: Array | None, budget: int, stopped: Callable[[], bool]
) -> tuple[np.ndarray, Array, np.ndarray, float, int]:
    """Subspace iteration with a Chebyshev filter in the square of the operator.

    The filter is the Chebyshev polynomial that is small on ``[c, |A|^2]`` and grows as fast as a polynomial can below ``c``,
    where ``c`` is the square of the largest modulus in the subspace: an upper bound on that of the eigenvalues it is to hold.
    The subspace has a few more vectors than there are wanted pairs, so that multiple eigenvalues and pairs of opposite sign
    are found as they are. (Y. Zhou, Y. Saad, M. Tiago and J. Chelikowsky, *Self-consistent-field calculations using
    Chebyshev-filtered subspace iteration*, J. Comput. Phys. 219, 2006.)

    Parameters
    ----------
    operator : LinearOperator
        Hermitian operator of order n.
    k : int
        Number of pairs.
    tol : float
        Relative to the norm.
    seed : int
        Of the random vectors.
    start : array or None
        Rows to begin with.
    budget : int
        Products after which to stop.
    stopped : callable
        Says whether to stop early.

    Returns
    -------
    tuple
        Eigenvalues (k,), eigenvectors as rows, residuals, norm estimate and products.
    """
    backend, n = operator.backend, operator.shape[0]
    size = min(n, k + max(4, k // 2))
    rows = backend.probes(n, range(size), kind="sphere", seed=seed, domain="eigsh filter", dtype=operator.dtype)
    bound, spent = spectral_interval(operator, rows[:1, :] + 0)
    if start is not None:
        given = min(size, start.shape[0])
        rows[:given, :] = start[:given, :]
    degree, cut = 0, 0.0
    while True:
        if degree:
            rows = _filter(operator, rows, cut**2, bound**2, degree)
            spent += 2 * degree * rows.shape[0]
        basis = _complete_basis(operator, rows, size, seed)
        theta, rows, residuals = _rayleigh_ritz(operator, basis)
        spent += size
        order = np.argsort(np.abs(theta), kind="stable")
        norm = max(float(np.max(np.abs(theta))), bound / 1.5)
        good = residuals[order[:k]] <= tol * norm
        if good.all() or spent >= budget or stopped() or size == n:
            break
        # Everything beyond the vectors of the subspace is to be damped.
        cut = float(np.abs(theta[order[-1]]))
        cut = min(max(cut, 1e-9 * bound), 0.9 * bound)
        degree = int(np.clip(np.ceil(3.0 * bound / cut), 8, _LARGEST_DEGREE))
    chosen = order[:k]
    chosen = chosen[np.argsort(theta[chosen], kind="stable")]
    out = backend.empty((k, n), operator.dtype)
    for row, index in enumerate(chosen.tolist()):
        out[row, :] = rows[index, :]
    return theta[chosen], out, residuals[chosen], norm, spent


def _filter(operator: LinearOperator, rows: Array, low: float, high: float, degree: int) -> Array:
    """``T_degree`` of the operator's square, mapped so that ``[low, high]`` goes to ``[-1, 1]``; scaled to order one as it grows."""
    center, half = (high + low) / 2, (high - low) / 2
    # Scaled by the value at zero, the largest there can be (Zhou, Saad, Tiago and Chelikowsky, 2006, algorithm 3.1).
    sigma = half / -center
    first = sigma

    def square(x: Array) -> Array:
        return _own(operator, operator.matmat(_own(operator, operator.matmat(x.T)).T))

    previous = rows
    current = (square(rows) - rows * center) * (sigma / half)
    for _ in range(1, degree):
        following = 1 / (2 / first - sigma)
        current, previous = (square(current) - current * center) * (2 * following / half) - previous * (sigma * following), current
        sigma = following
    return current


def _own(operator: LinearOperator, products: Array) -> Array:
    """Products as rows of our own."""
    out = operator.backend.empty((products.shape[1], operator.shape[0]), operator.dtype)
    out[...] = products.T
    return out


def _complete_basis(operator: LinearOperator, rows: Array, size: int, seed: int) -> Array:
    """Orthonormal rows that span the given ones, filled up at random to `size`."""
    backend, n = operator.backend, operator.shape[0]
    found = OrthonormalRows(backend, n, operator.dtype)
    found.append(rows)
    attempt = 0
    while found.rank < size:
        attempt += 1
        fresh = range(size * attempt, size * attempt + size - found.rank)
        found.append(backend.probes(n, fresh, kind="sphere", seed=seed, domain="eigsh filter", dtype=operator.dtype))
    basis = backend.empty((size, n), operator.dtype)
    for row in range(size):
        basis[row, :] = found.basis.row(row)
    return basis


def _rayleigh_ritz(operator: LinearOperator, basis: Array) -> tuple[np.ndarray, Array, np.ndarray]:
    backend = operator.backend
    products = _own(operator, operator.matmat(basis.T))
    size = basis.shape[0]
    projected = np.stack([backend.to_numpy(backend.gemv_t(basis, products[i, :])) for i in range(size)], axis=1)
    if not np.all(np.isfinite(projected)):
        raise FloatingPointError("A product with the operator holds NaN or infinity.")
    theta, S = linalg.eigh((projected + projected.conj().T) / 2)
    rows, images = backend.combine(S.T, basis), backend.combine(S.T, products)
    norms: list[Any] = []
    for i, value in enumerate(theta.tolist()):
        backend.axpy(-value, rows[i, :], images[i, :])
        norms.append(backend.norm(images[i, :]))
    return theta, rows, np.real(backend.fetch(norms)).astype(np.float64)


def smallest(search: Search) -> EigenResult:
    """Pairs of smallest modulus."""
    operator, n = search.operator, search.operator.shape[0]
    dense_bytes = n * n * operator.dtype.itemsize
    fits = dense_bytes <= parse_budget(None, total=operator.backend.total_memory())
    explicit = hasattr(operator, "matrix") and not is_sparse_matrix(operator) and fits
    limited = search.time_budget is not None or (search.max_matvecs is not None and n > search.max_matvecs)
    if explicit or (n <= DENSE and not limited):
        return from_dense(search, "SM")
    if is_sparse_matrix(operator):
        return _from_factors(search)
    start = None
    if search.start is not None:
        given = operator.backend.asarray(search.start, dtype=operator.dtype)
        start = operator.backend.contiguous((given if len(given.shape) == 2 else given[:, None]).T)
    values, vectors, residuals, norm, spent = filtered_iteration(
        operator, search.k, tol=search.tol, seed=search.seed, start=start, budget=search.max_matvecs or 200 * n,
        stopped=lambda: search.late,
    )  # fmt: skip
    converged = residuals <= search.tol * norm + 8 * float(np.finfo(operator.dtype).eps) * norm
    status = "complete" if converged.all() else "time budget" if search.late else "unconverged"
    return EigenResult(
        values, vectors.T, residuals, converged, norm, spent, time.perf_counter() - search.began, status,
        "subspace iteration with a Chebyshev filter", verified=False,
    )  # fmt: skip


def _from_factors(search: Search) -> EigenResult:
    """The largest eigenvalues of the inverse, which a sparse factorisation applies."""
    operator, k = search.operator, search.k
    scale = float(np.max(np.abs(operator.matrix).sum(axis=0)))  # type: ignore[attr-defined]
    if scale == 0.0:
        return extreme(search)
    for sigma in (0.0, 1e-14 * scale, 1e-12 * scale):
        try:
            inverse: LinearOperator = InverseOperator(operator, sigma)  # type: ignore[arg-type]
        except RuntimeError:  # exactly singular: factorise beside zero
            continue
        rows, solves, tol = operator.backend.empty((0, operator.shape[0]), inverse.dtype), 0, 1e-2 * search.tol
        while True:
            # The null space, if any, rules the inverse; what else is wanted is looked for beside it.
            beside = Beside(inverse, rows) if rows.shape[0] else inverse
            wanted = k - rows.shape[0]
            inner = dataclasses.replace(search, operator=beside, k=wanted, which="LM", tol=max(tol, 1e-14), start=None, progress=None)
            pairs = extreme(inner)
            solves += pairs.num_matvecs
            null = np.abs(pairs.eigenvalues) * scale > _NULL
            vectors = np.concatenate([rows, pairs.eigenvectors.T])
            if null.any() and not null.all():
                rows = np.ascontiguousarray(np.concatenate([rows, pairs.eigenvectors.T[null]]))
                continue
            result = _by_rayleigh_ritz(search, vectors, scale, solves, pairs.verified)
            # A residual of the inverse counts for more in A the further the wanted eigenvalues lie apart: tighten where needed.
            if result.converged.all() or search.late or tol < 1e-14:
                return result
            tol *= 1e-2
    raise ValueError("The sparse matrix could not be factorised, even beside zero; pass its product as a callable instead.")


def _by_rayleigh_ritz(search: Search, vectors: np.ndarray, scale: float, solves: int, verified: bool) -> EigenResult:
    """Eigenpairs of the operator itself in the span of rows: more accurate than reciprocals of the inverse's."""
    operator = search.operator
    basis = linalg.qr(vectors.T, mode="economic")[0]
    projected = basis.conj().T @ operator.matmat(basis)
    values, S = linalg.eigh((projected + projected.conj().T) / 2)
    rows = operator.backend.contiguous((basis @ S).T, operator.dtype)
    method = f"thick-restart Lanczos on the inverse (sparse LU factorisation), {solves} solves"
    return with_true_residuals(search, values.astype(np.float64), rows, scale, search.k, method, verified=verified)
