r"""What a Kronecker-factored approximation needs of an adapter: every use of a weight in a forward pass.

Where a weight matrix `W` takes inputs :math:`a` to :math:`W a + b`, the gradient of an example is
:math:`\sum_s g_s a_s^\top` over the positions `s` where the weight is used, with the gradients :math:`g_s` in what comes out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from ..backends import Array
from .linearization import Batch, Outputs, Point

UseKind = Literal["dense", "convolution", "embedding", "bias"]


@dataclasses.dataclass(frozen=True, eq=False)
class WeightUse:
    """One use of a weight, of a bias or of both.

    Attributes
    ----------
    kind : {"dense", "convolution", "embedding", "bias"}
        A matrix product, a convolution (whose inputs are patches), rows that whole numbers choose, or a bias alone.
    weight, bias : str or None
        Names of the parameters; None for what is constant or not there.
    places : numpy.ndarray or None
        Where the weight's numbers are in the vector of parameters, shape (num_outputs, num_inputs).
    bias_places : numpy.ndarray or None
        The same of the bias, shape (num_outputs,).
    """

    kind: UseKind
    weight: str | None
    bias: str | None
    places: np.ndarray | None
    bias_places: np.ndarray | None

    @property
    def num_outputs(self) -> int:
        """Length of a gradient at one position."""
        places = self.bias_places if self.places is None else self.places
        assert places is not None
        return int(places.shape[0])

    @property
    def num_inputs(self) -> int:
        """Length of an input at one position; zero for a bias alone."""
        return 0 if self.places is None else int(self.places.shape[1])

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells a use from those of other weights, the same in every batch."""
        return self.kind, self.weight, self.bias, *corners(self.places), *corners(self.bias_places)


def corners(places: np.ndarray | None) -> tuple[int, ...]:
    """Shape and corners of an array of places, by which layouts of the same parameter differ.

    Examples
    --------
    >>> corners(np.arange(6).reshape(2, 3)), corners(np.arange(4).reshape(2, 2).T)
    ((2, 3, 0, 2, 3, 5), (2, 2, 0, 2, 1, 3))
    """
    if places is None:
        return ()
    if places.ndim == 1:
        return places.shape[0], int(places[0]), int(places[-1])
    return *places.shape, *(int(places[i, j]) for i in (0, -1) for j in (0, -1))


class RecordedUses(Protocol):
    """The uses of weights in one forward pass over a batch.

    Attributes
    ----------
    outputs : Outputs
        The model's outputs.
    uses : tuple of WeightUse
        In the order of the forward pass.
    others : mapping of str to str
        Parameters that are used otherwise, with the operation.
    """

    outputs: Outputs
    uses: tuple[WeightUse, ...]
    others: Mapping[str, str]

    def leading(self, number: int) -> tuple[int, ...]:
        """Axes of a use before the last one, those of examples and positions."""

    def inputs(self, number: int, start: int, stop: int) -> Array:
        """Inputs of a use, from `start` to `stop` of the first axis, shape (stop - start, ..., num_inputs).

        Whole numbers of an embedding have no last axis.
        """

    def output_gradients(self, u: Outputs) -> list[Array]:
        """Gradients of ``<u, outputs>`` in what each use gives, shape (*leading, num_outputs)."""


@runtime_checkable
class SupportsWeightUses(Protocol):
    """What model functions may have besides: a forward pass in which every use of a weight is seen."""

    def weight_uses(self, point: Point, batch: Batch) -> RecordedUses:
        """Run the model on a batch and record."""
