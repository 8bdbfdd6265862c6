"""TensorFlow: derivatives of Keras models on its backend and of ``tf.Module`` objects."""

from .objective import tensorflow_objective

__all__ = ["tensorflow_objective"]
