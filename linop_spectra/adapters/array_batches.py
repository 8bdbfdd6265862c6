"""Batches for frameworks whose arrays can be made from NumPy's: conversion, sizes, checksums, frozen randomness."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from .batch_leaves import is_array
from .batch_reader import BatchReader, RandomState
from .random_states import HostRandomState


class ArrayBatches(BatchReader):
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
        super().__init__(pairs=pairs)
        self._to_native, self._host_copy, self._is_native = to_native, to_host, is_native
        self._dtype = None if dtype is None else np.dtype(dtype)
        self._random_state = random_state or HostRandomState

    def _is_leaf(self, x: Any) -> bool:
        return is_array(x)

    def _raw(self, array: Any) -> Any:
        return array if self._is_native(array) else self._on_host(array)

    def _frozen_random_state(self, data: Any) -> RandomState:
        return self._random_state(data)

    def _to_host(self, array: Any) -> np.ndarray:
        return self._host_copy(array)

    def _prepare_leaf(self, array: Any) -> Any:
        array = self._raw(array)
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

    def num_bytes(self, batch: Any) -> int:
        """Memory of the arrays."""
        return sum(math.prod(array.shape) * _numpy_dtype(array).itemsize for array in self._leaves(batch))

    def checksum(self, batch: Any) -> int:
        """Of shapes and bytes."""
        value = 0
        for array in self._leaves(batch):
            host = np.ascontiguousarray(self._to_host(array))
            value = zlib.crc32(repr((host.shape, host.dtype.name)).encode(), value)
            value = zlib.crc32(host.reshape(-1).view(np.uint8).data, value)
        return value

    def _rows(self, array: Any, chosen: np.ndarray) -> Any:
        if chosen.size and np.array_equal(chosen, np.arange(chosen[0], chosen[0] + chosen.size)):
            return array[int(chosen[0]) : int(chosen[0]) + chosen.size]
        return self._to_native(self._to_host(array)[chosen], None)


def _numpy_dtype(array: Any) -> np.dtype:
    return np.dtype(getattr(array.dtype, "as_numpy_dtype", array.dtype))


def _is_floating(array: Any) -> bool:
    try:
        dtype = _numpy_dtype(array)
    except TypeError:  # random keys and the like
        return False
    # bfloat16 and narrower are no types of NumPy's own
    return dtype.kind == "f" or (dtype.kind == "V" and dtype.name.startswith(("bfloat", "float")))
