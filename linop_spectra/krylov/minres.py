"""The minimal residual method for indefinite and singular systems, many right-hand sides in lockstep."""

from __future__ import annotations

import numpy as np

from ..backends import Array
from .cg import _check_positive
from .linear_system import LinearSystem, move_last_row

_NO_PIVOT = 64.0
"""Units of rounding, times the norm, up to which the last pivot of a tridiagonal matrix is zero."""


class MinimalResidual:
    """State of MINRES between two steps.

    Lanczos vectors z with ``v = M z``, ``<z_i, v_j> = delta_ij``, and a QR factorisation of the tridiagonal matrix by plane rotations that
    is updated in every step. The residual norm (in M) never grows. Paige and Saunders, *Solution of sparse indefinite systems of linear
    equations*, SIAM J. Numer. Anal. 12 (1975), section 4 and, for ``|A r|``, the remarks on singular systems in Choi, Paige and
    Saunders, *MINRES-QLP*, SIAM J. Sci. Comput. 33 (2011), section 3.

    Parameters
    ----------
    system : LinearSystem
        The systems; its solutions are updated in place.
    residuals : array
        True residuals of the starting guesses as rows, for every column.
    columns : list of int
        Columns to work on.

    Attributes
    ----------
    candidates : dict
        For some columns, a solution of least residual if there is no better one, shape (1, n), and ``|A r|`` by the recurrence.
    """

    name = "minres"

    def __init__(self, system: LinearSystem, residuals: Array, columns: list[int]) -> None:
        self.system, self.columns = system, list(columns)
        j = len(columns)
        self.preconditioned = system.preconditioner is not None
        self.Z_old, self.Z, self.U = (system.empty(j) for _ in range(3))
        self.V = system.empty(j) if self.preconditioned else self.Z
        self.W_old, self.W = system.empty(j), system.empty(j)
        # The residual itself, where its norm does not follow from that in M.
        self.R: Array = system.empty(j) if self.preconditioned else None
        self.beta, self.epsilon, self.dbar, self.phibar, self.cosine, self.sine = (np.zeros(j) for _ in range(6))
        self.norm, self.plateau, self.smallest_ratio = np.zeros(j), np.zeros(j), np.ones(j)
        self.suspected = np.zeros(j, dtype=bool)
        self.estimates, self.stopped = np.full(j, np.inf), np.zeros(j, dtype=bool)
        self.candidates: dict[int, tuple[Array, float]] = {}
        self._frozen: set[int] = set()
        for position in range(j):
            self.restart(position, residuals[position, :])

    def restart(self, position: int, residual: Array) -> None:
        """A new Lanczos run from the present residual."""
        system, backend = self.system, self.system.backend
        row = slice(position, position + 1)
        self.Z[position, :] = residual
        if self.preconditioned:
            self.R[position, :] = residual
            system.precondition(self.Z[row, :], self.V[row, :])
        square, norm = system.fetch([system.real_dot(self.Z[position, :], self.V[position, :]), backend.norm(self.Z[position, :])])
        _check_positive(square, norm)
        length = float(np.sqrt(square))
        inverse = 1.0 / length if length > 0 else 0.0
        backend.scale_into(self.Z[position, :], inverse, self.Z[position, :])
        if self.preconditioned:
            backend.scale_into(self.V[position, :], inverse, self.V[position, :])
        for rows in (self.Z_old, self.W_old, self.W):
            rows[position, :] = 0.0
        for values in (self.beta, self.epsilon, self.dbar, self.sine, self.norm, self.plateau):
            values[position] = 0.0
        self.cosine[position], self.phibar[position], self.smallest_ratio[position] = -1.0, length, 1.0
        self.suspected[position] = False
        if self.columns[position] in self.candidates:  # what comes after a restart builds on what has been spoiled
            self._frozen.add(self.columns[position])
        self.estimates[position], self.stopped[position] = norm, length == 0.0

    def step(self) -> None:
        """One step of every running column."""
        alphas, new_betas = self._lanczos_step()
        system, backend, m = self.system, self.system.backend, len(self.columns)
        for i in range(m):
            alpha, beta = float(alphas[i]), float(new_betas[i])
            self.norm[i] = max(self.norm[i], float(np.linalg.norm([self.beta[i], alpha, beta])))
            if beta <= 4 * system.eps * self.norm[i]:
                beta, self.stopped[i] = 0.0, True  # the Krylov space is invariant: what it holds is reached now
            old_epsilon, c, s = float(self.epsilon[i]), float(self.cosine[i]), float(self.sine[i])
            delta = c * float(self.dbar[i]) + s * alpha
            gbar = s * float(self.dbar[i]) - c * alpha
            self.epsilon[i], self.dbar[i] = s * beta, -c * beta
            gamma = float(np.hypot(gbar, beta))
            normal = float(np.hypot(gbar, self.dbar[i]))
            self._look_for_least_squares(i, normal)
            self._keep_candidate(i, normal)
            if gamma <= _NO_PIVOT * system.eps * self.norm[i]:
                # Zero up to rounding: the iterate before has the least residual in this space, too, and a step would add noise to it.
                self.beta[i], self.stopped[i] = beta, True
                continue
            self.cosine[i], self.sine[i] = c, s = gbar / gamma, beta / gamma
            phi, phibar = c * float(self.phibar[i]), s * float(self.phibar[i])
            self.phibar[i] = phibar
            # w = (v - epsilon w_older - delta w_old) / gamma, in the place of w_older
            w = self.W_old[i, :]
            backend.scale_into(w, -old_epsilon / gamma, w)
            backend.axpy(-delta / gamma, self.W[i, :], w)
            backend.axpy(1.0 / gamma, self.V[i, :], w)
            backend.axpy(phi, w, system.X[self.columns[i], :])
            self.beta[i] = beta
            if self.preconditioned:
                # r = s^2 r_old - c phibar z_next (z_next is not yet normalised)
                backend.scale_into(self.R[i, :], s * s, self.R[i, :])
                if beta > 0:
                    backend.axpy(-c * phibar / beta, self.U[i, :], self.R[i, :])
        self._next_vectors()
        # With a preconditioner this is a second transfer: the rotation had to be known before the residual.
        self.estimates = system.norms(self.R, m) if self.preconditioned else self.phibar[:m].copy()

    def _look_for_least_squares(self, i: int, normal: float) -> None:
        """Suspect that a system has no solution: ``|A r|`` has fallen to the level of rounding while ``|r|`` has not moved.

        `normal` is ``|A r| / |r|``. Without reorthogonalisation it falls to about the square root of the unit of rounding, times ``|A|``.
        """
        ratio, level = normal / self.norm[i] if self.norm[i] > 0 else 0.0, 2 * float(np.sqrt(self.system.eps))
        if ratio <= 100 * level and self.plateau[i] == 0.0:
            self.plateau[i] = self.phibar[i]
        if ratio <= level and ratio <= 0.5 * self.smallest_ratio[i] and self.phibar[i] >= (1 - 1e-3) * self.plateau[i]:
            self.smallest_ratio[i], self.suspected[i] = ratio, True

    def _keep_candidate(self, i: int, normal: float) -> None:
        """Keep the iterate before a step that a singular system without solution may spoil.

        Its residual is of least norm up to what the recurrence says of ``|A r|``. Steps after that may add large multiples of a null
        vector, and rounding with them: once the solution is long, what the recurrence says is not believed.
        """
        column, norm = self.columns[i], float(self.norm[i])
        size, root = normal * float(self.phibar[i]), float(np.sqrt(self.system.eps))
        row, before = self.candidates.get(column, (None, np.inf))
        if normal > 2 * root * norm or column in self._frozen or size > 0.5 * before:
            return
        if float(self.system.norms(self.system.X[column : column + 1, :], 1)[0]) * norm * root > 1.0:
            self._frozen.add(column)
            return
        row = self.system.empty(1) if row is None else row
        row[0, :] = self.system.X[column, :]
        self.candidates[column] = row, size

    def _lanczos_step(self) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients alpha and the next beta of every column; the next vectors stay in `U`, not normalised."""
        system, backend, m = self.system, self.system.backend, len(self.columns)
        system.apply(self.V[:m, :], self.U)
        scalars = []
        for i in range(m):
            backend.axpy(-float(self.beta[i]), self.Z_old[i, :], self.U[i, :])
            alpha = system.real_dot(self.V[i, :], self.U[i, :])
            backend.axpy(-alpha, self.Z[i, :], self.U[i, :])
            scalars.append(alpha)
        if self.preconditioned:
            self._preconditioned = system.empty(m)
            system.precondition(self.U[:m, :], self._preconditioned)
            scalars += [system.real_dot(self.U[i, :], self._preconditioned[i, :]) for i in range(m)]
        else:
            scalars += [backend.norm(self.U[i, :]) for i in range(m)]
        values = system.fetch(scalars)
        if not self.preconditioned:
            return values[:m], values[m:]
        if np.any(values[m:] < -np.sqrt(system.eps) * np.max(np.abs(values), initial=0.0)):
            _check_positive(float(np.min(values[m:])), 1.0)
        return values[:m], np.sqrt(np.maximum(values[m:], 0.0))

    def _next_vectors(self) -> None:
        """Normalise what `_lanczos_step` left and let every array take its next role."""
        backend, m = self.system.backend, len(self.columns)
        for i in range(m):
            inverse = 1.0 / float(self.beta[i]) if self.beta[i] > 0 else 0.0
            backend.scale_into(self.U[i, :], inverse, self.U[i, :])
            if self.preconditioned:
                backend.scale_into(self._preconditioned[i, :], inverse, self.V[i, :])
        self.Z_old, self.Z, self.U = self.Z, self.U, self.Z_old
        if not self.preconditioned:
            self.V = self.Z
        self.W_old, self.W = self.W, self.W_old

    def normal_residual(self, residual: Array, position: int) -> float:
        """``|A M r|`` relative to ``|A| |r|`` (norms in M) for a true residual r, by one product: zero at a least-squares solution."""
        system = self.system
        rows = [system.empty(1) for _ in range(4)]
        r, mr, s, ms = rows
        r[0, :] = residual
        system.precondition(r, mr)
        system.apply(mr, s)
        system.precondition(s, ms)
        above, below = system.fetch([system.real_dot(s[0, :], ms[0, :]), system.real_dot(r[0, :], mr[0, :])])
        scale = self.norm[position] * float(np.sqrt(max(below, 0.0)))
        return float(np.sqrt(max(above, 0.0))) / scale if scale > 0 else 0.0

    def drop(self, position: int) -> None:
        """End one column; the last one takes its position."""
        last = len(self.columns) - 1
        arrays = [self.Z_old, self.Z, self.W_old, self.W] + ([self.V, self.R] if self.preconditioned else [])
        move_last_row(arrays, position, last)
        for values in (
            self.beta, self.epsilon, self.dbar, self.phibar, self.cosine, self.sine, self.norm, self.plateau, self.smallest_ratio,
            self.suspected, self.estimates, self.stopped,
        ):  # fmt: skip
            values[position] = values[last]
        self.columns[position] = self.columns[last]
        self.columns.pop()
        self.estimates, self.stopped = self.estimates[:last], self.stopped[:last]
