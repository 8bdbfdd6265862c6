"""Lanczos tridiagonalisation: the public function, its plan, interruption and checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import numbers
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from .._progress import Progress, ProgressBar
from ..backends import Array
from ..operators import LinearOperator, aslinearoperator, require_hermitian
from ..results import PathLike
from .checkpoint import Checkpoint, other_first_coefficient
from .errors import LanczosInterrupted, NonFiniteProductError
from .recurrence import ProductError, Recurrence
from .result import LanczosResult, Status
from .selective import Locked, lock
from .storage import BasisPlan, Reorthogonalize, basis_bytes, plan_basis


@dataclasses.dataclass
class RunOptions:
    """How a run is carried out, as opposed to what it computes."""

    time_budget: float | None = None
    progress: Progress = None
    checkpoint: PathLike | None = None
    measure_noise: bool = False
    test_symmetry: bool = True
    stop: Callable[[Recurrence], bool] | None = None
    description: str = "Lanczos"


def lanczos(
    A: Any,
    num_steps: int,
    *,
    num_probes: int = 1,
    start: Any = None,
    reorthogonalize: Reorthogonalize = "auto",
    seed: int = 0,
    memory_budget: int | float | str | None = None,
    time_budget: float | None = None,
    progress: Progress = None,
    checkpoint: PathLike | None = None,
) -> LanczosResult:
    """Lanczos tridiagonalisation of a Hermitian operator, from several starting vectors in lockstep.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Hermitian operator of shape (n, n). If it does not say that it is Hermitian, two products test it.
    num_steps : int
        Number of steps k; more than n are cut to n with a warning.
    num_probes : int
        Number of random starting vectors, uniform on the unit sphere.
    start : array, optional
        Starting vectors instead of random ones, shape (n,) or (n, num_probes); they are normalised.
    reorthogonalize : {"auto", "full", "compressed", "host", "selective", "none"}
        Where the vectors go. ``"full"`` keeps all k + 1 vectors of each probe and orthogonalises against them, twice where once
        is not enough. ``"compressed"`` keeps them in single precision (of a run in double precision) or, where that does not
        fit the budget either, in half precision: the coefficients stay those of a full run up to rounding, Ritz vectors have the
        precision of the storage. ``"host"`` keeps them in the memory of the host (of a run on a device). ``"selective"`` keeps two
        vectors and up to 40 eigenvectors of largest modulus, which it finds first, by at most three products for each vector of
        that search: where they converge, their eigenvalues do not repeat. ``"none"`` keeps two vectors: moments stay right, but
        Ritz values repeat. ``"auto"`` takes the first of these that fits the memory budget, and warns when it is the last. The
        plan is logged, and kept in the result.
    seed : int
        Seed of the random vectors; the same seed gives the same vectors on every backend.
    memory_budget : int, float, str or None
        For the basis, in bytes or as text such as ``"4GB"``; by default 40 % of the memory of the device.
    time_budget : float, optional
        Seconds after which the run ends with what it has; its ``status`` is then ``"time budget"``.
    progress : bool or callable, optional
        True shows a bar; a callable is called as ``progress(done, total)``.
    checkpoint : str or path, optional
        File that the run is written to as it goes, and taken up from when it exists and matches.

    Returns
    -------
    LanczosResult
        Coefficients, shape (num_probes, k), and the vectors to go on with.

    Raises
    ------
    ValueError
        When an argument is wrong, the operator is not Hermitian, or the checkpoint does not match.
    LanczosInterrupted
        When a product raises after the first step; it carries the partial result.
    NonFiniteProductError
        When a product holds NaN or infinity; it carries the partial result.

    Notes
    -----
    Ctrl-C after the first step returns the partial result with ``status`` ``"interrupted"``. The search of a selective run comes
    before the first step.

    References
    ----------
    C. C. Paige, *Computational variants of the Lanczos method for the eigenproblem*, J. Inst. Math. Appl. 10 (1972).
    B. N. Parlett and D. S. Scott, *The Lanczos algorithm with selective orthogonalization*, Math. Comp. 33 (1979).

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> run = ls.lanczos(ls.diagonal_operator(np.linspace(0.0, 1.0, 100)), 20, num_probes=2)
    >>> run.alphas.shape
    (2, 20)
    """
    operator = aslinearoperator(A)
    require_hermitian(operator, "Lanczos", seed=seed)
    options = RunOptions(time_budget=time_budget, progress=progress, checkpoint=checkpoint)
    return run_lanczos(
        operator, num_steps, num_probes=num_probes, start=start, reorthogonalize=reorthogonalize, seed=seed,
        memory_budget=memory_budget, options=options,
    )  # fmt: skip


def run_lanczos(
    operator: LinearOperator,
    num_steps: int,
    *,
    num_probes: int,
    options: RunOptions,
    start: Any = None,
    reorthogonalize: Reorthogonalize = "auto",
    seed: int = 0,
    memory_budget: int | float | str | None = None,
    first_probe: int = 0,
    locked: Locked | None = None,
) -> LanczosResult:
    """`lanczos` for callers inside the library: the operator is known to be Hermitian.

    `first_probe` picks other probes, and `locked` are the eigenvectors that an earlier selective run has found.
    """
    n = operator.shape[0]
    num_steps = clamp_steps(check_count("num_steps", num_steps), n)
    check_time_budget(options.time_budget)
    num_probes = check_count("num_probes", num_probes)
    rows, norms, digest = _starting_vectors(operator, start, num_probes, seed, first_probe)
    plan = plan_basis(operator, num_steps, len(norms), "none" if locked is not None else reorthogonalize, memory_budget)
    if locked is not None:
        kept = len(locked.values) * basis_bytes(operator, 0, 1)
        plan = dataclasses.replace(plan, storage="selective", bytes=plan.bytes + kept)
    checkpoint = None
    if options.checkpoint is not None:
        checkpoint = Checkpoint(options.checkpoint)
        earlier = checkpoint.read(
            dimension=n, dtype=str(operator.dtype), num_probes=len(norms), seed=seed, start_digest=digest,
            reorthogonalize=plan.storage, basis_dtype=plan.dtype, backend=operator.backend,
        )  # fmt: skip
        if earlier is not None:
            checkpoint.confirm(earlier, operator, rows)
            if earlier.num_steps >= num_steps:
                return shorten(dataclasses.replace(earlier, status="complete"), num_steps)
            return _carry_on(
                Recurrence.resume(earlier, operator, measure_noise=options.measure_noise),
                num_steps, options, checkpoint, earlier.seconds, seed, norms, digest,
            )  # fmt: skip
    began = time.perf_counter()
    if plan.storage == "selective" and locked is None:
        locked = _lock(operator, plan, options, rows, seed, norms, digest)
    seconds = time.perf_counter() - began
    if options.time_budget is not None:
        options = dataclasses.replace(options, time_budget=max(options.time_budget - seconds, 1e-9))
    state = Recurrence(
        operator, rows, plan=plan, locked=locked, measure_noise=options.measure_noise, test_symmetry=options.test_symmetry
    )
    return _carry_on(state, num_steps, options, checkpoint, seconds, seed, norms, digest)


def _lock(
    operator: LinearOperator, plan: BasisPlan, options: RunOptions, rows: Array, seed: int, norms: np.ndarray, digest: str
) -> Locked:
    """The eigenvectors of a selective run, in at most half of its time."""
    half = None if options.time_budget is None else options.time_budget / 2
    try:
        return lock(operator, plan.search_rows, seed=seed, seconds=half, progress=options.progress)
    except FloatingPointError as error:
        nothing = Recurrence(operator, rows, plan=dataclasses.replace(plan, storage="none"))
        partial = nothing.result(status="interrupted", seconds=0.0, seed=seed, start_norms=norms, start_digest=digest)
        message = f"{error} It was a product of the search for eigenvectors, before the first step."
        raise NonFiniteProductError(message, partial, 0) from error


def extend(run: LanczosResult, num_steps: int, A: Any, **options: Any) -> LanczosResult:
    """Continue `run`; see `LanczosResult.extend`."""
    unknown = set(options) - {"time_budget", "progress", "checkpoint"}
    if unknown:
        raise TypeError(f"extend takes time_budget, progress and checkpoint, but was given {', '.join(sorted(unknown))}.")
    operator = aslinearoperator(A)
    n = run.dimension
    if operator.shape != (n, n) or str(operator.dtype) != run.dtype:
        raise ValueError(
            f"The run belongs to an operator of shape {(n, n)} and dtype {run.dtype}, but the argument operator has shape "
            f"{operator.shape} and dtype {operator.dtype}; pass the operator of the first run."
        )
    total = clamp_steps(run.num_steps + check_count("num_steps", num_steps), n)
    if run.vectors is not None and run.vectors.bases and run.num_steps:
        alpha = other_first_coefficient(run, operator, operator.backend.asarray(run.vectors.bases[0].row(0)))
        if alpha is not None:
            raise ValueError(
                f"The argument operator is not the one of the run: its first coefficient is {alpha:.9g}, but the run has "
                f"{run.alphas[0, 0]:.9g}. Pass the operator of the first run."
            )
    settings = RunOptions(**options)
    check_time_budget(settings.time_budget)
    checkpoint = Checkpoint(settings.checkpoint) if settings.checkpoint is not None else None
    state = Recurrence.resume(run, operator, measure_noise=False)
    return _carry_on(state, total, settings, checkpoint, run.seconds, run.seed, run.start_norms, run.start_digest)


def _carry_on(
    state: Recurrence,
    num_steps: int,
    options: RunOptions,
    checkpoint: Checkpoint | None,
    seconds_before: float,
    seed: int,
    norms: np.ndarray,
    digest: str,
) -> LanczosResult:
    began = time.perf_counter()

    def partial(status: Status) -> LanczosResult:
        seconds = seconds_before + time.perf_counter() - began
        return state.result(status=status, seconds=seconds, seed=seed, start_norms=norms, start_digest=digest)

    def keep(status: Status, *, force: bool = True) -> None:
        if checkpoint is not None and (force or checkpoint.due()):
            state.fetch()
            checkpoint.write(partial(status))

    status: Status = "complete"
    longest, asking = 0.0, False
    with ProgressBar(options.progress, num_steps, options.description, done=state.steps_done) as bar:
        try:
            first_step = state.steps_done
            while state.steps_done < num_steps and not state.exhausted:
                step_began = time.perf_counter()
                if (
                    options.time_budget is not None
                    and state.steps_done > first_step
                    and step_began - began + longest > options.time_budget
                ):
                    status = "time budget"
                    break
                state.step()
                longest = max(longest, time.perf_counter() - step_began)
                bar.advance()
                if options.stop is not None and state.steps_done < num_steps:
                    asking = True
                    if options.stop(state):
                        break
                    asking = False
                if state.steps_done < num_steps:
                    keep("interrupted", force=False)
            state.fetch()
        except KeyboardInterrupt:
            state.fetch()
            if not state.alphas:
                raise
            status = "interrupted"
        except ProductError as error:
            step = len(state.alphas)
            keep("interrupted")
            raise NonFiniteProductError(
                f"{error}; the {step} steps before it are kept in .partial.", partial("interrupted"), step
            ) from error
        except Exception as error:
            if asking:  # not the product failed, but the question whether to stop
                raise
            with contextlib.suppress(ProductError):
                state.fetch()
            step = len(state.alphas)
            if step == 0 or (isinstance(error, ValueError) and "not symmetric" in str(error)):
                raise
            keep("interrupted")
            raise LanczosInterrupted(
                f"The product with the operator failed at step {step + 1} ({type(error).__name__}: {error}); "
                f"the {step} steps before it are kept in .partial.",
                partial("interrupted"),
                step,
            ) from error
    keep(status)
    return partial(status)


def shorten(run: LanczosResult, num_steps: int) -> LanczosResult:
    """The first steps of a run; they are what a shorter run would have given."""
    if num_steps >= run.num_steps:
        return run
    taken = np.minimum(run.num_steps_taken, num_steps)
    overlaps = None if run.start_overlaps is None else run.start_overlaps[:, :num_steps]
    # The bases keep their further rows: resuming forks them where needed.
    return dataclasses.replace(
        run, alphas=run.alphas[:, :num_steps].copy(), betas=run.betas[:, :num_steps].copy(), num_steps_taken=taken,
        start_overlaps=overlaps, vectors=run.vectors if run.keeps_basis else None,
    )  # fmt: skip


def check_count(name: str, value: Any) -> int:
    """A positive integer, or a ValueError that names the argument."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"The argument {name} must be a whole number of at least 1, but is {value!r}.")
    return int(value)


def clamp_steps(num_steps: int, n: int) -> int:
    """At most n steps: then the Krylov space is everything."""
    if num_steps > n:
        warnings.warn(f"num_steps = {num_steps} is more than the order {n} of the operator; {n} steps are taken.", stacklevel=4)
        return n
    return num_steps


def check_time_budget(seconds: float | None) -> None:
    """Raise unless a time budget is a positive number of seconds, or none."""
    if seconds is not None and not (isinstance(seconds, numbers.Real) and seconds > 0):
        raise ValueError(f"The argument time_budget must be a positive number of seconds, but is {seconds!r}.")


def _starting_vectors(
    operator: LinearOperator, start: Any, num_probes: int, seed: int, first_probe: int
) -> tuple[Array, np.ndarray, str]:
    backend, n = operator.backend, operator.shape[0]
    if start is None:
        rows = backend.probes(
            n, range(first_probe, first_probe + num_probes), kind="sphere", seed=seed, domain="probe", dtype=operator.dtype
        )
        return rows, np.ones(num_probes), f"sphere {first_probe}+{num_probes}"
    given = backend.asarray(start)
    if operator.dtype.kind != "c" and backend.dtype_of(given).kind == "c":
        raise TypeError("The argument start is complex, but the operator is real; pass a real starting vector.")
    given = backend.asarray(given, dtype=operator.dtype)
    if given.shape not in ((n,), (n, num_probes)) and not (len(given.shape) == 2 and given.shape[0] == n and num_probes == 1):
        raise ValueError(
            f"The argument start must have shape ({n},) or ({n}, num_probes), but has shape {tuple(given.shape)}."
        )
    columns = given[:, None] if len(given.shape) == 1 else given
    rows = backend.empty((columns.shape[1], n), operator.dtype)
    norms = np.empty(columns.shape[1])
    for probe in range(columns.shape[1]):
        rows[probe, :] = columns[:, probe]
        norms[probe] = float(np.real(backend.to_numpy(backend.norm(rows[probe, :]))))
        if not (np.isfinite(norms[probe]) and norms[probe] > 0):
            raise ValueError(f"The starting vector {probe} has norm {norms[probe]}; the argument start must be finite and not zero.")
        backend.scale_into(rows[probe, :], 1.0 / norms[probe], rows[probe, :])
    digest = hashlib.sha256(np.ascontiguousarray(backend.to_numpy(rows)).tobytes()).hexdigest()[:32]
    return rows, norms, digest
