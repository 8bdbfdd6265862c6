"""Memory that runs out inside a product: which exceptions say so, and whether a batch may be cut into pieces."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .linearization import Batch, ModelFunctions, Point

_TYPES = ("MemoryError", "OutOfMemoryError", "ResourceExhaustedError")
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
