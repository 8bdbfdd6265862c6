"""Modes of a model: what is random or depends on the batch must be said, never guessed."""

from __future__ import annotations

from typing import Any

import torch

# Numbers on a module that switch on a functional dropout inside it.
_RATES = ("dropout", "dropout_p", "attention_dropout", "attn_dropout", "drop_prob", "drop_rate")
_SPECTRAL_NORM = torch.nn.utils.parametrizations._SpectralNorm
_NORMS = torch.nn.modules.batchnorm._NormBase
_BATCH_NORM = torch.nn.modules.batchnorm._BatchNorm


def refuse_stochastic(model: Any) -> None:
    """Raise when a layer draws random numbers.

    Raises
    ------
    ValueError
        When dropout or the like is active.
    """
    for name, module in model.named_modules():
        if module.training and isinstance(module, _SPECTRAL_NORM):
            raise ValueError(
                f"The module {name!r} (spectral normalisation) is in training mode, where each forward pass moves an estimate that "
                "gradients take for constant, so that they are no derivatives of the loss; call model.eval()."
            )
        if module.training and _is_stochastic(module):
            raise ValueError(
                f"The module {name or 'model'!r} ({type(module).__name__}) is in training mode and stochastic (dropout or "
                "alike), so that the loss is no fixed function of the parameters; call model.eval(), or set its probability to zero."
            )


def _is_stochastic(module: Any) -> bool:
    name = type(module).__name__.lower()
    if isinstance(module, torch.nn.RReLU):
        return bool(module.lower < module.upper)
    if isinstance(module, torch.nn.RNNBase):
        return module.dropout > 0 and module.num_layers > 1
    if "dropout" in name or "droppath" in name or "stochasticdepth" in name:
        return any(_positive(getattr(module, rate, None)) for rate in ("p", *_RATES))
    return any(_positive(getattr(module, rate, None)) for rate in _RATES)


def _positive(rate: Any) -> bool:
    return isinstance(rate, float | int) and not isinstance(rate, bool) and rate > 0


def check_batch_norm(model: Any, batch_norm: str | None) -> None:
    """Raise unless `batch_norm` says how batch normalisation works, or no layer leaves that open.

    Raises
    ------
    ValueError
        When a batch normalisation layer is in training mode and nothing was said.
    """
    if batch_norm not in (None, "eval", "train"):
        raise ValueError(f"The argument batch_norm is {batch_norm!r}, but must be 'eval', 'train' or None.")
    if batch_norm is None:
        for name, module in model.named_modules():
            if isinstance(module, _BATCH_NORM) and module.training:
                raise ValueError(
                    f"The module {name or 'model'!r} ({type(module).__name__}) is in training mode: its outputs depend on the "
                    "whole batch; call model.eval(), or pass batch_norm='eval' for running statistics or 'train' for those of each "
                    "batch."
                )


def set_batch_norm(model: Any, batch_norm: str | None) -> None:
    """Set the mode of batch normalisation on our own copy of a model; no mode writes to running statistics."""
    for module in model.modules():
        if isinstance(module, _BATCH_NORM) and batch_norm is not None:
            module.train(batch_norm == "train")
        if isinstance(module, _NORMS) and module.training and module.track_running_stats:
            # Without running statistics a layer takes those of the batch, as it does in training, and updates nothing.
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None


def uses_batch_statistics(model: Any) -> bool:
    """Whether an example's outputs depend on the other examples of its batch."""
    return any(isinstance(m, _BATCH_NORM) and (m.training or m.running_mean is None) for m in model.modules())


def has_recurrence(model: Any) -> bool:
    """Whether a recurrent layer occurs."""
    return any(isinstance(m, torch.nn.RNNBase) for m in model.modules())
