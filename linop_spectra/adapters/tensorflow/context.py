"""Settings under which products are right, and known failures of TensorFlow in sentences that tell the fix."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf


@contextlib.contextmanager
def curvature_mode() -> Iterator[None]:
    """Full precision of matrix products on a GPU, restored on the way out.

    Raises
    ------
    RuntimeError
        When called while a graph is traced.
    """
    if not tf.executing_eagerly():
        raise RuntimeError("Curvature cannot be computed while a graph is traced; call it outside of tf.function.")
    reduced = tf.config.experimental.tensor_float_32_execution_enabled()
    if reduced:
        tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        with explained():
            yield
    finally:
        if reduced:
            tf.config.experimental.enable_tensor_float_32_execution(True)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Raise known failures again as a RuntimeError with the reason and the fix in front."""
    try:
        yield
    except (LookupError, NotImplementedError) as error:
        text = str(error)
        if "radient" in text and ("registry" in text or "not implemented" in text.lower() or "defined for op" in text):
            raise RuntimeError(
                "The model contains an operation whose gradient TensorFlow cannot differentiate again; replace it by one that has a "
                f"second derivative. (TensorFlow said: {text.strip().splitlines()[0]})"
            ) from error
        raise
    except tf.errors.OperatorNotAllowedInGraphError as error:
        raise RuntimeError(
            "The model decides by the value of a tensor in plain Python, which a graph cannot; decorate that function with tf.function, "
            f"or use tf.cond. (TensorFlow said: {str(error).strip().splitlines()[0]})"
        ) from error
