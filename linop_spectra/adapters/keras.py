"""Keras models: handed to the adapter of the backend that Keras runs on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from ..curvature import BatchLoss, Objective

_REGULARIZED = (
    "The model's layers have regularisers, which belong to the objective but which the {backend} adapter cannot add to a loss of outputs "
    "and targets; leave them out (weight_decay=2*l adds the penalty of keras.regularizers.L2(l) to all parameters), write the whole loss "
    "as a BatchLoss, or run Keras on TensorFlow."
)


def keras_objective(model: Any, loss: Any, data: Any, **options: Any) -> Objective:
    """The objective of a Keras model on any backend; see `linop_spectra.objective` for the arguments.

    Names of parameters are paths without the model's own name, such as ``"dense/kernel"``; classes are along the last axis; layers run
    with ``training=False``; on TensorFlow ``batch_norm="train"`` gives those of batch normalisation the statistics of each batch. In a
    `BatchLoss` on the JAX and torch backends the model is a function of the inputs.

    Raises
    ------
    TypeError
        When the model belongs to Keras 2, or Keras runs on a backend without derivatives.
    """
    keras = sys.modules.get("keras")
    if keras is None or not isinstance(model, keras.layers.Layer):
        raise TypeError(
            f"The argument model ({type(model).__module__}.{type(model).__name__}) is no layer of Keras 3; build it with the package keras "
            "(version 3) instead of tf_keras, which is Keras 2."
        )
    backend = keras.backend.backend()
    if backend == "tensorflow":
        from .tensorflow import tensorflow_objective

        return tensorflow_objective(model, loss, data, **options)
    if backend not in ("torch", "jax"):
        raise TypeError(f"Keras runs on the backend {backend!r}, which has no derivatives; set KERAS_BACKEND to tensorflow, jax or torch.")
    from .keras_layers import KerasLayers

    layers = KerasLayers(model, options["batch_norm"])
    if layers.regularized and not isinstance(loss, BatchLoss):
        raise ValueError(_REGULARIZED.format(backend={"torch": "torch", "jax": "JAX"}[backend]))
    if layers.batch_statistics:
        # The other adapters would not know that examples of a batch depend on each other.
        raise ValueError("batch_norm='train' works for Keras on TensorFlow only; run Keras on it, or use batch_norm='eval'.")
    options["batch_norm"] = None
    if backend == "torch":
        from .keras_torch import keras_torch_objective

        return keras_torch_objective(layers, loss, data, **options)
    return _jax_objective(layers, loss, data, **options)


def _jax_objective(layers: Any, loss: Any, data: Any, **options: Any) -> Objective:
    """By a pure function of a dict of the trainable variables; the other variables are constants in it."""
    import jax.numpy as jnp

    from .jax import jax_objective

    variables = [*layers.trainable.values(), *layers.rest.values()]
    rest = [jnp.array(v.value) for v in layers.rest.values()]

    def apply(params: dict[str, Any], inputs: Any) -> Any:
        values = [params[name] for name in layers.trainable]
        wide = all(value.dtype == jnp.float64 for value in values)
        others = [value.astype(jnp.float64) if wide and jnp.issubdtype(value.dtype, jnp.floating) else value for value in rest]
        precision = "float64" if wide else None
        with layers.holding(variables, [*values, *others], precision):
            return layers.call(inputs)

    params = {name: jnp.array(v.value) for name, v in layers.trainable.items()}
    return jax_objective(apply, plain_loss(loss), data, params=params, **options)


def plain_loss(loss: Any) -> Any:
    """A Keras loss as a name, or as a function ``(outputs, targets) -> (sum, number_of_terms)``; other losses as they are."""
    from .keras_losses import read_keras_loss

    found = None if isinstance(loss, str | BatchLoss) else read_keras_loss(loss)
    if found is None:
        return loss
    if not found.averages:
        raise ValueError("A Keras loss with reduction='sum' is known on the TensorFlow backend only; use 'sum_over_batch_size'.")
    if found.kind == "cross_entropy" and not found.label_smoothing and found.ignore_class in (None, -100):
        return "cross_entropy"
    if found.kind in ("binary_cross_entropy", "mse") and not found.label_smoothing:
        return found.kind
    return _summed(found.values, found.ignore_class)


def _summed(values: Callable[[Any, Any], Any], ignore: int | None) -> Callable[[Any, Any], tuple[Any, Any]]:
    from keras import ops

    def total(outputs: Any, targets: Any) -> tuple[Any, Any]:
        terms = values(outputs, targets)
        if ignore is None:
            return ops.sum(terms), ops.size(terms)
        valid = ops.not_equal(ops.reshape(targets, ops.shape(terms)), ignore)
        return ops.sum(ops.where(valid, terms, ops.zeros_like(terms))), ops.sum(ops.cast(valid, "int32"))

    return total
