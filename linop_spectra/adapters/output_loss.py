"""What a loss of outputs and a batch is in every framework, and the two forms of a `BatchLoss`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..curvature.batch_loss import BatchLoss
from .loss_sentences import outputs_not_shown


class AnyOutputLoss:
    """A loss of outputs and a batch.

    Attributes
    ----------
    averages : bool
        Whether the objective is the mean of the terms, or their sum.
    convex : bool
        Whether the loss is known to be convex in the outputs.
    gauss_newton_refusal : str or None
        Why there is no Gauss-Newton matrix, as a sentence; None when there is one.
    fisher_refusal : str or None
        Why targets cannot be drawn from a likelihood, as a sentence; None when they can.
    example_refusal : str or None
        Why the loss does not show its examples, as a sentence; None when it does.
    """

    averages = True
    convex = False
    gauss_newton_refusal: str | None = None
    fisher_refusal: str | None = None
    example_refusal: str | None = None

    def total(self, outputs: Any, batch: Any) -> tuple[Any, Any]:
        """Summed loss and number of terms."""
        raise TypeError(f"{type(self).__name__} does not define its sum.")

    def check(self, outputs: Any, batch: Any) -> None:
        """Raise when outputs and targets do not fit."""


class SplitBatch(AnyOutputLoss):
    """`BatchLoss` in two steps: outputs of the model, and a loss of them."""

    def __init__(self, loss: BatchLoss) -> None:
        assert loss.outputs is not None
        assert loss.loss is not None
        self._outputs, self._loss = loss.outputs, loss.loss


class WholeBatch(AnyOutputLoss):
    """`BatchLoss` in one step: there are no outputs to speak of, and the pair (sum, number of terms) takes their place."""

    gauss_newton_refusal: str | None = outputs_not_shown("The Gauss-Newton matrix needs the model's outputs")
    example_refusal: str | None = outputs_not_shown(
        "Gradients of single examples need the model's outputs with an example in each row"
    )

    def __init__(self, fn: Callable[[Any, Any], Any]) -> None:
        self._fn = fn

    def total(self, outputs: Any, batch: Any) -> tuple[Any, Any]:
        """That pair."""
        return outputs[0], outputs[1]
