"""An orthonormal basis of the span of vectors that come in one after the other, on any backend."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from ..backends import Array, Backend
from .basis import DenseBasis

_NEGLIGIBLE = 10.0
"""A vector is dependent on those before it when what is left of it is below this many units of rounding of the largest one."""


class OrthonormalRows:
    """Orthonormal rows Q that span the vectors given so far, and the triangular factor R.

    Each vector is orthogonalised against all before it, twice: then the basis is orthonormal to rounding whatever the
    vectors are (Giraud, Langou and Rozloznik, *The loss of orthogonality in the Gram-Schmidt orthogonalization process*,
    Comput. Math. Appl. 50, 2005). A vector that depends on the others adds no row.

    Parameters
    ----------
    backend : Backend
        Array library.
    n : int
        Length of the vectors.
    dtype : dtype
        Type of the vectors.

    Attributes
    ----------
    basis : DenseBasis
        The rows of Q, shape (rank, n).
    coefficients : numpy.ndarray
        R of shape (rank, count), double precision: the given vectors are ``R.T @ Q``.

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.backends import get_backend
    >>> rows = OrthonormalRows(get_backend("numpy"), 3, np.float64)
    >>> rows.append(np.array([[3.0, 0.0, 0.0], [4.0, 0.0, 0.0], [1.0, 2.0, 0.0]]))
    [True, False, True]
    >>> np.abs(rows.coefficients)
    array([[3., 4., 1.],
           [0., 0., 2.]])
    """

    def __init__(self, backend: Backend, n: int, dtype: np.dtype) -> None:
        self.backend, self.dtype = backend, np.dtype(dtype)
        self.basis = DenseBasis(backend, n, dtype)
        self.coefficients = np.zeros((0, 0), dtype=np.complex128 if self.dtype.kind == "c" else np.float64)
        self._work = backend.empty((n,), dtype)
        self._largest = 0.0

    @property
    def rank(self) -> int:
        """Rows of Q."""
        return self.basis.length

    @property
    def count(self) -> int:
        """Vectors given so far."""
        return self.coefficients.shape[1]

    def append(self, rows: Array) -> list[bool]:
        """Take in the rows of an array of shape (k, n), which is left as it is; says of each whether it was independent."""
        return [self._append(rows[i, :]) for i in range(rows.shape[0])]

    def keep(self, chosen: list[int]) -> None:
        """Forget the columns of R other than those named."""
        self.coefficients = self.coefficients[:, chosen]

    def newest(self, count: int) -> Array:
        """Copies of the last rows of Q, shape (count, n)."""
        rows = self.backend.empty((count, self.basis.n), self.dtype)
        for i in range(count):
            rows[i, :] = self.basis.row(self.rank - count + i)
        return rows

    @contextlib.contextmanager
    def undone_by_failure(self) -> Iterator[None]:
        """Context that, left by an exception, forgets the vectors that were taken in within it."""
        rank, count = self.rank, self.count
        try:
            yield
        except BaseException:
            self.basis.length, self.coefficients = rank, self.coefficients[:rank, :count]
            raise

    def _append(self, row: Array) -> bool:
        w, rank = self._work, self.rank
        w[...] = row
        before = self.backend.norm(w)
        column = np.zeros(rank + 1, dtype=self.coefficients.dtype)
        for _ in range(2):
            parts = self.basis.remove_components(w, rank)
            if parts:
                column[:rank] += np.concatenate([self.backend.to_numpy(part) for part in parts])
        size, left = np.real(self.backend.fetch([before, self.backend.norm(w)]))
        self._largest = max(self._largest, float(size))
        independent = rank < self.basis.n and float(left) > _NEGLIGIBLE * float(np.finfo(self.dtype).eps) * self._largest
        if independent:
            self.backend.scale_into(w, 1.0 / float(left), self.basis.append())
            column[rank] = left
        wider = np.zeros((self.rank, self.count + 1), dtype=self.coefficients.dtype)
        wider[:rank, :-1] = self.coefficients
        wider[:, -1] = column[: self.rank]
        self.coefficients = wider
        return independent
