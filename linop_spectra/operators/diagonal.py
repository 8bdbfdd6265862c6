"""Diagonal matrices."""

from __future__ import annotations

from typing import Any

from ..backends import Array, Backend, backend_of, get_backend
from .base import LinearOperator, as_floating


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
    return DiagonalOperator(as_floating(values), resolved)
