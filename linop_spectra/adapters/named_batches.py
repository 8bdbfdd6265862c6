"""Losses of models that are called with the named entries of a batch: the entries, the logits, and labels of tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..curvature.logits_losses import LanguageModelLoss, LogitsLoss
from .output_loss import AnyOutputLoss


class NamedEntries:
    """Named arrays of a batch.

    Parameters
    ----------
    is_array : callable
        Whether an object is an array of the framework.

    Examples
    --------
    >>> import numpy as np
    >>> named = NamedEntries(lambda x: isinstance(x, np.ndarray))
    >>> named.entry({"labels": np.arange(3)}, "labels", "labels")
    array([0, 1, 2])
    """

    def __init__(self, is_array: Callable[[Any], bool]) -> None:
        self.is_array = is_array

    def entries(self, batch: Any) -> dict[str, Any]:
        """A batch as named arrays: from a mapping, a named tuple, or an object's attributes.

        Raises
        ------
        TypeError
            When it is none of them.
        """
        if isinstance(batch, Mapping):
            return dict(batch.items())
        if hasattr(batch, "_asdict"):
            return dict(batch._asdict())
        if hasattr(batch, "__dict__") and not self.is_array(batch):
            return dict(vars(batch))
        raise TypeError(
            f"A batch is a {type(batch).__name__}, but this loss needs a mapping such as {{'input_ids': ..., 'labels': ...}}, or an object "
            "with such attributes."
        )

    def entry(self, batch: Any, name: str, argument: str) -> Any:
        """One array of a batch.

        Raises
        ------
        KeyError, TypeError
            When there is none of that name, or it is no array.
        """
        found = self.entries(batch)
        if name not in found:
            raise KeyError(f"A batch has no entry {name!r}, only {', '.join(map(repr, found))}; say by {argument}= which one it is.")
        if not self.is_array(found[name]):
            raise TypeError(f"The entry {name!r} of a batch is a {type(found[name]).__name__}, but must be an array.")
        return found[name]

    def logits(self, result: Any) -> Any:
        """The logits in what a model returns.

        Raises
        ------
        TypeError
            When there are none.
        """
        if self.is_array(result):
            return result
        if getattr(result, "logits", None) is not None:
            return result.logits
        if isinstance(result, Mapping) and "logits" in result:
            return result["logits"]
        if isinstance(result, tuple) and result:
            return result[0]
        raise TypeError(
            f"The model returns a {type(result).__name__} without logits; pass BatchLoss(outputs=fn(model, batch), "
            "loss=fn(outputs, batch)) to take them out."
        )


class LogitsCriterion(AnyOutputLoss):
    """`LogitsLoss`: everything is left to the loss of outputs and targets that it names.

    Attributes
    ----------
    taken_over : tuple of str
        What it has of the named loss.
    """

    named: NamedEntries
    taken_over: tuple[str, ...] = ("averages", "convex", "gauss_newton_refusal", "fisher_refusal", "example_refusal")

    def __init__(self, loss: LogitsLoss, criterion: Any) -> None:
        self._labels, self._criterion = loss.labels, criterion
        for name in self.taken_over:
            setattr(self, name, getattr(criterion, name))

    def _pair(self, batch: Any) -> tuple[None, Any]:
        return None, self.named.entry(batch, self._labels, "labels")

    def logits_for(self, batch: Any, call: Callable[[dict[str, Any]], Any]) -> Any:
        """The logits that `call` gives for the other entries; without a last axis of length one that the labels do not have."""
        labels = self.named.entry(batch, self._labels, "labels")
        logits = call({name: value for name, value in self.named.entries(batch).items() if name != self._labels})
        single = self.named.is_array(logits) and logits.ndim == labels.ndim + 1 and logits.shape[-1] == 1
        return logits[..., 0] if single else logits

    def check(self, outputs: Any, batch: Any) -> None:
        """What the criterion asks for."""
        self._criterion.check(outputs, self._pair(batch))

    def total(self, outputs: Any, batch: Any) -> tuple[Any, Any]:
        """The criterion's."""
        total: tuple[Any, Any] = self._criterion.total(outputs, self._pair(batch))
        return total

    def hessian_product(self, outputs: Any, batch: Any, *u: Any) -> Any:
        """The criterion's."""
        return self._criterion.hessian_product(outputs, self._pair(batch), *u)

    def likelihood(self, outputs: Any, batch: Any) -> Any:
        """The criterion's."""
        return self._criterion.likelihood(outputs, self._pair(batch))

    def rank_one(self, g: Any, u: Any) -> Any:
        """The criterion's."""
        return self._criterion.rank_one(g, u)


class TokenLabels(AnyOutputLoss):
    """`LanguageModelLoss`: labels and weights of the positions of logits.

    Attributes
    ----------
    named : NamedEntries
        Of the framework.
    namespace : module
        The framework's functions of arrays, with the names of NumPy's.
    """

    convex = True
    fisher_refusal: str | None = None
    named: NamedEntries
    namespace: Any

    def __init__(self, loss: LanguageModelLoss) -> None:
        self._options = loss

    def _cast(self, values: Any, dtype: Any) -> Any:
        raise TypeError(f"{type(self).__name__} does not define its conversion of types.")

    def _targets(self, batch: Any) -> Any:
        """Labels where the logits that predict them are; positions without one are marked as ignored."""
        options, found = self._options, self.named.entries(batch)
        if options.labels in found or not options.causal:
            labels = self.named.entry(batch, options.labels, "labels")
        else:
            labels = self.named.entry(batch, "input_ids", "labels")
            if self.named.is_array(found.get("attention_mask")):
                labels = self.namespace.where(found["attention_mask"] != 0, labels, options.ignore_index)
        return self._shifted(labels, options.ignore_index)

    def _shifted(self, values: Any, last: float) -> Any:
        if not self._options.causal or values.ndim == 0:
            return values
        return self.namespace.concatenate([values[..., 1:], self.namespace.full_like(values[..., :1], last)], -1)

    def _weights_in(self, dtype: Any, batch: Any) -> Any:
        """A weight of that type for each position; zero where there is no term."""
        targets = self._targets(batch)
        valid = self._cast(targets != self._options.ignore_index, dtype)
        if self._options.weights is None:
            return valid
        weights = self._cast(self.named.entry(batch, self._options.weights, "weights"), dtype)
        if weights.ndim == 1 < targets.ndim:
            return valid * weights.reshape(-1, *(1,) * (targets.ndim - 1))
        return valid * self._shifted(weights, 0)

    def _check_labels(self, outputs: Any, targets: Any, *, integers: bool) -> None:
        if not integers:
            raise TypeError(f"The labels have dtype {targets.dtype}; pass integers.")
        if targets.shape != outputs.shape[:-1]:
            raise ValueError(
                f"The model's logits of shape {tuple(outputs.shape)} and the labels of shape {tuple(targets.shape)} do not fit: one label "
                "is needed for each position of each sequence."
            )

    def _check_weights(self, targets: Any, batch: Any) -> Any:
        """The weights, unless there are none."""
        if self._options.weights is None:
            return None
        weights = self.named.entry(batch, self._options.weights, "weights")
        if weights.shape not in (targets.shape, targets.shape[:1]):
            raise ValueError(
                f"The weights of shape {tuple(weights.shape)} fit neither the labels of shape {tuple(targets.shape)} nor the sequences."
            )
        return weights

    def _negative_weights(self) -> str:
        return f"The weights in the entry {self._options.weights!r} must be at least zero."
