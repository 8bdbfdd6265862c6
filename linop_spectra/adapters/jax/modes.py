"""Modes of flax nnx modules: what is random or depends on the batch must be said, never guessed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flax import nnx

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
    return own


def uses_batch_statistics(model: Any) -> bool:
    """Whether an example's outputs depend on the other examples of its batch."""
    return any(not module.use_running_average for _, module in _batch_norms(model))
