"""The thick-restart block Lanczos iteration: a space that grows by products and shrinks to its best Ritz vectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from scipy.linalg import lapack

from .._memory import parse_budget
from ..backends import Array
from ..operators import LinearOperator
from .dense import order
from .errors import NotHermitianError
from .lanczos import check_count

Which = Literal["LM", "LA", "SA", "BE"]
_TILE = 1 << 16
# A pass that leaves less than this share of what it removed is done again (Daniel, Gragg, Kaufman and Stewart, 1976).
_ENOUGH = 0.7
_LARGEST = 500
SMALL = 32
"""Order up to which a matrix may use its whole space: a restart would only forget."""


class ThickRestart:
    """Orthonormal rows V, the projection T = V A V^H, and one more block that the Krylov space grows by.

    Parameters
    ----------
    operator : LinearOperator
        Hermitian operator.
    k : int
        Number of wanted pairs.
    which : {"LM", "LA", "SA", "BE"}
        Which they are.
    block_size : int
        Vectors multiplied at a time.
    max_basis : int or None
        Vectors kept.
    start : array or None
        Starting vectors.
    seed : int
        Of random vectors.

    References
    ----------
    K. Wu and H. Simon, *Thick-restart Lanczos method for large symmetric eigenvalue problems*, SIAM J. Matrix Anal. Appl. 22 (2000).
    """

    def __init__(
        self, operator: LinearOperator, k: int, which: Which, block_size: int, max_basis: int | None, start: Any, seed: int
    ) -> None:
        self.operator, self.backend, self.n = operator, operator.backend, operator.shape[0]
        self.k, self.which, self.seed = k, which, seed
        self.num_matvecs = self._fresh = 0
        self.b = min(block_size, self.n)
        self._eps = float(np.finfo(operator.dtype).eps)
        self._symmetry = float(np.sqrt(operator.unit_rounding))
        first = self._starting_rows(start)
        default = max(2 * k + 16 * self.b, 32)
        asked = default if max_basis is None else check_count("max_basis", max_basis)
        self.max_basis = min(self.n, max(asked, k + 2 * self.b + 1))
        # Where the least that a restart needs is half of everything, it would only forget.
        if self.n <= max(SMALL, 2 * (k + 2 * self.b + 1)):
            self.max_basis = self.n
        # Some more vectors than the blocks take: a missed pair makes the block wider.
        self.V = self.backend.empty((self.max_basis + 2 * self.b + 4, self.n), operator.dtype)
        self._wide = np.complex128 if operator.dtype.kind == "c" else np.float64
        size = self.V.shape[0]
        self.T = np.zeros((size, size), dtype=self._wide)
        self.m = 0
        # Rows that the space grows by next, and by how many it grew last.
        self.waiting, self._last, self._beta = self.b, 0, 0.0
        self.norm = 0.0
        self.complete = False
        self._looked_at = -1
        self._found: tuple[np.ndarray, np.ndarray, float]
        for row in range(self.b):
            self.V[row, :] = first[row, :] if row < first.shape[0] else self._random_row()
            # Of a starting vector that depends on the others nothing but rounding is left.
            before = self._host(self.backend.norm(self.V[row, :]))
            self._normalise(row, 100 * self._eps * before)

    def _starting_rows(self, start: Any) -> Array:
        if start is None:
            return self.backend.probes(self.n, range(self.b), kind="sphere", seed=self.seed, domain="probe", dtype=self.operator.dtype)
        given = self.backend.asarray(start, dtype=self.operator.dtype)
        shape = tuple(given.shape)
        if len(shape) not in (1, 2) or shape[0] != self.n:
            raise ValueError(f"The argument start must have shape ({self.n},) or ({self.n}, j), but has shape {shape}.")
        columns = given if len(shape) == 2 else given[:, None]
        rows = self.backend.empty((min(self.b, columns.shape[1]), self.n), self.operator.dtype)
        rows[...] = 0
        for column in range(columns.shape[1]):
            one = columns[:, column] + 0
            norm = self._host(self.backend.norm(one))
            if norm > 0:
                self.backend.axpy(1.0 / norm, one, rows[column % rows.shape[0], :])
        return rows

    def _random_row(self) -> Array:
        self._fresh += 1
        probe = self.backend.probes(
            self.n, (self._fresh,), kind="sphere", seed=self.seed, domain="eigsh restart", dtype=self.operator.dtype
        )
        return probe[0, :]

    def _host(self, scalar: Any) -> float:
        return scalar if isinstance(scalar, float) else float(np.real(self.backend.to_numpy(scalar)))

    def _project_out(self, w: Array, count: int) -> tuple[float, float]:
        """Remove the components along the first `count` rows from `w`, twice where once is not enough.

        Returns the largest component, and the norm that is left.
        """
        rows = self.V[:count, :]
        first = self.backend.gemv_t(rows, w)
        self.backend.gemv_n_sub(rows, first, w)
        largest = float(np.abs(self.backend.to_numpy(first)).max())
        norm = self._host(self.backend.norm(w))
        if not norm > _ENOUGH * largest * math.sqrt(count):
            self.backend.gemv_n_sub(rows, self.backend.gemv_t(rows, w), w)
            norm = self._host(self.backend.norm(w))
        return largest, norm

    def _normalise(self, row: int, threshold: float = 0.0, norm: float | None = None) -> float:
        """Make row `row` a unit vector orthogonal to those before; a dependent one is replaced at random. Returns its norm."""
        w = self.V[row, :]
        if norm is None:
            norm = self._project_out(w, row)[1] if row else self._host(self.backend.norm(w))
        found = norm
        while not norm > threshold:  # dependent on the others: any fresh direction keeps the space growing
            if row >= self.n:
                return 0.0
            found = 0.0
            self.V[row, :] = self._random_row()
            for _ in range(2):
                norm = self._project_out(w, row)[1] if row else self._host(self.backend.norm(w))
            threshold = 0.0
        self.backend.scale_into(w, 1.0 / norm, w)
        return found

    def widen(self) -> None:
        """Add a random vector to the block that the space grows by, right after a restart."""
        row = self.m + self.waiting
        self.V[row, :] = self._random_row()
        for _ in range(2):
            _, norm = self._project_out(self.V[row, :], row)
        self.backend.scale_into(self.V[row, :], 1.0 / norm, self.V[row, :])
        self.T[row, :] = self.T[:, row] = 0
        self.waiting += 1
        self.b = max(self.b, self.waiting)
        self.max_basis = min(self.n, max(self.max_basis, self.m + 2 * self.b))

    @property
    def can_widen(self) -> bool:
        """Whether there is storage for a wider block, and a direction that is not in the space yet."""
        wider = self.waiting + 1
        enough = max(self.max_basis, self.m + 2 * wider) + wider <= self.V.shape[0]
        return enough and self.m + wider <= self.n

    def fill(self, products: int, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Grow the space by some vectors, at least until it holds the wanted pairs or is stopped. Returns whether it is full."""
        aim = max(self.m + max(products, self.b), self.k + self.b)
        while self.m < aim and self.m + self.waiting <= self.max_basis:
            self.grow()
            if self.waiting == 0:
                self.complete = True
                return True
            if self.m >= self.k and stopped():
                break
        return self.m + self.waiting > self.max_basis

    def grow(self) -> None:
        """Multiply the waiting block, take it into the space, and make the next one of what is left over."""
        m, b, T = self.m, self.waiting, self.T
        if b == 1 and m + 1 < self.n:
            self._grow_by_one()
            return
        products = self.operator.matmat(self.V[m : m + b, :].T)
        self.num_matvecs += b
        for column in range(b):
            w = self.V[m + b + column, :]
            w[...] = products[:, column]
            # First what T knows already and what belongs to the block itself, in Paige's order. Then the pass against all rows
            # finds nothing but rounding, so that it cannot spread the little orthogonality that the rows have lost.
            if m:
                self._subtract_known(column, w)
            own = self._inner(m, m + b, w)
            self._subtract(m, m + b, own, w)
            found, left = self._project_out(w, m + b)
            self._judge(found, float(np.abs(own).max()), left)
            T[m : m + b, m + column] = own
        corner = T[m : m + b, m : m + b]
        T[m : m + b, m : m + b] = (corner + corner.conj().T) / 2
        self.waiting = min(b, self.n - (m + b))
        coupling = self._next_block(b)
        T[m + b : m + b + self.waiting, m : m + b] = coupling
        T[m : m + b, m + b : m + b + self.waiting] = coupling.conj().T
        self.m, self._last = m + b, b

    def _grow_by_one(self) -> None:
        """The same of one vector, with scalars: for short vectors what Python does between the products is most of the time."""
        m, T, backend = self.m, self.T, self.backend
        v, w = self.V[m, :], self.V[m + 1, :]
        w[...] = self.operator.matmat(self.V[m : m + 1, :].T)[:, 0]
        self.num_matvecs += 1
        if self._last == 1 and m:
            backend.axpy(-self._beta, self.V[m - 1, :], w)
        elif m:
            self._subtract_known(0, w)
        alpha = self._number(backend.dot(v, w))
        backend.axpy(-alpha, v, w)
        found, left = self._project_out(w, m + 1)
        self._judge(found, abs(alpha), left)
        self._beta = self._normalise(m + 1, 4 * self._eps * self.norm, left)
        T[m, m] = alpha.real
        T[m + 1, m] = T[m, m + 1] = self._beta
        self.m, self._last = m + 1, 1

    def _subtract_known(self, column: int, w: Array) -> None:
        """The components along the rows that the waiting block is coupled to."""
        first, m = self.m - self._last, self.m
        self._subtract(first, m, self.T[first:m, m + column], w)

    def _judge(self, found: float, own: float, left: float) -> None:
        """Raise where a product was not finite, or not of a Hermitian operator."""
        if not math.isfinite(left + found):
            raise FloatingPointError(f"A product with the operator holds NaN or infinity (product {self.num_matvecs}).")
        self.norm = max(self.norm, own, left)
        if self.m and found > self._symmetry * self.norm:
            raise NotHermitianError(
                "The operator is not symmetric (complex: not Hermitian): products disagree with those of earlier steps. "
                "Pass the symmetric part (A + A.H) / 2, or look at check_operator(A)."
            )

    def _inner(self, first: int, last: int, w: Array) -> np.ndarray:
        if last - first == 1:
            return np.array([self._number(self.backend.dot(self.V[first, :], w))], dtype=self._wide)
        return self.backend.to_numpy(self.backend.gemv_t(self.V[first:last, :], w)).astype(self._wide)

    def _subtract(self, first: int, last: int, coefficients: np.ndarray, w: Array) -> None:
        if last - first == 1:
            self.backend.axpy(-coefficients[0], self.V[first, :], w)
        else:
            given = self.backend.asarray(coefficients, dtype=self.operator.dtype)
            self.backend.gemv_n_sub(self.V[first:last, :], given, w)

    def _number(self, scalar: Any) -> complex:
        value = complex(self.backend.to_numpy(scalar)) if not self.backend.eager_scalars else complex(scalar)
        return value if self._wide is np.complex128 else value.real

    def _next_block(self, b: int) -> np.ndarray:
        """Orthonormalise what the products left over, row by row; R couples the old block to the new one."""
        m, new = self.m, self.waiting
        coupling = np.zeros((new, b), dtype=self._wide)
        threshold = 4 * self._eps * self.norm
        for column in range(b):
            row, w = m + b + column, self.V[m + b + column, :]
            others = min(column, new)
            if others:
                rows = self.V[m + b : m + b + others, :]
                for _ in range(2):
                    part = self.backend.gemv_t(rows, w)
                    self.backend.gemv_n_sub(rows, part, w)
                    coupling[:others, column] += self.backend.to_numpy(part)
            if column < new:
                coupling[column, column] = self._normalise(row, threshold)
        return coupling

    def wanted(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Indices of the wanted Ritz pairs, their residual estimates, and the norm estimate."""
        m, last = self.m, self._last
        if self._looked_at == self.num_matvecs:
            return self._found
        # SciPy's LAPACK, as all else: a second pool of threads would wait for the first.
        solve = lapack.zheevd if self._wide is np.complex128 else lapack.dsyevd
        theta, self.S, failed = solve(self.T[:m, :m])
        if failed:
            raise FloatingPointError("The projected eigenvalue problem failed: products with the operator hold NaN or infinity.")
        self.theta = theta
        self.norm = max(self.norm, float(np.max(np.abs(theta))))
        chosen = np.sort(order(self.theta, self.which)[: self.k])
        coupling = np.abs(self.T[m : m + self.waiting, m - last : m] @ self.S[m - last :, chosen])
        scale = float(np.max(coupling, initial=0.0))  # squares of the extremes are no numbers
        residuals = scale * np.sqrt(((coupling / scale) ** 2).sum(axis=0)) if scale > 0 else np.zeros(len(chosen))
        self._looked_at, self._found = self.num_matvecs, (chosen, residuals, self.norm or 1.0)
        return self._found

    def restart(self) -> None:
        """Shrink the space to its best Ritz vectors; the block to grow by stays."""
        m, b = self.m, self.waiting
        keep = min(max(self.k + b, self.k + (m - self.k) // 2), m - b)
        kept = np.sort(order(self.theta, self.which)[:keep])
        coupling = self.T[m : m + b, m - self._last : m] @ self.S[m - self._last :, kept]
        self._rotate(self.S[:, kept], m)
        for column in range(b):
            self.V[keep + column, :] = self.V[m + column, :]
        self.T[...] = 0
        self.T[np.arange(keep), np.arange(keep)] = self.theta[kept]
        self.T[keep : keep + b, :keep] = coupling
        self.T[:keep, keep : keep + b] = coupling.conj().T
        # The next products are coupled to all that was kept.
        self.m, self._last = keep, keep

    def enlarge(self) -> None:
        """Keep more vectors from now on: restarts that throw away too much converge slowly, or not at all."""
        most = min(self.n, _LARGEST, parse_budget(None, total=self.backend.total_memory()) // (2 * self.n * self.operator.dtype.itemsize))
        larger = min(self.max_basis + self.max_basis // 2, most)
        if larger <= self.max_basis:
            return
        rows = self.m + self.waiting
        wider = self.backend.empty((larger + 2 * self.b + 4, self.n), self.operator.dtype)
        wider[:rows, :] = self.V[:rows, :]
        size = wider.shape[0]
        projection = np.zeros((size, size), dtype=self._wide)
        projection[:rows, :rows] = self.T[:rows, :rows]
        self.V, self.T, self.max_basis = wider, projection, larger

    def _rotate(self, S: np.ndarray, m: int) -> None:
        """Replace the first rows by ``S^T V`` in place, a tile of columns at a time."""
        for first in range(0, self.n, _TILE):
            tile = slice(first, min(first + _TILE, self.n))
            rows = self.backend.contiguous(self.V[:m, tile])
            self.V[: S.shape[1], tile] = self.backend.combine(S.T, rows)

    def vectors(self, wanted: np.ndarray) -> tuple[np.ndarray, Array]:
        """Ritz values and vectors (rows) of the wanted pairs."""
        return self.theta[wanted].copy(), self.backend.combine(self.S[:, wanted].T, self.V[: self.m, :])


def true_residuals(operator: LinearOperator, values: np.ndarray, vectors: Array) -> np.ndarray:
    """``|A x - theta x|`` for unit rows, by one product each."""
    backend = operator.backend
    products = operator.matmat(vectors.T)
    norms = []
    for i, value in enumerate(values.tolist()):
        r = backend.empty((operator.shape[0],), operator.dtype)
        r[...] = products[:, i]
        backend.axpy(-value, vectors[i, :], r)
        norms.append(backend.norm(r))
    return np.real(backend.fetch(norms)).astype(np.float64)
