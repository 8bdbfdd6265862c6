"""Losses that users bring: names, Keras losses, callables, and functions of whole batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ...curvature import BatchLoss
from ..keras_losses import KerasLoss, read_keras_loss
from .losses import NO_LIKELIHOOD, BinaryCrossEntropy, CrossEntropy, MeanSquaredError, OutputLoss, require_tensor


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
        result = _real(result, "a mean over the examples, one value for each, or a pair (sum, number_of_terms)")
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


class SplitBatchLoss(OutputLoss):
    """`BatchLoss` in two steps: outputs of the model, and a loss of them."""

    pairs = regularized = masks = False
    fisher_refusal = NO_LIKELIHOOD.format(what="a BatchLoss")

    def __init__(self, loss: BatchLoss) -> None:
        assert loss.outputs is not None
        assert loss.loss is not None
        self._outputs, self._loss = loss.outputs, loss.loss

    def outputs(self, program: Any, batch: Any) -> Any:
        """What the user's function takes out of the model."""
        return self._outputs(program.model, batch)

    def check(self, outputs: Any, batch: Any) -> None:
        """The outputs are one tensor."""
        require_tensor(outputs)

    def total(self, outputs: Any, batch: Any) -> tuple[Any, Any]:
        """What the user's function gives."""
        return sum_and_terms(self._loss(outputs, batch), "(outputs, batch)")


class WholeBatchLoss(OutputLoss):
    """`BatchLoss` in one step: there are no outputs to speak of."""

    pairs = split = regularized = masks = False
    gauss_newton_refusal = (
        "The Gauss-Newton matrix needs the model's outputs, which BatchLoss(fn) does not show; pass "
        "BatchLoss(outputs=fn(model, batch), loss=fn(outputs, batch))."
    )
    fisher_refusal = NO_LIKELIHOOD.format(what="BatchLoss(fn)")
    example_refusal = (
        "Gradients of single examples need the model's outputs with an example in each row, which BatchLoss(fn) does not show; pass "
        "BatchLoss(outputs=fn(model, batch), loss=fn(outputs, batch))."
    )

    def __init__(self, fn: Callable[[Any, Any], Any]) -> None:
        self._fn = fn

    def outputs(self, program: Any, batch: Any) -> Any:
        """The pair (sum, number of terms) takes the place of outputs."""
        return sum_and_terms(self._fn(program.model, batch), "(model, batch)")

    def total(self, outputs: Any, batch: Any) -> tuple[Any, Any]:
        """That pair."""
        return outputs[0], outputs[1]


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
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise TypeError(
            f"The loss fn{arguments} returned a {type(result).__name__}, but must return a pair (sum, number_of_terms): the summed loss "
            "as a scalar tensor, and how many terms were summed."
        )
    total = _real(result[0], "a pair (sum, number_of_terms)")
    if total.shape.rank is not None and total.shape.num_elements() != 1:
        raise TypeError(
            f"The loss is not a scalar but of shape {tuple(total.shape)}; the function must return a pair (sum, number_of_terms), with "
            "the sum as a scalar tensor."
        )
    return tf.reshape(total, ()), result[1]


def make_loss(loss: Any) -> OutputLoss:
    """The loss that a user's argument stands for.

    Raises
    ------
    TypeError, ValueError
        When the argument is none of the forms that are known.
    """
    if isinstance(loss, str):
        known: dict[str, Callable[[], OutputLoss]] = {
            "cross_entropy": CrossEntropy,
            "binary_cross_entropy": BinaryCrossEntropy,
            "mse": MeanSquaredError,
        }
        if loss not in known:
            raise ValueError(
                f"The argument loss is {loss!r}, but the names are {', '.join(map(repr, known))}; or pass a Keras loss, a callable "
                "(outputs, targets), or a BatchLoss."
            )
        return known[loss]()
    if isinstance(loss, BatchLoss):
        return SplitBatchLoss(loss) if loss.fn is None else WholeBatchLoss(loss.fn)
    keras_loss = read_keras_loss(loss)
    if keras_loss is not None:
        return _of_keras(keras_loss)
    if callable(loss):
        return CallableLoss(loss)
    raise TypeError(
        f"The argument loss is a {type(loss).__name__}, but must be a name such as 'cross_entropy', a Keras loss, a callable "
        "(outputs, targets), or a BatchLoss."
    )


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
