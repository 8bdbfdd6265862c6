"""Forward passes at several points at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...curvature.cache import OPERATOR_SHARE
from ...curvature.out_of_memory import is_out_of_memory
from .batches import leaves
from .losses import OutputLoss

if TYPE_CHECKING:
    from .functions import TorchFunctions, TorchPoint

MOST_POINTS = 32
_ARRAYS = 2


class Together:
    """Outputs at several points, by one pass of batched matrix products where that is less work.

    It is for networks all of whose parameters are matrices and vectors, in which the calls cost more than the arithmetic as long as
    they are small. Convolutions with a kernel for each point are slower than one after the other.

    Parameters
    ----------
    functions : TorchFunctions
        The model.
    """

    def __init__(self, functions: TorchFunctions) -> None:
        self._functions, self._works = functions, True

    def count(self, point: TorchPoint, batch: Any) -> int:
        """Points at once that fit an operator's share of the memory budget; 1 where they go one after the other."""
        functions = self._functions
        plain = all(x.ndim <= 2 for x in (*point.leaves, *point.rest.values())) and type(functions.loss).outputs is OutputLoss.outputs
        if not (self._works and plain) or functions._recurrent:
            return 1
        # A few arrays as wide as the layers, with a row for each example or token.
        rows = max((x.numel() // max(1, x.shape[-1] if x.ndim > 1 and x.is_floating_point() else 1) for x in leaves(batch)), default=1)
        width = sum(max(leaf.shape, default=1) * leaf.itemsize for leaf in point.leaves)
        size = _ARRAYS * rows * width + sum(leaf.nbytes for leaf in point.leaves)
        return max(1, min(MOST_POINTS, int(OPERATOR_SHARE * functions.memory_budget / size)))

    def outputs(self, points: Sequence[TorchPoint], batch: Any) -> Iterator[Tensor]:
        """The outputs at each point."""
        most = self.count(points[0], batch) if len(points) > 1 else 1
        for first in range(0, len(points), most):
            group = points[first : first + most]
            found = self._batched(group, batch) if len(group) > 1 else None
            yield from (self._functions.outputs_at(point, batch) for point in group) if found is None else found

    def _batched(self, points: Sequence[TorchPoint], batch: Any) -> Tensor | None:
        functions, rest = self._functions, points[0].rest
        if not functions.looked or any(point.rest is not rest for point in points):
            return None
        stacked = tuple(torch.stack(pieces) for pieces in zip(*(point.leaves for point in points), strict=True))
        try:
            with torch.no_grad(), functions.frozen_randomness():
                outputs: Tensor = torch.func.vmap(lambda *own: functions.pure_outputs(own, rest, batch))(*stacked)
        except Exception as error:  # a function without a rule for several points, random numbers, values that Python looks at
            if is_out_of_memory(error):
                raise
            self._works = False
            return None
        return outputs
