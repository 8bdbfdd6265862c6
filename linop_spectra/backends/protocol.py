"""What the numerical core asks of an array library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from .probes import ProbeKind

Array = Any
Scalar = Any


@runtime_checkable
class Backend(Protocol):
    """Operations on the core's writable arrays; besides them it uses only arithmetic, comparison, slicing, ``@`` and ``.T``.

    Vectors have shape ``(n,)`` and blocks of vectors ``(k, n)``, one vector a row. Long inner products accumulate in double
    precision whatever the arrays hold. `eager_scalars` says whether an inner product is at once a number on the host (then
    the core may decide on it in every step) or a 0-d array on a device (then it decides rarely and all at once). Two
    operators mix when the names of their backends are equal.
    """

    name: str
    eager_scalars: bool

    def asarray(self, x: Any, dtype: Any = None) -> Array:
        """`x` as an array of this backend, copied only where it must be."""

    def from_dlpack(self, x: Any) -> Array:
        """A view of a foreign array on the same device; it is read-only for the core."""

    def to_numpy(self, x: Array) -> np.ndarray:
        """`x` on the host."""

    def owns(self, x: Any) -> bool:
        """Whether `x` is already an array of this backend."""

    def dtype_of(self, x: Array) -> np.dtype:
        """Type of the entries of `x` as a NumPy dtype."""

    def conj(self, x: Array) -> Array:
        """Complex conjugate; `x` itself when it is real."""

    def real(self, x: Array) -> Array:
        """Real part, `x` itself when it is real; of scalars too. Not to be written to."""

    def imag(self, x: Array) -> Array:
        """Imaginary part, zeros when `x` is real; of scalars too. Not to be written to."""

    def any(self, mask: Array) -> bool:
        """Whether an array of booleans holds a True; asks the host."""

    def reshape(self, x: Array, shape: tuple[int, ...]) -> Array:
        """`x` in C order with another shape, a view where that is possible."""

    def gather(self, rows: Array, index: np.ndarray) -> Array:
        """``rows[:, index]`` for whole numbers on the host."""

    def scatter(self, rows: Array, index: np.ndarray, n: int) -> Array:
        """Rows of length `n`, zero but for ``[:, index] = rows``; no index comes twice."""

    def guard(self, x: Array) -> Array:
        """`x` for a function that may write to its argument: what it writes must not end up in `x`.

        A read-only view where the library has one, which turns the attempt into an error, else a copy.
        """

    def contiguous(self, x: Array, dtype: Any = None) -> Array:
        """`x` in C order with entries of type `dtype` (its own when None), copied only where it must be."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Uninitialised, 64-byte aligned array."""

    def gemv_t(self, rows: Array, w: Array) -> Array:
        """Coefficients ``conj(rows) @ w`` of shape (j,) for `rows` of shape (j, n)."""

    def gemv_n_sub(self, rows: Array, coefficients: Array, w: Array) -> None:
        """In place ``w -= coefficients @ rows``."""

    def combine(self, coefficients: np.ndarray, rows: Array) -> Array:
        """``coefficients @ rows`` for coefficients of shape (m, j) from the host; shape (m, n)."""

    def dot(self, x: Array, y: Array) -> Scalar:
        """``conj(x) @ y``, accumulated in double precision."""

    def norm(self, x: Array) -> Scalar:
        """Euclidean norm, accumulated in double precision."""

    def axpy(self, a: Scalar, x: Array, y: Array) -> None:
        """In place ``y += a * x``."""

    def scale_into(self, x: Array, factor: Scalar, out: Array) -> None:
        """``out[:] = factor * x``, rounded to the type of `out`."""

    def fetch(self, scalars: Sequence[Scalar]) -> np.ndarray:
        """Scalars as float64 or complex128 on the host, in one transfer."""

    def safe_reciprocal(self, value: Scalar, threshold: Scalar) -> Scalar:
        """``1 / value`` where ``value > threshold``, else zero."""

    def probes(
        self, n: int, indices: Sequence[int], *, kind: ProbeKind, seed: int, domain: str, dtype: Any
    ) -> Array:
        """Reproducible random vectors as rows, shape (len(indices), n)."""

    def reduce(self, x: Array) -> Array:
        """Sum of `x` over the processes that share the vectors; the identity on one process."""

    def synchronize(self) -> None:
        """Wait until the device has finished."""

    def total_memory(self) -> int:
        """Total memory in bytes of the device that holds the arrays."""
