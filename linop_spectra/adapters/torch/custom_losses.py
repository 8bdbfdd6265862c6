"""Losses that users bring: names, torch loss modules, callables, and functions of whole batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...curvature import BatchLoss, LanguageModelLoss, LogitsLoss
from ..loss_sentences import PAIR, loss_by_name, no_likelihood, no_loss, not_scalar, pair_of
from ..output_loss import SplitBatch, WholeBatch
from .likelihood import TORCH_LOSSES
from .logits_losses import LogitsOutputLoss, TokenLoss
from .losses import BinaryCrossEntropy, CrossEntropy, MeanSquaredError, OutputLoss, require_tensor

_NAMED: tuple[Callable[[], OutputLoss], ...] = (CrossEntropy, BinaryCrossEntropy, MeanSquaredError)


class CallableLoss(OutputLoss):
    """``fn(outputs, targets)`` that returns a mean over the examples, or ``(sum, number_of_terms)``."""

    def __init__(self, fn: Callable[[Any, Any], Any], *, averages: bool = True) -> None:
        self._fn, self.averages = fn, averages

    def check(self, outputs: Any, batch: Any) -> None:
        """The outputs are one tensor with an example in each row."""
        require_tensor(outputs)

    def total(self, outputs: Tensor, batch: Any) -> tuple[Tensor, Any]:
        """What the function gives; a mean is multiplied by the number of examples."""
        result = self._fn(outputs, batch[1])
        if isinstance(result, tuple | list):
            return sum_and_terms(result, "(outputs, targets)")
        require_scalar(result, f"a mean over the examples, or {PAIR}")
        if not self.averages:
            return result.reshape(()), 1
        examples = outputs.shape[0] if outputs.ndim else 1
        return result.reshape(()) * examples, examples


class NegativeLogLikelihood(CallableLoss):
    """``torch.nn.NLLLoss``: its mean is over the weights of the positions that are not ignored."""

    gauss_newton_refusal = (
        "NLLLoss is linear in the model's outputs (log-probabilities), so its Gauss-Newton matrix would be zero; leave out the last "
        "log-softmax layer and use loss='cross_entropy', which is the same loss of the logits."
    )
    fisher_refusal = (
        "NLLLoss takes log-probabilities, but targets for the Fisher matrix are drawn by means of logits; leave out the last "
        "log-softmax layer and use loss='cross_entropy', which is the same loss of the logits."
    )

    def __init__(self, module: Any) -> None:
        super().__init__(module, averages=module.reduction == "mean")
        self._weight, self._ignore_index = module.weight, module.ignore_index

    def total(self, outputs: Tensor, batch: Any) -> tuple[Tensor, Any]:
        """Sum over positions, and their weights."""
        targets = batch[1].long()
        weight = None if self._weight is None else self._weight.to(outputs)
        loss = torch.nn.functional.nll_loss(outputs, targets, weight, ignore_index=self._ignore_index, reduction="sum")
        valid = targets != self._ignore_index
        return loss, valid.sum() if weight is None else (weight[torch.where(valid, targets, 0)] * valid).sum()


class KullbackLeibler(CallableLoss):
    """``torch.nn.KLDivLoss`` of log-probabilities."""

    gauss_newton_refusal = (
        "KLDivLoss is linear in the model's outputs (log-probabilities), so its Gauss-Newton matrix would be zero; leave out the last "
        "log-softmax layer and use loss='cross_entropy' with the same targets, which differs from it by a constant."
    )
    fisher_refusal = no_likelihood("KLDivLoss of log-probabilities", TORCH_LOSSES)


class SplitBatchLoss(SplitBatch, OutputLoss):
    """`BatchLoss` in two steps: outputs of the model, and a loss of them."""

    fisher_refusal = no_likelihood("a BatchLoss", TORCH_LOSSES)

    def outputs(self, model: Any, batch: Any) -> Any:
        """What the user's function takes out of the model."""
        return self._outputs(model, batch)

    def check(self, outputs: Any, batch: Any) -> None:
        """The outputs are one tensor."""
        require_tensor(outputs)

    def total(self, outputs: Tensor, batch: Any) -> tuple[Tensor, Any]:
        """What the user's function gives."""
        return sum_and_terms(self._loss(outputs, batch), "(outputs, batch)")


class WholeBatchLoss(WholeBatch, OutputLoss):
    """`BatchLoss` in one step: there are no outputs to speak of."""

    fisher_refusal = no_likelihood("BatchLoss(fn)", TORCH_LOSSES)

    def outputs(self, model: Any, batch: Any) -> Any:
        """The pair (sum, number of terms) takes the place of outputs."""
        return sum_and_terms(self._fn(model, batch), "(model, batch)")


def require_scalar(value: Any, wanted: str) -> None:
    """Raise unless a loss is a single real number as a tensor."""
    found = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.is_floating_point():
        raise not_scalar(found, wanted, "as a scalar tensor")


def sum_and_terms(result: Any, arguments: str) -> tuple[Tensor, Any]:
    """A user's pair (sum, number of terms), checked."""
    total, terms = pair_of(result, arguments, "tensor")
    require_scalar(total, PAIR)
    return total.reshape(()), terms


def make_loss(loss: Any) -> OutputLoss:
    """The loss that a user's argument stands for.

    Raises
    ------
    TypeError, ValueError
        When the argument is none of the forms that are known.
    """
    if isinstance(loss, str):
        return loss_by_name(loss, _NAMED, "a loss module, ")
    if isinstance(loss, LanguageModelLoss):
        return TokenLoss(loss)
    if isinstance(loss, LogitsLoss):
        return LogitsOutputLoss(loss, make_loss(loss.criterion))
    if isinstance(loss, BatchLoss):
        return SplitBatchLoss(loss) if loss.fn is None else WholeBatchLoss(loss.fn)
    if isinstance(loss, torch.nn.Module):
        return _of_module(loss)
    if callable(loss):
        # Torch's functions with their defaults are the losses that they name: masks and weights then count as they should.
        return _FUNCTIONS[loss]() if loss in _FUNCTIONS else CallableLoss(loss)
    raise no_loss(loss, "a torch loss module, ")


_FUNCTIONS: dict[Any, Callable[[], OutputLoss]] = {
    torch.nn.functional.cross_entropy: CrossEntropy,
    torch.nn.functional.mse_loss: MeanSquaredError,
    torch.nn.functional.binary_cross_entropy_with_logits: BinaryCrossEntropy,
    torch.nn.functional.nll_loss: lambda: NegativeLogLikelihood(torch.nn.NLLLoss()),
}


def _of_module(module: Any) -> OutputLoss:
    if any(parameter.requires_grad for parameter in module.parameters()):
        raise ValueError("The loss module has trainable parameters of its own; make it part of the model and use a BatchLoss.")
    reduction = getattr(module, "reduction", "mean")
    kind = type(module)  # a subclass may compute something else
    if reduction not in ("mean", "sum") and not (kind is torch.nn.KLDivLoss and reduction == "batchmean"):
        raise ValueError(f"The loss module has reduction={reduction!r}, which gives no scalar; use reduction='mean' or 'sum'.")
    averages = reduction != "sum"
    if kind is torch.nn.CrossEntropyLoss:
        return CrossEntropy(
            weight=_copied(module.weight),
            ignore_index=module.ignore_index,
            label_smoothing=module.label_smoothing,
            averages=averages,
        )
    if kind is torch.nn.MSELoss:
        return MeanSquaredError(averages=averages)
    if kind is torch.nn.BCEWithLogitsLoss:
        return BinaryCrossEntropy(weight=_copied(module.weight), pos_weight=_copied(module.pos_weight), averages=averages)
    if kind is torch.nn.NLLLoss:
        return NegativeLogLikelihood(module)
    if kind is torch.nn.KLDivLoss:
        return KullbackLeibler(module, averages=averages)
    return CallableLoss(module, averages=averages)


def _copied(constant: Tensor | None) -> Tensor | None:
    return None if constant is None else constant.detach().clone()
