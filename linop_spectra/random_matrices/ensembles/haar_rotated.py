"""Matrices with given eigenvalues in a random basis."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...backends import Backend
from ...operators import LinearOperator, diagonal_operator
from ...operators.algebra import ProductOperator, adjoint_of
from .ensemble_arguments import numbers_or_law
from .haar_rotation import RotationMethod, haar_rotation


class RotatedOperator(ProductOperator):
    """``Q diag(eigenvalues) Q^H``.

    Attributes
    ----------
    eigenvalues : ndarray
        In the order of the columns of Q, float64 on the host, shape (n,).
    rotation : LinearOperator
        Q; its product with the j-th unit vector is an eigenvector of the j-th eigenvalue.
    """

    def __init__(self, eigenvalues: np.ndarray, rotation: LinearOperator) -> None:
        self.eigenvalues, self.rotation = eigenvalues, rotation
        middle = diagonal_operator(eigenvalues.astype(rotation.dtype), backend=rotation.backend)
        super().__init__((rotation, middle, adjoint_of(rotation)))


def haar_rotated(
    eigenvalues: Any,
    *,
    n: int | None = None,
    method: RotationMethod = "fast",
    rounds: int = 3,
    seed: int = 0,
    dtype: Any = np.float64,
    memory_budget: int | float | str | None = None,
    backend: str | Backend | None = None,
) -> RotatedOperator:
    """A matrix with exactly these eigenvalues in a random basis: a known answer for every method.

    The spectrum is exact up to rounding whichever the method, because the basis is orthogonal; see `haar_rotation` for how random it is.
    Orders of a million take 24 MB and a few tenths of a second a product.

    Parameters
    ----------
    eigenvalues : array or law
        Real, shape (n,); or a law, whose quantiles at ``(i + 1/2) / n`` are taken: a spectrum as rigid as random matrices have it.
    n : int, optional
        Order; needed for a law.
    method : {"fast", "exact"}
        Fourier transforms with random signs, or a uniform basis that is held.
    rounds : int
        Of the fast method.
    seed : int
        The basis is ``haar_rotation(n, seed=seed, ...)``.
    dtype : dtype
        A complex type gives a complex Hermitian matrix.
    memory_budget : int, float, str or None
        What ``"exact"`` may take; as in `haar_rotation`.
    backend : str, Backend or None
        Where the vectors live; NumPy by default.

    Returns
    -------
    RotatedOperator
        Shape (n, n), Hermitian, positive semidefinite when no eigenvalue is negative, with attributes `eigenvalues` and `rotation`.

    Raises
    ------
    ValueError
        When an argument is out of range.
    MemoryError
        When an exact basis does not fit the budget.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> from linop_spectra.random_matrices.ensembles.haar_rotated import haar_rotated
    >>> a = haar_rotated([5.0, 1.0, 1.0, 0.0], seed=0)
    >>> np.linalg.eigvalsh(a.to_dense()).round(12) + 0.0
    array([0., 1., 1., 5.])
    """
    values = numbers_or_law("eigenvalues", eigenvalues, "n", n)
    rotation = haar_rotation(
        len(values), method=method, rounds=rounds, seed=seed, dtype=dtype, memory_budget=memory_budget, backend=backend
    )
    return RotatedOperator(values, rotation)
