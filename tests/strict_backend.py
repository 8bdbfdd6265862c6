"""A backend on array-api-strict arrays that live on a device which NumPy cannot see into.

Nothing that runs on it can bring numbers to the host but through the backend: ``numpy.asarray`` raises, the arrays have neither
methods nor ``reshape``, and the ways that remain (``float()``, ``bool()``, DLPack, moving to another device) are counted.
"""

import array_api_strict as xp
import numpy as np
from array_api_strict._array_object import Array

from linop_spectra._memory import total_memory
from linop_spectra.backends import random_vector

DEVICE = xp.Device("device1")
HOST = xp.Device("CPU_DEVICE")
WAYS_OUT = ("__float__", "__bool__", "__int__", "__complex__", "__index__", "__dlpack__", "to_device", "__iter__")


def strict_type(dtype):
    return getattr(xp, np.dtype(dtype).name)


def plain(number):
    """A Python number: NumPy's scalars would make NumPy multiply."""
    return complex(number) if np.iscomplexobj(number) else float(number)


class StrictBackend:
    name = "strict"
    eager_scalars = False

    def __init__(self):
        self.fetches = 0

    def asarray(self, x, dtype=None):
        if not isinstance(x, Array):
            x = np.asarray(x)
            if x.dtype.kind not in "biufc":
                raise TypeError(f"An array of dtype {x.dtype} holds no numbers.")
            x = xp.asarray(np.ascontiguousarray(x) if x.ndim else x, device=DEVICE)
        return x if dtype is None or x.dtype == strict_type(dtype) else self._astype(x, dtype)

    def _astype(self, x, dtype):
        return xp.astype(x, strict_type(dtype), copy=False)

    from_dlpack = asarray

    def to_numpy(self, x):
        if not isinstance(x, Array):
            return np.asarray(x)
        self.fetches += 1
        return np.asarray(x._array).copy()

    def owns(self, x):
        return isinstance(x, Array)

    def dtype_of(self, x):
        return np.dtype(x._array.dtype)

    def _complex(self, x):
        return self.dtype_of(x).kind == "c"

    def conj(self, x):
        return xp.conj(x) if self._complex(x) else x

    def real(self, x):
        return (xp.real(x) if self._complex(x) else x) if isinstance(x, Array) else np.real(x)

    def imag(self, x):
        return (xp.imag(x) if self._complex(x) else xp.zeros_like(x)) if isinstance(x, Array) else np.imag(x)

    def any(self, mask):
        self.fetches += 1
        return bool(np.any(mask._array))

    def contiguous(self, x, dtype=None):
        x = x if dtype is None else self._astype(x, dtype)
        return x if x._array.flags.c_contiguous else self._like(np.ascontiguousarray(x._array))

    def _like(self, values):
        return xp.asarray(values, device=DEVICE)

    def reshape(self, x, shape):
        return xp.reshape(x, shape)

    def gather(self, rows, index):
        return xp.take(rows, self.asarray(index), axis=1)

    def scatter(self, rows, index, n):
        places = np.full(n, len(index))
        places[index] = np.arange(len(index))
        padded = xp.concat([rows, xp.zeros((rows.shape[0], 1), dtype=rows.dtype, device=DEVICE)], axis=1)
        return xp.take(padded, self.asarray(places), axis=1)

    def guard(self, x):
        return self._like(x._array.copy(order="K"))

    def empty(self, shape, dtype):
        return xp.full(tuple(shape), np.nan, dtype=strict_type(dtype), device=DEVICE)  # so that reading it shows

    def gemv_t(self, rows, w):
        return self.conj(rows @ self.conj(w))

    def gemv_n_sub(self, rows, coefficients, w):
        w -= xp.astype(coefficients, w.dtype) @ rows

    def combine(self, coefficients, rows):
        return self.asarray(np.asarray(coefficients), dtype=self.dtype_of(rows)) @ rows

    def dot(self, x, y):
        wide = xp.complex128 if self._complex(x) else xp.float64
        return xp.vecdot(xp.astype(x, wide), xp.astype(y, wide))

    def norm(self, x):
        moduli = xp.abs(xp.astype(x, xp.complex128 if self._complex(x) else xp.float64))
        if x.shape[0] == 0:
            return xp.asarray(0.0, device=DEVICE)
        largest = xp.max(moduli)
        scale = xp.where((largest > 0) & xp.isfinite(largest), largest, xp.ones_like(largest))
        return scale * xp.linalg.vector_norm(moduli / scale)

    def axpy(self, a, x, y):
        y += (xp.astype(a, y.dtype) if isinstance(a, Array) else plain(a)) * x

    def scale_into(self, x, factor, out):
        out[...] = xp.astype((xp.astype(factor, x.dtype) if isinstance(factor, Array) else plain(factor)) * x, out.dtype)

    def fetch(self, scalars):
        self.fetches += 1
        return np.stack([np.asarray(s._array if isinstance(s, Array) else s) for s in scalars])

    def safe_reciprocal(self, value, threshold):
        usable = value > threshold
        one, zero = xp.ones_like(value), xp.zeros_like(value)
        return xp.where(usable, one / xp.where(usable, value, one), zero)

    def probes(self, n, indices, *, kind, seed, domain, dtype):
        rows = [random_vector(n, kind=kind, seed=seed, domain=domain, index=i, dtype=np.dtype(dtype)) for i in indices]
        return self.asarray(np.stack(rows))

    def reduce(self, x):
        return x

    def synchronize(self):
        pass

    def total_memory(self):
        return total_memory()


class Transfers:
    """Counts the ways out of the device that go round the backend."""

    def __init__(self, monkeypatch):
        self.ways = []
        for name in WAYS_OUT:
            if hasattr(Array, name):
                monkeypatch.setattr(Array, name, self._counted(name, getattr(Array, name)))

    def _counted(self, name, method):
        def counted(array, *arguments, **options):
            if array.device != HOST and not (name == "to_device" and arguments[:1] == (array.device,)):
                self.ways.append(name)
            return method(array, *arguments, **options)

        return counted
