"""Operators from what users have: arrays, sparse matrices, other libraries' operators, plain functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends import Array, Backend, get_backend, resolve_backend
from .base import LinearOperator
from .dtypes import as_numpy_dtype, narrow_rounding, working_dtype
from .foreign import CallableOperator, DeclaredOperator, ForeignOperator, default_dtype, takes_tensors
from .matrix import MatrixOperator, dense_symmetry
from .sparse import is_sparse, is_sparse_tensor, sparse_operator, sparse_tensor_operator

if TYPE_CHECKING:
    import scipy.sparse.linalg


def aslinearoperator(
    obj: Any,
    *,
    shape: tuple[int, int] | None = None,
    dtype: Any = None,
    hermitian: bool | None = None,
    positive_semidefinite: bool | None = None,
    backend: str | Backend | None = None,
) -> LinearOperator:
    """Wrap whatever multiplies vectors as a `LinearOperator`.

    Parameters
    ----------
    obj : object
        A `LinearOperator` (returned as it is); a dense array of NumPy, CuPy, torch or JAX, or what NumPy makes one of; a
        sparse matrix of SciPy, CuPy or torch; an operator of SciPy, CuPy, PyLops or curvlinops, or anything with ``shape`` and
        ``matmat``, ``matvec`` or ``@``; or a callable that maps a vector of shape (n,) to one of shape (m,). Arrays in host
        memory are not copied when their type is kept.
    shape : tuple of int, optional
        Needed for a callable.
    dtype : dtype, optional
        Type of the vectors: float32, float64, complex64 or complex128; needed for a callable. By default that of `obj`, but
        double precision for integers and booleans, and single precision for half precision and bfloat16, whose rounding the
        tests of symmetry then allow for.
    hermitian : bool, optional
        Whether the operator equals its conjugate transpose. Not checked here: Lanczos finds out a wrong claim.
        When not given it is looked up where that is cheap (dense and sparse arrays are compared with their transpose).
    positive_semidefinite : bool, optional
        Whether all eigenvalues are at least zero, which implies Hermitian. Not checked here; `solve` then takes conjugate
        gradients and `trace` the estimator for such operators.
    backend : str, Backend or None
        Where the vectors live; by default where `obj` lives.

    Returns
    -------
    LinearOperator
        An operator with the full algebra.

    Raises
    ------
    ValueError
        When a shape is missing, is not two lengths, is empty, or `obj` is an operator that is something else than was asked for.
    TypeError
        When `obj` multiplies nothing, or `dtype` is no type of vectors.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> a = ls.aslinearoperator(lambda x: 2 * x, shape=(3, 3), dtype=float, hermitian=True)
    >>> a @ np.ones(3)
    array([2., 2., 2.])
    """
    if positive_semidefinite is not None:
        if positive_semidefinite and hermitian is False:
            raise ValueError("A positive semidefinite operator is Hermitian, but hermitian=False was asked for; drop one of the two.")
        operator = aslinearoperator(
            obj, shape=shape, dtype=dtype, hermitian=True if positive_semidefinite else hermitian, backend=backend
        )
        known = operator.positive_semidefinite
        if known is not None and known != positive_semidefinite:
            raise ValueError(
                f"The operator is marked positive_semidefinite={known}, but positive_semidefinite={positive_semidefinite} was asked for."
            )
        return operator if known is not None else DeclaredOperator(operator, operator.hermitian, positive_semidefinite)
    if isinstance(obj, LinearOperator):
        return _as_declared(obj, shape, dtype, hermitian, backend)
    if isinstance(obj, (list, tuple)):
        obj = np.asarray(obj)
    if shape is not None and hasattr(obj, "shape") and tuple(shape) != tuple(obj.shape):
        raise ValueError(f"The argument shape is {tuple(shape)}, but the {type(obj).__name__} has shape {tuple(obj.shape)}; leave it out.")
    resolved = resolve_backend(obj, backend)
    if is_sparse(obj):
        return sparse_operator(obj, dtype, hermitian, resolved)
    if is_sparse_tensor(obj):
        return sparse_tensor_operator(obj, dtype, hermitian, resolved)
    if _is_array(obj):
        return _dense_operator(obj, dtype, hermitian, resolved)
    if hasattr(obj, "shape") and (hasattr(obj, "matmat") or hasattr(obj, "matvec") or hasattr(obj, "__matmul__")):
        return _wrap_foreign(obj, dtype, hermitian, backend)
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


def _as_declared(
    operator: LinearOperator, shape: Any, dtype: Any, hermitian: bool | None, backend: str | Backend | None
) -> LinearOperator:
    """An operator as it is, or with what was not known of it; ValueError where it is something else than was asked for."""
    if hermitian is not None and operator.hermitian is not None and hermitian != operator.hermitian:
        raise ValueError(f"The operator is marked hermitian={operator.hermitian}, but hermitian={hermitian} was asked for.")
    if shape is not None and tuple(shape) != operator.shape:
        raise ValueError(f"The argument shape is {tuple(shape)}, but the operator has shape {operator.shape}; leave it out.")
    if dtype is not None and as_numpy_dtype(dtype) != operator.dtype:
        raise ValueError(
            f"The argument dtype is {as_numpy_dtype(dtype)}, but the operator has dtype {operator.dtype}; build it with that dtype."
        )
    if backend is not None and get_backend(backend).name.partition(":")[0] != operator.backend.name.partition(":")[0]:
        raise ValueError(
            f"The argument backend is {get_backend(backend).name!r}, but the operator lives on {operator.backend.name!r}; build it there."
        )
    return DeclaredOperator(operator, hermitian) if hermitian is not None and operator.hermitian is None else operator


def _dense_operator(obj: Any, dtype: Any, hermitian: bool | None, backend: Backend) -> LinearOperator:
    dense = backend.asarray(obj)
    if len(dense.shape) != 2:
        raise ValueError(f"An array of shape {tuple(dense.shape)} is no matrix; pass one of shape (m, n).")
    found = getattr(obj, "dtype", None)
    chosen = working_dtype(backend.dtype_of(dense) if found is None else found, dtype)
    rounding = narrow_rounding(found)
    if 0 not in dense.shape:
        # Compared in its own type: rounding to a narrower one could hide or make a difference.
        hermitian = dense_symmetry(dense, hermitian, backend, rounding)
    return MatrixOperator(backend.asarray(dense, dtype=chosen), chosen, hermitian, backend, rounding)


def _wrap_foreign(obj: Any, dtype: Any, hermitian: bool | None, backend: str | Backend | None) -> LinearOperator:
    found = default_dtype(obj)
    chosen = working_dtype(found, dtype)
    if hermitian is None and getattr(obj, "SELF_ADJOINT", None) is True:  # how curvlinops says it
        hermitian = True
    if backend is None and takes_tensors(obj):
        resolved = _where_tensors_live(obj)
    else:
        resolved = resolve_backend(obj, backend)
    if hasattr(obj, "matmat") or hasattr(obj, "__matmul__"):
        return ForeignOperator(obj, dtype=chosen, hermitian=hermitian, backend=resolved)
    return CallableOperator(
        obj.matvec, getattr(obj, "rmatvec", None), shape=tuple(obj.shape), dtype=chosen, hermitian=hermitian, backend=resolved
    )


def _where_tensors_live(obj: Any) -> Backend:
    """NumPy on the CPU; on a CUDA device CuPy where it is usable, else torch."""
    tensors = get_backend(f"torch:{obj.device}")
    return resolve_backend(tensors.empty((0,), np.float32), None)


def _is_array(obj: Any) -> bool:
    if isinstance(obj, np.ndarray) or hasattr(obj, "__dlpack__"):
        return True
    return hasattr(obj, "__array__") and not hasattr(obj, "matmat") and not hasattr(obj, "matvec")


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
