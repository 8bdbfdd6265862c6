"""What a search for eigenpairs is asked for, and results that need no iteration."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from .._progress import Progress
from ..backends import Array
from ..operators import LinearOperator
from .dense import dense_pairs
from .eigen_result import EigenResult
from .thick_restart import Which as Extreme
from .thick_restart import true_residuals


@dataclasses.dataclass
class Search:
    """What is asked for, and how much may be spent on it."""

    operator: LinearOperator
    k: int
    which: Extreme
    tol: float
    start: Any
    block_size: int
    max_basis: int | None
    max_matvecs: int | None
    verify: bool
    seed: int
    time_budget: float | None
    progress: Progress
    began: float

    @property
    def free(self) -> bool:
        """Whether the caller has left the way to us."""
        return self.start is None and self.max_basis is None and self.max_matvecs is None and self.block_size == 1

    @property
    def late(self) -> bool:
        """Whether the time budget is spent."""
        return self.time_budget is not None and time.perf_counter() - self.began > self.time_budget


def from_dense(search: Search, which: str) -> EigenResult:
    """Pairs of the whole matrix, by LAPACK."""
    values, vectors, norm, products = dense_pairs(search.operator, search.k, which)
    return with_true_residuals(search, values, vectors, norm, products, "dense eigenvalue problem", verified=True)


def with_true_residuals(
    search: Search, values: np.ndarray, vectors: Array, norm: float, products: int, method: str, *, verified: bool
) -> EigenResult:
    """A result of pairs that were found by other means than the iteration: `products` without those for the residuals."""
    residuals = true_residuals(search.operator, values, vectors)
    converged = residuals <= search.tol * norm + 8 * float(np.finfo(search.operator.dtype).eps) * norm
    return EigenResult(
        values, vectors.T, residuals, converged, norm, products + search.k, time.perf_counter() - search.began,
        "complete" if converged.all() else "unconverged", method, verified,
    )  # fmt: skip
