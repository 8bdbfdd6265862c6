"""Second derivatives of one batch's outputs, weighted by the gradient of the loss: what the Gauss-Newton matrix leaves out.

As a difference of two products it would be rounding where the outputs are linear in a parameter; here it is zero there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .errors import refuse_once_differentiable
from .vectors import Only, Tensors, filled

if TYPE_CHECKING:
    from .functions import TorchFunctions, TorchPoint


class ResidualEngine:
    """Products by running backward through the graph of ``J^T c`` with constant weights `c` of the outputs."""

    def __init__(self, functions: TorchFunctions, point: TorchPoint, batch: Any, num_products: int | None) -> None:
        self._leaves: Tensors = functions.leaves(point)
        outputs = functions.differentiable_outputs(self._leaves, point, batch)
        seen: Tensor = outputs.detach()
        self.num_terms = functions.checked_loss(seen, batch)[1]
        refuse_once_differentiable(outputs.grad_fn)
        self._pulled = functions.checked_gradient(
            point, batch, outputs, self._leaves, weights=functions.output_gradient(seen, batch), create_graph=True
        )
        # Entries that do not depend on the parameters have a zero second derivative.
        self._live = [i for i, g in enumerate(self._pulled) if g.requires_grad]
        self._retained = num_products != 1
        self.sentence = "residual products run backward through a graph of the outputs' weighted gradient that is "
        self.sentence += "retained" if num_products is None else "built anew in each product"

    @property
    def ends(self) -> list[Tensor]:
        """Results whose graphs are kept."""
        return [self._pulled[i] for i in self._live]

    def product(self, v: Tensors, only: Only = None) -> Tensors:
        """The residual of the summed loss times `v`."""
        rows: tuple[Tensor | None, ...] = ()
        live = [i for i in self._live if only is None or i in only]
        inputs = range(len(self._leaves)) if only is None else only
        if live:
            rows = torch.autograd.grad(
                [self._pulled[i] for i in live],
                [self._leaves[i] for i in inputs],
                [v[i] for i in live],
                retain_graph=self._retained,
                allow_unused=True,
            )
        return filled(self._leaves, inputs, rows)
