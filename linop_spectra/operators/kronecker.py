"""Kronecker products of two operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends import Array
from .algebra import all_true, same_backend
from .base import LinearOperator
from .interop import aslinearoperator


class KroneckerOperator(LinearOperator):
    """``A kron B``, applied as ``A X B^T`` to the vector written as a matrix, row by row."""

    def __init__(self, left: LinearOperator, right: LinearOperator) -> None:
        self.left, self.right = left, right
        super().__init__(
            (left.shape[0] * right.shape[0], left.shape[1] * right.shape[1]),
            np.result_type(left.dtype, right.dtype),
            hermitian=all_true([left.hermitian, right.hermitian]),
            positive_semidefinite=all_true([left.positive_semidefinite, right.positive_semidefinite]),
            backend=same_backend((left, right)),
        )

    def _apply(self, x: Array, adjoint: bool) -> Array:
        (p, q), (r, s) = (op.shape[::-1] if adjoint else op.shape for op in (self.left, self.right))
        first, second = ((op.rmatmat if adjoint else op.matmat) for op in (self.left, self.right))
        k, backend = x.shape[1], self.backend
        # Every vector is q rows of length s: B on all rows of all vectors at once, then A on the columns.
        inner = second(backend.reshape(x.T, (k * q, s)).T)
        columns = backend.empty((k * r, q), self.dtype)
        for i in range(k):
            columns[i * r : (i + 1) * r, :] = inner[:, i * q : (i + 1) * q]
        outer = first(columns.T)
        out = backend.empty((k * p, r), self.dtype)
        for i in range(k):
            out[i * p : (i + 1) * p, :] = outer[:, i * r : (i + 1) * r]
        return backend.reshape(out, (k, p * r)).T

    def _matmat(self, x: Array) -> Array:
        return self._apply(x, adjoint=False)

    def _rmatmat(self, x: Array) -> Array:
        return self._apply(x, adjoint=True)

    def _children(self) -> tuple[LinearOperator, ...]:
        return self.left, self.right


def kronecker(A: Any, B: Any) -> LinearOperator:
    """The Kronecker product of two operators.

    Parameters
    ----------
    A, B : LinearOperator or what `aslinearoperator` takes
        Operators of shapes (p, q) and (r, s) on one backend.

    Returns
    -------
    LinearOperator
        Shape (p r, q s), in the order of ``numpy.kron``; a product costs q products with B and r with A.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> ls.kronecker(np.diag([1.0, 10.0]), np.diag([1.0, 2.0])) @ np.ones(4)
    array([ 1.,  2., 10., 20.])
    """
    return KroneckerOperator(aslinearoperator(A), aslinearoperator(B))
