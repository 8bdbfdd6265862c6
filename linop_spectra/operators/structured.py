"""Operators with a closed form: identity, diagonal, low rank."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends import Array, Backend, backend_of, get_backend
from .base import LinearOperator


class IdentityOperator(LinearOperator):
    """The identity."""

    def __init__(self, n: int, dtype: Any, backend: str | Backend | None) -> None:
        super().__init__((n, n), dtype, hermitian=True, positive_semidefinite=True, backend=backend)

    def _matmat(self, x: Array) -> Array:
        return x


class DiagonalOperator(LinearOperator):
    """A diagonal matrix."""

    def __init__(self, diagonal: Array, backend: Backend) -> None:
        self.diagonal = diagonal
        real = diagonal.dtype.kind != "c"
        super().__init__(
            (diagonal.shape[0],) * 2,
            diagonal.dtype,
            hermitian=True if real else bool((diagonal.imag == 0).all()),
            positive_semidefinite=bool((diagonal >= 0).all()) if real else None,
            backend=backend,
        )

    def _matmat(self, x: Array) -> Array:
        return self.diagonal[:, None] * x

    def _rmatmat(self, x: Array) -> Array:
        return self.diagonal.conj()[:, None] * x


class LowRankOperator(LinearOperator):
    """``U diag(s) U^H``."""

    def __init__(self, factor: Array, values: Array, backend: Backend) -> None:
        self.factor, self.values = factor, values
        n = factor.shape[0]
        super().__init__(
            (n, n), factor.dtype, hermitian=True, positive_semidefinite=bool((values >= 0).all()), backend=backend
        )

    def _matmat(self, x: Array) -> Array:
        return self.factor @ (self.values[:, None] * (self.factor.conj().T @ x))

    def _details(self) -> str:
        return f"rank {self.factor.shape[1]}"


def _floating(x: Array) -> Array:
    return x if x.dtype.kind in "fc" else x.astype(np.float64)


def identity(n: int, *, dtype: Any = np.float64, backend: str | Backend | None = None) -> LinearOperator:
    """The identity of order `n`.

    Parameters
    ----------
    n : int
        Order.
    dtype : dtype
        Type of the vectors.
    backend : str, Backend or None
        Where the vectors live; NumPy by default.

    Returns
    -------
    LinearOperator
        Shape (n, n).

    Examples
    --------
    >>> import linop_spectra as ls
    >>> ls.identity(3) @ [1.0, 2.0, 3.0]
    array([1., 2., 3.])
    """
    return IdentityOperator(n, dtype, backend)


def diagonal_operator(diagonal: Any, *, backend: str | Backend | None = None) -> LinearOperator:
    """The matrix with the given diagonal.

    Parameters
    ----------
    diagonal : array
        Shape (n,), real or complex; integers become double precision.
    backend : str, Backend or None
        Where the vectors live; by default where `diagonal` lives.

    Returns
    -------
    LinearOperator
        Shape (n, n).

    Examples
    --------
    >>> import linop_spectra as ls
    >>> ls.diagonal_operator([1.0, 10.0]) @ [2.0, 3.0]
    array([ 2., 30.])
    """
    resolved = get_backend(backend) if backend is not None else backend_of(diagonal)
    values = resolved.asarray(diagonal)
    if len(values.shape) != 1:
        raise ValueError(f"The argument diagonal must have shape (n,), but has shape {tuple(values.shape)}.")
    return DiagonalOperator(_floating(values), resolved)


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
    resolved = get_backend(backend) if backend is not None else backend_of(factor)
    columns = _floating(resolved.asarray(factor))
    if len(columns.shape) != 2:
        raise ValueError(f"The argument factor must have shape (n, r), but has shape {tuple(columns.shape)}.")
    weights = resolved.asarray(values)
    if tuple(weights.shape) != (columns.shape[1],) or weights.dtype.kind == "c":
        raise ValueError(
            f"The argument values must be {columns.shape[1]} real numbers, one for each column of factor, "
            f"but has shape {tuple(weights.shape)} and dtype {weights.dtype}."
        )
    return LowRankOperator(columns, weights.astype(columns.real.dtype), resolved)
