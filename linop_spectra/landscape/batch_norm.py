"""Running statistics of batch normalisation at other parameters than those that they were collected at."""

from __future__ import annotations

from typing import Any, Literal, Protocol, get_args, runtime_checkable

from ..curvature import Batches, Objective

BatchNorm = Literal["keep", "re-estimate"]


@runtime_checkable
class SupportsRunningStatistics(Protocol):
    """What model functions may have besides: running statistics that can be collected anew."""

    def with_running_statistics(self, point: Any, batches: Batches) -> Any:
        """The point with running statistics of one pass over `batches` in training mode."""


def check_policy(batch_norm: str, objective: Objective, held_out: Objective | None) -> None:
    """Raise unless the statistics can be treated so.

    Raises
    ------
    ValueError
        When there is no such policy, or the held-out objective is of another model.
    TypeError
        When the framework's adapter cannot re-estimate.
    """
    if batch_norm not in get_args(BatchNorm):
        raise ValueError(f"The argument batch_norm is {batch_norm!r}, but must be 'keep' or 're-estimate'.")
    if batch_norm == "keep":
        return
    if not isinstance(objective.functions, SupportsRunningStatistics):
        raise TypeError(
            "The argument batch_norm is 're-estimate', but running statistics can be collected anew for torch modules only; make the "
            "objective with batch_norm='train', which uses those of each batch, or keep them (batch_norm='keep')."
        )
    if held_out is not None and held_out.functions is not objective.functions:
        raise ValueError(
            "The argument batch_norm is 're-estimate', but held_out is of another model than the objective, so that the new running "
            "statistics have no place in it; make it by objective.with_data(data)."
        )


def at_point(objective: Objective, held_out: Objective | None, theta: Any, batch_norm: str) -> tuple[Objective, Objective | None]:
    """Both objectives at other parameters, with running statistics by the policy."""
    there = objective.with_parameters(theta)
    if batch_norm == "re-estimate":
        functions: Any = objective.functions
        there = there._derived(point=functions.with_running_statistics(there.point, objective.data))
    if held_out is None:
        return there, None
    return there, held_out._derived(point=there.point) if batch_norm == "re-estimate" else held_out.with_parameters(theta)
