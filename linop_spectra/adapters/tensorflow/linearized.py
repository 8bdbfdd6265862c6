"""A product's graph in two: what does not depend on the vector, computed once, and the rest, applied to each vector.

Tracing a product gives one graph of inputs, parameters and vector. Its operations that the vector does not reach are the same in every
product. Their results that the others need are kept; parameters and batch are not among them, nor what only cuts, casts or reshapes these.
A pooling is computed anew from what goes into it: oneDNN's kernel for its gradient wants it in the same graph, and is four times as fast.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

_CHEAP = frozenset(
    {"Const", "Placeholder", "Reshape", "Identity", "Shape", "Cast", "Split", "SplitV", "ExpandDims", "Squeeze", "StridedSlice"}
)
_REPEATED = frozenset({"MaxPool", "MaxPoolV2"})
_MOST_KEPT = 300
"""Arrays to keep; transformers have more, mostly small ones, and gain nothing."""
_ARRAYS = frozenset({tf.float16, tf.bfloat16, tf.float32, tf.float64, tf.int32, tf.int64, tf.bool})


class Linearized:
    """A traced graph ``(*inputs, v) -> (product, *others)`` whose product is linear in `v`, cut in two.

    Parameters
    ----------
    graph : ConcreteFunction
        The traced graph.

    Raises
    ------
    ValueError
        When it cannot be cut: an operation has a state, what would be kept is no array, or there is too much of it.
    """

    def __init__(self, graph: Any) -> None:
        operations = graph.graph.get_operations()
        # The loss compares shapes in the graph, after `OutputLoss.check` did; other assertions are the user's.
        of_loss = re.compile(r"SoftmaxCrossEntropyWithLogits(_\d+)?/assert_equal")
        asserted = {op.name for op in operations if op.type == "Assert" and of_loss.search(op.name)}
        stateful = sorted({op.type for op in operations if op.op_def.is_stateful and op.name not in asserted})
        if stateful:
            raise ValueError(f"operations with a state ({', '.join(stateful)})")
        arguments, captured = graph.inputs[: len(graph.inputs) - len(graph.captured_inputs)], list(graph.captured_inputs)
        *inputs, v = arguments
        self._captured = captured
        given = [*inputs, *graph.inputs[len(arguments) :]]
        reached, cheap = {v.op.name}, set()
        for operation in operations:  # in the order of their making, so that inputs come first
            sources = [tensor.op.name for tensor in operation.inputs]
            if operation.name == v.op.name:
                continue
            if any(name in reached for name in sources):
                reached.add(operation.name)
            elif operation.type in _CHEAP and all(name in cheap for name in sources):
                cheap.add(operation.name)
        product, *others = graph.outputs
        kept: dict[str, Any] = {}
        needed = [product, *(tensor for op in operations if op.name in reached for tensor in op.inputs)]
        needed += [tensor for op in {x.op.name: x.op for x in needed if x.op.type in _REPEATED}.values() for tensor in op.inputs]
        for tensor in needed:
            if tensor.op.name not in reached and tensor.op.name not in cheap and tensor.op.type not in _REPEATED:
                kept[tensor.name] = tensor
        strange = sorted({tensor.dtype.name for tensor in kept.values() if tensor.dtype not in _ARRAYS})
        if strange:
            raise ValueError(f"intermediate results of type {', '.join(strange)}")
        if len(kept) > _MOST_KEPT:
            raise ValueError(f"{len(kept)} intermediate results, which cost more to pass than to compute")
        self._num_kept = len(kept)
        definition = graph.graph.as_graph_def()
        for index in reversed(range(len(definition.node))):
            if definition.node[index].name in asserted:
                del definition.node[index]
        for node in definition.node:  # without states the order does not matter, and gradients wait for vectors that they do not use
            data = [name for name in node.input if not name.startswith("^")]
            del node.input[:]
            node.input.extend(data)
        self._first = _function(definition, given, [*kept.values(), *others])
        self._second = _function(definition, [*given, *kept.values(), v], [product])

    def start(self, inputs: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """What is kept of these inputs, and the graph's other results."""
        found = self._first(*inputs, *self._captured)
        return found[: self._num_kept], found[self._num_kept :]

    def product(self, inputs: Sequence[Any], kept: Sequence[Any], v: Any) -> Any:
        """The product with `v`, by what `start` gave to be kept."""
        return self._second(*inputs, *self._captured, *kept, v)[0]


def _function(definition: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
    """The part of a graph that leads from some of its tensors to others."""

    def body(*values: Any) -> Any:
        places = {tensor.name: value for tensor, value in zip(inputs, values, strict=True)}
        wanted = [tensor.name for tensor in outputs]
        used = {tensor.name: places[tensor.name] for tensor in inputs if tensor.consumers()}
        made = tf.graph_util.import_graph_def(definition, input_map=used, return_elements=wanted, name="part")
        return [places.get(name, tensor) for name, tensor in zip(wanted, made, strict=True)]

    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in inputs]
    return tf.function(body, autograph=False, jit_compile=False).get_concrete_function(*specs)
