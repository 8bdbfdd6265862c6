"""Loss and metrics at many points: resumable, within a time budget, and kept when something fails."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._progress import Progress, ProgressBar
from ..backends import Array
from ..curvature import Objective
from ..krylov.lanczos import check_time_budget
from ..results import PathLike
from .batch_norm import at_point, check_policy
from .checkpoint import HELD_OUT, LOSS, Checkpoint, Fingerprint
from .metrics import Metrics, metric_functions, named_metrics


class LandscapeInterrupted(RuntimeError):
    """A loss or a metric failed at a point; the points before it are kept.

    Attributes
    ----------
    partial : Line or Plane
        What the function that was called would have returned, with NaN where nothing was evaluated.
    step : int
        Points before the one that failed.
    """

    def __init__(self, message: str, partial: Any, step: int) -> None:
        super().__init__(message)
        self.partial = partial
        self.step = step


@dataclasses.dataclass(frozen=True, eq=False)
class Options:
    """What all kinds of landscapes take besides their points; see `line`."""

    metrics: Metrics = None
    held_out: Objective | None = None
    batch_norm: str = "keep"
    checkpoint: PathLike | None = None
    progress: Progress = None
    time_budget: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """What was measured.

    Attributes
    ----------
    values : dict of str to numpy.ndarray
        Shape (num_points,) each, NaN where nothing was evaluated or the loss is not finite: the loss, that of the held-out data, and
        each metric, once more with ``"held-out "`` in front.
    evaluated : numpy.ndarray
        Shape (num_points,), booleans.
    status : {"complete", "interrupted", "time budget"}
        Why the evaluation ended.
    seconds : float
        Wall-clock time.
    """

    values: dict[str, np.ndarray]
    evaluated: np.ndarray
    status: str
    seconds: float

    def shaped(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """The fields that a line and a plane share, with arrays of this shape."""
        arrays = {name: value.reshape(shape) for name, value in self.values.items()}
        loss, held_out = arrays.pop(LOSS), arrays.pop(HELD_OUT, None)
        prefix = "held-out "
        return {
            "loss": loss, "held_out_loss": held_out, "evaluated": self.evaluated.reshape(shape), "status": self.status,
            "metrics": {name: value for name, value in arrays.items() if not name.startswith(prefix)},
            "held_out_metrics": {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)},
            "seconds": self.seconds,
        }  # fmt: skip


def evaluate(
    objective: Objective,
    point: Callable[[int], Array],
    order: Sequence[int],
    geometry: Sequence[np.ndarray],
    options: Options,
    finish: Callable[[Table], Any],
) -> Any:
    """Measure the objective at points, in an order of importance, and return ``finish(table)``.

    Parameters
    ----------
    objective : Objective
        Where parameters come from, and the loss.
    point : callable
        Parameters of the point with that number, shape (P,).
    order : sequence of int
        Numbers of all points: where a run is cut short, the first ones are there.
    geometry : sequence of numpy.ndarray
        What a checkpoint must agree in.
    options : Options
        The rest.
    finish : callable
        Makes the result.

    Raises
    ------
    LandscapeInterrupted
        When a point fails after others.
    """
    check_time_budget(options.time_budget)
    _check_held_out(objective, options.held_out)
    check_policy(options.batch_norm, objective, options.held_out)
    named = named_metrics(options.metrics)
    names = [LOSS, *([HELD_OUT] if options.held_out is not None else []), *named]
    names += [f"held-out {name}" for name in named] if options.held_out is not None else []
    values, done = np.full((len(names), len(order)), np.nan), np.zeros(len(order), dtype=bool)
    began, status, longest = time.perf_counter(), "complete", 0.0
    own = metric_functions(named, objective)
    theirs = metric_functions(named, options.held_out) if options.held_out is not None else {}

    def measure(index: int) -> list[float]:
        there, held_out = at_point(objective, options.held_out, point(index), options.batch_norm)
        sides = [(there, own)] if held_out is None else [(there, own), (held_out, theirs)]
        losses = [_finite_or_nan(Objective.value, side) for side, _ in sides]
        return [*losses, *(_finite_or_nan(metric, side) for side, metrics in sides for metric in metrics.values())]

    keeper = None
    if options.checkpoint is not None:
        keeper = Checkpoint(options.checkpoint, Fingerprint.of(objective.parameters(), geometry, names, options.batch_norm))
        keeper.read(values, done, measure, tolerance=10 * float(objective.functions.unit_rounding**0.75))

    def table(ending: str) -> Table:
        return Table(dict(zip(names, values, strict=True)), done, ending, time.perf_counter() - began)

    with ProgressBar(options.progress, len(order), "landscape", done=int(done.sum()), unit="point") as bar:
        for index in order:
            if done[index]:
                continue
            started = time.perf_counter()
            if options.time_budget is not None and done.any() and started - began + longest > options.time_budget:
                status = "time budget"
                break
            try:
                values[:, index] = measure(index)
            except KeyboardInterrupt:
                if not done.any():
                    raise
                status = "interrupted"
                break
            except Exception as error:
                if keeper is not None:
                    keeper.write(values, done)
                if not done.any():
                    raise
                raise LandscapeInterrupted(
                    f"The evaluation of a point failed after {int(done.sum())} others ({type(error).__name__}: {error}); those are kept "
                    "in .partial.",
                    finish(table("interrupted")), int(done.sum()),
                ) from error  # fmt: skip
            done[index] = True
            longest = max(longest, time.perf_counter() - started)
            if keeper is not None and keeper.due():
                keeper.write(values, done)
            bar.advance()
    if keeper is not None:
        keeper.write(values, done)
    lost = int((done & ~np.isfinite(values[0])).sum())
    if lost:
        warnings.warn(f"The loss is not finite at {lost} of {int(done.sum())} points; they are NaN in the result.", stacklevel=3)
    return finish(table(status))


def _finite_or_nan(function: Callable[[Objective], Any], objective: Objective) -> float:
    """A number, and NaN where the loss overflows: far out on a line that is no mistake of the user's."""
    try:
        found = float(function(objective))
    except ValueError as error:
        if "is not finite" not in str(error):
            raise
        return float("nan")
    return found if np.isfinite(found) else float("nan")


def _check_held_out(objective: Objective, held_out: Objective | None) -> None:
    if held_out is None:
        return
    if not isinstance(held_out, Objective):
        raise TypeError(
            f"The argument held_out is a {type(held_out).__name__}, but must be an Objective; make it by objective.with_data(data)."
        )
    if dict(held_out.blocks) != dict(objective.blocks):
        raise ValueError(
            "The argument held_out has other parameters than the objective, so that a point of one is none of the other; make it by "
            "objective.with_data(data)."
        )
