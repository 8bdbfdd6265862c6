"""The compiled functions of a model and its loss; parameters and batches are arguments, so that each batch shape compiles once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..random_states import HostRandomState
from .batch_structure import BatchStructure
from .custom_losses import require_scalar
from .layers import with_tag
from .losses import OutputLoss, at_least_single
from .models import PureModel
from .vectors import Leaves

_STRUCTURE = 0


class Totals(NamedTuple):
    """What every pass over a batch tells besides its derivatives."""

    total: Any
    terms: Any
    problems: tuple[Any, ...]


@jax.tree_util.register_pytree_node_class
class Slim:
    """A linearised function on its way out of a compiled program, without those of its arrays that went in.

    A program returns copies of arguments that it returns, so that each batch would hold the parameters once more.
    """

    def __init__(self, made: Sequence[Any], treedef: Any, places: tuple[int | None, ...]) -> None:
        self._made, self._treedef, self._places = made, treedef, places

    @classmethod
    def of(cls, function: Any, inputs: Any) -> Slim:
        """To be called while the program is traced."""
        given = {id(x): place for place, x in enumerate(jax.tree_util.tree_leaves(inputs))}
        leaves, treedef = jax.tree_util.tree_flatten(function)
        places = tuple(given.get(id(leaf)) for leaf in leaves)
        return cls([leaf for leaf, place in zip(leaves, places, strict=True) if place is None], treedef, places)

    def restored(self, inputs: Any) -> Any:
        """The function, with the arguments of the program."""
        given, made = jax.tree_util.tree_leaves(inputs), iter(self._made)
        return self._treedef.unflatten([next(made) if place is None else given[place] for place in self._places])

    def tree_flatten(self) -> tuple[Sequence[Any], Any]:
        """Arrays, and what is fixed when the program is traced."""
        return self._made, (self._treedef, self._places)

    @classmethod
    def tree_unflatten(cls, fixed: Any, made: Sequence[Any]) -> Slim:
        """The inverse."""
        return cls(made, *fixed)


class Programs:
    """Compiled functions of ``(structure, leaves, constants, arrays)`` and of vectors.

    A linearised function comes out of a program as a pytree and goes into the next one as an argument: nothing is baked in.
    """

    def __init__(self, model: PureModel, loss: OutputLoss) -> None:
        self.model, self.loss = model, loss
        self._model_dtypes = tuple(leaf.dtype for leaf in model.leaves)
        self._random_state = HostRandomState()
        compiled: Callable[..., Any] = partial(jax.jit, static_argnums=_STRUCTURE)
        self.outputs = compiled(self._outputs)
        self.totals = compiled(lambda *a: self._total(*a)[1])
        self.checked_outputs = compiled(self._checked_outputs)
        self.forward_pass = compiled(self._forward_pass)
        self.statistics = compiled(self._statistics)
        self.gradient = compiled(self._gradient)
        self.hessian_product = compiled(self._hessian_product)
        self.linearized_gradient = compiled(self._linearized_gradient)
        self.linearized_outputs = compiled(self._linearized_outputs)
        self.pulled_outputs = compiled(self._pulled_outputs)
        self.residual_product = compiled(self._residual_product)
        self.linearized_residual = compiled(self._linearized_residual)
        self.output_gradient = compiled(self._output_gradient)
        self.output_hessian = compiled(self._output_hessian)

    # -- pure functions ------------------------------------------------------------------------------------------------

    def _outputs(self, structure: BatchStructure, leaves: Leaves, constants: Any, arrays: Any) -> Any:
        # Numbers that a model draws from the host's generators are frozen when it is traced; here they are the same every time.
        with self.frozen():
            return self.of_batch(leaves, constants, structure.restore(arrays))

    def _built(self, leaves: Leaves, constants: Any) -> Any:
        """The model with these arrays, as the user's loss meets it."""
        return self.model.build([leaf.astype(dtype) for leaf, dtype in zip(leaves, self._model_dtypes, strict=True)], constants)

    def of_batch(self, leaves: Leaves, constants: Any, batch: Any) -> Any:
        """The model's outputs for a batch, to be traced."""
        return self.loss.outputs(self._built(leaves, constants), self.model.call, batch)

    def with_tag(self, leaves: Leaves, constants: Any, batch: Any, layer: str) -> tuple[Any, list[str]]:
        """The same with the outputs of a layer tagged, and the names of all layers that were found."""
        return with_tag(self._built(leaves, constants), layer, lambda model: self.loss.outputs(model, self.model.call, batch))

    def frozen(self) -> contextlib.AbstractContextManager[None]:
        """Run under the host's random states of the time when this was made."""
        return self._random_state.frozen()

    def _totals(self, structure: BatchStructure, outputs: Any, arrays: Any) -> tuple[Any, Totals]:
        batch = structure.restore(arrays)
        self.loss.check(outputs, batch)
        with self.frozen():
            total, terms = self.loss.total(outputs, batch)
        require_scalar(total, "a mean over the examples, or a pair (sum, number_of_terms)")
        return total, Totals(total, jnp.asarray(terms), self.loss.problems(outputs, batch))

    def _total(self, structure: BatchStructure, leaves: Leaves, constants: Any, arrays: Any) -> tuple[Any, Totals]:
        return self._totals(structure, self._outputs(structure, leaves, constants, arrays), arrays)

    def _checked_outputs(self, structure: BatchStructure, leaves: Leaves, constants: Any, arrays: Any) -> tuple[Any, Totals]:
        outputs = self._outputs(structure, leaves, constants, arrays)
        return outputs, self._totals(structure, outputs, arrays)[1]

    def _forward_pass(self, structure: BatchStructure, leaves: Leaves, constants: Any, arrays: Any) -> tuple[Any, Totals]:
        # The outputs stand there twice, but are computed once.
        return self._outputs(structure, leaves, constants, arrays), self._total(structure, leaves, constants, arrays)[1]

    def _statistics(self, structure: BatchStructure, leaves: Leaves, constants: Any, arrays: Any) -> list[Any]:
        assert self.model.collect is not None and self.model.statistics is not None
        batch = structure.restore(arrays)
        with self.frozen():
            found = self.model.collect(
                self._built(leaves, constants), lambda model: self.loss.outputs(model, self.model.call, batch)
            )
        return [found[name] for name in self.model.statistics]

    # -- derivatives of the loss ---------------------------------------------------------------------------------------

    def _gradient(
        self, structure: BatchStructure, leaves: Leaves, constants: Any, arrays: Any, one: Any
    ) -> tuple[Leaves, Totals]:
        total, pull, totals = jax.vjp(lambda p: self._total(structure, p, constants, arrays), leaves, has_aux=True)
        return pull(jnp.asarray(one, dtype=total.dtype))[0], totals

    def _slope(self, structure: BatchStructure, constants: Any, arrays: Any) -> Callable[[Leaves], tuple[Leaves, Totals]]:
        return jax.grad(lambda p: self._total(structure, p, constants, arrays), has_aux=True)

    def _hessian_product(
        self, structure: BatchStructure, leaves: Leaves, constants: Any, arrays: Any, v: Leaves
    ) -> tuple[Leaves, Totals]:
        _, product, totals = jax.jvp(self._slope(structure, constants, arrays), (leaves,), (v,), has_aux=True)
        return product, totals

    def _linearized_gradient(self, structure: BatchStructure, leaves: Leaves, constants: Any, arrays: Any) -> tuple[Any, Totals]:
        _, push, totals = jax.linearize(self._slope(structure, constants, arrays), leaves, has_aux=True)
        return Slim.of(push, (leaves, constants, arrays)), totals

    # -- derivatives of the outputs ------------------------------------------------------------------------------------

    def _linearized_outputs(
        self, structure: BatchStructure, leaves: Leaves, constants: Any, arrays: Any
    ) -> tuple[Any, Any, Totals]:
        outputs, push, totals = jax.linearize(
            lambda p: self._checked_outputs(structure, p, constants, arrays), leaves, has_aux=True
        )
        return outputs, Slim.of(push, (leaves, constants, arrays)), totals

    def _pulled_outputs(self, structure: BatchStructure, leaves: Leaves, constants: Any, arrays: Any) -> tuple[Any, Any, Totals]:
        outputs, pull, totals = jax.vjp(
            lambda p: self._checked_outputs(structure, p, constants, arrays), leaves, has_aux=True
        )
        return outputs, Slim.of(pull, (leaves, constants, arrays)), totals

    def _weighted_slope(self, structure: BatchStructure, constants: Any, arrays: Any, weights: Any) -> Callable[[Leaves], Leaves]:
        def weighted(p: Leaves) -> Any:
            outputs = self._outputs(structure, p, constants, arrays)
            return jnp.sum(at_least_single(outputs) * at_least_single(weights))

        return jax.grad(weighted)

    def _residual_product(
        self, structure: BatchStructure, leaves: Leaves, constants: Any, arrays: Any, weights: Any, v: Leaves
    ) -> Leaves:
        return jax.jvp(self._weighted_slope(structure, constants, arrays, weights), (leaves,), (v,))[1]

    def _linearized_residual(self, structure: BatchStructure, leaves: Leaves, constants: Any, arrays: Any, weights: Any) -> Slim:
        _, push = jax.linearize(self._weighted_slope(structure, constants, arrays, weights), leaves)
        return Slim.of(push, (leaves, constants, arrays))

    # -- derivatives in the outputs ------------------------------------------------------------------------------------

    def _output_gradient(self, structure: BatchStructure, outputs: Any, arrays: Any) -> Any:
        return self.loss.gradient(outputs, structure.restore(arrays))

    def _output_hessian(self, structure: BatchStructure, outputs: Any, arrays: Any, u: Any) -> Any:
        return self.loss.hessian_product(outputs, structure.restore(arrays), u)


@jax.jit
def push_forward(push: Any, v: Leaves) -> Any:
    """A linearised function times a vector."""
    return push(v)


@jax.jit
def pull_back(push: Any, leaves: Leaves, u: Any) -> Leaves:
    """The transpose of a linearised function times an array of its outputs' shape."""
    (product,) = jax.linear_transpose(push, leaves)(u)
    return tuple(product)


@jax.jit
def apply_pull(pull: Any, u: Any) -> Leaves:
    """A transposed Jacobian times an array of the outputs' shape."""
    return tuple(pull(u)[0])


@jax.jit
def transpose_pull(pull: Any, outputs: Any, v: Leaves) -> Any:
    """The transpose of a transposed Jacobian, which is linear, times a vector: the derivative of ``J^T u`` in `u`, along `v`."""
    _, back = jax.vjp(lambda u: pull(u)[0], jnp.zeros_like(outputs))
    return back(v)[0]
