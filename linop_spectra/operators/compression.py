"""Compression of an operator to a subspace."""

from __future__ import annotations

from typing import Any

from .algebra import product_of
from .base import LinearOperator
from .interop import aslinearoperator


def compress(A: Any, P: Any) -> LinearOperator:
    """``P^H A P``: the operator as the columns of `P` see it.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Square operator of shape (n, n).
    P : array or operator
        Shape (n, m). For a compression in the strict sense its columns are orthonormal; that is not required.

    Returns
    -------
    LinearOperator
        Shape (m, m), Hermitian and positive semidefinite where A is.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> ls.compress(np.diag([1.0, 2.0, 3.0]), np.eye(3)[:, 1:]).to_dense()
    array([[2., 0.],
           [0., 3.]])
    """
    operator, basis = aslinearoperator(A), aslinearoperator(P)
    if operator.shape[0] != operator.shape[1] or basis.shape[0] != operator.shape[0]:
        raise ValueError(
            f"A compression P^H A P needs a square A and as many rows in P, but A has shape {operator.shape} and P {basis.shape}."
        )
    return product_of(product_of(basis.H, operator), basis)
