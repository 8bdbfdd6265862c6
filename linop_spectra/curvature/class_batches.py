"""The same examples in smaller batches of few classes each, so that what concerns one class passes over few of them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from .classification import Classification

if TYPE_CHECKING:
    from .objective import Objective

_LEAST = 32
"""Examples of a batch at least: smaller ones take nearly as long."""


def sorted_by_class(objective: Objective, classification: Classification) -> Objective | None:
    """An objective of the same examples, each batch sorted by class and cut into as many equal parts as there are classes.

    Equal, because frameworks that compile do so for every size of a batch.

    Parameters
    ----------
    objective : Objective
        With data that are kept.
    classification : Classification
        Of its examples.

    Returns
    -------
    Objective or None
        None where examples depend on each other, are no rows of the outputs, or come in batches too small to be cut.
    """
    functions, data = objective.functions, objective.data
    if functions.example_refusal is not None or not data.kept:
        return None
    parts, cut = [], False
    for batch, positions in zip(data, classification.batches, strict=True):
        labels = classification.targets[positions]
        if data.count(batch) != labels.size:
            return None
        size = max(_LEAST, -(-labels.size // classification.num_classes))
        cut = cut or size < labels.size
        order = np.argsort(labels, kind="stable")
        for first in range(0, labels.size, size):
            part = functions.take(batch, order[first : first + size])
            if part is None:
                return None
            parts.append(part)
    return dataclasses.replace(objective, data=functions.sequence(parts)) if cut else None
