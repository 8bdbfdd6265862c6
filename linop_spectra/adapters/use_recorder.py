"""The bookkeeping of uses of weights that are found operation by operation in a traced program, whatever framework it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..curvature.weight_uses import UseKind, WeightUse
from .weight_layouts import Contraction, Names, added, bias_of, contraction


class Seen(NamedTuple):
    """How to arrange inputs and gradients of a use."""

    leading: tuple[int, ...]
    x_axes: tuple[int, ...]
    y_axes: tuple[int, ...]
    patches: Callable[[Any], Any] | None


class Tracked(NamedTuple):
    """What is known of an array besides its value: places of parameters, or the use that it comes out of."""

    places: np.ndarray | None
    use: int | None = None
    outputs: np.ndarray | None = None

    def moved(self, array: np.ndarray) -> Tracked:
        """The same with its places, or those of the use's outputs, in another order."""
        return Tracked(array) if self.places is not None else Tracked(None, self.use, array)


Notes = Sequence[Tracked | None]


class UseRecorder:
    """Uses of weights, with the parameters in other operations.

    Parameters
    ----------
    blocks : mapping of str to slice
        Places of the parameters.
    framework : str
        Whose operations are named in `others`.

    Attributes
    ----------
    uses, seen, inputs : list
        Of each use; the input of a bias alone is None.
    others : dict of str to str
        Parameters in operations that are not recognised.
    """

    def __init__(self, blocks: Mapping[str, slice], framework: str) -> None:
        self._names, self._framework = Names(blocks), framework
        self.uses: list[WeightUse] = []
        self.seen: list[Seen] = []
        self.inputs: list[Any] = []
        self.others: dict[str, str] = {}

    def _note(self, operation: str, notes: Notes) -> None:
        """Parameters go into an operation that is not recognised."""
        for note in notes:
            if note is not None and note.places is not None:
                for own in self._names.of(note.places):
                    self.others.setdefault(own, f"{self._framework}'s {operation}")

    def _keep(self, kind: UseKind, places: np.ndarray | None, bias: np.ndarray | None, x: Any, seen: Seen) -> bool:
        """Whether this is a use of one weight and one bias; it is kept then."""
        use = self._names.use(kind, places, bias)
        if use is None:
            return False
        if not seen.leading:
            x = None if x is None else x[None]
            seen = seen._replace(leading=(1,), x_axes=(0, *(axis + 1 for axis in seen.x_axes)))
        self.uses.append(use)
        self.seen.append(seen)
        self.inputs.append(x)
        return True

    def _joined(self, earlier: Tracked | None, bias: np.ndarray) -> bool:
        """Whether a parameter at these places is the bias of the use that it is added to; it is part of that use then."""
        if earlier is None or earlier.use is None or earlier.outputs is None:
            return False
        use, places = self.uses[earlier.use], bias_of(earlier.outputs, bias)
        joined = None if places is None else self._names.use(use.kind, use.places, places)
        if joined is None:
            return False
        self.uses[earlier.use] = joined
        return True


def parameter_among(notes: Notes) -> tuple[int, np.ndarray] | None:
    """Which operand is a parameter, and its places; None unless exactly one is."""
    found = [(side, note.places) for side, note in enumerate(notes) if note is not None and note.places is not None]
    return found[0] if len(found) == 1 else None


def product_with(
    places: np.ndarray, weight: int, labels: Sequence[Sequence[Any]], result: Sequence[Any], x_shape: Sequence[int]
) -> tuple[Contraction, Seen] | None:
    """A product of two operands with labelled axes, of which one is a parameter; None where it is no matrix product."""
    found = contraction(labels[1 - weight], labels[weight], result, places)
    if found is None:
        return None
    leading = tuple(int(x_shape[axis]) for axis in found.x_axes[: found.leading])
    return found, Seen(leading, found.x_axes, found.y_axes, None)


def bias_alone(shape: Sequence[int], bias: np.ndarray) -> tuple[np.ndarray, Seen] | None:
    """Places of a parameter that is added to an array of that shape; None where it is no bias."""
    parts = added(shape, bias)
    if parts is None:
        return None
    places, y_axes, count = parts
    return places, Seen(tuple(shape[axis] for axis in y_axes[:count]), (), y_axes, None)
