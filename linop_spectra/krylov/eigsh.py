"""Extreme eigenpairs by thick-restart block Lanczos, with true residuals."""

from __future__ import annotations

import dataclasses
import time
import warnings
from typing import Any, Literal, get_args

import numpy as np
from scipy import linalg

from .._progress import Progress, ProgressBar
from ..backends import Array
from ..operators import LinearOperator, aslinearoperator, require_hermitian
from ..results import PathLike, html_table, register, save_result
from .lanczos import check_count, check_time_budget
from .result import on_host

Which = Literal["LM", "LA", "SA", "BE"]
_TILE = 1 << 16
_PRODUCTS_BETWEEN_LOOKS = 10
_SMALL = 300


@register("eigenpairs")
@dataclasses.dataclass(frozen=True, eq=False)
class EigenResult:
    """Eigenpairs of a Hermitian operator.

    Attributes
    ----------
    eigenvalues : numpy.ndarray
        In ascending order, shape (k,), float64.
    eigenvectors : array
        Orthonormal columns, shape (n, k), on the operator's backend.
    residual_norms : numpy.ndarray
        True residuals ``|A x - lambda x|``, recomputed by k products, shape (k,); an eigenvalue lies within this distance.
    converged : numpy.ndarray
        Whether each residual is below the tolerance times the norm estimate, shape (k,). Unconverged pairs are returned too.
    norm_estimate : float
        Largest Ritz value in modulus that was seen.
    num_matvecs : int
        Products with single vectors.
    seconds : float
        Wall-clock time.
    """

    eigenvalues: np.ndarray
    eigenvectors: Array
    residual_norms: np.ndarray
    converged: np.ndarray
    norm_estimate: float
    num_matvecs: int
    seconds: float

    def save(self, path: PathLike) -> None:
        """Write the pairs to `path` (``.npz``); `linop_spectra.load` reads them back."""
        arrays = {name: getattr(self, name) for name in ("eigenvalues", "residual_norms", "converged")}
        scalars = {name: getattr(self, name) for name in ("norm_estimate", "num_matvecs", "seconds")}
        save_result(path, "eigenpairs", scalars, {**arrays, "eigenvectors": on_host(self.eigenvectors)})

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> EigenResult:
        fields: dict[str, Any] = {**scalars, **arrays}
        return cls(**fields)

    def __str__(self) -> str:
        lines = [f"{'eigenvalue':>16s} {'residual':>10s}"]
        for value, residual, good in zip(self.eigenvalues, self.residual_norms, self.converged, strict=True):
            lines.append(f"{value:16.8g} {residual:10.1e}" + ("" if good else "  not converged"))
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return html_table(
            [(f"{value:.8g}", f"residual {residual:.1e}" + ("" if good else ", not converged"))
             for value, residual, good in zip(self.eigenvalues, self.residual_norms, self.converged, strict=True)]
        )  # fmt: skip


def eigsh(
    A: Any,
    k: int = 6,
    *,
    which: Which = "LM",
    tol: float = 1e-6,
    start: Any = None,
    block_size: int = 1,
    max_basis: int | None = None,
    max_matvecs: int | None = None,
    seed: int = 0,
    time_budget: float | None = None,
    progress: Progress = None,
) -> EigenResult:
    """Some extreme eigenpairs of a Hermitian operator.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Hermitian operator of shape (n, n).
    k : int
        Number of pairs, at most n.
    which : {"LM", "LA", "SA", "BE"}
        Largest in modulus, largest, smallest, or both ends (one more at the top when k is odd).
    tol : float
        A pair has converged when its residual is at most `tol` times the norm estimate; never below four units of rounding.
    start : array, optional
        Starting vector of shape (n,), or several as columns of (n, j), for example eigenvectors of a similar operator. More
        than `block_size` of them are added up in turn: a Krylov space takes a sum apart in a few steps.
    block_size : int
        Vectors multiplied at a time. An eigenvalue of multiplicity up to the block size is found completely.
    max_basis : int, optional
        Vectors kept; by default ``3 k`` plus two blocks, at least 32, and for orders below 300 the whole space if need be.
    max_matvecs : int, optional
        Products after which unconverged pairs are returned, marked; by default 100 times the basis.
    seed : int
        Seed of the starting vectors.
    time_budget : float, optional
        Seconds after which unconverged pairs are returned, marked; Ctrl-C does the same, with estimated residuals.
    progress : bool or callable, optional
        True shows a bar of converged pairs.

    Returns
    -------
    EigenResult
        Pairs in ascending order, with true residuals.

    Raises
    ------
    ValueError
        When an argument is wrong or the operator is not Hermitian.
    FloatingPointError
        When a product holds NaN or infinity.

    References
    ----------
    K. Wu and H. Simon, *Thick-restart Lanczos method for large symmetric eigenvalue problems*, SIAM J. Matrix Anal. Appl. 22 (2000).

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> result = ls.eigsh(ls.diagonal_operator(np.arange(1000.0)), k=2, which="LA", tol=1e-10)
    >>> result.eigenvalues.round(6)
    array([998., 999.])
    """
    operator = aslinearoperator(A)
    require_hermitian(operator, "eigsh", seed=seed)
    n = operator.shape[0]
    k, block_size = check_count("k", k), check_count("block_size", block_size)
    if k > n:
        raise ValueError(f"The argument k is {k}, but an operator of order {n} has only {n} eigenvalues.")
    if which not in get_args(Which):
        raise ValueError(f"The argument which is {which!r}, but must be one of {', '.join(get_args(Which))}.")
    if not 0 <= tol < 1:
        raise ValueError(f"The argument tol must lie between 0 and 1, but is {tol!r}.")
    check_time_budget(time_budget)
    tol = max(tol, 4 * float(np.finfo(operator.dtype).eps))
    solver = _ThickRestart(operator, k, which, block_size, max_basis, start, seed)
    budget = check_count("max_matvecs", max_matvecs) if max_matvecs is not None else 100 * solver.max_basis
    began = time.perf_counter()
    interrupted = False
    with ProgressBar(progress, k, "eigsh", unit="pair") as bar:
        shown = 0
        while True:
            try:
                full = solver.fill(_PRODUCTS_BETWEEN_LOOKS)
            except KeyboardInterrupt:
                if solver.m < k:
                    raise
                full, interrupted = False, True
            wanted, residuals, norm = solver.wanted()
            good = int(np.sum(residuals <= tol * norm))
            bar.advance(max(0, good - shown))
            shown = max(shown, good)
            spent = time_budget is not None and time.perf_counter() - began > time_budget
            if good == k or solver.num_matvecs >= budget or spent or solver.complete or interrupted:
                break
            if full:
                solver.restart()
    values, vectors = solver.vectors(wanted)
    # After Ctrl-C nobody waits for k more products: the estimates have to do.
    residual_norms = residuals if interrupted else solver.true_residuals(values, vectors)
    converged = residual_norms <= tol * norm + 8 * np.finfo(operator.dtype).eps * norm
    if not converged.all() and not spent and not interrupted:
        warnings.warn(
            f"Of {k} eigenpairs {int(converged.sum())} converged within {solver.num_matvecs} products; the others are returned, "
            "marked in .converged. Allow more by max_matvecs or max_basis, or a larger tol.",
            stacklevel=2,
        )
    return EigenResult(values, vectors.T, residual_norms, converged, norm, solver.num_matvecs, time.perf_counter() - began)


class _ThickRestart:
    """Orthonormal rows V, the projection T = V A V^H, and one more block that the Krylov space grows by."""

    def __init__(
        self, operator: LinearOperator, k: int, which: Which, block_size: int, max_basis: int | None, start: Any, seed: int
    ) -> None:
        self.operator, self.backend, self.n = operator, operator.backend, operator.shape[0]
        self.k, self.which, self.seed = k, which, seed
        self.num_matvecs = self._fresh = 0
        self.b = min(block_size, self.n)
        first = self._starting_rows(start)
        # A small matrix may use its whole space: a restart would only forget.
        default = max(3 * k + 2 * self.b, 32, min(self.n, _SMALL))
        self.max_basis = min(self.n, max(default if max_basis is None else check_count("max_basis", max_basis), k + 2 * self.b))
        self.V = self.backend.empty((self.max_basis + self.b, self.n), operator.dtype)
        wide = np.complex128 if operator.dtype.kind == "c" else np.float64
        self.T = np.zeros((self.max_basis + self.b, self.max_basis + self.b), dtype=wide)
        self.m = 0
        self.norm = 0.0
        self.complete = False
        for row in range(self.b):
            if row < len(first):
                self.V[row] = first[row]
            else:
                self.V[row] = self._random_row()
            self._normalise(row)

    def _starting_rows(self, start: Any) -> Array:
        if start is None:
            return self.backend.probes(self.n, range(self.b), kind="sphere", seed=self.seed, domain="probe", dtype=self.operator.dtype)
        given = self.backend.asarray(start, dtype=self.operator.dtype)
        if given.shape[0] != self.n or len(given.shape) > 2:
            raise ValueError(f"The argument start must have shape ({self.n},) or ({self.n}, j), but has shape {tuple(given.shape)}.")
        columns = given.reshape(self.n, -1)
        rows = self.backend.empty((min(self.b, columns.shape[1]), self.n), self.operator.dtype)
        rows[...] = 0
        for column in range(columns.shape[1]):
            norm = self._host(self.backend.norm(self.backend.asarray(columns[:, column]) + 0))
            if norm > 0:
                self.backend.axpy(1.0 / norm, self.backend.asarray(columns[:, column]) + 0, rows[column % len(rows)])
        return rows

    def _random_row(self) -> Array:
        self._fresh += 1
        return self.backend.probes(
            self.n, (self._fresh,), kind="sphere", seed=self.seed, domain="eigsh restart", dtype=self.operator.dtype
        )[0]

    def _host(self, scalar: Any) -> float:
        return float(np.real(self.backend.to_numpy(scalar)))

    def _project_out(self, w: Array, count: int) -> np.ndarray:
        """Remove the first `count` rows from `w` in two passes; returns the coefficients."""
        total = np.zeros(count, dtype=self.T.dtype)
        for _ in range(2):
            coefficients = self.backend.gemv_t(self.V[:count], w)
            self.backend.gemv_n_sub(self.V[:count], coefficients, w)
            total += self.backend.to_numpy(coefficients)
        return total

    def _normalise(self, row: int, threshold: float = 0.0) -> float:
        """Make row `row` a unit vector orthogonal to those before; a dependent one is replaced at random. Returns its norm."""
        w = self.V[row]
        if row:
            self._project_out(w, row)
        norm = self._host(self.backend.norm(w))
        found = norm
        while not norm > threshold:  # dependent on the others: any fresh direction keeps the space growing
            found = 0.0
            self.V[row] = self._random_row()
            w = self.V[row]
            if row:
                self._project_out(w, row)
            norm = self._host(self.backend.norm(w))
            threshold = 0.0
            if row >= self.n:
                return 0.0
        self.backend.scale_into(w, 1.0 / norm, w)
        return found

    def fill(self, products: int) -> bool:
        """Grow the space by some vectors, at least until it holds the wanted pairs. Returns whether it is full."""
        aim = max(self.m + max(products, self.b), self.k + self.b)
        while self.m < aim and self.m + self.b <= self.max_basis:
            self._grow()
            if self.m >= self.n:
                self.complete = True
                return True
        return self.m + self.b > self.max_basis

    def _grow(self) -> None:
        m, b = self.m, self.b
        products = self.operator.matmat(self.V[m : m + b].T)
        self.num_matvecs += b
        for column in range(b):
            row = m + b + column
            w = self.V[row]
            w[...] = products[:, column]
            # Against the space only: the new rows of this block are orthogonalised below, where they become columns of T.
            h = self._project_out(w, m + b)
            if not np.all(np.isfinite(h)):
                raise FloatingPointError(f"A product with the operator holds NaN or infinity (product {self.num_matvecs}).")
            scale = max(self.norm, float(linalg.norm(h)))
            known = self.T[m + column, :m].conj()
            if m and linalg.norm(h[:m] - known) > np.sqrt(self.operator.unit_rounding) * scale:
                raise ValueError(
                    "The operator is not symmetric (complex: not Hermitian): products disagree with those of earlier steps. "
                    "Pass the symmetric part (A + A.H) / 2, or look at check_operator(A)."
                )
            self.norm = scale
            self.T[: m + b, m + column] = h
        self.T[m : m + b, : m + b] = self.T[: m + b, m : m + b].conj().T
        self.T[m : m + b, m : m + b] = (self.T[m : m + b, m : m + b] + self.T[m : m + b, m : m + b].conj().T) / 2
        # QR of the remainder, row by row; R couples the old block to the new one.
        remaining = min(b, self.n - (m + b))
        for column in range(b):
            row = m + b + column
            self.T[row, m : m + b] = 0
        if remaining > 0:
            coupling = np.zeros((b, b), dtype=self.T.dtype)
            threshold = 4 * float(np.finfo(self.operator.dtype).eps) * self.norm
            for column in range(b):
                row, w = m + b + column, self.V[m + b + column]
                if column:
                    coefficients = np.zeros(column, dtype=self.T.dtype)
                    for _ in range(2):
                        part = self.backend.gemv_t(self.V[m + b : row], w)
                        self.backend.gemv_n_sub(self.V[m + b : row], part, w)
                        coefficients += self.backend.to_numpy(part)
                    coupling[:column, column] = coefficients
                if column < remaining:
                    coupling[column, column] = self._normalise(row, threshold)
                else:
                    w[...] = 0
            self.T[m + b : m + 2 * b, m : m + b] = coupling
        self.m = m + b

    def wanted(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Indices of the wanted Ritz pairs, their residual estimates, and the norm estimate."""
        m, b = self.m, self.b
        theta, self.S = np.linalg.eigh(self.T[:m, :m])
        self.theta = theta
        self.norm = max(self.norm, float(np.max(np.abs(theta))))
        coupling = np.abs(self.T[m : m + b, m - b : m] @ self.S[m - b :, :])
        scale = float(np.max(coupling)) if m < self.n else 0.0  # squares of the extremes are no numbers
        residuals = scale * linalg.norm(coupling / scale, axis=0) if scale > 0 else np.zeros(m)
        chosen = np.sort(self._order()[: self.k])
        return chosen, residuals[chosen], self.norm or 1.0

    def _order(self) -> np.ndarray:
        m = len(self.theta)
        if self.which == "LA":
            return np.arange(m)[::-1]
        if self.which == "SA":
            return np.arange(m)
        if self.which == "LM":
            return np.argsort(-np.abs(self.theta), kind="stable")
        ends = np.empty(m, dtype=np.int64)
        ends[0::2] = np.arange(m)[::-1][: len(ends[0::2])]
        ends[1::2] = np.arange(m)[: len(ends[1::2])]
        return ends

    def restart(self) -> None:
        """Shrink the space to its best Ritz vectors; the block to grow by stays."""
        m, b = self.m, self.b
        keep = min(max(self.k + b, (3 * m) // 5), m - b)
        kept = np.sort(self._order()[:keep])
        coupling = self.T[m : m + b, m - b : m] @ self.S[m - b :, kept]
        self._rotate(self.S[:, kept], m)
        for column in range(b):
            self.V[keep + column] = self.V[m + column]
        self.T[...] = 0
        self.T[np.arange(keep), np.arange(keep)] = self.theta[kept]
        self.T[keep : keep + b, :keep] = coupling
        self.m = keep

    def _rotate(self, S: np.ndarray, m: int) -> None:
        """Replace the first rows by ``S^T V`` in place, a tile of columns at a time."""
        for first in range(0, self.n, _TILE):
            tile = slice(first, min(first + _TILE, self.n))
            self.V[: S.shape[1], tile] = self.backend.combine(S.T, self.V[:m, tile])

    def vectors(self, wanted: np.ndarray) -> tuple[np.ndarray, Array]:
        """Ritz values and vectors (rows) of the wanted pairs."""
        return self.theta[wanted].copy(), self.backend.combine(self.S[:, wanted].T, self.V[: self.m])

    def true_residuals(self, values: np.ndarray, vectors: Array) -> np.ndarray:
        """``|A x - theta x|`` by one product each."""
        products = self.operator.matmat(vectors.T)
        self.num_matvecs += len(values)
        norms = []
        for i, value in enumerate(values):
            r = self.backend.empty((self.n,), self.operator.dtype)
            r[...] = products[:, i]
            self.backend.axpy(-value, vectors[i], r)
            norms.append(self._host(self.backend.norm(r)))
        return np.array(norms)
