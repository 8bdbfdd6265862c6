"""Keras models: handed to the adapter of the backend that Keras runs on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from ..curvature import BatchLoss, Objective


def keras_objective(model: Any, loss: Any, data: Any, **options: Any) -> Objective:
    """The objective of a Keras model on any backend; see `linop_spectra.objective` for the arguments.

    Names of parameters are paths without the model's own name, such as ``"dense/kernel"``; classes are along the last axis; layers run
    with ``training=False``; ``batch_norm="train"`` gives those of batch normalisation the statistics of each batch. Regularisers of
    layers are part of value, gradient and Hessian, once, and no part of the Gauss-Newton matrix; a `BatchLoss` is the whole loss. In one
    on the JAX and torch backends the model is a function of the inputs.

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

    layers = KerasLayers(model, options.pop("batch_norm"))
    options["batch_norm"] = None  # the layers see to it
    if backend == "torch":
        from .keras_torch import keras_torch_objective

        return keras_torch_objective(layers, loss, data, **options)
    from .keras_jax import keras_jax_objective

    return keras_jax_objective(layers, loss, data, **options)


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
