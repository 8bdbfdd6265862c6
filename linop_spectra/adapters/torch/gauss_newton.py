"""Engines of Jacobian products of one batch's outputs, both ways.

A kept product retains the graph of the transposed product, which is linear in its argument, so that differentiating it gives the
product itself; so does one that is used for several vectors. Large layers have closed forms there. For a single vector one forward
pass with dual numbers gives the product, and its own graph the transposed one. Where forward mode is missing, the graph of the
transposed product serves there too.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .errors import refuse_once_differentiable
from .layer_derivatives import HigherDerivative
from .second_derivatives import second_derivatives
from .vectors import Only, Tensors

if TYPE_CHECKING:
    from .functions import TorchFunctions, TorchPoint


class JacobianEngine:
    """Jacobian products by a graph of the outputs; subclasses find ``jvp`` in other ways."""

    sentence = ""

    def __init__(self, functions: TorchFunctions, point: TorchPoint, batch: Any) -> None:
        self._functions, self._point, self._batch = functions, point, batch
        self._leaves: Tensors = functions.leaves(point)
        self._graph: Tensor | None = None

    @property
    def outputs(self) -> Tensor:
        """The outputs, without a graph."""
        return self._with_graph().detach()

    @property
    def ends(self) -> list[Tensor]:
        """Results whose graphs are kept."""
        return [] if self._graph is None else [self._graph]

    def _with_graph(self) -> Tensor:
        if self._graph is None:
            self._graph = self._functions.differentiable_outputs(self._leaves, self._point, self._batch)
        return self._graph

    def jvp(self, v: Tensors, only: Only = None) -> Tensor:
        """Jacobian times `v`."""
        raise TypeError(f"{type(self).__name__} does not define its product.")

    def vjp(self, u: Tensor, only: Only = None) -> Tensors:
        """Transposed Jacobian times `u`."""
        return self._functions.checked_gradient(
            self._point, self._batch, self._with_graph(), self._leaves, weights=u, retain_graph=True, only=only
        )


class DoubleReverse(JacobianEngine):
    """``J v`` as the derivative of ``J^T u`` in `u`, along `v`."""

    def __init__(self, functions: TorchFunctions, point: TorchPoint, batch: Any, sentence: str) -> None:
        super().__init__(functions, point, batch)
        self.sentence = sentence
        self._transposed: tuple[Tensor, list[Tensor], list[int]] | None = None
        if not functions.differentiates_inside:
            try:
                with second_derivatives(curved=False) as layers:
                    self._graph = functions.differentiable_outputs(self._leaves, point, batch)
                self.sentence += layers.sentence if layers is not None else ""
            except HigherDerivative:
                functions.differentiates_inside = True

    @property
    def ends(self) -> list[Tensor]:
        """Results whose graphs are kept."""
        return [*super().ends, *(self._transposed[1] if self._transposed is not None else ())]

    def jvp(self, v: Tensors, only: Only = None) -> Tensor:
        """Jacobian times `v`."""
        if self._transposed is None:
            outputs = self._with_graph()
            refuse_once_differentiable(outputs.grad_fn)
            # Any other value would do, too, but some functions take the logarithm of what runs back through them.
            u = _waves(outputs.detach()).requires_grad_()
            pulled = self._functions.checked_gradient(
                self._point, self._batch, outputs, self._leaves, weights=u, create_graph=True
            )
            live = [i for i, g in enumerate(pulled) if g.requires_grad]
            self._transposed = u, [pulled[i] for i in live], live
        u, pulled_live, live = self._transposed
        chosen = [(end, v[i]) for end, i in zip(pulled_live, live, strict=True) if only is None or i in only]
        if not chosen:
            return torch.zeros_like(u)
        ends, directions = zip(*chosen, strict=True)
        (slope,) = torch.autograd.grad(ends, u, directions, retain_graph=True, allow_unused=True)
        return torch.zeros_like(u) if slope is None else slope


class Dual(JacobianEngine):
    """``J v`` by one forward pass with dual numbers, whose own graph then gives ``J^T u``."""

    sentence = (
        "Gauss-Newton products run one forward pass with dual numbers and backward through its graph, anew in each product"
    )

    def jvp(self, v: Tensors, only: Only = None) -> Tensor:
        """Jacobian times `v`."""
        self._graph = None
        with forward_ad.dual_level():
            duals = tuple(
                forward_ad.make_dual(leaf, direction) if only is None or i in only else leaf
                for i, (leaf, direction) in enumerate(zip(self._leaves, v, strict=True))
            )
            outputs, slope = forward_ad.unpack_dual(self._functions.differentiable_outputs(duals, self._point, self._batch))
        self._graph = outputs
        return torch.zeros_like(outputs) if slope is None else slope.detach()


def jacobian_engine(functions: TorchFunctions, point: TorchPoint, batch: Any, num_products: int | None) -> JacobianEngine:
    """The engine for that many products, or for one that is kept (None)."""
    if num_products == 1 and not functions.forward_mode_failure:
        dual = Dual(functions, point, batch)
        try:
            _probe_forward_mode(functions, dual, point)
            return dual
        except (RuntimeError, NotImplementedError, ArithmeticError) as error:
            functions.forward_mode_failure = type(error).__name__
    sentence = "Gauss-Newton products run backward twice through a graph of the outputs that is "
    sentence += "retained" if num_products is None else "built anew in each product"
    if num_products == 1:
        sentence += ", because the model has no usable forward-mode derivative"
    return DoubleReverse(functions, point, batch, sentence)


def _probe_forward_mode(functions: TorchFunctions, engine: Dual, point: TorchPoint) -> None:
    """Find out once, on the first batch, whether forward mode exists for every layer, and is the transpose of reverse mode.

    Raises
    ------
    ArithmeticError
        When it is not; some functions' forward derivatives are wrong or not finite.
    """
    if functions.forward_mode_works:
        return
    v = tuple(leaf + _waves(leaf) for leaf in point.leaves)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        slope = engine.jvp(v)
        pulled = engine.vjp(slope)
    left, right = _inner((slope,), (slope,)), _inner(pulled, v)
    size = left + (_inner(pulled, pulled) * _inner(v, v)) ** 0.5
    if not abs(left - right) <= functions.unit_rounding**0.5 * size:
        raise ArithmeticError("Forward mode is not the transpose of reverse mode.")
    functions.forward_mode_works = True


def _waves(tensor: Tensor) -> Tensor:
    wide = torch.promote_types(tensor.dtype, torch.float32)
    return torch.arange(tensor.numel(), device=tensor.device, dtype=wide).cos_().to(tensor.dtype).view(tensor.shape)


def _inner(left: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    wide = [torch.promote_types(a.dtype, torch.float32) for a in left]
    return sum(
        float(torch.dot(a.reshape(-1).to(dtype), b.reshape(-1).to(dtype)))
        for a, b, dtype in zip(left, right, wide, strict=True)
    )
