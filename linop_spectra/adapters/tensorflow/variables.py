"""A model as a function of a batch's inputs, or of what is added to a layer's outputs, at fixed parameters."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ..common import listed
from .compiled import structure_of
from .functions import TensorFlowFunctions, TensorFlowPoint
from .keras_program import KerasProgram
from .losses import OutputLoss
from .program import Program

_NO_LAYERS = (
    "The model is a tf.Module ({name}), whose parts have no calls in common that something could be added to; write it as a Keras model, "
    "or ask for input_hessian()."
)


class VariableProgram(Program, abc.ABC):
    """A program of other variables than its parameters, which are among the values that stay as they are.

    Parameters
    ----------
    base : Program
        The model as a function of its parameters.
    variables : mapping of str to tensor
        Names and values of what is differentiated in.
    """

    def __init__(self, base: Program, variables: Mapping[str, Any]) -> None:
        self.base, self.model, self.batch_statistics, self.forward_mode = base, base.model, base.batch_statistics, base.forward_mode
        self.names, self.initial = tuple(variables), list(variables.values())
        self.rest_names = (*base.names, *base.rest_names)
        self.initial_rest = [*base.initial, *base.initial_rest]
        self.compute_dtypes = base.compute_dtypes

    @abc.abstractmethod
    def _like(self, base: Program, variables: Mapping[str, Any]) -> VariableProgram:
        """The same on top of another program."""

    def converted(self, dtype: Any) -> VariableProgram:
        """The same in another precision."""
        return self._like(self.base.converted(dtype), {n: tf.cast(x, dtype) for n, x in zip(self.names, self.initial, strict=True)})

    @contextlib.contextmanager
    def bound(self, pieces: Sequence[Any], rest: Sequence[Any]) -> Iterator[list[Any]]:
        """The model's own variables have the values in `rest`; what counts are the pieces."""
        count = len(self.base.names)
        with self.base.bound(rest[:count], rest[count:]), self._changed(list(pieces)):
            yield list(pieces)

    @abc.abstractmethod
    def _changed(self, pieces: list[Any]) -> contextlib.AbstractContextManager[None]:
        """Context in which the model depends on the pieces."""

    def call(self, inputs: Any) -> Any:
        """The model's outputs."""
        return self.base.call(inputs)

    def regularization(self) -> Any:
        """What the layers add to the loss, a constant here."""
        return self.base.regularization()

    def refuse_captures(self, captured: Sequence[Any]) -> None:
        """Raise when a graph reads the model's own variables."""
        self.base.refuse_captures(captured)

    def carries_mask(self, outputs: Any) -> bool:
        """Whether outputs carry a mask."""
        return self.base.carries_mask(outputs)


class InputProgram(VariableProgram):
    """The model as a function of the floating arrays among a batch's inputs."""

    _pieces: list[Any] | None = None

    def _like(self, base: Program, variables: Mapping[str, Any]) -> InputProgram:
        return InputProgram(base, variables)

    @contextlib.contextmanager
    def _changed(self, pieces: list[Any]) -> Iterator[None]:
        self._pieces = pieces
        try:
            yield
        finally:
            self._pieces = None

    def call(self, inputs: Any) -> Any:
        """The model's outputs for other inputs."""
        assert self._pieces is not None
        return self.base.call(_replaced(inputs, dict(zip(self.names, self._pieces, strict=True))))


class ActivationProgram(VariableProgram):
    """The model as a function of what is added to the outputs of a layer."""

    def _like(self, base: Program, variables: Mapping[str, Any]) -> ActivationProgram:
        return ActivationProgram(base, variables)

    @contextlib.contextmanager
    def _changed(self, pieces: list[Any]) -> Iterator[None]:
        assert isinstance(self.base, KerasProgram)
        (delta,), (layer,) = pieces, self.names
        with self.base.outputs_changed(layer, lambda output: output + tf.cast(delta, output.dtype)):
            yield


class VariableFunctions(TensorFlowFunctions):
    """`TensorFlowFunctions` of something else than the parameters, for one batch."""

    def take(self, batch: Any, indices: np.ndarray) -> None:
        """None: the variables belong to the whole batch, which cannot be cut."""


def input_functions(base: TensorFlowFunctions, point: TensorFlowPoint, batch: Any) -> tuple[VariableFunctions, TensorFlowPoint]:
    """The loss of one batch as a function of its inputs, with their present values as the point.

    Raises
    ------
    TypeError
        When the loss does not say which arrays are inputs, or none of them holds real numbers.
    """
    if type(base.loss).outputs is not OutputLoss.outputs:
        raise TypeError(
            "The Hessian with respect to the inputs needs batches (inputs, targets), but a BatchLoss does not say which arrays are "
            "inputs; use a loss of outputs and targets, or activation_hessian of the first layer."
        )
    arrays = _arrays(batch[0])
    variables = {name: array for name, array in arrays.items() if array.dtype.is_floating}
    if not variables:
        raise TypeError(
            f"The inputs of a batch hold no real numbers to differentiate in (types {listed([x.dtype.name for x in arrays.values()])}); "
            "use activation_hessian of the layer that embeds them."
        )
    return _functions(base, point, InputProgram(base.program, variables), batch)


def activation_functions(
    base: TensorFlowFunctions, point: TensorFlowPoint, batch: Any, layer: str
) -> tuple[VariableFunctions, TensorFlowPoint]:
    """The loss of one batch as a function of what is added to a layer's outputs, with zeros as the point.

    Raises
    ------
    TypeError, ValueError
        When there is no such layer, or it does not give one array, once.
    """
    program = base.program
    if not isinstance(program, KerasProgram):
        raise TypeError(_NO_LAYERS.format(name=type(program.model).__name__))
    known = program.layer_names
    if layer not in known:
        raise ValueError(f"The argument layer is {layer!r}, which is no layer of the model; there are {listed(known)}.")
    seen: list[Any] = []
    # Outside of a graph each step of a loop over time shows.
    with program.bound(base.pieces(point), point.rest), program.outputs_changed(layer, seen.append):
        base.loss.outputs(program, batch)
    if len(seen) != 1 or not tf.is_tensor(seen[0]) or not seen[0].dtype.is_floating:
        found = f"runs {len(seen)} times" if len(seen) != 1 else f"gives a {type(seen[0]).__name__}"
        raise TypeError(
            f"The layer {layer!r} {found} in a forward pass, but to differentiate in its outputs it must run once and give one array of "
            "real numbers; choose another one."
        )
    return _functions(base, point, ActivationProgram(program, {layer: tf.zeros_like(seen[0])}), batch)


def _functions(
    base: TensorFlowFunctions, point: TensorFlowPoint, program: VariableProgram, batch: Any
) -> tuple[VariableFunctions, TensorFlowPoint]:
    functions = VariableFunctions(program, base.loss, base.backend, base.memory_budget, None)
    # Batches of one form have their graphs in common.
    form = (type(program), program.names, tuple((tuple(x.shape), x.dtype) for x in program.initial), structure_of(batch))
    functions.compiled = base.derived.setdefault(form, functions.compiled)
    return functions, TensorFlowPoint(functions.initial_point().flat, (*base.pieces(point), *point.rest))


def _arrays(inputs: Any) -> dict[str, Any]:
    """Arrays of a batch's inputs by name: a tensor, or several in a tuple or a mapping."""
    if isinstance(inputs, Mapping):
        return {f"inputs.{key}": value for key, value in inputs.items() if tf.is_tensor(value)}
    if isinstance(inputs, tuple | list):
        return {f"inputs.{index}": value for index, value in enumerate(inputs) if tf.is_tensor(value)}
    return {"inputs": inputs}


def _replaced(inputs: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(inputs, Mapping):
        return {key: values.get(f"inputs.{key}", value) for key, value in inputs.items()}
    if isinstance(inputs, tuple | list):
        return type(inputs)(values.get(f"inputs.{index}", value) for index, value in enumerate(inputs))
    return values["inputs"]
