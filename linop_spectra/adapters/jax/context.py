"""Settings of JAX under which products of second derivatives are right."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax


def double_precision_enabled() -> bool:
    """Whether JAX computes in float64 where it is asked to."""
    return bool(jax.config.jax_enable_x64)


def double_precision(wanted: bool) -> contextlib.AbstractContextManager[Any]:
    """Switch float64 on inside the context, for this thread only; nothing happens where it is not wanted."""
    if not wanted or double_precision_enabled():
        return contextlib.nullcontext()
    return jax.enable_x64(True)


@contextlib.contextmanager
def curvature_mode(wants_double: bool) -> Iterator[None]:
    """Everything that products need, restored on the way out.

    Reduced precision of matrix products, which accelerators take by default, would drown small eigenvalues.
    """
    with double_precision(wants_double), jax.default_matmul_precision("highest"):
        yield
