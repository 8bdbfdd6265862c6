"""Keras layers run with given values in the place of their variables, on any backend, and left as they were."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import keras

from .common import listed

_STATE = ("_losses", "_loss_ids", "_called", "built")


class KerasLayers:
    """A Keras model as a function of the values of its variables.

    A ``keras.StatelessScope`` takes every value that is read from it and every value that is assigned to a variable, so that the
    model's own variables are neither read nor written. Layers run with ``training=False``.

    Parameters
    ----------
    model : keras.Layer
        The user's model; it is left alone.
    batch_norm : {"eval", "train"} or None
        Whether batch normalisation takes the statistics of the batch.

    Attributes
    ----------
    trainable, rest : dict
        Variables by name: the path without the model's own name.
    weight_names : tuple of str
        Names in the order of ``get_weights()``.
    regularized : bool
        Whether trainable variables have regularisers.
    batch_statistics : bool
        Whether an example's outputs depend on the other examples of its batch.
    statistics : dict
        Those of `rest` that are moving statistics in use, which training would change.

    Raises
    ------
    TypeError, ValueError
        When the model is not built, or quantized, or no Keras model.
    """

    def __init__(self, model: Any, batch_norm: str | None) -> None:
        if not isinstance(model, keras.layers.Layer):
            raise TypeError(f"The argument model is a {type(model).__name__}, but must be a Keras model or layer.")
        if batch_norm not in (None, "eval", "train"):
            raise ValueError(f"The argument batch_norm is {batch_norm!r}, but must be 'eval', 'train' or None.")
        layers = list(model._flatten_layers())
        if not model.built or (not model.variables and not all(layer.built for layer in layers)):
            raise ValueError(
                f"The model {model.name!r} is not built yet, so that it has no variables; call it once on a batch, or give it an Input."
            )
        quantized = [layer.name for layer in layers if getattr(layer, "quantization_mode", None) is not None]
        if quantized:
            raise TypeError(f"The layers {listed(quantized)} are quantized and have no derivatives; pass the model before quantize().")
        self.model, self.layers = model, layers
        self._batch_norm = batch_norm == "train"
        self.batch_statistics = self._batch_norm and any(_takes_statistics(layer) for layer in layers)
        names = variable_names(model)
        self.trainable = {names[id(v)]: v for v in model.trainable_variables}
        self.rest = {names[id(v)]: v for v in model.variables if names[id(v)] not in self.trainable}
        inside = {id(v) for layer in layers if _takes_statistics(layer) for v in (layer.moving_mean, layer.moving_variance)}
        self.statistics = {} if self._batch_norm else {name: v for name, v in self.rest.items() if id(v) in inside}
        self.weight_names = tuple(names[id(v)] for v in model.weights)
        self._regularized = [v for v in model.trainable_variables if v.regularizer is not None]
        self.regularized = bool(self._regularized)

    def ordered_names(self, count: int, chosen: Sequence[str]) -> tuple[str, ...] | None:
        """Names of what a list of so many arrays stands for: the chosen parameters, all trainable weights, or ``get_weights()``."""
        for names in ([name for name in self.trainable if name in chosen], list(self.trainable), self.weight_names):
            if len(names) == count:
                return tuple(names)
        return None

    @contextlib.contextmanager
    def holding(
        self, variables: Sequence[Any], values: Sequence[Any], precision: str | None, *, collect: bool = False
    ) -> Iterator[Callable[[], dict[str, Any]]]:
        """Context in which the variables have these values, and layers compute in another precision where one is given.

        With `collect`, batch normalisation works as in training, and what the context gives is a function that tells the statistics of
        the batch, by the names of the moving ones, once the model has run.
        """
        scope = _Scope(self.layers)
        # The scope's constructor would cast to the variables' own precision.
        for variable, value in zip(variables, values, strict=True):
            scope.state_mapping[id(variable)] = value
        with contextlib.ExitStack() as stack:
            stack.enter_context(unchanged(self.layers))
            if self._batch_norm or collect:
                stack.enter_context(_batch_statistics())
            if collect:
                stack.enter_context(_without_memory(self.layers))
            if precision is not None:
                stack.enter_context(_precision(self.layers, precision))
            stack.enter_context(scope)
            yield lambda: {name: scope.get_current_value(variable) for name, variable in self.statistics.items()}

    def call(self, inputs: Any) -> Any:
        """The model on a batch's inputs, as in ``model(inputs, training=False)``."""
        return self.model(inputs, training=False)

    def regularization(self) -> Any:
        """Sum of the regularisers of the trainable variables, inside `holding`; None where there are none."""
        return sum(v.regularizer(v.value) for v in self._regularized) if self.regularized else None

    @functools.cached_property
    def named_layers(self) -> dict[str, Any]:
        """Layers inside the model, named like their variables."""
        found: dict[str, Any] = {}
        for layer in self.layers:
            if layer is not self.model and not isinstance(layer, keras.layers.InputLayer):
                found[_unique((layer.path or layer.name).removeprefix(f"{self.model.name}/"), found)] = layer
        return found

    @contextlib.contextmanager
    def outputs_changed(self, name: str, change: Callable[[Any], Any]) -> Iterator[None]:
        """Context in which a layer gives what ``change`` makes of its outputs; None leaves them."""
        layer = self.named_layers[name]
        original, held = layer.call, vars(layer)
        before = {"call": held["call"]} if "call" in held else {}

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            outputs = original(*args, **kwargs)
            changed = change(outputs)
            return outputs if changed is None else changed

        held["call"] = call
        try:
            yield
        finally:
            del held["call"]
            held.update(before)

    @property
    def compute_dtypes(self) -> set[str]:
        """Floating types that layers compute in; a model made of layers computes nothing, but casts what it is given."""
        found: set[Any] = set()
        for layer in self.layers:
            given = getattr(layer, "inputs", None) if isinstance(layer, keras.Model) else None
            if given:
                found.update(keras.backend.standardize_dtype(one.dtype) for one in keras.tree.flatten(given))
            elif not isinstance(layer, keras.layers.InputLayer):
                found.add(layer.compute_dtype)
        return {name for name in found if is_float_dtype(name)}


def is_float_dtype(name: Any) -> bool:
    """Whether a type's name, as Keras writes it, is a floating one."""
    return isinstance(name, str) and name.startswith(("float", "bfloat"))


class _Scope(keras.StatelessScope):
    """A scope that refuses losses which depend on the batch and random numbers of dropout."""

    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__(collect_losses=True, initialize_variables=False)
        self._dropout = {
            id(generator.state): layer.name
            for layer in layers
            for generator in [getattr(layer, "seed_generator", None)]
            if generator is not None and any(word in type(layer).__name__ for word in ("Dropout", "Noise"))
        }

    def add_loss(self, loss: Any) -> None:
        raise TypeError(
            "A layer adds a loss of its own that depends on the batch (activity_regularizer or add_loss), of which a loss of outputs and "
            "targets knows nothing; leave it out, or write the whole loss as a BatchLoss."
        )

    def add_update(self, update: Any) -> None:
        variable = update[0]
        if id(variable) in self._dropout:
            raise ValueError(
                f"The layer {self._dropout[id(variable)]!r} is in training mode and stochastic (dropout or alike), so that the loss is no "
                "fixed function of the parameters; call the model with training=False."
            )
        if id(variable) not in self.state_mapping and "seed_generator" in variable.path:
            raise ValueError(
                "The model draws random numbers from Keras' global generator, whose state is no part of the model; give the layer a "
                "keras.random.SeedGenerator of its own."
            )
        super().add_update(update)


def variable_names(model: Any) -> dict[int, str]:
    """Names of all variables by identity: their paths without the model's own name, made unique by a number where they are not."""
    names: dict[int, str] = {}
    taken: set[str] = set()
    for variable in model.variables:
        names[id(variable)] = name = _unique(variable.path.removeprefix(f"{model.name}/"), taken)
        taken.add(name)
    return names


def _unique(name: str, taken: Collection[str]) -> str:
    """The name, with a number behind it where it is taken."""
    found, number = name, 1
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    return found


def _takes_statistics(layer: Any) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization) and layer.trainable


@contextlib.contextmanager
def unchanged(layers: Sequence[Any]) -> Iterator[None]:
    """Restore what calling a layer leaves behind on it."""
    saved = []
    for layer in layers:
        held = vars(layer)
        saved.append({name: _copy_of(held[name]) for name in _STATE if name in held})
    try:
        yield
    finally:
        for layer, state in zip(layers, saved, strict=True):
            for name, value in state.items():
                current = vars(layer)[name]
                if isinstance(current, list):
                    current[:] = value
                elif isinstance(current, set):
                    current.clear()
                    current.update(value)
                else:
                    vars(layer)[name] = value


def _copy_of(value: Any) -> Any:
    """A list or set of its own; other values as they are."""
    return type(value)(value) if type(value) in (list, set) else list(value) if isinstance(value, list) else value


@contextlib.contextmanager
def _batch_statistics() -> Iterator[None]:
    """Batch normalisation by the statistics of the batch, whatever the other layers do; frozen layers keep theirs, as in Keras."""
    layer = keras.layers.BatchNormalization
    original = layer.call

    def call(self: Any, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        return original(self, inputs, training=True, mask=mask)

    layer.call = call
    try:
        yield
    finally:
        layer.call = original


@contextlib.contextmanager
def _without_memory(layers: Sequence[Any]) -> Iterator[None]:
    """Moving statistics become those of the batch."""
    held = [(vars(layer), layer.momentum) for layer in layers if _takes_statistics(layer)]
    try:
        for own, _ in held:
            own["momentum"] = 0.0
        yield
    finally:
        for own, momentum in held:
            own["momentum"] = momentum


@contextlib.contextmanager
def _precision(layers: Sequence[Any], name: str) -> Iterator[None]:
    """Layers compute in another precision while a graph is traced: policies and the types of declared inputs."""
    saved: list[tuple[dict[str, Any], str, Any]] = []

    def replace(held: dict[str, Any], key: str, value: Any) -> None:
        saved.append((held, key, held[key]))
        held[key] = value

    policy, floatx = keras.DTypePolicy(name), keras.config.floatx()
    for layer in layers:
        if is_float_dtype(layer.compute_dtype):
            replace(vars(layer), "_dtype_policy", policy)
        if isinstance(layer, keras.layers.MultiHeadAttention) and not layer._dropout and name == "float64":
            # JAX's fused attention rounds its softmax to single precision. With a rate of dropout, which is not active here, Keras
            # takes its own.
            replace(vars(layer), "_dropout", 1e-300)
        for first in (getattr(layer, "_layers", None) or ())[:1]:  # by whose type a Sequential converts its inputs
            if isinstance(first, keras.layers.InputLayer) and is_float_dtype(first.dtype):
                replace(vars(first), "_dtype", name)
        graph = getattr(layer, "_functional", None) or layer  # that of a Sequential is no layer of its own
        for tensor in getattr(graph, "_inputs", None) or ():
            if isinstance(tensor, keras.KerasTensor) and is_float_dtype(tensor.dtype):
                replace(vars(tensor), "_dtype", name)
    keras.config.set_floatx(name)
    # On JAX and torch, Keras lets the type of a result be single precision where it would be double.
    narrowed = getattr(keras.src.backend.common.dtypes, "BIT64_TO_BIT32_DTYPE", None)
    if narrowed is not None and name == "float64":
        replace(narrowed, "float64", name)
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        for held, key, value in reversed(saved):
            held[key] = value
