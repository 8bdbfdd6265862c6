"""A user's data as batches, in every framework: what is taken, what is refused, sizes, classes and cutting."""

from __future__ import annotations

import abc
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ..curvature.data import ArraySource, Batches, BatchSizes, refuse_one_shot
from .batch_leaves import leaves, map_leaves


class RandomState(Protocol):
    """Random states that are frozen while data are read."""

    def replay(self, source: Iterable[Any]) -> Iterator[Any]:
        """Iterate `source` under the state of this object's creation, leaving the caller's state alone."""


class _Indexed:
    """A sequence that says its length and gives items by number, but cannot be iterated."""

    def __init__(self, items: Any) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        return (self._items[i] for i in range(len(self._items)))


class BatchReader(abc.ABC):
    """What reading batches needs of a framework.

    Parameters
    ----------
    pairs : bool
        Whether the loss needs batches (inputs, targets).

    Attributes
    ----------
    loader : str
        What an error calls the framework's own re-iterable of batches.
    """

    loader = "a data loader"

    def __init__(self, *, pairs: bool) -> None:
        self._pairs = pairs

    @abc.abstractmethod
    def _is_leaf(self, x: Any) -> bool:
        """Whether an object in a batch is an array that is taken."""

    @abc.abstractmethod
    def _raw(self, array: Any) -> Any:
        """One of two arrays of data as what slices are cut from."""

    @abc.abstractmethod
    def _prepare_leaf(self, array: Any) -> Any:
        """An array as one of the framework, and, where floating, in the model's type."""

    @abc.abstractmethod
    def _frozen_random_state(self, data: Any) -> RandomState:
        """What the passes over a data set are frozen by."""

    @abc.abstractmethod
    def _to_host(self, array: Any) -> np.ndarray:
        """A prepared array as a NumPy array."""

    @abc.abstractmethod
    def _rows(self, array: Any, chosen: np.ndarray) -> Any:
        """Some rows of a prepared array."""

    @abc.abstractmethod
    def num_bytes(self, batch: Any) -> int:
        """Memory of the arrays."""

    @abc.abstractmethod
    def checksum(self, batch: Any) -> int:
        """Of shapes and bytes."""

    def own(self, batch: Any) -> Any:
        """A copy that the user's later changes do not reach: the batch itself where its arrays cannot be changed and share nothing."""
        return batch

    def _leaves(self, batch: Any) -> list[Any]:
        return leaves(batch, self._is_leaf)

    def batches(
        self, data: Any, batch_size: int | None, budget: int, sizes: BatchSizes | None
    ) -> Batches:
        """A user's data as batches."""
        if data is None:
            if self._pairs:
                raise TypeError(
                    "The argument data is None, but this loss compares outputs with targets; only a BatchLoss can do without."
                )
            return self.sequence([None])
        if isinstance(data, tuple) and len(data) == 2 and all(self._is_leaf(x) for x in data):
            pair = [self._raw(x) for x in data]
            if any(len(x.shape) == 0 for x in pair):
                raise ValueError("The argument data holds a single number where an array with a row for each example is needed.")
            source: Any = ArraySource(pair[0], pair[1], batch_size=batch_size)
            return Batches(source, _Hooks(self, None), budget, sizes if batch_size is None else None)
        if self._is_leaf(data) or isinstance(data, str | bytes | Mapping):
            raise TypeError(
                f"The argument data is a {type(data).__name__}, but must be a tuple (inputs, targets) of two arrays, a "
                f"re-iterable of batches such as a list or {self.loader}, or None; put a single batch into a list."
            )
        if _is_torch_dataset(data):
            raise TypeError(
                f"The argument data is a data set of single examples ({type(data).__name__}); wrap it in a "
                "torch.utils.data.DataLoader, which makes batches."
            )
        refuse_one_shot(data)
        if batch_size is not None:
            raise ValueError(
                f"The argument batch_size is {batch_size}, but the data are batches already; leave it out, or pass (inputs, "
                "targets)."
            )
        if _known_empty(data):
            raise ValueError("The argument data is empty: it holds no batch; pass at least one.")
        if not hasattr(data, "__iter__") and hasattr(data, "__len__"):
            data = _Indexed(data)
        return Batches(data, _Hooks(self, self._frozen_random_state(data)), budget)

    def sequence(self, batches: Sequence[Any]) -> Batches:
        """Batches that are prepared already."""
        return Batches.of(batches, _Hooks(self, None))

    def prepare(self, raw: Any) -> Any:
        """Arrays of a user's batch as the framework's, where the model is."""
        if self._pairs and not (isinstance(raw, tuple | list) and len(raw) == 2):
            raise TypeError(
                f"A batch is a {type(raw).__name__}{f' of length {len(raw)}' if isinstance(raw, tuple | list) else ''}, but "
                "this loss needs pairs (inputs, targets); for other batches pass a BatchLoss."
            )
        return map_leaves(raw, self._prepare_leaf, self._is_leaf)

    def num_examples(self, batch: Any) -> int:
        """Length of the first array; one where there is none."""
        found = self._leaves(batch)
        return int(found[0].shape[0]) if found and len(found[0].shape) else 1

    def labels(self, batch: Any) -> np.ndarray:
        """Class of each example, from integer or one-hot targets."""
        pair = isinstance(batch, tuple | list) and len(batch) == 2 and self._is_leaf(batch[1])
        targets = self._to_host(batch[1]) if pair else None
        if targets is not None and targets.ndim == 2 and targets.shape[1] > 1 and _is_one_hot(targets):
            targets = targets.argmax(axis=1)
        if targets is None or targets.ndim != 1 or targets.dtype.kind not in "biu":
            raise TypeError(
                "A subset by class needs batches (inputs, targets) with one class for each example, as integers or one-hot; "
                "choose the examples yourself and pass them to with_data."
            )
        return np.asarray(targets)

    def take(self, batch: Any, indices: np.ndarray) -> Any | None:
        """Some examples of a batch, as far as they exist; None unless all its arrays have one row for each example."""
        found = self._leaves(batch)
        if not found or any(len(x.shape) == 0 or x.shape[0] != found[0].shape[0] for x in found):
            return None
        chosen = np.asarray(indices)[np.asarray(indices) < found[0].shape[0]]
        return map_leaves(batch, lambda array: self._rows(array, chosen), self._is_leaf)


class _Hooks:
    """Hooks of one data set, with the random state that its passes run under."""

    def __init__(self, shared: BatchReader, state: RandomState | None) -> None:
        self._state = state
        self.prepare, self.num_bytes, self.checksum = shared.prepare, shared.num_bytes, shared.checksum
        self.num_examples, self.own = shared.num_examples, shared.own

    def replay(self, source: Iterable[Any]) -> Iterator[Any]:
        return iter(source) if self._state is None else self._state.replay(source)


def _known_empty(data: Any) -> bool:
    try:
        return len(data) == 0
    except TypeError:  # a stream does not know its length
        return False


def _is_torch_dataset(data: Any) -> bool:
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    datasets = torch.utils.data
    return isinstance(data, datasets.Dataset) and not isinstance(data, datasets.IterableDataset)


def _is_one_hot(targets: np.ndarray) -> bool:
    return bool(((targets == 0) | (targets == 1)).all()) and bool((targets.sum(axis=1) == 1).all())
