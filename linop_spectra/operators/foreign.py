"""Functions, and operators of other libraries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backends import Array, Backend, get_backend
from .base import LinearOperator
from .dtypes import narrow_rounding


class CallableOperator(LinearOperator):
    """A function of one vector.

    The function is handed what it cannot spoil (`Backend.guard`): a read-only view of a NumPy array, on other backends a copy,
    which costs as much as reading and writing one vector.
    """

    def __init__(self, function: Callable[[Any], Any], adjoint: Callable[[Any], Any] | None, **options: Any) -> None:
        self.function, self.adjoint = function, adjoint
        super().__init__(**options)

    def _columns(self, function: Callable[[Any], Any], x: Array, rows: int) -> Array:
        out = self.backend.empty((x.shape[1], rows), self.dtype)
        for i in range(x.shape[1]):
            product = self.backend.asarray(function(self.backend.guard(x[:, i])))
            if tuple(product.shape) != (rows,):
                raise ValueError(
                    f"The callable should return a vector of shape ({rows},), but returned an array of shape {tuple(product.shape)}."
                )
            if self.backend.dtype_of(product).kind == "c" and self.dtype.kind != "c":
                raise TypeError(
                    f"The callable returned complex numbers, but the operator was given dtype {self.dtype}; pass dtype=complex."
                )
            out[i, :] = self._own_dtype(product)
        return out.T

    def _matmat(self, x: Array) -> Array:
        return self._columns(self.function, x, self.shape[0])

    def _rmatmat(self, x: Array) -> Array:
        if self.adjoint is None:
            return super()._rmatmat(x)
        return self._columns(self.adjoint, x, self.shape[1])

    def _details(self) -> str:
        return getattr(self.function, "__qualname__", type(self.function).__name__)


class ForeignOperator(LinearOperator):
    """Another library's operator, reached through ``matmat`` and ``rmatmat``, or ``@`` and ``adjoint()``.

    Operators of SciPy, CuPy and PyLops take arrays of the backend. One whose ``dtype`` is a torch dtype (curvlinops) is handed
    tensors on its own device, of its own type.
    """

    def __init__(self, inner: Any, *, backend: Backend, **options: Any) -> None:
        self.inner = inner
        self._tensors: Backend | None = None
        self._tensor_dtype = None
        self._inner_rounding = 0.0
        # SciPy's operators compute with NumPy, and know no other arrays.
        from_scipy = any(base.__module__.startswith("scipy.") for base in type(inner).__mro__)
        self._on_host = from_scipy and backend.name != "numpy"
        if takes_tensors(inner):
            self._tensors = get_backend(f"torch:{inner.device}")
            self._tensor_dtype = inner.dtype
            self._inner_rounding = narrow_rounding(inner.dtype)
        super().__init__(tuple(inner.shape), backend=backend, **options)

    def _apply(self, function: Callable[[Any], Any], x: Array) -> Array:
        if self._on_host:
            return self.backend.asarray(function(self.backend.to_numpy(x)))
        x = self.backend.guard(x)
        if self._tensors is None:
            return self.backend.asarray(function(x))
        product = function(self._tensors.asarray(x, dtype=self._tensor_dtype))
        return self.backend.asarray(product)

    def _matmat(self, x: Array) -> Array:
        return self._apply(self.inner.matmat if hasattr(self.inner, "matmat") else self.inner.__matmul__, x)

    def _rmatmat(self, x: Array) -> Array:
        if self.hermitian:
            return self._matmat(x)
        if hasattr(self.inner, "rmatmat"):
            return self._apply(self.inner.rmatmat, x)
        if self._tensors is not None and hasattr(self.inner, "adjoint"):
            return self._apply(self.inner.adjoint().__matmul__, x)
        return super()._rmatmat(x)

    @property
    def unit_rounding(self) -> float:
        """Relative rounding of products: that of the narrowest type seen."""
        return max(super().unit_rounding, self._inner_rounding)

    def _details(self) -> str:
        return f"{type(self.inner).__module__}.{type(self.inner).__qualname__}"


class DeclaredOperator(LinearOperator):
    """An operator of which more is known than it says: whether it is Hermitian, or positive semidefinite."""

    def __init__(self, inner: LinearOperator, hermitian: bool | None, positive_semidefinite: bool | None = None) -> None:
        self.inner = inner
        known = inner.positive_semidefinite if positive_semidefinite is None else positive_semidefinite
        super().__init__(inner.shape, inner.dtype, hermitian=hermitian, positive_semidefinite=known, backend=inner.backend)

    def _matmat(self, x: Array) -> Array:
        return self.inner.matmat(x)

    def _rmatmat(self, x: Array) -> Array:
        return self.inner.matmat(x) if self.hermitian else self.inner.rmatmat(x)

    def derivative_error(self, seed: int = 0) -> float | None:
        """That of the operator."""
        return self.inner.derivative_error(seed)

    def _children(self) -> tuple[LinearOperator, ...]:
        return (self.inner,)


def takes_tensors(obj: Any) -> bool:
    """Whether an operator multiplies torch tensors: its dtype is one of torch's."""
    return type(foreign_dtype(obj)).__module__.partition(".")[0] == "torch" and hasattr(obj, "device")


def foreign_dtype(obj: Any) -> Any:
    """The dtype of another library's operator; None when it has none or does not tell."""
    try:
        return getattr(obj, "dtype", None)
    except NotImplementedError:
        return None


def default_dtype(obj: Any) -> Any:
    """The dtype of another library's operator, double precision when it does not tell."""
    found = foreign_dtype(obj)
    return np.dtype(np.float64) if found is None else found
