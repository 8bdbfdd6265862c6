"""Known failures of JAX and flax inside derivatives, said in sentences that tell the fix."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

# What the exception's type and text contain, in lower case, and what to say. The first match counts.
_EXPLANATIONS = (
    (
        ("reverse-mode differentiation does not work for lax.while_loop",),
        "The model runs a lax.while_loop (or a fori_loop whose bounds are not static), which has no reverse-mode derivative; use "
        "lax.scan, or a fori_loop with static bounds.",
    ),
    (
        ("callback", "jvp"),
        "The model calls back into Python, which JAX cannot differentiate; give that function a derivative by jax.custom_jvp, or "
        "write it in jax.numpy.",
    ),
    (
        ("custom_vjp", "forward-mode"),
        "The model contains a jax.custom_vjp function inside of a derivative that JAX has to differentiate again in forward mode; "
        "define it by jax.custom_jvp, which has derivatives of every kind.",
    ),
    (
        ("shardingtypeerror",),
        "Parameters or data are sharded over an explicit mesh, which products cannot contract; build the mesh with Auto axis types.",
    ),
    (
        ("invalidrngerror",),
        "The model draws random numbers (dropout or alike), so that the loss is no fixed function of the parameters; switch that off "
        "by its argument, as in params=variables with the function lambda variables, x: model.apply(variables, x, train=False).",
    ),
    (
        ("dropout requires a key",),
        "The model draws random numbers (dropout), so that the loss is no fixed function of the parameters; pass "
        "equinox.nn.inference_mode(model).",
    ),
    (
        ("unbound axis name",),
        "The model computes over the examples of a batch by an axis name, as batch normalisation in training mode does; pass "
        "equinox.Partial(equinox.nn.inference_mode(model), state=state), or a BatchLoss that maps the model with that axis_name.",
    ),
    (
        ("missing 1 required positional argument: 'state'",),
        "The model keeps a state beside its parameters; pass equinox.Partial(equinox.nn.inference_mode(model), state=state), or a "
        "BatchLoss that calls it.",
    ),
    (
        ("modifyscopevariableerror",),
        "The model updates its collections (batch statistics or alike) in its forward pass; pass batch_norm='eval' for running "
        "statistics or 'train' for those of each batch, or a function that calls model.apply in the mode you want.",
    ),
    (
        ("tracerboolconversionerror",),
        "The model or the loss branches on the values of arrays, which JAX cannot compile; use jnp.where or lax.cond.",
    ),
    (
        ("tracerarrayconversionerror",),
        "The model or the loss turns JAX arrays into NumPy arrays, through which there is no derivative; use jax.numpy instead.",
    ),
    (
        ("concretizationtypeerror", "tracerintegerconversionerror", "nonconcretebooleanindexerror"),
        "The model or the loss needs the values of arrays in Python (float(x), int(x), an index by a mask), which JAX cannot compile; "
        "keep them arrays: a pair (sum, number_of_terms) may hold arrays of one number.",
    ),
)  # fmt: skip
_ALL = {("callback", "jvp"), ("custom_vjp", "forward-mode")}


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Raise known failures again as a RuntimeError with the reason and the fix in front."""
    try:
        yield
    except Exception as error:
        text = f"{type(error).__name__}: {error}".lower()
        for marks, sentence in _EXPLANATIONS:
            matches = all(mark in text for mark in marks) if marks in _ALL else any(mark in text for mark in marks)
            if matches and not isinstance(error, ExplainedError):
                raise ExplainedError(f"{sentence} (JAX said: {str(error).strip().splitlines()[0]})") from error
        raise


class ExplainedError(RuntimeError):
    """A failure of the framework with its reason and a fix."""
