"""The parameters of a model as blocks for a Kronecker-factored approximation: weights with their biases, biases alone, and the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..curvature.objective import Objective
from ..curvature.weight_uses import WeightUse, corners
from .weight_gradients import BatchGradients

LARGEST_BLOCK = 1024
"""Order up to which parameters that have no factors get an exact block."""

_REFUSAL = (
    "The parameter {name!r} of {size:,} numbers is used by {operation}, which is no linear layer or convolution with a Kronecker-factored "
    "gradient, and it has more than the {limit:,} numbers of an exact block; leave it out with parameters=, or use "
    "approximate(objective, 'diagonal') or 'block'."
)
_COUPLED = "an operation whose inputs do not belong to one example each"


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """A weight, with its bias where that belongs to it alone.

    Attributes
    ----------
    names : tuple of str
        The parameters.
    places : numpy.ndarray
        Where their numbers are, shape (rows, columns); the bias is the last column.
    keys : frozenset
        Uses whose outputs are the rows.
    transposed : frozenset
        Uses whose outputs are the columns.
    biased : bool
        Whether there is a bias.
    """

    names: tuple[str, ...]
    places: np.ndarray
    keys: frozenset[Any]
    transposed: frozenset[Any]
    biased: bool


@dataclasses.dataclass(frozen=True, eq=False)
class BiasLayer:
    """A bias alone: its name, where its numbers are, and its uses."""

    name: str
    places: np.ndarray
    keys: frozenset[Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Layers:
    """All parameters of a model.

    Attributes
    ----------
    weights : tuple of Layer
        With Kronecker factors.
    biases : tuple of BiasLayer
        Whose blocks are exact.
    small : tuple of str
        Parameters whose exact blocks come from matrix products.
    unused : tuple of str
        Parameters that no use was seen of.
    """

    weights: tuple[Layer, ...]
    biases: tuple[BiasLayer, ...]
    small: tuple[str, ...]
    unused: tuple[str, ...]

    @property
    def keys(self) -> frozenset[Any]:
        """All uses that belong to one of them."""
        return frozenset().union(*(layer.keys | layer.transposed for layer in self.weights), *(layer.keys for layer in self.biases))


def find_layers(objective: Objective, gradients: BatchGradients, *, include_bias: bool) -> Layers:
    """The layers that a recorded forward pass shows.

    Raises
    ------
    ValueError
        When a parameter has no factors and is too large for an exact block.
    """
    blocks, uses = objective.blocks, gradients.recorded.uses
    others = dict(gradients.recorded.others)
    for number in gradients.lost:
        others |= {name: _COUPLED for name in (uses[number].weight, uses[number].bias) if name is not None}
    weights, biases = _Groups(2), _Groups(1)
    for use in uses:
        weights.add(use.weight, use.places, use)
        biases.add(use.bias, use.bias_places, use)
    covered = np.zeros(objective.num_parameters, dtype=np.int64)
    for groups in (weights, biases):
        for places, _, _ in groups.found.values():
            covered[places.ravel()] += 1
    for name, place in blocks.items():
        seen = covered[place]
        if seen.any() and (seen != 1).any():
            others.setdefault(name, "several operations that see different parts of it")

    layers, joint = [], set()
    for (name, *_), (places, straight, turned) in weights.found.items():
        if name in others:
            continue
        partner = None if turned or not include_bias else _common_bias(straight, uses)
        if partner is not None and partner.bias not in others and biases.users(partner) == {use.key for use in straight}:
            assert partner.bias is not None and partner.bias_places is not None
            joint.add(partner.bias)
            places = np.concatenate([places, partner.bias_places[:, None]], axis=1)
        else:
            partner = None
        names = (name,) if partner is None or partner.bias is None else (name, partner.bias)
        keys = frozenset(use.key for use in straight)
        layers.append(Layer(names, places, keys, frozenset(use.key for use in turned), partner is not None))
    alone = []
    for (name, *_), (places, straight, _) in biases.found.items():
        if name not in others and name not in joint:
            if len(places) > LARGEST_BLOCK and not any(use.kind != "bias" for use in straight):
                others[name] = "an addition"
                continue
            alone.append(BiasLayer(name, places, frozenset(use.key for use in straight)))
    sizes = {name: place.stop - place.start for name, place in blocks.items()}
    for name, operation in others.items():
        if sizes[name] > LARGEST_BLOCK:
            raise ValueError(_REFUSAL.format(name=name, size=sizes[name], operation=operation, limit=LARGEST_BLOCK))
    unused = tuple(name for name, place in blocks.items() if name not in others and not covered[place].any())
    return Layers(tuple(layers), tuple(alone), tuple(name for name in blocks if name in others), unused)


class _Groups:
    """Uses that share the same numbers, in whichever direction."""

    def __init__(self, axes: int) -> None:
        self._axes = axes
        self.found: dict[tuple[Any, ...], tuple[np.ndarray, list[WeightUse], list[WeightUse]]] = {}

    def add(self, name: str | None, places: np.ndarray | None, use: WeightUse) -> None:
        """Count a use of these numbers."""
        if name is None or places is None:
            return
        key, turned_key = (name, *corners(places)), (name, *corners(places.T))
        if key in self.found:
            self.found[key][1].append(use)
        elif self._axes == 2 and turned_key in self.found and (self.found[turned_key][0] == places.T).all():
            self.found[turned_key][2].append(use)
        else:
            self.found[key] = places, [use], []

    def users(self, use: WeightUse) -> set[Any]:
        """Keys of all uses of the bias of `use`."""
        assert use.bias_places is not None
        group = self.found[(use.bias, *corners(use.bias_places))]
        return {other.key for other in group[1]}


def _common_bias(straight: Iterable[WeightUse], uses: Iterable[WeightUse]) -> WeightUse | None:
    """A use with the bias that all of them have; None where they differ or have none."""
    found = {(use.bias, *corners(use.bias_places)): use for use in straight}
    (first, *others) = found.values()
    return first if not others and first.bias is not None else None
