"""Parameter vectors: flat arrays of the core on one side, tuples of tensors on the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...backends import Array, Backend
from ..common import listed

Tensors = tuple[Tensor, ...]
Only = Sequence[int] | None
"""Indices of the parameters that count; None for all of them."""
_NUMPY_TYPES: dict[Any, np.dtype] = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}


class _WritableView:
    """Lets NumPy make a writable view of a read-only array, because torch warns about the others. Never written to."""

    def __init__(self, array: np.ndarray) -> None:
        self.owner = array
        self.__array_interface__ = {**array.__array_interface__, "data": (array.__array_interface__["data"][0], False)}


def filled(like: Tensors, indices: Sequence[int], rows: Sequence[Tensor | None]) -> Tensors:
    """A vector of `rows` at some indices, zero where there is none, and zero elsewhere."""
    found = dict(zip(indices, rows, strict=False))
    return tuple(leaf.new_zeros(()).expand(leaf.shape) if (row := found.get(i)) is None else row for i, leaf in enumerate(like))


def as_tensor(vector: Any) -> Tensor:
    """A tensor that shares memory with an array of the core; it must not be written to unless the array may be."""
    if isinstance(vector, np.ndarray):
        return torch.from_numpy(vector if vector.flags.writeable else np.asarray(_WritableView(vector)))
    return torch.from_dlpack(vector)


class Layout:
    """Names, shapes and types of the parameters, and their places in the flat vector.

    Vectors have the widest type of the parameters, at least float32. `leaf_dtypes` are the types in which tensors are
    differentiated: the parameters' own, but float32 for half precision.
    """

    def __init__(self, parameters: Mapping[str, Tensor], backend: Backend) -> None:
        self.names = tuple(parameters)
        self.shapes = tuple(tuple(p.shape) for p in parameters.values())
        self.sizes = tuple(p.numel() for p in parameters.values())
        self.model_dtypes = tuple(p.dtype for p in parameters.values())
        self.leaf_dtypes = tuple(torch.promote_types(dtype, torch.float32) for dtype in self.model_dtypes)
        self.device = next(iter(parameters.values())).device
        self.vector_dtype = torch.float64 if torch.float64 in self.leaf_dtypes else torch.float32
        self.dtype = _NUMPY_TYPES[self.vector_dtype]
        self.num_parameters = sum(self.sizes)
        self.backend = backend
        ends = np.cumsum(self.sizes).tolist()
        self.blocks = {name: slice(end - size, end) for name, size, end in zip(self.names, self.sizes, ends, strict=True)}
        self._uniform = len({*self.leaf_dtypes, self.vector_dtype}) == 1

    def split(self, flat: Tensor) -> Tensors:
        """Views of a flat tensor in the parameters' shapes; copies only where a parameter has another type."""
        pieces = tuple(piece.view(shape) for piece, shape in zip(flat.split(self.sizes), self.shapes, strict=True))
        if self._uniform:
            return pieces
        return tuple(piece.to(dtype) for piece, dtype in zip(pieces, self.leaf_dtypes, strict=True))

    def to_native(self, vector: Array) -> Tensors:
        """A vector of the core as tensors on the model's device."""
        return self.split(as_tensor(vector).to(self.device))

    def accumulator(self, out: Array) -> TensorSum:
        """A sum of tensors that ends in `out`."""
        return TensorSum(self, out)

    def flat(self, tensors: Sequence[Tensor]) -> Array:
        """Tensors as a new vector of the core."""
        out = self.backend.empty((self.num_parameters,), self.dtype)
        total = self.accumulator(out)
        total.add(tuple(tensors))
        total.finish(1.0)
        return out

    def leaves(self, vector: Any) -> Tensors:
        """The parameters that a user's vector holds, copied and checked."""
        tensor = vector.detach() if isinstance(vector, Tensor) else as_tensor(self.backend.asarray(vector))
        if tuple(tensor.shape) != (self.num_parameters,):
            raise ValueError(
                f"A parameter vector of this objective has shape ({self.num_parameters},), but the one given has "
                f"{tuple(tensor.shape)}."
            )
        if tensor.dtype.is_complex:
            raise TypeError("A parameter vector must be real, but the one given is complex.")
        copy = tensor.to(self.device, self.vector_dtype, copy=True)
        return tuple(piece.clone() for piece in self.split(copy)) if not self._uniform else self.split(copy)

    def from_tree(self, tree: Any) -> Tensors:
        """Named or ordered arrays as tensors, copied and checked."""
        if isinstance(tree, Mapping):
            missing = [name for name in self.names if name not in tree]
            if missing:
                raise ValueError(
                    f"The parameters given lack {listed(missing)}; this objective needs {listed(self.names)}."
                )
            values = [tree[name] for name in self.names]
        else:
            values = list(tree)
            if len(values) != len(self.names):
                raise ValueError(f"{len(values)} arrays were given, but this objective has {len(self.names)} parameters.")
        leaves = []
        for name, value, shape, dtype in zip(self.names, values, self.shapes, self.leaf_dtypes, strict=True):
            tensor = value.detach() if isinstance(value, Tensor) else torch.as_tensor(np.array(value))
            if tuple(tensor.shape) != shape:
                raise ValueError(
                    f"The parameter {name!r} has shape {shape}, but the array given for it has {tuple(tensor.shape)}."
                )
            leaves.append(tensor.to(self.device, dtype, copy=True))
        return tuple(leaves)

    def unflatten(self, vector: Any) -> dict[str, Tensor]:
        """A vector as named tensors of the parameters' shapes and types of differentiation, copied."""
        return dict(zip(self.names, self.leaves(vector), strict=True))


class TensorSum:
    """Sum of parameter vectors, written straight into an array of the core where that shares memory with torch."""

    def __init__(self, layout: Layout, out: Array) -> None:
        target = as_tensor(out)
        self._out = target
        self._buffer = target if target.device == layout.device else torch.empty_like(target, device=layout.device)
        self._pieces = [piece.view(shape) for piece, shape in zip(self._buffer.split(layout.sizes), layout.shapes, strict=True)]
        self._empty = True

    def add(self, v: Tensors) -> None:
        """Add a vector."""
        with torch.no_grad():
            for piece, tensor in zip(self._pieces, v, strict=True):
                if self._empty:
                    piece.copy_(tensor)
                else:
                    piece.add_(tensor)
        self._empty = False

    def finish(self, factor: float) -> None:
        """Scale the sum and put it where the core wants it."""
        if factor != 1.0:
            self._buffer.mul_(factor)
        if self._buffer is not self._out:
            self._out.copy_(self._buffer)
