"""A model as a function of a batch's inputs, or of what is added to a layer's outputs, at fixed parameters."""

from __future__ import annotations

import abc
import dataclasses
import warnings
from collections.abc import Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import tree_util

from ..common import listed
from .functions import JaxFunctions, JaxPoint
from .losses import OutputLoss
from .models import key_name
from .programs import Programs
from .tags import names, places, with_addition
from .vectors import Leaves

_UNUSED = "The loss of the batch does not depend on the arrays {names}, or no gradient reaches them: their rows and columns are zero there."


class _VariablePrograms(Programs, abc.ABC):
    """`Programs` of variables; the constants are the parameters and what is constant beside them."""

    def __init__(self, base: Programs, dtypes: tuple[Any, ...]) -> None:
        self._base = base
        super().__init__(base.model, base.loss)
        self._model_dtypes = dtypes


class _InputPrograms(_VariablePrograms):
    def of_batch(self, leaves: Leaves, constants: Any, batch: Any) -> Any:
        """The model's outputs for other inputs."""
        values = [leaf.astype(dtype) for leaf, dtype in zip(leaves, self._model_dtypes, strict=True)]
        arrays, treedef = tree_util.tree_flatten(batch[0])
        given = iter(values)
        inputs = treedef.unflatten([next(given) if _is_real(array) else array for array in arrays])
        parameters, rest = constants
        return self._base.of_batch(parameters, rest, (inputs, *batch[1:]))


class _ActivationPrograms(_VariablePrograms):
    def __init__(self, base: Programs, dtypes: tuple[Any, ...], layer: str) -> None:
        super().__init__(base, dtypes)
        self._layer = layer

    def of_batch(self, leaves: Leaves, constants: Any, batch: Any) -> Any:
        """The model's outputs where those of the layer are changed."""

        def outputs(own: Leaves, rest: Any) -> Any:
            return self._base.with_tag(own, rest, batch, self._layer)[0]

        return with_addition(outputs, self._layer, leaves[0], *constants)


class VariableFunctions(JaxFunctions, abc.ABC):
    """`JaxFunctions` of something else than the parameters, for one batch.

    Parameters
    ----------
    base : JaxFunctions
        The functions of the parameters.
    base_point : JaxPoint
        The parameters.
    variables : mapping of str to jax.Array
        Names and values of what is differentiated in.
    """

    _unused_warning = _UNUSED

    def __init__(self, base: JaxFunctions, base_point: JaxPoint, variables: Mapping[str, jax.Array]) -> None:
        self._base, self._base_point = base, base_point
        leaves = tuple(variables.values())
        model = dataclasses.replace(
            base._model, names=tuple(variables), leaves=leaves, constant_names=(), constants=(),
            named=lambda tree: dict(tree) if isinstance(tree, Mapping) else None,
        )  # fmt: skip
        super().__init__(model, base.loss, base.backend, base.memory_budget, None)
        self._wants_double = base._wants_double or self._wants_double
        # Batches of one form share compiled functions, whatever their values.
        dtypes = tuple(leaf.dtype for leaf in leaves)
        key = (*self._key(), self.names, dtypes)
        if key not in base.of_variables:
            base.of_variables[key] = self._programs(base.programs, dtypes), self._inspected, self._unused
        self.programs, self._inspected, self._unused = base.of_variables[key]

    def initial_point(self) -> JaxPoint:
        """The present values, beside the parameters and their constants."""
        constants: Any = (self._base_point.leaves, self._base_point.constants)
        return dataclasses.replace(super().initial_point(), constants=constants)

    @abc.abstractmethod
    def _key(self) -> tuple[Hashable, ...]:
        """What compiled functions depend on beside names and types."""

    @abc.abstractmethod
    def _programs(self, base: Programs, dtypes: tuple[Any, ...]) -> Programs:
        """Compiled functions of the variables."""

    @abc.abstractmethod
    def _same(self, base: JaxFunctions, base_point: JaxPoint, batch: Any) -> VariableFunctions:
        """The same for other functions."""

    def _refuse_detached(self, names: list[str]) -> None:
        """Say it alone: an input that only decides, such as a mask, has the derivative zero."""
        if names:
            warnings.warn(_UNUSED.format(names=listed(names)), UserWarning, stacklevel=2)

    def take(self, batch: Any, indices: Any) -> None:
        """Nothing: the variables belong to the whole batch, which cannot be cut."""

    def in_double_precision(self, point: JaxPoint, batch: Any) -> tuple[JaxFunctions, JaxPoint, Any]:
        """Copies of everything in float64."""
        base, base_point, part = self._base.in_double_precision(self._base_point, batch)
        functions = self._same(base, base_point, part)
        functions._inspected |= self._inspected
        with functions.session():
            leaves = tuple(leaf.astype(jnp.float64) for leaf in point.leaves)
        return functions, dataclasses.replace(functions.initial_point(), leaves=leaves), part


class InputFunctions(VariableFunctions):
    """The loss of one batch as a function of its inputs."""

    def __init__(self, base: JaxFunctions, base_point: JaxPoint, batch: Any) -> None:
        if type(base.loss).outputs is not OutputLoss.outputs:
            raise TypeError(
                "The Hessian with respect to the inputs needs batches (inputs, targets), but a BatchLoss does not say which arrays are "
                "inputs; use a loss of outputs and targets, or activation_hessian of the first layer."
            )
        arrays = tree_util.tree_flatten_with_path(batch[0])[0]
        variables = {".".join(["inputs", *map(key_name, path)]): array for path, array in arrays if _is_real(array)}
        if not variables:
            found = listed([str(getattr(array, "dtype", type(array).__name__)) for _, array in arrays])
            raise TypeError(
                f"The inputs of a batch hold no real numbers to differentiate in (types {found}); use activation_hessian of the layer "
                "that embeds them."
            )
        super().__init__(base, base_point, variables)

    def _key(self) -> tuple[Hashable, ...]:
        return ("inputs",)

    def _programs(self, base: Programs, dtypes: tuple[Any, ...]) -> Programs:
        return _InputPrograms(base, dtypes)

    def _same(self, base: JaxFunctions, base_point: JaxPoint, batch: Any) -> VariableFunctions:
        return InputFunctions(base, base_point, batch)


class ActivationFunctions(VariableFunctions):
    """The loss of one batch as a function of what is added to the outputs of a layer, or to an array with a name."""

    def __init__(self, base: JaxFunctions, base_point: JaxPoint, batch: Any, layer: str) -> None:
        self._layer = layer
        layers: list[str] = []

        def outputs(own: Leaves, rest: Any) -> Any:
            result, found = base.programs.with_tag(own, rest, batch, layer)
            layers.extend(found)
            return result

        with base.session(), base.programs.frozen():
            jaxpr = jax.make_jaxpr(outputs)(base_point.leaves, base_point.constants).jaxpr
        known = [*layers, *names(jaxpr)]
        found = places(jaxpr, layer)
        if layer not in known:
            raise ValueError(
                f"The argument layer is {layer!r}, which is no layer of the model; there are {listed(known)}. In a function, arrays get "
                "names by jax.ad_checkpoint.checkpoint_name(array, name)."
            )
        if len(found) != 1 or not found[0][1] or not jnp.issubdtype(found[0][0].dtype, jnp.floating):
            said = f"runs {len(found)} times"
            if len(found) == 1:
                inside = "lies inside of a loop, a branch or a function with a derivative of its own"
                said = inside if not found[0][1] else f"gives an array of {found[0][0].dtype}"
            raise TypeError(
                f"The layer {layer!r} {said} in a forward pass, but to differentiate in its outputs it must run once and give one array "
                "of real numbers; choose another one."
            )
        with base.session():
            zeros = jax.device_put(jnp.zeros(found[0][0].shape, found[0][0].dtype), base._layout.device)
        super().__init__(base, base_point, {layer: zeros})

    def _key(self) -> tuple[Hashable, ...]:
        return "layer", self._layer

    def _programs(self, base: Programs, dtypes: tuple[Any, ...]) -> Programs:
        return _ActivationPrograms(base, dtypes, self._layer)

    def _same(self, base: JaxFunctions, base_point: JaxPoint, batch: Any) -> VariableFunctions:
        return ActivationFunctions(base, base_point, batch, self._layer)


def _is_real(x: Any) -> bool:
    return isinstance(x, jax.Array) and bool(jnp.issubdtype(x.dtype, jnp.floating))
