"""Types of vectors, and of the matrices they are multiplied with."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends import Array, Backend

# Distance from one to the next number: of half precision and less, where the mantissa has so many bits after the point.
_NARROW = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float8_e4m3fn": 2.0**-3, "float8_e4m3": 2.0**-3, "float8_e5m2": 2.0**-2}


def type_name(dtype: Any) -> str:
    """Name of a dtype of any library, such as ``"float32"``."""
    return str(getattr(dtype, "name", None) or dtype).rpartition(".")[2]


def narrow_rounding(dtype: Any) -> float:
    """Unit rounding of a type below single precision; zero of others."""
    return _NARROW.get(type_name(dtype), 0.0)


def as_numpy_dtype(dtype: Any) -> np.dtype:
    """The NumPy dtype of a NumPy, torch or JAX one; TypeError when it has none that vectors can have."""
    if isinstance(dtype, str) or type(dtype).__module__.partition(".")[0] == "torch":
        name = type_name(dtype)
        if name in _NARROW:
            raise TypeError(_too_narrow(name))
        dtype = name
    try:
        resolved = np.dtype(dtype)
    except TypeError as error:
        raise TypeError(
            f"The argument dtype is {dtype!r}, which is no type of numbers; pass float32, float64, complex64 or complex128."
        ) from error
    if type_name(resolved) in _NARROW:
        raise TypeError(_too_narrow(type_name(resolved)))
    return resolved


def check_dtype(dtype: Any) -> np.dtype:
    """A type that vectors can have, or a TypeError that says which ones can."""
    resolved = as_numpy_dtype(dtype)
    if resolved.kind not in "fc":
        raise TypeError(
            f"The argument dtype is {resolved}, but vectors need a real or complex floating type; "
            "for an integer matrix pass dtype=float."
        )
    if resolved.char not in "fdFD":
        raise TypeError(
            f"The argument dtype is {resolved}, but vectors are kept in float32, float64, complex64 or complex128; pass one of them."
        )
    return resolved.newbyteorder("=")


def _too_narrow(name: str) -> str:
    return (
        f"The argument dtype is {name}, in which inner products mean nothing; pass dtype='float32'. A matrix or a product may "
        f"be {name}: its numbers are widened, and its rounding is allowed for."
    )


def working_dtype(found: Any, asked: Any) -> np.dtype:
    """Type of the vectors for a matrix: the type asked for, else its own, widened from integers and half precision."""
    name = type_name(found)
    own = np.dtype(np.float32) if name in _NARROW else as_numpy_dtype(found)
    if own.kind not in "biufc":
        raise TypeError(f"A matrix of dtype {own} holds no numbers.")
    if asked is not None:
        chosen = check_dtype(asked)
        if own.kind == "c" and chosen.kind != "c":
            raise TypeError(f"The matrix has dtype {own}, but dtype={chosen} has no room for imaginary parts; pass dtype=complex.")
        return chosen
    if own.kind in "biu":
        return np.dtype(np.float64)
    if own.char in "gG":  # extended precision, which BLAS and LAPACK do not know
        return np.dtype(np.float64 if own.kind == "f" else np.complex128)
    return own.newbyteorder("=")


def as_floating(x: Array, backend: Backend) -> Array:
    """Integers and booleans as double precision, half precision as single; other arrays as they are."""
    found = backend.dtype_of(x)
    chosen = working_dtype(found, None)
    return x if chosen == found else backend.asarray(x, dtype=chosen)
