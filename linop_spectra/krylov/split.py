"""Blocks of user's vectors as rows of the operator's type; a complex one of a real operator as its two parts."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends import Array, Backend
from ..operators import LinearOperator


def complex_columns(operator: LinearOperator, x: Any) -> bool:
    """Whether `x` is complex though the operator is real."""
    return operator.dtype.kind != "c" and operator.backend.dtype_of(operator.backend.asarray(x)).kind == "c"


def split_columns(operator: LinearOperator, x: Any, name: str, split: bool) -> tuple[Array, bool]:
    """Columns of `x` as rows of our own.

    Parameters
    ----------
    operator : LinearOperator
        Gives backend, length and type.
    x : array
        Shape (n,) or (n, j).
    name : str
        Of the argument, for errors.
    split : bool
        Whether to return the j real parts and then the j imaginary ones.

    Returns
    -------
    rows : array
        Shape (j, n), or (2 j, n).
    one_dimensional : bool
        Whether `x` had shape (n,).

    Raises
    ------
    ValueError
        When the shape does not fit.
    """
    backend, n = operator.backend, operator.shape[0]
    given = backend.asarray(x)
    shape = tuple(given.shape)
    if len(shape) not in (1, 2) or shape[0] != n or 0 in shape:
        raise ValueError(f"The argument {name} must have shape ({n},) or ({n}, j), but has shape {shape}.")
    one_dimensional = len(shape) == 1
    columns = given[:, None] if one_dimensional else given
    j = columns.shape[1]
    parts = [columns]
    if split:
        parts = [backend.real(columns), backend.imag(columns)]
    rows = backend.empty((len(parts) * j, n), operator.dtype)
    for index, part in enumerate(parts):
        rows[index * j : (index + 1) * j, :] = backend.asarray(part.T, dtype=operator.dtype)
    return rows, one_dimensional


def joined(backend: Backend, rows: Array, one_dimensional: bool, split: bool) -> Array:
    """The inverse of `split_columns`: rows (j, n) as columns (n, j), or as a vector (n,)."""
    if split:
        half = rows.shape[0] // 2
        rows = with_imaginary_part(backend, rows[:half, :], rows[half:, :])
    return rows[0, :] if one_dimensional else rows.T


def with_imaginary_part(backend: Backend, real: Array, imaginary: Array) -> Array:
    """``real + 1j imaginary`` in the complex type of the same precision."""
    wide = np.result_type(backend.dtype_of(real), np.complex64)
    return backend.asarray(real, dtype=wide) + 1j * backend.asarray(imaginary, dtype=wide)


def combined_norms(parts: np.ndarray, split: bool) -> np.ndarray:
    """Norms of columns from those of their rows."""
    return np.asarray(np.hypot(parts[: len(parts) // 2], parts[len(parts) // 2 :])) if split else parts
