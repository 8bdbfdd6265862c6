"""Batches for frameworks whose arrays can be made from NumPy's: conversion, sizes, checksums, cutting, frozen randomness."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import random
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ..curvature.data import ArraySource, Batches, BatchSizes, refuse_one_shot

Change = Callable[[Any], Any]


class RandomState(Protocol):
    """Random states that are frozen while data are read."""

    def replay(self, source: Iterable[Any]) -> Iterator[Any]:
        """Iterate `source` under the state of this object's creation, leaving the caller's state alone."""


class HostRandomState:
    """The global random states of NumPy and Python, and of torch where a program has imported it for its loaders."""

    def __init__(self, data: Any = None) -> None:
        self._torch: Any = sys.modules.get("torch")
        places = (data, getattr(data, "sampler", None), getattr(getattr(data, "batch_sampler", None), "sampler", None))
        found: list[Any] = [getattr(place, "generator", None) for place in places] if self._torch is not None else []
        self._generators = list({id(g): g for g in found if hasattr(g, "get_state")}.values())
        self._frozen = self._read()

    def _read(self) -> tuple[Any, ...]:
        return (
            np.random.get_state(),  # noqa: NPY002 -- the user's code may draw from the global state
            random.getstate(),
            None if self._torch is None else self._torch.get_rng_state(),
            [generator.get_state() for generator in self._generators],
        )

    def _write(self, state: tuple[Any, ...]) -> None:
        np.random.set_state(state[0])  # noqa: NPY002
        random.setstate(state[1])
        if self._torch is not None:
            self._torch.set_rng_state(state[2])
        for generator, saved in zip(self._generators, state[3], strict=True):
            generator.set_state(saved)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Run under the state of this object's creation; the caller's state is untouched."""
        outside = self._read()
        self._write(self._frozen)
        try:
            yield
        finally:
            self._write(outside)

    def replay(self, source: Iterable[Any]) -> Iterator[Any]:
        """Iterate `source` under the state of this object's creation, which is in force only while an item is made."""
        inside = self._frozen
        iterator: Iterator[Any] | None = None
        while True:
            outside = self._read()
            self._write(inside)
            try:
                if iterator is None:
                    iterator = iter(source)
                item = next(iterator)
            except StopIteration:
                return
            finally:
                inside = self._read()
                self._write(outside)
            yield item


class _Indexed:
    """A sequence that says its length and gives items by number, but cannot be iterated."""

    def __init__(self, items: Any) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        return (self._items[i] for i in range(len(self._items)))


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


def leaves(batch: Any) -> list[Any]:
    """The arrays of a batch, in order."""
    found: list[Any] = []
    map_leaves(batch, found.append)
    return found


class ArrayBatches:
    """What reading batches needs of a framework.

    Parameters
    ----------
    to_native : callable
        ``to_native(array, dtype)``: a NumPy array or an array of the framework as one of the framework where the model is. `dtype`
        is a NumPy type to convert to, or None to leave the type. Must not share memory with a NumPy array.
    to_host : callable
        ``to_host(array)``: an array of the framework as a NumPy array.
    is_native : callable
        Whether an object is an array of the framework.
    dtype : numpy.dtype or None
        The model's type, to which floating arrays are converted; None leaves them as they are. Integers stay integers.
    pairs : bool
        Whether the loss needs batches (inputs, targets).
    random_state : callable, optional
        ``random_state(data) -> RandomState``, called when a data set is taken: what its passes are frozen by. By default the
        global states of NumPy and Python.
    """

    def __init__(
        self,
        to_native: Callable[[Any, np.dtype | None], Any],
        to_host: Callable[[Any], np.ndarray],
        is_native: Callable[[Any], bool],
        dtype: Any,
        *,
        pairs: bool,
        random_state: Callable[[Any], RandomState] | None = None,
    ) -> None:
        self._to_native, self._to_host, self._is_native, self._pairs = to_native, to_host, is_native, pairs
        self._dtype = None if dtype is None else np.dtype(dtype)
        self._random_state = random_state or HostRandomState

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
        if isinstance(data, tuple) and len(data) == 2 and all(is_array(x) for x in data):
            pair = [x if self._is_native(x) else self._on_host(x) for x in data]
            if any(len(x.shape) == 0 for x in pair):
                raise ValueError("The argument data holds a single number where an array with a row for each example is needed.")
            source: Any = ArraySource(pair[0], pair[1], batch_size=batch_size)
            return Batches(source, _Hooks(self, None), budget, sizes if batch_size is None else None)
        if is_array(data) or isinstance(data, str | bytes | Mapping):
            raise TypeError(
                f"The argument data is a {type(data).__name__}, but must be a tuple (inputs, targets) of two arrays, a "
                "re-iterable of batches such as a list or a data loader, or None; put a single batch into a list."
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
        return Batches(data, _Hooks(self, self._random_state(data)), budget)

    def sequence(self, batches: Sequence[Any]) -> Batches:
        """Batches that are prepared already."""
        return Batches.of(batches, _Hooks(self, None))

    def prepare(self, raw: Any) -> Any:
        """Arrays of any library as the framework's, and, where floating, in the model's type."""
        if self._pairs and not (isinstance(raw, tuple | list) and len(raw) == 2):
            raise TypeError(
                f"A batch is a {type(raw).__name__}{f' of length {len(raw)}' if isinstance(raw, tuple | list) else ''}, but "
                "this loss needs pairs (inputs, targets); for other batches pass a BatchLoss."
            )
        return map_leaves(raw, self._prepare_leaf)

    def _prepare_leaf(self, array: Any) -> Any:
        if not self._is_native(array):
            array = self._on_host(array)
        dtype = self._dtype if _is_floating(array) else None
        return self._to_native(array, dtype)

    def _on_host(self, array: Any) -> np.ndarray:
        """An array of any other library as a NumPy array of numbers."""
        if not isinstance(array, np.ndarray):
            if hasattr(array, "detach"):
                array = array.detach().cpu()
                if array.is_conj() or array.is_neg():
                    array = array.resolve_conj().resolve_neg()
                if str(array.dtype) == "torch.bfloat16":
                    array = array.float()
            elif type(array).__module__.partition(".")[0] == "cupy":
                array = array.get()
            elif hasattr(array, "numpy"):
                array = array.numpy()
            array = np.asarray(array)
        if array.dtype.kind == "f" and array.dtype.itemsize > 8:
            array = array.astype(np.float64)
        if array.dtype.kind not in "biufc" and not _is_floating(array):
            raise TypeError(f"The data hold an array of dtype {array.dtype}, which is no numbers; convert it first.")
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))

    def num_examples(self, batch: Any) -> int:
        """Length of the first array; one where there is none."""
        found = leaves(batch)
        return int(found[0].shape[0]) if found and len(found[0].shape) else 1

    def num_bytes(self, batch: Any) -> int:
        """Memory of the arrays."""
        return sum(math.prod(array.shape) * _numpy_dtype(array).itemsize for array in leaves(batch))

    def checksum(self, batch: Any) -> int:
        """Of shapes and bytes."""
        value = 0
        for array in leaves(batch):
            host = np.ascontiguousarray(self._to_host(array))
            value = zlib.crc32(repr((host.shape, host.dtype.name)).encode(), value)
            value = zlib.crc32(host.reshape(-1).view(np.uint8).data, value)
        return value

    def labels(self, batch: Any) -> np.ndarray:
        """Class of each example, from integer or one-hot targets."""
        pair = isinstance(batch, tuple | list) and len(batch) == 2 and is_array(batch[1])
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
        found = leaves(batch)
        if not found or any(len(x.shape) == 0 or x.shape[0] != found[0].shape[0] for x in found):
            return None
        chosen = np.asarray(indices)[np.asarray(indices) < found[0].shape[0]]
        if chosen.size and np.array_equal(chosen, np.arange(chosen[0], chosen[0] + chosen.size)):
            first = int(chosen[0])
            return map_leaves(batch, lambda array: array[first : first + chosen.size])
        return map_leaves(batch, lambda array: self._to_native(self._to_host(array)[chosen], None))


class _Hooks:
    """Hooks of one data set, with the random state that its passes run under."""

    def __init__(self, shared: ArrayBatches, state: RandomState | None) -> None:
        self._state = state
        self.prepare, self.num_bytes, self.checksum = shared.prepare, shared.num_bytes, shared.checksum
        self.num_examples = shared.num_examples

    def own(self, batch: Any) -> Any:
        return batch  # the framework's arrays cannot be changed, and share nothing with the user's

    def replay(self, source: Iterable[Any]) -> Iterator[Any]:
        return iter(source) if self._state is None else self._state.replay(source)


def _numpy_dtype(array: Any) -> np.dtype:
    return np.dtype(getattr(array.dtype, "as_numpy_dtype", array.dtype))


def _is_floating(array: Any) -> bool:
    try:
        dtype = _numpy_dtype(array)
    except TypeError:  # random keys and the like
        return False
    # bfloat16 and narrower are no types of NumPy's own
    return dtype.kind == "f" or (dtype.kind == "V" and dtype.name.startswith(("bfloat", "float")))


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
