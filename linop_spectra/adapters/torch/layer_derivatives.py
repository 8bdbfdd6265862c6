"""Layers whose second derivatives are given in closed form, as pairs of differentiable functions.

Torch differentiates the fused backward kernel of a layer by a chain of elementary operations, which runs in every product and
often computes what nobody asked for. Here the backward pass of a layer is a function of its own, whose derivative is written
down: what depends on the parameters only is computed when the graph is built, the rest in as few passes over memory as possible.

Throughout, `g` is the gradient in the layer's outputs, and `vx`, `vw`, `vb` are the directions that run back through the
gradients in its inputs, weight and bias: the second backward pass differentiates ``S = <vx, gx> + <vw, gw> + <vb, gb>``.
The pairs are right for two derivatives; a third raises `HigherDerivative`, and never is a wrong number.
"""

# ruff: noqa: D102 -- forward and backward are torch's, and the formulas stand with the classes
# mypy: disable-error-code="no-untyped-call, misc"

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

_aten = torch.ops.aten


class HigherDerivative(Exception):
    """A model or loss differentiates inside itself, so that its curvature needs third derivatives of its layers.

    Not a RuntimeError, which would be taken for a failure of the model.
    """

    def __init__(self) -> None:
        super().__init__("A gradient inside the model needs a third derivative of a layer whose second one is in closed form.")


@dataclasses.dataclass(eq=False)
class Purpose:
    """What a graph is for.

    Attributes
    ----------
    curved : bool
        Whether the gradient will be differentiated in inputs and weights of the layers. Otherwise it counts as a linear function of
        the gradient in the outputs, which is all that the product with a Jacobian needs.
    scale : float
        Sizes are judged as though arrays were so many times as large.
    is_open : bool
        Whether the forward pass still runs.
    """

    curved: bool
    scale: float = 1.0
    is_open: bool = True

    def check(self) -> None:
        """Raise inside a gradient that is part of the forward pass."""
        if self.is_open:
            raise HigherDerivative()


def refuse_third() -> None:
    """Raise inside the backward pass of a gradient that will be differentiated once more."""
    if torch.is_grad_enabled():
        raise HigherDerivative()


# -- elementwise functions ---------------------------------------------------------------------------------------------------


class Relu(Function):
    """``max(x, 0)``. Its gradient is linear in `g` with a mask, for which torch itself adds up zeros as a second derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, in_place: bool) -> Tensor:
        if in_place:
            y = x.relu_()
            ctx.mark_dirty(y)
        else:
            y = torch.relu(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return _aten.threshold_backward(g, y.detach(), 0), None


def _gelu(x: Tensor) -> Tensor:
    """Second derivative of ``x Phi(x)``: ``phi(x) (2 - x^2)``."""
    squares = x * x
    density = (squares * -0.5).exp_().mul_(1 / math.sqrt(2 * math.pi))
    return density.mul_(squares.neg_().add_(2))


def _gelu_tanh(x: Tensor) -> Tensor:
    """Second derivative of ``x (1 + t) / 2``, where ``t = tanh(u)``, ``u = k (x + c x^3)``: ``(1 - t^2) (u' + x (u'' - 2 t u'^2) / 2)``."""
    k, c = math.sqrt(2 / math.pi), 0.044715
    squares = x * x
    t = (squares * c).add_(1).mul_(x).mul_(k).tanh_()
    slope = squares.mul_(3 * k * c).add_(k)
    bend = (slope * slope).mul_(t).mul_(-2).add_(x, alpha=6 * k * c)
    return bend.mul_(x).mul_(0.5).add_(slope).mul_(t.mul_(t).neg_().add_(1))


def _silu(x: Tensor) -> Tensor:
    """Second derivative of ``x s``, where ``s`` is the sigmoid of `x`: ``s (1 - s) (2 + x (1 - 2 s))``."""
    s = torch.sigmoid(x)
    bend = (s * -2).add_(1).mul_(x).add_(2).mul_(s)
    return bend.mul_(s.neg_().add_(1))


def _gelu_slope(x: Tensor, approximate: str) -> Tensor:
    return _aten.gelu_backward(x.new_ones(()).expand_as(x), x, approximate=approximate)


# Value, first and second derivative, and a magnitude of the input from where on the derivatives are constant to rounding;
# beyond it their formulas could overflow to zero times infinity.
_POINTWISE: dict[str, tuple[Any, Any, Any, float]] = {
    "gelu": (torch.nn.functional.gelu, lambda x: _gelu_slope(x, "none"), _gelu, 50.0),
    "gelu_tanh": (
        lambda x: torch.nn.functional.gelu(x, approximate="tanh"), lambda x: _gelu_slope(x, "tanh"), _gelu_tanh, 50.0
    ),
    "silu": (torch.nn.functional.silu, lambda x: _aten.silu_backward(x.new_ones(()).expand_as(x), x), _silu, 1000.0),
}  # fmt: skip


class Pointwise(Function):
    """A smooth function ``f`` of each element: ``gx = g f'(x)``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, name: str, purpose: Purpose) -> Tensor:
        value, slope, _, bound = _POINTWISE[name]
        ctx.name, ctx.purpose = name, purpose
        ctx.save_for_backward(x, slope(x.clamp(-bound, bound)))
        return value(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, slope = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return g * slope, None, None
        ctx.purpose.check()
        return _PointwiseBackward.apply(g, x, slope, ctx.name) if ctx.purpose.curved else g * slope, None, None


class _PointwiseBackward(Function):
    """``g f'(x)``, whose derivatives are ``vx f'(x)`` in `g` and ``vx g f''(x)`` in `x`."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, slope: Tensor, name: str) -> Tensor:
        _, _, bend, bound = _POINTWISE[name]
        ctx.save_for_backward(slope, bend(x.clamp(-bound, bound)).mul_(g))
        return g * slope

    @staticmethod
    def backward(ctx: Any, vx: Tensor) -> Any:
        refuse_third()
        slope, bend = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        return vx * slope if wanted[0] else None, vx * bend if wanted[1] else None, None, None


# -- softmax -------------------------------------------------------------------------------------------------------------------


class Softmax(Function):
    """``y = softmax(x)``: ``gx = y (g - <g, y>)``, a function of the outputs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, purpose: Purpose) -> Tensor:
        y = torch.softmax(x, dim)
        ctx.dim, ctx.purpose = dim, purpose
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return torch._softmax_backward_data(g, y, ctx.dim, g.dtype), None, None
        ctx.purpose.check()
        if not ctx.purpose.curved:
            return torch._softmax_backward_data(g, y.detach(), ctx.dim, g.dtype), None, None
        return _SoftmaxBackward.apply(g, y, ctx.dim), None, None


class _SoftmaxBackward(Function):
    """``y c`` with ``c = g - <g, y>``.

    With ``z = vx - <vx, y>`` the derivatives are ``y z`` in `g` and ``vx c - <vx, y> g = z c - <vx, y> <g, y>`` in `y`.
    """

    @staticmethod
    def forward(ctx: Any, g: Tensor, y: Tensor, dim: int) -> Tensor:
        product = g * y
        inner = product.sum(dim, keepdim=True)
        centred = torch.sub(g, inner, out=product)
        ctx.dim = dim
        ctx.save_for_backward(y, centred, inner)
        return y * centred

    @staticmethod
    def backward(ctx: Any, vx: Tensor) -> Any:
        refuse_third()
        y, centred, inner = ctx.saved_tensors
        product = vx * y
        moved = product.sum(ctx.dim, keepdim=True)
        z = torch.sub(vx, moved, out=product)
        grad_y = torch.addcmul(moved.mul_(inner).neg_(), z, centred)
        return z.mul_(y), grad_y, None


# -- convolution ---------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Stride, padding and dilation of each axis, whether the convolution is transposed, and the number of groups."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int

    def forward(self, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        """``C(x, w) + b``, linear in `x` and in `w`."""
        return torch.convolution(
            x, w, b, self.stride, self.padding, self.dilation, self.transposed, self.output_padding, self.groups
        )

    def backward(self, g: Tensor, x: Tensor, w: Tensor, mask: tuple[bool, bool, bool]) -> tuple[Tensor, ...]:
        """Gradients of ``<g, C(x, w) + b>`` in `x`, `w` and `b`, as far as `mask` asks for them."""
        return _aten.convolution_backward(
            g, x, w, [g.shape[1]], self.stride, self.padding, self.dilation, self.transposed, self.output_padding, self.groups, list(mask)
        )


class Convolution(Function):
    """``y = C(x, w) + b``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None, geometry: Geometry, purpose: Purpose) -> Tensor:
        ctx.geometry, ctx.purpose = geometry, purpose
        ctx.save_for_backward(x, w)
        return geometry.forward(x, w, b)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, w = ctx.saved_tensors
        mask = ctx.needs_input_grad[:3]
        if not torch.is_grad_enabled():
            return *ctx.geometry.backward(g, x, w, mask), None, None
        ctx.purpose.check()
        if not ctx.purpose.curved:
            x, w = x.detach(), w.detach()
        return *_ConvolutionBackward.apply(g, x, w, ctx.geometry, mask), None, None


class _ConvolutionBackward(Function):
    """The gradients, for which ``S = <g, C(vx, w) + C(x, vw) + vb>``: its derivatives are read off."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, w: Tensor, geometry: Geometry, mask: tuple[bool, bool, bool]) -> Any:
        ctx.geometry = geometry
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(g, x, w)
        return tuple(geometry.backward(g, x, w, mask))

    @staticmethod
    def backward(ctx: Any, vx: Tensor | None, vw: Tensor | None, vb: Tensor | None) -> Any:
        refuse_third()
        g, x, w = ctx.saved_tensors
        geometry, wanted = ctx.geometry, ctx.needs_input_grad
        grad_g = grad_x = grad_w = None
        if wanted[0]:
            if vw is not None:
                grad_g = geometry.forward(x, vw, vb)
            elif vb is not None:
                grad_g = vb.view(1, -1, *[1] * (g.dim() - 2)).expand(g.shape)
            if vx is not None:
                pushed = geometry.forward(vx, w, None)
                grad_g = pushed if grad_g is None else pushed.add_(grad_g)
        if wanted[1] and vw is not None:
            grad_x = geometry.backward(g, x, vw, (True, False, False))[0]
        if wanted[2] and vx is not None:
            grad_w = geometry.backward(g, vx, w, (False, True, False))[1]
        return grad_g, grad_x, grad_w, None, None
