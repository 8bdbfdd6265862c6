"""Keras' losses read as what they mean, whatever the backend."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any, Literal

_LOGITS = (
    "The argument loss is {name} of probabilities (from_logits=False), but curvature needs the loss of logits: leave the last softmax or "
    "sigmoid of the model out, and pass {name}(from_logits=True) or loss={ours!r}."
)
_NAMES = {
    "SparseCategoricalCrossentropy": "cross_entropy",
    "CategoricalCrossentropy": "cross_entropy",
    "BinaryCrossentropy": "binary_cross_entropy",
    "MeanSquaredError": "mse",
}
_FUNCTIONS = {
    "sparse_categorical_crossentropy": "cross_entropy",
    "categorical_crossentropy": "cross_entropy",
    "binary_crossentropy": "binary_cross_entropy",
    "mean_squared_error": "mse",
}


@dataclasses.dataclass(frozen=True)
class KerasLoss:
    """What a Keras loss computes.

    Attributes
    ----------
    kind : str
        A loss that is known by name, or ``"other"``.
    averages : bool
        Whether it is a mean (of the positions that are not ignored), or a sum.
    label_smoothing : float
        Of the targets.
    ignore_class : int or None
        Class of positions that do not count.
    values : callable
        ``values(outputs, targets)``: one value for each term.
    """

    kind: Literal["cross_entropy", "binary_cross_entropy", "mse", "other"]
    averages: bool
    label_smoothing: float
    ignore_class: int | None
    values: Callable[[Any, Any], Any]


def read_keras_loss(loss: Any) -> KerasLoss | None:
    """What a Keras loss object or function computes; None for anything else.

    Raises
    ------
    ValueError
        When it takes probabilities, or gives no scalar.

    Examples
    --------
    >>> read_keras_loss(lambda outputs, targets: 0.0) is None
    True
    """
    keras = sys.modules.get("keras")
    if keras is None or not callable(loss):
        return None
    if isinstance(loss, keras.losses.Loss):
        return _of_object(loss)
    name = getattr(loss, "__name__", "")
    if getattr(keras.losses, name, None) is not loss or isinstance(loss, type):
        return None
    kind = _FUNCTIONS.get(name, "other")
    if kind.endswith("cross_entropy"):
        # A function's default is from_logits=False, and it cannot carry another choice.
        raise ValueError(_LOGITS.format(name=name, ours=kind))
    function: Any = loss
    return KerasLoss("mse" if kind == "mse" else "other", True, 0.0, None, lambda outputs, targets: function(targets, outputs))


def _of_object(loss: Any) -> KerasLoss:
    if loss.reduction not in ("sum_over_batch_size", "mean", "sum", "mean_with_sample_weight"):
        raise ValueError(
            f"The loss {type(loss).__name__} has reduction={loss.reduction!r}, which gives no scalar; use 'sum_over_batch_size' or 'sum'."
        )
    averages = loss.reduction != "sum"
    own = type(loss).__module__.partition(".")[0] == "keras"  # a subclass may compute something else
    kind: Any = _NAMES.get(type(loss).__name__, "other") if own else "other"
    if getattr(loss, "from_logits", True) is False:
        raise ValueError(_LOGITS.format(name=type(loss).__name__, ours=kind if kind != "other" else "cross_entropy"))
    if kind != "other" and _axis_of(loss) != -1:
        kind = "other"
    ignore = getattr(loss, "ignore_class", None)
    if kind == "other" and ignore is not None:
        raise ValueError(
            f"The loss {type(loss).__name__} has ignore_class={ignore}, which is known of SparseCategoricalCrossentropy with axis=-1 only; "
            "pass a callable (outputs, targets) -> (sum, number_of_terms)."
        )
    smoothing = float(getattr(loss, "label_smoothing", 0.0) or 0.0)
    return KerasLoss(kind, averages, smoothing, ignore, lambda outputs, targets: loss.call(targets, outputs))


def _axis_of(loss: Any) -> Any:
    return getattr(loss, "axis", getattr(loss, "_fn_kwargs", {}).get("axis", -1))
