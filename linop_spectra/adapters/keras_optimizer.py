"""A method of optimisation as a training step for Keras models, on any backend."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ..optim.optimizer import Optimizer
from ..optim.step_info import StepInfo
from .optimizer_session import OptimizerSession


class KerasTrainStep:
    """See `linop_spectra.optim.keras_train_step`.

    Parameters
    ----------
    optimizer : Optimizer
        The method.
    model : keras.Model
        What is trained, in place.
    loss
        As for `linop_spectra.objective`.
    **options
        Further arguments of it.
    """

    def __init__(self, optimizer: Optimizer, model: Any, loss: Any, **options: Any) -> None:
        keras = sys.modules.get("keras")
        if keras is None or not isinstance(model, keras.layers.Layer):
            raise TypeError(f"The argument model is a {type(model).__module__}.{type(model).__name__}, but must be a model of Keras 3.")
        from .keras_layers import KerasLayers

        self._session = OptimizerSession(optimizer, model, loss, options)
        self._model, self._batch_norm = model, options.get("batch_norm")
        self._variables = KerasLayers(model, None).trainable

    @property
    def method(self) -> Optimizer:
        """The method, with its settings and state."""
        return self._session.optimizer

    def __call__(self, batch: Any, curvature_batch: Any = None) -> StepInfo:
        """One step on a batch: a pair of arrays, what a `BatchLoss` takes, or an iterable of such."""
        weights = [np.asarray(weight) for weight in self._model.get_weights()]
        here, _, after, info = self._session.step(batch, weights, curvature_batch)
        for name, value in here.unflatten(after).items():
            self._variables[name].assign(value)
        if self._batch_norm == "train":
            from .keras_layers import _batch_statistics

            with _batch_statistics():  # and no dropout
                self._session.forward(batch, lambda inputs: self._model(inputs, training=False))
        return info
