"""Memory that runs out inside a computation: which exceptions say so, smaller plans, and whether a batch may be cut into pieces."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from .linearization import Batch, ModelFunctions, Point
    from .objective import Objective

T = TypeVar("T")
_TYPES = ("MemoryError", "OutOfMemoryError", "ResourceExhaustedError")
_FEW = 8
_ADVICE = "Pass a smaller batch_size, fewer parameters= or a device with more memory."
_MARKS = ("out of memory", "can't allocate memory", "not enough memory", "resource_exhausted", "oom when allocating")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of any framework says that memory ran out.

    Examples
    --------
    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    (True, True)
    >>> is_out_of_memory(RuntimeError("shapes do not fit"))
    False
    """
    if any(base.__name__ in _TYPES for base in type(error).__mro__):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(mark in text for mark in _MARKS)


def cut(functions: ModelFunctions, batch: Batch, examples: int, pieces: int) -> list[Batch]:
    """A batch in at most that many pieces of whole examples; the batch itself where it cannot be cut."""
    size = -(-examples // pieces)
    parts = [functions.take(batch, np.arange(first, min(first + size, examples))) for first in range(0, examples, size)]
    return [batch] if any(part is None for part in parts) else parts


def in_smaller_plans(compute: Callable[[], T], retreat: Callable[[], bool], plan: Callable[[], str]) -> T:
    """What `compute` gives, by as small a plan as memory asks for.

    Parameters
    ----------
    compute : callable
        Called again, from its beginning, after each step back.
    retreat : callable
        Takes the next smaller plan; False where there is none.
    plan : callable
        The plan in words, for the error.

    Raises
    ------
    MemoryError
        When memory runs out in the smallest plan.

    Examples
    --------
    >>> sizes = [4, 2, 1]
    >>> def compute():
    ...     if sizes[0] > 1:
    ...         raise MemoryError
    ...     return sizes[0]
    >>> in_smaller_plans(compute, lambda: bool(sizes.pop(0)), lambda: f"pieces of {sizes[0]}")
    1
    """
    while True:
        try:
            return compute()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).strip().partition("\n")[0]
        # Outside of the handler, whose traceback holds the arrays of what failed.
        if not retreat():
            raise MemoryError(f"Memory ran out in the smallest plan: {plan()}. {_ADVICE} ({reason})")


class Pieces:
    """Into how many pieces of whole examples each batch is cut: one, until memory runs out, then twice as many each time.

    Parameters
    ----------
    objective : Objective
        Whose batches they are.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self.count = 1

    def of(self, batch: Batch) -> list[Batch]:
        """The pieces of a batch."""
        objective = self._objective
        return [batch] if self.count == 1 else cut(objective.functions, batch, objective.data.count(batch), self.count)

    def batches(self) -> Iterator[Batch]:
        """One pass over the pieces of all batches."""
        # Choosing a batch size takes memory as well: not again once that ran out.
        for batch in self._objective.batches() if self.count == 1 else self._objective.data:
            yield from self.of(batch)

    def halve(self) -> bool:
        """Cut further; False where the batches are single examples already, or the loss does not add up over pieces."""
        data, functions, point = self._objective.data, self._objective.functions, self._objective.point
        largest = max(data.count(batch) for batch in data)
        if self.count >= largest:
            return False
        if self.count == 1:
            first = next(iter(data))
            if not separable(functions, point, first, data.count(first)):
                return False
        self.count = min(2 * self.count, largest)
        return True

    def retreat(self) -> bool:
        """The same, saying so; for passes that keep nothing."""
        with self._objective.functions.session():
            smaller = self.halve()
        if smaller:
            warnings.warn(
                f"Memory ran out inside a pass over the data: each batch is cut into {self.count} pieces.", UserWarning, stacklevel=2
            )
        return smaller

    def sentence(self) -> str:
        """The plan in words."""
        return f"each batch in {self.count} pieces" if self.count > 1 else "whole batches, which cannot be cut"


def separable(functions: ModelFunctions, point: Point, batch: Batch, examples: int) -> bool:
    """Whether the loss of a batch adds up over its halves; judged on a few of its examples where memory does not allow all."""
    for size in dict.fromkeys((examples, min(examples, _FEW), min(examples, 2))):
        part = batch if size == examples else functions.take(batch, np.arange(size))
        halves = [] if part is None else cut(functions, part, size, 2)
        if len(halves) < 2:
            return False
        try:
            return adds_up(functions, point, part, halves)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
    return False


def adds_up(functions: ModelFunctions, point: Point, batch: Batch, pieces: list[Batch]) -> bool:
    """Whether loss and terms of the pieces sum to those of the batch, by forward passes alone.

    They do not where examples of a batch see each other: batch statistics, contrastive losses, rows that are no examples.
    """
    try:
        total, terms = functions.loss_sum(point, batch)
        parts = [functions.loss_sum(point, piece) for piece in pieces]
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        return False
    sums = math.fsum(part[0] for part in parts), math.fsum(part[1] for part in parts)
    tolerance = 100 * functions.unit_rounding
    return abs(sums[0] - total) <= tolerance * max(abs(total), terms) and abs(sums[1] - terms) <= tolerance * abs(terms)
