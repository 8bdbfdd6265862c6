"""What losses of every framework say when arguments, outputs, targets or returned values do not fit.

Functions that are named after what is wrong make an exception, for the caller to raise; the others make a sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Loss = TypeVar("Loss")

BATCH_STATISTICS = (
    "Batch normalisation by the statistics of the batch makes an example's outputs depend on the other examples, so that the loss has "
    "no gradient of one example; pass batch_norm='eval'."
)
NAMES = ("cross_entropy", "binary_cross_entropy", "mse")
PAIR = "a pair (sum, number_of_terms)"
ONE_CLASS_EACH = "one class for each position is needed, or a distribution over the classes"


def loss_by_name(name: str, kinds: Sequence[Callable[[], Loss]], others: str = "") -> Loss:
    """The loss of a name, out of the framework's in the order of `NAMES`; `others` is what else may be passed, as ``"a loss module, "``.

    Raises
    ------
    ValueError
        When there is none of that name.
    """
    known = dict(zip(NAMES, kinds, strict=True))
    if name not in known:
        raise ValueError(
            f"The argument loss is {name!r}, but the names are {', '.join(map(repr, known))}; or pass {others}a callable "
            "(outputs, targets), or a BatchLoss."
        )
    return known[name]()


def no_loss(loss: Any, others: str = "") -> TypeError:
    """The argument is nothing that a loss can be made of."""
    return TypeError(
        f"The argument loss is a {type(loss).__name__}, but must be a name such as 'cross_entropy', {others}a callable "
        "(outputs, targets), or a BatchLoss."
    )


def no_likelihood(what: str, others: str = "") -> str:
    """Why targets cannot be drawn from the likelihood of a loss; `others` is what else than names stands for those that have one."""
    return (
        f"The exact and the Monte-Carlo Fisher matrix need a likelihood to draw targets from, which {what} does not give; use one of the "
        f"losses 'cross_entropy', 'binary_cross_entropy' and 'mse'{others}, or ask for fisher('empirical') or ggn()."
    )


def outputs_not_shown(needed: str) -> str:
    """Why a `BatchLoss` in one step does not do for something."""
    return (
        f"{needed}, which BatchLoss(fn) does not show; pass BatchLoss(outputs=fn(model, batch), loss=fn(outputs, batch))."
    )


def probabilities(fix: str = "leave the last softmax layer out") -> str:
    """What to say of outputs that are probabilities where logits are needed."""
    return (
        "The model's outputs are probabilities already (in [0, 1] and summing to one), but cross-entropy needs logits: it takes the "
        f"softmax itself; {fix}."
    )


def sigmoid_last(what: str) -> str:
    """What to say of a model that ends in a sigmoid; `what` is to be left out."""
    return (
        "The model ends in a sigmoid, so that its outputs are probabilities, but binary cross-entropy needs logits; leave the last "
        f"{what} out."
    )


def not_one_array(outputs: Any, kind: str) -> TypeError:
    """The model returns something else than one array; `kind` is what the framework calls it."""
    return TypeError(
        f"The model returns a {type(outputs).__name__}, but this loss needs one {kind} of outputs; use "
        "BatchLoss(outputs=fn(model, batch), loss=fn(outputs, batch)) to take it out."
    )


def not_floating(dtype: Any) -> TypeError:
    """The model's outputs are no real floating numbers."""
    return TypeError(f"The model's outputs have dtype {dtype}, but a loss needs real floating numbers.")


def unequal_shapes(name: str, outputs: Sequence[int], targets: Any) -> ValueError:
    """Shapes of outputs and targets differ where the loss compares them element by element."""
    return ValueError(
        f"The loss {name!r} compares outputs of shape {tuple(outputs)} with targets of shape {targets}; both shapes must be equal, so "
        "reshape the targets or the model's outputs."
    )


def no_classes(targets: Any) -> TypeError:
    """The targets of cross-entropy are no array."""
    return TypeError(f"The targets of a batch are a {type(targets).__name__}, but cross-entropy needs an array of classes.")


def no_logits() -> ValueError:
    """The outputs have no axis at all."""
    return ValueError("The model's outputs are a single number, but cross-entropy needs one logit for each class.")


def cross_entropy_misfit(outputs: Sequence[int], targets: Sequence[int], along: str, hint: str) -> ValueError:
    """Shapes of outputs and targets do not fit cross-entropy."""
    return ValueError(
        f"The outputs of shape {tuple(outputs)} and the targets of shape {tuple(targets)} do not fit cross-entropy with classes along "
        f"{along}: {hint}."
    )


def not_integers(dtype: Any) -> TypeError:
    """Classes are no integers."""
    return TypeError(f"The targets hold classes but have dtype {dtype}; pass integers.")


def classes_outside(valid: Any, classes: int, ignored: int) -> ValueError:
    """Classes that the model has no outputs for are among those that are not ignored."""
    return ValueError(
        f"The targets hold classes from {int(valid.min())} to {int(valid.max())}, but the model has outputs for {classes} classes, "
        f"numbered from 0; positions to be left out are marked {ignored}."
    )


def no_axis_of_examples(outputs: Sequence[int]) -> ValueError:
    """The outputs are a single example's, and its classes would be taken for examples."""
    return ValueError(
        f"The model's outputs of shape {tuple(outputs)} are one example without an axis of examples, but gradients of single "
        "examples are asked for; give inputs and targets a first axis of length one."
    )


def not_scalar(found: str, wanted: str, form: str) -> TypeError:
    """A user's function returned something else than a number."""
    return TypeError(f"The loss is not a scalar but {found}; the function must return {wanted}, {form}.")


def pair_of(result: Any, arguments: str, kind: str) -> tuple[Any, Any]:
    """Sum and number of terms that a user's function of these arguments returned, not looked at yet.

    Raises
    ------
    TypeError
        When it is no pair.
    """
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise TypeError(
            f"The loss fn{arguments} returned a {type(result).__name__}, but must return {PAIR}: the summed loss as a scalar {kind}, "
            "and how many terms were summed."
        )
    return result[0], result[1]
