"""What every approximation of a matrix offers: products, the exact inverse after damping, and its spectrum where it is known."""

from __future__ import annotations

import abc
import math
from typing import Any

import numpy as np

from ..backends import Array
from ..operators import LinearOperator

_SINGULAR = 1e-14


class Approximation(LinearOperator):
    """A Hermitian matrix that stands for another one.

    Products go to an operator of the library; a subclass adds the inverse.

    Parameters
    ----------
    inner : LinearOperator
        The approximation as a matrix.
    kind : str
        What `approximate` was asked for.
    method : str
        How it was found.
    source_matvecs : int
        Products with the approximated matrix that were spent; zero where only gradients were.
    seconds : float
        Wall-clock time of finding it.

    Attributes
    ----------
    kind, method, source_matvecs, seconds
        As above. As for every operator, `num_matvecs` counts the products with the approximation itself.
    """

    def __init__(self, inner: LinearOperator, kind: str, *, method: str = "", source_matvecs: int = 0, seconds: float = 0.0) -> None:
        super().__init__(
            inner.shape, inner.dtype, hermitian=True, positive_semidefinite=inner.positive_semidefinite, backend=inner.backend
        )
        self.inner, self.kind, self.method = inner, kind, method
        self.source_matvecs, self.seconds = source_matvecs, seconds

    def _matmat(self, x: Array) -> Array:
        return self.inner.matmat(x)

    @abc.abstractmethod
    def _solve(self, x: Array, damping: float) -> Array:
        """The inverse of this matrix plus `damping` times columns, shape (n, k), as an array of its own."""

    def solve(self, b: Any, *, damping: float = 0.0) -> Array:
        """Inverse of the approximation plus a multiple of the identity, times vectors.

        Parameters
        ----------
        b : array
            Right-hand sides, shape (n,) or (n, k).
        damping : float
            Added to every eigenvalue; zero or positive.

        Returns
        -------
        array
            Solution in the shape of `b`, on the backend. The inverse is in closed form and so exact up to rounding, except where the
            class says that it iterates.

        Raises
        ------
        ValueError
            When `b` has another length, `damping` is negative, or the sum has no inverse.

        Examples
        --------
        >>> import numpy as np
        >>> from linop_spectra.approximations import approximate
        >>> approximate(np.diag([1.0, 3.0]), "diagonal").solve([2.0, 2.0], damping=1.0)
        array([1. , 0.5])
        """
        damping = check_damping(damping)
        backend = self.backend
        x = backend.asarray(b)
        if len(x.shape) not in (1, 2) or x.shape[0] != self.shape[0]:
            raise ValueError(
                f"The argument b must have shape ({self.shape[0]},) or ({self.shape[0]}, k), but has shape {tuple(x.shape)}."
            )
        if backend.dtype_of(x).kind == "c" and self.dtype.kind != "c":
            real, imaginary = (self.solve(part + 0, damping=damping) for part in (backend.real(x), backend.imag(x)))
            return backend.asarray(real, dtype=np.result_type(self.dtype, np.complex64)) + 1j * imaginary
        columns = x if len(x.shape) == 2 else x[:, None]
        solution = self._solve(backend.contiguous(columns.T, self.dtype).T, damping)
        solution = backend.asarray(solution, dtype=self.dtype)
        return solution if len(x.shape) == 2 else solution[:, 0]

    def eigenvalues(self) -> np.ndarray | None:
        """All eigenvalues in ascending order, shape (n,), float64; None where they are not known without further products."""
        return None

    def top_vectors(self, k: int) -> Array | None:
        """Orthonormal eigenvectors of the k eigenvalues of largest modulus, shape (n, k); None where they are not known as such."""
        return None

    def _describe(self) -> str:
        return f"the {self.kind} approximation of shape {self.shape}"

    def _children(self) -> tuple[LinearOperator, ...]:
        return (self.inner,)

    def _details(self) -> str:
        return ", ".join(part for part in (self.kind, self.method, f"{self.source_matvecs:,} products spent") if part)


def check_damping(damping: Any) -> float:
    """`damping` as a number.

    Raises
    ------
    ValueError
        When it is negative or not finite.
    """
    value = float(damping)
    if not 0 <= value < math.inf:
        raise ValueError(f"The argument damping must be zero or positive and finite, but is {damping!r}.")
    return value


def require_invertible(smallest: float, largest: float, damping: float, what: str) -> None:
    """Raise when the smallest modulus among numbers to divide by is no more than rounding of the largest.

    Raises
    ------
    ValueError
        With the fix.
    """
    if not smallest > _SINGULAR * largest:
        raise ValueError(
            f"{what} plus damping {damping:g} has no inverse: its smallest modulus is {smallest:.3g}. Pass a positive damping that is "
            "the negative of no eigenvalue."
        )
