"""A forward pass in which every use of a weight is seen, for Kronecker factors.

The graph of the outputs is read operation by operation, whatever layers it came from. Places of parameters are followed through
transposes, slices and conversions; matrix products, convolutions, look-ups of rows and additions of a bias are recognised, and gradients
taken in what they give. Loops and functions are not entered: parameters in them are noted as used otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf

from ...backends import Array
from ...curvature.weight_uses import UseKind, WeightUse
from ..batch_leaves import leaves, map_leaves
from ..use_recorder import Notes, Seen, Tracked, UseRecorder, bias_alone, parameter_among, product_with
from ..weight_layouts import Contraction, output_index, parse_einsum
from .compiled import structure_of

if TYPE_CHECKING:
    from .functions import TensorFlowFunctions, TensorFlowPoint

_SAME = frozenset({"Identity", "Cast", "CheckNumerics", "PreventGradient"})
_RESHAPED = frozenset({"Reshape", "ExpandDims", "Squeeze"})
_IGNORED = frozenset({"AssignVariableOp", "Shape", "ShapeN", "Size", "Rank", "StopGradient", "NoOp"})


class TensorFlowWeightUses:
    """The TensorFlow adapter's `linop_spectra.curvature.weight_uses.RecordedUses`.

    Parameters
    ----------
    functions : TensorFlowFunctions
        Model and loss.
    point : TensorFlowPoint
        Parameters.
    batch : object
        A prepared batch.
    """

    def __init__(self, functions: TensorFlowFunctions, point: TensorFlowPoint, batch: Any) -> None:
        self._backend = functions.backend
        self.outputs = functions.outputs_at(point, batch)
        self._arguments = (point.flat, *point.rest, *leaves(batch))
        self._graphs = graphs = _graphs(functions, point, batch, self.outputs)
        self._inputs = graphs.inputs(*self._arguments)
        self.uses: tuple[WeightUse, ...] = graphs.uses
        self.others: Mapping[str, str] = graphs.others

    def leading(self, number: int) -> tuple[int, ...]:
        """Axes of a use before the last one."""
        return self._graphs.seen[number].leading

    def inputs(self, number: int, start: int, stop: int) -> Array:
        """Inputs of a use, from `start` to `stop` of the first axis."""
        seen, x = self._graphs.seen[number], self._inputs[number]
        if seen.patches is not None:
            return self._backend.asarray(seen.patches(x[start:stop]).numpy())
        features = () if self.uses[number].kind == "embedding" else (-1,)
        return self._backend.asarray(tf.reshape(tf.transpose(x, seen.x_axes), (*seen.leading, *features))[start:stop].numpy())

    def output_gradients(self, u: Any) -> list[Array]:
        """Gradients of ``<u, outputs>`` in what each use gives."""
        found = self._graphs.gradients(*self._arguments, u) if self.uses else []
        return [
            self._backend.asarray(tf.reshape(tf.transpose(g, seen.y_axes), (*seen.leading, -1)).numpy())
            for seen, g in zip(self._graphs.seen, found, strict=True)
        ]


class _Graphs:
    """Inputs of all uses, and gradients in their results, as compiled graphs for batches of one form."""

    def __init__(self, functions: TensorFlowFunctions, point: TensorFlowPoint, batch: Any, outputs: Any) -> None:
        self._functions, self._batch, self._count = functions, batch, len(point.rest)
        arrays = (point.flat, *point.rest, *leaves(batch))
        specs = [tf.TensorSpec(x.shape, x.dtype) for x in arrays]
        with functions.compiled._random_state.frozen():
            made = tf.function(self._inputs_of, autograph=False).get_concrete_function(*specs)
            self.inputs = made
            self.gradients = tf.function(self._gradients_of, autograph=False).get_concrete_function(
                *specs, tf.TensorSpec(outputs.shape, outputs.dtype)
            )

    def _recorded(self, arguments: Sequence[Any]) -> tuple[_Recorder, Any]:
        functions, count = self._functions, self._count
        own = iter(arguments[1 + count :])
        batch = map_leaves(self._batch, lambda _: next(own))
        pieces = functions._layout.split(arguments[0])
        with functions.program.bound(pieces, arguments[1 : 1 + count]) as sources:
            outputs = functions.loss.outputs(functions.program, batch)
        recorder = _Recorder(functions, sources)
        recorder.read(tf.compat.v1.get_default_graph())
        self.uses, self.seen, self.others = tuple(recorder.uses), recorder.seen, recorder.others
        return recorder, outputs

    def _inputs_of(self, *arguments: Any) -> Any:
        recorder, _ = self._recorded(arguments)
        return [tf.zeros(()) if x is None else x for x in recorder.inputs]

    def _gradients_of(self, *arguments: Any) -> Any:
        recorder, outputs = self._recorded(arguments[:-1])
        u = tf.cast(arguments[-1], outputs.dtype)
        results = recorder.results
        found = tf.gradients(outputs, results, u, unconnected_gradients="zero") if results else []
        return [tf.convert_to_tensor(g) for g in found]


def _graphs(functions: TensorFlowFunctions, point: TensorFlowPoint, batch: Any, outputs: Any) -> _Graphs:
    key = structure_of(batch), tuple(tuple(array.shape) for array in leaves(batch)), tuple(outputs.shape)
    if key not in functions.weight_graphs:
        functions.weight_graphs[key] = _Graphs(functions, point, batch, outputs)
    found: _Graphs = functions.weight_graphs[key]
    return found


class _Recorder(UseRecorder):
    """Reads a graph.

    Parameters
    ----------
    functions : TensorFlowFunctions
        Whose parameters these are.
    sources : sequence
        Tensors of the parameters, or variables.
    """

    def __init__(self, functions: TensorFlowFunctions, sources: Sequence[Any]) -> None:
        super().__init__(functions.blocks, "TensorFlow")
        self._tracked: dict[Any, Tracked] = {}
        graph = tf.compat.v1.get_default_graph()
        for place, source in zip(functions.blocks.values(), sources, strict=True):
            own = graph.capture(source.handle) if isinstance(source, tf.Variable) else source
            shape = tuple(int(length) for length in source.shape)
            self._tracked[own.ref()] = Tracked(np.arange(place.start, place.stop).reshape(shape))
        self.results: list[Any] = []

    def read(self, graph: Any) -> None:
        """Look at all operations, in the order in which they were made."""
        for operation in graph.get_operations():
            notes = [self._tracked.get(tensor.ref()) for tensor in operation.inputs]
            if operation.type in _IGNORED or not any(note is not None for note in notes):
                continue
            moved = _moved(operation, notes)
            if moved is not None:
                for tensor, own in zip(operation.outputs, moved, strict=True):
                    if own.use is None or _reader(tensor) is not None:
                        self._tracked[tensor.ref()] = own
                continue
            known = _USES.get(operation.type)
            if known is not None and known(self, operation, notes):
                continue
            if any(tensor.dtype.is_floating or tensor.dtype == tf.variant for tensor in operation.outputs):
                self._note(operation.type, notes)

    def _add(self, kind: UseKind, places: np.ndarray | None, bias: np.ndarray | None, result: Any, x: Any, seen: Seen) -> bool:
        kept = self._keep(kind, places, bias, x, seen)
        if kept:
            self.results.append(result)
        return kept

    def _product(self, operation: Any, notes: Notes, labels: tuple[Any, Any, Any] | None) -> bool:
        if labels is None or len(notes) != 2:
            return False
        parameter = parameter_among(notes)
        if parameter is None:
            return False
        weight, places = parameter
        x, result = operation.inputs[1 - weight], operation.outputs[0]
        product = product_with(places, weight, labels, labels[2], x.shape)
        if product is None:
            return False
        found, seen = product
        if not self._add("dense", found.places, None, result, x, seen):
            return False
        self._result(result, found)
        return True

    def _result(self, result: Any, found: Contraction) -> None:
        """Remember where outputs of the last use are, in case that a bias is added."""
        if _reader(result) is not None:
            self._tracked[result.ref()] = Tracked(None, len(self.uses) - 1, output_index(found, [int(n) for n in result.shape]))

    def _matmul(self, operation: Any, notes: Notes) -> bool:
        names = ("transpose_a", "transpose_b") if operation.type == "MatMul" else ("adj_x", "adj_y")
        flipped = [operation.get_attr(name) for name in names]
        left, right = (tensor.shape.rank for tensor in operation.inputs)
        weight = 1 if notes[1] is not None and notes[1].places is not None else 0
        if (right if weight else left) != 2:
            return False
        axes = tuple(range(max(left, right) - 2))
        sides = [("n", "in"), ("in", "m")]
        ends = [pair[::-1] if flip else pair for pair, flip in zip(sides, flipped, strict=True)]
        left_labels, right_labels = ((*axes, *end) if side != weight else end for side, end in enumerate(ends))
        return self._product(operation, notes, (left_labels, right_labels, (*axes, "n", "m")))

    def _einsum(self, operation: Any, notes: Notes) -> bool:
        return self._product(operation, notes, parse_einsum(operation.get_attr("equation").decode()))

    def _convolution(self, operation: Any, notes: Notes) -> bool:
        parameter, layout = parameter_among(notes), operation.get_attr("data_format").decode()
        if parameter is None or parameter[0] != 1:
            return False
        geometry = _geometry(operation)
        # Groups show in the channels alone.
        if layout not in ("NHWC", "NDHWC") or geometry is None or int(operation.inputs[0].shape[-1]) != parameter[1].shape[-2]:
            return False
        places = np.moveaxis(parameter[1], -1, 0)
        window, places = places.shape[1:-1], places.reshape(places.shape[0], -1)

        def patches(part: Any) -> Any:
            found = geometry.patches(part, window)
            return tf.reshape(found, (found.shape[0], -1, found.shape[-1]))

        result = geometry.result
        shape = [int(n) for n in result.shape]
        leading, y_axes = (shape[0], int(np.prod(shape[1:-1]))), tuple(range(len(shape)))
        if not self._add("convolution", places, None, result, geometry.x, Seen(leading, (), y_axes, patches)):
            return False
        self._result(result, Contraction(places, len(shape) - 1, (), y_axes))
        return True

    def _gather(self, operation: Any, notes: Notes) -> bool:
        index = notes[0]
        if index is None or index.places is None or index.places.ndim != 2:
            return False
        axis = tf.get_static_value(operation.inputs[2]) if operation.type == "GatherV2" else 0
        if axis is None or int(axis) != 0 or operation.get_attr("batch_dims") != 0:
            return False
        rows = operation.inputs[1]
        axes = tuple(range(rows.shape.rank))
        seen = Seen(tuple(int(n) for n in rows.shape), axes, (*axes, rows.shape.rank), None)
        return self._add("embedding", index.places.T, None, operation.outputs[0], rows, seen)

    def _addition(self, operation: Any, notes: Notes) -> bool:
        parameter = parameter_among(notes)
        if parameter is None:
            return False
        side, places = parameter
        result = operation.outputs[0]
        if operation.type == "BiasAdd" and operation.get_attr("data_format").decode() != "NHWC":
            places = places.reshape(-1, *[1] * (result.shape.rank - 2))
        if self._joined(notes[1 - side], places):
            return True
        alone = bias_alone([int(n) for n in result.shape], places)
        return alone is not None and self._add("bias", None, alone[0], result, None, alone[1])


class _Geometry(NamedTuple):
    """Where a convolution begins and ends, and how its patches lie.

    TensorFlow writes dilated ones as convolutions of examples taken apart (``SpaceToBatchND``); here they are one again.
    """

    x: Any
    result: Any
    strides: list[int]
    dilations: list[int]
    scheme: str
    pads: list[list[int]]
    crops: list[list[int]]

    def patches(self, part: Any, window: Sequence[int]) -> Any:
        """Patches, shape (num_examples, *positions, window times channels)."""
        axes = len(window)
        if part.shape.rank == axes + 1:
            part = tf.expand_dims(part, 1)  # one axis is done as two
        if self.pads:
            part = tf.pad(part, [[0, 0], *self.pads, [0, 0]])
        sizes, steps = [1, *window, 1], [1, *self.strides, 1]
        if axes == 2:
            found = tf.image.extract_patches(part, sizes, steps, [1, *self.dilations, 1], self.scheme)
        else:
            found = tf.raw_ops.ExtractVolumePatches(input=part, ksizes=sizes, strides=steps, padding=self.scheme)
        for axis, (first, last) in enumerate(self.crops):
            found = tf.gather(found, np.arange(first, int(found.shape[axis + 1]) - last), axis=axis + 1)
        return found


def _geometry(operation: Any) -> _Geometry | None:
    """That of a convolution; None where it is not understood."""
    x, result = operation.inputs[0], operation.outputs[0]
    axes = result.shape.rank - 2
    strides, dilations = ([int(n) for n in operation.get_attr(name)][1:-1] for name in ("strides", "dilations"))
    scheme = operation.get_attr("padding").decode()
    pads: list[list[int]] = []
    if scheme == "EXPLICIT":
        pads, scheme = np.reshape(operation.get_attr("explicit_paddings"), (-1, 2))[1:-1].tolist(), "VALID"
    before = x.op if x.op.type == "SpaceToBatchND" else x.op.inputs[0].op if x.op.type == "ExpandDims" else None
    if before is None or before.type != "SpaceToBatchND":
        return None if axes == 3 and max(dilations) > 1 else _Geometry(x, result, strides, dilations, scheme, pads, [])
    after = _reader(result)
    if after is not None and after.type == "Squeeze":
        after = _reader(after.outputs[0])
    plain = axes == 2 and strides == dilations == [1, 1] and scheme == "VALID" and not pads
    if after is None or after.type != "BatchToSpaceND" or not plain:
        return None
    found = [tf.get_static_value(tensor) for tensor in (*before.inputs[1:], after.inputs[2])]
    if any(value is None for value in found):
        return None
    block, padding, crops = (value.tolist() for value in found)
    missing = axes - len(block)
    none = [[0, 0]] * missing
    return _Geometry(before.inputs[0], after.outputs[0], strides, [1] * missing + block, "VALID", none + padding, none + crops)


def _reader(tensor: Any) -> Any:
    """The one operation that computes with a tensor; None where there are several."""
    found = [reader for reader in tensor.consumers() if reader.type not in _IGNORED]
    return found[0] if len(found) == 1 else None


_USES: dict[str, Callable[..., bool]] = {
    **dict.fromkeys(("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"), _Recorder._matmul),
    "Einsum": _Recorder._einsum,
    **dict.fromkeys(("Conv2D", "Conv3D"), _Recorder._convolution),
    **dict.fromkeys(("GatherV2", "ResourceGather"), _Recorder._gather),
    **dict.fromkeys(("AddV2", "Add", "BiasAdd"), _Recorder._addition),
}


def _moved(operation: Any, notes: Notes) -> list[Tracked] | None:
    """What is known of the results of an operation that only moves numbers; None for others."""
    name = operation.type
    place = 1 if name == "Split" else 0
    note = notes[place]
    if note is None or sum(other is not None for other in notes) != 1:
        return None
    array = note.places if note.places is not None else note.outputs
    if array is None or not all(tensor.dtype.is_floating for tensor in operation.outputs):
        return None
    shapes = [tuple(int(n) for n in tensor.shape) if tensor.shape.is_fully_defined() else None for tensor in operation.outputs]
    if any(shape is None for shape in shapes):
        return None
    shape: Any = shapes[0]
    constants = [tf.get_static_value(tensor) for tensor in operation.inputs[1:]]
    moved: list[np.ndarray] | None
    if name in _SAME or name == "ReadVariableOp":
        moved = [array]
    elif name in _RESHAPED:
        moved = [array.reshape(shape)]
    elif name == "Transpose" and constants[0] is not None:
        moved = [array.transpose([int(axis) for axis in constants[0]])]
    elif name == "BroadcastTo":
        moved = [np.broadcast_to(array, shape)]
    elif name == "Slice" and constants[0] is not None:
        moved = [array[tuple(slice(int(start), int(start) + length) for start, length in zip(constants[0], shape, strict=True))]]
    elif name == "StridedSlice" and all(c is not None for c in constants):
        moved = _strided(operation, array, constants, shape)
    elif name == "Split" and tf.get_static_value(operation.inputs[0]) is not None:
        moved = np.split(array, len(shapes), axis=int(tf.get_static_value(operation.inputs[0])))
    elif name == "SplitV" and all(c is not None for c in constants):
        moved = np.split(array, np.cumsum(constants[0])[:-1], axis=int(constants[1]))
    elif name == "Unpack":
        axis = operation.get_attr("axis")
        moved = [np.take(array, i, axis=axis) for i in range(len(shapes))]
    else:
        return None
    if moved is None:
        return None
    return [note.moved(part) for part in moved]


def _strided(operation: Any, array: np.ndarray, constants: Sequence[Any], shape: tuple[int, ...]) -> list[np.ndarray] | None:
    if operation.get_attr("ellipsis_mask") or operation.get_attr("new_axis_mask"):
        return None
    begins, ends, single = (operation.get_attr(f"{mask}_mask") for mask in ("begin", "end", "shrink_axis"))
    chosen: list[Any] = []
    for axis, (first, last, step) in enumerate(zip(*constants, strict=True)):
        if single >> axis & 1:
            chosen.append(int(first))
        else:
            chosen.append(slice(None if begins >> axis & 1 else int(first), None if ends >> axis & 1 else int(last), int(step)))
    found = array[tuple(chosen)]
    return [found] if found.shape == shape else None
