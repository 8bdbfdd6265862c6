"""Loss and metrics at many points: resumable, within a time budget, and kept when something fails."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .._progress import Progress, ProgressBar
from ..backends import Array
from ..curvature import NonFiniteLossError, Objective
from ..krylov.lanczos import check_time_budget
from ..results import PathLike
from .batch_norm import at_points, check_policy
from .checkpoint import HELD_OUT, LOSS, Checkpoint, Fingerprint
from .metrics import Accuracy, Metrics, metric_functions, named_metrics
from .one_pass import losses_and_accuracies, points_of_a_pass

_GROWTH = 4


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
    *,
    alone: int = 1,
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
    alone : int
        Points at the beginning that are measured one by one, so that their losses are those of the objective there to the last bit.

    Raises
    ------
    LandscapeInterrupted
        When a point fails after others.
    """
    check_time_budget(options.time_budget)
    _check_held_out(objective, options.held_out)
    check_policy(options.batch_norm, objective, options.held_out)
    measurement = _Measurement(objective, point, options)
    names = measurement.names
    values, done = np.full((len(names), len(order)), np.nan), np.zeros(len(order), dtype=bool)
    began, status = time.perf_counter(), "complete"

    keeper = None
    if options.checkpoint is not None:
        keeper = Checkpoint(options.checkpoint, Fingerprint.of(objective.parameters(), geometry, names, options.batch_norm))
        keeper.read(values, done, measurement.single, tolerance=10 * float(objective.functions.unit_rounding**0.75))

    def table(ending: str) -> Table:
        return Table(dict(zip(names, values, strict=True)), done, ending, time.perf_counter() - began)

    pace = 0.0  # seconds for a point
    with ProgressBar(options.progress, len(order), "landscape", done=int(done.sum()), unit="point") as bar:
        for group in measurement.groups(order, alone):
            if done[group].all():
                continue
            started = time.perf_counter()
            if options.time_budget is not None and done.any() and started - began + pace * len(group) > options.time_budget:
                status = "time budget"
                break
            try:
                # The whole group, as in the run that was cut short inside of it, so that its numbers are the same to the last bit.
                for index, column in measurement.of(group, done):
                    values[:, index], done[index] = column, True
                    if keeper is not None and keeper.due():
                        keeper.write(values, done)
                    bar.advance()
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
            pace = (time.perf_counter() - started) / len(group)
    if keeper is not None:
        keeper.write(values, done)
    lost = int((done & ~np.isfinite(values[0])).sum())
    if lost:
        warnings.warn(f"The loss is not finite at {lost} of {int(done.sum())} points; they are NaN in the result.", stacklevel=3)
    return finish(table(status))


class _Measurement:
    """Everything that is measured at a point, for several points in one pass over the data."""

    def __init__(self, objective: Objective, point: Callable[[int], Array], options: Options) -> None:
        self._objective, self._point, self._held_out, self._batch_norm = objective, point, options.held_out, options.batch_norm
        named = named_metrics(options.metrics)
        sides = [objective] if options.held_out is None else [objective, options.held_out]
        self._metrics = [metric_functions(named, side) for side in sides]
        prefixes = ["", "held-out "][: len(sides)]
        self.names = [LOSS, HELD_OUT][: len(sides)] + [f"{prefix}{name}" for prefix in prefixes for name in named]

    def groups(self, order: Sequence[int], alone: int) -> Iterator[list[int]]:
        """The points in groups that grow to what one pass serves: a run that is cut short early has something."""
        for index in order[:alone]:
            yield [index]
        first, size, most = alone, 1, 0
        while first < len(order):
            if not most:  # the data have been read by now
                held_out = [] if self._held_out is None else [self._held_out]
                most = points_of_a_pass(self._objective, [self._objective, *held_out])
            size = min(_GROWTH * size, most)
            yield list(order[first : first + size])
            first += size

    def single(self, index: int) -> list[float]:
        """Everything at one point."""
        return next(column for _, column in self.of([index], np.zeros(index + 1, dtype=bool)))

    def of(self, group: Sequence[int], done: np.ndarray) -> Iterator[tuple[int, list[float]]]:
        """Number and values of each point of a group that is not done."""
        thetas = [self._point(index) for index in group]
        both = at_points(self._objective, self._held_out, thetas, self._batch_norm)
        losses: list[list[float]] = []
        accuracies: list[list[float]] = []
        for side, metrics in zip(both, self._metrics, strict=False):
            accuracy = next((metric for metric in metrics.values() if isinstance(metric, Accuracy)), None)
            found = losses_and_accuracies(side, accuracy)
            losses.append(found[0])
            accuracies.append(found[1])
        for place, index in enumerate(group):
            if done[index]:
                continue
            column = [values[place] for values in losses]
            for side, metrics, shares in zip(both, self._metrics, accuracies, strict=False):
                for metric in metrics.values():
                    column.append(shares[place] if isinstance(metric, Accuracy) else _finite_or_nan(metric, side[place]))
            yield index, column


def _finite_or_nan(metric: Callable[[Objective], Any], objective: Objective) -> float:
    """A number, and NaN where the loss overflows: far out on a line that is no mistake of the user's."""
    try:
        found = float(metric(objective))
    except NonFiniteLossError:
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
