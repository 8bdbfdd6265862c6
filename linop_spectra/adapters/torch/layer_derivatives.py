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
from collections.abc import Callable
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

    @staticmethod
    def ends(parameter: Tensor | None) -> bool:
        """Whether the gradient in a parameter is an end of the graph, so that nothing reads its value."""
        return parameter is not None and parameter.is_leaf


def placeholder(like: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
    """Stands for an array whose value nothing reads, without its memory."""
    return like.new_ones(()).expand(like.shape if shape is None else shape)


def refuse_third() -> None:
    """Raise inside the backward pass of a gradient that will be differentiated once more."""
    if torch.is_grad_enabled():
        raise HigherDerivative()


# -- elementwise functions ---------------------------------------------------------------------------------------------------


class Relu(Function):
    """``max(x, 0)``. Its gradient is linear in `g` with a mask, for which torch itself adds up zeros as a second derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, in_place: bool, purpose: Purpose) -> Tensor:
        if in_place:
            y = x.relu_()
            ctx.mark_dirty(y)
        else:
            y = torch.relu(x)
        ctx.purpose = purpose
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        if ctx.purpose.curved or not torch.is_grad_enabled():
            return _aten.threshold_backward(g, y.detach(), 0), None, None
        return _ReluBackward.apply(g, y.detach()), None, None


class _ReluBackward(Function):
    """The masked gradient where its value is not read."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(y)
        return placeholder(g)

    @staticmethod
    def backward(ctx: Any, vx: Tensor) -> Any:
        refuse_third()
        return _aten.threshold_backward(vx, ctx.saved_tensors[0], 0), None


def _gelu(x: Tensor, slope: Tensor, bend: Tensor) -> None:
    """Derivatives of ``x Phi(x)``: ``Phi(x) + x phi(x)`` and ``phi(x) (2 - x^2)``."""
    torch.mul(x, x, out=bend)
    density = (bend * -0.5).exp_().mul_(1 / math.sqrt(2 * math.pi))
    torch.mul(x, math.sqrt(0.5), out=slope).erf_().mul_(0.5).add_(0.5).addcmul_(x, density)
    bend.neg_().add_(2).mul_(density)


def _gelu_tanh(x: Tensor, slope: Tensor, bend: Tensor) -> None:
    """Derivatives of ``x (1 + t) / 2``, where ``t = tanh(u)`` and ``u = k (x + c x^3)``.

    They are ``(1 + t + x (1 - t^2) u') / 2`` and ``(1 - t^2) (u' - x (t u'^2 - u'' / 2))``, and ``u'' = 6 k c x``.
    """
    k, c = math.sqrt(2 / math.pi), 0.044715
    rate = torch.mul(x, x, out=slope)
    t = torch.addcmul(x, x, rate, value=c).mul_(k).tanh_()
    rate.mul_(3 * k * c).add_(k)
    torch.mul(rate, rate, out=bend).mul_(t).sub_(x, alpha=3 * k * c)
    torch.addcmul(rate, x, bend, value=-1, out=bend)
    _aten.tanh_backward.grad_input(bend, t, grad_input=bend)
    _aten.tanh_backward.grad_input(rate.mul_(x), t, grad_input=slope)
    slope.add_(t).add_(1).mul_(0.5)


def _silu(x: Tensor, slope: Tensor, bend: Tensor) -> None:
    """Derivatives of ``x s``, where ``s`` is the sigmoid of `x`: ``s (1 + x (1 - s))`` and ``s (1 - s) (2 + x (1 - 2 s))``."""
    s = torch.sigmoid(x)
    torch.mul(s, -2, out=bend).add_(1).mul_(x).add_(2)
    _aten.sigmoid_backward.grad_input(bend, s, grad_input=bend)
    torch.sub(x, torch.mul(x, s, out=slope), out=slope).add_(1).mul_(s)


# Value, both derivatives, and a magnitude of the input from where on the derivatives are constant to rounding; beyond it their
# formulas could overflow to zero times infinity.
_POINTWISE: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor, Tensor], None], float]] = {
    "gelu": (torch.nn.functional.gelu, _gelu, 50.0),
    "gelu_tanh": (lambda x: torch.nn.functional.gelu(x, approximate="tanh"), _gelu_tanh, 50.0),
    "silu": (torch.nn.functional.silu, _silu, 1000.0),
}
_PIECE = 1 << 15
"""Elements that a chain of operations works on at a time, so that what is in between stays near the processor."""


def _derivatives(name: str, x: Tensor) -> tuple[Tensor, Tensor]:
    _, both, bound = _POINTWISE[name]
    rows = x.reshape(-1)
    slope, bend = torch.empty_like(rows), torch.empty_like(rows)
    size = _PIECE if x.device.type == "cpu" else max(1, rows.numel())
    for part, *out in zip(rows.split(size), slope.split(size), bend.split(size), strict=True):
        both(part.clamp(-bound, bound), *out)
    return slope.view(x.shape), bend.view(x.shape)


class Pointwise(Function):
    """A smooth function ``f`` of each element: ``gx = g f'(x)``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, name: str, purpose: Purpose) -> Tensor:
        slope, bend = _derivatives(name, x)
        ctx.purpose = purpose
        ctx.save_for_backward(x, slope, bend if purpose.curved else None)
        return _POINTWISE[name][0](x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, slope, bend = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return g * slope, None, None
        ctx.purpose.check()
        return _PointwiseBackward.apply(g, x, slope, bend), None, None


class _PointwiseBackward(Function):
    """``g f'(x)``, whose derivatives are ``vx f'(x)`` in `g` and ``vx g f''(x)`` in `x`."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, slope: Tensor, bend: Tensor | None) -> Tensor:
        ctx.save_for_backward(slope, None if bend is None else bend * g)
        return placeholder(g) if bend is None else g * slope  # the value is read only where there is curvature

    @staticmethod
    def backward(ctx: Any, vx: Tensor) -> Any:
        refuse_third()
        slope, bent = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        return vx * slope if wanted[0] else None, vx * bent if bent is not None and wanted[1] else None, None, None


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
        return _SoftmaxBackward.apply(g, y, ctx.dim, ctx.purpose.curved), None, None


class _SoftmaxBackward(Function):
    """``y c`` with ``c = g - <g, y>``.

    With ``z = vx - <vx, y>`` the derivatives are ``y z`` in `g` and ``vx c - <vx, y> g = z c - <vx, y> <g, y>`` in `y`.
    """

    @staticmethod
    def forward(ctx: Any, g: Tensor, y: Tensor, dim: int, curved: bool) -> Tensor:
        ctx.dim, ctx.curved = dim, curved
        if not curved:  # the value is not read
            ctx.save_for_backward(y)
            return placeholder(g)
        product = g * y
        inner = product.sum(dim, keepdim=True)
        centred = torch.sub(g, inner, out=product)
        ctx.save_for_backward(y, centred, inner)
        return y * centred

    @staticmethod
    def backward(ctx: Any, vx: Tensor) -> Any:
        refuse_third()
        if not ctx.curved:
            (y,) = ctx.saved_tensors
            return torch._softmax_backward_data(vx, y, ctx.dim, vx.dtype), None, None, None
        y, centred, inner = ctx.saved_tensors
        product = vx * y
        moved = product.sum(ctx.dim, keepdim=True)
        z = torch.sub(vx, moved, out=product)
        grad_y = torch.addcmul(moved.mul_(inner).neg_(), z, centred)
        return z.mul_(y), grad_y, None, None


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
        ctx.geometry, ctx.purpose, ctx.ends = geometry, purpose, (purpose.ends(w), purpose.ends(b))
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
        return *_ConvolutionBackward.apply(g, x, w, ctx.geometry, mask, ctx.ends, ctx.purpose.curved), None, None


class _ConvolutionBackward(Function):
    """The gradients, for which ``S = <g, C(vx, w) + C(x, vw) + vb>``: its derivatives are read off."""

    @staticmethod
    def forward(
        ctx: Any,
        g: Tensor,
        x: Tensor,
        w: Tensor,
        geometry: Geometry,
        mask: tuple[bool, bool, bool],
        ends: tuple[bool, bool],
        curved: bool,
    ) -> Any:
        ctx.geometry, ctx.shape = geometry, g.shape
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(g if curved else None, x, w)
        read = (mask[0] and curved, mask[1] and curved and not ends[0], mask[2] and curved and not ends[1])
        found = geometry.backward(g, x, w, read) if any(read) else (None, None, None)
        shapes = (x.shape, w.shape, g.shape[1:2])
        return tuple(
            value if given else placeholder(g, shape) if asked else None
            for value, given, asked, shape in zip(found, read, mask, shapes, strict=True)
        )

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
                grad_g = vb.view(1, -1, *[1] * (len(ctx.shape) - 2)).expand(ctx.shape)
            if vx is not None:
                pushed = geometry.forward(vx, w, None)
                grad_g = pushed if grad_g is None else pushed.add_(grad_g)
        if wanted[1] and vw is not None:
            grad_x = geometry.backward(g, x, vw, (True, False, False))[0]
        if wanted[2] and vx is not None:
            grad_w = geometry.backward(g, vx, w, (False, True, False))[1]
        return grad_g, grad_x, grad_w, None, None, None, None
