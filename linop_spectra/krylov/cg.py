"""Conjugate gradients for positive (semi)definite systems, many right-hand sides in lockstep."""

from __future__ import annotations

import numpy as np

from ..backends import Array
from .linear_system import LinearSystem, move_last_row


class NegativeCurvatureError(Exception):
    """A direction p with ``p^H A p <= 0``: the operator is not positive definite.

    Attributes
    ----------
    quotient : float
        ``p^H A p / |p|^2`` (with a preconditioner M, ``|p|`` is taken in the inverse of M).
    """

    def __init__(self, quotient: float) -> None:
        super().__init__(quotient)
        self.quotient = quotient


class ConjugateGradients:
    """State of conjugate gradients between two steps; see Hestenes and Stiefel (1952).

    The square of ``|p|`` in the inverse of the preconditioner follows from ``|p|^2 = r^H M r + beta^2 |p_old|^2``, so that the
    curvature relative to the norm of the (preconditioned) operator is known at no cost.

    Parameters
    ----------
    system : LinearSystem
        The systems; its solutions are updated in place.
    residuals : array
        True residuals of the starting guesses as rows, for every column.
    columns : list of int
        Columns to work on.
    """

    name = "cg"

    def __init__(self, system: LinearSystem, residuals: Array, columns: list[int]) -> None:
        self.system, self.columns = system, list(columns)
        j = len(columns)
        self.R, self.P, self.Q = system.empty(j), system.empty(j), system.empty(j)
        # Without a preconditioner z and r are the same vector.
        self.Z = self.R if system.preconditioner is None else system.empty(j)
        self.rz, self.pp = np.zeros(j), np.zeros(j)
        self.largest_quotient = np.zeros(j)
        self.estimates, self.stopped = np.full(j, np.inf), np.zeros(j, dtype=bool)
        for position in range(j):
            self.restart(position, residuals[position, :])

    def restart(self, position: int, residual: Array) -> None:
        """Steepest descent from the present solution."""
        system = self.system
        row = slice(position, position + 1)
        self.R[position, :] = residual
        if self.Z is not self.R:
            system.precondition(self.R[row, :], self.Z[row, :])
        self.P[position, :] = self.Z[position, :]
        rz, norm = system.fetch([system.real_dot(self.R[position, :], self.Z[position, :]), system.backend.norm(self.R[position, :])])
        _check_positive(rz, norm)
        self.rz[position] = self.pp[position] = rz
        self.estimates[position], self.stopped[position] = norm, rz == 0.0

    def step(self) -> None:
        """One step of every running column.

        Raises
        ------
        NegativeCurvatureError
            When the operator is seen not to be positive semidefinite.
        """
        system, backend, m = self.system, self.system.backend, len(self.columns)
        system.apply(self.P[:m, :], self.Q)
        curvatures, scalars = [], []
        for i in range(m):
            curvature = system.real_dot(self.P[i, :], self.Q[i, :])
            # At curvatures that are rounding the step is zero; which, and what it means, is decided below on the host.
            threshold = system.eps * float(self.largest_quotient[i]) * float(self.pp[i])
            alpha = float(self.rz[i]) * backend.safe_reciprocal(curvature, threshold)
            backend.axpy(alpha, self.P[i, :], system.X[self.columns[i], :])
            backend.axpy(-alpha, self.Q[i, :], self.R[i, :])
            curvatures.append(curvature)
        if self.Z is not self.R:
            system.precondition(self.R[:m, :], self.Z)
        for i in range(m):
            scalars.append(system.real_dot(self.R[i, :], self.Z[i, :]))
            if self.Z is not self.R:
                scalars.append(backend.norm(self.R[i, :]))
        values = system.fetch(curvatures + scalars)
        quotients, rest = values[:m] / self.pp[:m], values[m:].reshape(m, -1)
        new_rz = rest[:, 0]
        self.estimates = rest[:, 1] if rest.shape[1] > 1 else np.sqrt(np.maximum(new_rz, 0.0))
        for i in range(m):
            if quotients[i] < -100 * system.eps * self.largest_quotient[i]:
                raise NegativeCurvatureError(float(quotients[i]))
            if quotients[i] <= system.eps * self.largest_quotient[i]:
                self.stopped[i] = True
                continue
            self.largest_quotient[i] = max(self.largest_quotient[i], quotients[i])
            _check_positive(new_rz[i], self.estimates[i])
            if new_rz[i] == 0.0:
                self.stopped[i] = True
                continue
            beta = float(new_rz[i] / self.rz[i])
            backend.scale_into(self.P[i, :], beta, self.P[i, :])
            backend.axpy(1.0, self.Z[i, :], self.P[i, :])
            self.pp[i] = new_rz[i] + beta * beta * self.pp[i]
            self.rz[i] = new_rz[i]

    def drop(self, position: int) -> None:
        """End one column; the last one takes its position."""
        last = len(self.columns) - 1
        move_last_row([self.R, self.P] + ([] if self.Z is self.R else [self.Z]), position, last)
        for values in (self.rz, self.pp, self.largest_quotient, self.estimates, self.stopped):
            values[position] = values[last]
        self.columns[position] = self.columns[last]
        self.columns.pop()
        self.estimates, self.stopped = self.estimates[:last], self.stopped[:last]


def _check_positive(rz: float, norm: float) -> None:
    """Raise when ``r^H M r`` shows that a preconditioner is not positive definite."""
    if norm > 0 and not rz > 0:
        raise ValueError(
            f"The argument preconditioner is not positive definite: for a residual r of norm {norm:.3g}, r^H M r is {rz:.3g}. "
            "Pass a Hermitian positive definite approximation of the inverse, for example the inverse of the diagonal's modulus."
        )
