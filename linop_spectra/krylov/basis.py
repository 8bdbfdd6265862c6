"""Storage of Krylov vectors and orthogonalisation against them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backends import Array, Backend

ROWS_PER_CHUNK = 16
"""Rows of a chunk. It is fixed, so that a run that was continued does the same operations as one that was not."""


class Basis:
    """Orthonormal vectors as rows, in chunks that are allocated as the basis grows.

    Parameters
    ----------
    backend : Backend
        Array library.
    n : int
        Length of the vectors.
    dtype : dtype
        Type of the vectors.
    """

    def __init__(self, backend: Backend, n: int, dtype: Any) -> None:
        self.backend, self.n, self.dtype = backend, n, np.dtype(dtype)
        self._chunks: list[Array] = []
        self.length = 0

    def append(self) -> Array:
        """A new row, uninitialised, to be written by the caller."""
        if self.length == len(self._chunks) * ROWS_PER_CHUNK:
            self._chunks.append(self.backend.empty((ROWS_PER_CHUNK, self.n), self.dtype))
        self.length += 1
        return self.row(self.length - 1)

    def row(self, index: int) -> Array:
        """View of one vector."""
        chunk, offset = divmod(index, ROWS_PER_CHUNK)
        return self._chunks[chunk][offset]

    def chunks(self, length: int | None = None) -> Iterator[tuple[int, Array]]:
        """Pairs (first index, rows) that cover the first `length` vectors."""
        length = self.length if length is None else length
        for first in range(0, length, ROWS_PER_CHUNK):
            yield first, self._chunks[first // ROWS_PER_CHUNK][: min(ROWS_PER_CHUNK, length - first)]

    def fork(self, length: int) -> Basis:
        """The first `length` vectors: this basis itself when it has no more, else a copy."""
        if length == self.length:
            return self
        copy = Basis(self.backend, self.n, self.dtype)
        for index in range(length):
            copy.append()[...] = self.row(index)
        return copy

    def coefficients(self, w: Array, length: int) -> np.ndarray:
        """Inner products of the first `length` vectors with `w`, on the host."""
        parts = [self.backend.to_numpy(self.backend.gemv_t(rows, w)) for _, rows in self.chunks(length)]
        return np.concatenate(parts)

    def combine(self, coefficients: np.ndarray) -> Array:
        """Linear combinations of the first vectors: coefficients (m, j) to rows (m, n)."""
        total = None
        for first, rows in self.chunks(coefficients.shape[1]):
            part = self.backend.combine(coefficients[:, first : first + rows.shape[0]], rows)
            total = part if total is None else total + part
        return total

    def to_numpy(self, length: int) -> np.ndarray:
        """The first `length` vectors on the host, shape (length, n)."""
        return np.concatenate([self.backend.to_numpy(rows) for _, rows in self.chunks(length)])


def remove_components(basis: Basis, w: Array, length: int) -> list[Array]:
    """One Gram-Schmidt pass: ``w -= V^H (V w)`` chunk by chunk, in place.

    Returns
    -------
    list of array
        The coefficients that were removed, one array per chunk.
    """
    removed = []
    for _, rows in basis.chunks(length):
        coefficients = basis.backend.reduce(basis.backend.gemv_t(rows, w))
        basis.backend.gemv_n_sub(rows, coefficients, w)
        removed.append(coefficients)
    return removed


def basis_from(source: Basis, length: int, backend: Backend) -> Basis:
    """The first `length` vectors of a basis on a backend: the same object where nothing has to change, else a copy."""
    length = min(length, source.length)
    if source.backend.name == backend.name:
        return source.fork(length)
    copy = Basis(backend, source.n, source.dtype)
    for index in range(length):
        copy.append()[...] = backend.asarray(source.row(index))
    return copy
