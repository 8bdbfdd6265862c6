"""Lanczos runs of several matrices in lockstep, whose products are computed together."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import numpy as np

from .._progress import Progress, ProgressBar
from ..backends import Array
from ..krylov import LanczosResult, NonFiniteProductError
from ..krylov.recurrence import ProductError, Recurrence
from ..krylov.result import Status
from ..krylov.storage import plan_basis
from ..operators import LinearOperator
from ..spectra import SpectralDensity


class _Answered(LinearOperator):
    """A matrix whose products are handed in before they are asked for; any other is computed on its own."""

    def __init__(self, matrix: LinearOperator) -> None:
        super().__init__(matrix.shape, matrix.dtype, hermitian=True, backend=matrix.backend)
        self._matrix = matrix
        self.answers: deque[Array] = deque()

    def _matmat(self, x: Array) -> Array:
        return self.answers.popleft() if self.answers else self._matrix.matmat(x)

    @property
    def unit_rounding(self) -> float:
        return self._matrix.unit_rounding


class Lane:
    """The Lanczos run of one matrix.

    Parameters
    ----------
    kind : {"block", "matrix"}
        What it is, for messages.
    name : str
        Which one.
    matrix : LinearOperator
        Its operator.
    num_steps, num_probes, seed
        Of the run.
    planned_for : LinearOperator
        Whose size decides how the basis is kept.
    memory_budget : int, float, str or None
        For the basis.
    """

    def __init__(
        self, kind: Literal["block", "matrix"], name: str, matrix: LinearOperator, num_steps: int, num_probes: int, seed: int, *,
        planned_for: LinearOperator, memory_budget: Any,
    ) -> None:  # fmt: skip
        self.kind, self.name, self.seed, self.source = kind, name, seed, matrix
        self.operator, backend, n = _Answered(matrix), matrix.backend, matrix.shape[0]
        self.num_steps = min(num_steps, n)
        whole = plan_basis(planned_for, self.num_steps, num_probes, "auto", memory_budget).storage
        plan = plan_basis(self.operator, self.num_steps, num_probes, "none" if whole == "selective" else whole, memory_budget)
        start = backend.probes(n, range(num_probes), kind="sphere", seed=seed, domain="probe", dtype=matrix.dtype)
        self.state = Recurrence(self.operator, start, plan=plan, measure_noise=True)

    @property
    def goes_on(self) -> bool:
        """Whether there are steps left."""
        return not self.state.exhausted and self.state.steps_done < self.num_steps

    def vectors(self) -> list[Array]:
        """Blocks of rows that the next step multiplies with: its vectors, and what measures how products repeat."""
        state, j = self.state, self.state.steps_done
        active = [probe for probe in range(state.num_probes) if not state.finished[probe]]
        rows = [state._block(active, j)]
        if state.measure_noise and j == 1:
            rows.append(3 * state._vector(active[0], j)[None, :])
        return rows

    def advance(self) -> None:
        """Take the step whose products were handed in."""
        try:
            self.state.step()
        except ProductError as error:
            step = len(self.state.alphas)
            message = f"In the {self.kind} {self.name!r}: {error}; the {step} steps before it are kept in .partial."
            raise NonFiniteProductError(message, self._result("interrupted", 0.0), step) from error

    def _result(self, status: Status, seconds: float) -> LanczosResult:
        probes = self.state.num_probes
        return self.state.result(
            status=status, seconds=seconds, seed=self.seed, start_norms=np.ones(probes), start_digest=f"sphere 0+{probes}"
        )

    def density(self, status: Status, seconds: float) -> SpectralDensity:
        """The spectrum of the steps that were done."""
        self.state.fetch()
        run = self._result("complete" if not self.goes_on else status, seconds)
        notes = () if run.keeps_basis else ("without reorthogonalisation: Ritz values may repeat, and eigenvalues are not counted",)
        return SpectralDensity(run, run.counts_eigenvalues, notes)


SomeLane = TypeVar("SomeLane", bound=Lane)


def in_lockstep(
    lanes: Sequence[SomeLane], answer: Callable[[list[SomeLane]], None], *, num_steps: int, time_budget: float | None,
    progress: Progress, description: str, began: float,
) -> tuple[dict[str, SpectralDensity], int, float]:  # fmt: skip
    """Take all runs to their end, a step at a time.

    Parameters
    ----------
    lanes : sequence of Lane
        The runs.
    answer : callable
        Hands every lane of a list the products of its next step.
    num_steps : int
        Most steps of any of them.
    time_budget : float or None
        Seconds since `began` after which they stop; Ctrl-C does the same.
    progress : bool, callable or None
        For a bar of steps.
    description : str
        Of the bar.
    began : float
        On the clock of `time.perf_counter`.

    Returns
    -------
    tuple
        The densities by name, products with single vectors, and seconds.
    """
    status: Status = "complete"
    longest = 0.0
    with ProgressBar(progress, num_steps, description) as bar:
        try:
            for step in range(num_steps):
                running = [lane for lane in lanes if lane.goes_on]
                step_began = time.perf_counter()
                late = time_budget is not None and step > 0 and step_began - began + longest > time_budget
                if not running or late:
                    status = "time budget" if running else "complete"
                    break
                answer(running)
                for lane in running:
                    lane.advance()
                longest = max(longest, time.perf_counter() - step_began)
                bar.advance()
        except KeyboardInterrupt:
            if not all(lane.state.alphas for lane in lanes):
                raise
            status = "interrupted"
    seconds = time.perf_counter() - began
    densities = {lane.name: lane.density(status, seconds) for lane in lanes}
    return densities, sum(lane.state.num_matvecs for lane in lanes), seconds
