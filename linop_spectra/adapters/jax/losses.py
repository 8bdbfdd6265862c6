"""Losses of outputs and targets whose second derivative in the outputs is known in closed form.

Each gives the sum over a batch and the number of terms in it; the objective divides at the end. ``total`` runs inside compiled
functions; shapes and types are looked at in ``check`` and values in ``problems``, whose flags come out of the compiled function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .. import loss_sentences
from ..output_loss import AnyOutputLoss
from .likelihood import Likelihood, bernoulli, categorical, gaussian
from .token_cross_entropy import curvature_product, summed_cross_entropy

Call = Callable[[Any, Any], Any]


class OutputLoss(AnyOutputLoss):
    """A loss of outputs and a batch, with derivatives in the outputs by automatic differentiation.

    Attributes
    ----------
    needs_pairs : bool
        Whether batches must be pairs (inputs, targets).
    has_class_axis : bool
        Whether the last axis of the outputs is one of classes.
    sigmoid_refusal : str or None
        What to say where the model ends in a sigmoid; None where that is no mistake.
    """

    needs_pairs = True
    has_class_axis = False
    fisher_refusal: str | None = loss_sentences.no_likelihood("a loss that is a function of its own")
    sigmoid_refusal: str | None = None

    def outputs(self, model: Any, call: Call, batch: Any) -> Any:
        """The model's outputs for a pair (inputs, targets)."""
        return call(model, batch[0])

    def problems(self, outputs: Any, batch: Any) -> tuple[Any, ...]:
        """Flags that are true where values do not fit."""
        return ()

    def explain(self, problem: int, batch: Any) -> str:
        """The sentence for a flag."""
        raise IndexError(problem)

    def gradient(self, outputs: Any, batch: Any) -> Any:
        """Gradient of the summed loss in the outputs."""
        return jax.grad(lambda z: self.total(z, batch)[0])(outputs)

    def hessian_product(self, outputs: Any, batch: Any, u: Any) -> Any:
        """Hessian of the summed loss in the outputs, times `u`."""
        return jax.jvp(lambda z: self.gradient(z, batch), (outputs,), (u,))[1]

    def likelihood(self, outputs: Any, batch: Any) -> Likelihood:
        """The distribution of targets whose negative logarithm the loss is."""
        raise TypeError(self.fisher_refusal)

    def rank_one(self, g: Any, u: Any) -> Any:
        """``g <g, u>`` for each term, which is an example here."""
        return per_example(g, u)


def per_example(g: Any, u: Any) -> Any:
    """``g <g, u>`` with the inner product over all axes but the first."""
    return g * jnp.sum(g * u, axis=tuple(range(1, g.ndim)), keepdims=True)


def require_array(outputs: Any) -> None:
    """Raise unless the model gave one array of floating numbers."""
    if not hasattr(outputs, "shape") or not hasattr(outputs, "dtype"):
        raise loss_sentences.not_one_array(outputs, "array")
    if not jnp.issubdtype(outputs.dtype, jnp.floating):
        raise loss_sentences.not_floating(outputs.dtype)


def _require_array_of_targets(name: str, targets: Any) -> None:
    if not hasattr(targets, "shape") or not hasattr(targets, "dtype"):
        raise TypeError(f"The targets of a batch are a {type(targets).__name__}, but {name} needs one array of them.")


def _require_equal_shapes(name: str, outputs: Any, targets: Any) -> None:
    _require_array_of_targets(repr(name), targets)
    if outputs.shape != targets.shape:
        raise loss_sentences.unequal_shapes(name, outputs.shape, tuple(targets.shape))


def at_least_single(x: Any) -> Any:
    """`x` in float32 where its type is narrower or no floating one."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def are_probabilities(outputs: Any) -> Any:
    """Flag that is true where the last axis holds probabilities instead of logits."""
    outputs = at_least_single(outputs)
    if outputs.shape[-1] < 2 or not outputs.size:
        return jnp.asarray(False)
    sums = jnp.abs(jnp.sum(outputs, axis=-1) - 1) < 1e-3
    return jnp.all((outputs >= 0) & (outputs <= 1)) & jnp.all(sums)


class MeanSquaredError(OutputLoss):
    """Squared differences; the terms are the elements."""

    convex = True
    fisher_refusal = None

    def check(self, outputs: Any, batch: Any) -> None:
        """Shapes must be equal: broadcasting would compare everything with everything."""
        require_array(outputs)
        _require_equal_shapes("mse", outputs, batch[1])

    def total(self, outputs: Any, batch: Any) -> tuple[Any, Any]:
        """Sum of squares."""
        outputs = at_least_single(outputs)
        return jnp.sum(jnp.square(outputs - batch[1].astype(outputs.dtype))), outputs.size

    def hessian_product(self, outputs: Any, batch: Any, u: Any) -> Any:
        """Twice the identity."""
        return 2 * u

    def likelihood(self, outputs: Any, batch: Any) -> Likelihood:
        """Normal elements."""
        return gaussian(outputs)

    def rank_one(self, g: Any, u: Any) -> Any:
        """For each element."""
        return g * g * u


class BinaryCrossEntropy(OutputLoss):
    """Cross-entropy of independent labels, from logits; the terms are the elements."""

    convex = True
    fisher_refusal = None
    sigmoid_refusal = loss_sentences.sigmoid_last("sigmoid")

    def check(self, outputs: Any, batch: Any) -> None:
        """Shapes must be equal."""
        require_array(outputs)
        _require_equal_shapes("binary_cross_entropy", outputs, batch[1])

    def total(self, outputs: Any, batch: Any) -> tuple[Any, Any]:
        """Sum over elements of ``softplus(z) - t z``."""
        outputs = at_least_single(outputs)
        targets = batch[1].astype(outputs.dtype)
        # Both signs apart, because softplus(z) - t z cancels where |z| is large.
        losses = targets * jax.nn.softplus(-outputs) + (1 - targets) * jax.nn.softplus(outputs)
        return jnp.sum(losses), outputs.size

    def hessian_product(self, outputs: Any, batch: Any, u: Any) -> Any:
        """Diagonal: ``s (1 - s)`` with the sigmoid `s`."""
        outputs = at_least_single(outputs)
        return (jax.nn.sigmoid(outputs) * jax.nn.sigmoid(-outputs) * u).astype(u.dtype)

    def likelihood(self, outputs: Any, batch: Any) -> Likelihood:
        """A label for each element."""
        return bernoulli(outputs)

    def rank_one(self, g: Any, u: Any) -> Any:
        """For each element."""
        return g * g * u


class CrossEntropy(OutputLoss):
    """Softmax cross-entropy from logits with the classes along the last axis.

    Integer targets are masked by -100; the terms are the positions that are left. Targets of the outputs' shape are distributions
    over the classes (one-hot or soft); the terms are the positions.
    """

    convex = True
    fisher_refusal = None
    has_class_axis = True
    ignore_index = -100

    def check(self, outputs: Any, batch: Any) -> None:
        """Shapes must fit."""
        require_array(outputs)
        targets = batch[1]
        _require_array_of_targets("cross-entropy", targets)
        if outputs.ndim == 0:
            raise loss_sentences.no_logits()
        if outputs.shape == targets.shape:
            return
        if targets.shape != outputs.shape[:-1]:
            hint = (
                "move the classes to the last axis, as is usual in JAX, or pass a callable loss"
                if targets.shape == outputs.shape[:1] + outputs.shape[2:]
                else loss_sentences.ONE_CLASS_EACH
            )
            raise loss_sentences.cross_entropy_misfit(outputs.shape, targets.shape, "the last axis", hint)
        if not jnp.issubdtype(targets.dtype, jnp.integer):
            raise loss_sentences.not_integers(targets.dtype)

    def _distributions(self, outputs: Any, batch: Any) -> bool:
        return bool(outputs.shape == batch[1].shape)

    def problems(self, outputs: Any, batch: Any) -> tuple[Any, ...]:
        """Outputs that are probabilities; classes that do not exist."""
        outside = jnp.asarray(False)
        if not self._distributions(outputs, batch):
            targets = batch[1]
            outside = jnp.any((targets != self.ignore_index) & ((targets < 0) | (targets >= outputs.shape[-1])))
        return are_probabilities(outputs), outside

    def explain(self, problem: int, batch: Any) -> str:
        """The sentence for a flag."""
        if problem == 0:
            return loss_sentences.probabilities()
        valid = batch[1][batch[1] != self.ignore_index]
        return (
            f"The targets hold classes from {int(valid.min())} to {int(valid.max())}, for some of which the model has no output; classes "
            f"are numbered from 0, and positions to be left out are marked {self.ignore_index}."
        )

    def total(self, outputs: Any, batch: Any) -> tuple[Any, Any]:
        """Sum over positions, and their number."""
        logits, targets = at_least_single(outputs), batch[1]
        if self._distributions(outputs, batch):
            shares = targets.astype(logits.dtype)
            most = jnp.argmax(shares, axis=-1)
            own = most[..., None] == jnp.arange(logits.shape[-1])
            # What a target gives to other classes than the one that it gives most: nothing where it is one-hot.
            rest = jnp.where(own, 0, shares) * (logits - jnp.take_along_axis(logits, most[..., None], axis=-1))
            return summed_cross_entropy(logits, most, jnp.sum(shares, axis=-1)) - jnp.sum(rest), outputs.size // outputs.shape[-1]
        valid = targets != self.ignore_index
        return summed_cross_entropy(logits, targets, valid.astype(logits.dtype)), jnp.sum(valid)

    def _weights(self, outputs: Any, batch: Any) -> Any:
        """Total weight of each position's target, with an axis of length one for the classes; zero where it is masked."""
        if self._distributions(outputs, batch):
            return jnp.sum(at_least_single(batch[1]).astype(outputs.dtype), axis=-1, keepdims=True)
        return (batch[1] != self.ignore_index).astype(outputs.dtype)[..., None]

    def hessian_product(self, outputs: Any, batch: Any, u: Any) -> Any:
        r"""At each position ``s (diag p - p p^T)`` with the softmax `p` and the total weight `s` of the target."""
        logits = at_least_single(outputs)
        return curvature_product(logits, self._weights(logits, batch)[..., 0], u).astype(u.dtype)

    def likelihood(self, outputs: Any, batch: Any) -> Likelihood:
        """A class for each position, weighted as the Hessian is."""
        return categorical(outputs, self._weights(at_least_single(outputs), batch)[..., 0])

    def rank_one(self, g: Any, u: Any) -> Any:
        """For each position."""
        return g * jnp.sum(g * u, axis=-1, keepdims=True)
