"""Fields of a landscape as a header and arrays of a file, and back."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

_NESTED = ("metrics", "held_out_metrics")
_KIND = "own kind"  # the header has a kind of its own


def to_file(result: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Scalars and arrays of a `Line`, `Plane` or another frozen result of this package."""
    scalars: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    for field in dataclasses.fields(result):
        value = getattr(result, field.name)
        if field.name in _NESTED:
            scalars[field.name] = list(value)
            arrays |= {f"{field.name}/{i}": array for i, array in enumerate(value.values())}
        elif isinstance(value, np.ndarray):
            arrays[field.name] = value
        elif value is not None:
            scalars[_KIND if field.name == "kind" else field.name] = list(value) if isinstance(value, tuple) else value
    return scalars, arrays


def from_file(scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The fields back, tuples for lists."""
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in scalars.items()}
    if _KIND in fields:
        fields["kind"] = fields.pop(_KIND)
    for nested in _NESTED:
        if nested in fields:
            fields[nested] = {name: arrays[f"{nested}/{i}"] for i, name in enumerate(fields[nested])}
    return fields | {name: array for name, array in arrays.items() if "/" not in name}
