"""A Keras model on the torch backend as a torch module whose parameters are named and substituted like any other's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..curvature import Objective
from .keras import plain_loss
from .keras_layers import KerasLayers
from .torch import torch_objective


class KerasModule(torch.nn.Module):
    """Copies of a Keras model's variables, and its layers as a function of them.

    Parameters
    ----------
    layers : KerasLayers
        The model.
    classes_first : bool
        Whether outputs with more than two axes get their last axis, the one of the classes, moved to dimension 1, where torch's
        cross-entropy has it.
    """

    def __init__(self, layers: KerasLayers, classes_first: bool) -> None:
        super().__init__()
        self._held, self._classes_first = [layers], classes_first
        self._names = tuple(layers.trainable) + tuple(layers.rest)
        for name, variable in layers.trainable.items():
            self.register_parameter(name, torch.nn.Parameter(variable.value.detach().clone()))
        for name, variable in layers.rest.items():
            self.register_buffer(name, variable.value.detach().clone())

    def __deepcopy__(self, memo: dict[int, Any]) -> KerasModule:
        made = KerasModule(self._held[0], self._classes_first)
        memo[id(self)] = made
        for name in self._names:
            value = getattr(self, name)
            copied = value.detach().clone()
            if isinstance(value, torch.nn.Parameter):
                made.register_parameter(name, torch.nn.Parameter(copied, requires_grad=value.requires_grad))
            else:
                made.register_buffer(name, copied)
        return made.train(self.training)

    def forward(self, inputs: Any) -> Any:
        """The model on a batch's inputs."""
        layers = self._held[0]
        values = [getattr(self, name) for name in self._names]
        wide = all(value.dtype == torch.float64 for value in values if value.is_floating_point())
        precision = "float64" if wide else None
        variables = [*layers.trainable.values(), *layers.rest.values()]
        with layers.holding(variables, values, precision):
            outputs = layers.call(inputs)
        if self._classes_first and isinstance(outputs, Tensor) and outputs.ndim > 2:
            return outputs.movedim(-1, 1)
        return outputs


def keras_torch_objective(layers: KerasLayers, loss: Any, data: Any, **options: Any) -> Objective:
    """The objective of a Keras model on the torch backend."""
    plain = plain_loss(loss)
    return torch_objective(KerasModule(layers, plain == "cross_entropy"), plain, data, **options)
