"""Parameters of scale-invariant networks with filters of norm one.

The outputs of a layer that is followed by batch, layer or group normalisation do not change when the weights of one of its filters
(the weights of one output) are multiplied by a positive number, but their curvature does, by the inverse square. Matrices of two
networks compare only at equal norms.
"""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends import to_numpy

if TYPE_CHECKING:
    from .objective import Objective


def filter_normalized(objective: Objective, patterns: str | list[str] | None, tolerance: float) -> Objective:
    """The objective at normalised filters; see `Objective.filter_normalized`."""
    if not 0 < tolerance < 1:
        raise ValueError(f"The argument tolerance is {tolerance!r}, but must lie between 0 and 1.")
    wanted = None if patterns is None else [patterns] if isinstance(patterns, str) else list(patterns)
    arrays = {name: np.asarray(to_numpy(value)) for name, value in objective.unflatten(objective.parameters()).items()}
    weights = [name for name, array in arrays.items() if array.ndim >= 2]
    if wanted is not None:
        weights = [name for name in weights if any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted)]
        if not weights:
            raise ValueError(f"The argument parameters ({patterns!r}) matches no weight with two axes or more.")
    before = objective.value()
    allowed = tolerance * max(abs(before), tolerance)
    theta = np.array(to_numpy(objective.parameters()))
    found: list[str] = []
    for name in weights:
        for axis in (0, arrays[name].ndim - 1):  # outputs come first in torch, last in JAX and Keras
            changed = theta.copy()
            changed[objective.blocks[name]] = _unit_filters(arrays[name], axis).ravel()
            if abs(objective.with_parameters(changed).value() - before) <= allowed:
                theta, found = changed, [*found, name]
                break
        else:
            if wanted is not None:
                raise ValueError(
                    f"The loss changes when the filters of the parameter {name!r} are rescaled, so that its layer is not scale-invariant: "
                    "it needs batch, layer or group normalisation behind it, by the statistics of the batch (batch_norm='train'); leave it "
                    "out of parameters=."
                )
    if not found:
        raise ValueError(
            "The loss changes with the scale of the filters of every weight, so that the network is not scale-invariant anywhere: batch, "
            "layer or group normalisation is needed right behind a layer, by the statistics of the batch (batch_norm='train')."
        )
    return objective.with_parameters(theta)


def _unit_filters(array: Any, axis: int) -> np.ndarray:
    """The array with each slice along `axis` divided by its norm; slices of zeros stay."""
    wide = np.moveaxis(np.asarray(array, dtype=np.float64), axis, 0)
    norms = np.linalg.norm(wide.reshape(wide.shape[0], -1), axis=1)
    scaled = wide / np.where(norms > 0, norms, 1.0).reshape(-1, *[1] * (wide.ndim - 1))
    return np.ascontiguousarray(np.moveaxis(scaled, 0, axis))
