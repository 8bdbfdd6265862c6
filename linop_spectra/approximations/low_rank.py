"""Low-rank approximations, alone and on top of a diagonal."""

from __future__ import annotations

import time
from typing import Any, Literal

import numpy as np

from .._progress import Progress
from ..backends import Array
from ..krylov import EigenResult, eigsh
from ..krylov.eigsh import Which
from ..operators import LinearOperator, deflate, diagonal_operator, identity, low_rank
from .approximation import Approximation, require_invertible
from .diagonal import DiagonalApproximation, diagonal_approximation, scalar_approximation, stored_diagonal

_NEGLIGIBLE = 1e-6


class LowRankApproximation(Approximation):
    r"""Some eigenpairs and a multiple of the identity outside of them, :math:`U \Lambda U^\top + c (I - U U^\top)`.

    Parameters
    ----------
    values : numpy.ndarray
        Eigenvalues, shape (k,).
    vectors : array
        Orthonormal columns, shape (n, k), on the operator's backend.
    remainder : float
        The multiple c; zero for a matrix of rank k.
    kind : str
        What it is called.
    **about
        As for `Approximation`.

    Attributes
    ----------
    values, vectors, remainder
        As above.
    """

    def __init__(
        self, values: np.ndarray, vectors: Array, source: LinearOperator, *, remainder: float = 0.0, kind: str, **about: Any
    ) -> None:
        backend = source.backend
        self.values = np.asarray(values, dtype=np.float64)
        self.vectors = backend.asarray(vectors, dtype=source.dtype)
        self.remainder = float(remainder)
        inner = low_rank(self.vectors, backend.asarray(self.values - self.remainder, dtype=_real(source.dtype)), backend=backend)
        if self.remainder:
            inner = inner + self.remainder * identity(source.shape[0], dtype=source.dtype, backend=backend)
        super().__init__(inner, kind, **about)
        self.positive_semidefinite = bool(self.remainder >= 0 and self.values.min(initial=0.0) >= 0) or None

    def _solve(self, x: Array, damping: float) -> Array:
        backend, rest = self.backend, self.remainder + damping
        sums = self.values + damping
        sizes = np.abs(np.append(sums, rest) if len(sums) < self.shape[0] else sums)
        require_invertible(float(sizes.min()), float(sizes.max()), damping, f"The {self.kind} approximation")
        inverse = 1 / sums
        if len(sums) == self.shape[0]:
            rest = 1.0  # the pairs are all there is
            inverse = inverse - 1.0
        else:
            inverse = inverse - 1 / rest
        scale = backend.asarray(inverse, dtype=_real(self.dtype))
        coefficients = backend.conj(self.vectors).T @ x
        return x / rest + self.vectors @ (scale[:, None] * coefficients)

    def eigenvalues(self) -> np.ndarray:
        """The pairs' and the remainder n - k times, in ascending order, shape (n,)."""
        return np.sort(np.append(self.values, np.full(self.shape[0] - len(self.values), self.remainder)))

    def top_vectors(self, k: int) -> Array | None:
        """The pairs' vectors of largest modulus; None where more of them are asked for than are larger than the remainder."""
        order = np.argsort(-np.abs(self.values), kind="stable")[:k]
        if len(order) < k or np.abs(self.values[order]).min() <= abs(self.remainder):
            return None
        return self.backend.gather(self.vectors, order)


class LowRankPlusDiagonal(Approximation):
    r"""Some eigenpairs plus a diagonal, :math:`U \Lambda U^\top + D`.

    `solve` is the identity of Woodbury, with the rows in which D plus damping vanishes taken into the low rank.

    Parameters
    ----------
    values : numpy.ndarray
        Shape (k,).
    vectors : array
        Orthonormal columns, shape (n, k).
    rest : array
        The diagonal D, real, shape (n,).
    source : LinearOperator
        What it stands for.
    **about
        As for `Approximation`.

    Attributes
    ----------
    values, vectors, rest
        As above.
    """

    def __init__(self, values: np.ndarray, vectors: Array, rest: Array, source: LinearOperator, **about: Any) -> None:
        backend = source.backend
        self.values = np.asarray(values, dtype=np.float64)
        self.vectors = backend.asarray(vectors, dtype=source.dtype)
        self.rest = backend.asarray(rest, dtype=source.dtype) + 0
        pairs = low_rank(self.vectors, backend.asarray(self.values, dtype=_real(source.dtype)), backend=backend)
        super().__init__(pairs + diagonal_operator(self.rest, backend=backend), "low_rank_plus_diagonal", **about)

    @property
    def diagonal(self) -> Array:
        """Diagonal of the sum, shape (n,)."""
        weights = self.backend.asarray(self.values, dtype=_real(self.dtype))
        return self.rest + (abs(self.vectors) ** 2) @ weights

    def _solve(self, x: Array, damping: float) -> Array:
        backend, n = self.backend, self.shape[0]
        entries = np.real(self.backend.to_numpy(self.rest)).astype(np.float64) + damping
        vectors, weights = self.vectors, self.values
        largest = max(float(np.abs(entries).max()), float(np.abs(weights).max(initial=0.0)))
        small = np.flatnonzero(np.abs(entries) <= _NEGLIGIBLE * largest)
        if len(small) > len(weights):  # more than the pairs can make up for
            tiny = float(np.sort(np.abs(entries))[len(weights)])
            require_invertible(tiny, largest, damping, f"The {self.kind} approximation")
            small = np.flatnonzero(entries == 0)
        if len(small):
            units = np.zeros((n, len(small)), dtype=self.dtype)
            units[small, np.arange(len(small))] = 1
            wide = backend.empty((len(weights) + len(small), n), self.dtype).T
            wide[:, : len(weights)] = vectors
            wide[:, len(weights) :] = backend.asarray(units)
            entries = entries.copy()
            entries[small] += largest
            vectors, weights = wide, np.append(weights, np.full(len(small), -largest))
        inverse = backend.asarray(1 / entries, dtype=self.dtype)[:, None]
        started = inverse * x
        # (E + V W V^H)^-1 x = y - E^-1 V (I + W V^H E^-1 V)^-1 W V^H y with y = E^-1 x: no inverse of W, which may hold zeros.
        adjoint = backend.conj(vectors).T
        gram = backend.to_numpy(adjoint @ (inverse * vectors))
        core = np.eye(len(weights)) + weights[:, None] * gram
        singular = np.linalg.svd(core, compute_uv=False)
        require_invertible(float(singular.min(initial=1.0)), float(singular.max(initial=1.0)), damping, f"The {self.kind} approximation")
        inner = np.linalg.solve(core, weights[:, None] * backend.to_numpy(adjoint @ started))
        return started - inverse * (vectors @ backend.asarray(np.ascontiguousarray(inner), dtype=self.dtype))


def _real(dtype: np.dtype) -> np.dtype:
    return np.empty(0, dtype=dtype).real.dtype


def _pairs(
    source: LinearOperator, rank: int, which: Which, tol: float, seed: int, time_budget: float | None, progress: Progress
) -> EigenResult:
    n = source.shape[0]
    if isinstance(rank, bool) or not isinstance(rank, int | np.integer) or not 1 <= rank <= n:
        raise ValueError(f"The argument rank must be a whole number from 1 to the order {n}, but is {rank!r}.")
    return eigsh(source, k=int(rank), which=which, tol=tol, seed=seed, time_budget=time_budget, progress=progress)


def low_rank_approximation(
    source: LinearOperator,
    *,
    rank: int = 10,
    which: Which = "LM",
    tol: float = 1e-6,
    seed: int = 0,
    time_budget: float | None = None,
    progress: Progress = None,
) -> LowRankApproximation:
    """The eigenpairs of largest modulus; see `approximate`."""
    pairs = _pairs(source, rank, which, tol, seed, time_budget, progress)
    return LowRankApproximation(
        pairs.eigenvalues, pairs.eigenvectors, source, kind="low_rank", method=f"{rank} pairs", source_matvecs=pairs.num_matvecs,
        seconds=pairs.seconds,
    )  # fmt: skip


def low_rank_plus_diagonal(
    source: LinearOperator,
    *,
    rank: int = 10,
    which: Which = "LM",
    remainder: Literal["diagonal", "scalar"] = "diagonal",
    method: str = "auto",
    num_matvecs: int | None = None,
    tol: float = 1e-6,
    seed: int = 0,
    time_budget: float | None = None,
    progress: Progress = None,
) -> LowRankApproximation | LowRankPlusDiagonal:
    """Eigenpairs and what is left of the diagonal, or its mean; see `approximate`."""
    if remainder not in ("diagonal", "scalar"):
        raise ValueError(f"The argument remainder is {remainder!r}, but must be 'diagonal' or 'scalar'.")
    began = time.perf_counter()
    pairs = _pairs(source, rank, which, tol, seed, time_budget, progress)
    n = source.shape[0]
    # What the pairs leave is what has to be estimated: its rows are shorter.
    left = deflate(source, pairs.eigenvalues, pairs.eigenvectors)
    words = f"{rank} pairs and the remaining "
    options: dict[str, Any] = {"method": method, "num_matvecs": num_matvecs, "seed": seed, "time_budget": time_budget, "progress": progress}
    stored = stored_diagonal(source) if method in ("auto", "exact") else None
    if stored is not None:
        weights = source.backend.asarray(pairs.eigenvalues)
        stored = stored - (source.backend.asarray(abs(pairs.eigenvectors), dtype=np.float64) ** 2) @ weights
    if remainder == "scalar":
        if stored is not None:
            value, spent, how = float(np.sum(source.backend.to_numpy(stored))), 0, "exact"
        else:
            found = scalar_approximation(left, **options)
            value, spent, how = found.value * n, found.source_matvecs, found.method
        constant = value / (n - rank) if rank < n else 0.0
        return LowRankApproximation(
            pairs.eigenvalues, pairs.eigenvectors, source, remainder=constant, kind="low_rank_plus_diagonal",
            method=f"{words}scalar ({how})", source_matvecs=pairs.num_matvecs + spent, seconds=time.perf_counter() - began,
        )  # fmt: skip
    rest: DiagonalApproximation = (
        DiagonalApproximation(stored, source, "diagonal", method="exact") if stored is not None else diagonal_approximation(left, **options)
    )
    return LowRankPlusDiagonal(
        pairs.eigenvalues, pairs.eigenvectors, rest.diagonal, source, method=f"{words}diagonal ({rest.method})",
        source_matvecs=pairs.num_matvecs + rest.source_matvecs, seconds=time.perf_counter() - began,
    )  # fmt: skip


__all__ = ["LowRankApproximation", "LowRankPlusDiagonal", "low_rank_approximation", "low_rank_plus_diagonal"]
