"""Sparse matrices of SciPy, CuPy and torch, brought to a backend."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ..backends import Backend
from .dtypes import working_dtype
from .matrix import MatrixOperator, sparse_symmetry


def is_sparse(obj: Any) -> bool:
    """Whether `obj` is a sparse matrix of SciPy or CuPy."""
    return hasattr(obj, "tocsr") and hasattr(obj, "nnz") and hasattr(obj, "format")


def is_sparse_tensor(obj: Any) -> bool:
    """Whether `obj` is a sparse tensor of torch."""
    return str(getattr(obj, "layout", "")).startswith("torch.sparse")


def sparse_operator(matrix: Any, dtype: Any, hermitian: bool | None, backend: Backend) -> MatrixOperator:
    """An operator of a sparse matrix of SciPy or CuPy on a backend."""
    chosen = working_dtype(matrix.dtype, dtype)
    if len(matrix.shape) != 2:
        raise ValueError(f"A sparse array of shape {tuple(matrix.shape)} is no matrix; pass one of shape (m, n).")
    if 0 in matrix.shape:
        return MatrixOperator(matrix, chosen, None, backend)  # which says what is wrong
    host = matrix.get() if hasattr(matrix, "get") and type(matrix).__module__.startswith("cupyx") and backend.name != "cupy" else matrix
    if host.format not in ("csr", "csc", "dia", "bsr"):
        host = host.tocsr()
    # Compared in its own type, in which a rounding of the entries to `chosen` plays no part.
    symmetric = sparse_symmetry(host, hermitian)
    return MatrixOperator(_on(host.astype(chosen), backend), chosen, symmetric, backend)


def sparse_tensor_operator(tensor: Any, dtype: Any, hermitian: bool | None, backend: Backend) -> MatrixOperator:
    """An operator of a sparse tensor of torch on a backend."""
    chosen = working_dtype(tensor.dtype, dtype)
    coordinates = tensor.detach().to_sparse_coo().coalesce()
    if len(coordinates.shape) != 2 or coordinates.dense_dim():
        raise ValueError(f"A sparse tensor of shape {tuple(tensor.shape)} is no matrix; pass one of shape (m, n) without dense dimensions.")
    from scipy import sparse

    from ..backends import to_numpy

    values, index = to_numpy(coordinates.values()), to_numpy(coordinates.indices())
    return sparse_operator(sparse.coo_array((values, tuple(index)), shape=tuple(coordinates.shape)), chosen, hermitian, backend)


def _on(matrix: Any, backend: Backend) -> Any:
    """A sparse matrix in the library of a backend."""
    if backend.name == "numpy":
        return matrix
    if backend.name == "cupy":
        if type(matrix).__module__.startswith("cupyx"):
            return matrix
        if not hasattr(backend.empty((0,), np.float64), "get"):  # the CuPy backend on NumPy arrays
            return matrix
        from cupyx.scipy import sparse as device_sparse

        return device_sparse.csr_matrix(matrix.tocsr())
    if backend.name.startswith("torch"):
        rows = matrix.tocsr()
        pointers, columns = (backend.asarray(part.astype(np.int64)) for part in (rows.indptr, rows.indices))
        return _csr_tensor(pointers, columns, backend.asarray(rows.data), rows.shape)
    raise TypeError(
        f"A sparse matrix multiplies vectors of NumPy, CuPy and torch, but the argument backend is {backend.name!r}; pass the dense matrix."
    )


def _csr_tensor(pointers: Any, columns: Any, values: Any, shape: tuple[int, int]) -> Any:
    import torch

    with warnings.catch_warnings():  # torch says that CSR tensors are in beta state
        warnings.filterwarnings("ignore", message="Sparse", category=UserWarning)
        return torch.sparse_csr_tensor(pointers, columns, values, size=tuple(shape), device=values.device)
