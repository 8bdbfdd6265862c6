"""A model as a function of a batch's inputs, or of what is added to a layer's outputs, at fixed parameters."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..common import listed
from .functions import TorchFunctions, TorchPoint
from .losses import OutputLoss
from .vectors import Tensors


@dataclasses.dataclass(frozen=True)
class _Variables:
    """In the place of a `PureModule`: the model for what depends on its layers, and the variables."""

    model: Any
    parameters: Mapping[str, Tensor]
    rest: Mapping[str, Tensor]

    def by_name(self, source: Any, chosen: Sequence[str]) -> Any:
        """As it is: variables have the order that they were given in."""
        return source


class VariableFunctions(TorchFunctions, abc.ABC):
    """`TorchFunctions` of something else than the parameters, for one batch.

    Parameters
    ----------
    base : TorchFunctions
        The functions of the parameters.
    base_point : TorchPoint
        The parameters.
    variables : mapping of str to torch.Tensor
        Names and values of what is differentiated in.
    """

    def __init__(self, base: TorchFunctions, base_point: TorchPoint, variables: Mapping[str, Tensor]) -> None:
        self._base, self._base_point = base, base_point
        module: Any = _Variables(base._module.model, {name: value.detach() for name, value in variables.items()}, {})
        super().__init__(module, base.loss, base.backend, base.memory_budget, None)
        self._random_state = base._random_state

    @abc.abstractmethod
    def _same(self, base: TorchFunctions, base_point: TorchPoint, batch: Any) -> VariableFunctions:
        """The same for other functions."""

    def in_double_precision(self, point: TorchPoint, batch: Any) -> tuple[Any, TorchPoint, Any]:
        """Copies of everything in float64."""
        base, base_point, part = self._base.in_double_precision(self._base_point, batch)
        functions = self._same(base, base_point, part)
        functions._unused = set(self._unused)
        return functions, TorchPoint(tuple(leaf.double() for leaf in point.leaves), {}), part


class InputFunctions(VariableFunctions):
    """The loss of one batch as a function of its inputs."""

    def __init__(self, base: TorchFunctions, base_point: TorchPoint, batch: Any) -> None:
        if type(base.loss).outputs is not OutputLoss.outputs:
            raise TypeError(
                "The Hessian with respect to the inputs needs batches (inputs, targets), but a BatchLoss does not say which arrays are "
                "inputs; use a loss of outputs and targets, or activation_hessian of the first layer."
            )
        variables = {name: array for name, array in _arrays(batch[0]).items() if array.is_floating_point()}
        if not variables:
            found = listed([str(array.dtype) for array in _arrays(batch[0]).values()])
            raise TypeError(
                f"The inputs of a batch hold no real numbers to differentiate in (types {found}); use activation_hessian of the layer "
                "that embeds them."
            )
        super().__init__(base, base_point, variables)
        self.take = _nothing

    def _same(self, base: TorchFunctions, base_point: TorchPoint, batch: Any) -> VariableFunctions:
        return InputFunctions(base, base_point, batch)

    def pure_outputs(self, parameters: Tensors, rest: Mapping[str, Tensor], batch: Any) -> Any:
        """The model's outputs for other inputs."""
        values = dict(zip(self.names, parameters, strict=True))
        outputs = self._base.pure_outputs(self._base_point.leaves, self._base_point.rest, (_replaced(batch[0], values), batch[1]))
        self.unit_rounding = max(self.unit_rounding, self._base.unit_rounding)
        return outputs


class ActivationFunctions(VariableFunctions):
    """The loss of one batch as a function of what is added to the outputs of a layer."""

    def __init__(self, base: TorchFunctions, base_point: TorchPoint, batch: Any, layer: str) -> None:
        modules = dict(base._module.model.named_modules())
        if layer not in modules or not layer:
            raise ValueError(
                f"The argument layer is {layer!r}, which is no module of the model; there are {listed([name for name in modules if name])}."
            )
        self._layer, self._module_of_layer = layer, modules[layer]
        seen: list[Any] = []
        self._with_hook(seen.append, lambda: base.outputs_at(base_point, batch))  # a hook that returns None changes nothing
        if len(seen) != 1 or not isinstance(seen[0], Tensor) or not seen[0].is_floating_point():
            found = f"runs {len(seen)} times" if len(seen) != 1 else f"gives a {type(seen[0]).__name__}"
            raise TypeError(
                f"The module {layer!r} {found} in a forward pass, but to differentiate in its outputs it must run once and give one array "
                "of real numbers; choose another one."
            )
        super().__init__(base, base_point, {layer: torch.zeros_like(seen[0])})
        self.take = _nothing

    def _same(self, base: TorchFunctions, base_point: TorchPoint, batch: Any) -> VariableFunctions:
        return ActivationFunctions(base, base_point, batch, self._layer)

    def _with_hook(self, change: Any, run: Any) -> Any:
        handle = self._module_of_layer.register_forward_hook(lambda module, inputs, output: change(output))
        try:
            return run()
        finally:
            handle.remove()

    def pure_outputs(self, parameters: Tensors, rest: Mapping[str, Tensor], batch: Any) -> Any:
        """The model's outputs where the layer's are changed."""
        (delta,) = parameters
        outputs = self._with_hook(
            lambda output: output + delta.to(output.dtype),
            lambda: self._base.pure_outputs(self._base_point.leaves, self._base_point.rest, batch),
        )
        self.unit_rounding = max(self.unit_rounding, self._base.unit_rounding)
        return outputs


def _nothing(batch: Any, indices: Any) -> None:
    """The variables belong to the whole batch: it cannot be cut."""


def _arrays(inputs: Any) -> dict[str, Tensor]:
    """Arrays of a batch's inputs by name: a tensor, or several in a tuple or a mapping."""
    if isinstance(inputs, Mapping):
        return {f"inputs.{key}": value for key, value in inputs.items() if isinstance(value, Tensor)}
    if isinstance(inputs, tuple | list):
        return {f"inputs.{index}": value for index, value in enumerate(inputs) if isinstance(value, Tensor)}
    return {"inputs": inputs}


def _replaced(inputs: Any, values: Mapping[str, Tensor]) -> Any:
    if isinstance(inputs, Mapping):
        return {key: values.get(f"inputs.{key}", value) for key, value in inputs.items()}
    if isinstance(inputs, tuple | list):
        return tuple(values.get(f"inputs.{index}", value) for index, value in enumerate(inputs))
    return values["inputs"]
