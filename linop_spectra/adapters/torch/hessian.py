"""Engines of Hessian products of one batch.

A kept product retains the graph of the gradient and runs backward through it; one that is not kept builds the graph, uses it once
and drops it. Large layers have their second derivatives in closed form there. Reverse mode over forward mode is never used: it is
silently wrong for layer normalisation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .errors import refuse_once_differentiable
from .vectors import Only, Tensors, filled

if TYPE_CHECKING:
    from .functions import TorchFunctions, TorchPoint

Product = Callable[[Tensors, Only], Tensors]


class HessianEngine:
    """A product with the Hessian of one batch's summed loss, the ends of its graph, the loss's terms, and a sentence on how it works."""

    def __init__(self, product: Product, ends: list[Tensor], num_terms: float, sentence: str) -> None:
        self.product, self.ends, self.num_terms, self.sentence = product, ends, num_terms, sentence


def hessian_engine(functions: TorchFunctions, point: TorchPoint, batch: Any, num_products: int | None) -> HessianEngine:
    """The engine for that many products, or for one that is kept (None)."""
    graph = functions.differentiable_gradient(point, batch)
    refuse_once_differentiable(graph.total.grad_fn)
    leaves, gradient = graph.leaves, graph.gradient
    # Entries that do not depend on the parameters have a zero second derivative.
    live = [i for i, g in enumerate(gradient) if g.requires_grad]
    ends = [gradient[i] for i in live]
    retained = num_products != 1

    def product(v: Tensors, only: Only = None) -> Tensors:
        chosen = [i for i in live if only is None or i in only]
        inputs = range(len(leaves)) if only is None else only
        rows: tuple[Tensor | None, ...] = ()
        if chosen:
            # A parameter that enters linearly has no second derivative: that is no sign of a missing one.
            rows = torch.autograd.grad(
                [gradient[i] for i in chosen],
                [leaves[i] for i in inputs],
                [v[i] for i in chosen],
                retain_graph=retained,
                allow_unused=True,
            )
        return filled(leaves, inputs, rows)

    sentence = "Hessian products run backward through a graph of the gradient that is built anew in each product"
    if num_products is None:
        sentence = "Hessian products run backward through a retained graph of the gradient"
    return HessianEngine(product, ends, graph.num_terms, sentence + graph.closed_forms)
