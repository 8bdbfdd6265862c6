"""Losses of the logits of models that are called with the named entries of a batch."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from ..loss_sentences import probabilities
from ..named_batches import LogitsCriterion, NamedEntries, TokenLabels
from .likelihood import Likelihood, categorical
from .losses import Call, OutputLoss, are_probabilities, at_least_single, require_array
from .token_cross_entropy import curvature_product, summed_cross_entropy

NAMED = NamedEntries(lambda x: hasattr(x, "dtype"))


def _logits_of(model: Any, call: Call, arguments: dict[str, Any]) -> Any:
    """The logits that a model gives for named arrays; texts and names that a batch carries along are left out."""
    return NAMED.logits(call(model, {name: value for name, value in arguments.items() if hasattr(value, "dtype")}))


class LogitsOutputLoss(LogitsCriterion, OutputLoss):
    """`LogitsLoss`: everything is left to the loss of outputs and targets that it names."""

    needs_pairs = False
    named = NAMED
    taken_over = (*LogitsCriterion.taken_over, "has_class_axis", "sigmoid_refusal")

    def outputs(self, model: Any, call: Call, batch: Any) -> Any:
        """The logits."""
        return self.logits_for(batch, lambda arguments: _logits_of(model, call, arguments))

    def problems(self, outputs: Any, batch: Any) -> tuple[Any, ...]:
        """The criterion's."""
        return self._criterion.problems(outputs, self._pair(batch))

    def explain(self, problem: int, batch: Any) -> str:
        """The criterion's."""
        return self._criterion.explain(problem, self._pair(batch))

    def gradient(self, outputs: Any, batch: Any) -> Any:
        """The criterion's."""
        return self._criterion.gradient(outputs, self._pair(batch))


class TokenLoss(TokenLabels, OutputLoss):
    """`LanguageModelLoss`: cross-entropy with the classes along the last axis."""

    needs_pairs = False
    has_class_axis = True
    named, namespace = NAMED, jnp

    def outputs(self, model: Any, call: Call, batch: Any) -> Any:
        """The logits at all positions."""
        left_out = (self._options.labels, self._options.weights)
        return _logits_of(model, call, {name: value for name, value in NAMED.entries(batch).items() if name not in left_out})

    def _cast(self, values: Any, dtype: Any) -> Any:
        return values.astype(dtype)

    def _weights(self, outputs: Any, batch: Any) -> Any:
        """A weight for each position, in single precision at least; zero where there is no term."""
        return self._weights_in(at_least_single(outputs).dtype, batch)

    def check(self, outputs: Any, batch: Any) -> None:
        """Shapes must fit."""
        require_array(outputs)
        targets = self._targets(batch)
        self._check_labels(outputs, targets, integers=jnp.issubdtype(targets.dtype, jnp.integer))
        self._check_weights(targets, batch)

    def problems(self, outputs: Any, batch: Any) -> tuple[Any, ...]:
        """Outputs that are probabilities; labels outside of the vocabulary; negative weights."""
        targets, weights = self._targets(batch), self._options.weights
        outside = jnp.any((targets != self._options.ignore_index) & ((targets < 0) | (targets >= outputs.shape[-1])))
        negative = jnp.asarray(False) if weights is None else ~jnp.all(NAMED.entry(batch, weights, "weights") >= 0)
        return are_probabilities(outputs), outside, negative

    def explain(self, problem: int, batch: Any) -> str:
        """The sentence for a flag."""
        if problem == 0:
            return probabilities()
        if problem == 2:
            return self._negative_weights()
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
