"""Losses of the logits of models that are called with the named entries of a batch."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from ...curvature.linearization import Noise
from ..named_batches import LogitsCriterion, NamedEntries, TokenLabels
from .likelihood import Categorical, Likelihood, per_position
from .losses import OutputLoss, Product, refuse_probabilities, require_tensor
from .token_cross_entropy import curvature_product, parts_of, positions_at_once, summed_cross_entropy

NAMED = NamedEntries(lambda x: isinstance(x, Tensor))


def logits_of(model: Any, arguments: dict[str, Any]) -> Any:
    """The logits that a model gives for named arguments, without a cache of keys and values."""
    accepted = inspect.signature(model.forward).parameters
    # Batches often carry texts or names along, which are no arguments of the model.
    arguments = {name: value for name, value in arguments.items() if isinstance(value, Tensor) or name in accepted}
    passes_on = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in accepted.values())
    if "use_cache" in accepted or (passes_on and hasattr(getattr(model, "config", None), "use_cache")):
        arguments["use_cache"] = False
    return NAMED.logits(model(**arguments))


class _Tokens(Likelihood):
    """A class from logits along the last axis for each position, drawn for a few positions at a time."""

    noise: Noise = "uniform"

    def __init__(self, outputs: Tensor, weights: Tensor) -> None:
        self._outputs, self._weights, self.shape = outputs, weights, tuple(weights.shape)

    def gradient(self, noise: Tensor) -> Tensor:
        """As of a categorical distribution."""
        rows = self._outputs.reshape(-1, self._outputs.shape[-1])
        weights, numbers = self._weights.reshape(-1, 1), noise.reshape(-1)
        result = torch.empty_like(self._outputs, memory_format=torch.contiguous_format)
        for part in parts_of(rows):
            result.view(rows.shape)[part] = Categorical(rows[part], weights[part], 1).gradient(numbers[part])
        return result


class LogitsOutputLoss(LogitsCriterion, OutputLoss):
    """`LogitsLoss`: everything is left to the loss of outputs and targets that it names."""

    named = NAMED

    def outputs(self, model: Any, batch: Any) -> Any:
        """The logits."""
        return self.logits_for(batch, lambda arguments: logits_of(model, arguments))

    def require_examples(self, outputs: Tensor) -> None:
        """What the criterion asks for."""
        self._criterion.require_examples(outputs)


class TokenLoss(TokenLabels, OutputLoss):
    """`LanguageModelLoss`: cross-entropy with the classes along the last axis, a few positions at a time."""

    named, namespace = NAMED, torch

    def outputs(self, model: Any, batch: Any) -> Any:
        """The logits at all positions."""
        options, arguments = self._options, NAMED.entries(batch)
        labels = arguments.pop(options.labels, None)
        if options.weights is not None:
            arguments.pop(options.weights, None)
        make_inputs = getattr(model, "prepare_decoder_input_ids_from_labels", None)
        if make_inputs is not None and labels is not None and "decoder_input_ids" not in arguments:
            arguments["decoder_input_ids"] = make_inputs(labels)
        return logits_of(model, arguments)

    def _cast(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        return values.to(dtype)

    def _weights(self, outputs: Tensor, batch: Any) -> Tensor:
        """A weight for each position, in single precision at least; zero where there is no term."""
        weights: Tensor = self._weights_in(torch.promote_types(outputs.dtype, torch.float32), batch)
        return weights

    def check(self, outputs: Any, batch: Any) -> None:
        """Shapes must fit, labels must be in the vocabulary, and weights must not be negative."""
        require_tensor(outputs)
        targets, options = self._targets(batch), self._options
        self._check_labels(outputs, targets, integers=not targets.is_floating_point())
        valid = targets[targets != options.ignore_index]
        if valid.numel() and not 0 <= int(valid.min()) <= int(valid.max()) < outputs.shape[-1]:
            raise ValueError(
                f"The labels are from {int(valid.min())} to {int(valid.max())}, but the model has logits for {outputs.shape[-1]} tokens, "
                f"numbered from 0; positions to be left out are marked {options.ignore_index}."
            )
        weights = self._check_weights(targets, batch)
        if weights is not None and not bool((weights >= 0).all()):
            raise ValueError(self._negative_weights())
        rows = outputs.reshape(-1, outputs.shape[-1])
        refuse_probabilities(rows[: positions_at_once(rows)], 1)

    def total(self, outputs: Tensor, batch: Any) -> tuple[Tensor, Any]:
        """Weighted sum over the positions, and the sum of the weights."""
        weights = self._weights(outputs, batch)
        return summed_cross_entropy(outputs, self._targets(batch), weights), weights.sum(dtype=torch.float64)

    def hessian_product(self, outputs: Tensor, batch: Any) -> Product:
        """At each position ``w (diag p - p p^T)``."""
        return curvature_product(outputs.detach(), self._weights(outputs, batch))

    def likelihood(self, outputs: Tensor, batch: Any) -> Likelihood:
        """A token for each position."""
        return _Tokens(outputs, self._weights(outputs, batch))

    def rank_one(self, g: Tensor, u: Tensor) -> Tensor:
        """For each position."""
        return per_position(g, u, -1)
