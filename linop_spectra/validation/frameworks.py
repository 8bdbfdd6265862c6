"""The same linear model in every framework that is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np


def installed() -> Iterator[str]:
    """Frameworks that can be imported: torch, JAX, and Keras on TensorFlow."""
    for name, package in (("torch", "torch"), ("jax", "jax"), ("keras", "tensorflow")):
        if importlib.util.find_spec(package) is not None:
            yield name


def linear_model(framework: str, inputs: np.ndarray, targets: np.ndarray, loss: str, weights: np.ndarray) -> Any:
    """An objective of a model without bias, ``inputs @ weights`` with weights of shape (inputs, outputs), in double precision.

    The parameters are ordered as the framework has them.
    """
    from ..adapters import objective

    if framework == "torch":
        import torch

        layer = torch.nn.Linear(*weights.shape, bias=False, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weights.T.copy()))
        return objective(layer, loss, (torch.from_numpy(inputs), torch.from_numpy(targets)))
    if framework == "jax":
        import jax

        with jax.enable_x64(True):
            return objective(lambda params, x: x @ params["weights"], loss, (inputs, targets), params={"weights": weights}, dtype="float64")
    import keras

    model = keras.Sequential([
        keras.Input(weights.shape[:1], dtype="float64"),
        keras.layers.Dense(weights.shape[1], use_bias=False, dtype="float64"),
    ])
    model.set_weights([weights])
    return objective(model, loss, (inputs, targets))
