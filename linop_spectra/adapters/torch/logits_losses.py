"""Losses of the logits of models that are called with the named entries of a batch."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...curvature.linearization import Noise
from ...curvature.logits_losses import LanguageModelLoss, LogitsLoss
from .likelihood import Categorical, Likelihood, per_position
from .losses import OutputLoss, Product, refuse_probabilities, require_tensor
from .token_cross_entropy import curvature_product, parts_of, positions_at_once, summed_cross_entropy


def entries(batch: Any) -> dict[str, Any]:
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
    if hasattr(batch, "__dict__") and not isinstance(batch, Tensor):
        return dict(vars(batch))
    raise TypeError(
        f"A batch is a {type(batch).__name__}, but this loss needs a mapping such as {{'input_ids': ..., 'labels': ...}}, or an object "
        "with such attributes."
    )


def entry(batch: Any, name: str, argument: str) -> Tensor:
    """One array of a batch.

    Raises
    ------
    KeyError, TypeError
        When there is none of that name, or it is no array.
    """
    found = entries(batch)
    if name not in found:
        raise KeyError(f"A batch has no entry {name!r}, only {', '.join(map(repr, found))}; say by {argument}= which one it is.")
    if not isinstance(found[name], Tensor):
        raise TypeError(f"The entry {name!r} of a batch is a {type(found[name]).__name__}, but must be an array.")
    return found[name]


def logits_of(model: Any, arguments: dict[str, Any]) -> Any:
    """The logits that a model gives for named arguments, without a cache of keys and values."""
    accepted = inspect.signature(model.forward).parameters
    # Batches often carry texts or names along, which are no arguments of the model.
    arguments = {name: value for name, value in arguments.items() if isinstance(value, Tensor) or name in accepted}
    passes_on = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in accepted.values())
    if "use_cache" in accepted or (passes_on and hasattr(getattr(model, "config", None), "use_cache")):
        arguments["use_cache"] = False
    result = model(**arguments)
    if isinstance(result, Tensor):
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


class LogitsOutputLoss(OutputLoss):
    """`LogitsLoss`: everything is left to the loss of outputs and targets that it names."""

    def __init__(self, loss: LogitsLoss, criterion: OutputLoss) -> None:
        self._labels, self._criterion = loss.labels, criterion
        self.averages, self.convex = criterion.averages, criterion.convex
        self.gauss_newton_refusal = criterion.gauss_newton_refusal
        self.fisher_refusal, self.example_refusal = criterion.fisher_refusal, criterion.example_refusal

    def _pair(self, batch: Any) -> tuple[None, Tensor]:
        return None, entry(batch, self._labels, "labels")

    def outputs(self, model: Any, batch: Any) -> Any:
        """The logits."""
        labels = entry(batch, self._labels, "labels")
        arguments = {name: value for name, value in entries(batch).items() if name != self._labels}
        logits = logits_of(model, arguments)
        single = isinstance(logits, Tensor) and logits.ndim == labels.ndim + 1 and logits.shape[-1] == 1
        return logits.squeeze(-1) if single else logits

    def check(self, outputs: Any, batch: Any) -> None:
        """What the criterion asks for."""
        self._criterion.check(outputs, self._pair(batch))

    def total(self, outputs: Tensor, batch: Any) -> tuple[Tensor, Any]:
        """The criterion's."""
        return self._criterion.total(outputs, self._pair(batch))

    def hessian_product(self, outputs: Tensor, batch: Any) -> Product:
        """The criterion's."""
        return self._criterion.hessian_product(outputs, self._pair(batch))

    def likelihood(self, outputs: Tensor, batch: Any) -> Likelihood:
        """The criterion's."""
        return self._criterion.likelihood(outputs, self._pair(batch))

    def rank_one(self, g: Tensor, u: Tensor) -> Tensor:
        """The criterion's."""
        return self._criterion.rank_one(g, u)

    def require_examples(self, outputs: Tensor) -> None:
        """What the criterion asks for."""
        self._criterion.require_examples(outputs)


class TokenLoss(OutputLoss):
    """`LanguageModelLoss`: cross-entropy with the classes along the last axis, a few positions at a time."""

    convex = True
    fisher_refusal = None

    def __init__(self, loss: LanguageModelLoss) -> None:
        self._options = loss

    def outputs(self, model: Any, batch: Any) -> Any:
        """The logits at all positions."""
        options, arguments = self._options, entries(batch)
        labels = arguments.pop(options.labels, None)
        if options.weights is not None:
            arguments.pop(options.weights, None)
        make_inputs = getattr(model, "prepare_decoder_input_ids_from_labels", None)
        if make_inputs is not None and labels is not None and "decoder_input_ids" not in arguments:
            arguments["decoder_input_ids"] = make_inputs(labels)
        return logits_of(model, arguments)

    def _targets(self, batch: Any) -> Tensor:
        """Labels where the logits that predict them are; positions without one are marked as ignored."""
        options, found = self._options, entries(batch)
        if options.labels in found or not options.causal:
            labels = entry(batch, options.labels, "labels")
        else:
            labels = entry(batch, "input_ids", "labels")
            if isinstance(found.get("attention_mask"), Tensor):
                labels = torch.where(found["attention_mask"] != 0, labels, options.ignore_index)
        return self._shifted(labels, options.ignore_index)

    def _shifted(self, values: Tensor, last: float) -> Tensor:
        if not self._options.causal or values.ndim == 0:
            return values
        return torch.cat([values[..., 1:], torch.full_like(values[..., :1], last)], dim=-1)

    def _weights(self, outputs: Tensor, batch: Any) -> Tensor:
        """A weight for each position, in single precision at least; zero where there is no term."""
        targets, dtype = self._targets(batch), torch.promote_types(outputs.dtype, torch.float32)
        valid = (targets != self._options.ignore_index).to(dtype)
        if self._options.weights is None:
            return valid
        weights = entry(batch, self._options.weights, "weights").to(dtype)
        if weights.ndim == 1 < targets.ndim:
            return valid * weights.view(-1, *(1,) * (targets.ndim - 1))
        return valid * self._shifted(weights, 0)

    def check(self, outputs: Any, batch: Any) -> None:
        """Shapes must fit, labels must be in the vocabulary, and weights must not be negative."""
        require_tensor(outputs)
        targets, options = self._targets(batch), self._options
        if targets.is_floating_point():
            raise TypeError(f"The labels have dtype {targets.dtype}; pass integers.")
        if targets.shape != outputs.shape[:-1]:
            raise ValueError(
                f"The model's logits of shape {tuple(outputs.shape)} and the labels of shape {tuple(targets.shape)} do not fit: one label "
                "is needed for each position of each sequence."
            )
        valid = targets[targets != options.ignore_index]
        if valid.numel() and not 0 <= int(valid.min()) <= int(valid.max()) < outputs.shape[-1]:
            raise ValueError(
                f"The labels are from {int(valid.min())} to {int(valid.max())}, but the model has logits for {outputs.shape[-1]} tokens, "
                f"numbered from 0; positions to be left out are marked {options.ignore_index}."
            )
        if options.weights is not None:
            weights = entry(batch, options.weights, "weights")
            if weights.shape not in (targets.shape, targets.shape[:1]):
                raise ValueError(
                    f"The weights of shape {tuple(weights.shape)} fit neither the labels of shape {tuple(targets.shape)} nor the sequences."
                )
            if not bool((weights >= 0).all()):
                raise ValueError(f"The weights in the entry {options.weights!r} must be at least zero.")
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
