"""A batch of any kind taken apart: its arrays, which are arguments of compiled functions, and everything else, which is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from ..batch_leaves import fields_of, has_leaf_fields, map_leaves


@dataclasses.dataclass(frozen=True)
class _Place:
    """Stands for an array."""

    index: int


def _is_place(x: Any) -> bool:
    return isinstance(x, _Place)


class BatchStructure:
    """What a batch is but for its arrays; equal for batches of the same form, so that they share compiled functions."""

    def __init__(self, template: Any) -> None:
        self._template = template
        self._key = _key(template)

    def restore(self, arrays: Sequence[Any]) -> Any:
        """The batch with these arrays."""
        return map_leaves(self._template, lambda place: arrays[place.index], _is_place)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BatchStructure) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def take_apart(batch: Any) -> tuple[BatchStructure, tuple[Any, ...]]:
    """Structure and arrays of a batch.

    Examples
    --------
    >>> import numpy as np
    >>> structure, arrays = take_apart({"x": np.zeros(2), "name": "first"})
    >>> len(arrays), structure.restore(["array"])
    (1, {'x': 'array', 'name': 'first'})
    """
    arrays: list[Any] = []

    def place(array: Any) -> _Place:
        arrays.append(array)
        return _Place(len(arrays) - 1)

    return BatchStructure(map_leaves(batch, place)), tuple(arrays)


def _key(x: Any) -> Hashable:
    if _is_place(x):
        return "array", x.index
    if isinstance(x, tuple | list):
        return type(x), tuple(_key(item) for item in x)
    if isinstance(x, Mapping):
        return type(x), tuple((key, _key(item)) for key, item in x.items())
    if has_leaf_fields(x, _is_place):
        return type(x), tuple((name, _key(getattr(x, name))) for name in fields_of(x))
    try:
        hash(x)
    except TypeError:
        return "object", id(x)  # the template keeps it alive
    return "value", type(x), x
