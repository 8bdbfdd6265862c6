"""A forward pass in which every use of a weight is seen, for Kronecker factors.

The traced function is run equation by equation. Places of parameters are followed through transposes, slices and conversions; matrix
products, convolutions, look-ups of rows and additions of a bias are recognised, and something is added to what they give, so that one
transposed derivative has the gradients there. Loops and branches are not entered: parameters in them are noted as used otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ...backends import Array
from ...curvature.weight_uses import UseKind, WeightUse
from ..use_recorder import Notes, Seen, Tracked, UseRecorder, bias_alone, parameter_among, product_with
from ..weight_layouts import Contraction, output_index

if TYPE_CHECKING:
    from .functions import JaxFunctions, JaxPoint

_CALLS = ("jit", "pjit", "closed_call", "core_call", "core_closed_call", "checkpoint", "remat", "remat2")
_SAME = ("convert_element_type", "copy", "copy_p", "optimization_barrier", "name", "reduce_precision")


class JaxWeightUses:
    """The JAX adapter's `linop_spectra.curvature.weight_uses.RecordedUses`.

    Parameters
    ----------
    functions : JaxFunctions
        Model and loss.
    point : JaxPoint
        Parameters.
    batch : object
        A prepared batch.
    """

    def __init__(self, functions: JaxFunctions, point: JaxPoint, batch: Any) -> None:
        self._backend = functions.backend
        structure, *arguments = functions.arguments(point, batch)
        program = _program(functions, structure, arguments)
        self.outputs, self._inputs, self._pull = program.run(*arguments)
        self.uses: tuple[WeightUse, ...] = program.uses
        self.others: Mapping[str, str] = program.others
        self._seen = program.seen

    def leading(self, number: int) -> tuple[int, ...]:
        """Axes of a use before the last one."""
        return self._seen[number].leading

    def inputs(self, number: int, start: int, stop: int) -> Array:
        """Inputs of a use, from `start` to `stop` of the first axis."""
        seen, x = self._seen[number], self._inputs[number]
        if seen.patches is not None:
            return self._backend.asarray(seen.patches(x[start:stop]))
        features = () if self.uses[number].kind == "embedding" else (-1,)
        return self._backend.asarray(x.transpose(seen.x_axes).reshape(*seen.leading, *features)[start:stop])

    def output_gradients(self, u: Any) -> list[Array]:
        """Gradients of ``<u, outputs>`` in what each use gives."""
        found = _pulled(self._pull, u)
        return [
            self._backend.asarray(g.transpose(seen.y_axes).reshape(*seen.leading, -1)) for seen, g in zip(self._seen, found, strict=True)
        ]


@jax.jit
def _pulled(pull: Any, u: Any) -> Any:
    return pull(u)[0]


class _Program:
    """The recorded function of batches of one form, compiled."""

    def __init__(self, functions: JaxFunctions, structure: Any, arguments: Sequence[Any]) -> None:
        programs = functions.programs

        def outputs(*own: Any) -> Any:
            return programs._outputs(structure, *own)

        closed = jax.make_jaxpr(outputs)(*arguments)
        recorder = _Recorder(functions, closed, None)
        # Values are abstract here: nothing is computed.
        shapes = jax.eval_shape(lambda *own: recorder.run(jax.tree_util.tree_leaves(own))[1], *arguments)
        self.uses = tuple(recorder.uses)
        self.seen, self.others = recorder.seen, recorder.others
        zeros = [(shape.shape, shape.dtype) for shape in shapes]

        def run(*own: Any) -> Any:
            def from_additions(additions: Any) -> Any:
                repeated = _Recorder(functions, closed, additions)
                result, _, inputs = repeated.run(jax.tree_util.tree_leaves(own))
                return result[0], inputs

            result, pull, inputs = jax.vjp(from_additions, [jnp.zeros(*shape) for shape in zeros], has_aux=True)
            return result, inputs, pull

        self.run = jax.jit(run)


def _program(functions: JaxFunctions, structure: Any, arguments: Sequence[Any]) -> _Program:
    shapes = tuple((x.shape, str(x.dtype)) for x in jax.tree_util.tree_leaves(arguments))
    known = functions.weight_programs
    if (structure, shapes) not in known:
        known[structure, shapes] = _Program(functions, structure, arguments)
    found: _Program = known[structure, shapes]
    return found


class _Recorder(UseRecorder):
    """Runs a traced function and looks at every equation.

    Parameters
    ----------
    functions : JaxFunctions
        Whose parameters come first among the arguments.
    closed : ClosedJaxpr
        The function.
    additions : list or None
        What is added to the result of each use.
    """

    def __init__(self, functions: JaxFunctions, closed: Any, additions: Any) -> None:
        super().__init__(functions.blocks, "JAX")
        self._closed, self._additions, self._blocks = closed, additions, functions.blocks
        self._results: list[Any] = []

    def run(self, arguments: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        """Outputs, the results of all uses, and their inputs (zero for a bias alone)."""
        jaxpr = self._closed.jaxpr
        tracked: list[Tracked | None] = [None] * len(arguments)
        for i, place in enumerate(self._blocks.values()):
            tracked[i] = Tracked(np.arange(place.start, place.stop).reshape(arguments[i].shape))
        outputs, _ = self._run(jaxpr, self._closed.consts, arguments, tracked)
        return outputs, self._results, [jnp.zeros(()) if x is None else x for x in self.inputs]

    def _run(
        self, jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Any], known: Notes
    ) -> tuple[list[Any], list[Tracked | None]]:
        values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments], strict=True))
        tracked = {v: t for v, t in zip(jaxpr.invars, known, strict=True) if t is not None}
        readers: dict[Any, int] = {}
        for variables in (*(equation.invars for equation in jaxpr.eqns), jaxpr.outvars):
            for variable in variables:
                if not hasattr(variable, "val"):
                    readers[variable] = readers.get(variable, 0) + 1

        def read(variable: Any) -> Any:
            return variable.val if hasattr(variable, "val") else values[variable]

        for equation in jaxpr.eqns:
            inputs = [read(variable) for variable in equation.invars]
            notes = [None if hasattr(v, "val") else tracked.get(v) for v in equation.invars]
            # The result of a use that several read is no sum with a bias alone.
            notes = [
                None if note is not None and note.use is not None and readers[v] != 1 else note
                for v, note in zip(equation.invars, notes, strict=True)
            ]
            outputs, found = self._equation(equation, inputs, notes)
            values.update(zip(equation.outvars, outputs, strict=True))
            tracked |= {v: note for v, note in zip(equation.outvars, found, strict=True) if note is not None}
        return [read(v) for v in jaxpr.outvars], [None if hasattr(v, "val") else tracked.get(v) for v in jaxpr.outvars]

    def _equation(
        self, equation: Any, inputs: list[Any], notes: list[Tracked | None]
    ) -> tuple[Sequence[Any], Notes]:
        name = equation.primitive.name
        nothing: list[Tracked | None] = [None] * len(equation.outvars)
        if not any(notes):
            return _bound(equation, inputs), nothing
        if name in _CALLS:
            inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
            if inner is not None:
                return self._run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), inputs, notes)
        outputs = _bound(equation, inputs)
        moved = _moved(equation, notes)
        if moved is not None:
            return outputs, moved
        if any(note is not None and note.places is not None for note in notes):
            known = _USES.get(name)
            made = None if known is None else known(self, equation, inputs, notes, outputs[0])
            if made is not None:
                return [made[0]], [made[1]]
            self._note(name, notes)
        return outputs, nothing

    # -- what is recognised: the result with something added, and what is known of it ---------------------------------

    def _add(
        self, kind: UseKind, places: np.ndarray | None, bias: np.ndarray | None, result: Any, x: Any, seen: Seen
    ) -> Any | None:
        if not self._keep(kind, places, bias, x, seen):
            return None
        if self._additions is not None:
            result = result + self._additions[len(self._results)]
        self._results.append(result)
        return result

    def _dot(self, equation: Any, inputs: list[Any], notes: list[Tracked | None], result: Any) -> Any:
        (contracting, batched) = equation.params["dimension_numbers"]
        parameter = parameter_among(notes)
        if parameter is None or any(map(len, batched)):
            return None
        weight, places = parameter
        labels: list[list[Any]] = [[(side, axis) for axis in range(inputs[side].ndim)] for side in (0, 1)]
        for i, (left, right) in enumerate(zip(*contracting, strict=True)):
            labels[0][left] = labels[1][right] = ("contracted", i)
        y = [label for side in labels for label in side if label[0] != "contracted"]
        x = inputs[1 - weight]
        product = product_with(places, weight, labels, y, x.shape)
        if product is None:
            return None
        found, seen = product
        made = self._add("dense", found.places, None, result, x, seen)
        return None if made is None else (made, Tracked(None, len(self.uses) - 1, output_index(found, result.shape)))

    def _convolution(self, equation: Any, inputs: list[Any], notes: list[Tracked | None], result: Any) -> Any:
        p = equation.params
        parameter = parameter_among(notes)
        if parameter is None or parameter[0] != 1:
            return None
        if p["feature_group_count"] != 1 or p["batch_group_count"] != 1:
            return None
        dimensions = p["dimension_numbers"]
        kernel = parameter[1].transpose(dimensions.rhs_spec)
        window = kernel.shape[2:]
        y_axes = (dimensions.out_spec[0], *dimensions.out_spec[2:], dimensions.out_spec[1])
        leading = (result.shape[y_axes[0]], math.prod(result.shape[axis] for axis in y_axes[1:-1]))
        x = inputs[0].transpose(dimensions.lhs_spec)

        def patches(part: Any) -> Any:
            found = jax.lax.conv_general_dilated_patches(
                part, window, p["window_strides"], p["padding"], p["lhs_dilation"], p["rhs_dilation"], precision=jax.lax.Precision.HIGHEST
            )
            return jnp.moveaxis(found, 1, -1).reshape(len(part), -1, found.shape[1])

        places = kernel.reshape(kernel.shape[0], -1)
        made = self._add("convolution", places, None, result, x, Seen(leading, (), y_axes, patches))
        if made is None:
            return None
        arranged = Contraction(places, len(y_axes) - 1, (), y_axes)
        return made, Tracked(None, len(self.uses) - 1, output_index(arranged, result.shape))

    def _gather(self, equation: Any, inputs: list[Any], notes: list[Tracked | None], result: Any) -> Any:
        p, index = equation.params, notes[0]
        if index is None or index.places is None or index.places.ndim != 2 or any(note is not None for note in notes[1:]):
            return None
        numbers, rows = p["dimension_numbers"], inputs[1]
        if numbers.collapsed_slice_dims != (0,) or numbers.start_index_map != (0,) or p["slice_sizes"] != (1, index.places.shape[1]):
            return None
        if numbers.offset_dims != (result.ndim - 1,) or rows.shape[-1] != 1 or getattr(numbers, "operand_batching_dims", ()):
            return None
        rows = rows[..., 0]
        axes = tuple(range(rows.ndim))
        made = self._add("embedding", index.places.T, None, result, rows, Seen(rows.shape, axes, (*axes, rows.ndim), None))
        return None if made is None else (made, None)

    def _addition(self, equation: Any, inputs: list[Any], notes: list[Tracked | None], result: Any) -> Any:
        parameter = parameter_among(notes)
        if parameter is None:
            return None
        side, bias = parameter
        if self._joined(notes[1 - side], bias):
            return result, None
        alone = bias_alone(result.shape, bias)
        if alone is None:
            return None
        made = self._add("bias", None, alone[0], result, None, alone[1])
        return None if made is None else (made, None)


_USES: dict[str, Callable[..., Any]] = {
    "dot_general": _Recorder._dot,
    "conv_general_dilated": _Recorder._convolution,
    "gather": _Recorder._gather,
    "add": _Recorder._addition,
    "add_any": _Recorder._addition,
}


def _bound(equation: Any, inputs: Sequence[Any]) -> Sequence[Any]:
    found = equation.primitive.get_bind_params(equation.params)
    functions, parameters = found if isinstance(found, tuple) else ((), found)
    with equation.ctx.manager:
        result = equation.primitive.bind(*functions, *inputs, **parameters)
    found = result if equation.primitive.multiple_results else [result]
    return list(found)


def _moved(equation: Any, notes: Notes) -> list[Tracked | None] | None:
    """What is known of the results of an operation that only moves numbers; None for others."""
    note = notes[0]
    if note is None or any(other is not None for other in notes[1:]):
        return None
    array = note.places if note.places is not None else note.outputs
    if array is None:
        return None
    name, p, result = equation.primitive.name, equation.params, equation.outvars[0].aval
    if name in _SAME:
        if not jnp.issubdtype(result.dtype, jnp.floating):
            return None
        moved: Any = array
    elif name == "transpose":
        moved = array.transpose(p["permutation"])
    elif (name in ("reshape", "squeeze", "expand_dims") and p.get("dimensions") is None) or name == "squeeze":
        moved = array.reshape(result.shape)
    elif name == "slice":
        strides = p["strides"] or (1,) * array.ndim
        moved = array[tuple(slice(*ends) for ends in zip(p["start_indices"], p["limit_indices"], strides, strict=True))]
    elif name == "broadcast_in_dim":
        spread = [1] * len(p["shape"])
        for axis, length in zip(p["broadcast_dimensions"], array.shape, strict=True):
            spread[axis] = length
        moved = np.broadcast_to(array.reshape(spread), p["shape"])
    elif name == "split":
        parts = np.split(array, np.cumsum(p["sizes"])[:-1], axis=p["axis"])
        return [note.moved(part) for part in parts]
    else:
        return None
    return [note.moved(moved)]
