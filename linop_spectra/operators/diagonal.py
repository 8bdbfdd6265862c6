"""Diagonal matrices."""

from __future__ import annotations

from typing import Any

from ..backends import Array, Backend, resolve_backend
from .base import LinearOperator
from .dtypes import as_floating


class DiagonalOperator(LinearOperator):
    """A diagonal matrix."""

    def __init__(self, diagonal: Array, backend: Backend) -> None:
        self.diagonal = diagonal
        dtype = backend.dtype_of(diagonal)
        real = dtype.kind != "c" or not backend.any(backend.imag(diagonal) != 0)
        super().__init__(
            (diagonal.shape[0],) * 2,
            dtype,
            hermitian=real,
            positive_semidefinite=real and not backend.any(~(backend.real(diagonal) >= 0)),
            backend=backend,
        )

    def _matmat(self, x: Array) -> Array:
        return self.diagonal[:, None] * x

    def _rmatmat(self, x: Array) -> Array:
        return self.backend.conj(self.diagonal)[:, None] * x


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
    resolved = resolve_backend(diagonal, backend)
    values = resolved.asarray(diagonal)
    if len(values.shape) != 1:
        raise ValueError(f"The argument diagonal must have shape (n,), but has shape {tuple(values.shape)}.")
    return DiagonalOperator(as_floating(values, resolved), resolved)
