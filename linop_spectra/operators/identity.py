"""The identity."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends import Array, Backend
from .base import LinearOperator


class IdentityOperator(LinearOperator):
    """The identity."""

    def __init__(self, n: int, dtype: Any, backend: str | Backend | None) -> None:
        super().__init__((n, n), dtype, hermitian=True, positive_semidefinite=True, backend=backend)

    def _matmat(self, x: Array) -> Array:
        return x


def identity(n: int, *, dtype: Any = np.float64, backend: str | Backend | None = None) -> LinearOperator:
    """The identity of order `n`.

    Parameters
    ----------
    n : int
        Order.
    dtype : dtype
        Type of the vectors.
    backend : str, Backend or None
        Where the vectors live; NumPy by default.

    Returns
    -------
    LinearOperator
        Shape (n, n).

    Examples
    --------
    >>> import linop_spectra as ls
    >>> ls.identity(3) @ [1.0, 2.0, 3.0]
    array([1., 2., 3.])
    """
    return IdentityOperator(n, dtype, backend)
