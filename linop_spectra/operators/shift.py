"""An operator plus a multiple of the identity."""

from __future__ import annotations

from typing import Any

from .base import LinearOperator
from .identity import identity
from .interop import aslinearoperator


def shift(A: Any, sigma: float | complex) -> LinearOperator:
    """``A + sigma I``.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Square operator.
    sigma : float or complex
        The shift.

    Returns
    -------
    LinearOperator
        Shape of A; Hermitian where A is and the shift is real.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> ls.shift(np.diag([1.0, 2.0]), 10.0) @ [1.0, 1.0]
    array([11., 12.])
    """
    operator = aslinearoperator(A)
    if operator.shape[0] != operator.shape[1]:
        raise ValueError(f"Only a square operator can be shifted, but this one has shape {operator.shape}.")
    return operator + sigma * identity(operator.shape[0], dtype=operator.dtype, backend=operator.backend)
