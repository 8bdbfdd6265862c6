"""Eigenpairs of a matrix that is small enough for LAPACK."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from ..backends import Array
from ..operators import LinearOperator
from ..operators.matrix import MatrixOperator
from .errors import NotHermitianError

DENSE = 1500
"""Order up to which the whole matrix is cheaper than any search inside its spectrum."""
SMALL_DENSE = 200
"""Order up to which the whole of a stored matrix is cheaper than a search at the ends of its spectrum."""


def is_stored_matrix(operator: LinearOperator) -> bool:
    """Whether an operator is an explicit matrix on the host, dense or sparse."""
    return isinstance(operator, MatrixOperator) and operator.backend.name == "numpy"


def dense_pairs(operator: LinearOperator, k: int, which: str) -> tuple[np.ndarray, Array, float, int]:
    """Some eigenpairs of the whole Hermitian matrix.

    Returns
    -------
    tuple
        Eigenvalues in ascending order, their vectors as rows of the operator's type, the norm, and the products spent on the
        matrix.

    Raises
    ------
    FloatingPointError, ValueError
        When the matrix holds NaN or infinity, or is not Hermitian.
    """
    backend, n = operator.backend, operator.shape[0]
    if is_stored_matrix(operator):
        matrix, products = operator.matrix, 0  # type: ignore[attr-defined]
        matrix = matrix.toarray() if hasattr(matrix, "toarray") else matrix
    else:
        matrix, products = backend.to_numpy(operator.to_dense()), n
    matrix = np.asarray(matrix, dtype=np.complex128 if operator.dtype.kind == "c" else np.float64)
    if not np.isfinite(matrix).all():
        raise FloatingPointError("A product with the operator holds NaN or infinity.")
    adjoint = matrix.conj().T
    if np.abs(matrix - adjoint).max() > np.sqrt(operator.unit_rounding) * np.abs(matrix).max():
        raise NotHermitianError(
            "The operator is not symmetric (complex: not Hermitian), though it says so. Pass the symmetric part (A + A.H) / 2, or look at "
            "check_operator(A)."
        )
    theta, vectors = linalg.eigh((matrix + adjoint) / 2, driver="evd", check_finite=False, overwrite_a=True)
    chosen = np.sort(order(theta, which)[:k])
    rows = backend.contiguous(backend.asarray(np.ascontiguousarray(vectors[:, chosen].T)), operator.dtype)
    return theta[chosen], rows, float(np.max(np.abs(theta))), products


def order(theta: np.ndarray, which: str) -> np.ndarray:
    """Indices of ascending eigenvalues, the wanted ones first."""
    n = len(theta)
    if which == "SA":
        return np.arange(n)
    if which == "LA":
        return np.arange(n)[::-1]
    if which == "BE":
        ends = np.empty(n, dtype=np.int64)
        ends[0::2] = np.arange(n)[::-1][: len(ends[0::2])]
        ends[1::2] = np.arange(n)[: len(ends[1::2])]
        return ends
    return np.argsort(np.abs(theta) if which == "SM" else -np.abs(theta), kind="stable")
