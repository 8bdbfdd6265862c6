"""Softmax cross-entropy, over large vocabularies too, with first and second derivative, a few positions at a time.

With logits `z` of shape (positions, vocabulary), their softmax `p`, targets `t` and weights `w`, the sum is
``sum_i w_i (logsumexp z_i - z_i[t_i])``, its gradient ``w_i (p_i - e_{t_i})`` and its second derivative along `u`
``w_i p_i (u_i - <p_i, u_i>)``. Each is written into one array of the logits' size; nothing else of that size is made or kept. One minus the
probability of the target is the sum of the others': the difference would lose it to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_ELEMENTS = 1 << 22
"""Of the arrays in between: 16 MiB in single precision."""


def positions_at_once(logits: Tensor) -> int:
    """Rows of `logits`, an array of two axes, that are worked on at a time."""
    return max(1, _ELEMENTS // max(1, logits.shape[1]))


def summed_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Sum over positions of the weighted cross-entropy of logits with the classes along the last axis.

    Parameters
    ----------
    logits : Tensor
        Shape (..., classes).
    targets : Tensor
        Integers of shape (...); anything where the weight is zero.
    weights : Tensor
        Shape (...), of the logits' type, or of single precision where that is half.

    Returns
    -------
    Tensor
        A scalar, twice differentiable in the logits by reverse mode.
    """
    chosen = torch.where(weights != 0, targets, 0).reshape(-1).long()
    return _Sum.apply(logits.reshape(-1, logits.shape[-1]), chosen, weights.reshape(-1))[0]


def curvature_product(logits: Tensor, weights: Tensor) -> Callable[[Tensor], Tensor]:
    """Multiplication with the Hessian of `summed_cross_entropy` in the logits."""
    rows, scale = logits.reshape(-1, logits.shape[-1]), weights.reshape(-1)
    normaliser = _logsumexp(rows)
    return lambda u: _curved(rows, normaliser, scale, u.reshape(rows.shape)).view(u.shape)


def parts_of(rows: Tensor) -> Iterator[slice]:
    """Slices of the rows that are worked on at a time."""
    step = positions_at_once(rows)
    return (slice(first, first + step) for first in range(0, len(rows), step))


def _wide(rows: Tensor) -> torch.dtype:
    """Type of what is computed in between: that of the logits, but single precision for half."""
    return torch.promote_types(rows.dtype, torch.float32)


def _logsumexp(rows: Tensor) -> Tensor:
    values = rows.new_empty(len(rows), dtype=_wide(rows))
    for part in parts_of(rows):
        values[part] = rows[part].to(values.dtype).logsumexp(1)
    return values


def _softmax(rows: Tensor, normaliser: Tensor, part: slice, out: Tensor | None = None) -> Tensor:
    return torch.sub(rows[part], normaliser[part].unsqueeze(1), out=out).exp_()


def _curved(rows: Tensor, normaliser: Tensor, scale: Tensor, u: Tensor) -> Tensor:
    result = torch.empty_like(rows, memory_format=torch.contiguous_format)
    same = _wide(rows) == rows.dtype
    for part in parts_of(rows):
        p = _softmax(rows, normaliser, part)
        # Constants make no difference, but where p is nearly one they would cancel.
        shifted = u[part] - u[part].gather(1, p.argmax(1, keepdim=True))
        work = torch.mul(p, shifted, out=result[part] if same else None)
        mean = work.sum(1, keepdim=True)
        torch.sub(shifted, mean, out=work).mul_(p).mul_(scale[part].unsqueeze(1))
        if not same:
            result[part] = work
    return result


class _Sum(torch.autograd.Function):
    """The sum; the normalisers come second, as they are needed again."""

    @staticmethod
    def forward(rows: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        index, wide = targets.unsqueeze(1), _wide(rows)
        picked = rows.gather(1, index).squeeze(1).to(wide)
        others = torch.empty_like(picked)
        for part in parts_of(rows):
            others[part] = rows[part].to(wide).scatter(1, index[part], torch.finfo(wide).min).logsumexp(1)
        return (weights * functional.softplus(others - picked)).sum(), torch.logaddexp(others, picked)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs, output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor, None, None]:
        rows, targets, weights, normaliser = ctx.saved_tensors
        return _Slope.apply(rows, targets, weights, normaliser, grad), None, None


class _Slope(torch.autograd.Function):
    """The sum's gradient in the logits, times a number."""

    @staticmethod
    def forward(rows: Tensor, targets: Tensor, weights: Tensor, normaliser: Tensor, grad: Tensor) -> Tensor:
        result = torch.empty_like(rows, memory_format=torch.contiguous_format)
        same, scale = _wide(rows) == rows.dtype, weights * grad
        for part in parts_of(rows):
            work, own = _softmax(rows, normaliser, part, out=result[part] if same else None), targets[part].unsqueeze(1)
            work.scatter_(1, own, 0)
            work.scatter_(1, own, -work.sum(1, keepdim=True)).mul_(scale[part].unsqueeze(1))
            if not same:
                result[part] = work
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor, None, None, None, Tensor | None]:
        rows, targets, weights, normaliser, grad = ctx.saved_tensors
        if torch.is_grad_enabled():  # a third derivative is wanted: in operations that torch differentiates itself
            p = torch.softmax(rows, 1, dtype=normaliser.dtype)
            shifted = p * (u - (p * u).sum(1, keepdim=True))
            curved = shifted * (weights * grad).unsqueeze(1)
            along = (weights * (p * (u - u.gather(1, targets.unsqueeze(1)))).sum(1)).sum()
            return curved.to(rows.dtype), None, None, None, along
        curved = _curved(rows, normaliser, weights * grad, u)
        along_grad = None
        if ctx.needs_input_grad[4]:
            against = u.gather(1, targets.unsqueeze(1))
            along_grad = sum(
                ((_softmax(rows, normaliser, part) * (u[part] - against[part])).sum(1) * weights[part]).sum() for part in parts_of(rows)
            )
        return curved, None, None, None, along_grad
