"""Places of parameters followed through transposes and the like, shared by the adapters' records of weight uses."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..curvature.weight_uses import UseKind, WeightUse


class Contraction(NamedTuple):
    """How a product of an array `x` with a parameter contracts their axes.

    Attributes
    ----------
    places : numpy.ndarray
        Of the parameter, shape (num_outputs, num_inputs).
    leading : int
        Axes that only `x` and the result have.
    x_axes, y_axes : tuple of int
        Order of axes of `x` and of the result in which those come first.
    """

    places: np.ndarray
    leading: int
    x_axes: tuple[int, ...]
    y_axes: tuple[int, ...]


def contraction(x: Sequence[Hashable], w: Sequence[Hashable], y: Sequence[Hashable], index: np.ndarray) -> Contraction | None:
    """A product by the labels of the axes of `x`, the parameter and the result; None where it is no matrix product.

    Examples
    --------
    >>> found = contraction("ntd", "hdk", "ntk", np.arange(6).reshape(1, 2, 3))
    >>> found is None
    True
    >>> contraction("ntd", "dk", "nkt", np.arange(6).reshape(2, 3)).places
    array([[0, 3],
           [1, 4],
           [2, 5]])
    """
    if any(len(set(labels)) != len(labels) for labels in (x, w, y)):
        return None
    leading = [a for a in x if a in y and a not in w]
    contracted = [a for a in x if a in w and a not in y]
    free = [a for a in w if a in y and a not in x]
    if len(x) != len(leading) + len(contracted) or len(w) != len(contracted) + len(free) or len(y) != len(leading) + len(free):
        return None
    places = index.transpose([w.index(a) for a in free + contracted])
    rows = int(np.prod([index.shape[w.index(a)] for a in free], dtype=np.int64))
    return Contraction(
        places.reshape(rows, -1),
        len(leading),
        tuple(x.index(a) for a in leading + contracted),
        tuple(y.index(a) for a in leading + free),
    )


def parse_einsum(equation: str) -> tuple[str, str, str] | None:
    """The labels of an equation with two operands and a result; None for others."""
    if "..." in equation or "->" not in equation:
        return None
    left, _, result = equation.replace(" ", "").partition("->")
    operands = left.split(",")
    return (operands[0], operands[1], result) if len(operands) == 2 else None


def output_index(found: Contraction, shape: Sequence[int]) -> np.ndarray:
    """For each number of a result of that shape, which output of the product it is; a view of few numbers."""
    lengths = [shape[axis] for axis in found.y_axes]
    rows = np.arange(int(np.prod(lengths[found.leading :], dtype=np.int64)))
    arranged = np.broadcast_to(rows.reshape([1] * found.leading + lengths[found.leading :]), lengths)
    return arranged.transpose(np.argsort(found.y_axes))


def bias_of(outputs: np.ndarray, bias: np.ndarray) -> np.ndarray | None:
    """Places of the bias of each output, where a parameter is added to a result that `output_index` describes; None where it is no bias."""
    if np.broadcast_shapes(outputs.shape, bias.shape) != outputs.shape:
        return None
    bias = np.broadcast_to(bias, outputs.shape)
    constant = tuple(slice(0, 1) if not (a and b) else slice(None) for a, b in zip(outputs.strides, bias.strides, strict=True))
    outputs, bias = outputs[constant].ravel(), bias[constant].ravel()
    count = int(outputs.max()) + 1
    if outputs.size != count:
        return None
    found = np.empty(count, dtype=np.int64)
    found[outputs] = bias
    return found if len(np.unique(found)) == count else None


def added(shape: Sequence[int], bias: np.ndarray) -> tuple[np.ndarray, tuple[int, ...], int] | None:
    """A parameter that is added to an array of that shape: its places, the order of axes with the others first, and how many these are."""
    if bias.size == 0 or np.broadcast_shapes(tuple(shape), bias.shape) != tuple(shape):
        return None
    strides = (0,) * (len(shape) - bias.ndim) + tuple(
        0 if length == 1 else stride for length, stride in zip(bias.shape, bias.strides, strict=True)
    )
    leading = [axis for axis, stride in enumerate(strides) if stride == 0]
    rest = [axis for axis, stride in enumerate(strides) if stride != 0]
    places = np.broadcast_to(bias, tuple(shape))[tuple(slice(0, 1) if s == 0 else slice(None) for s in strides)].ravel()
    return (places, (*leading, *rest), len(leading)) if len(np.unique(places)) == places.size else None


class Names:
    """Names of parameters by their places in the vector."""

    def __init__(self, blocks: Mapping[str, slice]) -> None:
        self._names = list(blocks)
        self._starts = np.array([place.start for place in blocks.values()])

    def at(self, place: int) -> str:
        """The parameter that a number belongs to."""
        return self._names[int(np.searchsorted(self._starts, place, side="right")) - 1]

    def of(self, index: np.ndarray) -> set[str]:
        """All parameters in an array of places."""
        if index.size and (name := self.at(int(index.min()))) == self.at(int(index.max())):  # sorting millions of numbers takes long
            return {name}
        return {self._names[i] for i in np.unique(np.searchsorted(self._starts, np.unique(index), side="right") - 1)}

    def use(self, kind: UseKind, places: np.ndarray | None, bias: np.ndarray | None) -> WeightUse | None:
        """A use of numbers of one weight and one bias; None where they come from several parameters."""
        if any(index is not None and len(self.of(index)) != 1 for index in (places, bias)):
            return None
        weight = None if places is None else self.at(int(places.flat[0]))
        return WeightUse(kind, weight, None if bias is None else self.at(int(bias.flat[0])), places, bias)
