"""Torch functions that are replaced inside a forward pass of our own copy of a model, because derivatives need them otherwise.

Embeddings. The row `padding_idx` is constant to reverse mode but not to forward mode (2.13), so that Jacobian products and their
transposes would belong to two different matrices; here it is constant to both, as it is in training. Gradients that are sparse
or divided by the frequency of a word, which have no second derivative or are no derivative of the loss, become ordinary ones.

Precision. Many language models round to single precision somewhere, whatever the type of their parameters: in normalisation,
in the softmax of attention, in rotary embeddings. In a model in double precision that would be noise far above its rounding,
and finite differences would drown in it; there all of them stay in double precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_NARROW = (torch.float32, torch.float16, torch.bfloat16)
_NARROWING = (Tensor.float, Tensor.half, Tensor.bfloat16)


class ForwardPass(TorchFunctionMode):
    """The replacements, while the context is open.

    Parameters
    ----------
    double : bool
        Whether conversions to narrower types give double precision.
    fixed : mapping of int to Tensor
        By the identity of an embedding's matrix, another one that the row `padding_idx` is taken from.
    """

    def __init__(self, *, double: bool, fixed: Mapping[int, Tensor]) -> None:
        super().__init__()
        self._double, self._fixed = double, fixed

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """The function, or what takes its place."""
        kwargs = kwargs or {}
        if func is functional.embedding:
            return self._embedding(*args, **kwargs)
        if self._double:
            if func in _NARROWING:
                return Tensor.double(*args, **kwargs)
            if func is not Tensor.view:  # which reads the same bits as another type
                args = tuple(_widened(value) for value in args)
                kwargs = {name: _widened(value) for name, value in kwargs.items()}
        return func(*args, **kwargs)

    def _embedding(
        self,
        input: Tensor,
        weight: Tensor,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Tensor:
        if max_norm is not None:
            raise ValueError(MAX_NORM.format("An embedding"))
        rows = functional.embedding(input, weight)
        if padding_idx is None:
            return rows
        padding = padding_idx % len(weight)
        fixed = self._fixed.get(id(weight), weight)[padding].detach().to(rows.dtype)
        return torch.where((input == padding).unsqueeze(-1), fixed, rows)


MAX_NORM = (
    "{} has max_norm, so that each forward pass rescales its parameters in place and the loss is no differentiable function of "
    "them; set max_norm=None after rescaling the rows once."
)


def _widened(value: Any) -> Any:
    return torch.float64 if any(value is narrow for narrow in _NARROW) else value


def needs_replacements(model: Any) -> bool:
    """Whether a layer occurs for which functions must be replaced, whatever the precision."""
    return any(
        isinstance(module, torch.nn.Embedding)
        and (module.padding_idx is not None or module.sparse or module.scale_grad_by_freq)
        for module in model.modules()
    )


def refuse_rescaling(model: Any) -> None:
    """Raise when an embedding rescales its own parameters.

    Raises
    ------
    ValueError
        When one has ``max_norm``.
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Embedding | torch.nn.EmbeddingBag) and module.max_norm is not None:
            raise ValueError(MAX_NORM.format(f"The module {name or 'model'!r} ({type(module).__name__})"))
