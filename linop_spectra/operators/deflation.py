"""An operator without some of its eigenpairs."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import LinearOperator
from .interop import aslinearoperator
from .low_rank import low_rank


def deflate(A: Any, eigenvalues: Any, eigenvectors: Any) -> LinearOperator:
    """``A - U diag(w) U^H``: eigenpairs moved to eigenvalue zero.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Hermitian operator of shape (n, n).
    eigenvalues : array
        Real, shape (k,), with their signs.
    eigenvectors : array
        Orthonormal columns, shape (n, k).

    Returns
    -------
    LinearOperator
        Shape (n, n), Hermitian where A is. Whether it is positive semidefinite is not known where A is and an eigenvalue is
        positive: the pairs may be approximate.

    Raises
    ------
    ValueError
        When the shapes do not fit or the columns are not orthonormal.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> A = ls.diagonal_operator(np.array([1.0, 2.0, 30.0]))
    >>> top = ls.eigsh(A, k=1, which="LA")
    >>> round(ls.spectral_norm(ls.deflate(A, top.eigenvalues, top.eigenvectors)).value, 6)
    2.0
    """
    operator = aslinearoperator(A)
    backend = operator.backend
    vectors = backend.asarray(eigenvectors, dtype=operator.dtype)
    if len(vectors.shape) != 2 or vectors.shape[0] != operator.shape[0] or operator.shape[0] != operator.shape[1]:
        raise ValueError(
            f"The argument eigenvectors must have shape ({operator.shape[0]}, k) for a square operator, but it has shape "
            f"{tuple(vectors.shape)} and the operator {operator.shape}."
        )
    gram = backend.to_numpy(backend.conj(vectors).T @ vectors)
    distance = float(np.max(np.abs(gram - np.eye(len(gram))), initial=0.0))
    if distance > np.sqrt(np.finfo(operator.dtype).eps):
        raise ValueError(
            f"The columns of the argument eigenvectors are not orthonormal (their Gram matrix is off by {distance:.1e}); "
            "pass eigenvectors of a Hermitian operator, normalised."
        )
    # Added with the opposite sign: taking away negative eigenvalues leaves a positive semidefinite operator one.
    return operator + low_rank(vectors, -backend.asarray(eigenvalues), backend=backend)
