"""Linearizations of the batches: made at the first product, kept as far as the memory budget goes."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .._memory import format_bytes
from .linearization import Batch, Linearization, SupportsSize
from .out_of_memory import Pieces

if TYPE_CHECKING:
    from .objective import Objective

# Data may take one half of memory_budget; what one operator keeps takes a quarter, so that two operators fit beside the data.
DATA_SHARE, OPERATOR_SHARE = 0.5, 0.25


@dataclasses.dataclass
class Part:
    """One batch with its linearization.

    Attributes
    ----------
    batch : object
        The prepared batch.
    linearization : Linearization
        Its derivatives.
    kept : bool
        Whether the next product meets the same object.
    index : int
        Of the batch in the data; pieces of one batch have the same, in their order.
    notes : dict
        What an operator wants to find again in its next product, where the part is kept.
    """

    batch: Batch
    linearization: Linearization
    kept: bool
    index: int = 0
    notes: dict[Any, Any] = dataclasses.field(default_factory=dict)


class LinearizationCache:
    """The linearizations that one operator multiplies with.

    The first batches are kept until the budget is spent, the others are computed anew in each product. The rule looks at
    sizes and at the stated budget only, so that the same run takes the same plan twice. Where a linearization can say its size only
    after a product, the first one is made to be kept, and dropped again if it is too large: a product that keeps nothing holds as
    much for a while.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._budget = int(OPERATOR_SHARE * objective.functions.memory_budget)
        self._kept: list[Part] = []
        self._spent = 0
        self._bytes_per_example: float | None = None
        self._full = False
        self._recomputed: Linearization | None = None
        self.one_by_one = False
        self.pieces = Pieces(objective)

    def __call__(self, num_products: int) -> Iterator[Linearization]:
        """One linearization per batch, each to be multiplied with `num_products` vectors."""
        return (part.linearization for part in self.parts(num_products))

    def parts(self, num_products: int) -> Iterator[Part]:
        """The same with the batches, in their order."""
        objective = self._objective
        yield from self._kept
        if len(self._kept) == objective.data.num_batches:
            return
        first = len(self._kept)
        # Choosing a batch size takes memory as well: not again once that ran out.
        for index, batch in enumerate(objective.batches() if self.pieces.count == 1 else objective.data):
            if index >= first:
                for piece in self.pieces.of(batch):
                    yield from self._next(piece, index, num_products)

    def retreat(self) -> bool:
        """Take the next smaller plan after memory ran out; False where there is none.

        The steps: forget what is kept and keep nothing, one vector at a time, batches in halves, quarters, ... down to single
        examples, as far as the loss adds up over the pieces.
        """
        if not self._full or self._kept:
            self._kept, self._spent, self._full = [], 0, True
            step = "nothing is kept between products any more"
        elif not self.one_by_one:
            self.one_by_one = True
            step = "vectors are multiplied one at a time"
        else:
            with self._objective.functions.session():
                if not self.pieces.halve():
                    return False
            step = f"each batch is cut into {self.pieces.count} pieces"
        self._recomputed = None
        warnings.warn(f"Memory ran out inside a product: {step}.", UserWarning, stacklevel=2)
        return True

    def _next(self, batch: Batch, index: int, num_products: int) -> Iterator[Part]:
        functions, point = self._objective.functions, self._objective.point
        examples = max(1, self._objective.data.count(batch))
        if not self._full:
            linearization = functions.linearize(point, batch, num_products=None)
            tells = isinstance(linearization, SupportsSize)
            if self._bytes_per_example is None and not tells:
                self._bytes_per_example = functions.retained_bytes(point, batch) / examples
            # Of the first one that can say its size no more is known yet than that it has one.
            expected = 1 if self._bytes_per_example is None else int(self._bytes_per_example * examples)
            if self.reserve(expected):
                part = Part(batch, linearization, kept=True, index=index)
                try:
                    yield part
                except GeneratorExit:  # the product failed
                    self._spent = max(0, self._spent - expected)
                    raise
                if self._bytes_per_example is None:
                    size = linearization.num_bytes() if isinstance(linearization, SupportsSize) else None
                    size = max(1, functions.retained_bytes(point, batch) if size is None else size)
                    self._bytes_per_example = size / examples
                    self._spent -= expected
                    self._full = not self.reserve(size)
                if not self._full:
                    self._kept.append(part)
                return
        self._full = True
        self._recomputed = functions.linearize(point, batch, num_products=num_products)
        yield Part(batch, self._recomputed, kept=False, index=index)

    def reserve(self, size: int) -> bool:
        """Whether `size` more bytes may be kept; if so they count as spent."""
        if not self.fits(size):
            return False
        self._spent += size
        return True

    def fits(self, size: int) -> bool:
        """Whether `size` more bytes are within the budget."""
        return self._spent + size <= self._budget

    def sentence(self) -> str:
        """What is kept and what is not."""
        total = self._objective.data.num_batches
        budget = f"memory_budget allows {format_bytes(self._budget)} for an operator"
        if not self._full:
            return f"all {total} batches are kept, about {format_bytes(self._spent)} ({budget})"
        pieces = f", {self.pieces.sentence()}" if self.pieces.count > 1 else ""
        return (
            f"{len(self._kept)} of {total} batches are kept, about {format_bytes(self._spent)}, and the others computed anew in "
            f"each product{pieces} ({budget})"
        )

    def engines(self) -> list[str]:
        """The engines in use, each once."""
        used = [*(part.linearization for part in self._kept), *([self._recomputed] if self._recomputed is not None else [])]
        return list(dict.fromkeys(linearization.engine for linearization in used))
