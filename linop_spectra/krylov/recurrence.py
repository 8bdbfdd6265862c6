"""The Lanczos recurrence, many starting vectors in lockstep, one step at a time."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import numpy as np

from ..backends import Array, Scalar
from ..operators import LinearOperator
from .basis import Basis
from .errors import NotHermitianError
from .orthogonality import estimated_loss
from .result import KrylovVectors, LanczosResult
from .selective import Locked, Selection
from .storage import BasisPlan, Storage

# Steps between two looks at the scalars of a device.
_STEPS_BETWEEN_FETCHES = 8
# A residual is rounding when it is this many units of it: of the whole operator, or of the product it was left over from.
_GLOBAL_ROUNDING, _LOCAL_ROUNDING = 0.5, 100.0


class ProductError(Exception):
    """The product itself was not usable; the message says why."""


class Recurrence:
    """State of a run between two steps.

    The order of operations is Paige's (1972, variant A1): subtract ``beta v_prev``, take alpha, subtract ``alpha v``; beta is
    taken after reorthogonalisation.

    Parameters
    ----------
    operator : LinearOperator
        Hermitian operator.
    start : array
        Unit starting vectors as rows, shape (num_probes, n); owned by the recurrence from now on.
    plan : BasisPlan
        Where the vectors are kept to orthogonalise against, if at all.
    locked : Locked, optional
        Eigenvectors that a run without all vectors is kept orthogonal to.
    measure_noise : bool
        Whether to spend one product on measuring how well products repeat.
    test_symmetry : bool
        Whether to raise when the products show that the operator is not Hermitian.
    """

    def __init__(
        self,
        operator: LinearOperator,
        start: Array,
        *,
        plan: BasisPlan,
        locked: Locked | None = None,
        measure_noise: bool = False,
        test_symmetry: bool = True,
    ) -> None:
        self.operator, self.backend, self.plan, self.full = operator, operator.backend, plan, plan.keeps_vectors
        self.num_probes, self.n = start.shape
        self.selection = None if locked is None else Selection(operator, locked, self.num_probes)
        if self.selection is not None:
            self.selection.begin(start)
        self.alphas: list[np.ndarray] = []
        self.betas: list[np.ndarray] = []
        self.taken = np.zeros(self.num_probes, dtype=np.int64)
        self.finished = np.zeros(self.num_probes, dtype=bool)
        self.measure_noise, self.test_symmetry = measure_noise, test_symmetry
        self.repeat_error: Scalar = float("nan")
        self.num_matvecs = 0 if locked is None else locked.num_matvecs
        # Sum and largest of |alpha| + beta over the steps that have been judged.
        self._everything, self._largest = [0.0] * self.num_probes, [0.0] * self.num_probes
        self._smallest_beta = [np.inf] * self.num_probes
        self._pending: list[list[tuple[int, Scalar, Scalar, Scalar]]] = []
        self._sum: list[Scalar] = [0.0] * self.num_probes
        self._last_beta: list[Scalar] = [0.0] * self.num_probes
        self._consistent = True
        self._work = self.backend.empty((self.n,), operator.dtype)
        # Vectors that were stored in a narrower type leave components of this size behind.
        narrower = np.dtype(plan.dtype).itemsize < np.dtype(operator.dtype.char.lower()).itemsize
        self._storage_rounding = float(np.finfo(plan.dtype).eps) if self.full and narrower else 0.0
        self._bases: list[Basis] = []
        self._previous: Array = None
        self._current: Array = None
        if self.full:
            self._bases = [plan.basis(self.backend, self.n, operator.dtype) for _ in range(self.num_probes)]
            for probe, basis in enumerate(self._bases):
                basis.append()[...] = start[probe, :]
        else:
            self._current = start
            self._previous = self.backend.empty(tuple(start.shape), operator.dtype)
            self._previous[...] = 0

    @classmethod
    def resume(cls, run: LanczosResult, operator: LinearOperator, *, measure_noise: bool) -> Recurrence:
        """Take up a finished or interrupted run where it ended."""
        if run.vectors is None or (run.vectors.current is None and not run.vectors.bases):
            raise ValueError("The run was saved without its vectors and cannot go on; save it with basis=True.")
        vectors, backend = run.vectors, operator.backend
        if run.keeps_basis:
            start = backend.empty((run.num_probes, run.dimension), operator.dtype)
            start[...] = 0
        else:
            start = backend.asarray(vectors.current) + 0
        plan = BasisPlan(cast(Storage, run.reorthogonalize), run.basis_dtype, 0, 0)
        locked = None
        if vectors.locked is not None:
            # A copy of their own, laid out as in the first run.
            rows = backend.empty(tuple(vectors.locked.shape), operator.dtype)
            rows[...] = backend.asarray(vectors.locked)
            locked = Locked(run.locked_values, run.locked_residuals, rows)
        state = cls(operator, start, plan=plan, locked=locked, measure_noise=measure_noise and not np.isfinite(run.repeat_error))
        if state.selection is not None:
            assert vectors.captured is not None and vectors.newest is not None and vectors.removing is not None
            state.selection.go_on(run.locked_overlaps, vectors.captured, vectors.newest, vectors.removing)
        state.alphas, state.betas = list(run.alphas.T.copy()), list(run.betas.T.copy())
        state.taken = run.num_steps_taken.copy()
        state.repeat_error, state.num_matvecs = run.repeat_error, run.num_matvecs
        k = run.num_steps
        for probe in range(run.num_probes):
            for alpha, beta in zip(*run.jacobi(probe), strict=True):
                state._sum[probe] = state._sum[probe] + float(abs(alpha) + beta)  # NumPy's scalars do not add to every array
                state._everything[probe] += abs(alpha) + beta
                state._largest[probe] = max(state._largest[probe], abs(alpha) + beta)
                state._smallest_beta[probe] = min(state._smallest_beta[probe], beta)
            state.finished[probe] = k > 0 and (state.taken[probe] < k or run.betas[probe, -1] == 0.0)
            state._last_beta[probe] = float(run.betas[probe, -1]) if k else 0.0
        if state.full:
            state._bases = [basis.fork(int(taken) + 1, backend) for basis, taken in zip(vectors.bases, state.taken, strict=True)]
        else:
            state._previous = backend.asarray(vectors.previous) + 0
        return state

    @property
    def steps_done(self) -> int:
        """Complete steps, those included whose scalars are still on the device."""
        return len(self.alphas) + len(self._pending)

    @property
    def exhausted(self) -> bool:
        """Whether the Krylov spaces of all probes have become invariant."""
        return bool(self.finished.all())

    def step(self) -> None:
        """One step of every probe that goes on.

        Raises
        ------
        ProductError
            When a product is not finite.
        ValueError
            When the products show that the operator is not Hermitian.
        """
        j = self.steps_done
        active = [probe for probe in range(self.num_probes) if not self.finished[probe]]
        together = len(active) if self.operator.gains_from_blocks else 1
        taken: list[tuple[int, Scalar, Scalar, Scalar]] = []
        for first in range(0, len(active), together):
            some = active[first : first + together]
            products = self.operator.matmat(self._block(some, j).T)
            self.num_matvecs += len(some)
            if self.measure_noise and j == 1 and first == 0:
                products = products + 0  # the next product may come in the same buffer
                self._measure_repeat_error(some[0], j, products[:, 0])
            # An interruption from here on may leave some probes a step ahead of others.
            self._consistent = False
            taken += [(probe, *self._advance(probe, j, products[:, column])) for column, probe in enumerate(some)]
        self._pending.append(taken)
        if not self.full:
            self._previous, self._current = self._current, self._previous
        self._consistent = True
        if self.backend.eager_scalars or len(self._pending) >= _STEPS_BETWEEN_FETCHES:
            self.fetch()

    def _vector(self, probe: int, j: int) -> Array:
        return self._bases[probe].row(j) if self.full else self._current[probe, :]

    def _block(self, active: list[int], j: int) -> Array:
        if len(active) == 1:
            return self._vector(active[0], j)[None, :]
        if not self.full and len(active) == self.num_probes:
            return self._current
        block = self.backend.empty((len(active), self.n), self.operator.dtype)
        for row, probe in enumerate(active):
            block[row, :] = self._vector(probe, j)
        return block

    def _advance(self, probe: int, j: int, product: Array) -> tuple[Scalar, Scalar, Scalar]:
        backend, w = self.backend, self._work
        w[...] = product
        v = self._vector(probe, j)
        if j > 0:
            previous = self._bases[probe].row(j - 1) if self.full else self._previous[probe, :]
            backend.axpy(-self._last_beta[probe], previous, w)
        quotient = backend.reduce(backend.dot(v, w))
        alpha, asymmetry = backend.real(quotient), abs(backend.imag(quotient))
        backend.axpy(-alpha, v, w)
        if self.full:
            basis = self._bases[probe]
            removed = basis.remove_components(w, j + 1)
            # In exact arithmetic only rounding is left to remove. Components of earlier vectors say that A is not Hermitian.
            asymmetry = asymmetry + self._size(removed, j)
            beta = backend.reduce(backend.norm(w))
            # Repeated when less than 1/sqrt(2) of the norm is left (Daniel, Gragg, Kaufman and Stewart, 1976).
            if not backend.eager_scalars or not beta >= self._size(removed, j + 1):
                basis.remove_components(w, j + 1)
                beta = backend.reduce(backend.norm(w))
        else:
            removed_before = self.selection is not None and bool(self.selection.removing[probe].any())
            # Later the vectors are not orthogonal any more, which says nothing of A.
            if 0 < j <= _STEPS_BETWEEN_FETCHES and not removed_before:
                asymmetry = asymmetry + abs(backend.reduce(backend.dot(self._previous[probe, :], w)))
            if self.selection is not None:
                self.selection.remove(probe, w)
            beta = backend.reduce(backend.norm(w))
            if self.selection is not None:
                self.selection.record(probe, beta)
        self._sum[probe] = self._sum[probe] + (abs(alpha) + beta)
        local = abs(alpha) + self._last_beta[probe]
        inverse = backend.safe_reciprocal(beta, self._rounding(self._sum[probe], local))
        if self.full:
            backend.scale_into(w, inverse, self._bases[probe].append())
        else:
            backend.scale_into(w, inverse, self._previous[probe, :])  # step() makes it the current one
        self._last_beta[probe] = beta
        return alpha, beta, asymmetry

    def _size(self, removed: list[Array], length: int) -> Scalar:
        """Size of the first removed components: norms of the chunks, added up, so that nothing is squared twice."""
        total: Scalar = 0.0
        for coefficients in removed:
            if length <= 0:
                break
            kept = coefficients[: min(length, coefficients.shape[0])]
            total = total + self.backend.norm(kept)
            length -= coefficients.shape[0]
        return total

    def _rounding(self, everything: Scalar, local: Scalar) -> Scalar:
        """Size below which a residual is rounding, from sums of the coefficients of all steps and of this one."""
        # The sum of both stands for the larger: a device compares without asking the host.
        terms = _GLOBAL_ROUNDING * everything + _LOCAL_ROUNDING * local
        return float(np.finfo(self.operator.dtype).eps) * terms

    def _measure_repeat_error(self, probe: int, j: int, product: Array | None) -> None:
        vector = self._vector(probe, j)
        if product is None:
            product = self.operator.matmat(vector[:, None])[:, 0] + 0
            self.num_matvecs += 1
        # Three is no power of two: rounding falls differently, so the distance shows rounding as well as randomness.
        tripled = self.operator.matmat((3 * vector)[:, None])
        self.num_matvecs += 1
        self.repeat_error = self.backend.norm(self.backend.asarray(tripled[:, 0] / 3 - product))

    def fetch(self) -> None:
        """Bring pending scalars to the host and judge them: finite, Hermitian, broken down."""
        backend = self.backend
        pending, self._pending = self._pending, []
        if not pending:
            return
        self._consistent = False  # until every pending step has been found sound
        flat = [number for step in pending for _, *numbers in step for number in numbers]
        values = iter(np.real(backend.fetch(flat)).astype(np.float64).reshape(-1, 3))
        if not isinstance(self.repeat_error, float):
            self.repeat_error = float(np.real(backend.to_numpy(self.repeat_error)))
        for step in pending:
            if self.exhausted:
                break  # a device went on with zero vectors after the last breakdown
            alphas, betas = np.zeros(self.num_probes), np.zeros(self.num_probes)
            running = [probe for probe, *_ in step]
            for probe in running:
                alpha, beta, asymmetry = next(values)
                self._judge(probe, alpha, beta, asymmetry)
                alphas[probe] = alpha
                betas[probe] = beta
            self.alphas.append(alphas)
            self.betas.append(betas)
            for probe in running:
                if self.finished[probe]:  # zero vectors here too
                    alphas[probe] = betas[probe] = 0.0
                    continue
                self.taken[probe] += 1
                everything = self._everything[probe] = self._everything[probe] + abs(alphas[probe]) + betas[probe]
                self._largest[probe] = max(self._largest[probe], abs(alphas[probe]) + betas[probe])
                self._smallest_beta[probe] = min(self._smallest_beta[probe], betas[probe])
                before = self.betas[-2][probe] if len(self.betas) > 1 else 0.0
                if not betas[probe] > self._rounding(everything, abs(alphas[probe]) + before):
                    betas[probe] = 0.0
                    self.finished[probe] = True
        self._consistent = True

    def _judge(self, probe: int, alpha: float, beta: float, asymmetry: float) -> None:
        step = len(self.alphas) + 1
        if not (np.isfinite(alpha) and np.isfinite(beta)):
            raise ProductError(
                f"The product with the operator at step {step} (probe {probe}) holds NaN or infinity, or overflows in {self.operator.dtype}"
            )
        if self.finished[probe] or not self.test_symmetry:
            return
        scale = max(self._largest[probe], abs(alpha) + beta)
        if not self.full and self._smallest_beta[probe] < np.sqrt(self.operator.unit_rounding) * scale:
            return  # rounding was scaled up to a vector, which is orthogonal to nothing: that says nothing of A
        if asymmetry > max(np.sqrt(self.operator.unit_rounding), self._storage_rounding) * scale:
            self._measure_repeat_error(probe, 0, None)
            noise = float(np.real(self.backend.to_numpy(self.repeat_error)))
            cause = (
                "Pass the symmetric part (A + A.H) / 2, or look at check_operator(A)."
                if noise < 0.1 * asymmetry
                else f"Its products repeat only up to {noise / scale:.1e} of the norm: they are too noisy for {self.operator.dtype}. "
                "Compute them in a wider type, or declare the operator in a narrower one."
            )
            raise NotHermitianError(
                f"The operator is not symmetric (complex: not Hermitian): at step {step} a product has a component of "
                f"{asymmetry / scale:.1e} of the norm where a Hermitian operator has none. {cause}"
            )

    def result(
        self, *, status: Any, seconds: float, seed: int, start_norms: np.ndarray, start_digest: str, measure_loss: bool = True
    ) -> LanczosResult:
        """The run so far as a result."""
        shape = (len(self.alphas), self.num_probes)
        alphas, betas = np.reshape(self.alphas, shape).T.copy(), np.reshape(self.betas, shape).T.copy()
        # A basis keeps the vectors of every step; two vectors that are a step ahead of the coefficients are of no use.
        usable = self.full or self._consistent
        vectors = KrylovVectors(tuple(self._bases), self._previous, self._current) if usable else None
        locked: dict[str, Any] = {}
        if self.selection is not None:
            known = self.selection.locked
            locked = {
                "locked_values": known.values.copy(), "locked_residuals": known.residuals.copy(),
                "locked_overlaps": self.selection.overlaps.copy(),
            }  # fmt: skip
            if vectors is not None:
                vectors = dataclasses.replace(
                    vectors, locked=known.vectors, captured=self.selection.captured.copy(), newest=self.selection.newest.copy(),
                    removing=self.selection.removing.copy(),
                )  # fmt: skip
        loss = self._orthogonality_loss(alphas, betas) if measure_loss else np.full(self.num_probes, np.nan)
        return LanczosResult(
            alphas=alphas, betas=betas, num_steps_taken=self.taken.copy(), dimension=self.n, dtype=str(self.operator.dtype),
            seed=seed, start_norms=start_norms, reorthogonalize=self.plan.storage, basis_dtype=self.plan.dtype, status=status,
            num_matvecs=self.num_matvecs, seconds=seconds,
            repeat_error=self.repeat_error if isinstance(self.repeat_error, float) else float("nan"),
            start_overlaps=self._start_overlaps(), start_digest=start_digest,
            orthogonality_loss=loss, vectors=vectors, **locked,
        )  # fmt: skip

    def _start_overlaps(self) -> np.ndarray | None:
        k = len(self.alphas)
        if not self.full or self.num_probes == 1 or k == 0:
            return None
        out = np.zeros((self.num_probes, k), dtype=np.result_type(self.operator.dtype, np.float64))
        length = int(self.taken[0])
        for probe in range(self.num_probes):
            out[probe, :length] = self._bases[0].coefficients(self._bases[probe].row(0), length)
        return out

    def _orthogonality_loss(self, alphas: np.ndarray, betas: np.ndarray) -> np.ndarray:
        """Largest inner product of vectors that should be orthogonal.

        Of the newest one with the others, or with the locked directions that are removed from it, or by Simon's recurrence.
        """
        loss = np.zeros(self.num_probes)
        for probe, taken in enumerate(self.taken.tolist()):
            if not self.full:
                measured = None
                if self.selection is not None and self._consistent and not self.finished[probe]:
                    measured = self.selection.loss(probe, self._current[probe, :])
                estimate = estimated_loss(alphas[probe, :taken], betas[probe, :taken], self.operator.unit_rounding, self.n)
                loss[probe] = estimate if measured is None else measured
                continue
            basis = self._bases[probe]
            newest = taken - 1 if self.finished[probe] or taken >= basis.length else taken
            if newest > 0:
                loss[probe] = float(np.max(np.abs(basis.coefficients(basis.row(newest), newest))))
            errors = basis.storage_errors()
            if errors:
                loss[probe] = max(loss[probe], float(np.max(np.abs(self.backend.fetch(errors)))))
        return loss
