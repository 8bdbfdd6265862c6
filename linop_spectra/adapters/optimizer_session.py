"""One method of optimisation over the batches of one model: what the native faces share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..backends import Array
from ..curvature import BatchLoss, Objective
from ..optim.optimizer import Optimizer
from ..optim.step_info import StepInfo
from .dispatch import objective


class OptimizerSession:
    """Objectives of batches, made once and then derived, and steps with them.

    Parameters
    ----------
    optimizer : Optimizer
        The method.
    model, loss
        As for `linop_spectra.objective`.
    options : dict
        Its further arguments.
    """

    def __init__(self, optimizer: Optimizer, model: Any, loss: Any, options: dict[str, Any]) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"The argument optimizer is a {type(optimizer).__name__}, but must be a method of linop_spectra.optim, such as "
                "linop_spectra.optim.LanczosNewton()."
            )
        self.optimizer = optimizer
        self._model, self._loss, self._options = model, loss, options
        self._objective: Objective | None = None
        self._whole = isinstance(loss, BatchLoss)

    @property
    def is_new(self) -> bool:
        """Whether no objective was made yet."""
        return self._objective is None

    def objective(self, batch: Any, **parameters: Any) -> Objective:
        """The objective of one batch: a pair of arrays, whatever a `BatchLoss` takes, or an iterable of such."""
        data = _as_data(batch, self._whole)
        if self._objective is None:
            self._objective = objective(self._model, self._loss, data, **parameters, **self._options)
            return self._objective
        return self._objective.with_data(data)

    def step(self, batch: Any, parameters: Any, curvature_batch: Any = None, **first: Any) -> tuple[Objective, Array, Array, StepInfo]:
        """One step from a model's present parameters: the objective there, the parameters before and after, and what happened."""
        here = self.objective(batch, **first).with_parameters(parameters)
        other = None if curvature_batch is None else self.objective(curvature_batch).with_parameters(parameters)
        before = here.parameters()
        after, info = self.optimizer.step(here, before, curvature=other)
        return here, before, after, info

    def forward(self, batch: Any, call: Callable[[Any], Any]) -> None:
        """A forward pass over the batches of a step, for what the model keeps of them; `call` runs the model on inputs."""
        for one in [batch] if self._whole or _is_pair(batch) or isinstance(batch, tuple | dict) else batch:
            if isinstance(self._loss, BatchLoss):
                (self._loss.fn or self._loss.outputs)(self._model, one)  # type: ignore[misc]
            else:
                call(one[0])


def _as_data(batch: Any, whole: bool) -> Any:
    """A batch as data of an objective: a list of two arrays, as loaders yield, is a pair."""
    if whole:
        return [batch]
    if _is_pair(batch):
        return tuple(batch)
    return [batch] if isinstance(batch, tuple | dict) else batch


def _is_pair(batch: Any) -> bool:
    return isinstance(batch, list | tuple) and len(batch) == 2 and all(hasattr(part, "shape") for part in batch)
