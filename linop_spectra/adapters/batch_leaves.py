"""The arrays of a batch of any kind: inside tuples, lists, mappings and attributes of objects."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Change = Callable[[Any], Any]


def is_array(x: Any) -> bool:
    """Whether `x` is an array of some library.

    Examples
    --------
    >>> is_array(np.zeros(3)), is_array([0.0]), is_array("text")
    (True, False, False)
    """
    if isinstance(x, np.ndarray):
        return True
    return hasattr(x, "shape") and (hasattr(x, "__array__") or hasattr(x, "__dlpack__")) and not isinstance(x, type)


def fields_of(x: Any) -> list[str]:
    """Names of the attributes that an object keeps its values in."""
    if dataclasses.is_dataclass(x):
        return [field.name for field in dataclasses.fields(x)]
    return list(getattr(x, "__dict__", ()))


def has_leaf_fields(x: Any, is_leaf: Callable[[Any], bool] = is_array) -> bool:
    """Whether `x` is an object of its own kind with arrays as attributes."""
    if callable(x) or isinstance(x, type):
        return False
    return any(is_leaf(getattr(x, name, None)) for name in fields_of(x))


def map_leaves(batch: Any, change: Change, is_leaf: Callable[[Any], bool] = is_array) -> Any:
    """The batch with `change` applied to its arrays, inside tuples, lists, mappings and attributes of objects."""
    if is_leaf(batch):
        return change(batch)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_leaves(item, change, is_leaf) for item in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(map_leaves(item, change, is_leaf) for item in batch)
    if isinstance(batch, Mapping):
        changed = {key: map_leaves(item, change, is_leaf) for key, item in batch.items()}
        if type(batch) is not dict and hasattr(batch, "__setitem__"):
            same_kind: Any = copy.copy(batch)  # a mapping whose entries may be attributes too
            for key, item in changed.items():
                same_kind[key] = item
            return same_kind
        return changed
    if has_leaf_fields(batch, is_leaf):
        clone = copy.copy(batch)
        for name in fields_of(batch):
            value = getattr(batch, name)
            object.__setattr__(clone, name, change(value) if is_leaf(value) else value)
        return clone
    return batch


def leaves(batch: Any, is_leaf: Callable[[Any], bool] = is_array) -> list[Any]:
    """The arrays of a batch, in order."""
    found: list[Any] = []
    map_leaves(batch, found.append, is_leaf)
    return found
