"""Softmax cross-entropy whose value and derivatives keep their digits where the right class is nearly certain.

With the others' logits gathered to ``u = logsumexp_{j != t} z_j - z_t`` the cross-entropy is ``softplus(u)``. Its derivatives are made of
``sigmoid(u)``, one minus the probability of the class, which ``p - 1`` loses to rounding: in single precision all of it once the class
is certain to 1e-7.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def cross_entropy(logits: Any, classes: Any) -> Any:
    """Cross-entropy of each position, from logits with the classes along the last axis and the positions' classes as int64.

    Examples
    --------
    >>> z = tf.Variable([20.0, 0.0])
    >>> with tf.GradientTape() as tape:
    ...     loss = cross_entropy(z, tf.constant(0, tf.int64))
    >>> bool(abs(tape.gradient(loss, z)[0] / -tf.sigmoid(-20.0) - 1) < 1e-6)
    True
    """
    # The lowest number and not minus infinity, so that one class alone has no undefined derivative.
    gathered = tf.reduce_logsumexp(others(logits, classes, logits.dtype.min), -1)
    return tf.nn.softplus(gathered - picked(logits, classes))


def others(values: Any, classes: Any, instead: float) -> Any:
    """Values along the last axis, with another one at the position's own class."""
    own = classes[..., tf.newaxis] == tf.range(tf.shape(values, out_type=tf.int64)[-1])
    return tf.where(own, tf.constant(instead, values.dtype), values)


def picked(values: Any, classes: Any) -> Any:
    """The value of each position's class."""
    return tf.gather(values, classes, axis=-1, batch_dims=values.shape.rank - 1)
