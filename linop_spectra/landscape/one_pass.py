"""Loss and accuracy at many points in one pass over the data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..curvature import NonFiniteLossError, Objective
from ..curvature.linearization import Batch, Outputs, Point
from ..curvature.out_of_memory import Pieces, in_smaller_plans
from .metrics import Accuracy

MOST_POINTS = 32
"""In one pass, so that a run which is cut short has most of what it computed."""
_SHARE = 8
"""The points of a pass take at most this part of the memory budget."""


@runtime_checkable
class SupportsSeveralPoints(Protocol):
    """What model functions may have besides: forward passes that serve loss and metrics, at several points."""

    def points_at_once(self, point: Point, batch: Batch) -> int:
        """Points that a forward pass takes together, where that is less work; 1 where it is not."""

    def forward_passes(self, points: Sequence[Point], batch: Batch) -> Iterator[tuple[float, float, Outputs]]:
        """Summed loss (NaN where it is not finite), number of terms and outputs at each of several points."""


def points_of_a_pass(objective: Objective, objectives: Sequence[Objective]) -> int:
    """How many points one pass over the data serves, by the sizes of things alone.

    Data that are held in memory cost nothing to read again, so that the points go together only where that saves work of the model.
    """
    functions = objective.functions
    size = functions.num_parameters * functions.dtype.itemsize
    most = max(1, min(MOST_POINTS, functions.memory_budget // (_SHARE * size)))
    if not all(one.data.kept for one in objectives):
        return most
    if not isinstance(functions, SupportsSeveralPoints):
        return 1
    with functions.session():
        return min(most, *(functions.points_at_once(one.point, next(one.batches())) for one in objectives))


@dataclasses.dataclass
class _Sums:
    total: float = 0.0
    terms: float = 0.0
    right: float = 0


def losses_and_accuracies(objectives: Sequence[Objective], accuracy: Accuracy | None) -> tuple[list[float], list[float]]:
    """Losses of objectives that differ in their parameters alone, and the accuracies where they are asked for.

    Parameters
    ----------
    objectives : sequence of Objective
        At different points, with the same functions and data.
    accuracy : Accuracy, optional
        Made from one of them.

    Returns
    -------
    list of float, list of float
        NaN where a loss or an output is not finite; the second list is empty without `accuracy`.
    """
    if isinstance(objectives[0].functions, SupportsSeveralPoints):
        # Where memory runs out, batches are cut into pieces, as for a single point.
        pieces = Pieces(objectives[0])
        sums = in_smaller_plans(lambda: _pass(objectives, accuracy, pieces), pieces.retreat, pieces.sentence)
        losses = [
            objective.value_from(one.total, one.terms) if np.isfinite(one.total) else float("nan")
            for objective, one in zip(objectives, sums, strict=True)
        ]
        return losses, [accuracy.share(one.right) for one in sums] if accuracy is not None else []
    return [_value(objective) for objective in objectives], [accuracy(objective) for objective in objectives] if accuracy else []


def _value(objective: Objective) -> float:
    try:
        return objective.value()
    except NonFiniteLossError:
        return float("nan")


def _pass(objectives: Sequence[Objective], accuracy: Accuracy | None, pieces: Pieces) -> list[_Sums]:
    functions: Any = objectives[0].functions
    points, sums = [objective.point for objective in objectives], [_Sums() for _ in objectives]
    with functions.session():
        for index, batch in enumerate(objectives[0].batches()):
            flat: list[list[np.ndarray]] = [[] for _ in points]
            for piece in pieces.of(batch):
                for one, kept, (total, terms, outputs) in zip(sums, flat, functions.forward_passes(points, piece), strict=True):
                    one.total, one.terms = one.total + total, one.terms + terms
                    if accuracy is not None:
                        kept.append(functions.flat_outputs(outputs))
            if accuracy is not None:
                for one, kept in zip(sums, flat, strict=True):
                    one.right += accuracy.right(index, kept[0] if len(kept) == 1 else np.concatenate(kept))
    return sums
