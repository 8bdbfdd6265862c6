"""Derivatives of one batch as compiled graphs, traced once for all batches of one form.

A graph takes parameters, the other variables and the batch as tensors, so that new parameters and new data trace nothing. The
first axis of every array of the batch is free; other axes become free when a batch with another length comes.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from ..batch_leaves import fields_of, has_leaf_fields, is_array, leaves, map_leaves
from ..random_states import HostRandomState
from .linearized import Linearized
from .losses import OutputLoss
from .program import Program, refuse_random
from .vectors import Layout

_COSTLESS = frozenset({"Const", "Placeholder", "Reshape", "Identity", "Shape", "ReadVariableOp", "NoOp", "ExpandDims", "StridedSlice"})

_MASKED = (
    "The outputs carry a mask of positions (as from Embedding(mask_zero=True)), which this loss does not see; mark the masked targets by "
    "-100 and pass a BatchLoss(outputs=..., loss=...) that counts only the others, or take the mask off."
)
_OF_VECTORS = frozenset({"hessian", "residual", "forward", "gauss-newton"})
_FORWARD = frozenset({"forward", "gauss-newton"})


class Compiled:
    """The graphs of one model and one loss.

    Parameters
    ----------
    program : Program
        The model.
    loss : OutputLoss
        The loss.
    layout : Layout
        Places of the parameters.

    Attributes
    ----------
    traces : collections.Counter
        How often each kind of graph was traced.
    unused : set of int
        Parameters that no gradient reached.
    forward_failure : str
        Why forward mode does not exist for this model; empty while it does.
    """

    def __init__(self, program: Program, loss: OutputLoss, layout: Layout) -> None:
        self._program, self._loss, self._layout = program, loss, layout
        self.traces: collections.Counter[str] = collections.Counter()
        self.unused: set[int] = set()
        self.forward_failure = ""
        self._graphs: dict[Any, Any] = {}
        self._linearized: dict[int, Linearized | None] = {}
        self._shapes: dict[Any, list[list[int | None]]] = {}
        self._static: set[Any] = set()
        self._random_state = HostRandomState()
        self._bodies: dict[str, Callable[..., Any]] = {
            "outputs": self._outputs,
            "statistics": self._statistics,
            "loss": self._loss_of_outputs,
            "gradient": self._gradient,
            "hessian": self._hessian,
            "residual": self._residual,
            "forward": self._forward,
            "gauss-newton": self._gauss_newton,
            "transposed": self._transposed,
            "output gradient": self._output_gradient,
            "output hessian": self._output_hessian,
            "sampled gradient": self._sampled_gradient,
        }

    # -- calling -------------------------------------------------------------------------------------------------------

    def __call__(self, kind: str, flat: Any, rest: Sequence[Any], batch: Any, *more: Any) -> Any:
        """The graph of that kind on these tensors; it is traced when there is none yet."""
        return self.graph(kind, flat, rest, batch, *more)(flat, *rest, *leaves(batch), *more)

    def known(self, kind: str, batch: Any) -> bool:
        """Whether a graph of that kind exists for batches like this one."""
        return any(key[0] == kind and key[1] == structure_of(batch) for key in self._graphs)

    def graph(self, kind: str, flat: Any, rest: Sequence[Any], batch: Any, *more: Any) -> Any:
        """The traced graph of that kind for batches like this one."""
        if kind in _FORWARD and not self.forward_failure:
            self._look_for_calls(self._graph("outputs", flat, rest, batch, ()).graph)
        try:
            return self._graph(kind, flat, rest, batch, more)
        except Exception as error:
            if kind not in _FORWARD or self.forward_failure:
                raise
            self.forward_failure = f"it failed with {type(error).__name__}"
            return self._graph(kind, flat, rest, batch, more)

    def linearized(self, kind: str, flat: Any, rest: Sequence[Any], batch: Any, v: Any) -> Linearized | None:
        """The same graph in two, by what depends on `v`; None where it cannot be cut."""
        graph = self.graph(kind, flat, rest, batch, v)
        if id(graph) not in self._linearized:  # graphs are never given up
            try:
                self._linearized[id(graph)] = Linearized(graph)
            except ValueError:
                self._linearized[id(graph)] = None
        return self._linearized[id(graph)]

    def _look_for_calls(self, graph: Any) -> None:
        """Forward mode fails in the loops of recurrent layers, and loses the tangents of variables that a ``tf.function`` captures."""
        if not self._program.forward_mode:
            self.forward_failure = "variables of a tf.Module"
        elif graph.as_graph_def().library.function:
            self.forward_failure = "it has loops or functions inside"

    def _graph(self, kind: str, flat: Any, rest: Sequence[Any], batch: Any, more: Sequence[Any]) -> Any:
        structure, arrays = structure_of(batch), [*leaves(batch), *more]
        form = (kind, structure)
        exact = tuple(tuple(array.shape) for array in arrays)
        if kind in _OF_VECTORS:
            free = (*self._relaxed((structure, ""), leaves(batch)), tuple(more[0].shape))
        else:
            free = self._relaxed((structure, kind if more else ""), arrays)
        if form not in self._static:
            key = (kind, structure, free)
            if key in self._graphs:
                return self._graphs[key]
            try:
                self._graphs[key] = self._trace(kind, flat, rest, batch, free, more)
                return self._graphs[key]
            except Exception:  # models may need to know the length of a batch
                if exact == free or (kind in _FORWARD and not self.forward_failure):
                    raise
        key = (kind, structure, exact)
        if key not in self._graphs:
            self._graphs[key] = self._trace(kind, flat, rest, batch, exact, more)
            self._static.add(form)
        return self._graphs[key]

    def _relaxed(self, key: Any, arrays: Sequence[Any]) -> tuple[tuple[int | None, ...], ...]:
        """Shapes with the axes free in which batches differ, the first one always."""
        if key not in self._shapes:
            self._shapes[key] = [[None, *array.shape[1:]] if array.shape.rank else [] for array in arrays]
        for known, array in zip(self._shapes[key], arrays, strict=True):
            for axis, length in enumerate(array.shape):
                if known[axis] != length:
                    known[axis] = None
        return tuple(tuple(known) for known in self._shapes[key])

    def _trace(self, kind: str, flat: Any, rest: Sequence[Any], batch: Any, shapes: Any, more: Sequence[Any]) -> Any:
        count, extra = len(rest), len(more)
        arrays = [*leaves(batch), *more]

        def body(*arguments: Any) -> Any:
            values, placed = arguments[1 : 1 + count], arguments[1 + count :]
            own = iter(placed[: len(placed) - extra])
            made = map_leaves(batch, lambda _: next(own))
            return self._bodies[kind](arguments[0], values, made, *placed[len(placed) - extra :])

        specs = [tf.TensorSpec(flat.shape, flat.dtype), *(tf.TensorSpec(value.shape, value.dtype) for value in rest)]
        specs += [tf.TensorSpec(shape, array.dtype) for shape, array in zip(shapes, arrays, strict=True)]
        # Numbers that a model (or TensorFlow itself) draws on the host while it is traced are frozen, and the caller's untouched.
        with self._random_state.frozen():
            concrete = tf.function(body, autograph=False, jit_compile=False).get_concrete_function(*specs)
        if kind == "outputs":
            refuse_random(concrete.graph)
            self._program.refuse_captures(concrete.captured_inputs)
        self.traces[kind] += 1
        return concrete

    def bytes_of_outputs_graph(self, graph: Any, batch: Any) -> int:
        """About what a forward pass on a batch computes, in bytes, with the free axes as long as the batch."""
        found = leaves(batch)
        length = int(found[0].shape[0]) if found and found[0].shape.rank else 1
        steps = max((int(array.shape[1]) for array in found if array.shape.rank > 1), default=1)
        functions = {f.signature.name: f for f in graph.graph.as_graph_def().library.function}
        total = _bytes_of(graph.graph.get_operations(), length)
        # Loops over time have their steps in functions of their own.
        return total * (1 + steps) if functions and any("while" in name for name in functions) else total

    # -- what the graphs hold ------------------------------------------------------------------------------------------

    def _outputs(self, flat: Any, rest: Sequence[Any], batch: Any) -> Any:
        with self._program.bound(self._layout.split(flat), rest):
            return self._outputs_here(batch)

    def _statistics(self, flat: Any, rest: Sequence[Any], batch: Any) -> Any:
        with self._program.collecting(self._layout.split(flat), rest) as found:
            self._outputs_here(batch)
            return found()

    def _outputs_here(self, batch: Any) -> Any:
        outputs = self._loss.outputs(self._program, batch)
        if not self._loss.split:
            total, terms = outputs
            return total, tf.cast(terms, tf.float64)
        if tf.is_tensor(outputs):
            if self._loss.masks and self._program.carries_mask(outputs):
                raise ValueError(_MASKED)
            if outputs.dtype in (tf.float16, tf.bfloat16):
                outputs = tf.cast(outputs, tf.float32)
        else:
            self._loss.check(outputs, batch)  # says what is wrong with them
        return outputs

    def _totals(self, outputs: Any, batch: Any) -> tuple[Any, Any]:
        total, terms = self._loss.total(outputs, batch)
        terms = tf.cast(terms, tf.float64)
        extra = self._program.regularization() if self._loss.regularized else None
        if extra is not None:
            # Summed over the batches and divided by all terms, this is the extra term once.
            total = total + tf.cast(terms, total.dtype) * tf.cast(extra, total.dtype)
        return total, terms

    def _loss_of_outputs(self, flat: Any, rest: Sequence[Any], batch: Any, outputs: Any) -> Any:
        with self._program.bound(self._layout.split(flat), rest):
            return self._totals(outputs, batch)

    def _slope(self, sources: Sequence[Any], batch: Any) -> tuple[list[Any], Any, Any, Any]:
        """Gradient in the sources, with outputs, loss and terms; inside `bound`."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            outputs = self._outputs_here(batch)
            total, terms = self._totals(outputs, batch)
        gradient = [_dense(g) for g in tape.gradient(total, sources)]
        self.unused = {i for i, g in enumerate(gradient) if g is None}
        return gradient, outputs if self._loss.split else total, total, terms

    def _gradient(self, flat: Any, rest: Sequence[Any], batch: Any) -> Any:
        with self._program.bound(self._layout.split(flat), rest) as sources:
            gradient, outputs, total, terms = self._slope(sources, batch)
            return self._layout.join(gradient), outputs, total, terms

    def _hessian(self, flat: Any, rest: Sequence[Any], batch: Any, v: Any) -> Any:
        with self._program.bound(self._layout.split(flat), rest) as sources:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(sources)
                gradient, outputs, total, terms = self._slope(sources, batch)
            return self._layout.join(self._along(tape, gradient, sources, v)), outputs, total, terms

    def _residual(self, flat: Any, rest: Sequence[Any], batch: Any, v: Any) -> Any:
        with self._program.bound(self._layout.split(flat), rest) as sources:
            with tf.GradientTape(watch_accessed_variables=False) as outer:
                outer.watch(sources)
                with tf.GradientTape(watch_accessed_variables=False) as inner:
                    inner.watch(sources)
                    outputs = self._outputs_here(batch)
                    fixed = tf.stop_gradient(outputs)
                    weights = tf.stop_gradient(self._loss.gradient(fixed, batch))
                    total, terms = self._totals(fixed, batch)  # with the regularisers, which are no part of the other matrix
                    weighted = tf.reduce_sum(weights * outputs) + total
                gradient = [_dense(g) for g in inner.gradient(weighted, sources)]
            return self._layout.join(self._along(outer, gradient, sources, v)), outputs, total, terms

    def _along(self, tape: Any, gradient: Sequence[Any], sources: Any, v: Any) -> Any:
        """Derivative in the sources of the inner product of a gradient with `v`."""
        live = [(g, piece) for g, piece in zip(gradient, self._layout.split(v), strict=True) if g is not None]
        if not live:
            return [None] * len(sources) if isinstance(sources, list) else None
        found = tape.gradient([g for g, _ in live], sources, [tf.cast(piece, g.dtype) for g, piece in live])
        return [_dense(g) for g in found] if isinstance(sources, list) else _dense(found)

    def _transposed(self, flat: Any, rest: Sequence[Any], batch: Any, u: Any) -> Any:
        with self._program.bound(self._layout.split(flat), rest) as sources:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(sources)
                outputs = self._outputs_here(batch)
            return self._layout.join([_dense(g) for g in tape.gradient(outputs, sources, u)])

    def _forward(self, flat: Any, rest: Sequence[Any], batch: Any, v: Any) -> Any:
        with self._program.bound(self._layout.split(flat), rest) as sources:
            return self._pushed(sources, batch, v)[:2]

    def _gauss_newton(self, flat: Any, rest: Sequence[Any], batch: Any, v: Any) -> Any:
        with self._program.bound(self._layout.split(flat), rest) as sources:
            slope, outputs, tape = self._pushed(sources, batch, v)
            curved = self._loss.hessian_product(outputs, batch, slope)
            total, terms = self._totals(outputs, batch)
            product = self._layout.join([_dense(g) for g in tape.gradient(outputs, sources, curved)])
            return product, outputs, total, terms

    def _pushed(self, sources: Sequence[Any], batch: Any, v: Any) -> tuple[Any, Any, Any]:
        """Jacobian of the outputs times `v`, the outputs, and a tape that knows them."""
        tape = tf.GradientTape(watch_accessed_variables=False, persistent=True)
        if not self.forward_failure:
            tangents = [tf.cast(piece, s.dtype) for piece, s in zip(self._layout.split(v), sources, strict=True)]
            with tf.autodiff.ForwardAccumulator(list(sources), tangents) as accumulator, tape:
                tape.watch(sources)
                outputs = self._outputs_here(batch)
            return accumulator.jvp(outputs, unconnected_gradients="zero"), outputs, tape
        # The transposed product is linear in its argument: its derivative there is the product itself.
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            with tape:
                tape.watch(sources)
                outputs = self._outputs_here(batch)
            u = tf.zeros_like(outputs)
            outer.watch(u)
            pulled = [_dense(g) for g in tape.gradient(outputs, sources, u)]
        slope = self._along(outer, pulled, u, v)
        return tf.zeros_like(outputs) if slope is None else slope, outputs, tape

    def _output_gradient(self, flat: Any, rest: Sequence[Any], batch: Any, outputs: Any) -> Any:
        return self._loss.gradient(outputs, batch)

    def _output_hessian(self, flat: Any, rest: Sequence[Any], batch: Any, outputs: Any, u: Any) -> Any:
        return self._loss.hessian_product(outputs, batch, u)

    def _sampled_gradient(self, flat: Any, rest: Sequence[Any], batch: Any, outputs: Any, noise: Any) -> Any:
        return self._loss.sampled_gradient(outputs, batch, noise)


def structure_of(batch: Any) -> Any:
    """What a graph knows of a batch apart from shapes: kinds of containers, types of arrays, and everything that is no array."""
    if is_array(batch):
        return batch.dtype.name, batch.shape.rank
    if isinstance(batch, tuple | list):
        return type(batch), tuple(structure_of(item) for item in batch)
    if isinstance(batch, Mapping):
        return type(batch), tuple((key, structure_of(item)) for key, item in batch.items())
    if has_leaf_fields(batch):
        return type(batch), tuple((name, structure_of(getattr(batch, name))) for name in fields_of(batch))
    try:
        hash(batch)
    except TypeError:
        return type(batch), id(batch)
    return batch


def _dense(gradient: Any) -> Any:
    """A gradient as a tensor: those of look-ups come as slices, which cannot be differentiated further."""
    return None if gradient is None else tf.convert_to_tensor(gradient)


def _bytes_of(operations: Sequence[Any], length: int) -> int:
    total = 0
    for operation in operations:
        if operation.type in _COSTLESS:
            continue
        for output in operation.outputs:
            if output.shape.rank is not None and output.dtype.is_floating:
                size = output.dtype.size
                for axis in output.shape:
                    size *= length if axis is None else int(axis)
                total += size
    return total
