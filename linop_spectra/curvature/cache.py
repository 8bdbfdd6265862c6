"""Linearizations of the batches: made at the first product, kept as far as the memory budget goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .._memory import format_bytes
from .linearization import Linearization

if TYPE_CHECKING:
    from .objective import Objective

# Data may take one half of memory_budget; what one operator keeps takes a quarter, so that two operators fit beside the data.
DATA_SHARE, OPERATOR_SHARE = 0.5, 0.25


class LinearizationCache:
    """The linearizations that one operator multiplies with.

    The first batches are kept until the budget is spent, the others are computed anew in each product. The rule looks at
    sizes and at the stated budget only, so that the same run takes the same plan twice.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._budget = int(OPERATOR_SHARE * objective.functions.memory_budget)
        self._kept: list[Linearization] = []
        self._spent = 0
        self._bytes_per_example: float | None = None
        self._full = False
        self._recomputed: Linearization | None = None

    def __call__(self, num_products: int) -> Iterator[Linearization]:
        """One linearization per batch, each to be multiplied with `num_products` vectors."""
        objective = self._objective
        yield from self._kept
        if len(self._kept) == objective.data.num_batches:
            return
        first = len(self._kept)
        for index, batch in enumerate(objective.batches()):
            if index >= first:
                linearization = self._next(batch, num_products)
                yield linearization

    def _next(self, batch: object, num_products: int) -> Linearization:
        functions, point = self._objective.functions, self._objective.point
        examples = max(1, self._objective.data.count(batch))
        if self._bytes_per_example is None:
            self._bytes_per_example = functions.retained_bytes(point, batch) / examples
        size = int(self._bytes_per_example * examples)
        self._full = self._full or self._spent + size > self._budget
        if self._full:
            self._recomputed = functions.linearize(point, batch, num_products=num_products)
            return self._recomputed
        linearization = functions.linearize(point, batch, num_products=None)
        self._kept.append(linearization)
        self._spent += size
        return linearization

    def sentence(self) -> str:
        """What is kept and what is not."""
        total = self._objective.data.num_batches
        budget = f"memory_budget allows {format_bytes(self._budget)} for an operator"
        if not self._full:
            return f"all {total} batches are kept, about {format_bytes(self._spent)} ({budget})"
        return (
            f"{len(self._kept)} of {total} batches are kept, about {format_bytes(self._spent)}, and the others computed anew in "
            f"each product ({budget})"
        )

    def engines(self) -> list[str]:
        """The engines in use, each once."""
        used = [*self._kept, *([self._recomputed] if self._recomputed is not None else [])]
        return list(dict.fromkeys(linearization.engine for linearization in used))
