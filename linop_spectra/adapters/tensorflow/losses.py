"""Losses of outputs and targets whose second derivative in the outputs is known in closed form.

Each gives the sum over a batch and the number of terms in it; the objective divides at the end. All but ``check`` runs inside
graphs; ``check`` looks at values.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from ...curvature.linearization import Noise
from .. import loss_sentences
from ..output_loss import AnyOutputLoss
from .cross_entropy import cross_entropy, others, picked

KERAS_LOSSES = " (or Keras' objects of them)"
"""What else than a name stands for the losses that have a likelihood."""


class OutputLoss(AnyOutputLoss):
    """A loss of outputs and a batch, with derivatives in the outputs by automatic differentiation.

    Attributes
    ----------
    pairs : bool
        Whether batches must be pairs (inputs, targets).
    split : bool
        Whether there are outputs and a loss of them.
    regularized : bool
        Whether the regularisers of the layers are added.
    """

    pairs = True
    split = True
    regularized = True
    masks = True
    fisher_refusal: str | None = loss_sentences.no_likelihood("a loss that is a function of its own", KERAS_LOSSES)

    def outputs(self, program: Any, batch: Any) -> Any:
        """The model's outputs for a pair (inputs, targets)."""
        return program.call(batch[0])

    def gradient(self, outputs: Any, batch: Any) -> Any:
        """Gradient of the summed loss in the outputs."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(outputs)
            total, _ = self.total(outputs, batch)
        return tape.gradient(total, outputs, unconnected_gradients="zero")

    def hessian_product(self, outputs: Any, batch: Any, u: Any) -> Any:
        """Hessian of the summed loss in the outputs, times `u`."""
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(outputs)
            slope = self.gradient(outputs, batch)
        return outer.gradient(slope, outputs, u, unconnected_gradients="zero")

    def noise_of(self, outputs: Any) -> tuple[Noise, tuple[int, ...]]:
        """Kind and shape of the random numbers that targets are drawn by."""
        raise TypeError(self.fisher_refusal)

    def sampled_gradient(self, outputs: Any, batch: Any, noise: Any) -> Any:
        """Gradient of the summed loss in the outputs for targets drawn by means of `noise` (in double precision)."""
        raise TypeError(self.fisher_refusal)

    def rank_one(self, g: Any, u: Any) -> Any:
        """``g <g, u>`` over each term of the loss."""
        return per_example(g, u)

    def require_examples(self, outputs: Any) -> None:
        """Raise unless the rows of the outputs are examples."""


def per_element(g: Any, u: Any) -> Any:
    """``g <g, u>`` for each element."""
    return tf.square(g) * u


def per_example(g: Any, u: Any) -> Any:
    """``g <g, u>`` with the inner product over all axes but the first."""
    if g.shape.rank is not None and g.shape.rank < 2:
        return per_element(g, u)
    return g * tf.reduce_sum(g * u, axis=list(range(1, g.shape.rank)), keepdims=True)


def require_tensor(outputs: Any) -> None:
    """Raise unless the model gave one tensor of floating numbers."""
    if not tf.is_tensor(outputs):
        raise loss_sentences.not_one_array(outputs, "tensor")
    if not outputs.dtype.is_floating:
        raise loss_sentences.not_floating(outputs.dtype.name)


def _shape(array: Any) -> tuple[int, ...]:
    return tuple(int(length) for length in array.shape)


def _require_equal_shapes(name: str, outputs: Any, targets: Any) -> None:
    if not tf.is_tensor(targets) or _shape(outputs) != _shape(targets):
        found = _shape(targets) if tf.is_tensor(targets) else type(targets).__name__
        raise loss_sentences.unequal_shapes(name, _shape(outputs), found)


class _Elementwise(OutputLoss):
    """A loss whose terms are the elements.

    Parameters
    ----------
    averages : bool
        Whether the objective is the mean of the elements; otherwise the sum.
    per_row : bool
        Whether a sum is one of the rows' means, as that of Keras is.
    squeeze : bool
        Whether a last axis of length one may be missing in the targets, as in Keras.
    """

    convex = True
    fisher_refusal = None
    name = ""

    def __init__(self, *, averages: bool = True, per_row: bool = False, squeeze: bool = False) -> None:
        self.averages, self._per_row, self._squeeze = averages, per_row, squeeze

    def targets(self, outputs: Any, batch: Any) -> Any:
        """Targets of the outputs' shape and type."""
        targets = tf.cast(batch[1], outputs.dtype)
        if self._squeeze and targets.shape.rank == outputs.shape.rank - 1 and outputs.shape[-1] == 1:
            targets = targets[..., tf.newaxis]
        return tf.stop_gradient(targets)

    def check(self, outputs: Any, batch: Any) -> None:
        """Shapes must be equal: broadcasting would compare everything with everything."""
        require_tensor(outputs)
        targets = batch[1] if not self._squeeze or not tf.is_tensor(batch[1]) else self.targets(outputs, batch)
        _require_equal_shapes(self.name, outputs, targets)

    def weight(self, outputs: Any) -> Any:
        """Of each element."""
        one = tf.ones((), outputs.dtype)
        return one / tf.cast(tf.shape(outputs)[-1], outputs.dtype) if self._per_row else one

    def noise_shape(self, outputs: Any) -> tuple[int, ...]:
        """One number for each element."""
        return _shape(outputs)

    def rank_one(self, g: Any, u: Any) -> Any:
        """For each element."""
        return per_element(g, u)


class MeanSquaredError(_Elementwise):
    """Squared differences; the terms are the elements."""

    name = "mse"

    def total(self, outputs: Any, batch: Any) -> tuple[Any, Any]:
        """Sum of squares."""
        return self.weight(outputs) * tf.reduce_sum(tf.square(outputs - self.targets(outputs, batch))), tf.size(outputs)

    def hessian_product(self, outputs: Any, batch: Any, u: Any) -> Any:
        """Twice the identity."""
        return 2 * self.weight(outputs) * u

    def noise_of(self, outputs: Any) -> tuple[Noise, tuple[int, ...]]:
        """Normal elements."""
        return "normal", self.noise_shape(outputs)

    def sampled_gradient(self, outputs: Any, batch: Any, noise: Any) -> Any:
        """``2 (outputs - targets)`` for targets of variance 1/2, whose negative logarithm is the squared difference."""
        return tf.sqrt(self.weight(outputs)) * tf.cast(-math.sqrt(2.0) * noise, outputs.dtype)


class BinaryCrossEntropy(_Elementwise):
    """Cross-entropy of independent labels, from logits; the terms are the elements."""

    name = "binary_cross_entropy"
    sigmoid_last = False

    def __init__(
        self, *, averages: bool = True, label_smoothing: float = 0.0, per_row: bool = False, squeeze: bool = False
    ) -> None:
        super().__init__(averages=averages, per_row=per_row, squeeze=squeeze)
        self._smoothing = label_smoothing

    def check(self, outputs: Any, batch: Any) -> None:
        """Shapes must be equal, and outputs must not come out of a sigmoid."""
        super().check(outputs, batch)
        if self.sigmoid_last and bool(tf.reduce_all((outputs >= 0) & (outputs <= 1))):
            raise ValueError(loss_sentences.sigmoid_last("activation"))

    def total(self, outputs: Any, batch: Any) -> tuple[Any, Any]:
        """Sum over elements."""
        targets = self.targets(outputs, batch)
        if self._smoothing:
            targets = targets * (1 - self._smoothing) + 0.5 * self._smoothing
        # Both signs apart, because softplus(z) - t z cancels where |z| is large.
        losses = targets * tf.nn.softplus(-outputs) + (1 - targets) * tf.nn.softplus(outputs)
        return self.weight(outputs) * tf.reduce_sum(losses), tf.size(outputs)

    def hessian_product(self, outputs: Any, batch: Any, u: Any) -> Any:
        """Diagonal: ``s (1 - s)`` with the sigmoid `s`."""
        s = tf.sigmoid(outputs)
        return self.weight(outputs) * s * tf.sigmoid(-outputs) * u  # 1 - s would cancel

    def noise_of(self, outputs: Any) -> tuple[Noise, tuple[int, ...]]:
        """A uniform number for each label, which is one where the number is below its probability."""
        return "uniform", self.noise_shape(outputs)

    def sampled_gradient(self, outputs: Any, batch: Any, noise: Any) -> Any:
        """``probability - label``."""
        probability = tf.sigmoid(tf.cast(outputs, tf.float64))
        residual = probability - tf.cast(noise < probability, tf.float64)
        return tf.sqrt(self.weight(outputs)) * tf.cast(residual, outputs.dtype)


class CrossEntropy(OutputLoss):
    """Softmax cross-entropy from logits with the classes along the last axis.

    Integer targets may be masked by `ignore_index`; the terms are the positions that are left. Targets of the outputs' shape are
    distributions over the classes (one-hot or soft); the terms are the positions.

    Parameters
    ----------
    ignore_index : int
        Marks positions that do not count.
    label_smoothing : float
        Share of each target that is spread over all classes.
    averages : bool
        Whether the objective is the mean of the positions; otherwise the sum.
    squeeze : bool
        Whether integer targets may have a last axis of length one, as in Keras.
    """

    convex = True
    fisher_refusal = None

    def __init__(
        self, *, ignore_index: int = -100, label_smoothing: float = 0.0, averages: bool = True, squeeze: bool = False
    ) -> None:
        self._ignore, self._smoothing, self.averages, self._squeeze = ignore_index, label_smoothing, averages, squeeze

    def targets(self, outputs: Any, batch: Any) -> Any:
        """Classes, or distributions of the outputs' shape."""
        targets = batch[1]
        if not _distributions(outputs, targets):
            rank = outputs.shape.rank
            if self._squeeze and targets.shape.rank == rank and targets.shape[-1] == 1 and rank > 1:
                targets = targets[..., 0]
            return targets
        return tf.stop_gradient(tf.cast(targets, outputs.dtype))

    def check(self, outputs: Any, batch: Any) -> None:
        """Shapes must fit, classes must exist, and outputs must not be probabilities."""
        require_tensor(outputs)
        if not tf.is_tensor(batch[1]):
            raise loss_sentences.no_classes(batch[1])
        if outputs.shape.rank == 0:
            raise loss_sentences.no_logits()
        shape, classes = _shape(outputs), int(outputs.shape[-1])
        if not _distributions(outputs, batch[1]):
            targets = self.targets(outputs, batch)
            if _shape(targets) != shape[:-1]:
                hint = (
                    "Keras has the classes along the last axis, so move them there, or pass a callable loss"
                    if len(shape) > 2 and _shape(targets) == shape[:1] + shape[2:]
                    else loss_sentences.ONE_CLASS_EACH
                )
                raise loss_sentences.cross_entropy_misfit(shape, _shape(targets), "the last dimension", hint)
            if not targets.dtype.is_integer:
                raise loss_sentences.not_integers(targets.dtype.name)
            numbers = targets.numpy()
            valid = numbers[numbers != self._ignore]
            if valid.size and not 0 <= int(valid.min()) <= int(valid.max()) < classes:
                raise loss_sentences.classes_outside(valid, classes, self._ignore)
        refuse_probabilities(outputs)

    def total(self, outputs: Any, batch: Any) -> tuple[Any, Any]:
        """Sum over positions, and how many count."""
        targets = self.targets(outputs, batch)
        shares, weights = self._shares(outputs, targets), self._weights(outputs, batch)[..., 0]
        if _distributions(outputs, targets):
            chosen, count = tf.argmax(shares, -1), tf.size(weights)
        else:
            chosen = tf.cast(tf.where(targets != self._ignore, targets, tf.zeros_like(targets)), tf.int64)
            count = tf.reduce_sum(tf.cast(targets != self._ignore, tf.int64))
        losses = weights * cross_entropy(outputs, chosen)
        total = tf.reduce_sum(tf.where(weights != 0, losses, tf.zeros_like(losses)))
        if shares is not None:
            # What the target gives to other classes than the one that it gives most: nothing where it is one-hot.
            total -= tf.reduce_sum(others(shares, chosen, 0.0) * (outputs - picked(outputs, chosen)[..., tf.newaxis]))
        return total, count

    def _shares(self, outputs: Any, targets: Any) -> Any:
        """Weight of each class in each position's target; with one class for each only what smoothing spreads over all of them."""
        smooth = self._smoothing / tf.cast(tf.shape(outputs)[-1], outputs.dtype)
        if _distributions(outputs, targets):
            return targets * (1 - self._smoothing) + smooth if self._smoothing else targets
        if not self._smoothing:
            return None
        return tf.cast(targets != self._ignore, outputs.dtype)[..., tf.newaxis] * smooth * tf.ones_like(outputs)

    def hessian_product(self, outputs: Any, batch: Any, u: Any) -> Any:
        r"""At each position ``s (diag p - p p^T)`` with the softmax `p` and the total weight `s` of the target."""
        p = tf.nn.softmax(outputs)
        # Constants make no difference, but where p is nearly one they would cancel.
        u = u - tf.gather(u, tf.argmax(p, -1)[..., tf.newaxis], axis=-1, batch_dims=outputs.shape.rank - 1)
        return self._weights(outputs, batch) * p * (u - tf.reduce_sum(p * u, -1, keepdims=True))

    def _weights(self, outputs: Any, batch: Any) -> Any:
        """Total weight of each position's target, with an axis of length one for the classes; zero where it is masked."""
        targets = self.targets(outputs, batch)
        if _distributions(outputs, targets):
            return tf.reduce_sum(self._shares(outputs, targets), -1, keepdims=True)
        return tf.cast(targets != self._ignore, outputs.dtype)[..., tf.newaxis]

    def noise_of(self, outputs: Any) -> tuple[Noise, tuple[int, ...]]:
        """A uniform number for each position."""
        return "uniform", _shape(outputs)[:-1]

    def sampled_gradient(self, outputs: Any, batch: Any, noise: Any) -> Any:
        """``sqrt(weight) (probabilities - one-hot class)``; the class is the first whose cumulative probability exceeds the noise."""
        p = tf.nn.softmax(tf.cast(outputs, tf.float64))
        chosen = tf.reduce_sum(tf.cast(tf.cumsum(p, -1) <= noise[..., tf.newaxis], tf.int64), -1)
        classes = tf.shape(outputs, out_type=tf.int64)[-1]
        # Rounding may leave the last cumulative probability below one.
        drawn = tf.one_hot(tf.minimum(chosen, classes - 1), tf.cast(classes, tf.int32), dtype=tf.float64)
        return tf.sqrt(self._weights(outputs, batch)) * tf.cast(p - drawn, outputs.dtype)

    def rank_one(self, g: Any, u: Any) -> Any:
        """For each position."""
        return g * tf.reduce_sum(g * u, -1, keepdims=True)

    def require_examples(self, outputs: Any) -> None:
        """A single example without an axis of examples has classes in its rows."""
        if outputs.shape.rank < 2:
            raise loss_sentences.no_axis_of_examples(_shape(outputs))


def refuse_probabilities(outputs: Any) -> None:
    """Raise when outputs are probabilities already: in [0, 1], and summing to one along the last axis."""
    numbers = np.asarray(outputs.numpy())
    if numbers.shape[-1] < 2 or numbers.size == 0:
        return
    if numbers.min() >= 0 and numbers.max() <= 1 and bool((np.abs(numbers.sum(-1) - 1) < 1e-3).all()):
        raise ValueError(loss_sentences.probabilities("leave the last softmax out (activation=None)"))


def _distributions(outputs: Any, targets: Any) -> bool:
    """Whether targets are distributions over the classes rather than classes, by shapes alone."""
    if targets.shape.rank != outputs.shape.rank:
        return False
    # In a graph the batch is free; what is known of the other axes decides.
    return all(a is None or b is None or a == b for a, b in zip(outputs.shape, targets.shape, strict=True))
