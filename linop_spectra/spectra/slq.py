"""Stochastic Lanczos quadrature: from an operator to its spectral density."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from .._memory import parse_budget
from .._progress import Progress
from ..krylov import LanczosInterrupted, LanczosResult, NonFiniteProductError
from ..krylov.lanczos import RunOptions, check_count, clamp_steps, run_lanczos
from ..krylov.recurrence import Recurrence
from ..krylov.result import merge
from ..krylov.selective import Locked
from ..krylov.storage import Reorthogonalize, basis_bytes
from ..operators import LinearOperator, aslinearoperator, require_hermitian
from ..results import PathLike
from .deflation import deflate
from .density import SpectralDensity
from .goal import Goal, Target

DEFAULT_STEPS = 64
MOST_STEPS = 512
"""Steps that a run with a tolerance takes at most, where the caller names no number and the memory budget holds them."""
MOST_PROBES = 64
"""Probes that a run with a tolerance takes at most, where the caller names no number and the memory budget holds their vectors."""
_STEPS_BETWEEN_LOOKS = 8
_CACHE = 1 << 24


def default_probes(n: int) -> int:
    """Probes by size: the CDF of one probe is off by about ``1 / sqrt(n)``."""
    return 4 if n < 100_000 else 2 if n <= 1_000_000 else 1


def spectral_density(
    A: Any,
    *,
    num_steps: int | None = None,
    num_probes: int | Literal["auto"] = "auto",
    tol: float | None = None,
    target: Target = "wasserstein",
    time_budget: float | None = None,
    seed: int = 0,
    deflate: bool | Literal["auto"] = "auto",
    reorthogonalize: Reorthogonalize = "auto",
    memory_budget: int | float | str | None = None,
    progress: Progress = None,
    checkpoint: PathLike | None = None,
) -> SpectralDensity:
    """Spectral density of a Hermitian operator by stochastic Lanczos quadrature, with error bars.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Hermitian operator of shape (n, n).
    num_steps : int, optional
        Lanczos steps for each probe, 64 by default; more than n are cut to n. With `tol` the largest number, 512 by default or
        what the memory budget holds.
    num_probes : int or "auto"
        Random probes, uniform on the sphere; 4 below n = 100,000, 2 up to a million, 1 above, and one more where a single
        probe leaves a multiplicity open. With `tol` the largest number, 64 by default or what the memory budget holds.
    tol : float, optional
        Take steps, and then probes, until this relative error is reached with 95 % confidence, or the largest numbers. The
        result says whether it was: ``tolerance_met``, ``converged`` and its notes. Where the largest number of probes is not
        named and would not do, none are added.
    target : "wasserstein", "trace" or callable
        What `tol` is for: `SpectralDensity.wasserstein_bound` over the width of the spectrum; the half-width of the interval of
        the trace over its modulus; or, for a function f, the same of the trace of ``f(A)``.
    time_budget : float, optional
        Seconds after which the run ends with what it has.
    seed : int
        Seed of the probes.
    deflate : bool or "auto"
        Whether converged simple eigenvalues get the weight 1/n; "auto" does where the basis is kept, and for locked
        eigenvectors of a selective run.
    reorthogonalize, memory_budget
        As in `linop_spectra.lanczos`.
    progress : bool or callable, optional
        True shows a bar; a callable is called as ``progress(done, total)``.
    checkpoint : str or path, optional
        File that the run is written to as it goes, and taken up from.

    Returns
    -------
    SpectralDensity
        The measure and its views. After Ctrl-C or a spent time budget it is made of the steps that were done, and says so.

    Raises
    ------
    ValueError
        When an argument is wrong or the operator is not Hermitian.
    NonFiniteProductError, LanczosInterrupted
        When a product fails; the partial run is in ``.partial``.

    References
    ----------
    T. Chen, T. Trogdon and S. Ubaru, *Analysis of stochastic Lanczos quadrature for spectrum approximation*, ICML (2021).

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> S = ls.spectral_density(ls.diagonal_operator(np.r_[np.linspace(-1.0, 1.0, 990), np.arange(5.0, 15.0)]))
    >>> len(S.outliers())
    10
    >>> low, high = S.trace().confidence_interval(0.95)
    >>> bool(low < 95.0 < high)
    True
    """
    operator = aslinearoperator(A)
    require_hermitian(operator, "The spectral density", seed=seed)
    n = operator.shape[0]
    goal = Goal.of(tol, target)
    steps, probes, most_probes = _numbers(n, num_steps, num_probes, goal)
    if deflate not in (True, False, "auto"):
        raise ValueError(f"The argument deflate must be True, False or 'auto', but is {deflate!r}.")
    budget = parse_budget(memory_budget, total=operator.backend.total_memory())
    if goal is not None and num_steps is None:
        steps = min(n, max(DEFAULT_STEPS, min(steps, budget // basis_bytes(operator, 0, probes) - 1)))
    options = RunOptions(
        time_budget=time_budget, progress=progress, checkpoint=checkpoint, measure_noise=True, description="spectral density"
    )
    if goal is not None:
        options.stop = _stop_at(goal, min(steps, DEFAULT_STEPS), most_probes, deflate is not False)
    shared = {"reorthogonalize": reorthogonalize, "seed": seed, "memory_budget": memory_budget}
    in_parts = reorthogonalize in ("auto", "full") and 2 * basis_bytes(operator, steps, probes) <= budget
    together = _together(operator, steps, probes, options) if in_parts else probes
    run = run_lanczos(operator, steps, num_probes=together, options=options, **shared)  # type: ignore[arg-type]
    while run.num_probes < probes and run.status == "complete":
        run = _with_more_probes(operator, run, min(together, probes - run.num_probes), options, memory_budget)
    if deflate is True and not run.counts_eigenvalues:
        raise ValueError(
            "deflate=True needs the whole basis, because without reorthogonalisation Ritz values repeat; use "
            "reorthogonalize='full' or deflate='auto'."
        )
    pin = run.counts_eigenvalues if deflate == "auto" else bool(deflate)
    notes: list[str] = []
    if run.reorthogonalize == "selective":
        notes.append(
            f"selective orthogonalisation to {len(run.locked_values)} eigenvectors: other Ritz values may repeat, and are not pinned"
        )
    elif not run.keeps_basis:
        notes.append("without reorthogonalisation: Ritz values may repeat, their weights are right, eigenvalues are not counted")
    if num_probes == "auto" and probes == 1 and pin and run.keeps_basis and run.status == "complete" and _objects(run):
        run = _with_more_probes(operator, run, 1, options, memory_budget)
        notes.append("a second probe was added to decide on a possible multiplicity")
    density = SpectralDensity(run, pin, tuple(notes))
    if goal is None:
        return density
    fits = int(budget // basis_bytes(operator, run.num_steps, 1, run.basis_dtype)) if run.keeps_basis else most_probes
    if run.reorthogonalize == "selective":
        fits = int(budget // basis_bytes(operator, 0, 1) - len(run.locked_values)) // 2
    density = _reach(operator, density, goal, min(most_probes, max(fits, run.num_probes)), num_probes != "auto", options, memory_budget)
    if goal.gap(density).met:
        return density
    return dataclasses.replace(density, tolerance_met=False, notes=(*density.notes, goal.describe(density)))


def _numbers(n: int, num_steps: int | None, num_probes: int | Literal["auto"], goal: Goal | None) -> tuple[int, int, int]:
    """Largest number of steps, number of probes to begin with, and the largest number of them."""
    default_steps, first = (DEFAULT_STEPS if goal is None else MOST_STEPS), default_probes(n)
    steps = min(default_steps, n) if num_steps is None else clamp_steps(check_count("num_steps", num_steps), n)
    if num_probes == "auto":
        return steps, first, first if goal is None else MOST_PROBES
    most = check_count("num_probes", num_probes)
    return steps, most if goal is None else min(first, most), most


def _together(operator: LinearOperator, steps: int, probes: int, options: RunOptions) -> int:
    """Probes of a run with reorthogonalisation that go in lockstep.

    All of them, but where blocks are no gain as many as have bases that a processor's cache holds. What is said or kept during
    a run is of all probes.
    """
    watched = options.stop or options.progress or options.time_budget is not None or options.checkpoint is not None
    if operator.gains_from_blocks or watched:
        return probes
    return max(1, min(probes, _CACHE // basis_bytes(operator, steps, 1)))


def _objects(run: LanczosResult) -> bool:
    return bool(deflate(run, pin=True).objections)


def _with_more_probes(
    operator: LinearOperator, run: LanczosResult, count: int, options: RunOptions, memory_budget: int | float | str | None
) -> LanczosResult:
    """The run that it would have been with `count` more probes."""
    left = None if options.time_budget is None else max(options.time_budget - run.seconds, 1e-9)
    more = dataclasses.replace(options, checkpoint=None, measure_noise=False, stop=None, time_budget=left)
    try:
        other = run_lanczos(
            operator, run.num_steps, num_probes=count, options=more, first_probe=run.num_probes, seed=run.seed,
            reorthogonalize=run.reorthogonalize, memory_budget=memory_budget, locked=_locked(run),  # type: ignore[arg-type]
        )  # fmt: skip
    except KeyboardInterrupt:  # before the first step of these probes
        return dataclasses.replace(run, status="interrupted")
    except (LanczosInterrupted, NonFiniteProductError) as error:
        if error.partial is not None and error.partial.num_steps:
            error.partial = merge(run, error.partial)
        else:
            error.partial = run
        raise
    return merge(run, other)


def _locked(run: LanczosResult) -> Locked | None:
    """The eigenvectors of a selective run, which cost nothing a second time."""
    if run.vectors is None or run.vectors.locked is None:
        return None
    return Locked(run.locked_values, run.locked_residuals, run.vectors.locked)


def _reach(
    operator: LinearOperator,
    S: SpectralDensity,
    goal: Goal,
    most: int,
    named: bool,
    options: RunOptions,
    memory_budget: int | float | str | None,
) -> SpectralDensity:
    """Add probes until the goal is met, at most to `most`; none at all where that would not do, unless the caller named it."""
    while S.run.status == "complete":
        gap = goal.gap(S)
        needed = gap.needed_probes(S.num_probes)
        if gap.met or S.num_probes >= most or not np.isfinite(needed) or (needed > most and not named):
            break
        # Twice as many tell better how many are needed.
        count = int(min(needed, most, 2 * S.num_probes)) - S.num_probes
        run = _with_more_probes(operator, S.run, max(1, count), options, memory_budget)
        S = dataclasses.replace(S, run=run)
    return S


def _stop_at(goal: Goal, least: int, most_probes: int, pin: bool) -> Callable[[Recurrence], bool]:
    """Stop once the goal is met, or probes are what is missing."""
    next_look = _STEPS_BETWEEN_LOOKS

    def stop(state: Recurrence) -> bool:
        nonlocal next_look
        if state.steps_done < next_look:
            return False
        # A look costs about as much as the orthogonalisation of its step: later ones are further apart.
        next_look = state.steps_done + max(_STEPS_BETWEEN_LOOKS, state.steps_done // 8)
        state.fetch()
        run = state.result(status="complete", seconds=0.0, seed=0, start_norms=np.ones(state.num_probes), start_digest="")
        try:
            gap = goal.gap(SpectralDensity(run, pin))
        except Exception:
            return True  # of the caller's function: judging the result raises it again, and no product is blamed
        if gap.met:
            return True
        return state.steps_done >= least and not gap.needs_steps(state.num_probes, max(most_probes, state.num_probes))

    return stop
