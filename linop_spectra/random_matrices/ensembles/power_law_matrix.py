"""Matrices with a power-law spectrum."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...backends import Backend
from ..laws.law import check_positive, check_whole
from .haar_rotated import RotatedOperator, haar_rotated
from .haar_rotation import RotationMethod


def power_law_matrix(
    n: int,
    exponent: float = 1.0,
    *,
    largest: float = 1.0,
    method: RotationMethod = "fast",
    rounds: int = 3,
    seed: int = 0,
    dtype: Any = np.float64,
    memory_budget: int | float | str | None = None,
    backend: str | Backend | None = None,
) -> RotatedOperator:
    """A matrix with eigenvalues ``largest i^-s`` for i from 1 to n in a random basis, as measured on trained networks.

    The density of its spectrum falls off like ``x^-(1 + 1/s)``: a power law with that exponent, from ``largest n^-s`` on.

    Parameters
    ----------
    n : int
        Order.
    exponent : float
        s, with which eigenvalues fall off in their rank; positive.
    largest : float
        The first eigenvalue.
    method, rounds, seed, dtype, memory_budget, backend
        Of the basis; as in `haar_rotated`.

    Returns
    -------
    RotatedOperator
        Shape (n, n), Hermitian and positive semidefinite, with attributes `eigenvalues` and `rotation`.

    Raises
    ------
    ValueError
        When an argument is out of range.

    Examples
    --------
    >>> import linop_spectra as ls
    >>> from linop_spectra.random_matrices.ensembles.power_law_matrix import power_law_matrix
    >>> a = power_law_matrix(10_000, 1.0, largest=6.0)
    >>> ls.eigsh(a, k=3, which="LA").eigenvalues.round(4)
    array([2., 3., 6.])
    """
    n = check_whole("n", n, 1)
    exponent = check_positive("exponent", exponent, "with which eigenvalues fall off in their rank")
    largest = check_positive("largest", largest, "the first eigenvalue")
    eigenvalues = largest * np.arange(1, n + 1, dtype=np.float64) ** -exponent
    return haar_rotated(eigenvalues, method=method, rounds=rounds, seed=seed, dtype=dtype, memory_budget=memory_budget, backend=backend)
