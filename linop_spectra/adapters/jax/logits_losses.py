"""Losses of the logits of models that are called with the named entries of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from ...curvature.logits_losses import LanguageModelLoss, LogitsLoss
from .likelihood import Likelihood, categorical
from .losses import Call, OutputLoss, are_probabilities, at_least_single, require_array
from .token_cross_entropy import curvature_product, summed_cross_entropy


def _entries(batch: Any) -> dict[str, Any]:
    """A batch as named arrays: from a mapping, a named tuple, or an object's attributes."""
    if isinstance(batch, Mapping):
        return dict(batch.items())
    if hasattr(batch, "_asdict"):
        return dict(batch._asdict())
    if hasattr(batch, "__dict__") and not hasattr(batch, "dtype"):
        return dict(vars(batch))
    raise TypeError(
        f"A batch is a {type(batch).__name__}, but this loss needs a mapping such as {{'input_ids': ..., 'labels': ...}}, or an object "
        "with such attributes."
    )


def _entry(batch: Any, name: str, argument: str) -> Any:
    found = _entries(batch)
    if name not in found:
        raise KeyError(f"A batch has no entry {name!r}, only {', '.join(map(repr, found))}; say by {argument}= which one it is.")
    if not hasattr(found[name], "dtype"):
        raise TypeError(f"The entry {name!r} of a batch is a {type(found[name]).__name__}, but must be an array.")
    return found[name]


def _logits_of(model: Any, call: Call, arguments: dict[str, Any]) -> Any:
    """The logits that a model gives for named arrays; texts and names that a batch carries along are left out."""
    result = call(model, {name: value for name, value in arguments.items() if hasattr(value, "dtype")})
    if hasattr(result, "dtype"):
        return result
    if getattr(result, "logits", None) is not None:
        return result.logits
    if isinstance(result, Mapping) and "logits" in result:
        return result["logits"]
    if isinstance(result, tuple) and result:
        return result[0]
    raise TypeError(
        f"The model returns a {type(result).__name__} without logits; pass BatchLoss(outputs=fn(model, batch), loss=fn(outputs, batch)) "
        "to take them out."
    )


class LogitsOutputLoss(OutputLoss):
    """`LogitsLoss`: everything is left to the loss of outputs and targets that it names."""

    needs_pairs = False

    def __init__(self, loss: LogitsLoss, criterion: OutputLoss) -> None:
        self._labels, self._criterion = loss.labels, criterion
        self.averages, self.convex, self.has_class_axis = criterion.averages, criterion.convex, criterion.has_class_axis
        self.gauss_newton_refusal, self.sigmoid_refusal = criterion.gauss_newton_refusal, criterion.sigmoid_refusal
        self.fisher_refusal, self.example_refusal = criterion.fisher_refusal, criterion.example_refusal

    def _pair(self, batch: Any) -> tuple[None, Any]:
        return None, _entry(batch, self._labels, "labels")

    def outputs(self, model: Any, call: Call, batch: Any) -> Any:
        """The logits."""
        labels = _entry(batch, self._labels, "labels")
        logits = _logits_of(model, call, {name: value for name, value in _entries(batch).items() if name != self._labels})
        single = hasattr(logits, "ndim") and logits.ndim == labels.ndim + 1 and logits.shape[-1] == 1
        return logits[..., 0] if single else logits

    def check(self, outputs: Any, batch: Any) -> None:
        """What the criterion asks for."""
        self._criterion.check(outputs, self._pair(batch))

    def problems(self, outputs: Any, batch: Any) -> tuple[Any, ...]:
        """The criterion's."""
        return self._criterion.problems(outputs, self._pair(batch))

    def explain(self, problem: int, batch: Any) -> str:
        """The criterion's."""
        return self._criterion.explain(problem, self._pair(batch))

    def total(self, outputs: Any, batch: Any) -> tuple[Any, Any]:
        """The criterion's."""
        return self._criterion.total(outputs, self._pair(batch))

    def gradient(self, outputs: Any, batch: Any) -> Any:
        """The criterion's."""
        return self._criterion.gradient(outputs, self._pair(batch))

    def hessian_product(self, outputs: Any, batch: Any, u: Any) -> Any:
        """The criterion's."""
        return self._criterion.hessian_product(outputs, self._pair(batch), u)

    def likelihood(self, outputs: Any, batch: Any) -> Likelihood:
        """The criterion's."""
        return self._criterion.likelihood(outputs, self._pair(batch))

    def rank_one(self, g: Any, u: Any) -> Any:
        """The criterion's."""
        return self._criterion.rank_one(g, u)


class TokenLoss(OutputLoss):
    """`LanguageModelLoss`: cross-entropy with the classes along the last axis."""

    convex = True
    needs_pairs = False
    has_class_axis = True
    fisher_refusal = None

    def __init__(self, loss: LanguageModelLoss) -> None:
        self._options = loss

    def outputs(self, model: Any, call: Call, batch: Any) -> Any:
        """The logits at all positions."""
        left_out = (self._options.labels, self._options.weights)
        return _logits_of(model, call, {name: value for name, value in _entries(batch).items() if name not in left_out})

    def _targets(self, batch: Any) -> Any:
        """Labels where the logits that predict them are; positions without one are marked as ignored."""
        options, found = self._options, _entries(batch)
        if options.labels in found or not options.causal:
            labels = _entry(batch, options.labels, "labels")
        else:
            labels = _entry(batch, "input_ids", "labels")
            if hasattr(found.get("attention_mask"), "dtype"):
                labels = jnp.where(found["attention_mask"] != 0, labels, options.ignore_index)
        return self._shifted(labels, options.ignore_index)

    def _shifted(self, values: Any, last: float) -> Any:
        if not self._options.causal or values.ndim == 0:
            return values
        return jnp.concatenate([values[..., 1:], jnp.full_like(values[..., :1], last)], axis=-1)

    def _weights(self, outputs: Any, batch: Any) -> Any:
        """A weight for each position, in single precision at least; zero where there is no term."""
        targets, dtype = self._targets(batch), at_least_single(outputs).dtype
        valid = (targets != self._options.ignore_index).astype(dtype)
        if self._options.weights is None:
            return valid
        weights = _entry(batch, self._options.weights, "weights").astype(dtype)
        if weights.ndim == 1 < targets.ndim:
            return valid * weights.reshape(-1, *(1,) * (targets.ndim - 1))
        return valid * self._shifted(weights, 0)

    def check(self, outputs: Any, batch: Any) -> None:
        """Shapes must fit."""
        require_array(outputs)
        targets, options = self._targets(batch), self._options
        if not jnp.issubdtype(targets.dtype, jnp.integer):
            raise TypeError(f"The labels have dtype {targets.dtype}; pass integers.")
        if targets.shape != outputs.shape[:-1]:
            raise ValueError(
                f"The model's logits of shape {tuple(outputs.shape)} and the labels of shape {tuple(targets.shape)} do not fit: one label "
                "is needed for each position of each sequence."
            )
        if options.weights is not None:
            weights = _entry(batch, options.weights, "weights")
            if weights.shape not in (targets.shape, targets.shape[:1]):
                raise ValueError(
                    f"The weights of shape {tuple(weights.shape)} fit neither the labels of shape {tuple(targets.shape)} nor the sequences."
                )

    def problems(self, outputs: Any, batch: Any) -> tuple[Any, ...]:
        """Outputs that are probabilities; labels outside of the vocabulary; negative weights."""
        targets, weights = self._targets(batch), self._options.weights
        outside = jnp.any((targets != self._options.ignore_index) & ((targets < 0) | (targets >= outputs.shape[-1])))
        negative = jnp.asarray(False) if weights is None else ~jnp.all(_entry(batch, weights, "weights") >= 0)
        return are_probabilities(outputs), outside, negative

    def explain(self, problem: int, batch: Any) -> str:
        """The sentence for a flag."""
        if problem == 0:
            return (
                "The model's outputs are probabilities already (in [0, 1] and summing to one), but cross-entropy needs logits: it "
                "takes the softmax itself; leave the last softmax layer out."
            )
        if problem == 2:
            return f"The weights in the entry {self._options.weights!r} must be at least zero."
        targets = self._targets(batch)
        valid = targets[targets != self._options.ignore_index]
        return (
            f"The labels are from {int(valid.min())} to {int(valid.max())}, for some of which the model has no logits; tokens are numbered "
            f"from 0, and positions to be left out are marked {self._options.ignore_index}."
        )

    def total(self, outputs: Any, batch: Any) -> tuple[Any, Any]:
        """Weighted sum over the positions, and the sum of the weights."""
        weights = self._weights(outputs, batch)
        return summed_cross_entropy(at_least_single(outputs), self._targets(batch), weights), jnp.sum(weights)

    def hessian_product(self, outputs: Any, batch: Any, u: Any) -> Any:
        """At each position ``w (diag p - p p^T)``."""
        return curvature_product(at_least_single(outputs), self._weights(outputs, batch), u).astype(u.dtype)

    def likelihood(self, outputs: Any, batch: Any) -> Likelihood:
        """A token for each position."""
        return categorical(outputs, self._weights(outputs, batch))

    def rank_one(self, g: Any, u: Any) -> Any:
        """For each position."""
        return g * jnp.sum(g * u, axis=-1, keepdims=True)
