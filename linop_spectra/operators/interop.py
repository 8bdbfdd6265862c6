"""Operators from what users have: arrays, sparse matrices, other libraries' operators, plain functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends import Array, Backend, backend_of, get_backend
from .base import LinearOperator

if TYPE_CHECKING:
    import scipy.sparse.linalg


class MatrixOperator(LinearOperator):
    """An explicit matrix, dense or sparse, whose ``@`` multiplies blocks."""

    def __init__(self, matrix: Any, dtype: Any, hermitian: bool | None, backend: Backend) -> None:
        self.matrix = matrix
        super().__init__(matrix.shape, dtype, hermitian=hermitian, backend=backend)

    def _matmat(self, x: Array) -> Array:
        return self.matrix @ x

    def _rmatmat(self, x: Array) -> Array:
        return self.matrix @ x if self.hermitian else self.matrix.conj().T @ x

    def _details(self) -> str:
        stored = getattr(self.matrix, "nnz", None)
        return "dense" if stored is None else f"sparse, {stored:,} entries"


class CallableOperator(LinearOperator):
    """A function of one vector, or of a block."""

    def __init__(self, function: Callable[[Any], Any], adjoint: Callable[[Any], Any] | None, **options: Any) -> None:
        self.function, self.adjoint = function, adjoint
        super().__init__(**options)

    def _columns(self, function: Callable[[Any], Any], x: Array, rows: int) -> Array:
        out = self.backend.empty((x.shape[1], rows), self.dtype)
        for i in range(x.shape[1]):
            column = x[:, i]
            if isinstance(column, np.ndarray):
                column = column.view()
                column.flags.writeable = False  # a function that writes into its argument would corrupt the basis
            product = self.backend.asarray(function(column))
            if tuple(product.shape) != (rows,):
                raise ValueError(
                    f"The callable should return a vector of shape ({rows},), but returned an array of shape {tuple(product.shape)}."
                )
            if product.dtype.kind == "c" and self.dtype.kind != "c":
                raise TypeError(
                    f"The callable returned complex numbers, but the operator was given dtype {self.dtype}; pass dtype=complex."
                )
            out[i] = product
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
    """Another library's operator, reached through ``matmat`` and ``rmatmat`` (or ``@``)."""

    def __init__(self, inner: Any, **options: Any) -> None:
        self.inner = inner
        super().__init__(tuple(inner.shape), **options)

    def _matmat(self, x: Array) -> Array:
        product = self.inner.matmat(x) if hasattr(self.inner, "matmat") else self.inner @ x
        return self.backend.asarray(product)

    def _rmatmat(self, x: Array) -> Array:
        if self.hermitian:
            return self._matmat(x)
        if hasattr(self.inner, "rmatmat"):
            return self.backend.asarray(self.inner.rmatmat(x))
        return super()._rmatmat(x)

    def _details(self) -> str:
        return f"{type(self.inner).__module__}.{type(self.inner).__qualname__}"


def aslinearoperator(
    obj: Any,
    *,
    shape: tuple[int, int] | None = None,
    dtype: Any = None,
    hermitian: bool | None = None,
    backend: str | Backend | None = None,
) -> LinearOperator:
    """Wrap whatever multiplies vectors as a `LinearOperator`.

    Parameters
    ----------
    obj : object
        A `LinearOperator` (returned as it is); a dense array of NumPy, CuPy, torch or JAX; a sparse matrix of SciPy or
        CuPy; an operator of SciPy, CuPy or PyLops, or anything with ``shape`` and ``matmat``, ``matvec`` or ``@``;
        or a callable that maps a vector of shape (n,) to one of shape (m,).
    shape : tuple of int, optional
        Needed for a callable.
    dtype : dtype, optional
        Type of the vectors; needed for a callable. Integer and boolean matrices work in double precision.
    hermitian : bool, optional
        Whether the operator equals its conjugate transpose. Not checked here: Lanczos finds out a wrong claim.
        When not given it is looked up where that is cheap (dense and sparse arrays are compared with their transpose).
    backend : str, Backend or None
        Where the vectors live; by default where `obj` lives.

    Returns
    -------
    LinearOperator
        An operator with the full algebra.

    Raises
    ------
    ValueError
        When a shape is missing or is not two lengths.
    TypeError
        When `obj` multiplies nothing.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> a = ls.aslinearoperator(lambda x: 2 * x, shape=(3, 3), dtype=float, hermitian=True)
    >>> a @ np.ones(3)
    array([2., 2., 2.])
    """
    if isinstance(obj, LinearOperator):
        if hermitian is not None and obj.hermitian is not None and hermitian != obj.hermitian:
            raise ValueError(f"The operator is marked hermitian={obj.hermitian}, but hermitian={hermitian} was asked for.")
        return obj
    if isinstance(obj, (list, tuple)):
        obj = np.asarray(obj)
    resolved = get_backend(backend) if backend is not None else backend_of(obj)
    if _is_sparse(obj):
        matrix = obj if obj.format in ("csr", "csc", "dia", "bsr") else obj.tocsr()
        chosen = _floating_dtype(obj.dtype, dtype)
        return MatrixOperator(matrix.astype(chosen), chosen, _sparse_symmetry(matrix, hermitian), resolved)
    if _is_array(obj):
        dense = resolved.asarray(obj)
        if len(dense.shape) != 2:
            raise ValueError(f"An array of shape {tuple(dense.shape)} is no matrix; pass one of shape (m, n).")
        chosen = _floating_dtype(dense.dtype, dtype)
        dense = resolved.asarray(dense, dtype=chosen)
        return MatrixOperator(dense, chosen, _dense_symmetry(dense, hermitian), resolved)
    if hasattr(obj, "shape") and (hasattr(obj, "matmat") or hasattr(obj, "matvec") or hasattr(obj, "__matmul__")):
        return _wrap_foreign(obj, dtype, hermitian, resolved)
    if callable(obj):
        if shape is None or dtype is None:
            raise ValueError("A callable says neither its shape nor its dtype; pass shape=(n, n) and dtype=, for example dtype=float.")
        return CallableOperator(obj, None, shape=shape, dtype=dtype, hermitian=hermitian, backend=resolved)
    if hasattr(obj, "hessian") and hasattr(obj, "ggn"):
        raise TypeError("An objective is a function, not a matrix; pass objective.hessian() or objective.ggn().")
    raise TypeError(
        f"An object of type {type(obj).__name__} cannot be used as an operator; pass a matrix, an operator with shape and matmat, "
        "or a callable with shape= and dtype=."
    )


def _wrap_foreign(obj: Any, dtype: Any, hermitian: bool | None, backend: Backend) -> LinearOperator:
    chosen = _floating_dtype(np.dtype(getattr(obj, "dtype", None) or np.float64), dtype)
    if hasattr(obj, "matmat") or hasattr(obj, "__matmul__"):
        return ForeignOperator(obj, dtype=chosen, hermitian=hermitian, backend=backend)
    return CallableOperator(
        obj.matvec, getattr(obj, "rmatvec", None), shape=tuple(obj.shape), dtype=chosen, hermitian=hermitian, backend=backend
    )


def _is_sparse(obj: Any) -> bool:
    return hasattr(obj, "tocsr") and hasattr(obj, "nnz") and hasattr(obj, "format")


def _is_array(obj: Any) -> bool:
    return hasattr(obj, "__dlpack__") or isinstance(obj, np.ndarray)


def _floating_dtype(found: np.dtype, asked: Any) -> np.dtype:
    if asked is not None:
        return np.dtype(asked)
    if found.kind not in "biufc":
        raise TypeError(f"A matrix of dtype {found} holds no numbers.")
    if found.kind in "biu" or found.itemsize < 4:
        return np.dtype(np.float64 if found.kind in "biu" else np.float32)
    return found


def _dense_symmetry(matrix: Array, hermitian: bool | None) -> bool | None:
    if hermitian is not None or matrix.shape[0] != matrix.shape[1]:
        return hermitian
    # NaN counts as equal to NaN: a run says at which product it met one.
    transposed = matrix.conj().T
    return bool(((matrix == transposed) | ((matrix != matrix) & (transposed != transposed))).all())


def _sparse_symmetry(matrix: Any, hermitian: bool | None) -> bool | None:
    if hermitian is not None or matrix.shape[0] != matrix.shape[1]:
        return hermitian
    return (matrix != matrix.conj().T).nnz == 0


def to_scipy(operator: LinearOperator) -> scipy.sparse.linalg.LinearOperator:
    """SciPy's view of an operator; vectors are brought to the host and back."""
    from scipy.sparse import linalg

    def host(function: Callable[[Any], Array]) -> Callable[[np.ndarray], np.ndarray]:
        return lambda x: operator.backend.to_numpy(function(x))

    def flat(function: Callable[[Any], Array]) -> Callable[[np.ndarray], np.ndarray]:
        return lambda x: operator.backend.to_numpy(function(x.reshape(-1)))

    return linalg.LinearOperator(
        operator.shape,
        dtype=operator.dtype,
        matvec=flat(operator.matvec),
        rmatvec=flat(operator.rmatvec),
        matmat=host(operator.matmat),
        rmatmat=host(operator.rmatmat),
    )
