"""Diagonal approximations: the diagonal itself, and a multiple of the identity."""

from __future__ import annotations

import math
import time
from typing import Any, Literal, get_args

import numpy as np

from .._progress import Progress
from ..backends import Array
from ..estimators import diagonal, trace
from ..operators import LinearOperator, diagonal_operator, identity
from ..operators.matrix import MatrixOperator
from .approximation import Approximation, require_invertible

Method = Literal["auto", "exact", "hutchinson", "xdiag"]


class DiagonalApproximation(Approximation):
    """A diagonal matrix.

    Parameters
    ----------
    diagonal : array
        Shape (n,), real, on the operator's backend.
    source : LinearOperator
        What it stands for; says backend and type of the vectors.
    kind, method, source_matvecs, seconds
        As for `Approximation`.
    standard_error : array, optional
        Standard error of each entry, shape (n,); None where the entries are exact.

    Attributes
    ----------
    diagonal, standard_error : array
        As above.
    """

    def __init__(self, diagonal: Array, source: Any, kind: str, *, standard_error: Array | None = None, **about: Any) -> None:
        backend = source.backend
        self.diagonal = backend.asarray(diagonal, dtype=source.dtype) + 0
        self.standard_error = standard_error
        super().__init__(diagonal_operator(self.diagonal, backend=backend), kind, **about)

    def _solve(self, x: Array, damping: float) -> Array:
        sums = self.diagonal + damping
        sizes = abs(self.backend.to_numpy(sums))
        require_invertible(float(sizes.min()), damping, damping, "The diagonal")  # small entries are no rounding; what cancels is
        return x / sums[:, None]

    def eigenvalues(self) -> np.ndarray:
        """The entries in ascending order, shape (n,)."""
        return np.sort(np.real(self.backend.to_numpy(self.diagonal)).astype(np.float64))

    def top_vectors(self, k: int) -> Array:
        """Unit vectors of the k entries of largest modulus, shape (n, k)."""
        entries = np.real(self.backend.to_numpy(self.diagonal)).astype(np.float64)
        chosen = np.argsort(-abs(entries), kind="stable")[:k]
        units = np.zeros((len(entries), len(chosen)), dtype=self.dtype)
        units[chosen, np.arange(len(chosen))] = 1
        return self.backend.asarray(units)


class ScalarApproximation(Approximation):
    """A multiple of the identity.

    Parameters
    ----------
    value : float
        The multiple.
    source : LinearOperator
        What it stands for.
    standard_error : float
        Of the multiple.
    **about
        As for `Approximation`.

    Attributes
    ----------
    value, standard_error : float
        As above.
    """

    def __init__(self, value: float, source: LinearOperator, *, standard_error: float = 0.0, **about: Any) -> None:
        self.value, self.standard_error = float(value), float(standard_error)
        super().__init__(value * identity(source.shape[0], dtype=source.dtype, backend=source.backend), "scalar", **about)

    @property
    def diagonal(self) -> Array:
        """The multiple n times, shape (n,)."""
        out = self.backend.empty((self.shape[0],), self.dtype)
        out[...] = self.value
        return out

    def _solve(self, x: Array, damping: float) -> Array:
        total = self.value + damping
        require_invertible(abs(total), damping, damping, "The multiple of the identity")
        return x / total

    def eigenvalues(self) -> np.ndarray:
        """The multiple n times, shape (n,)."""
        return np.full(self.shape[0], self.value)


def stored_diagonal(operator: LinearOperator) -> Array | None:
    """The diagonal of an explicit matrix, read from it as it is; None for other operators, and where the library cannot read it."""
    if not isinstance(operator, MatrixOperator) or not hasattr(operator.matrix, "diagonal"):
        return None
    backend = operator.backend
    return backend.asarray(backend.real(backend.asarray(operator.matrix.diagonal())), dtype=np.float64)


def diagonal_approximation(
    source: LinearOperator,
    *,
    method: Method = "auto",
    num_matvecs: int | None = None,
    tol: float | None = None,
    seed: int = 0,
    time_budget: float | None = None,
    progress: Progress = None,
) -> DiagonalApproximation:
    """The diagonal of a matrix, exact or estimated; see `approximate`."""
    if method not in get_args(Method):
        raise ValueError(f"The argument method is {method!r}, but must be one of {', '.join(map(repr, get_args(Method)))}.")
    began = time.perf_counter()
    if method in ("auto", "exact") and (entries := stored_diagonal(source)) is not None:
        return DiagonalApproximation(entries, source, "diagonal", method="exact", seconds=time.perf_counter() - began)
    found = diagonal(
        source, method=method, num_matvecs=num_matvecs, tol=tol, seed=seed, time_budget=time_budget, progress=progress
    )
    return DiagonalApproximation(
        found.value, source, "diagonal", standard_error=None if found.method == "exact" else found.standard_error, method=found.method,
        source_matvecs=found.num_matvecs, seconds=time.perf_counter() - began,
    )  # fmt: skip


def scalar_approximation(source: LinearOperator, **options: Any) -> ScalarApproximation:
    """The multiple of the identity with the same trace; `options` are those of `linop_spectra.trace`."""
    n, began = source.shape[0], time.perf_counter()
    if not options and (entries := stored_diagonal(source)) is not None:
        total = math.fsum(source.backend.to_numpy(entries).tolist())
        return ScalarApproximation(total / n, source, method="exact", seconds=time.perf_counter() - began)
    found = trace(source, **options)
    return ScalarApproximation(
        found.value / n, source, standard_error=found.standard_error / n, method=f"trace by {found.method}",
        source_matvecs=found.num_matvecs, seconds=time.perf_counter() - began,
    )  # fmt: skip
