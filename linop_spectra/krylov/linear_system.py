"""What the solvers of linear systems share: shifted products, preconditioner, true residuals, and columns that drop out."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ..backends import Array, Backend, Scalar
from ..operators import LinearOperator
from ..operators.matrix import product_rounding


class FailedProductError(Exception):
    """A product raised or was not finite; the cause says which of both."""


class LinearSystem:
    """The Hermitian systems ``(A + shift I) X = B`` with right-hand sides of norm one as rows.

    Parameters
    ----------
    operator : LinearOperator
        Hermitian operator A of shape (n, n).
    shift : float
        Added to every eigenvalue.
    preconditioner : LinearOperator or None
        Hermitian positive definite approximation M of the inverse.
    right_sides : array
        Unit vectors as rows, shape (j, n).
    solutions : array
        Starting guesses, shape (j, n); overwritten by the solutions.
    """

    def __init__(
        self, operator: LinearOperator, shift: float, preconditioner: LinearOperator | None, right_sides: Array, solutions: Array
    ) -> None:
        self.operator, self.shift, self.preconditioner = operator, shift, preconditioner
        self.backend: Backend = operator.backend
        self.B, self.X = right_sides, solutions
        self.n = operator.shape[0]
        self.num_matvecs = 0
        self.eps = product_rounding(operator)

    def empty(self, rows: int) -> Array:
        """Uninitialised rows."""
        return self.backend.empty((rows, self.n), self.operator.dtype)

    def apply(self, rows: Array, out: Array) -> None:
        """``out[i] = (A + shift) rows[i]`` for each row, by one product with the block."""
        try:
            products = self.operator.matmat(rows.T)
        except Exception as error:
            raise FailedProductError from error
        count = rows.shape[0]
        self.num_matvecs += count
        for i in range(count):
            out[i, :] = products[:, i]
            if self.shift:
                self.backend.axpy(self.shift, rows[i, :], out[i, :])

    def precondition(self, rows: Array, out: Array) -> None:
        """``out[i] = M rows[i]`` for each row."""
        if self.preconditioner is None:
            out[: rows.shape[0], :] = rows
            return
        try:
            products = self.preconditioner.matmat(rows.T)
        except Exception as error:
            raise FailedProductError from error
        for i in range(rows.shape[0]):
            out[i, :] = products[:, i]

    def residuals(self, columns: list[int]) -> tuple[Array, np.ndarray]:
        """True residuals ``b - (A + shift) x`` of some columns as rows, and their norms."""
        guesses, out = self.empty(len(columns)), self.empty(len(columns))
        for i, column in enumerate(columns):
            guesses[i, :] = self.X[column, :]
        self.apply(guesses, out)
        for i, column in enumerate(columns):
            out[i, :] = self.B[column, :] - out[i, :]
        return out, self.norms(out, len(columns))

    def norms(self, rows: Array, count: int) -> np.ndarray:
        """Norms of the first rows, on the host.

        Raises
        ------
        FailedProductError
            When one is not finite.
        """
        return self.fetch([self.backend.norm(rows[i, :]) for i in range(count)])

    def fetch(self, scalars: list[Scalar]) -> np.ndarray:
        """Real parts of scalars on the host, in one transfer.

        Raises
        ------
        FailedProductError
            When one is not finite.
        """
        values = np.real(self.backend.fetch(scalars)).astype(np.float64)
        if not np.all(np.isfinite(values)):
            raise FailedProductError from FloatingPointError(
                f"A product with the operator or the preconditioner holds NaN or infinity (product {self.num_matvecs} with the operator)"
            )
        return values

    def real_dot(self, x: Array, y: Array) -> Scalar:
        """Real part of an inner product, where it lives."""
        return self.backend.real(self.backend.dot(x, y))


class Iteration(Protocol):
    """An iterative method on the columns that are still running, all of them in lockstep."""

    columns: list[int]
    """Column of the system at each position."""
    estimates: np.ndarray
    """Residual norms by the recurrence, for each position."""
    stopped: np.ndarray
    """Whether the method cannot go on without a restart, for each position."""

    def step(self) -> None:
        """One step of every running column, with one product."""

    def restart(self, position: int, residual: Array) -> None:
        """Go on from the present solution, whose residual is given."""

    def drop(self, position: int) -> None:
        """End one column; the last one takes its position."""


def move_last_row(arrays: list[Any], position: int, last: int) -> None:
    """Let the last of the rows in use take the place of another, in several arrays."""
    if position != last:
        for rows in arrays:
            rows[position, :] = rows[last, :]
