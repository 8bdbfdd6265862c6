"""Layers whose second derivative in torch is silently wrong, replaced on our own copy of a model by ones that are right.

Weight normalisation (2.13, CPU): the fused kernel's backward pass takes the saved norm for a constant, so that Hessians through
it are wrong by some ten per cent and not even symmetric. The same formula in elementary operations is right.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.parametrizations import _WeightNorm


def _normalised(direction: Tensor, length: Tensor, dim: int) -> Tensor:
    return direction * (length / torch.norm_except_dim(direction, 2, dim))


class _ElementaryWeightNorm(_WeightNorm):
    """Weight normalisation as a parametrisation, in elementary operations."""

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        return _normalised(weight_v, weight_g, self.dim)


def repair(model: Any) -> None:
    """Replace such layers in place; only ever called on our own copy."""
    for module in model.modules():
        if type(module) is _WeightNorm:
            module.__class__ = _ElementaryWeightNorm
        hooks = module._forward_pre_hooks
        for key, hook in list(hooks.items()):
            if type(hook).__name__ == "WeightNorm" and type(hook).__module__ == "torch.nn.utils.weight_norm":
                hooks[key] = _ElementaryHook(hook.name, hook.dim)


class _ElementaryHook:
    """The older form of weight normalisation: computes the weight before each forward pass."""

    def __init__(self, name: str, dim: int) -> None:
        self.name, self.dim = name, dim

    def __call__(self, module: Any, inputs: Any) -> None:
        direction, length = getattr(module, f"{self.name}_v"), getattr(module, f"{self.name}_g")
        setattr(module, self.name, _normalised(direction, length, self.dim))
