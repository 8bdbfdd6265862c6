"""The operator: a matrix known by its product with a block of vectors."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from .._memory import format_bytes, parse_budget
from ..backends import Array, Backend, get_backend
from .dtypes import check_dtype

if TYPE_CHECKING:
    import scipy.sparse.linalg

_OURS = __package__.partition(".")[0] + "."


@runtime_checkable
class SupportsMatmat(Protocol):
    """What every algorithm accepts unwrapped: a shape, a dtype and ``matmat``.

    Objects with only ``matvec``, bare arrays and callables go through `aslinearoperator`.
    """

    shape: tuple[int, int]
    dtype: Any

    def matmat(self, x: Any) -> Any:
        """Product with a block of vectors, shape (n, k)."""


class LinearOperator(abc.ABC):
    """A matrix of shape (m, n) that exists as a product with blocks of vectors.

    A subclass implements ``_matmat(x)``: `x` is a Fortran-ordered (n, k) array of the operator's backend and dtype; any
    (m, k) array may come back. Rectangular or non-Hermitian operators may add ``_rmatmat(x)``, the product with the
    conjugate transpose.

    `x` must be left unchanged. It is often the Krylov basis itself: as a NumPy array it is read-only, so that a product that
    writes to it raises; on other backends, which have no read-only arrays, it is a copy. A compiled function that insists on
    a writable array needs a copy, ``np.array(x)``.

    Parameters
    ----------
    shape : tuple of int
        (m, n).
    dtype : dtype
        Real or complex floating type of the vectors.
    hermitian : bool or None
        True, False, or None for not known; an unknown one is tested at random before an algorithm relies on it.
    positive_semidefinite : bool or None
        Likewise, whether it is Hermitian and all its eigenvalues are at least zero.
    backend : str, Backend or None
        Arrays that ``_matmat`` works on; NumPy by default.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> class Averaging(ls.LinearOperator):
    ...     def _matmat(self, x):
    ...         return np.broadcast_to(x.mean(axis=0), x.shape)
    >>> a = Averaging((4, 4), float, hermitian=True)
    >>> a @ np.array([1.0, 2.0, 3.0, 4.0])
    array([2.5, 2.5, 2.5, 2.5])
    """

    # NumPy arrays on the left of @, *, + leave the operation to us.
    __array_ufunc__ = None

    def __init__(
        self,
        shape: tuple[int, int],
        dtype: Any,
        *,
        hermitian: bool | None = None,
        positive_semidefinite: bool | None = None,
        backend: str | Backend | None = None,
    ) -> None:
        self.shape = _check_shape(shape)
        self.dtype = check_dtype(dtype)
        square = self.shape[0] == self.shape[1]
        if (hermitian or positive_semidefinite) and not square:
            raise ValueError(
                f"An operator of shape {self.shape} is not square and so cannot be Hermitian; drop hermitian=True and "
                "positive_semidefinite=True."
            )
        if positive_semidefinite:
            if hermitian is False:
                raise ValueError("A positive semidefinite operator is Hermitian; drop hermitian=False or positive_semidefinite=True.")
            hermitian = True
        self.hermitian: bool | None = hermitian if square else False
        self.positive_semidefinite: bool | None = positive_semidefinite if square else False
        self.backend: Backend = get_backend(backend)
        self.num_matvecs = 0
        """Products with single vectors so far, adjoint products included."""
        self._rounding_seen = 0.0

    @abc.abstractmethod
    def _matmat(self, x: Array) -> Array: ...

    def _rmatmat(self, x: Array) -> Array:
        if self.hermitian:
            return self._matmat(x)
        raise TypeError(
            f"{self._describe()} has no product with its adjoint: it was given none and is not known to be Hermitian. "
            "Pass hermitian=True if it is, or define _rmatmat."
        )

    # -- products ------------------------------------------------------------------------------------------------------

    def matmat(self, x: Any) -> Array:
        """Product with a block of vectors.

        Parameters
        ----------
        x : array
            Shape (n, k); of any supported library, converted to the operator's backend and dtype.

        Returns
        -------
        array
            Shape (m, k), on the operator's backend. It may be a view of something else: do not write to it.

        Raises
        ------
        ValueError
            When the shape of `x`, or of what the product returned, does not fit.
        """
        return self._product(x, self._matmat, self.shape)

    def rmatmat(self, x: Any) -> Array:
        """Product of the conjugate transpose with a block of vectors, shape (m, k) to (n, k)."""
        return self._product(x, self._rmatmat, self.shape[::-1])

    def matvec(self, x: Any) -> Array:
        """Product with one vector, shape (n,) to (m,); see `matmat`."""
        return self.matmat(self._as_column(x, self.shape[1]))[:, 0]

    def rmatvec(self, x: Any) -> Array:
        """Product of the conjugate transpose with one vector, shape (m,) to (n,)."""
        return self.rmatmat(self._as_column(x, self.shape[0]))[:, 0]

    def _as_column(self, x: Any, length: int) -> Array:
        x = self.backend.asarray(x)
        if tuple(x.shape) != (length,):
            raise ValueError(f"{self._describe()} needs a vector of length {length}, but got an array of shape {tuple(x.shape)}.")
        return x[:, None]

    def _product(self, x: Any, apply: Any, shape: tuple[int, int]) -> Array:
        backend = self.backend
        x = backend.asarray(x)
        if len(x.shape) != 2 or x.shape[0] != shape[1]:
            raise ValueError(
                f"{self._describe()} needs a block of vectors of shape ({shape[1]}, k), but got an array of shape {tuple(x.shape)}."
            )
        found = backend.dtype_of(x)
        if found.kind not in "biufc":
            raise TypeError(f"{self._describe()} multiplies numbers, but got an array of dtype {found}.")
        if found.kind == "c" and self.dtype.kind != "c":
            wide = np.result_type(self.dtype, np.complex64)
            real, imaginary = (self._product(part, apply, shape) + 0 for part in (backend.real(x), backend.imag(x)))
            return backend.asarray(real, dtype=wide) + 1j * backend.asarray(imaginary, dtype=wide)
        # Vectors are rows in storage: hand out a transposed view of C-ordered rows.
        columns = backend.contiguous(x.T, self.dtype).T
        # Our own operators are known to leave their argument alone; others are not handed what they could spoil.
        if x.shape[1] == 0:
            return backend.empty((0, shape[0]), self.dtype).T
        result = apply(columns if type(self).__module__.startswith(_OURS) else backend.guard(columns))
        k = x.shape[1]
        self.num_matvecs += k
        if not backend.owns(result):
            result = backend.asarray(result)
        if tuple(result.shape) != (shape[0], k):
            raise ValueError(
                f"The product of {self._describe()} with a block of shape {(shape[1], k)} should have shape {(shape[0], k)}, "
                f"but has shape {tuple(result.shape)}."
            )
        return self._own_dtype(result)

    def _own_dtype(self, result: Array) -> Array:
        """A product in the operator's dtype; remembers when it was computed in a narrower one."""
        found = self.backend.dtype_of(result)
        if found == self.dtype:
            return result
        if found.kind not in "biufc":
            raise TypeError(f"The product of {self._describe()} has dtype {found}, which holds no numbers.")
        if found.kind == "c" and self.dtype.kind != "c":
            raise TypeError(f"{self._describe()} of dtype {self.dtype} returned complex numbers; pass dtype=complex.")
        if found.kind in "fc":
            self._rounding_seen = max(self._rounding_seen, float(np.finfo(found).eps))
        return self.backend.asarray(result, dtype=self.dtype)

    # -- algebra -------------------------------------------------------------------------------------------------------

    def __matmul__(self, other: Any) -> Any:
        from .algebra import product_of

        if isinstance(other, LinearOperator):
            return product_of(self, other)
        ndim = len(getattr(other, "shape", np.shape(other)))
        if ndim == 1:
            return self.matvec(other)
        if ndim == 2:
            return self.matmat(other)
        raise ValueError(f"{self._describe()} multiplies vectors (n,) and blocks (n, k), but got an array with {ndim} dimensions.")

    def __add__(self, other: Any) -> LinearOperator:
        from .algebra import sum_of

        return sum_of(self, other) if isinstance(other, LinearOperator) else NotImplemented

    def __sub__(self, other: Any) -> LinearOperator:
        return self + (-other) if isinstance(other, LinearOperator) else NotImplemented

    def __mul__(self, factor: Any) -> LinearOperator:
        from .algebra import scaled

        if not np.isscalar(factor) and np.shape(factor) != ():
            return NotImplemented
        return scaled(factor, self)

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> LinearOperator:
        return self * (1 / divisor)

    def __neg__(self) -> LinearOperator:
        return self * -1.0

    @property
    def H(self) -> LinearOperator:
        """The conjugate transpose."""
        from .algebra import adjoint_of

        return adjoint_of(self)

    @property
    def T(self) -> LinearOperator:
        """The transpose, without conjugation."""
        from .algebra import transpose_of

        return transpose_of(self)

    # -- views ---------------------------------------------------------------------------------------------------------

    def to_dense(self, *, memory_budget: int | float | str | None = None) -> Array:
        """The whole matrix, from n products with unit vectors.

        Parameters
        ----------
        memory_budget : int, float, str or None
            Refuse to make a larger matrix; by default 40 % of the memory of the device.

        Returns
        -------
        array
            Shape (m, n), C-ordered, on the operator's backend.

        Raises
        ------
        MemoryError
            When the matrix does not fit the budget.
        """
        m, n = self.shape
        size = m * n * self.dtype.itemsize
        budget = parse_budget(memory_budget, total=self.backend.total_memory())
        if size > budget:
            raise MemoryError(
                f"The dense matrix of {self._describe()} takes {format_bytes(size)}, over the budget of {format_bytes(budget)}; "
                "pass memory_budget= to allow more, or work with products."
            )
        dense = self.backend.empty((m, n), self.dtype)
        block = max(1, min(n, 64))
        for first in range(0, n, block):
            last = min(first + block, n)
            units = self.backend.asarray(np.eye(last - first, n, first, dtype=self.dtype))
            dense[:, first:last] = self.matmat(units.T)
        return dense

    def to_scipy(self) -> scipy.sparse.linalg.LinearOperator:
        """The same operator for SciPy's solvers; vectors cross over as NumPy arrays."""
        from .interop import to_scipy

        return to_scipy(self)

    @property
    def unit_rounding(self) -> float:
        """Relative rounding of products: that of `dtype`, or of a narrower type in which something inside computes."""
        own = max(float(np.finfo(self.dtype).eps), self._rounding_seen)
        return max([own, *(child.unit_rounding for child in self._children())])

    @property
    def gains_from_blocks(self) -> bool:
        """Whether a product with several vectors may be cheaper than as many with one; otherwise caches are better off with one."""
        children = self._children()
        return not children or any(child.gains_from_blocks for child in children)

    def derivative_error(self, seed: int = 0) -> float | None:
        """Relative distance of a product from finite differences of a gradient; None where there is no such gradient."""
        return None

    def _describe(self) -> str:
        return f"the operator {type(self).__name__} of shape {self.shape}"

    def _children(self) -> tuple[LinearOperator, ...]:
        """Operators that this one is made of, for the printed tree."""
        return ()

    def _details(self) -> str:
        """A few words for the printed tree."""
        return ""

    def __repr__(self) -> str:
        return "\n".join(_tree(self))


def _tree(operator: LinearOperator) -> list[str]:
    m, n = operator.shape
    tags = {True: ", hermitian", False: "", None: ""}[operator.hermitian]
    tags += ", positive semidefinite" if operator.positive_semidefinite else ""
    details = operator._details()
    lines = [f"{type(operator).__name__} {m} x {n} {operator.dtype}{tags} on {operator.backend.name}" + (f": {details}" if details else "")]
    children = operator._children()
    for position, child in enumerate(children):
        last = position == len(children) - 1
        head, *rest = _tree(child)
        lines.append(("└─ " if last else "├─ ") + head)
        lines += [("   " if last else "│  ") + line for line in rest]
    return lines


def _check_shape(shape: Any) -> tuple[int, int]:
    try:
        m, n = (int(size) for size in shape)
    except (TypeError, ValueError) as error:
        raise ValueError(f"The argument shape must be a pair of lengths, but is {shape!r}.") from error
    if m < 1 or n < 1:
        raise ValueError(f"A matrix of shape {(m, n)} is empty and has no spectrum; an operator needs at least one row and one column.")
    return m, n
