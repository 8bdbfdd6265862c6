"""Vectors as NumPy arrays, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.linalg import blas

from .._memory import total_memory
from .probes import ProbeKind, random_vector

_ALIGNMENT = 64


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Uninitialised C-ordered array whose data begin on a 64-byte boundary, so that JAX takes it without a copy."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    buffer = np.empty(size + _ALIGNMENT, np.uint8)
    offset = -buffer.ctypes.data % _ALIGNMENT
    return buffer[offset : offset + size].view(dtype).reshape(shape)


class NumpyBackend:
    """NumPy arrays; BLAS for everything that touches the basis.

    All of it goes through SciPy's BLAS. NumPy brings another one with threads of its own, and two sets of threads that wait
    for each other in turn cost three times as much as either (``benchmarks/blas_threads.py``).
    """

    name = "numpy"
    eager_scalars = True

    def asarray(self, x: Any, dtype: Any = None) -> np.ndarray:
        """`x` as a NumPy array; torch tensors are detached, CuPy arrays copied to the host."""
        if not isinstance(x, np.ndarray):
            if hasattr(x, "detach"):
                x = x.detach().resolve_conj().cpu()
            elif type(x).__module__.partition(".")[0] == "cupy":
                x = x.get()
        return np.asarray(x, dtype=dtype)

    def from_dlpack(self, x: Any) -> np.ndarray:
        """A view of a foreign array in host memory."""
        return np.from_dlpack(x)

    def to_numpy(self, x: Any) -> np.ndarray:
        """The array itself."""
        return self.asarray(x)

    def owns(self, x: Any) -> bool:
        """Whether `x` is a NumPy array."""
        return isinstance(x, np.ndarray)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Uninitialised, 64-byte aligned array."""
        return aligned_empty(shape, dtype)

    def gemv_t(self, rows: np.ndarray, w: np.ndarray) -> np.ndarray:
        """``conj(rows) @ w`` by one GEMV."""
        if _direct(rows, w):
            # The transpose of C-ordered rows is Fortran-ordered: BLAS reads it without a copy.
            return np.asarray(blas.get_blas_funcs("gemv", (rows, w))(1.0, rows.T, w, trans=2 if np.iscomplexobj(rows) else 1))
        return np.asarray(np.conj(rows) @ w)

    def gemv_n_sub(self, rows: np.ndarray, coefficients: np.ndarray, w: np.ndarray) -> None:
        """``w -= coefficients @ rows`` by one GEMV straight into `w`."""
        if _direct(rows, w):
            gemv = blas.get_blas_funcs("gemv", (rows, w))
            out = gemv(-1.0, rows.T, coefficients.astype(w.dtype), beta=1.0, y=w, overwrite_y=1)
            if not np.shares_memory(out, w):  # BLAS had to copy after all
                w[...] = out
        else:
            w -= coefficients @ rows

    def combine(self, coefficients: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """``coefficients @ rows`` by one GEMM."""
        return np.asarray(np.asarray(coefficients, dtype=rows.dtype) @ rows)

    def dot(self, x: np.ndarray, y: np.ndarray) -> Any:
        """Inner product, summed in double precision."""
        if x.dtype.char in "dD" and _direct(x, y):
            return blas.zdotc(x, y) if x.dtype.char == "D" else blas.ddot(x, y)
        # einsum widens in small buffers: as fast as a single-precision BLAS call, without a copy of the vectors.
        if np.iscomplexobj(x):
            return np.einsum("i,i->", np.conj(x), y, dtype=np.complex128)
        return np.einsum("i,i->", x, y, dtype=np.float64)

    def norm(self, x: np.ndarray) -> float:
        """Euclidean norm in double precision."""
        square = float(np.real(self.dot(x, x)))
        if 1e-280 < square < 1e280 or not np.all(np.isfinite(x)):
            return float(np.sqrt(square))
        # The square under- or overflows where the norm does not: scale first.
        largest = float(np.max(np.abs(x), initial=0.0))
        if largest == 0.0:
            return 0.0
        scaled = x.astype(np.complex128 if np.iscomplexobj(x) else np.float64) / largest
        return largest * float(np.sqrt(np.real(np.vdot(scaled, scaled))))

    def axpy(self, a: Any, x: np.ndarray, y: np.ndarray) -> None:
        """``y += a x`` in place, by BLAS."""
        if _direct(x, y):
            out = blas.get_blas_funcs("axpy", (x, y))(x, y, a=a)
            if not np.shares_memory(out, y):
                y[...] = out
        else:
            y += np.asarray(a, dtype=y.dtype) * x

    def scale_into(self, x: np.ndarray, factor: Any, out: np.ndarray) -> None:
        """``out[:] = factor x``."""
        np.multiply(x, np.asarray(factor, dtype=x.dtype), out=out, casting="same_kind")

    def fetch(self, scalars: Sequence[Any]) -> np.ndarray:
        """Scalars as one array."""
        return np.asarray(scalars)

    def safe_reciprocal(self, value: Any, threshold: Any) -> float:
        """``1 / value``, or zero at and below the threshold."""
        return 1.0 / float(value) if value > threshold else 0.0

    def probes(self, n: int, indices: Sequence[int], *, kind: ProbeKind, seed: int, domain: str, dtype: Any) -> np.ndarray:
        """Reproducible random vectors as rows."""
        rows = self.empty((len(indices), n), dtype)
        for row, index in enumerate(indices):
            rows[row] = random_vector(n, kind=kind, seed=seed, domain=domain, index=index, dtype=np.dtype(dtype))
        return rows

    def reduce(self, x: Any) -> Any:
        """The identity: one process holds whole vectors."""
        return x

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def total_memory(self) -> int:
        """Physical memory of the host."""
        return total_memory()


def _direct(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether BLAS takes both arrays as they are."""
    return x.dtype == y.dtype and x.dtype.char in "fdFD" and x.flags.c_contiguous and y.flags.c_contiguous and x.size > 0
