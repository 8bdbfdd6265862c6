"""Normalisations whose second derivatives are given in closed form; the conventions are those of `layer_derivatives`."""

# ruff: noqa: D102 -- forward and backward are torch's, and the formulas stand with the classes
# mypy: disable-error-code="no-untyped-call, misc"

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .layer_derivatives import Purpose, placeholder, refuse_third


def _rows(x: Tensor) -> tuple[int, ...]:
    """All axes but the last."""
    return tuple(range(x.dim() - 1))


def _all_but_channels(x: Tensor) -> tuple[int, ...]:
    return (0, *range(2, x.dim()))


class EvaluatedBatchNorm(Function):
    """``y = h w + b`` with ``h = (x - mean) s``, where mean and inverse deviation `s` are constants of each channel.

    The normalised inputs `h` are a second output, so that the second derivative can refer to them and `x` need not be kept. The outputs
    are torch's own to the last bit, because other rounding would move some across the kink of a ReLU.
    ``gx = s (g w + gh)``, ``gw`` and ``gb`` the sums of ``g h`` and of `g` over a channel.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, b: Tensor, mean: Tensor, variance: Tensor, eps: float, purpose: Purpose
    ) -> tuple[Tensor, Tensor]:
        ctx.shape = shape = (1, -1, *[1] * (x.dim() - 2))
        s = (variance + eps).rsqrt()
        h = (x - mean.view(shape)).mul_(s.view(shape))
        ctx.purpose, ctx.ends = purpose, (purpose.ends(w), purpose.ends(b))
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(h, w, s)
        return torch.nn.functional.batch_norm(x, mean, variance, w, b, eps=eps), h

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, gh: Tensor | None) -> Any:
        h, w, s = ctx.saved_tensors
        none = (None, None, None, None)
        if g is None:
            return None if gh is None else gh * s.view(ctx.shape), None, None, *none
        if torch.is_grad_enabled():
            ctx.purpose.check()
            if not ctx.purpose.curved:
                h, w = h.detach(), w.detach()
            return *_EvaluatedBatchNormBackward.apply(g, h, w, s, ctx.shape, ctx.ends, ctx.purpose.curved), *none
        gx = gw = gb = None
        if ctx.needs_input_grad[0]:
            gx = g * (w * s).view(ctx.shape)
            if gh is not None:
                gx.addcmul_(gh, s.view(ctx.shape))
        if ctx.needs_input_grad[1]:
            gw = (g * h).sum(_all_but_channels(g))
        if ctx.needs_input_grad[2]:
            gb = g.sum(_all_but_channels(g))
        return gx, gw, gb, *none


class _EvaluatedBatchNormBackward(Function):
    """``(g w s, sum g h, sum g)``: derivatives ``vx w s + vw h + vb`` in `g`, ``g vw`` in `h`, and ``s sum g vx`` in `w`."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, h: Tensor, w: Tensor, s: Tensor, shape: tuple[int, ...], ends: tuple[bool, bool], curved: bool
    ) -> Any:
        ctx.shape = shape
        ctx.save_for_backward(g if curved else None, h, w, s)
        gx = g * (w * s).view(shape) if curved else placeholder(g)
        gw = (g * h).sum(_all_but_channels(g)) if curved and not ends[0] else placeholder(w)
        gb = g.sum(_all_but_channels(g)) if curved and not ends[1] else placeholder(w)
        return gx, gw, gb

    @staticmethod
    def backward(ctx: Any, vx: Tensor, vw: Tensor, vb: Tensor) -> Any:
        refuse_third()
        g, h, w, s = ctx.saved_tensors
        shape, wanted = ctx.shape, ctx.needs_input_grad
        grad_g = torch.addcmul(vb.view(shape), h, vw.view(shape)).addcmul_(vx, (w * s).view(shape)) if wanted[0] else None
        grad_h = g * vw.view(shape) if wanted[1] else None
        grad_w = (g * vx).sum(_all_but_channels(g)).mul_(s) if wanted[2] else None
        return grad_g, grad_h, grad_w, None, None, None, None


def _projected(u: Tensor, h: Tensor, r: Tensor, w: Tensor | None = None) -> Tensor:
    """``P(u w)`` with ``P u = r (u - mean u - h mean(u h))`` in each row: the transposed derivative of `h` in the inputs, symmetric."""
    zeros, ones = torch.zeros_like(r), torch.ones_like(r)
    return torch.ops.aten.native_layer_norm_backward(u, h, [h.shape[-1]], zeros, ones, w, None, [True, False, False])[0].mul_(r)


class LayerNorm(Function):
    """``y = h w + b`` with ``h = (x - mean) r`` and the inverse deviation `r` of each row.

    `h` and `r` are outputs as well, so that the second derivative can refer to them and `x` need not be kept. With ``dr/dx = -r^2 h / D``,
    ``gx = P(g w + gh) - gr r^2 h / D``; ``gw`` and ``gb`` are the sums of ``g h`` and of `g` over the rows.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None, eps: float, purpose: Purpose) -> tuple[Tensor, Tensor, Tensor]:
        y, mean, r = torch.native_layer_norm(x, (x.shape[-1],), w, b, eps)
        h = (x - mean).mul_(r)
        ctx.purpose, ctx.ends = purpose, (purpose.ends(w), purpose.ends(b))
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(h, r, w)
        return y, h, r

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, gh: Tensor | None, gr: Tensor | None) -> Any:
        h, r, w = ctx.saved_tensors
        needs_x, needs_w, needs_b = ctx.needs_input_grad[:3]
        if g is not None and torch.is_grad_enabled():
            ctx.purpose.check()
            if not ctx.purpose.curved:
                h, r, w = h.detach(), r.detach(), w.detach()
            gx, gw, gb = _LayerNormBackward.apply(g, h, r, w, ctx.ends, ctx.purpose.curved)
            return gx, gw, gb if needs_b else None, None, None
        gx = gw = gb = None
        if needs_x:
            if gh is not None:
                gx = _projected(gh if g is None else torch.addcmul(gh, g, w), h, r)
            elif g is not None:
                gx = _projected(g, h, r, w)
            if gr is not None:
                rate = r * r * gr / -h.shape[-1]
                gx = h * rate if gx is None else gx.addcmul_(h, rate)
        if g is not None:
            gw = (g * h).sum(_rows(g)) if needs_w else None
            gb = g.sum(_rows(g)) if needs_b else None
        return gx, gw, gb, None, None


class _LayerNormBackward(Function):
    """``(P(g w), sum g h, sum g)``.

    With ``a = mean(vx h)`` and ``b = mean(g w h)`` of each row, ``<vx, P(g w)>`` is ``F = r D (mean(vx g w) - mean vx mean(g w) - a b)``.
    Hence the derivatives ``w P vx + vw h + vb`` in `g`, ``sum g P vx`` in `w`, ``g vw - r (b vx + a g w)`` in `h`, and ``F / r`` in `r`,
    where ``F = <P vx, g w>`` too.
    """

    @staticmethod
    def forward(ctx: Any, g: Tensor, h: Tensor, r: Tensor, w: Tensor, ends: tuple[bool, bool], curved: bool) -> Any:
        if not curved:  # the values are not read
            ctx.save_for_backward(None, h, r, w, None)
            return placeholder(g), placeholder(w), placeholder(w)
        product = g * h
        b = (product @ w).div_(h.shape[-1]).unsqueeze(-1)
        ctx.save_for_backward(g, h, r, w, b)
        gw = placeholder(w) if ends[0] else product.sum(_rows(g))
        return _projected(g, h, r, w), gw, placeholder(w) if ends[1] else g.sum(_rows(g))

    @staticmethod
    def backward(ctx: Any, vx: Tensor, vw: Tensor, vb: Tensor) -> Any:
        refuse_third()
        g, h, r, w, b = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        pushed = _projected(vx, h, r)
        grad_g = torch.addcmul(vb, h, vw).addcmul_(pushed, w) if wanted[0] else None
        grad_h = grad_r = grad_w = None
        if wanted[1] or wanted[2] or wanted[3]:
            product = pushed.mul_(g)
            grad_w = product.sum(_rows(g))
            grad_r = (product @ w).unsqueeze(-1).div_(r)
            a = (vx * h).mean(-1, keepdim=True)
            grad_h = torch.addcmul(vw, a * r, w, value=-1).mul_(g).addcmul_(vx, b * r, value=-1)
        return grad_g, grad_h if wanted[1] else None, grad_r if wanted[2] else None, grad_w if wanted[3] else None, None, None
