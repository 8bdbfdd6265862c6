"""Explicit matrices, dense or sparse."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends import Array, Backend
from ..backends.numpy_backend import matmul
from .base import LinearOperator

_ENTRIES_AT_A_TIME = 1 << 22


class MatrixOperator(LinearOperator):
    """An explicit matrix, dense or sparse, whose ``@`` multiplies blocks.

    Parameters
    ----------
    matrix : array or sparse matrix
        On the backend, of type `dtype`; it is read, never written to.
    dtype : dtype
        Type of the vectors.
    hermitian : bool or None
        Whether it equals its conjugate transpose.
    backend : Backend
        Where the vectors live.
    rounding : float
        Unit rounding of a narrower type that the entries once had; zero when there was none.
    """

    def __init__(self, matrix: Any, dtype: Any, hermitian: bool | None, backend: Backend, rounding: float = 0.0) -> None:
        self.matrix, self.rounding = matrix, rounding
        super().__init__(tuple(matrix.shape), dtype, hermitian=hermitian, backend=backend)

    def _matmat(self, x: Array) -> Array:
        if not self.gains_from_blocks:
            return self._column_by_column(x)
        # Of infinite entries and overflow the run itself says in which product it met them.
        with np.errstate(invalid="ignore", over="ignore"):
            return matmul(self.matrix, x)

    def _column_by_column(self, x: Array) -> Array:
        # SciPy's block product copies both blocks into another order, which costs more than it saves.
        if x.shape[1] == 1:
            return (self.matrix @ x[:, 0])[:, None]
        out = self.backend.empty((x.shape[1], self.shape[0]), self.dtype)
        for column in range(x.shape[1]):
            out[column, :] = self.matrix @ x[:, column]
        return out.T

    def _rmatmat(self, x: Array) -> Array:
        if self.hermitian:
            return self._matmat(x)
        # Conjugating the vectors instead of the matrix saves a copy of the matrix.
        matrix = self.matrix
        transposed = matrix.transpose(0, 1) if getattr(matrix, "is_sparse_csr", False) else matrix.T  # torch's has no .T
        with np.errstate(invalid="ignore", over="ignore"):
            return self.backend.conj(matmul(transposed, self.backend.conj(x)))

    @property
    def gains_from_blocks(self) -> bool:
        """False for sparse matrices of SciPy."""
        return not (self.backend.name == "numpy" and hasattr(self.matrix, "nnz"))

    @property
    def unit_rounding(self) -> float:
        """Relative rounding of the entries: that of the type they came in."""
        return max(super().unit_rounding, self.rounding)

    @property
    def product_rounding(self) -> float:
        """Relative rounding of products with the entries as they are held, which a narrower type before does not widen."""
        return super().unit_rounding

    def _details(self) -> str:
        stored = getattr(self.matrix, "nnz", None)
        if stored is None and getattr(self.matrix, "is_sparse_csr", False):
            stored = self.matrix._nnz()
        return "dense" if stored is None else f"sparse, {stored:,} entries"


def product_rounding(operator: LinearOperator) -> float:
    """Relative rounding of the products of an operator with its own entries, however narrow the type that these came in.

    `LinearOperator.unit_rounding` says how far the operator may be from symmetric; what limits an iteration is this.
    """
    if isinstance(operator, MatrixOperator):
        return operator.product_rounding
    children = operator._children()
    if not children:
        return operator.unit_rounding
    return max(float(np.finfo(operator.dtype).eps), operator._rounding_seen, *(product_rounding(child) for child in children))


def dense_symmetry(matrix: Array, hermitian: bool | None, backend: Backend, rounding: float = 0.0) -> bool | None:
    """Whether a dense matrix is Hermitian, unless that is known; None where it is up to rounding, so that products decide."""
    n = matrix.shape[0]
    if hermitian is not None or n != matrix.shape[1]:
        return hermitian
    step = max(1, _ENTRIES_AT_A_TIME // n)
    found = backend.dtype_of(matrix)
    rounding = max(rounding, float(np.finfo(found).eps) if found.kind in "fc" else 0.0)
    exact = True
    for first in range(0, n, step):
        last = min(first + step, n)
        rows, columns = matrix[first:last, :], backend.conj(matrix[:, first:last]).T
        # NaN counts as equal to NaN: a run says at which product it met one.
        different = (rows != columns) & ((rows == rows) | (columns == columns))
        if not backend.any(different):
            continue
        if rounding == 0.0:
            return False
        exact = False
        if backend.any(different & (abs(rows - columns) > 2 * rounding * (abs(rows) + abs(columns)))):
            return False
    return True if exact else None


def sparse_symmetry(matrix: Any, hermitian: bool | None) -> bool | None:
    """Whether a sparse matrix of SciPy or CuPy is Hermitian, unless that is known; None where it is up to rounding."""
    if hermitian is not None or matrix.shape[0] != matrix.shape[1]:
        return hermitian
    # NaN differs from itself; it counts as equal, as in a dense matrix.
    difference = (matrix != matrix.conj().T).tocoo()
    if difference.nnz == 0:
        return True
    if not np.isnan(float(abs(matrix).sum())):
        if matrix.dtype.kind not in "fc":
            return False
        mirrored = matrix.conj().T
        beyond = abs(matrix - mirrored) > (abs(matrix) + abs(mirrored)) * (2 * float(np.finfo(matrix.dtype).eps))
        return False if beyond.nnz else None
    entries, mirrored = matrix.tocsr(), matrix.conj().T.tocsr()
    row, column = difference.row, difference.col
    left, right = (np.asarray(_host(m[row, column])).ravel() for m in (entries, mirrored))
    return bool(np.all(np.isnan(left) & np.isnan(right)))


def _host(x: Any) -> Any:
    return x.get() if hasattr(x, "get") else x
