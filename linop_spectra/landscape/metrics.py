"""What is measured beside the loss at each point."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ..curvature import Objective
from ..curvature.classification import read_classes

Metric = Callable[[Objective], float]
Metrics = str | Metric | Iterable[str | Metric] | Mapping[str, str | Metric] | None
_FORMS = "pass 'accuracy', a function objective -> number, a list of them, or a mapping of names to them"


class Accuracy:
    """Share of the positions whose largest output is that of the target; masked positions do not count.

    Parameters
    ----------
    objective : Objective
        With softmax cross-entropy; targets are read from it once, in about three forward passes.

    Raises
    ------
    TypeError
        When the loss is no softmax cross-entropy with one class for each position.
    """

    def __init__(self, objective: Objective) -> None:
        try:
            found = read_classes(objective)
        except (TypeError, ValueError) as error:
            raise TypeError(
                "The metric 'accuracy' needs softmax cross-entropy with one class for each position, which this objective has not; pass "
                f"a function of the objective instead, such as metrics={{'accuracy': my_function}}. ({error})"
            ) from error
        self._targets, self._places = found.targets, found.places
        self._slices, self._classes = found.batches, found.num_classes
        self._used = int((found.targets >= 0).sum())

    def __call__(self, objective: Objective) -> float:
        """The share at the parameters of `objective`, by one forward pass; NaN where an output is not finite."""
        functions, right = objective.functions, 0.0
        with functions.session():
            for index, batch in enumerate(objective.batches()):
                right += self.right(index, functions.flat_outputs(functions.outputs_at(objective.point, batch)))
        return self.share(right)

    def right(self, index: int, flat: np.ndarray) -> float:
        """How many positions of a batch are right, given its number and its outputs in C order; NaN where one is not finite."""
        if not np.isfinite(flat).all():
            return float("nan")
        place, targets = self._places[index], self._targets[self._slices[index]]
        scores = (flat if place is None else flat[place]).reshape(-1, self._classes)
        return float((scores.argmax(axis=1) == targets).sum())  # that of a masked one is -1

    def share(self, right: float) -> float:
        """The share, given how many positions are right."""
        return right / self._used if self._used else float("nan")


def named_metrics(metrics: Metrics) -> dict[str, str | Metric]:
    """Metrics by name, in the user's order.

    Raises
    ------
    TypeError, ValueError
        When one is neither known by name nor callable, or two have the same name.
    """
    if metrics is None:
        return {}
    if isinstance(metrics, Mapping):
        pairs = [(str(name), metric) for name, metric in metrics.items()]
    else:
        several: list[Any] = [metrics] if isinstance(metrics, str) or callable(metrics) else list(metrics)
        pairs = [(metric if isinstance(metric, str) else getattr(metric, "__name__", type(metric).__name__), metric) for metric in several]
    for name, metric in pairs:
        if isinstance(metric, str) and metric != "accuracy":
            raise ValueError(f"The argument metrics names {metric!r}, but only 'accuracy' is known by name; {_FORMS}.")
        if not isinstance(metric, str) and not callable(metric):
            raise TypeError(f"The metric {name!r} is a {type(metric).__name__}; {_FORMS}.")
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"Two metrics have the same name ({names}); pass a mapping with a name for each.")
    return dict(pairs)


def metric_functions(metrics: Mapping[str, str | Metric], objective: Objective) -> dict[str, Metric]:
    """The functions that measure `objective` and others with its data."""
    return {name: Accuracy(objective) if isinstance(metric, str) else metric for name, metric in metrics.items()}
