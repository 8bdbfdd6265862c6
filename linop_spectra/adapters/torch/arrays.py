"""NumPy vectors that torch does the arithmetic of."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ...backends.numpy_backend import NumpyBackend


class NumpyOnTorch(NumpyBackend):
    """The NumPy backend with torch's GEMVs on the same memory.

    A model's products run on torch's threads. If the orthogonalisation between two products ran on those of a BLAS, either
    set of threads would still wait for work, and take the cores, while the other one has some: products become two to
    three times slower (``benchmarks/blas_threads.py``).
    """

    def gemv_t(self, rows: np.ndarray, w: np.ndarray) -> np.ndarray:
        """``conj(rows) @ w``."""
        if not _fits(rows, w):
            return super().gemv_t(rows, w)
        return np.asarray(torch.mv(torch.from_numpy(rows), torch.from_numpy(w)).numpy())

    def gemv_n_sub(self, rows: np.ndarray, coefficients: np.ndarray, w: np.ndarray) -> None:
        """``w -= coefficients @ rows`` in place."""
        if not _fits(rows, w):
            return super().gemv_n_sub(rows, coefficients, w)
        torch.from_numpy(w).addmv_(torch.from_numpy(rows).T, torch.from_numpy(coefficients.astype(w.dtype)), alpha=-1)
        return None

    def combine(self, coefficients: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """``coefficients @ rows``."""
        if not _fits(rows):
            return super().combine(coefficients, rows)
        left = torch.from_numpy(np.ascontiguousarray(coefficients, dtype=rows.dtype))
        return np.asarray((left @ torch.from_numpy(rows)).numpy())

    def dot(self, x: np.ndarray, y: np.ndarray) -> Any:
        """Inner product, summed in double precision."""
        if x.dtype == np.float64 and _fits(x, y):
            return np.float64(torch.dot(torch.from_numpy(x), torch.from_numpy(y)).item())
        return super().dot(x, y)

    def axpy(self, a: Any, x: np.ndarray, y: np.ndarray) -> None:
        """``y += a x`` in place."""
        if not _fits(x, y):
            return super().axpy(a, x, y)
        torch.from_numpy(y).add_(torch.from_numpy(x), alpha=float(a))
        return None


def _fits(*arrays: np.ndarray) -> bool:
    """Whether torch takes the arrays as they are: real, of one type, and writable, because it warns about the others."""
    return arrays[0].dtype.char in "fd" and all(x.dtype == arrays[0].dtype and x.flags.writeable for x in arrays)
