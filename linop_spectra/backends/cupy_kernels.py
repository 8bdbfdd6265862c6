"""Kernels of the CuPy backend, and the same functions as plain array expressions.

The plain ones are what the kernels must compute; they run on NumPy, where tests compare them with everything else. The
kernels make no array of the vectors' length and count elements in 64 bits. They are compiled at the first launch.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np


class Kernels(Protocol):
    """Row sums over two-dimensional arrays, an update in place, and the two products with a basis."""

    def products(self, x: Any, y: Any) -> Any:
        """Sums of ``conj(x) y`` along rows, in double precision."""

    def squares(self, x: Any, scale: Any) -> Any:
        """Sums of ``|x / scale| ** 2`` along rows, in double precision."""

    def largest(self, x: Any) -> Any:
        """Largest modulus of each row, in double precision; what is NaN does not count."""

    def axpy(self, a: Any, x: Any, y: Any) -> None:
        """``y += a x``; `a` has the type of `y`."""

    def gemv_t(self, rows: Any, w: Any) -> Any:
        """``conj(rows) @ w``."""

    def gemv_n_sub(self, rows: Any, coefficients: Any, w: Any) -> None:
        """``w -= coefficients @ rows``."""


class PlainKernels:
    """Array expressions of NumPy or CuPy.

    Parameters
    ----------
    module : module
        NumPy or CuPy.
    """

    def __init__(self, module: Any) -> None:
        self._xp = module

    def _moduli(self, x: Any) -> Any:
        return self._xp.abs(x.astype(np.complex128 if x.dtype.kind == "c" else np.float64))

    def products(self, x: Any, y: Any) -> Any:
        """Sums of ``conj(x) y`` along rows."""
        wide = np.complex128 if x.dtype.kind == "c" else np.float64
        return self._xp.sum(self._xp.multiply(self._xp.conj(x), y, dtype=wide), axis=1)

    def squares(self, x: Any, scale: Any) -> Any:
        """Sums of ``|x / scale| ** 2`` along rows."""
        scaled = self._moduli(x) / scale
        return self._xp.sum(scaled * scaled, axis=1)

    def largest(self, x: Any) -> Any:
        """Largest modulus of each row."""
        moduli = self._moduli(x)
        return self._xp.max(self._xp.where(moduli >= 0, moduli, 0.0), axis=1, initial=0.0)

    def axpy(self, a: Any, x: Any, y: Any) -> None:
        """``y += a x``."""
        y += a * x

    def gemv_t(self, rows: Any, w: Any) -> Any:
        """``conj(rows) @ w``; conjugating the vector instead of the basis saves a copy of the basis."""
        return self._xp.conj(rows @ self._xp.conj(w)) if rows.dtype.kind == "c" else rows @ w

    def gemv_n_sub(self, rows: Any, coefficients: Any, w: Any) -> None:
        """``w -= coefficients @ rows``."""
        w -= coefficients @ rows


_SQUARE = {
    "f": "(double)x * (double)x",
    "d": "(x / scale) * (x / scale)",
    "F": "(double)x.real() * (double)x.real() + (double)x.imag() * (double)x.imag()",
    "D": "(x.real() / scale) * (x.real() / scale) + (x.imag() / scale) * (x.imag() / scale)",
}
_MODULUS = {
    "f": "fabs((double)x)",
    "d": "fabs(x)",
    "F": "hypot((double)x.real(), (double)x.imag())",
    "D": "hypot(x.real(), x.imag())",
}


class CudaKernels(PlainKernels):
    """CUDA kernels and cuBLAS, for single and double precision, real and complex; other types go the plain way.

    Parameters
    ----------
    module : module
        CuPy, with a device.
    """

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        from cupy import cublas

        self._gemv = cublas.gemv
        self._update = module.ElementwiseKernel("T a, T x", "T y", "y += a * x", "linop_spectra_axpy")
        self._reductions: dict[tuple[str, str], Any] = {}

    def _reduction(self, name: str, char: str) -> Any:
        """The kernel `name` for arrays of one type; the types are spelt out, so that nothing is left to promotion."""
        if (name, char) not in self._reductions:
            make = self._xp.ReductionKernel
            kind = {"f": "float32", "d": "float64", "F": "complex64", "D": "complex128"}[char]
            label = f"linop_spectra_{name}_{kind}"
            if name == "products" and char in "fd":
                kernel = make(f"{kind} x, {kind} y", "float64 z", "(double)x * (double)y", "a + b", "z = a", "0", label)
            elif name == "products":
                term = "complex<double>(conj(x)) * complex<double>(y)"
                kernel = make(f"{kind} x, {kind} y", "complex128 z", term, "a + b", "z = a", "0", label)
            elif name == "squares":
                kernel = make(f"{kind} x, float64 scale", "float64 z", _SQUARE[char], "a + b", "z = a", "0", label)
            else:
                kernel = make(f"{kind} x", "float64 z", _MODULUS[char], "fmax(a, b)", "z = a", "0", label)
            self._reductions[name, char] = kernel
        return self._reductions[name, char]

    def products(self, x: Any, y: Any) -> Any:
        """Sums of ``conj(x) y`` along rows."""
        if x.dtype != y.dtype or x.dtype.char not in "fdFD":
            return super().products(x, y)
        return self._reduction("products", x.dtype.char)(x, y, axis=1)

    def squares(self, x: Any, scale: Any) -> Any:
        """Sums of ``|x / scale| ** 2`` along rows; single precision needs no scale."""
        if x.dtype.char not in "fdFD":
            return super().squares(x, scale)
        return self._reduction("squares", x.dtype.char)(x, scale, axis=1)

    def largest(self, x: Any) -> Any:
        """Largest modulus of each row."""
        if x.dtype.char not in "fdFD":
            return super().largest(x)
        return self._reduction("largest", x.dtype.char)(x, axis=1)

    def axpy(self, a: Any, x: Any, y: Any) -> None:
        """``y += a x``."""
        if x.dtype == y.dtype:
            self._update(a, x, y)
        else:
            super().axpy(a, x, y)

    def gemv_t(self, rows: Any, w: Any) -> Any:
        """``conj(rows) @ w``."""
        if not _fits(rows, w):
            return super().gemv_t(rows, w)
        out = self._xp.empty(rows.shape[0], rows.dtype)
        # The transpose of C-ordered rows is Fortran-ordered: cuBLAS reads it as it lies.
        self._gemv("H" if rows.dtype.kind == "c" else "T", 1.0, rows.T, w, 0.0, out)
        return out

    def gemv_n_sub(self, rows: Any, coefficients: Any, w: Any) -> None:
        """``w -= coefficients @ rows``."""
        if _fits(rows, w):
            self._gemv("N", -1.0, rows.T, self._xp.ascontiguousarray(coefficients, dtype=w.dtype), 1.0, w)
        else:
            super().gemv_n_sub(rows, coefficients, w)


def _fits(rows: Any, w: Any) -> bool:
    """Whether cuBLAS takes both arrays as they lie; its GEMV knows neither strides nor empty matrices."""
    return bool(
        rows.dtype == w.dtype and rows.dtype.char in "fdFD" and rows.flags.c_contiguous and w.flags.c_contiguous and rows.size
    )
