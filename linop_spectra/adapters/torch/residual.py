"""Second derivatives of one batch's outputs, weighted by the gradient of the loss: what the Gauss-Newton matrix leaves out.

As a difference of two products it would be rounding where the outputs are linear in a parameter; here it is zero there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .errors import refuse_once_differentiable
from .vectors import Tensors

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

    def product(self, v: Tensors) -> Tensors:
        """The residual of the summed loss times `v`."""
        rows: tuple[Tensor | None, ...] = (None,) * len(self._leaves)
        if self._live:
            rows = torch.autograd.grad(
                [self._pulled[i] for i in self._live],
                self._leaves,
                [v[i] for i in self._live],
                retain_graph=self._retained,
                allow_unused=True,
            )
        return tuple(torch.zeros_like(leaf) if row is None else row for leaf, row in zip(self._leaves, rows, strict=True))
