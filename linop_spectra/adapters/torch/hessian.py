"""Engines of Hessian products of one batch.

Order of choice, by layer types, sizes and purpose only. A kept product retains the graph of the gradient and runs backward
through it; with batch normalisation in evaluation mode it is the linearised gradient instead where batches are large, because
that graph is then slow. A product that is not kept builds the graph, uses it once and drops it. Reverse mode over forward mode is
never used: it is silently wrong for layer normalisation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from .context import linearized
from .errors import refuse_once_differentiable
from .vectors import Tensors

if TYPE_CHECKING:
    from .functions import TorchFunctions, TorchPoint

Product = Callable[[Tensors], Tensors]


class HessianEngine:
    """A product with the Hessian of one batch's summed loss, with its loss, terms, and a sentence on how it works."""

    def __init__(self, product: Product, loss_sum: float, num_terms: float, sentence: str) -> None:
        self.product, self.loss_sum, self.num_terms, self.sentence = product, loss_sum, num_terms, sentence


def hessian_engine(functions: TorchFunctions, point: TorchPoint, batch: Any, num_products: int | None) -> HessianEngine:
    """The engine for that many products, or for one that is kept (None)."""
    if num_products is None and functions.evaluated_batch_norm and functions.repays_linearizing(batch):
        try:
            engine = _linearized(functions, point, batch)
            functions.verify_linearized(
                "hessian", engine.product, lambda v: _double_backward(functions, point, batch, 1).product(v), point
            )
            return engine
        except (RuntimeError, NotImplementedError, TypeError, AssertionError) as error:
            functions.linearize_failure = f"{type(error).__name__}"
    return _double_backward(functions, point, batch, num_products)


def _double_backward(functions: TorchFunctions, point: TorchPoint, batch: Any, num_products: int | None) -> HessianEngine:
    leaves, total, loss_sum, num_terms = functions.differentiable_loss(point, batch)
    refuse_once_differentiable(total.grad_fn)
    gradient = functions.checked_gradient(point, batch, total, leaves, create_graph=True)
    # Entries that do not depend on the parameters have a zero second derivative.
    live = [i for i, g in enumerate(gradient) if g.requires_grad]
    retained = num_products != 1

    def product(v: Tensors) -> Tensors:
        if not live:
            return tuple(torch.zeros_like(leaf) for leaf in leaves)
        # A parameter that enters linearly has no second derivative: that is no sign of a missing one.
        rows = torch.autograd.grad(
            [gradient[i] for i in live], leaves, [v[i] for i in live], retain_graph=retained, allow_unused=True
        )
        return tuple(torch.zeros_like(leaf) if row is None else row for leaf, row in zip(leaves, rows, strict=True))

    if num_products is None:
        sentence = "Hessian products run backward through a retained graph of the gradient"
        if functions.linearize_failure:
            sentence += f", because linearising the gradient failed ({functions.linearize_failure})"
    else:
        sentence = "Hessian products run backward through a graph of the gradient that is built anew in each product"
    return HessianEngine(product, loss_sum, num_terms, sentence)


def _linearized(functions: TorchFunctions, point: TorchPoint, batch: Any) -> HessianEngine:
    loss_sum, num_terms = functions.loss_sum(point, batch)

    def loss(leaves: Tensors) -> Any:
        return functions.pure_loss(leaves, point.rest, batch)

    with functions.frozen_randomness():
        _, apply = linearized(torch.func.grad(loss), point.leaves)

    def product(v: Tensors) -> Tensors:
        return tuple(row.detach() for row in apply(v))

    return HessianEngine(
        product,
        loss_sum,
        num_terms,
        "Hessian products apply the gradient linearised once by torch.func.linearize, which is faster than a retained graph "
        "where batch normalisation is in evaluation mode",
    )
