"""Objectives of Keras models on the TensorFlow backend and of ``tf.Module`` objects."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import tensorflow as tf

from ..._memory import parse_budget
from ...backends import Backend, get_backend
from ...backends.cupy_backend import cupy_usable
from ...curvature import Objective
from ..common import check_batch_size, check_weight_decay
from .custom_losses import make_loss
from .functions import TensorFlowFunctions
from .losses import BinaryCrossEntropy
from .program import ModuleProgram, Program


def tensorflow_objective(
    model: Any,
    loss: Any,
    data: Any,
    *,
    parameters: str | list[str] | None,
    batch_size: int | None,
    batch_norm: str | None,
    weight_decay: float,
    dtype: Any,
    backend: str | Backend | None,
    memory_budget: int | float | str | None,
) -> Objective:
    """The objective of a Keras model or a ``tf.Module``; see `linop_spectra.objective` for the arguments.

    Names of parameters are paths: ``"dense/kernel"`` for a Keras model, without the model's own name; the path of attributes for a
    ``tf.Module``. Layers run with ``training=False``; ``batch_norm="train"`` gives those of batch normalisation, and no others, the
    statistics of each batch. Regularisers of layers are part of value, gradient and Hessian, once, however the data are cut; they are
    no part of the Gauss-Newton matrix, whose outputs know nothing of them. A `BatchLoss` is the whole loss: nothing is added to it.

    A ``tf.Module`` is copied. Of a Keras model the values of all variables are copied, not the layers themselves: training on, loading
    weights and freezing layers do not change the objective, but another activation put into a layer would.
    """
    if not tf.executing_eagerly():
        raise RuntimeError("An objective cannot be made while a graph is traced; call it outside of tf.function.")
    check_batch_size(batch_size)
    decay = check_weight_decay(weight_decay)
    if batch_norm not in (None, "eval", "train"):
        raise ValueError(f"The argument batch_norm is {batch_norm!r}, but must be 'eval', 'train' or None.")
    arrays = _backend_for(backend)
    budget = parse_budget(memory_budget, total=arrays.total_memory())
    output_loss = make_loss(loss)
    if isinstance(output_loss, BinaryCrossEntropy):
        output_loss.sigmoid_last = _ends_in_sigmoid(model)
    program = _program_of(model, parameters, batch_norm, _tensorflow_dtype(dtype))
    if output_loss.regularized and not output_loss.averages and program.is_regularized:
        raise ValueError(
            "The loss is a sum (reduction='sum') and layers have regularisers, whose weight against a sum depends on how the data are "
            "cut into batches; use the mean, or write the whole loss as a BatchLoss."
        )
    functions = TensorFlowFunctions(program, output_loss, arrays, budget, batch_size)
    return Objective(functions, functions.initial_point(), functions.batches(data), decay)


def _program_of(model: Any, parameters: str | list[str] | None, batch_norm: str | None, dtype: Any) -> Program:
    keras = sys.modules.get("keras")
    if keras is not None and isinstance(model, keras.layers.Layer):
        from .keras_program import KerasProgram

        return KerasProgram(model, parameters, batch_norm, dtype)
    if not isinstance(model, tf.Module):
        raise TypeError(
            f"The argument model is a {type(model).__name__}, but must be a Keras model, or a tf.Module with a __call__ method."
        )
    if batch_norm is not None:
        raise ValueError(
            f"The argument batch_norm is {batch_norm!r}, but a tf.Module decides by itself how it normalises; leave it out, or pass a "
            "BatchLoss that calls the model as you want it."
        )
    return ModuleProgram(model, parameters, dtype)


def _tensorflow_dtype(dtype: Any) -> Any:
    if dtype is None:
        return None
    try:
        wanted = tf.as_dtype(np.dtype(dtype) if not isinstance(dtype, tf.DType) else dtype)
    except TypeError:
        wanted = None
    if wanted not in (tf.float32, tf.float64):
        raise ValueError(f"The argument dtype is {dtype!r}, but must be 'float32', 'float64' or None for the model's own.")
    return wanted


def _backend_for(backend: str | Backend | None) -> Backend:
    """NumPy where TensorFlow works on the CPU; CuPy where it has a GPU and CuPy can be used."""
    if backend is None and tf.config.list_logical_devices("GPU") and cupy_usable():
        return get_backend("cupy")
    return get_backend(backend)


def _ends_in_sigmoid(model: Any) -> bool:
    layers = getattr(model, "layers", None)
    last = layers[-1] if isinstance(layers, list | tuple) and layers else model
    name = getattr(getattr(last, "activation", None), "__name__", "")
    return name == "sigmoid"
