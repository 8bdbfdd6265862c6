"""A Keras model on the JAX backend as a pure function of a dict of its trainable variables."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..backends import Backend
from ..curvature import BatchLoss, Objective
from .jax import jax_objective
from .jax.batch_structure import BatchStructure
from .jax.context import double_precision
from .jax.functions import JaxFunctions, JaxPoint
from .jax.losses import OutputLoss
from .jax.models import PureModel
from .jax.programs import Programs, Totals
from .jax.vectors import Leaves
from .keras import plain_loss
from .keras_layers import KerasLayers


class KerasApply:
    """``apply(params, inputs)``, and the regularisers as a function of the parameters; the other variables are constants.

    Parameters
    ----------
    layers : KerasLayers
        The model.
    """

    def __init__(self, layers: KerasLayers) -> None:
        self._layers = layers
        self._variables = [*layers.trainable.values(), *layers.rest.values()]
        self.rest = [jnp.array(v.value) for v in layers.rest.values()]
        self._found: dict[str, Any] | None = None

    def with_rest(self, rest: Sequence[Any]) -> KerasApply:
        """The same with other values of the other variables."""
        made = copy.copy(self)
        made.rest = list(rest)
        return made

    def __call__(self, params: dict[str, Any], inputs: Any) -> Any:
        """The model on a batch's inputs."""
        return self._under(params, lambda: self._layers.call(inputs))

    def regularization(self, params: dict[str, Any]) -> Any:
        """Sum of the regularisers."""
        return self._under(params, self._layers.regularization)

    def collecting(self) -> KerasApply:
        """The same with batch normalisation in training; `found` has the statistics of the batch once it has run."""
        made = copy.copy(self)
        made._found = {}
        return made

    @property
    def found(self) -> dict[str, Any]:
        """Statistics of the last batch, by the names of the moving ones."""
        return self._found or {}

    def _under(self, params: dict[str, Any], run: Callable[[], Any]) -> Any:
        values = [params[name] for name in self._layers.trainable]
        wide = all(value.dtype == jnp.float64 for value in values)
        others = [value.astype(jnp.float64) if wide and jnp.issubdtype(value.dtype, jnp.floating) else value for value in self.rest]
        collect = self._found is not None
        with self._layers.holding(self._variables, [*values, *others], "float64" if wide else None, collect=collect) as statistics:
            result = run()
            if self._found is not None:
                self._found.update(statistics())
            return result


class RegularizedPrograms(Programs):
    """Programs whose loss has the regularisers in it, once for each term, so that the objective has them once.

    Parameters
    ----------
    model : PureModel
        Made from a `KerasApply`.
    loss : OutputLoss
        The loss.
    """

    def _total(self, structure: BatchStructure, leaves: Leaves, constants: Any, arrays: Any) -> tuple[Any, Totals]:
        total, totals = super()._total(structure, leaves, constants, arrays)
        total = total + self._regularization(leaves, constants, totals.terms, total.dtype)
        return total, totals._replace(total=total)

    def _weighted_slope(self, structure: BatchStructure, constants: Any, arrays: Any, weights: Any) -> Callable[[Leaves], Leaves]:
        outputs_alone = super()._weighted_slope(structure, constants, arrays, weights)

        def slope(p: Leaves) -> Leaves:
            totals = self._checked_outputs(structure, p, constants, arrays)[1]
            own = jax.grad(lambda q: self._regularization(q, constants, totals.terms, totals.total.dtype))(p)
            return jax.tree_util.tree_map(jnp.add, outputs_alone(p), own)

        return slope

    def _regularization(self, leaves: Leaves, constants: Any, terms: Any, dtype: Any) -> Any:
        bound = self._built(leaves, constants)  # the function with its parameters filled in
        return jax.lax.stop_gradient(terms).astype(dtype) * bound.func.regularization(*bound.args).astype(dtype)


class RegularizedFunctions(JaxFunctions):
    """`JaxFunctions` of a model whose layers have regularisers."""

    def __init__(self, model: PureModel, loss: OutputLoss, backend: Backend, memory_budget: int, batch_size: int | None) -> None:
        super().__init__(model, loss, backend, memory_budget, batch_size)
        self.programs = RegularizedPrograms(model, loss)

    def in_double_precision(self, point: JaxPoint, batch: Any) -> tuple[JaxFunctions, JaxPoint, Any]:
        """Copies of everything in float64."""
        if self._in_double is None:
            with double_precision(True):
                model = self._model.converted(np.dtype(np.float64))
                self._in_double = RegularizedFunctions(model, self.loss, self.backend, self.memory_budget, None)
        return super().in_double_precision(point, batch)


def keras_jax_objective(layers: KerasLayers, loss: Any, data: Any, **options: Any) -> Objective:
    """The objective of a Keras model on the JAX backend."""
    params = {name: jnp.array(v.value) for name, v in layers.trainable.items()}
    objective = jax_objective(KerasApply(layers), plain_loss(loss), data, params=params, **options)
    plain: Any = objective.functions
    kind = RegularizedFunctions if layers.regularized and not isinstance(loss, BatchLoss) else JaxFunctions
    model = _with_variables(plain.programs.model, layers)
    functions = kind(model, plain.loss, plain.backend, plain.memory_budget, options["batch_size"])
    return Objective(functions, functions.initial_point(), functions.batches(data), objective.weight_decay)


def _with_variables(model: PureModel, layers: KerasLayers) -> PureModel:
    """The model with its other variables among its constants, and lists of weights read as Keras gives them."""
    count, names = len(model.constants), tuple(layers.rest)

    def build(values: Any, fixed: Any) -> Any:
        bound = model.build(values, fixed[:count])
        return functools.partial(bound.func.with_rest(fixed[count:]), *bound.args)

    def collect(bound: Any, run: Callable[[Any], Any]) -> dict[str, Any]:
        apply = bound.func.collecting()
        run(functools.partial(apply, *bound.args))
        return apply.found

    def named(tree: Any) -> dict[str, Any] | None:
        # A tree of JAX is in alphabetical order, but lists of weights are in that of Keras.
        if isinstance(tree, list | tuple) and all(hasattr(item, "shape") for item in tree):
            order = layers.ordered_names(len(tree), model.names)
            if order is not None:
                return dict(zip(order, tree, strict=True))
        return model.named(tree)

    with double_precision(model.dtype == np.float64):
        others = tuple(jax.device_put(jnp.array(v.value), model.device) for v in layers.rest.values())
        if model.dtype == np.float64:
            others = tuple(x.astype(np.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x for x in others)
    return dataclasses.replace(
        model, constant_names=(*model.constant_names, *names), constants=(*model.constants, *others), build=build,
        named=named, batch_statistics=layers.batch_statistics, statistics=tuple(layers.statistics), collect=collect,
    )  # fmt: skip
