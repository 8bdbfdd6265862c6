"""Losses that users bring: names, callables, optax's functions, and functions of whole batches."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from ...curvature import BatchLoss
from ...curvature.logits_losses import LanguageModelLoss, LogitsLoss
from ..loss_sentences import PAIR, loss_by_name, no_likelihood, no_loss, not_scalar, outputs_not_shown, pair_of
from ..output_loss import SplitBatch, WholeBatch
from .logits_losses import LogitsOutputLoss, TokenLoss
from .losses import BinaryCrossEntropy, Call, CrossEntropy, MeanSquaredError, OutputLoss, require_array

_NAMED: tuple[Callable[[], OutputLoss], ...] = (CrossEntropy, BinaryCrossEntropy, MeanSquaredError)
_OPTAX: dict[str, Callable[[], OutputLoss]] = {
    "softmax_cross_entropy_with_integer_labels": CrossEntropy,
    "softmax_cross_entropy": CrossEntropy,
    "sigmoid_binary_cross_entropy": BinaryCrossEntropy,
    "squared_error": MeanSquaredError,
}


class CallableLoss(OutputLoss):
    """``fn(outputs, targets)``: a mean over the examples, a pair ``(sum, number_of_terms)``, or an array of terms.

    An array has the shape of the outputs, or of some of their first axes: one entry for each element, position or example, as
    optax's losses give it. Its entries are the terms.
    """

    def __init__(self, fn: Callable[[Any, Any], Any]) -> None:
        self._fn = fn

    def check(self, outputs: Any, batch: Any) -> None:
        """The outputs are one array with an example in each row."""
        require_array(outputs)

    def total(self, outputs: Any, batch: Any) -> tuple[Any, Any]:
        """What the function gives; a mean is multiplied by the number of examples."""
        result = self._fn(outputs, batch[1])
        if isinstance(result, tuple | list):
            return sum_and_terms(result, "(outputs, targets)")
        shape = getattr(result, "shape", ())
        if shape and shape == outputs.shape[: len(shape)] and jnp.issubdtype(result.dtype, jnp.floating):
            return jnp.sum(result), result.size
        require_scalar(result, f"a mean over the examples, {PAIR}, or one entry for each example, position or element")
        examples = outputs.shape[0] if outputs.ndim else 1
        return jnp.reshape(result, ()) * examples, examples


class SplitBatchLoss(SplitBatch, OutputLoss):
    """`BatchLoss` in two steps: outputs of the model, and a loss of them."""

    needs_pairs = False
    fisher_refusal = no_likelihood("a BatchLoss")

    def outputs(self, model: Any, call: Call, batch: Any) -> Any:
        """What the user's function takes out of the model."""
        return self._outputs(model, batch)

    def check(self, outputs: Any, batch: Any) -> None:
        """The outputs are one array."""
        require_array(outputs)

    def total(self, outputs: Any, batch: Any) -> tuple[Any, Any]:
        """What the user's function gives."""
        return sum_and_terms(self._loss(outputs, batch), "(outputs, batch)")


class WholeBatchLoss(WholeBatch, OutputLoss):
    """`BatchLoss` in one step: there are no outputs to speak of."""

    needs_pairs = False
    fisher_refusal = no_likelihood("BatchLoss(fn)")
    example_refusal = outputs_not_shown("Gradients of single examples need the model's outputs")

    def outputs(self, model: Any, call: Call, batch: Any) -> Any:
        """The pair (sum, number of terms) takes the place of outputs."""
        return sum_and_terms(self._fn(model, batch), "(model, batch)")


def require_scalar(value: Any, wanted: str) -> None:
    """Raise unless a loss is a single real number as an array."""
    is_array = hasattr(value, "shape") and hasattr(value, "dtype")
    found = f"of shape {tuple(value.shape)} and dtype {value.dtype}" if is_array else f"a {type(value).__name__}"
    if not is_array or value.size != 1 or not jnp.issubdtype(value.dtype, jnp.floating):
        raise not_scalar(found, wanted, "as JAX arrays of floating numbers")


def sum_and_terms(result: Any, arguments: str) -> tuple[Any, Any]:
    """A user's pair (sum, number of terms), checked."""
    total, terms = pair_of(result, arguments, "array")
    require_scalar(total, PAIR)
    if jnp.size(terms) != 1:
        raise TypeError(
            f"The loss fn{arguments} returned a number of terms of shape {jnp.shape(terms)}, but it must be a single number."
        )
    return jnp.reshape(total, ()), jnp.reshape(jnp.asarray(terms), ())


def make_loss(loss: Any) -> OutputLoss:
    """The loss that a user's argument stands for.

    Raises
    ------
    TypeError, ValueError
        When the argument is none of the forms that are known.
    """
    if isinstance(loss, str):
        return loss_by_name(loss, _NAMED)
    if isinstance(loss, LanguageModelLoss):
        return TokenLoss(loss)
    if isinstance(loss, LogitsLoss):
        return LogitsOutputLoss(loss, make_loss(loss.criterion))
    if isinstance(loss, BatchLoss):
        return SplitBatchLoss(loss) if loss.fn is None else WholeBatchLoss(loss.fn)
    if callable(loss) and not isinstance(loss, type):
        # Optax's functions with their defaults are the losses that they name: masks then count as they should.
        optax = sys.modules.get("optax")
        for name, kind in _OPTAX.items():
            if optax is not None and loss is getattr(optax, name, None):
                return kind()
        return CallableLoss(loss)
    raise no_loss(loss)
