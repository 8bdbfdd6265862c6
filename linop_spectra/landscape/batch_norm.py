"""Running statistics of batch normalisation at other parameters than those that they were collected at."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from ..curvature import Batches, Objective

BatchNorm = Literal["keep", "re-estimate"]


@runtime_checkable
class SupportsRunningStatistics(Protocol):
    """What model functions may have besides: running statistics that can be collected anew."""

    def with_running_statistics(self, points: Sequence[Any], batches: Batches) -> list[Any]:
        """The points with running statistics of one pass over `batches` in training mode.

        Each statistic is the mean over the batches, weighted by their examples, of what the layer computes on a batch in training.

        Raises
        ------
        ValueError
            When no layer uses running statistics.
        TypeError
            When the model hides them.
        """


def check_policy(batch_norm: str, objective: Objective, held_out: Objective | None) -> None:
    """Raise unless the statistics can be treated so.

    Raises
    ------
    ValueError
        When there is no such policy, or the held-out objective is of another model.
    TypeError
        When the framework's adapter cannot collect statistics.
    """
    if batch_norm not in get_args(BatchNorm):
        raise ValueError(f"The argument batch_norm is {batch_norm!r}, but must be 'keep' or 're-estimate'.")
    if batch_norm == "keep":
        return
    if not isinstance(objective.functions, SupportsRunningStatistics):
        raise TypeError(
            "The argument batch_norm is 're-estimate', but running statistics of this kind of model cannot be collected anew; make the "
            "objective with batch_norm='train', which uses those of each batch, or keep them (batch_norm='keep')."
        )
    if held_out is not None and held_out.functions is not objective.functions:
        raise ValueError(
            "The argument batch_norm is 're-estimate', but held_out is of another model than the objective, so that the new running "
            "statistics have no place in it; make it by objective.with_data(data)."
        )


def at_points(
    objective: Objective, held_out: Objective | None, thetas: Sequence[Any], batch_norm: str
) -> tuple[list[Objective], list[Objective]]:
    """Both objectives at other parameters, with running statistics by the policy; the second list is empty without held-out data."""
    there = [objective.with_parameters(theta) for theta in thetas]
    if batch_norm == "re-estimate":
        functions: Any = objective.functions
        points = functions.with_running_statistics([one.point for one in there], objective.data)
        there = [dataclasses.replace(objective, point=point) for point in points]
    if held_out is None:
        return there, []
    if batch_norm == "re-estimate":
        return there, [dataclasses.replace(held_out, point=one.point) for one in there]
    return there, [held_out.with_parameters(theta) for theta in thetas]
