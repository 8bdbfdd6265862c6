"""Batches of torch tensors: conversion, sizes, checksums, cutting."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...curvature.data import ArraySource, Batches, BatchSizes, refuse_one_shot
from .context import RandomState


def is_array(x: Any) -> bool:
    """Whether `x` is an array of examples."""
    return isinstance(x, Tensor | np.ndarray)


def map_leaves(batch: Any, change: Callable[[Any], Any]) -> Any:
    """The batch with `change` applied to its arrays, inside tuples, lists, mappings and attributes of objects."""
    if is_array(batch):
        return change(batch)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_leaves(item, change) for item in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(map_leaves(item, change) for item in batch)
    if isinstance(batch, Mapping):
        changed = {key: map_leaves(item, change) for key, item in batch.items()}
        if type(batch) is not dict and hasattr(batch, "__setitem__"):
            same_kind: Any = copy.copy(batch)  # a mapping whose entries may be attributes too
            for key, item in changed.items():
                same_kind[key] = item
            return same_kind
        return changed
    if any(is_array(value) for value in getattr(batch, "__dict__", {}).values()):
        clone = copy.copy(batch)
        for name, value in vars(batch).items():
            object.__setattr__(clone, name, map_leaves(value, change) if is_array(value) else value)
        return clone
    return batch


def leaves(batch: Any) -> list[Tensor]:
    """The tensors of a batch."""
    found: list[Tensor] = []
    map_leaves(batch, found.append)
    return found


class TorchBatches:
    """What reading batches needs of torch.

    Parameters
    ----------
    device : torch.device
        Where the model is.
    dtype : torch.dtype or None
        The model's type, to which floating arrays are converted; None leaves tensors as they are.
    pairs : bool
        Whether the loss needs batches (inputs, targets).
    """

    def __init__(self, device: torch.device, dtype: torch.dtype | None, *, pairs: bool) -> None:
        self._device, self._dtype, self._pairs = device, dtype, pairs

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
            source: Any = ArraySource(*data, batch_size=batch_size)
            return Batches(source, _Hooks(self, None), budget, sizes if batch_size is None else None)
        if is_array(data) or isinstance(data, str | bytes | Mapping):
            raise TypeError(
                f"The argument data is a {type(data).__name__}, but must be a tuple (inputs, targets) of two arrays, a "
                "re-iterable of batches such as a list or a DataLoader, or None; put a single batch into a list."
            )
        if isinstance(data, torch.utils.data.Dataset) and not isinstance(data, torch.utils.data.IterableDataset):
            raise TypeError(
                f"The argument data is a data set of single examples ({type(data).__name__}); wrap it in a "
                "torch.utils.data.DataLoader, "
                "which makes batches."
            )
        refuse_one_shot(data)
        if batch_size is not None:
            raise ValueError(
                f"The argument batch_size is {batch_size}, but the data are batches already; leave it out, or pass (inputs, "
                "targets)."
            )
        if _known_empty(data):
            raise ValueError("The argument data is empty: it holds no batch; pass at least one.")
        return Batches(data, _Hooks(self, RandomState(self._device, data)), budget)

    def sequence(self, batches: Sequence[Any]) -> Batches:
        """Batches that are prepared already."""
        return Batches.of(batches, _Hooks(self, None))

    def prepare(self, raw: Any) -> Any:
        """Arrays as tensors on the model's device and, where floating, in the model's type."""
        if self._pairs and not (isinstance(raw, tuple | list) and len(raw) == 2):
            raise TypeError(
                f"A batch is a {type(raw).__name__}{f' of length {len(raw)}' if isinstance(raw, tuple | list) else ''}, but "
                "this loss needs pairs (inputs, targets); for other batches pass a BatchLoss."
            )
        return map_leaves(raw, self._prepare_leaf)

    def _prepare_leaf(self, array: Any) -> Tensor:
        tensor = array.detach() if isinstance(array, Tensor) else _from_numpy(array)
        if tensor.is_inference():  # made under torch.inference_mode, which forbids its use in a graph
            with torch.inference_mode(False):
                tensor = tensor.clone()
        if self._dtype is not None and tensor.is_floating_point():
            return tensor.to(self._device, self._dtype)
        return tensor.to(self._device)

    def num_examples(self, batch: Any) -> int:
        """Length of the first array; one where there is none."""
        found = leaves(batch)
        return int(found[0].shape[0]) if found and found[0].ndim else 1

    def num_bytes(self, batch: Any) -> int:
        """Memory of the arrays."""
        return sum(tensor.numel() * tensor.element_size() for tensor in leaves(batch))

    def checksum(self, batch: Any) -> int:
        """Of shapes and bytes."""
        value = 0
        for tensor in leaves(batch):
            value = zlib.crc32(repr((tuple(tensor.shape), tensor.dtype)).encode(), value)
            value = zlib.crc32(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy(), value)
        return value

    def labels(self, batch: Any) -> np.ndarray:
        """Class of each example, from integer or one-hot targets."""
        targets = batch[1] if isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[1], Tensor) else None
        if targets is not None and targets.ndim == 2 and targets.shape[1] > 1 and _is_one_hot(targets):
            targets = targets.argmax(dim=1)
        if targets is None or targets.ndim != 1 or targets.is_floating_point():
            raise TypeError(
                "A subset by class needs batches (inputs, targets) with one class for each example, as integers or one-hot; "
                "choose the examples yourself and pass them to with_data."
            )
        return np.asarray(targets.cpu().numpy())

    def take(self, batch: Any, indices: np.ndarray) -> Any | None:
        """Some examples of a batch, as far as they exist; None unless all its arrays have one row for each example."""
        found = leaves(batch)
        if not found or any(t.ndim == 0 or t.shape[0] != found[0].shape[0] for t in found):
            return None
        chosen = torch.as_tensor(indices[indices < found[0].shape[0]], device=found[0].device)
        return map_leaves(batch, lambda tensor: tensor[chosen])


def _known_empty(data: Any) -> bool:
    try:
        return len(data) == 0
    except TypeError:  # a loader of a stream does not know its length
        return False


def _is_one_hot(targets: Tensor) -> bool:
    return bool(((targets == 0) | (targets == 1)).all()) and bool((targets.sum(dim=1) == 1).all())


class _Hooks:
    """Hooks of one data set, with the random state that its passes run under."""

    def __init__(self, shared: TorchBatches, state: RandomState | None) -> None:
        self._state = state
        self.prepare, self.num_bytes, self.checksum = shared.prepare, shared.num_bytes, shared.checksum
        self.num_examples = shared.num_examples

    def own(self, batch: Any) -> Any:
        return map_leaves(batch, Tensor.clone)

    def replay(self, source: Iterable[Any]) -> Iterator[Any]:
        return iter(source) if self._state is None else self._state.replay(source)


def _from_numpy(array: np.ndarray) -> Tensor:
    from .vectors import as_tensor

    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if array.dtype.kind not in "biufc" or any(step < 0 for step in array.strides) or not array.dtype.isnative:
        if array.dtype.kind not in "biufc":
            raise TypeError(f"The data hold an array of dtype {array.dtype}, which is no numbers; convert it first.")
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return as_tensor(array)
