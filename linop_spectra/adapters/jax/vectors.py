"""Parameter vectors: flat arrays of the core on one side, tuples of JAX arrays on the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...backends import Array, Backend
from ..common import listed

Leaves = tuple[jax.Array, ...]


class _WritableView:
    """Lets NumPy make a writable view of a read-only array, because DLPack refuses the others here. Never written to."""

    def __init__(self, array: np.ndarray) -> None:
        self.owner = array
        self.__array_interface__ = {**array.__array_interface__, "data": (array.__array_interface__["data"][0], False)}


def as_jax(vector: Any, device: Any) -> jax.Array:
    """A JAX array on `device` of the numbers of an array of the core, sharing its memory where that is possible.

    Raises
    ------
    RuntimeError
        When JAX narrows the type on the way.
    """
    dtype = np.dtype(str(vector.dtype).removeprefix("torch."))
    if isinstance(vector, np.ndarray):
        vector = np.ascontiguousarray(vector)
        vector = vector if vector.flags.writeable else np.asarray(_WritableView(vector))
    array = jax.device_put(jax.dlpack.from_dlpack(vector), device)
    if array.dtype != dtype:
        raise RuntimeError(
            f"JAX turned a vector of {dtype} into {array.dtype}; switch on jax_enable_x64, or pass dtype='float32' to the objective."
        )
    return array


@dataclasses.dataclass(frozen=True)
class _Pieces:
    """Shapes and types of the parameters; hashable, so that compiled functions are shared by all objectives alike."""

    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[np.dtype, ...]
    vector_dtype: np.dtype


@partial(jax.jit, static_argnums=0)
def _split(pieces: _Pieces, flat: jax.Array) -> Leaves:
    found, first = [], 0
    for shape, dtype in zip(pieces.shapes, pieces.dtypes, strict=True):
        size = int(np.prod(shape))
        found.append(jax.lax.slice(flat, (first,), (first + size,)).reshape(shape).astype(dtype))
        first += size
    return tuple(found)


@partial(jax.jit, static_argnums=0)
def _join(pieces: _Pieces, leaves: Leaves, factor: float) -> jax.Array:
    return jnp.concatenate([leaf.reshape(-1).astype(pieces.vector_dtype) for leaf in leaves]) * factor


@jax.jit
def _add(a: Leaves, b: Leaves) -> Leaves:
    return jax.tree_util.tree_map(jnp.add, a, b)


class Layout:
    """Names, shapes and types of the parameters, and their places in the flat vector.

    Vectors have the widest type of the parameters, at least float32. `leaf_dtypes` are the types in which arrays are
    differentiated: the parameters' own, but float32 for half precision.
    """

    def __init__(self, names: Sequence[str], leaves: Sequence[jax.Array], backend: Backend, device: Any) -> None:
        self.names = tuple(names)
        self.shapes = tuple(tuple(leaf.shape) for leaf in leaves)
        self.sizes = tuple(int(leaf.size) for leaf in leaves)
        self.model_dtypes = tuple(np.dtype(leaf.dtype) for leaf in leaves)
        single, double = np.dtype(np.float32), np.dtype(np.float64)
        self.leaf_dtypes = tuple(dtype if dtype == double else single for dtype in self.model_dtypes)
        self.dtype = double if double in self.leaf_dtypes else single
        self.num_parameters = sum(self.sizes)
        self.backend, self.device = backend, device
        ends = np.cumsum(self.sizes).tolist()
        self.blocks = {name: slice(end - size, end) for name, size, end in zip(self.names, self.sizes, ends, strict=True)}
        self._pieces = _Pieces(self.shapes, self.leaf_dtypes, self.dtype)

    def to_native(self, vector: Array) -> Leaves:
        """A vector of the core as arrays of their own on the model's device."""
        # The core may write to its vector as soon as this returns, while JAX computes on its own time.
        return tuple(jax.block_until_ready(_split(self._pieces, as_jax(vector, self.device))))

    def accumulator(self, out: Array) -> TreeSum:
        """A sum of parameter vectors that ends in `out`."""
        return TreeSum(self, out)

    def write(self, leaves: Leaves, factor: float, out: Array) -> None:
        """Put `factor` times the parameters into a vector of the core."""
        if isinstance(out, np.ndarray) and self.device.platform == "cpu":
            # Straight from JAX's memory into the vector: a joined array between them would be twice the traffic, in fresh pages.
            for leaf, place in zip(leaves, self.blocks.values(), strict=True):
                np.multiply(np.asarray(leaf).reshape(-1), factor, out=out[place], dtype=out.dtype)
            return
        flat = _join(self._pieces, leaves, factor)
        if isinstance(out, np.ndarray):
            out[...] = np.asarray(flat)
        elif self.device.platform == "cpu":
            out[...] = self.backend.asarray(np.asarray(flat))
        else:
            out[...] = self.backend.from_dlpack(flat)

    def flat(self, leaves: Leaves) -> Array:
        """Parameters as a new vector of the core."""
        out = self.backend.empty((self.num_parameters,), self.dtype)
        self.write(leaves, 1.0, out)
        return out

    def leaves(self, vector: Any) -> Leaves:
        """The parameters that a user's vector holds, copied and checked."""
        given = vector if isinstance(vector, jax.Array) else self.backend.asarray(vector)
        if tuple(given.shape) != (self.num_parameters,):
            raise ValueError(
                f"A parameter vector of this objective has shape ({self.num_parameters},), but the one given has "
                f"{tuple(given.shape)}."
            )
        if "complex" in str(given.dtype):
            raise TypeError("A parameter vector must be real, but the one given is complex.")
        if not isinstance(given, jax.Array):
            return self.to_native(self.backend.asarray(given, dtype=self.dtype))
        return _split(self._pieces, jax.device_put(given.astype(self.dtype), self.device))

    def from_named(self, tree: Mapping[str, Any]) -> Leaves:
        """Named arrays in the order of the parameters, copied and checked."""
        missing = [name for name in self.names if name not in tree]
        if missing:
            raise ValueError(f"The parameters given lack {listed(missing)}; this objective needs {listed(self.names)}.")
        return self.from_sequence([tree[name] for name in self.names])

    def from_sequence(self, values: Sequence[Any]) -> Leaves:
        """Arrays in the order of the parameters, copied and checked."""
        if len(values) != len(self.names):
            raise ValueError(f"{len(values)} arrays were given, but this objective has {len(self.names)} parameters.")
        leaves = []
        for name, value, shape, dtype in zip(self.names, values, self.shapes, self.leaf_dtypes, strict=True):
            if tuple(np.shape(value)) != shape:
                raise ValueError(
                    f"The parameter {name!r} has shape {shape}, but the array given for it has {tuple(np.shape(value))}."
                )
            leaves.append(jax.device_put(jnp.array(value, dtype=dtype, copy=True), self.device))
        return tuple(leaves)

    def unflatten(self, vector: Any) -> dict[str, jax.Array]:
        """A vector as named arrays of the parameters' shapes and types of differentiation, copied."""
        return dict(zip(self.names, self.leaves(vector), strict=True))


class TreeSum:
    """Sum of parameter vectors in JAX, written to an array of the core at the end."""

    def __init__(self, layout: Layout, out: Array) -> None:
        self._layout, self._out = layout, out
        self._sum: Leaves | None = None

    def add(self, v: Leaves) -> None:
        """Add a vector."""
        self._sum = tuple(v) if self._sum is None else _add(self._sum, tuple(v))

    def finish(self, factor: float) -> None:
        """Scale the sum and put it where the core wants it."""
        if self._sum is None:
            self._out[...] = 0
        else:
            self._layout.write(self._sum, factor, self._out)
