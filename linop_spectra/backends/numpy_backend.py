"""Vectors as NumPy arrays, on the CPU."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.linalg import blas

from .._memory import total_memory
from .probes import ProbeKind, random_vector

_ALIGNMENT = 64
BLAS_LIMIT = 2**31 - 1
"""Longest vector that a BLAS with 32-bit integers takes; longer ones go piece by piece."""
_PIECE = 1 << 16  # numbers widened at a time
_SHORT = 256  # products summed in the type itself, 3 times as fast: their error is about a hundredth of its unit of rounding
_GEMV = {"f": blas.sgemv, "d": blas.dgemv, "F": blas.cgemv, "D": blas.zgemv}
_GEMM = {"f": blas.sgemm, "d": blas.dgemm, "F": blas.cgemm, "D": blas.zgemm}
_AXPY = {"f": blas.saxpy, "d": blas.daxpy, "F": blas.caxpy, "D": blas.zaxpy}
_TORCH_FLOATS = ("torch.float16", "torch.float32", "torch.float64")


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Uninitialised C-ordered array whose data begin on a 64-byte boundary, so that JAX takes it without a copy."""
    dtype = np.dtype(dtype)
    size = math.prod(map(int, shape)) * dtype.itemsize
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
                x = x.detach().resolve_conj().resolve_neg().cpu()
                if not x.dtype.is_complex and x.dtype.is_floating_point and str(x.dtype) not in _TORCH_FLOATS:
                    x = x.float()  # NumPy has neither bfloat16 nor 8-bit floats
            elif type(x).__module__.partition(".")[0] == "cupy":
                x = x.get()
            x = np.asarray(x)
        if x.dtype.kind == "V" and x.dtype.name.startswith(("bfloat", "float")):
            x = x.astype(np.float32)
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

    def dtype_of(self, x: np.ndarray) -> np.dtype:
        """Type of the entries."""
        return x.dtype

    def conj(self, x: np.ndarray) -> np.ndarray:
        """Complex conjugate; `x` itself when it is real."""
        return np.conj(x) if x.dtype.kind == "c" else x

    def contiguous(self, x: np.ndarray, dtype: Any = None) -> np.ndarray:
        """`x` in C order, copied only where it must be."""
        return np.ascontiguousarray(x, dtype=dtype)

    def real(self, x: Any) -> Any:
        """Real part."""
        return np.real(x)

    def imag(self, x: Any) -> Any:
        """Imaginary part."""
        return np.imag(x)

    def any(self, mask: np.ndarray) -> bool:
        """Whether there is a True."""
        return bool(np.any(mask))

    def reshape(self, x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """`x` in C order with another shape."""
        return x.reshape(shape)

    def gather(self, rows: np.ndarray, index: np.ndarray) -> np.ndarray:
        """``rows[:, index]``."""
        return np.take(rows, index, axis=1)

    def scatter(self, rows: np.ndarray, index: np.ndarray, n: int) -> np.ndarray:
        """Zeros, but for ``[:, index] = rows``."""
        out = self.empty((rows.shape[0], n), rows.dtype)
        out[...] = 0
        out[:, index] = rows
        return out

    def guard(self, x: np.ndarray) -> np.ndarray:
        """A read-only view."""
        view = x.view()
        view.flags.writeable = False
        return view

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Uninitialised, 64-byte aligned array."""
        return aligned_empty(shape, dtype)

    def gemv_t(self, rows: np.ndarray, w: np.ndarray) -> np.ndarray:
        """``conj(rows) @ w`` by one GEMV."""
        if len(w) > BLAS_LIMIT:
            return np.asarray([self.dot(row, w) for row in rows], dtype=rows.dtype)
        if _direct(rows, w):
            # The transpose of C-ordered rows is Fortran-ordered: BLAS reads it without a copy.
            return np.asarray(_GEMV[w.dtype.char](1.0, rows.T, w, trans=2 if w.dtype.kind == "c" else 1))
        return np.asarray(np.conj(rows) @ w)

    def gemv_n_sub(self, rows: np.ndarray, coefficients: np.ndarray, w: np.ndarray) -> None:
        """``w -= coefficients @ rows`` by one GEMV straight into `w`."""
        if len(w) > BLAS_LIMIT:
            for row, coefficient in zip(rows, coefficients, strict=True):
                self.axpy(-coefficient, row, w)
        elif _direct(rows, w):
            out = _GEMV[w.dtype.char](-1.0, rows.T, coefficients.astype(w.dtype, copy=False), beta=1.0, y=w, overwrite_y=1)
            if out is not w and not np.may_share_memory(out, w):  # BLAS had to copy after all
                w[...] = out
        else:
            w -= coefficients @ rows

    def combine(self, coefficients: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """``coefficients @ rows`` by one GEMM."""
        left = np.asarray(coefficients, dtype=rows.dtype)
        if rows.dtype.char not in _GEMM or not rows.flags.c_contiguous or rows.size == 0 or rows.shape[1] > BLAS_LIMIT:
            return np.asarray(left @ rows)
        # As the transposed product of Fortran-ordered arrays, so that rows come out.
        return np.asarray(_GEMM[rows.dtype.char](1.0, rows.T, np.ascontiguousarray(left).T)).T

    def dot(self, x: np.ndarray, y: np.ndarray) -> Any:
        """Inner product, in double precision where it is long."""
        if len(x) > BLAS_LIMIT:
            return sum(self.dot(x[piece], y[piece]) for piece in _pieces(len(x), BLAS_LIMIT))
        direct = _direct(x, y)
        if direct and x.dtype.char in "dD":
            return blas.zdotc(x, y) if x.dtype.char == "D" else blas.ddot(x, y)
        wide = np.complex128 if x.dtype.kind == "c" else np.float64
        if direct and len(x) > 16 * _SHORT:
            # Short sums in the type itself, which BLAS does at the speed of memory, and their sum in double precision.
            whole = len(x) // _SHORT * _SHORT
            short = np.vecdot(x[:whole].reshape(-1, _SHORT), y[:whole].reshape(-1, _SHORT))
            return short.sum(dtype=wide) + np.vecdot(x[whole:].astype(wide), y[whole:].astype(wide))
        return sum((np.vecdot(x[p].astype(wide), y[p].astype(wide)) for p in _pieces(len(x), _PIECE)), wide(0))

    def norm(self, x: np.ndarray) -> float:
        """Euclidean norm in double precision."""
        square = float(np.real(self.dot(x, x)))
        if 1e-280 < square < 1e280:
            return float(np.sqrt(square))
        # The square under- or overflows where the norm does not: scale first. NaN and infinities stay what they are.
        largest = float(np.max(np.abs(x), initial=0.0))
        if not np.isfinite(largest):
            return largest
        if largest == 0.0:
            return 0.0
        # By a power of two: a complex division by a tiny number would overflow on the way.
        exponent = int(np.clip(np.frexp(largest)[1], -1000, 1000))
        scaled = x.astype(np.complex128 if np.iscomplexobj(x) else np.float64) * 2.0**-exponent
        return float(np.sqrt(np.real(np.vdot(scaled, scaled)))) * 2.0**exponent

    def axpy(self, a: Any, x: np.ndarray, y: np.ndarray) -> None:
        """``y += a x`` in place, by BLAS."""
        if len(x) > BLAS_LIMIT:
            for piece in _pieces(len(x), BLAS_LIMIT):
                self.axpy(a, x[piece], y[piece])
        elif _direct(x, y):
            out = _AXPY[x.dtype.char](x, y, a=a)
            if out is not y and not np.may_share_memory(out, y):
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


def matmul(a: Any, b: Any) -> Any:
    """``a @ b`` of matrices, by SciPy's BLAS where both are real NumPy arrays that it takes as they are; else what ``@`` does."""
    # Complex products of SciPy's BLAS depend in the last bit on where the arrays lie in memory: the same call must give the same bits.
    if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray)) or a.dtype != b.dtype or a.dtype.char not in "fd":
        return a @ b
    if not (a.flags.forc and b.flags.forc) or min(a.size, b.size) == 0 or max(*a.shape, *b.shape) > BLAS_LIMIT:
        return a @ b
    left, turned = (a, 0) if a.flags.f_contiguous else (a.T, 1)
    if b.shape[1] == 1:
        return _GEMV[a.dtype.char](1.0, left, b[:, 0], trans=turned)[:, None]
    right, also = (b, 0) if b.flags.f_contiguous else (b.T, 1)
    return _GEMM[a.dtype.char](1.0, left, right, trans_a=turned, trans_b=also)


def _pieces(n: int, length: int) -> Iterator[slice]:
    return (slice(start, min(start + length, n)) for start in range(0, n, length))


def _direct(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether BLAS takes both arrays as they are."""
    return x.dtype == y.dtype and x.dtype.char in "fdFD" and x.flags.c_contiguous and y.flags.c_contiguous and x.size > 0
