"""Vectors as CuPy arrays, on a CUDA device.

Scalars stay on the device (`eager_scalars` is False): the core reads them back a few steps at a time. Nothing of ``cupyx``
is imported, because that fails on machines without the CUDA libraries.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .cupy_kernels import CudaKernels, Kernels, PlainKernels
from .probes import ProbeKind, random_vector

CUBLAS_LIMIT = 2**31 - 1
"""Longest vector that cuBLAS counts in 32 bits; of longer ones it is not asked."""
_ROWS_OF_A_SUM = 1024


def cupy_usable() -> bool:
    """Whether CuPy is installed and sees a device; importing alone succeeds without a GPU."""
    try:
        import cupy
    except ImportError:
        return False
    return bool(cupy.is_available())


class CupyBackend:
    """CuPy arrays on the current device.

    Parameters
    ----------
    module : module, optional
        The array module to compute with. Tests pass NumPy here, which runs the same lines without a device, with array
        expressions in place of the kernels.
    """

    name = "cupy"
    eager_scalars = False

    def __init__(self, module: Any = None) -> None:
        if module is None:
            if not cupy_usable():
                raise RuntimeError(
                    "The backend 'cupy' was asked for, but CuPy is not installed or sees no CUDA device; "
                    "install cupy-cuda12x or cupy-cuda13x on a machine with a GPU, or use backend='numpy'."
                )
            import cupy

            module = cupy
        self._xp = module
        self._kernels: Kernels = CudaKernels(module) if hasattr(module, "ElementwiseKernel") else PlainKernels(module)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self._xp.__name__)  # a module cannot be pickled

    def asarray(self, x: Any, dtype: Any = None) -> Any:
        """`x` on the device; torch and JAX arrays that are there already are not copied."""
        if not self.owns(x) and hasattr(x, "__dlpack_device__") and not isinstance(x, np.ndarray):
            if hasattr(x, "detach"):
                x = x.detach().resolve_conj().resolve_neg()
            x = _without_bfloat16(x)
            x = self.from_dlpack(x) if _on_cuda(x) else _on_host(x)
        return self._xp.asarray(x, dtype=dtype)

    def from_dlpack(self, x: Any) -> Any:
        """A view of a foreign array on the same device."""
        if hasattr(x, "detach"):
            x = x.detach().resolve_conj()
        return self._xp.from_dlpack(x)

    def to_numpy(self, x: Any) -> np.ndarray:
        """A copy on the host."""
        return np.asarray(x.get() if hasattr(x, "get") else x)

    def owns(self, x: Any) -> bool:
        """Whether `x` is a CuPy array."""
        return isinstance(x, self._xp.ndarray)

    def dtype_of(self, x: Any) -> np.dtype:
        """Type of the entries."""
        return np.dtype(x.dtype)

    def conj(self, x: Any) -> Any:
        """Complex conjugate; `x` itself when it is real."""
        return self._xp.conj(x) if x.dtype.kind == "c" else x

    def real(self, x: Any) -> Any:
        """Real part."""
        return self._xp.real(x)

    def imag(self, x: Any) -> Any:
        """Imaginary part."""
        return self._xp.imag(x)

    def any(self, mask: Any) -> bool:
        """Whether there is a True."""
        return bool(self._xp.any(mask))

    def contiguous(self, x: Any, dtype: Any = None) -> Any:
        """`x` in C order, copied only where it must be."""
        return self._xp.ascontiguousarray(x, dtype=dtype)

    def reshape(self, x: Any, shape: tuple[int, ...]) -> Any:
        """`x` in C order with another shape."""
        return x.reshape(shape)

    def gather(self, rows: Any, index: np.ndarray) -> Any:
        """``rows[:, index]``."""
        return self._xp.take(rows, self._xp.asarray(index), axis=1)

    def scatter(self, rows: Any, index: np.ndarray, n: int) -> Any:
        """Zeros, but for ``[:, index] = rows``."""
        out = self._xp.zeros((rows.shape[0], n), rows.dtype)
        out[:, self._xp.asarray(index)] = rows
        return out

    def guard(self, x: Any) -> Any:
        """A copy: CuPy has no read-only arrays."""
        return x.copy(order="K")

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Uninitialised array; CuPy's pool aligns to 512 bytes."""
        return self._xp.empty(shape, dtype=dtype)

    def gemv_t(self, rows: Any, w: Any) -> Any:
        """``conj(rows) @ w``."""
        if w.shape[0] > CUBLAS_LIMIT:
            sums = [self.dot(rows[j, :], w) for j in range(rows.shape[0])]
            return self._xp.stack(sums).astype(rows.dtype) if sums else self._xp.zeros(0, rows.dtype)
        return self._kernels.gemv_t(rows, w)

    def gemv_n_sub(self, rows: Any, coefficients: Any, w: Any) -> None:
        """``w -= coefficients @ rows`` in place."""
        if w.shape[0] > CUBLAS_LIMIT:
            for j in range(rows.shape[0]):
                self.axpy(-coefficients[j], rows[j, :], w)
        else:
            self._kernels.gemv_n_sub(rows, coefficients, w)

    def combine(self, coefficients: np.ndarray, rows: Any) -> Any:
        """``coefficients @ rows``."""
        weights = np.asarray(coefficients, dtype=rows.dtype)
        if rows.shape[1] <= CUBLAS_LIMIT:
            return self._xp.asarray(weights) @ rows
        out = self._xp.zeros((weights.shape[0], rows.shape[1]), rows.dtype)
        for i in range(weights.shape[0]):
            for j in range(weights.shape[1]):
                self.axpy(weights[i, j], rows[j, :], out[i, :])
        return out

    def dot(self, x: Any, y: Any) -> Any:
        """Inner product summed in double precision, as a 0-d array on the device."""
        if x.shape[0] == 0:
            return self._xp.zeros((), np.complex128 if x.dtype.kind == "c" else np.float64)
        return self._total(self._kernels.products(*pair) for pair in zip(_folded(x), _folded(y), strict=True))

    def norm(self, x: Any) -> Any:
        """Euclidean norm as a 0-d array on the device; squares neither over- nor underflow."""
        if x.shape[0] == 0:
            return self._xp.zeros((), np.float64)
        if x.dtype.char in "fF":  # in double precision their squares are safe
            return self._xp.sqrt(self._total(self._kernels.squares(part, 1.0) for part in _folded(x)))
        largest = self._xp.max(self._xp.concatenate([self._kernels.largest(part) for part in _folded(x)]))
        usable = (largest > 0) & (largest < np.inf)  # zeros and infinities stay what they are
        scale = self._xp.where(usable, largest, 1.0)
        return scale * self._xp.sqrt(self._total(self._kernels.squares(part, scale) for part in _folded(x)))

    def _total(self, sums: Iterator[Any]) -> Any:
        return self._xp.sum(self._xp.concatenate(list(sums)))

    def axpy(self, a: Any, x: Any, y: Any) -> None:
        """``y += a x`` in place."""
        # A number goes to the kernel by value; making an array of it would wait for the device.
        self._kernels.axpy(a.astype(y.dtype) if hasattr(a, "astype") else y.dtype.type(a), x, y)

    def scale_into(self, x: Any, factor: Any, out: Any) -> None:
        """``out[:] = factor x``."""
        factor = factor.astype(x.dtype) if hasattr(factor, "astype") else x.dtype.type(factor)
        self._xp.multiply(x, factor, out=out, casting="same_kind")

    def fetch(self, scalars: Sequence[Any]) -> np.ndarray:
        """All scalars in one transfer."""
        return self.to_numpy(self._xp.stack([self._xp.asarray(s) for s in scalars]))

    def safe_reciprocal(self, value: Any, threshold: Any) -> Any:
        """``1 / value`` above the threshold, else zero, without asking the host."""
        usable = value > threshold
        return self._xp.where(usable, 1.0 / self._xp.where(usable, value, 1.0), 0.0)

    def probes(self, n: int, indices: Sequence[int], *, kind: ProbeKind, seed: int, domain: str, dtype: Any) -> Any:
        """Random vectors made on the host, then uploaded: the same numbers as everywhere."""
        rows = self.empty((len(indices), n), dtype)
        for row, index in enumerate(indices):
            host = random_vector(n, kind=kind, seed=seed, domain=domain, index=index, dtype=np.dtype(dtype))
            rows[row] = self._xp.asarray(host)
        return rows

    def reduce(self, x: Any) -> Any:
        """The identity: one process holds whole vectors."""
        return x

    def synchronize(self) -> None:
        """Wait for the current stream."""
        if hasattr(self._xp, "cuda"):
            self._xp.cuda.get_current_stream().synchronize()

    def total_memory(self) -> int:
        """Memory of the current device."""
        if hasattr(self._xp, "cuda"):
            return int(self._xp.cuda.runtime.memGetInfo()[1])
        from .._memory import total_memory

        return total_memory()


def _restore(kind: type[CupyBackend], module: str) -> CupyBackend:
    return kind() if module == "cupy" else kind(importlib.import_module(module))


def _folded(x: Any) -> Iterator[Any]:
    """A vector as a block of rows and a rest: a sum over rows keeps the whole device busy, one over everything does not."""
    n = x.shape[0]
    rows = min(_ROWS_OF_A_SUM, n)
    length = n // rows
    yield x[: rows * length].reshape(rows, length)
    if rows * length < n:
        yield x[rows * length :].reshape(1, -1)


def _without_bfloat16(x: Any) -> Any:
    """A torch or JAX array in a type that CuPy has."""
    if not str(getattr(x, "dtype", "")).endswith("bfloat16"):
        return x
    return x.float() if hasattr(x, "detach") else x.astype(np.float32)


def _on_host(x: Any) -> np.ndarray:
    host = np.asarray(x)
    return host.astype(np.float32) if host.dtype.kind == "V" and "float" in host.dtype.name else host


def _on_cuda(x: Any) -> bool:
    return int(x.__dlpack_device__()[0]) in (2, 13)  # kDLCUDA, kDLCUDAManaged
