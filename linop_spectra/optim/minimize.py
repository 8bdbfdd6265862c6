"""A loop of steps over mini-batches that can be interrupted and resumed."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from .._progress import Progress, ProgressBar
from ..backends import Array, backend_of
from ..curvature import Objective
from ..results import PathLike, read_result, register, save_result
from .optimizer import Optimizer
from .step_info import StepInfo

BatchesOf = Sequence[Any] | Callable[[int], Any] | None
Status = Literal["complete", "interrupted", "time budget", "stopped"]
_SECONDS_BETWEEN_CHECKPOINTS = 10.0


@register("minimization")
@dataclasses.dataclass(frozen=True, eq=False)
class Minimization:
    """What a run of an optimiser did.

    Attributes
    ----------
    theta : array
        Parameters at the end, shape (n,).
    infos : tuple of StepInfo
        One for each step.
    status : {"complete", "interrupted", "time budget", "stopped"}
        Why the run ended; ``"stopped"`` by the callback.
    seconds : float
        Wall-clock time, that of a run that was resumed included.
    """

    theta: Array
    infos: tuple[StepInfo, ...]
    status: Status
    seconds: float

    @property
    def losses(self) -> np.ndarray:
        """Loss before each step on its own batch, shape (num_steps,)."""
        return np.array([info.loss for info in self.infos])

    @property
    def num_matvecs(self) -> int:
        """Products with curvature matrices over all steps."""
        return sum(info.num_matvecs for info in self.infos)

    def column(self, name: str) -> np.ndarray:
        """One number of every step by the name of an attribute of `StepInfo`, or of an entry of its details; NaN where it is missing."""
        return np.array([getattr(info, name, info.details.get(name, np.nan)) for info in self.infos], dtype=np.float64)

    def save(self, path: PathLike) -> None:
        """Write the run to `path` (``.npz``); `linop_spectra.load` reads it back."""
        scalars = {"status": self.status, "seconds": self.seconds, "infos": infos_to_json(self.infos)}
        save_result(path, "minimization", scalars, {"theta": backend_of(self.theta).to_numpy(self.theta)})

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> Minimization:
        return cls(arrays["theta"], infos_from_json(scalars["infos"]), scalars["status"], scalars["seconds"])


def infos_to_json(infos: Sequence[StepInfo]) -> str:
    """Steps as text."""
    return json.dumps([{**dataclasses.asdict(info), "details": dict(info.details)} for info in infos])


def infos_from_json(text: str) -> tuple[StepInfo, ...]:
    """Steps from the text of `infos_to_json`."""
    return tuple(StepInfo(**entry) for entry in json.loads(text))


def minimize(
    optimizer: Optimizer, objective: Objective, num_steps: int, *, theta: Any = None, batches: BatchesOf = None,
    curvature_batches: BatchesOf = None, callback: Callable[[StepInfo, Array], bool | None] | None = None,
    checkpoint: PathLike | None = None, time_budget: float | None = None, progress: Progress = None,
) -> Minimization:  # fmt: skip
    """Steps of an optimiser over the data of an objective, or over mini-batches.

    Parameters
    ----------
    optimizer : Optimizer
        The method; it goes on from its state.
    objective : Objective
        Model and loss, and the data where no batches are given.
    num_steps : int
        Steps in all, those of a run that is resumed included.
    theta : array, optional
        Where to start, shape (n,); by default the objective's parameters.
    batches : sequence or callable, optional
        Data of each step: a sequence of anything that `Objective.with_data` takes, gone through again and again, or a function of the
        step's number. (Both are the same when a run is resumed, which a loader that shuffles is not.)
    curvature_batches : sequence or callable, optional
        The same for what is measured of curvature.
    callback : callable, optional
        Called as ``callback(info, theta)`` after each step; the run stops where it returns True.
    checkpoint : str or path, optional
        File that parameters, the method's state and the steps so far are written to, at most every ten seconds and at the end. Where it
        exists the run goes on from there, bit-identically to one that was not interrupted.
    time_budget : float, optional
        Seconds after which no further step is begun.
    progress : bool or callable, optional
        As for `linop_spectra.lanczos`.

    Returns
    -------
    Minimization
        The parameters and what each step did. Ctrl-C returns what was done until then, with ``status`` ``"interrupted"``.

    Raises
    ------
    NonFiniteLossError
        When the loss is not finite at the start of a step.
    ValueError
        When an argument does not fit, or the checkpoint belongs to another method.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> _ = torch.manual_seed(0)
    >>> x = torch.randn(60, 3)
    >>> objective = ls.objective(torch.nn.Linear(3, 1), "mse", (x, x.sum(dim=1, keepdim=True)))
    >>> pieces = [(x[i : i + 20], x[i : i + 20].sum(dim=1, keepdim=True)) for i in range(0, 60, 20)]
    >>> run = ls.optim.minimize(ls.optim.LanczosNewton(damping=1e-3, num_steps=4), objective, 6, batches=pieces)
    >>> run.status, bool(run.losses[-1] < 1e-5 * run.losses[0])
    ('complete', True)
    """
    if int(num_steps) != num_steps or num_steps < 0:
        raise ValueError(f"The argument num_steps is {num_steps!r}, but must be a whole number of at least zero.")
    for name, given in (("batches", batches), ("curvature_batches", curvature_batches)):
        if given is not None and not callable(given) and (not hasattr(given, "__getitem__") or len(given) == 0):
            raise ValueError(
                f"The argument {name} must be a sequence of batches, with at least one, or a function of the step's number, but is a "
                f"{type(given).__name__}; list(loader) makes a sequence."
            )
    theta = objective.parameters() if theta is None else theta
    infos: list[StepInfo] = []
    before = 0.0
    if checkpoint is not None and pathlib.Path(checkpoint).exists():
        theta, infos, before = _resume(optimizer, checkpoint)
    began = written = time.perf_counter()
    status: Status = "complete"

    def save() -> None:
        if checkpoint is not None:
            header, arrays = optimizer.to_file()
            scalars = {**header, "infos": infos_to_json(infos), "seconds": before + time.perf_counter() - began}
            held = backend_of(theta).to_numpy(theta) if infos else np.asarray(theta)
            save_result(checkpoint, "minimization checkpoint", scalars, {**arrays, "parameters of the run": held})

    try:
        with ProgressBar(progress, int(num_steps), type(optimizer).__name__, done=min(len(infos), int(num_steps))) as bar:
            while len(infos) < num_steps:
                if time_budget is not None and time.perf_counter() - began > time_budget:
                    status = "time budget"
                    break
                number = len(infos)
                here = objective if batches is None else objective.with_data(_pick(batches, number))
                other = None if curvature_batches is None else objective.with_data(_pick(curvature_batches, number))
                kept = optimizer.state, optimizer.steps_taken
                try:
                    theta, info = optimizer.step(here, theta, curvature=other)
                except BaseException:  # also Ctrl-C after the state has changed and before the parameters have
                    optimizer.state, optimizer.steps_taken = kept
                    raise
                infos.append(info)
                bar.advance()
                if time.perf_counter() - written > _SECONDS_BETWEEN_CHECKPOINTS:
                    save()
                    written = time.perf_counter()
                if callback is not None and callback(info, theta):
                    status = "stopped"
                    break
    except KeyboardInterrupt:
        status = "interrupted"
    finally:
        if infos:
            save()
    return Minimization(theta, tuple(infos), status, before + time.perf_counter() - began)


def _pick(batches: Any, step: int) -> Any:
    return batches(step) if callable(batches) else batches[step % len(batches)]


def _resume(optimizer: Optimizer, path: PathLike) -> tuple[np.ndarray, list[StepInfo], float]:
    scalars, arrays = read_result(path)
    if scalars["kind"] != "minimization checkpoint":
        raise ValueError(f"The file {str(path)!r} is no checkpoint of linop_spectra.optim.minimize; choose another path.")
    theta = arrays.pop("parameters of the run")
    optimizer.from_file(scalars, arrays)
    return theta, list(infos_from_json(scalars["infos"])), float(scalars["seconds"])
