"""Modes of flax modules: what is random or depends on the batch must be said, never guessed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from flax import nnx

from .context import double_precision_enabled

_RATES = ("rate", "dropout_rate", "recurrent_dropout_rate")


def _modules(model: Any) -> Iterator[tuple[str, Any]]:
    for path, module in nnx.iter_modules(model):
        yield ".".join(map(str, path)) or "model", module


def refuse_stochastic(model: Any) -> None:
    """Raise when a layer draws random numbers.

    Raises
    ------
    ValueError
        When dropout is active.
    """
    for name, module in _modules(model):
        rates = [getattr(module, rate, None) for rate in _RATES]
        random = any(isinstance(rate, float | int) and not isinstance(rate, bool) and rate > 0 for rate in rates)
        # A layer whose mode is None waits to be told by its caller; flax itself says so where nobody does.
        if random and getattr(module, "deterministic", None) is False:
            raise ValueError(
                f"The module {name!r} ({type(module).__name__}) is in training mode and stochastic (dropout or alike), so that "
                "the loss is no fixed function of the parameters; call model.eval(), or set its probability to zero."
            )


def _batch_norms(model: Any) -> Iterator[tuple[str, Any]]:
    return ((name, module) for name, module in _modules(model) if isinstance(module, nnx.BatchNorm))


def with_batch_norm(model: Any, batch_norm: str | None) -> Any:
    """The model, or a copy of it whose batch normalisation works as `batch_norm` says.

    Raises
    ------
    ValueError
        When a batch normalisation layer is in training mode and nothing was said.
    """
    if batch_norm is None:
        for name, module in _batch_norms(model):
            if not module.use_running_average:
                raise ValueError(
                    f"The module {name!r} ({type(module).__name__}) is in training mode: its outputs depend on the whole batch; "
                    "call model.eval(), or pass batch_norm='eval' for running statistics or 'train' for those of each batch."
                )
        return model
    own = nnx.clone(model)
    for _, module in _batch_norms(own):
        module.use_running_average = batch_norm == "eval"
        if batch_norm == "train":
            _widen(module)
    return own


def _widen(module: Any) -> None:
    """Let running statistics, which flax keeps in single precision, take those of a batch in double precision."""
    wide = np.float64 if double_precision_enabled() else np.float32
    for statistic in (module.mean, module.var):
        value = statistic.get_value()
        statistic.set_value(value.astype(np.promote_types(value.dtype, wide)))


def uses_batch_statistics(model: Any) -> bool:
    """Whether an example's outputs depend on the other examples of its batch."""
    return any(not module.use_running_average for _, module in _batch_norms(model))


def running_statistics(model: Any) -> tuple[str, ...]:
    """Names of the running statistics that are in use."""
    return tuple(
        f"{name}.{own}" if name != "model" else own
        for name, module in _batch_norms(model) if module.use_running_average for own in ("mean", "var")
    )  # fmt: skip


def in_training(model: Any) -> None:
    """Change a module of our own: batch normalisation works as in training, and its running statistics become those of the batch."""
    for _, module in _batch_norms(model):
        if module.use_running_average:
            module.use_running_average, module.momentum = False, 0.0
            _widen(module)


def training_interceptor(seen: set[str]) -> Any:
    """Context in which batch normalisation of flax linen works as in training, and its running statistics become those of the batch.

    `seen` gets the paths of the layers that ran.
    """
    from flax import linen

    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if not isinstance(module, linen.BatchNorm) or context.method_name != "__call__":
            return call(*args, **kwargs)
        seen.add(".".join(("batch_stats", *module.path)))
        held = {"momentum": module.momentum, "use_running_average": module.use_running_average}
        try:
            for name, value in (("momentum", 0.0), ("use_running_average", None)):  # modules are frozen
                object.__setattr__(module, name, value)
            return call(args[0], **{**kwargs, "use_running_average": False})
        finally:
            for name, value in held.items():
                object.__setattr__(module, name, value)

    return linen.intercept_methods(intercept)
