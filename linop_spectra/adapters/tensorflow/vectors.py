"""Parameter vectors: flat arrays of the core on one side, flat tensors on the other, split into variables inside graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ...backends import Array, Backend
from ..common import listed

Pieces = list[Any]


def as_tensor(vector: Any) -> Any:
    """A vector of the core as a tensor: copied from NumPy, shared with CuPy, whose stream has then finished."""
    if isinstance(vector, np.ndarray):
        return tf.convert_to_tensor(np.ascontiguousarray(vector))
    if type(vector).__module__.partition(".")[0] == "cupy":
        # TensorFlow's DLPack knows capsules only, and no streams: the producer has to be done.
        contiguous = vector if vector.flags.c_contiguous else vector.copy()
        contiguous.device.synchronize()
        return tf.experimental.dlpack.from_dlpack(contiguous.toDlpack())
    return tf.convert_to_tensor(vector)


def as_numpy(tensor: Any) -> np.ndarray:
    """A tensor on the host; large ones on the CPU are shared and read-only."""
    if "CPU" in tensor.device and tensor.dtype in (tf.float32, tf.float64):
        return np.from_dlpack(tensor)
    return np.asarray(tensor.numpy())


class Layout:
    """Names, shapes and types of the parameters, and their places in the flat vector.

    Vectors have the widest type of the parameters, at least float32.

    Parameters
    ----------
    names : sequence of str
        One for each parameter.
    values : sequence of tensor
        Their values.
    backend : Backend
        Arrays of the core.
    """

    def __init__(self, names: Sequence[str], values: Sequence[Any], backend: Backend) -> None:
        self.names, self.backend = tuple(names), backend
        self.shapes = tuple(tuple(int(length) for length in value.shape) for value in values)
        self.sizes = tuple(int(np.prod(shape, dtype=np.int64)) for shape in self.shapes)
        self.dtypes = tuple(tf.as_dtype(value.dtype) for value in values)
        self.vector_dtype = tf.float64 if tf.float64 in self.dtypes else tf.float32
        self.dtype = np.dtype(self.vector_dtype.as_numpy_dtype)
        self.num_parameters = sum(self.sizes)
        ends = np.cumsum(self.sizes).tolist()
        self.blocks = {name: slice(end - size, end) for name, size, end in zip(self.names, self.sizes, ends, strict=True)}

    # -- inside graphs -------------------------------------------------------------------------------------------------

    def split(self, flat: Any) -> Pieces:
        """A flat tensor in the parameters' shapes and types."""
        pieces = tf.split(flat, self.sizes) if len(self.sizes) > 1 else [flat]
        return [
            tf.cast(tf.reshape(piece, shape), dtype)
            for piece, shape, dtype in zip(pieces, self.shapes, self.dtypes, strict=True)
        ]

    def join(self, pieces: Sequence[Any]) -> Any:
        """Tensors as one flat tensor; None stands for zeros."""
        flat = []
        for piece, size in zip(pieces, self.sizes, strict=True):
            if piece is None:
                flat.append(tf.zeros((size,), self.vector_dtype))
            else:
                flat.append(tf.cast(tf.reshape(piece, (-1,)), self.vector_dtype))
        return tf.concat(flat, 0)

    # -- outside -------------------------------------------------------------------------------------------------------

    def flat(self, vector: Any) -> Array:
        """A flat tensor as a new vector of the core."""
        out = self.backend.empty((self.num_parameters,), self.dtype)
        total = VectorSum(out)
        total.add(vector)
        total.finish(1.0)
        return out

    def from_vector(self, vector: Any) -> Any:
        """The flat tensor that a user's vector holds, copied and checked.

        Raises
        ------
        TypeError, ValueError
            When it is complex or of another length.
        """
        tensor = vector if tf.is_tensor(vector) else as_tensor(self.backend.asarray(vector))
        if tuple(tensor.shape) != (self.num_parameters,):
            raise ValueError(
                f"A parameter vector of this objective has shape ({self.num_parameters},), but the one given has "
                f"{tuple(tensor.shape)}."
            )
        if tensor.dtype.is_complex:
            raise TypeError("A parameter vector must be real, but the one given is complex.")
        return tf.identity(tf.cast(tensor, self.vector_dtype))

    def from_tree(self, tree: Any) -> Any:
        """Named or ordered arrays as a flat tensor, copied and checked.

        Raises
        ------
        ValueError
            When some are missing, or have other shapes.
        """
        if isinstance(tree, Mapping):
            missing = [name for name in self.names if name not in tree]
            if missing:
                raise ValueError(f"The parameters given lack {listed(missing)}; this objective needs {listed(self.names)}.")
            values = [tree[name] for name in self.names]
        else:
            values = list(tree)
            if len(values) != len(self.names):
                raise ValueError(f"{len(values)} arrays were given, but this objective has {len(self.names)} parameters.")
        pieces = []
        for name, value, shape in zip(self.names, values, self.shapes, strict=True):
            pieces.append(checked_value(name, value, shape, self.vector_dtype))
        return self.join(pieces)

    def unflatten(self, vector: Any) -> dict[str, Any]:
        """A vector as named tensors of the parameters' shapes, of the vector's type."""
        pieces = tf.split(self.from_vector(vector), self.sizes) if len(self.sizes) > 1 else [self.from_vector(vector)]
        return {name: tf.reshape(piece, shape) for name, piece, shape in zip(self.names, pieces, self.shapes, strict=True)}


def checked_value(name: str, value: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """An array given for a variable as a tensor of its type.

    Raises
    ------
    ValueError
        When its shape is another one.
    """
    if not tf.is_tensor(value):
        value = getattr(value, "value", value) if not callable(getattr(value, "value", None)) else value.value()
        value = value if tf.is_tensor(value) else tf.convert_to_tensor(np.array(value))
    if tuple(value.shape) != shape:
        raise ValueError(f"The parameter {name!r} has shape {shape}, but the array given for it has {tuple(value.shape)}.")
    return tf.identity(tf.cast(value, dtype))


class VectorSum:
    """Sum of flat tensors, written into an array of the core."""

    def __init__(self, out: Array) -> None:
        self._out, self._empty = out, True

    def add(self, v: Any) -> None:
        """Add a vector."""
        if isinstance(self._out, np.ndarray):
            piece: Any = as_numpy(v)
        else:
            piece = _as_foreign(v, self._out)
        if self._empty:
            self._out[:] = piece
        else:
            self._out += piece
        self._empty = False

    def finish(self, factor: float) -> None:
        """Scale the sum."""
        if self._empty:
            self._out[:] = 0
        elif factor != 1.0:
            self._out *= factor


def _as_foreign(tensor: Any, like: Any) -> Any:
    """A tensor as an array of the library of `like`, through the host unless both are on a device."""
    if type(like).__module__.partition(".")[0] == "cupy":
        import cupy

        if "GPU" in tensor.device:
            return cupy.from_dlpack(tf.experimental.dlpack.to_dlpack(tensor))
        return cupy.asarray(tensor.numpy())
    return type(like)(tensor.numpy()) if not hasattr(like, "new_tensor") else like.new_tensor(tensor.numpy())
