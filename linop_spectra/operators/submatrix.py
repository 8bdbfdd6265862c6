"""Chosen rows and columns of an operator."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends import Array
from .base import LinearOperator
from .interop import aslinearoperator


class SubmatrixOperator(LinearOperator):
    """``A[rows][:, columns]``."""

    def __init__(self, inner: LinearOperator, rows: np.ndarray, columns: np.ndarray) -> None:
        self.inner, self.rows, self.columns = inner, rows, columns
        principal = len(rows) == len(columns) and bool(np.all(rows == columns))
        super().__init__(
            (len(rows), len(columns)),
            inner.dtype,
            hermitian=True if principal and inner.hermitian else None,
            positive_semidefinite=True if principal and inner.positive_semidefinite else None,
            backend=inner.backend,
        )

    def _apply(self, x: Array, adjoint: bool) -> Array:
        inner, into, out_of = self.inner, self.columns, self.rows
        product = inner.rmatmat if adjoint else inner.matmat
        if adjoint:
            into, out_of = out_of, into
        spread = self.backend.scatter(x.T, into, inner.shape[0 if adjoint else 1])
        return self.backend.gather(product(spread.T).T, out_of).T

    def _matmat(self, x: Array) -> Array:
        return self._apply(x, adjoint=False)

    def _rmatmat(self, x: Array) -> Array:
        return self._apply(x, adjoint=True)

    def _children(self) -> tuple[LinearOperator, ...]:
        return (self.inner,)


def submatrix(A: Any, rows: Any, columns: Any = None) -> LinearOperator:
    """Chosen rows and columns of an operator; each product costs one with the whole operator.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        The operator.
    rows : slice, array of int or array of bool
        The rows, each at most once.
    columns : slice, array of int or array of bool, optional
        The columns; the same as `rows` by default.

    Returns
    -------
    LinearOperator
        Shape (number of rows, number of columns).

    Raises
    ------
    ValueError
        When an index is out of range, repeated, or nothing is chosen.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> ls.submatrix(np.diag([1.0, 2.0, 3.0]), slice(1, 3)).to_dense()
    array([[2., 0.],
           [0., 3.]])
    """
    operator = aslinearoperator(A)
    columns = rows if columns is None else columns
    return SubmatrixOperator(
        operator, _indices("rows", rows, operator.shape[0]), _indices("columns", columns, operator.shape[1])
    )


def _indices(name: str, chosen: Any, length: int) -> np.ndarray:
    try:
        index = np.arange(length)[chosen if isinstance(chosen, slice) else np.asarray(chosen)]
    except IndexError as error:
        raise ValueError(f"The argument {name} does not fit an operator with {length} of them: {error}.") from error
    index = np.atleast_1d(index)
    if index.ndim != 1 or len(index) == 0 or len(np.unique(index)) != len(index):
        raise ValueError(f"The argument {name} must choose at least one of {length}, each at most once.")
    return index
