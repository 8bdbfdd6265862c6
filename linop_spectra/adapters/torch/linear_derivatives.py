"""Affine layers whose second derivatives are given in closed form; the conventions are those of `layer_derivatives`.

A product with the Hessian never reads the gradient in a weight, only what that depends on, so that a third of a gradient is spared
where the graph is built.
"""

# ruff: noqa: D102 -- forward and backward are torch's, and the formulas stand with the classes
# mypy: disable-error-code="no-untyped-call, misc"

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .layer_derivatives import Purpose, placeholder, refuse_third


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


class Linear(Function):
    """``y = x w^T + b`` for each row of `x`: ``gx = g w``, ``gw = g^T x``, ``gb`` the sum of the rows of `g`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None, purpose: Purpose) -> Tensor:
        ctx.purpose, ctx.ends = purpose, (purpose.ends(w), purpose.ends(b))
        ctx.save_for_backward(x, w)
        return torch.nn.functional.linear(x, w, b)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, w = ctx.saved_tensors
        mask = ctx.needs_input_grad[:3]
        if not torch.is_grad_enabled():
            rows = _rows(g)
            gx = (rows @ w).view(x.shape) if mask[0] else None
            return gx, rows.t() @ _rows(x) if mask[1] else None, rows.sum(0) if mask[2] else None, None
        ctx.purpose.check()
        if not ctx.purpose.curved:
            x, w = x.detach(), w.detach()
        return *_LinearBackward.apply(g, x, w, mask, ctx.ends, ctx.purpose.curved), None


class _LinearBackward(Function):
    """The gradients, for which ``S = <g, vx w^T + x vw^T + vb>``: its derivatives are read off."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, w: Tensor, mask: tuple[bool, bool, bool], ends: tuple[bool, bool], curved: bool
    ) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(g if curved else None, x, w)
        ctx.shape = g.shape
        rows = _rows(g)
        gx = gw = gb = None
        if mask[0]:
            gx = (rows @ w).view(x.shape) if curved else placeholder(x)
        if mask[1]:
            gw = rows.t() @ _rows(x) if curved and not ends[0] else placeholder(w)
        if mask[2]:
            gb = rows.sum(0) if curved and not ends[1] else placeholder(g, g.shape[-1:])
        return gx, gw, gb

    @staticmethod
    def backward(ctx: Any, vx: Tensor | None, vw: Tensor | None, vb: Tensor | None) -> Any:
        refuse_third()
        g, x, w = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        grad_g = grad_x = grad_w = None
        if wanted[0]:
            pushed: Tensor | None = None
            for rows, weight in ((x, vw), (vx, w)):
                if rows is None or weight is None:
                    continue
                if pushed is not None:
                    pushed.addmm_(_rows(rows), weight.t())
                elif vb is not None:
                    pushed = torch.addmm(vb, _rows(rows), weight.t())
                else:
                    pushed = _rows(rows) @ weight.t()
            if pushed is not None:
                grad_g = pushed.view(ctx.shape)
            elif vb is not None:
                grad_g = vb.expand(ctx.shape)
        if wanted[1] and vw is not None:
            grad_x = (_rows(g) @ vw).view(x.shape)
        if wanted[2] and vx is not None:
            grad_w = _rows(g).t() @ _rows(vx)
        return grad_g, grad_x, grad_w, None, None, None
