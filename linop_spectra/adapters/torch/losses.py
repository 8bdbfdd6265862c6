"""Losses of outputs and targets whose second derivative in the outputs is known in closed form.

Each gives the sum over a batch and the number of terms in it; the objective divides at the end. ``total`` may run inside
function transforms, so that everything that looks at values stands in ``check``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .. import loss_sentences
from ..output_loss import AnyOutputLoss
from .likelihood import (
    NEGATIVE_WEIGHTS,
    TORCH_LOSSES,
    Bernoulli,
    Categorical,
    Gaussian,
    Likelihood,
    per_element,
    per_example,
    per_position,
)
from .token_cross_entropy import summed_cross_entropy

Product = Callable[[Tensor], Tensor]


class OutputLoss(AnyOutputLoss):
    """A loss of outputs and a batch, with derivatives in the outputs by automatic differentiation."""

    fisher_refusal: str | None = loss_sentences.no_likelihood("a loss that is a function of its own", TORCH_LOSSES)

    def outputs(self, model: Any, batch: Any) -> Any:
        """The model's outputs for a pair (inputs, targets)."""
        return call_model(model, batch[0])

    def gradient(self, outputs: Tensor, batch: Any) -> Tensor:
        """Gradient of the summed loss in the outputs."""
        with torch.enable_grad():
            point = outputs.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.total(point, batch)[0], point)
        return slope

    def hessian_product(self, outputs: Tensor, batch: Any) -> Product:
        """Multiplication with the Hessian of the summed loss in the outputs."""
        point = outputs.detach().requires_grad_()
        (slope,) = torch.autograd.grad(self.total(point, batch)[0], point, create_graph=True)

        def product(u: Tensor) -> Tensor:
            if not slope.requires_grad:
                return torch.zeros_like(u)
            (curved,) = torch.autograd.grad(slope, point, u, retain_graph=True, allow_unused=True)
            return torch.zeros_like(u) if curved is None else curved

        return product

    def likelihood(self, outputs: Tensor, batch: Any) -> Likelihood:
        """Distribution of targets whose negative logarithm is the loss."""
        raise TypeError(self.fisher_refusal)

    def rank_one(self, g: Tensor, u: Tensor) -> Tensor:
        """``g <g, u>`` over each term of the loss."""
        return per_example(g, u)

    def require_examples(self, outputs: Tensor) -> None:
        """Raise unless the rows of the outputs are examples."""


def call_model(model: Any, inputs: Any) -> Any:
    """The model on a batch's inputs: a tensor, a tuple of arguments, or a mapping of named ones."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, tuple | list):
        return model(*inputs)
    return model(inputs)


def require_tensor(outputs: Any) -> None:
    """Raise unless the model gave one tensor of floating numbers."""
    if not isinstance(outputs, Tensor):
        raise loss_sentences.not_one_array(outputs, "tensor")
    if not outputs.is_floating_point():
        raise loss_sentences.not_floating(outputs.dtype)


def _require_equal_shapes(name: str, outputs: Tensor, targets: Tensor) -> None:
    if outputs.shape != targets.shape:
        raise loss_sentences.unequal_shapes(name, outputs.shape, tuple(targets.shape))


class MeanSquaredError(OutputLoss):
    """Squared differences; the terms are the elements."""

    convex = True
    fisher_refusal = None

    def __init__(self, *, averages: bool = True) -> None:
        self.averages = averages

    def check(self, outputs: Any, batch: Any) -> None:
        """Shapes must be equal: broadcasting would compare everything with everything."""
        require_tensor(outputs)
        _require_equal_shapes("mse", outputs, batch[1])

    def total(self, outputs: Tensor, batch: Any) -> tuple[Tensor, Any]:
        """Sum of squares."""
        return (outputs - batch[1]).square().sum(), outputs.numel()

    def hessian_product(self, outputs: Tensor, batch: Any) -> Product:
        """Twice the identity."""
        return lambda u: 2 * u

    def likelihood(self, outputs: Tensor, batch: Any) -> Likelihood:
        """Normal elements of variance 1/2."""
        return Gaussian(outputs)

    def rank_one(self, g: Tensor, u: Tensor) -> Tensor:
        """For each element."""
        return per_element(g, u)


class BinaryCrossEntropy(OutputLoss):
    """Cross-entropy of independent labels, from logits; the terms are the elements."""

    def __init__(self, *, weight: Tensor | None = None, pos_weight: Tensor | None = None, averages: bool = True) -> None:
        self.weight, self.pos_weight, self.averages = weight, pos_weight, averages
        self.convex = all(bool((w >= 0).all()) for w in (weight, pos_weight) if w is not None)
        self.fisher_refusal = None if self.convex else NEGATIVE_WEIGHTS
        self.sigmoid_last = False

    def check(self, outputs: Any, batch: Any) -> None:
        """Shapes must be equal, and outputs must not come out of a sigmoid."""
        require_tensor(outputs)
        _require_equal_shapes("binary_cross_entropy", outputs, batch[1])
        if self.sigmoid_last and bool(((outputs >= 0) & (outputs <= 1)).all()):
            raise ValueError(loss_sentences.sigmoid_last("layer"))

    def total(self, outputs: Tensor, batch: Any) -> tuple[Tensor, Any]:
        """Sum over elements."""
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        targets = batch[1].to(outputs.dtype)
        ones = targets if self.pos_weight is None else self.pos_weight.to(outputs) * targets
        # Both signs apart, because softplus(z) - t z cancels where |z| is large.
        losses = ones * functional.softplus(-outputs) + (1 - targets) * functional.softplus(outputs)
        return (losses if self.weight is None else self.weight.to(outputs) * losses).sum(), outputs.numel()

    def hessian_product(self, outputs: Tensor, batch: Any) -> Product:
        """Diagonal: ``w (1 + (pos_weight - 1) t) s (1 - s)`` with the sigmoid `s`."""
        z = outputs.detach()
        curvature = self._weights(outputs, batch) * torch.sigmoid(z) * torch.sigmoid(-z)  # 1 - s would cancel
        return lambda u: curvature * u

    def likelihood(self, outputs: Tensor, batch: Any) -> Likelihood:
        """A label for each element, weighted as the Hessian is."""
        return Bernoulli(outputs, self._weights(outputs, batch))

    def rank_one(self, g: Tensor, u: Tensor) -> Tensor:
        """For each element."""
        return per_element(g, u)

    def _weights(self, outputs: Tensor, batch: Any) -> Tensor:
        weights = torch.ones_like(outputs.detach())
        if self.pos_weight is not None:
            weights = weights * (1 + (self.pos_weight.to(outputs) - 1) * batch[1].to(outputs.dtype))
        if self.weight is not None:
            weights = weights * self.weight.to(outputs)
        return weights


class CrossEntropy(OutputLoss):
    """Softmax cross-entropy from logits with the classes along dimension 1 (0 for a single example).

    Integer targets may be masked by `ignore_index` and weighted by class; the terms are then the weights of the positions that
    are left. Targets of the outputs' shape are distributions over the classes (one-hot or soft); the terms are the positions.
    """

    def __init__(
        self,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        averages: bool = True,
    ) -> None:
        self.weight, self.ignore_index, self.label_smoothing, self.averages = weight, ignore_index, label_smoothing, averages
        self.convex = weight is None or bool((weight >= 0).all())
        self.fisher_refusal = None if self.convex else NEGATIVE_WEIGHTS

    def check(self, outputs: Any, batch: Any) -> None:
        """Shapes must fit, classes must exist, and outputs must not be probabilities."""
        require_tensor(outputs)
        targets = batch[1]
        if not isinstance(targets, Tensor):
            raise loss_sentences.no_classes(targets)
        if outputs.ndim == 0:
            raise loss_sentences.no_logits()
        axis, classes = _class_axis(outputs), outputs.shape[_class_axis(outputs)]
        if outputs.shape != targets.shape:
            positions = outputs.shape[:axis] + outputs.shape[axis + 1 :]
            if targets.shape != positions:
                hint = (
                    "move the classes to dimension 1 as in torch, or pass a callable loss"
                    if targets.shape == outputs.shape[:-1]
                    else loss_sentences.ONE_CLASS_EACH
                )
                raise loss_sentences.cross_entropy_misfit(outputs.shape, targets.shape, f"dimension {axis}", hint)
            if targets.is_floating_point():
                raise loss_sentences.not_integers(targets.dtype)
            valid = targets[targets != self.ignore_index]
            if valid.numel() and not 0 <= int(valid.min()) <= int(valid.max()) < classes:
                raise loss_sentences.classes_outside(valid, classes, self.ignore_index)
        refuse_probabilities(outputs, axis)

    def total(self, outputs: Tensor, batch: Any) -> tuple[Tensor, Any]:
        """Sum over positions, and their weights."""
        targets, axis = batch[1], _class_axis(outputs)
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        shares = self._shares(outputs, batch)
        scale = self._summed(shares, outputs, batch).squeeze(axis)
        if targets.shape == outputs.shape:
            assert shares is not None
            chosen, terms = shares.argmax(axis), outputs.numel() // outputs.shape[axis]
        else:
            valid, weight = targets != self.ignore_index, _like(self.weight, outputs)
            chosen = torch.where(valid, targets, 0).long()
            terms = valid.sum() if weight is None else (weight[chosen] * valid).sum()
        total = summed_cross_entropy(outputs.movedim(axis, -1), chosen, scale)
        if shares is not None:
            # What the target gives to other classes than the one that it gives most: nothing where it is one-hot.
            own = chosen.unsqueeze(axis)
            total = total - (shares.scatter(axis, own, 0) * (outputs - outputs.gather(axis, own))).sum()
        return total, terms

    def hessian_product(self, outputs: Tensor, batch: Any) -> Product:
        r"""At each position ``s (diag p - p p^T)`` with the softmax `p` and the total weight `s` of the target."""
        axis = _class_axis(outputs)
        p = torch.softmax(outputs.detach(), axis)
        scaled, top = self._weights(outputs, batch) * p, p.argmax(axis, keepdim=True)

        def product(u: Tensor) -> Tensor:
            u = u - u.gather(axis, top)  # constants make no difference, but where p is nearly one they would cancel
            return scaled * (u - (p * u).sum(axis, keepdim=True))

        return product

    def likelihood(self, outputs: Tensor, batch: Any) -> Likelihood:
        """A class for each position, weighted as the Hessian is."""
        return Categorical(outputs, self._weights(outputs, batch), _class_axis(outputs))

    def rank_one(self, g: Tensor, u: Tensor) -> Tensor:
        """For each position."""
        return per_position(g, u, _class_axis(g))

    def require_examples(self, outputs: Tensor) -> None:
        """A single example without an axis of examples has classes in its rows."""
        if outputs.ndim < 2:
            raise loss_sentences.no_axis_of_examples(outputs.shape)

    def _shares(self, outputs: Tensor, batch: Any) -> Tensor | None:
        """Weight of each class in each position's target; with one class for each only what smoothing spreads over all of them."""
        targets, axis, smoothing = batch[1], _class_axis(outputs), self.label_smoothing
        if targets.shape == outputs.shape:
            shares = targets.to(outputs.dtype) * (1 - smoothing) + smoothing / outputs.shape[axis]
        elif smoothing:
            shares = (targets != self.ignore_index).unsqueeze(axis) * outputs.new_full(outputs.shape, smoothing / outputs.shape[axis])
        else:
            return None
        if self.weight is None:
            return shares
        return shares * self.weight.to(outputs).view([-1 if position == axis else 1 for position in range(outputs.ndim)])

    def _weights(self, outputs: Tensor, batch: Any) -> Tensor:
        """Total weight of each position's target, with an axis of length one for the classes; zero where it is masked."""
        return self._summed(self._shares(outputs, batch), outputs, batch)

    def _summed(self, shares: Tensor | None, outputs: Tensor, batch: Any) -> Tensor:
        targets, axis, weight = batch[1], _class_axis(outputs), _like(self.weight, outputs)
        if targets.shape == outputs.shape:
            assert shares is not None
            return shares.sum(axis, keepdim=True)
        valid = targets != self.ignore_index
        scale = valid.to(outputs.dtype) if weight is None else valid * weight[torch.where(valid, targets, 0).long()]
        scale = (1 - self.label_smoothing) * scale.unsqueeze(axis)
        return scale if shares is None else scale + shares.sum(axis, keepdim=True)


def refuse_probabilities(outputs: Tensor, axis: int) -> None:
    """Raise when outputs are probabilities already: in [0, 1], and summing to one along `axis`."""
    if outputs.shape[axis] < 2 or outputs.numel() == 0:
        return
    if bool(((outputs >= 0) & (outputs <= 1)).all()) and bool(((outputs.sum(axis) - 1).abs() < 1e-3).all()):
        raise ValueError(loss_sentences.probabilities())


def _class_axis(outputs: Tensor) -> int:
    return 1 if outputs.ndim > 1 else 0


def _like(constant: Tensor | None, outputs: Tensor) -> Tensor | None:
    return None if constant is None else constant.to(outputs)
