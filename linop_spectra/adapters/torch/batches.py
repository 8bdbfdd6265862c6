"""Batches of torch tensors: conversion, sizes, checksums, cutting."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import batch_leaves
from ..batch_reader import BatchReader
from .context import RandomState


def is_array(x: Any) -> bool:
    """Whether `x` is an array of examples."""
    return isinstance(x, Tensor | np.ndarray)


def map_leaves(batch: Any, change: Callable[[Any], Any]) -> Any:
    """The batch with `change` applied to its arrays, inside tuples, lists, mappings and attributes of objects."""
    return batch_leaves.map_leaves(batch, change, is_array)


def leaves(batch: Any) -> list[Tensor]:
    """The tensors of a batch."""
    return batch_leaves.leaves(batch, is_array)


class TorchBatches(BatchReader):
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

    loader = "a DataLoader"

    def __init__(self, device: torch.device, dtype: torch.dtype | None, *, pairs: bool) -> None:
        super().__init__(pairs=pairs)
        self._device, self._dtype = device, dtype

    def _is_leaf(self, x: Any) -> bool:
        return is_array(x)

    def _raw(self, array: Any) -> Any:
        return array

    def _frozen_random_state(self, data: Any) -> RandomState:
        return RandomState(self._device, data)

    def own(self, batch: Any) -> Any:
        """A copy that the user's later changes do not reach."""
        return map_leaves(batch, Tensor.clone)

    def _prepare_leaf(self, array: Any) -> Tensor:
        tensor = array.detach() if isinstance(array, Tensor) else _from_numpy(array)
        if tensor.is_inference():  # made under torch.inference_mode, which forbids its use in a graph
            with torch.inference_mode(False):
                tensor = tensor.clone()
        if self._dtype is not None and tensor.is_floating_point():
            return tensor.to(self._device, self._dtype)
        return tensor.to(self._device)

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

    def _to_host(self, array: Tensor) -> np.ndarray:
        array = array.detach().cpu()
        return np.asarray((array.float() if array.dtype == torch.bfloat16 else array).numpy())

    def _rows(self, array: Tensor, chosen: np.ndarray) -> Tensor:
        return array[torch.as_tensor(chosen, device=array.device)]


def _from_numpy(array: np.ndarray) -> Tensor:
    from .vectors import as_tensor

    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if array.dtype.kind not in "biufc" or any(step < 0 for step in array.strides) or not array.dtype.isnative:
        if array.dtype.kind not in "biufc":
            raise TypeError(f"The data hold an array of dtype {array.dtype}, which is no numbers; convert it first.")
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return as_tensor(array)
