"""Krylov vectors and orthogonalisation against them, wherever there is room for them.

A basis is a list of orthonormal rows that grows. `DenseBasis` keeps them as they are. `StoredBasis` keeps the newest three as
they are and the others in half precision or in the memory of the host; they come back a tile at a time.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backends import Array, Backend, Scalar, get_backend

ROWS_PER_CHUNK = 16
"""Rows of a chunk. It is fixed, so that a run that was continued does the same operations as one that was not."""
# Columns that come back from storage at a time: what fits a processor's cache, or keeps a device busy.
_TILE, _DEVICE_TILE = 1 << 15, 1 << 22
EXACT_ROWS = 3
"""Newest rows that a stored basis keeps as they are: two for the recurrence, one more for a step that is given up."""
_LARGEST_EXPONENT = 15  # 2 ** 15 times a number up to one is still a float16


class Basis(abc.ABC):
    """Orthonormal vectors as rows of length `n`.

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
        self.length = 0

    @abc.abstractmethod
    def append(self) -> Array:
        """A new row, uninitialised, to be written by the caller before the next one is asked for."""

    @abc.abstractmethod
    def row(self, index: int) -> Array:
        """One vector, in the type of the basis; not to be written to."""

    @abc.abstractmethod
    def remove_components(self, w: Array, length: int) -> list[Array]:
        """One Gram-Schmidt pass against the first `length` vectors, ``w -= V^H (V w)`` in place; returns the coefficients."""

    @abc.abstractmethod
    def coefficients(self, w: Array, length: int) -> np.ndarray:
        """Inner products of the first `length` vectors with `w`, on the host."""

    @abc.abstractmethod
    def combine(self, coefficients: np.ndarray) -> Array:
        """Linear combinations of the first vectors: coefficients (m, j) to rows (m, n)."""

    @abc.abstractmethod
    def like(self, backend: Backend) -> Basis:
        """An empty basis of the same kind on a backend."""

    def fork(self, length: int, backend: Backend | None = None) -> Basis:
        """The first `length` vectors on a backend: this basis itself when nothing has to change, else a copy."""
        backend = backend or self.backend
        length = min(length, self.length)
        if length == self.length and backend.name == self.backend.name:
            return self
        copy = self.like(backend)
        for index in range(length):
            copy.append()[...] = backend.asarray(self.row(index))
        return copy

    def to_numpy(self, length: int) -> np.ndarray:
        """The first `length` vectors on the host, shape (length, n)."""
        return np.stack([self.backend.to_numpy(self.row(index)) for index in range(length)])

    def storage_errors(self) -> list[Scalar]:
        """What the form of storage does to inner products with later vectors, one sample for each vector; empty if nothing."""
        return []


class DenseBasis(Basis):
    """Vectors in chunks that are allocated as the basis grows."""

    def __init__(self, backend: Backend, n: int, dtype: Any) -> None:
        super().__init__(backend, n, dtype)
        self._chunks: list[Array] = []

    def append(self) -> Array:
        """A new row of the last chunk."""
        if self.length == len(self._chunks) * ROWS_PER_CHUNK:
            self._chunks.append(self.backend.empty((ROWS_PER_CHUNK, self.n), self.dtype))
        self.length += 1
        return self.row(self.length - 1)

    def row(self, index: int) -> Array:
        """View of one vector."""
        chunk, offset = divmod(index, ROWS_PER_CHUNK)
        return self._chunks[chunk][offset, :]

    def _cover(self, length: int) -> Iterator[tuple[int, Array]]:
        for first in range(0, length, ROWS_PER_CHUNK):
            yield first, self._chunks[first // ROWS_PER_CHUNK][: min(ROWS_PER_CHUNK, length - first), :]

    def remove_components(self, w: Array, length: int) -> list[Array]:
        """Chunk by chunk, by two matrix-vector products each."""
        removed = []
        for _, rows in self._cover(length):
            coefficients = self.backend.reduce(self.backend.gemv_t(rows, w))
            self.backend.gemv_n_sub(rows, coefficients, w)
            removed.append(coefficients)
        return removed

    def coefficients(self, w: Array, length: int) -> np.ndarray:
        """Inner products, chunk by chunk."""
        return np.concatenate([self.backend.to_numpy(self.backend.gemv_t(rows, w)) for _, rows in self._cover(length)])

    def combine(self, coefficients: np.ndarray) -> Array:
        """Sum over the chunks."""
        total = None
        for first, rows in self._cover(coefficients.shape[1]):
            part = self.backend.combine(coefficients[:, first : first + rows.shape[0]], rows)
            total = part if total is None else total + part
        return total

    def like(self, backend: Backend) -> Basis:
        """An empty dense basis."""
        return DenseBasis(backend, self.n, self.dtype)


class StoredBasis(Basis):
    """Vectors in a narrower type, or in the memory of the host; the newest three stay as they are.

    The recurrence itself uses only the newest two, so that storage touches nothing but the orthogonality of the vectors: it
    stays far below the square root of the unit of rounding, and then the coefficients are those of exact storage (Simon,
    1984). Numbers of half precision are scaled to order one by a power of two.

    Parameters
    ----------
    backend, n, dtype
        As for `Basis`.
    storage : dtype
        Real type that the numbers are kept in.
    on_host : bool
        Whether they are kept in the memory of the host.
    """

    def __init__(self, backend: Backend, n: int, dtype: Any, *, storage: Any, on_host: bool = False) -> None:
        super().__init__(backend, n, dtype)
        self.storage, self.on_host = np.dtype(storage), on_host
        half = self.storage == np.float16
        self._tile = _TILE if backend.eager_scalars else _DEVICE_TILE
        self._factor = 2.0 ** min(round(math.log2(n) / 2), _LARGEST_EXPONENT) if half else 1.0
        self._store: Backend = get_backend("numpy") if on_host else backend
        self._chunks: list[list[Array]] = []
        self._exact = [backend.empty((n,), dtype) for _ in range(EXACT_ROWS)]
        self._errors: list[Scalar] = []

    def append(self) -> Array:
        """A buffer for a new row; what it held is stored away."""
        oldest = self.length - EXACT_ROWS
        if oldest >= 0:
            self._put(oldest, self._exact[oldest % EXACT_ROWS])
        self.length += 1
        return self._exact[(self.length - 1) % EXACT_ROWS]

    def row(self, index: int) -> Array:
        """The vector itself where it is one of the newest, else as it was stored."""
        if index >= self.length - EXACT_ROWS:
            return self._exact[index % EXACT_ROWS]
        whole = self.backend.empty((1, self.n), self.dtype)
        for columns in self._tiles():
            whole[:, columns] = self._get(index, index + 1, columns)
        return whole[0, :]

    def _parts(self, x: Array) -> tuple[Array, ...]:
        return (self._store.real(x), self._store.imag(x)) if self.dtype.kind == "c" else (x,)

    def _put(self, index: int, x: Array) -> None:
        chunk, offset = divmod(index, ROWS_PER_CHUNK)
        if chunk == len(self._chunks):
            parts = 2 if self.dtype.kind == "c" else 1
            self._chunks.append([self._store.empty((ROWS_PER_CHUNK, self.n), self.storage) for _ in range(parts)])
        source = self.backend.to_numpy(x) if self.on_host else x
        for kept, part in zip(self._chunks[chunk], self._parts(source), strict=True):
            for columns in self._tiles():
                kept[offset, columns] = self._store.asarray(part[columns] * self._factor, dtype=self.storage)
        if self.storage.itemsize < np.dtype(self.dtype.char.lower()).itemsize:
            # The newest vector was orthogonal to the exact one: what the stored one has of it is the error.
            newest = self._exact[(self.length - 1) % EXACT_ROWS]
            error: Scalar = 0.0
            for columns in self._tiles():
                change = self._get(index, index + 1, columns)[0, :] - x[columns]
                error = error + self.backend.dot(newest[columns], change)
            self._errors.append(abs(error))

    def _get(self, first: int, last: int, columns: slice) -> Array:
        """Rows of one chunk, some columns of them, in the type of the basis and on its backend."""
        chunk, offset = divmod(first, ROWS_PER_CHUNK)
        rows = slice(offset, offset + last - first)
        wide = np.dtype(self.dtype.char.lower())
        parts = [self.backend.asarray(part[rows, columns], dtype=wide) for part in self._chunks[chunk]]
        whole = parts[0] if len(parts) == 1 else parts[0] + 1j * parts[1]
        whole = whole if self._factor == 1.0 else whole * (1 / self._factor)
        return self.backend.contiguous(whole, self.dtype)

    def _tiles(self) -> Iterator[slice]:
        for first in range(0, self.n, self._tile):
            yield slice(first, min(first + self._tile, self.n))

    def _cover(self, length: int) -> Iterator[tuple[int, int]]:
        """Stored rows, chunk by chunk."""
        stored = min(length, max(self.length - EXACT_ROWS, 0))
        for first in range(0, stored, ROWS_PER_CHUNK):
            yield first, min(first + ROWS_PER_CHUNK, stored)

    def _newest(self, length: int) -> range:
        return range(min(length, max(self.length - EXACT_ROWS, 0)), length)

    def _inner(self, first: int, last: int, w: Array) -> Array:
        total: Any = 0.0
        for columns in self._tiles():
            total = self.backend.gemv_t(self._get(first, last, columns), w[columns]) + total
        return total

    def remove_components(self, w: Array, length: int) -> list[Array]:
        """A chunk at a time, and of that a tile of columns at a time; the newest vectors one by one."""
        removed = []
        for first, last in self._cover(length):
            coefficients = self.backend.reduce(self._inner(first, last, w))
            for columns in self._tiles():
                self.backend.gemv_n_sub(self._get(first, last, columns), coefficients, w[columns])
            removed.append(coefficients)
        for index in self._newest(length):
            rows = self.row(index)[None, :]
            coefficients = self.backend.reduce(self.backend.gemv_t(rows, w))
            self.backend.gemv_n_sub(rows, coefficients, w)
            removed.append(coefficients)
        return removed

    def coefficients(self, w: Array, length: int) -> np.ndarray:
        """Inner products, chunk by chunk."""
        stored = [self.backend.to_numpy(self._inner(first, last, w)) for first, last in self._cover(length)]
        newest = [self.backend.to_numpy(self.backend.gemv_t(self.row(index)[None, :], w)) for index in self._newest(length)]
        return np.concatenate([*stored, *newest])

    def combine(self, coefficients: np.ndarray) -> Array:
        """Sum over chunks and the newest vectors, a tile of columns at a time."""
        m, length = coefficients.shape
        total = self.backend.empty((m, self.n), self.dtype)
        for columns in self._tiles():
            part: Any = 0.0
            for first, last in self._cover(length):
                part = self.backend.combine(coefficients[:, first:last], self._get(first, last, columns)) + part
            for index in self._newest(length):
                row = self.backend.contiguous(self.row(index)[None, columns])
                part = self.backend.combine(coefficients[:, index : index + 1], row) + part
            total[:, columns] = part
        return total

    def like(self, backend: Backend) -> Basis:
        """An empty basis with the same storage."""
        return StoredBasis(backend, self.n, self.dtype, storage=self.storage, on_host=self.on_host)

    def storage_errors(self) -> list[Scalar]:
        """Samples of the orthogonality that the type of storage costs."""
        return self._errors
