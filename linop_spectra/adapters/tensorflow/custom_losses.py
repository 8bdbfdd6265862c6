"""Losses that users bring: names, Keras losses, callables, and functions of whole batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ...curvature import BatchLoss
from ..keras_losses import KerasLoss, read_keras_loss
from ..loss_sentences import PAIR, loss_by_name, no_likelihood, no_loss, not_scalar, pair_of
from ..output_loss import SplitBatch, WholeBatch
from .losses import KERAS_LOSSES, BinaryCrossEntropy, CrossEntropy, MeanSquaredError, OutputLoss, require_tensor

_NAMED: tuple[Callable[[], OutputLoss], ...] = (CrossEntropy, BinaryCrossEntropy, MeanSquaredError)


class CallableLoss(OutputLoss):
    """``fn(outputs, targets)`` that returns a mean over the examples, one value for each, or ``(sum, number_of_terms)``."""

    masks = False

    def __init__(self, fn: Callable[[Any, Any], Any], *, averages: bool = True) -> None:
        self._fn, self.averages = fn, averages

    def check(self, outputs: Any, batch: Any) -> None:
        """The outputs are one tensor with an example in each row."""
        require_tensor(outputs)

    def total(self, outputs: Any, batch: Any) -> tuple[Any, Any]:
        """What the function gives; a mean is multiplied by the number of examples."""
        result = self._fn(outputs, batch[1])
        if isinstance(result, tuple | list):
            return sum_and_terms(result, "(outputs, targets)")
        result = _real(result, f"a mean over the examples, one value for each, or {PAIR}")
        if result.shape.rank != 0 and result.shape.num_elements() != 1:
            return tf.reduce_sum(result), tf.size(result)
        examples = tf.shape(outputs)[0] if outputs.shape.rank else 1
        return tf.reshape(result, ()) * tf.cast(examples, result.dtype), examples


class ValuesLoss(CallableLoss):
    """A Keras loss without a closed form, whose ``call`` gives one value for each term."""

    masks = True

    def __init__(self, loss: KerasLoss) -> None:
        super().__init__(loss.values, averages=loss.averages)

    def total(self, outputs: Any, batch: Any) -> tuple[Any, Any]:
        """Sum of the values."""
        values = self._fn(outputs, batch[1])
        return tf.reduce_sum(values), tf.size(values)


class SplitBatchLoss(SplitBatch, OutputLoss):
    """`BatchLoss` in two steps: outputs of the model, and a loss of them."""

    pairs = regularized = masks = False
    fisher_refusal = no_likelihood("a BatchLoss", KERAS_LOSSES)

    def outputs(self, program: Any, batch: Any) -> Any:
        """What the user's function takes out of the model."""
        return self._outputs(program.model, batch)

    def check(self, outputs: Any, batch: Any) -> None:
        """The outputs are one tensor."""
        require_tensor(outputs)

    def total(self, outputs: Any, batch: Any) -> tuple[Any, Any]:
        """What the user's function gives."""
        return sum_and_terms(self._loss(outputs, batch), "(outputs, batch)")


class WholeBatchLoss(WholeBatch, OutputLoss):
    """`BatchLoss` in one step: there are no outputs to speak of."""

    pairs = split = regularized = masks = False
    fisher_refusal = no_likelihood("BatchLoss(fn)", KERAS_LOSSES)

    def outputs(self, program: Any, batch: Any) -> Any:
        """The pair (sum, number of terms) takes the place of outputs."""
        return sum_and_terms(self._fn(program.model, batch), "(model, batch)")


def _real(value: Any, wanted: str) -> Any:
    if isinstance(value, float):
        return tf.constant(value)
    value = value if tf.is_tensor(value) else getattr(value, "value", value)
    if not tf.is_tensor(value) or not value.dtype.is_floating:
        found = f"of dtype {value.dtype.name}" if tf.is_tensor(value) else f"a {type(value).__name__}"
        raise TypeError(f"The loss is no real number but {found}; the function must return {wanted}, as a tensor.")
    return value


def sum_and_terms(result: Any, arguments: str) -> tuple[Any, Any]:
    """A user's pair (sum, number of terms), checked."""
    found, terms = pair_of(result, arguments, "tensor")
    total = _real(found, PAIR)
    if total.shape.rank is not None and total.shape.num_elements() != 1:
        raise not_scalar(f"of shape {tuple(total.shape)}", PAIR, "with the sum as a scalar tensor")
    return tf.reshape(total, ()), terms


def make_loss(loss: Any) -> OutputLoss:
    """The loss that a user's argument stands for.

    Raises
    ------
    TypeError, ValueError
        When the argument is none of the forms that are known.
    """
    if isinstance(loss, str):
        return loss_by_name(loss, _NAMED, "a Keras loss, ")
    if isinstance(loss, BatchLoss):
        return SplitBatchLoss(loss) if loss.fn is None else WholeBatchLoss(loss.fn)
    keras_loss = read_keras_loss(loss)
    if keras_loss is not None:
        return _of_keras(keras_loss)
    if callable(loss):
        return CallableLoss(loss)
    raise no_loss(loss, "a Keras loss, ")


def _of_keras(loss: KerasLoss) -> OutputLoss:
    if loss.kind == "cross_entropy":
        return CrossEntropy(
            ignore_index=-100 if loss.ignore_class is None else loss.ignore_class,
            label_smoothing=loss.label_smoothing,
            averages=loss.averages,
            squeeze=True,
        )
    elementwise = {"averages": loss.averages, "per_row": not loss.averages, "squeeze": True}
    if loss.kind == "binary_cross_entropy":
        return BinaryCrossEntropy(label_smoothing=loss.label_smoothing, **elementwise)
    if loss.kind == "mse":
        return MeanSquaredError(**elementwise)
    return ValuesLoss(loss)
