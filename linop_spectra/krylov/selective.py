"""Selective orthogonalisation: a three-term recurrence that is kept orthogonal to a few eigenvectors known beforehand.

Rounding costs orthogonality only along Ritz vectors that have converged (Paige, 1971). Where memory holds a few vectors but not
all of them, the eigenvectors that converge first are computed once, and each new Lanczos vector is freed of those that its
Krylov space holds already. The probe stays whole and T stays its Jacobi matrix.

References
----------
B. N. Parlett and D. S. Scott, *The Lanczos algorithm with selective orthogonalization*, Math. Comp. 33 (1979).
"""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from .._progress import Progress, ProgressBar
from ..backends import Array, Scalar
from ..operators import LinearOperator

MOST_ROWS = 120
"""Vectors of the search for eigenvectors at most."""
LEAST_PAIRS = 2
"""Fewer eigenvectors are not worth a search."""
_SPARE_ROWS = 6
"""Rows of the search beside its basis."""
_PRODUCTS_PER_ROW = 3
_LEAST_PRODUCTS = 24
# A direction is removed when that changes the operator by so many units of rounding of its norm ...
_ROUNDINGS = 8.0
# ... and the Krylov space holds all but this share of it.
_OUTSIDE = 1e-2


def pairs_of(rows: int) -> int:
    """Eigenpairs that a search with so many vectors looks for."""
    return rows // 3


def rows_that_fit(vectors: int) -> int:
    """Vectors of a search, when memory holds `vectors`: its basis, its spare rows and the pairs; zero when that is too few."""
    rows = min(MOST_ROWS, 3 * max(vectors - _SPARE_ROWS, 0) // 4)
    return rows if pairs_of(rows) >= LEAST_PAIRS else 0


def vectors_of(rows: int) -> int:
    """Vectors in memory at most while the search runs."""
    return rows + pairs_of(rows) + _SPARE_ROWS


def most_products(rows: int) -> int:
    """Products that a search may take. Not a matter of the steps: a run that is continued has to find the same pairs."""
    return max(_PRODUCTS_PER_ROW * rows, _LEAST_PRODUCTS)


@dataclasses.dataclass(frozen=True, eq=False)
class Locked:
    """Eigenpairs that were found beforehand.

    Attributes
    ----------
    values : numpy.ndarray
        Eigenvalues in ascending order, shape (m,).
    residuals : numpy.ndarray
        Their residual norms, shape (m,).
    vectors : array
        Orthonormal rows, shape (m, n).
    num_matvecs : int
        Products that they took.
    """

    values: np.ndarray
    residuals: np.ndarray
    vectors: Array
    num_matvecs: int = 0


def lock(operator: LinearOperator, rows: int, *, seed: int, seconds: float | None = None, progress: Progress = None) -> Locked:
    """Eigenpairs of largest modulus by thick-restart Lanczos, those that converge in a few products.

    The starting vector is independent of the probes, so that the weight that a probe gives to an eigenvalue can be compared with
    its overlap: the two differ when the eigenvalue is multiple.

    Parameters
    ----------
    operator : LinearOperator
        Hermitian operator.
    rows : int
        Vectors of the search.
    seed : int
        Of its starting vector.
    seconds : float, optional
        After which it ends with what has converged.
    progress : bool or callable, optional
        True shows a bar.

    Raises
    ------
    FloatingPointError
        When a product holds NaN or infinity.
    ValueError
        When the products show that the operator is not Hermitian.
    """
    from .thick_restart import ThickRestart  # it imports lanczos, which imports this file

    backend, n, began = operator.backend, operator.shape[0], time.perf_counter()
    k = min(pairs_of(rows), n)
    if k == 0:  # so small an operator has no need of it
        return Locked(np.zeros(0), np.zeros(0), backend.empty((0, n), operator.dtype))
    start = backend.probes(n, (0,), kind="sphere", seed=seed, domain="selective", dtype=operator.dtype)
    solver = ThickRestart(operator, k, "LM", 1, rows, start.T, seed)
    tolerance, budget = 0.1 * float(np.sqrt(operator.unit_rounding)), most_products(rows)
    good, last_gain = 0, 0

    def late() -> bool:
        return seconds is not None and time.perf_counter() - began > seconds

    with ProgressBar(progress if progress is True else None, k, "Lanczos: eigenvectors to lock", unit="pair") as bar:
        while True:
            full = solver.fill(min(max(10, k), budget - solver.num_matvecs), late)
            wanted, residuals, norm = solver.wanted()
            converged = residuals <= tolerance * norm
            if int(converged.sum()) > good:
                bar.advance(int(converged.sum()) - good)
                good, last_gain = int(converged.sum()), solver.num_matvecs
            stagnant = solver.num_matvecs - last_gain > solver.max_basis
            if good == k or solver.complete or stagnant or solver.num_matvecs >= budget or late():
                break
            if full:
                solver.restart()
    # The zero operator and the null space of others have nothing that could come again.
    wanted, residuals = wanted[converged], residuals[converged]
    chosen = np.abs(solver.theta[wanted]) > tolerance * norm
    wanted, residuals = wanted[chosen], residuals[chosen]
    if len(wanted) == 0:
        return Locked(np.zeros(0), np.zeros(0), backend.empty((0, n), operator.dtype), solver.num_matvecs)
    values, vectors = solver.vectors(wanted)
    return Locked(values.astype(np.float64), residuals.astype(np.float64), backend.contiguous(vectors), solver.num_matvecs)


class Selection:
    """Which locked eigenvectors each probe has to be kept orthogonal to, and the removal itself.

    Parameters
    ----------
    operator : LinearOperator
        Hermitian operator.
    locked : Locked
        The eigenvectors.
    num_probes : int
        Number of probes.

    Notes
    -----
    Removing the component c of a residual vector w along an eigenvector of which the part d lies outside the Krylov space is the
    same as a change of the operator by ``c d``; the next step then removes what the vector before w has of it, times the norm of
    w. All are measured, d as what the squared components of the Lanczos vectors so far leave of one. Once the products are
    rounding (at the latest when c and d are about the square root of it), the direction is removed in that and in all later
    steps: orthogonality stays at that level, and the coefficients are those of orthogonal vectors up to rounding (Simon, 1984).
    """

    def __init__(self, operator: LinearOperator, locked: Locked, num_probes: int) -> None:
        self.backend, self.dtype, self.locked = operator.backend, operator.dtype, locked
        self._rounding = float(operator.unit_rounding)
        self._threshold = _ROUNDINGS * self._rounding * float(np.max(np.abs(locked.values), initial=0.0))
        shape = (num_probes, len(locked.values))
        self.overlaps, self.captured, self.newest, self._left = (np.zeros(shape) for _ in range(4))
        self.removing = np.zeros(shape, dtype=bool)

    def begin(self, start: Array) -> None:
        """Take the unit starting vectors, shape (num_probes, n)."""
        for probe in range(start.shape[0]):
            self.newest[probe] = np.abs(self._components(start[probe, :]))
            self.overlaps[probe] = self.captured[probe] = self.newest[probe] ** 2

    def go_on(self, overlaps: np.ndarray, captured: np.ndarray, newest: np.ndarray, removing: np.ndarray) -> None:
        """Take up the state of an earlier run."""
        self.overlaps, self.captured, self.newest, self.removing = overlaps.copy(), captured.copy(), newest.copy(), removing.copy()

    def _norm(self, w: Array) -> float:
        return float(np.real(self.backend.fetch([self.backend.reduce(self.backend.norm(w))])[0]))

    def _components(self, w: Array) -> np.ndarray:
        if not len(self.locked.values):
            return np.zeros(0)
        coefficients = self.backend.reduce(self.backend.gemv_t(self.locked.vectors, w))
        return self.backend.to_numpy(coefficients).astype(np.result_type(self.dtype, np.float64))

    def remove(self, probe: int, w: Array) -> None:
        """Free `w` in place of the directions that the Krylov space of the probe holds."""
        if not len(self.locked.values):
            return
        found = self._components(w)
        sizes, outside = np.abs(found), np.maximum(1.0 - self.captured[probe], 0.0)
        with np.errstate(all="ignore"):  # what is not finite is found by whoever judges the coefficients
            largest = sizes if self.removing[probe].all() else np.maximum(sizes, self._norm(w) * self.newest[probe])
            rounding = np.sqrt(outside + self._rounding) * largest <= self._threshold
        removing = self.removing[probe] = self.removing[probe] | (rounding & (outside <= _OUTSIDE))
        self._left[probe] = np.where(removing, 0.0, sizes)
        if removing.any():
            coefficients = self.backend.asarray(np.where(removing, found, 0.0), dtype=self.dtype)
            self.backend.gemv_n_sub(self.locked.vectors, coefficients, w)

    def record(self, probe: int, beta: Scalar) -> None:
        """Take note of the next Lanczos vector, which is `w` over its norm `beta`."""
        norm = float(np.real(self.backend.fetch([beta])[0]))
        if len(self.locked.values) and norm > 0.0:
            with np.errstate(all="ignore"):
                self.newest[probe] = self._left[probe] / norm
                self.captured[probe] += self.newest[probe] ** 2

    def loss(self, probe: int, v: Array) -> float | None:
        """Largest component of a Lanczos vector along what has been removed; None when that is nothing."""
        if not self.removing[probe].any():
            return None
        return float(np.max(np.abs(self._components(v))[self.removing[probe]]))
