"""Vectors as CuPy arrays, on a CUDA device.

Scalars stay on the device (`eager_scalars` is False): the core reads them back a few steps at a time. Nothing of ``cupyx``
is imported, because that fails on machines without the CUDA libraries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .probes import ProbeKind, random_vector


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
        The array module to compute with. Tests pass NumPy here, which runs the same lines without a device.
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

    def asarray(self, x: Any, dtype: Any = None) -> Any:
        """`x` on the device; torch and JAX arrays that are there already are not copied."""
        if not self.owns(x) and hasattr(x, "__dlpack_device__") and not isinstance(x, np.ndarray):
            x = self.from_dlpack(x) if _on_cuda(x) else np.asarray(x.detach() if hasattr(x, "detach") else x)
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

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Uninitialised array; CuPy's pool aligns to 512 bytes."""
        return self._xp.empty(shape, dtype=dtype)

    def gemv_t(self, rows: Any, w: Any) -> Any:
        """``conj(rows) @ w``."""
        if rows.dtype.kind == "c":
            return self._xp.conj(rows @ self._xp.conj(w))
        return rows @ w

    def gemv_n_sub(self, rows: Any, coefficients: Any, w: Any) -> None:
        """``w -= coefficients @ rows`` in place."""
        w -= coefficients @ rows

    def combine(self, coefficients: np.ndarray, rows: Any) -> Any:
        """``coefficients @ rows``."""
        return self._xp.asarray(np.asarray(coefficients, dtype=rows.dtype)) @ rows

    def dot(self, x: Any, y: Any) -> Any:
        """Inner product summed in double precision, as a 0-d array on the device."""
        if x.dtype.kind == "c":
            return self._xp.sum(self._xp.multiply(self._xp.conj(x), y, dtype=np.complex128))
        return self._xp.sum(self._xp.multiply(x, y, dtype=np.float64))

    def norm(self, x: Any) -> Any:
        """Euclidean norm as a 0-d array on the device; scaled, so that squares neither over- nor underflow."""
        largest = self._xp.max(self._xp.abs(x)).astype(np.float64)
        scale = self._xp.where(largest > 0, largest, 1.0)
        scaled = self._xp.abs(x) / scale
        return scale * self._xp.sqrt(self._xp.sum(scaled * scaled))

    def axpy(self, a: Any, x: Any, y: Any) -> None:
        """``y += a x`` in place."""
        y += self._xp.asarray(a).astype(y.dtype) * x

    def scale_into(self, x: Any, factor: Any, out: Any) -> None:
        """``out[:] = factor x``."""
        self._xp.multiply(x, self._xp.asarray(factor).astype(x.dtype), out=out, casting="same_kind")

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


def _on_cuda(x: Any) -> bool:
    return int(x.__dlpack_device__()[0]) in (2, 13)  # kDLCUDA, kDLCUDAManaged
