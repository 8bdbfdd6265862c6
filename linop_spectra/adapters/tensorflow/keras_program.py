"""A Keras model on the TensorFlow backend as a function of the values of its variables."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from ..common import listed
from ..keras_layers import KerasLayers, unchanged
from .program import Program, choose
from .repairs import right_moments


class KerasProgram(Program):
    """The user's layers with our values in the place of their variables.

    Parameters
    ----------
    model : keras.Layer
        The user's model; it is left alone.
    patterns : str, list of str or None
        Names of the parameters that count.
    batch_norm : {"eval", "train"} or None
        Whether batch normalisation takes the statistics of the batch.
    dtype : tf.DType or None
        Precision to compute in.
    """

    forward_mode = True

    def __init__(self, model: Any, patterns: str | list[str] | None, batch_norm: str | None, dtype: Any) -> None:
        self._layers = layers = KerasLayers(model, batch_norm)
        self.model, self.batch_statistics, self.is_regularized = model, layers.batch_statistics, layers.regularized
        chosen = choose(layers.trainable, patterns)
        rest = {name: v for name, v in (layers.trainable | layers.rest).items() if name not in chosen}
        self.names, self.rest_names, self.statistics = tuple(chosen), tuple(rest), tuple(layers.statistics)
        self._variables = [*(layers.trainable[name] for name in chosen), *rest.values()]
        values = [tf.identity(tf.convert_to_tensor(variable)) for variable in self._variables]
        self.initial, self.initial_rest = values[: len(chosen)], values[len(chosen) :]
        self._set_precision(dtype)

    def converted(self, dtype: Any) -> KerasProgram:
        """The same layers in another precision."""
        made = object.__new__(KerasProgram)
        made.__dict__.update(self.__dict__)
        made._set_precision(dtype)
        return made

    def _set_precision(self, dtype: Any) -> None:
        self._precision = None if dtype is None else dtype.name
        self.compute_dtypes = tuple(tf.as_dtype(name) for name in self._layers.compute_dtypes) if dtype is None else (dtype,)
        if dtype is not None:
            self.initial, self.initial_rest = _cast(self.initial, dtype), _cast(self.initial_rest, dtype)

    @contextlib.contextmanager
    def bound(self, pieces: Sequence[Any], rest: Sequence[Any]) -> Iterator[list[Any]]:
        """The values themselves, under which the layers run.

        A ``tf.function`` inside a layer has a graph that knows the model's own variables; here it is run as plain Python.
        """
        with right_moments(), _inlined_functions(), self._layers.holding(self._variables, [*pieces, *rest], self._precision):
            yield list(pieces)

    @contextlib.contextmanager
    def collecting(self, pieces: Sequence[Any], rest: Sequence[Any]) -> Iterator[Callable[[], Sequence[Any]]]:
        """As `bound`, with batch normalisation in training; a function that tells what `statistics` are on the batch."""
        held = self._layers.holding(self._variables, [*pieces, *rest], self._precision, collect=True)
        with right_moments(), _inlined_functions(), held as found:
            yield lambda: list(found().values())

    def call(self, inputs: Any) -> Any:
        """The model on a batch's inputs, as in ``model(inputs, training=False)``."""
        return self._layers.call(inputs)

    @property
    def layer_names(self) -> list[str]:
        """Names of the layers, written like those of their parameters."""
        return list(self._layers.named_layers)

    def outputs_changed(self, layer: str, change: Callable[[Any], Any]) -> contextlib.AbstractContextManager[None]:
        """Context in which a layer gives what ``change`` makes of its outputs; None leaves them."""
        return self._layers.outputs_changed(layer, change)

    def regularization(self) -> Any:
        """Sum of the regularisers of the trainable variables; None where there are none."""
        return self._layers.regularization()

    def refuse_captures(self, captured: Sequence[Any]) -> None:
        """Raise when a graph reads the model's own variables instead of the values in their place."""
        handles = {id(v.value.handle): v.path for v in self._variables if hasattr(v.value, "handle")}
        read = sorted({handles[id(tensor)] for tensor in captured if id(tensor) in handles})
        if read:
            raise TypeError(
                f"The model reads its variables {listed(read)} past Keras, for instance through a variable's value that a layer holds, so "
                "that no other values can be put in their place; let layers read self.variable itself."
            )

    def carries_mask(self, outputs: Any) -> bool:
        """Whether outputs carry Keras' mask, by which Keras' own losses leave positions out."""
        return getattr(outputs, "_keras_mask", None) is not None

    def read_file(self, path: Any) -> dict[str, Any] | None:
        """Values by name from a ``.weights.h5`` or ``.keras`` file."""
        name = str(path)
        if not name.endswith((".weights.h5", ".keras", ".h5")):
            return None
        if not pathlib.Path(path).exists():
            raise FileNotFoundError(f"There is no file {name!r} to load parameters from.")
        # Assignments stay in the scope: the model's variables are not touched.
        with keras.StatelessScope() as scope, unchanged(self._layers.layers):
            self.model.load_weights(name)
        found = {}
        for variable, own in zip(self._variables, [*self.names, *self.rest_names], strict=True):
            value = scope.get_current_value(variable)
            if value is not None:
                found[own] = value
        return found

    def ordered_names(self, count: int) -> tuple[str, ...] | None:
        """Of the parameters that count, of all trainable weights, or of ``get_weights()``, by length."""
        return self._layers.ordered_names(count, self.names)


@contextlib.contextmanager
def _inlined_functions() -> Iterator[None]:
    eager = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(eager)


def _cast(values: Sequence[Any], dtype: Any) -> list[Any]:
    return [tf.cast(value, dtype) if value.dtype.is_floating else value for value in values]
