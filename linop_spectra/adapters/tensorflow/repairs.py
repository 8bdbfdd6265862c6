"""Operations of TensorFlow whose second derivative is silently wrong, replaced while our graphs are traced.

``tf.nn.moments`` (2.21) computes the variance as the mean of ``(x - stop_gradient(mean))**2``. Its first derivative is right,
because the derivative in the mean is zero there; its second one lacks a term. Layer, group and batch normalisation are built on it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.ops import nn_impl


def _moments(
    x: Any, axes: Any, shift: Any = None, name: Any = None, keep_dims: Any = None, keepdims: Any = None
) -> tuple[Any, Any]:
    """Mean and variance along axes; half precision is summed in single precision, as in TensorFlow's own."""
    keep = bool(keepdims if keepdims is not None else keep_dims)
    x = tf.convert_to_tensor(x)
    wide = tf.cast(x, tf.float32) if x.dtype in (tf.float16, tf.bfloat16) else x
    mean = tf.reduce_mean(wide, axes, keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(wide, mean), axes, keepdims=keep)
    mean = mean if keep else tf.reduce_mean(wide, axes, keepdims=False)
    return tf.cast(mean, x.dtype), tf.cast(variance, x.dtype)


@contextlib.contextmanager
def right_moments() -> Iterator[None]:
    """A context in which means and variances have right second derivatives; graphs that are traced inside keep that.

    ``tf.nn.moments`` calls the function that is replaced here, so that its callers are reached under whatever name they hold it.
    """
    original = nn_impl.moments
    nn_impl.moments = _moments
    try:
        yield
    finally:
        nn_impl.moments = original
