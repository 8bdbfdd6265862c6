"""Golub-Kahan-Lanczos bidiagonalisation with thick restarts: two orthonormal bases that grow by products and shrink to Ritz vectors."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from ..backends import Array
from ..operators import LinearOperator
from .linear_system import FailedProductError
from .scaling import unit_of

_TILE = 1 << 16


class GolubKahan:
    """Orthonormal rows V (right) and U (left) with ``C V^T = U^T B`` and ``C^H U^T = V^T B^H + P^T G``.

    C is the operator or its adjoint, whichever has at least as many rows as columns. P are the pending vectors, orthonormal and
    orthogonal to V, by which V may grow; G is their coupling. A Krylov space of one vector has one of them. Every further random one
    lets the space find one more copy of a multiple singular value, as in a band (block) method. No product of the form ``C^H C`` is
    ever projected, so that small singular values come out with an error of rounding times the norm.

    Parameters
    ----------
    operator : LinearOperator
        The operator, with its adjoint.
    max_basis : int
        Vectors kept on each side.
    smallest : bool
        Whether restarts keep the smallest singular values instead of the largest.
    seed : int
        Of random vectors.

    References
    ----------
    J. Baglama and L. Reichel, *Augmented implicitly restarted Lanczos bidiagonalization methods*, SIAM J. Sci. Comput. 27 (2005),
    section 3.1.
    """

    def __init__(self, operator: LinearOperator, max_basis: int, *, smallest: bool, seed: int) -> None:
        self.operator, self.backend, self.smallest, self.seed = operator, operator.backend, smallest, seed
        self.adjoint = operator.shape[0] < operator.shape[1]
        self.N, self.M = min(operator.shape), max(operator.shape)
        self.capacity = max_basis
        self.V = self.backend.empty((max_basis, self.N), operator.dtype)
        self.U = self.backend.empty((max_basis, self.M), operator.dtype)
        self._wide = np.complex128 if operator.dtype.kind == "c" else np.float64
        self.B = np.zeros((max_basis, max_basis), dtype=self._wide)
        self.pending: list[Array] = []
        self.G = np.zeros((0, max_basis), dtype=self._wide)
        self.chain = 0
        self._aside: list[Array] = []
        self._aside_couplings = np.zeros((0, max_basis), dtype=self._wide)
        self.m = self.num_matvecs = self._fresh = self._renewed = 0
        self.norm = 0.0
        self._unit: float | None = None
        self._eps = float(np.finfo(operator.dtype).eps)
        self._work = self.backend.empty((1, self.N), operator.dtype)

    @property
    def complete(self) -> bool:
        """Whether the smaller space is exhausted: the factorisation is exact."""
        return self.m == self.N

    @property
    def full(self) -> bool:
        """Whether the space cannot grow without a restart."""
        return self.m == self.capacity

    def product(self, rows: Array, *, adjoint: bool) -> Array:
        """Products of C, or of its adjoint, with rows, times `unit`; columns of what comes back may be of a buffer.

        Raises
        ------
        FailedProductError
            When the product raises; a missing adjoint is said by the operator itself, as a TypeError.
        """
        try:
            products = (self.operator.rmatmat if adjoint != self.adjoint else self.operator.matmat)(rows.T)
        except TypeError:
            raise
        except Exception as error:
            raise FailedProductError from error
        self.num_matvecs += rows.shape[0]
        if self._unit is None:
            first = self.backend.empty((products.shape[0],), self.operator.dtype)
            first[...] = products[:, 0]
            self._unit = unit_of(self.operator, np.array([self._host(self.backend.norm(first))]))
        return products if self.unit == 1.0 else products * self.unit

    @property
    def unit(self) -> float:
        """Power of two that the operator is multiplied by here, so that squares are numbers; singular values and residuals are, too."""
        return 1.0 if self._unit is None else self._unit

    # -- growing -------------------------------------------------------------------------------------------------------

    def add_pending(self, row: Array | None = None) -> bool:
        """Another direction to grow by: a given one of shape (1, N), or a random one. Returns whether it was independent."""
        if self.m + len(self.pending) >= self.N:
            return False
        for _ in range(10):
            given = row is not None
            w = self.backend.empty((1, self.N), self.operator.dtype)
            w[...] = row if given else self._random(self.N)
            row = None
            before = self._host(self.backend.norm(w[0, :]))
            if not before > 0:
                return False
            self.backend.scale_into(w[0, :], 1.0 / before, w[0, :])
            self._project_out(self.V[: self.m, :], w[0, :])
            left = self._project_out_pending(w[0, :])[1]
            if left > (1e-3 if given else 0.0) * np.sqrt(self._eps):
                self.backend.scale_into(w[0, :], 1.0 / left, w[0, :])
                self._project_out(self.V[: self.m, :], w[0, :])
                self._renormalise(w[0, :])
                self.pending.append(w)
                self.G = np.vstack([self.G, np.zeros((1, self.capacity), dtype=self._wide)])
                return True
            if given:
                return False
        return False

    def grow(self) -> None:
        """One step: two products, one more vector on each side.

        Raises
        ------
        FailedProductError
            When a product raises or is not finite.
        ValueError
            When the two products do not belong to a matrix and its adjoint.
        """
        if not self.pending:
            self.add_pending()
        j, slot = self.m, min(self.chain, len(self.pending) - 1)
        self.V[j, :] = self.pending[slot][0, :]
        u = self.U[j, :]
        u[...] = self.product(self.V[j : j + 1, :], adjoint=False)[:, 0]
        h, alpha = self._project_out(self.U[:j, :], u)
        self._check_finite(h, alpha)
        self.norm = max(self.norm, float(np.hypot(linalg.norm(h), alpha)))
        if alpha > 4 * self._eps * self.norm:
            self.backend.scale_into(u, 1.0 / alpha, u)
        else:  # C v depends on the others: any unit vector orthogonal to them keeps U orthonormal, with a zero in B
            alpha = 0.0
            self._random_left(j)
        z = self._work
        z[0, :] = self.product(self.U[j : j + 1, :], adjoint=True)[:, 0]
        g, beta = self._project_out(self.V[: j + 1, :], z[0, :])
        self._check_finite(g, beta)
        expected = np.zeros(j + 1)
        expected[j] = alpha
        if linalg.norm(g - expected) > np.sqrt(self.operator.unit_rounding) * max(self.norm, float(linalg.norm(g))):
            raise ValueError(
                "The product with the adjoint is not that of the operator's adjoint: u^H (A v) and (A^H u)^H v disagree by "
                f"{linalg.norm(g - expected) / self.unit:.1e}. Look at check_operator(A)."
            )
        others = [index for index in range(len(self.pending)) if index != slot]
        couplings, beta = self._project_out_pending(z[0, :], others)
        self.norm = max(self.norm, beta)
        # From here on nothing fails: the state changes at once.
        self.B[:j, j], self.B[j, j] = h, alpha
        self.G[others, j] = couplings
        self.m = j + 1
        if beta > 4 * self._eps * self.norm and self.m + len(others) < self.N:
            self.backend.scale_into(z[0, :], 1.0 / beta, self.pending[slot][0, :])
            self.G[slot, :] = 0.0
            self.G[slot, j] = beta
            # A small remainder is not orthogonal any more once it has been scaled up.
            self._project_out(self.V[: self.m, :], self.pending[slot][0, :])
            self._project_out_pending(self.pending[slot][0, :], others)
            self._renormalise(self.pending[slot][0, :])
        else:
            del self.pending[slot]
            self.G = np.delete(self.G, slot, axis=0)

    def _project_out(self, rows: Array, w: Array) -> tuple[np.ndarray, float]:
        """Remove rows from `w`, twice where once is not enough; the coefficients, and the norm that is left."""
        total = np.zeros(rows.shape[0], dtype=self._wide)
        norm = 0.0
        for _ in range(2 if rows.shape[0] else 0):
            coefficients = self.backend.gemv_t(rows, w)
            self.backend.gemv_n_sub(rows, coefficients, w)
            removed = self.backend.to_numpy(coefficients)
            total += removed
            norm = self._host(self.backend.norm(w))
            # Less than 1/sqrt(2) left: rounding of what was removed matters (Daniel, Gragg, Kaufman and Stewart, 1976).
            if norm > float(linalg.norm(removed, check_finite=False)):
                break
        return total, norm if rows.shape[0] else self._host(self.backend.norm(w))

    def _project_out_pending(self, w: Array, chosen: list[int] | None = None) -> tuple[np.ndarray, float]:
        chosen = list(range(len(self.pending))) if chosen is None else chosen
        parts = [self._project_out(self.pending[index], w)[0] for index in chosen]
        total = np.concatenate(parts) if parts else np.zeros(0, dtype=self._wide)
        return total, self._host(self.backend.norm(w))

    def _renormalise(self, w: Array) -> None:
        self.backend.scale_into(w, 1.0 / self._host(self.backend.norm(w)), w)

    def _random(self, n: int) -> Array:
        self._fresh += 1
        return self.backend.probes(n, (self._fresh,), kind="sphere", seed=self.seed, domain="svds", dtype=self.operator.dtype)

    def _random_left(self, j: int) -> None:
        left = 0.0
        while not left > np.sqrt(self._eps):
            self.U[j, :] = self._random(self.M)[0, :]
            left = self._project_out(self.U[:j, :], self.U[j, :])[1]
        self.backend.scale_into(self.U[j, :], 1.0 / left, self.U[j, :])

    def _host(self, scalar: object) -> float:
        return float(np.real(self.backend.to_numpy(scalar)))

    def _check_finite(self, coefficients: np.ndarray, norm: float) -> None:
        if not (np.all(np.isfinite(coefficients)) and np.isfinite(norm)):
            raise FailedProductError from FloatingPointError(
                f"A product with the operator or its adjoint holds NaN or infinity (product {self.num_matvecs})"
            )

    # -- Ritz triplets -------------------------------------------------------------------------------------------------

    def decompose(self) -> tuple[np.ndarray, np.ndarray]:
        """Ritz values in descending order, shape (m,), and the residual norms of their triplets by the coupling."""
        m = self.m
        self._left, self.values, right = np.linalg.svd(self.B[:m, :m])
        self._right = right.conj().T
        self.norm = max(self.norm, float(self.values[0]))
        zeros = np.flatnonzero(self.values <= self._zero)
        if len(zeros) > 1 and len(self.pending):
            # Left vectors of the singular value zero may be mixed at will: so that as many as possible have converged.
            _, _, mixture = np.linalg.svd(self.G[:, :m] @ self._left[:, zeros])
            self._left[:, zeros] = self._left[:, zeros] @ mixture.conj().T
        couplings = np.abs(self.G[:, :m] @ self._left)
        scale = float(np.max(couplings, initial=0.0))  # squares of the extremes are no numbers
        return self.values, scale * linalg.norm(couplings / scale, axis=0) if scale > 0 else np.zeros(m)

    def couplings(self, chosen: np.ndarray) -> np.ndarray:
        """What of the residuals of some triplets lies along each pending vector, in modulus, shape (pending, chosen)."""
        return np.abs(self.G[:, : self.m] @ self._left[:, chosen])

    def restart(self, keep: int) -> None:
        """Shrink both spaces to the best Ritz vectors of the last `decompose`; the pending vectors stay."""
        m = self.m
        kept = np.arange(m)[m - keep :] if self.smallest else np.arange(keep)
        left, right = self._left[:, kept], self._right[:, kept]
        self._rotate(self.V, right.T, m)
        self._rotate(self.U, left.T, m)
        coupling = self.G[:, :m] @ left
        self.B[...] = 0
        self.G[...] = 0
        self.B[np.arange(keep), np.arange(keep)] = self.values[kept]
        self.G[:, :keep] = coupling
        coupling = self._aside_couplings[:, :m] @ left
        self._aside_couplings[...] = 0
        self._aside_couplings[:, :keep] = coupling
        self.m = keep
        self._renew_left(keep)

    def set_aside(self) -> None:
        """Put the pending vectors away, so that the space grows by fresh ones that know nothing of them."""
        self._aside, self._aside_couplings = self.pending, self.G
        self.pending, self.G = [], np.zeros((0, self.capacity), dtype=self._wide)

    def take_back(self) -> None:
        """Make what was put away pending again, as far as the space does not hold it by now."""
        aside, couplings = self._aside, self._aside_couplings
        self._aside, self._aside_couplings = [], np.zeros((0, self.capacity), dtype=self._wide)
        for w, row in zip(aside, couplings, strict=True):
            # Along V it is in B already: C v was projected on all of U.
            self._project_out(self.V[: self.m, :], w[0, :])
            along, left = self._project_out_pending(w[0, :])
            self.G += np.outer(along, row)
            if left > np.sqrt(self._eps) and self.m + len(self.pending) < self.N:
                self.backend.scale_into(w[0, :], 1.0 / left, w[0, :])
                self._project_out(self.V[: self.m, :], w[0, :])
                self._project_out_pending(w[0, :])
                self._renormalise(w[0, :])
                self.pending.append(w)
                self.G = np.vstack([self.G, left * row[None, :]])

    @property
    def _zero(self) -> float:
        return 10 * self._eps * self.norm

    def _renew_left(self, keep: int) -> None:
        """Give a zero singular value a chance of a left vector, once for each.

        U grows by images of C, and these are orthogonal to the null space of ``C^H``: a left vector that is sought there has to come from
        a random one. It may take the place of that of any zero singular value, whose row and column of B vanish.
        """
        sizes = np.max(np.abs(self.G[:, :keep]), axis=0, initial=0.0)
        zeros = np.flatnonzero(np.abs(self.B[np.arange(keep), np.arange(keep)]) <= self._zero)
        stuck = zeros[sizes[zeros] > np.sqrt(self._eps) * self.norm] if self.norm > 0 else zeros[:0]
        if not len(stuck) or len(zeros) <= self._renewed or keep + len(self.pending) >= self.N:
            return
        self._renewed += 1
        index = int(stuck[np.argmax(sizes[stuck])])
        u = self.U[index, :]
        left = 0.0
        while not left > np.sqrt(self._eps):
            u[...] = self._random(self.M)[0, :]
            for _ in range(2):
                for others in (self.U[:index, :], self.U[index + 1 : keep, :]):
                    left = self._project_out(others, u)[1]
        self.backend.scale_into(u, 1.0 / left, u)
        w = self.backend.empty((1, self.N), self.operator.dtype)
        w[0, :] = self.product(self.U[index : index + 1, :], adjoint=True)[:, 0]
        inside, size = self._project_out(self.V[:keep, :], w[0, :])
        self._check_finite(inside, size)
        couplings, size = self._project_out_pending(w[0, :])
        self.B[index, :] = 0.0
        self.B[:, index] = 0.0
        self.G[:, index] = couplings
        # A pending vector that nothing hangs on any more is no direction to remember.
        needed = [row for row in range(len(self.pending)) if np.max(np.abs(self.G[row, :keep])) > 4 * self._eps * self.norm]
        self.pending, self.G = [self.pending[row] for row in needed], self.G[needed, :]
        if size > 4 * self._eps * self.norm:
            self.backend.scale_into(w, 1.0 / size, w)
            self._project_out(self.V[:keep, :], w[0, :])
            self._project_out_pending(w[0, :])
            self._renormalise(w[0, :])
            self.pending.append(w)
            self.G = np.vstack([self.G, np.zeros((1, self.capacity), dtype=self._wide)])
            self.G[-1, index] = size
        self.chain = max(0, len(self.pending) - 1)

    def _rotate(self, rows: Array, coefficients: np.ndarray, m: int) -> None:
        for first in range(0, rows.shape[1], _TILE):
            tile = slice(first, min(first + _TILE, rows.shape[1]))
            rows[: coefficients.shape[0], tile] = self.backend.combine(coefficients, rows[:m, tile])

    def triplets(self, chosen: np.ndarray) -> tuple[np.ndarray, Array, Array]:
        """Ritz values (times `unit`), and left and right vectors of the operator itself as rows."""
        own = self.backend.combine(self._left[:, chosen].T, self.U[: self.m, :])
        other = self.backend.combine(self._right[:, chosen].T, self.V[: self.m, :])
        left, right = (other, own) if self.adjoint else (own, other)
        return self.values[chosen].copy(), left, right

    def true_residuals(self, values: np.ndarray, left: Array, right: Array) -> np.ndarray:
        """``(|A v - s u|^2 + |A^H u - s v|^2)^(1/2)`` by two products each."""
        squares = np.zeros(len(values))
        for source, target, adjoint in ((right, left, False), (left, right, True)):
            products = self.product(source, adjoint=adjoint != self.adjoint)
            for i, value in enumerate(values):
                r = self.backend.empty((target.shape[1],), self.operator.dtype)
                r[...] = products[:, i]
                self.backend.axpy(-float(value), target[i, :], r)
                squares[i] = np.hypot(squares[i], self._host(self.backend.norm(r)))
        return squares
