"""Normalisation inside models that differentiate themselves, in elementary operations.

The fused kernels of torch (2.13) take the saved mean and deviation for constants in their third derivative and in reverse mode over
forward mode, so that the curvature of a model whose outputs contain a derivative would be wrong without a word, and with forward mode its
gradient, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_GRADIENTS = (torch.autograd.grad, torch.autograd.backward, Tensor.backward)


class Watch(TorchFunctionMode):
    """Finds out whether a forward pass normalises and differentiates, and how it rounds; changes nothing.

    Attributes
    ----------
    rounding : float
        Of the narrowest real type among all results: automatic mixed precision inside a model shows nowhere else.
    """

    def __init__(self) -> None:
        super().__init__()
        self._normalises = self._differentiates = False
        self._outside = _transforms()
        self.rounding = 0.0

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """The function."""
        if func in _NORMS:
            self._normalises = True
            self._differentiates |= _transforms() != self._outside
        self._differentiates |= func in _GRADIENTS
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.is_floating_point():
            self.rounding = max(self.rounding, torch.finfo(result.dtype).eps)
        return result

    @property
    def found(self) -> bool:
        """Whether it does both."""
        return self._normalises and self._differentiates


class ElementaryNorms(TorchFunctionMode):
    """The replacements, while the context is open."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """The function, or what takes its place."""
        return _NORMS.get(func, func)(*args, **(kwargs or {}))


def mentions_mixed_precision(model: Any) -> bool:
    """Whether the code of some module switches automatic mixed precision on or off."""
    kinds = {type(module) for module in model.modules()}
    codes = (getattr(getattr(kind, "forward", None), "__code__", None) for kind in kinds)
    return any(code is not None and ("autocast" in code.co_names or "autocast" in code.co_name) for code in codes)


def _transforms() -> tuple[bool, int]:
    return torch._C._are_functorch_transforms_active(), forward_ad._current_level


def _normalised(x: Tensor, axes: tuple[int, ...], eps: float, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    y = centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt()
    if weight is not None:
        y = y * weight
    return y if bias is None else y + bias


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    return _normalised(input, tuple(range(-len(normalized_shape), 0)), eps, weight, bias)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    if not training or running_mean is not None:
        return functional.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    return _normalised(input, (0, *range(2, input.dim())), eps, *_on_channels(input, weight, bias))


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    if not use_input_stats or running_mean is not None:
        return functional.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
    return _normalised(input, tuple(range(2, input.dim())), eps, *_on_channels(input, weight, bias))


def _on_channels(x: Tensor, *arrays: Tensor | None) -> list[Tensor | None]:
    shape = (1, -1, *[1] * (x.dim() - 2))
    return [None if array is None else array.view(shape) for array in arrays]


_NORMS: dict[Any, Any] = {
    functional.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm,
    functional.batch_norm: _batch_norm,
    torch.batch_norm: _batch_norm,
    functional.instance_norm: _instance_norm,
    torch.instance_norm: _instance_norm,
}
