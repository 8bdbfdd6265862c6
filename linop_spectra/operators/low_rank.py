"""Hermitian matrices of low rank."""

from __future__ import annotations

from typing import Any

from ..backends import Array, Backend, resolve_backend
from .base import LinearOperator
from .dtypes import as_floating


class LowRankOperator(LinearOperator):
    """``U diag(s) U^H``."""

    def __init__(self, factor: Array, values: Array, backend: Backend) -> None:
        self.factor, self.values = factor, values
        n = factor.shape[0]
        positive = not backend.any(~(backend.real(values) >= 0))
        # One negative value makes the sum indefinite only where no other columns span the same direction.
        super().__init__(
            (n, n), backend.dtype_of(factor), hermitian=True, positive_semidefinite=True if positive else None, backend=backend
        )

    def _matmat(self, x: Array) -> Array:
        return self.factor @ (self.values[:, None] * (self.backend.conj(self.factor).T @ x))

    def _details(self) -> str:
        return f"rank {self.factor.shape[1]}"


def low_rank(factor: Any, values: Any, *, backend: str | Backend | None = None) -> LinearOperator:
    """The Hermitian matrix ``U diag(s) U^H`` of rank at most r.

    Parameters
    ----------
    factor : array
        U, shape (n, r); its columns need not be orthogonal.
    values : array
        s, real, shape (r,).
    backend : str, Backend or None
        Where the vectors live; by default where `factor` lives.

    Returns
    -------
    LinearOperator
        Shape (n, n).

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> ls.low_rank(np.ones((4, 1)), [2.0]) @ np.ones(4)
    array([8., 8., 8., 8.])
    """
    resolved = resolve_backend(factor, backend)
    columns = as_floating(resolved.asarray(factor), resolved)
    if len(columns.shape) != 2:
        raise ValueError(f"The argument factor must have shape (n, r), but has shape {tuple(columns.shape)}.")
    weights = resolved.asarray(values)
    if tuple(weights.shape) != (columns.shape[1],) or resolved.dtype_of(weights).kind == "c":
        raise ValueError(
            f"The argument values must be {columns.shape[1]} real numbers, one for each column of factor, "
            f"but has shape {tuple(weights.shape)} and dtype {resolved.dtype_of(weights)}."
        )
    return LowRankOperator(columns, resolved.asarray(weights, dtype=resolved.dtype_of(columns)), resolved)
