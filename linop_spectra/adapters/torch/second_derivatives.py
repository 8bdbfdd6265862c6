"""Closed-form second derivatives of layers, put into a forward pass whose gradient will be differentiated.

A function mode replaces calls of torch by the pairs of `layer_derivatives`, `linear_derivatives` and `norm_derivatives`: ReLU, GELU,
SiLU, softmax, linear layers, convolution, layer normalisation and batch normalisation by running statistics. Values of the gradient
that no product reads, those in parameters above all, are placeholders: a graph costs less than a gradient. Which calls it takes depends
on the form of the call and on sizes only; everything that is not exactly understood goes to torch unchanged, as it does under
transforms, other function modes, automatic mixed precision, compilation and tracing.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils._device import DeviceContext

from .layer_derivatives import Convolution, Geometry, Pointwise, Purpose, Relu, Softmax
from .linear_derivatives import Linear
from .norm_derivatives import EvaluatedBatchNorm, LayerNorm

SMALLEST = 16_384
"""Elements of a layer's largest array from where on passes over memory cost more than the calls that save them."""
SMALLEST_CONVOLUTION = 1
"""The same for the inputs of a convolution."""

_TYPES = (Tensor, torch.nn.Parameter)
_Replacement = tuple[str, Tensor] | None


class SecondDerivatives(TorchFunctionMode):
    """The replacements, while the context is open.

    Parameters
    ----------
    purpose : Purpose
        What the graph is for.
    """

    def __init__(self, purpose: Purpose) -> None:
        super().__init__()
        self.purpose = purpose
        self._names: dict[str, None] = {}

    @property
    def sentence(self) -> str:
        """What was replaced, as the end of a sentence."""
        names = sorted(self._names)
        if not names:
            return ""
        listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
        return f", with closed-form {'second ' if self.purpose.curved else ''}derivatives of {listed}"

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """The function, or what takes its place."""
        kwargs = kwargs or {}
        form = _FORMS.get(func)
        if form is not None and torch.is_grad_enabled() and all(kind in _TYPES for kind in types) and not _disturbed():
            try:
                form.signature.bind(None, *args, **kwargs)
            except TypeError:  # another form of the call
                return func(*args, **kwargs)
            found: _Replacement = form.replace(self.purpose, *args, **kwargs)
            if found is not None:
                self._names[found[0]] = None
                return found[1]
        return func(*args, **kwargs)


@contextlib.contextmanager
def second_derivatives(*, curved: bool, wanted: bool = True, scale: float = 1.0) -> Iterator[SecondDerivatives | None]:
    """The replacements in a forward pass, unless they are not wanted or a function mode of the user is active.

    Parameters
    ----------
    curved : bool
        Whether the gradient will be differentiated in the parameters; otherwise only in the gradient of the outputs.
    wanted : bool
        Whether to do anything.
    scale : float
        Sizes are judged as though arrays were so many times as large.

    Yields
    ------
    SecondDerivatives or None
        The mode, whose ``sentence`` says what it did.
    """
    # The mode of torch.set_default_device touches constructors only.
    if not wanted or any(not isinstance(mode, DeviceContext) for mode in _get_current_function_mode_stack()):
        yield None
        return
    purpose = Purpose(curved, scale)
    try:
        with SecondDerivatives(purpose) as mode:
            yield mode
    finally:
        purpose.is_open = False


def _disturbed() -> bool:
    """Whether something else changes what functions do."""
    return (
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch.is_autocast_enabled("cpu")
        or torch.is_autocast_enabled("cuda")
        or torch.compiler.is_compiling()
        or torch.jit.is_tracing()
    )


def _plain(x: Any, *others: Any) -> bool:
    """Whether all (or None) are ordinary arrays of one precision and place, of which one is differentiated in."""
    present = [x, *(other for other in others if other is not None)]
    return (
        all(type(t) in _TYPES and t.layout is torch.strided for t in present)
        and x.dtype in (torch.float32, torch.float64)
        and x.device.type in ("cpu", "cuda")
        and all(t.dtype == x.dtype and t.device == x.device for t in present)
        and any(t.requires_grad for t in present)
    )


def _large(purpose: Purpose, array: Tensor) -> bool:
    return array.numel() * purpose.scale >= max(1, SMALLEST)


# -- the calls: what they mean, or None where torch is to do it ------------------------------------------------------------------


def _relu(purpose: Purpose, input: Tensor, inplace: bool = False) -> _Replacement:
    if not (_plain(input) and _large(purpose, input)):
        return None
    if inplace and (input.is_leaf or input._is_view()):
        return None
    return "ReLU", Relu.apply(input, bool(inplace), purpose)


def _relu_in_place(purpose: Purpose, input: Tensor) -> _Replacement:
    return _relu(purpose, input, inplace=True)


def _gelu(purpose: Purpose, input: Tensor, *, approximate: str = "none") -> _Replacement:
    if approximate not in ("none", "tanh") or not (_plain(input) and _large(purpose, input)):
        return None
    return "GELU", Pointwise.apply(input, "gelu" if approximate == "none" else "gelu_tanh", purpose)


def _silu(purpose: Purpose, input: Tensor, inplace: bool = False) -> _Replacement:
    if inplace or not (_plain(input) and _large(purpose, input)):
        return None
    return "SiLU", Pointwise.apply(input, "silu", purpose)


def _softmax(purpose: Purpose, input: Tensor, dim: int | None = None, dtype: torch.dtype | None = None) -> _Replacement:
    if not (_plain(input) and _large(purpose, input) and type(dim) is int and -input.dim() <= dim < input.dim()):
        return None
    return ("softmax", Softmax.apply(input, dim, purpose)) if dtype in (None, input.dtype) else None


def _functional_softmax(
    purpose: Purpose, input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> _Replacement:
    return _softmax(purpose, input, dim, dtype)


def _linear(purpose: Purpose, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> _Replacement:
    if not (_plain(input, weight, bias) and input.dim() > 1 and weight.dim() == 2 and input.shape[-1] == weight.shape[1]):
        return None
    if input.numel() == 0 or weight.numel() == 0 or (bias is not None and bias.shape != weight.shape[:1]):
        return None
    if max(input.numel() * purpose.scale, weight.numel()) < SMALLEST:
        return None
    return "linear layers", Linear.apply(input, weight, bias, purpose)


def _layer_norm(
    purpose: Purpose,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> _Replacement:
    if not (_plain(input, weight, bias) and _large(purpose, input) and input.dim() > 1 and weight is not None):
        return None
    shape = input.shape[-1:]
    if tuple(normalized_shape) != shape or weight.shape != shape or (bias is not None and bias.shape != shape):
        return None
    return "layer normalisation", LayerNorm.apply(input, weight, bias, eps, purpose)[0]


def _batch_norm(
    purpose: Purpose,
    input: Tensor,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> _Replacement:
    given = (running_mean, running_var, weight, bias)
    if training or any(t is None for t in given) or not (_plain(input, *given) and _large(purpose, input) and input.dim() >= 2):
        return None
    if any(t.shape != input.shape[1:2] for t in given) or any(t.requires_grad for t in given[:2]):
        return None
    return "batch normalisation", EvaluatedBatchNorm.apply(input, weight, bias, running_mean, running_var, eps, purpose)[0]


def _convolution(
    purpose: Purpose, input: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, extra: Any, groups: int
) -> _Replacement:
    """Of any size, because torch's own derivative computes several convolutions that nobody needs; `extra` is the output padding."""
    axes = input.dim() - 2
    if not (_plain(input, weight, bias) and axes >= 1 and weight.dim() == axes + 2 and type(groups) is int and groups > 0):
        return None
    transposed = extra is not None
    inwards, outwards = weight.shape[0], weight.shape[1] * groups
    if not transposed:
        outwards, inwards = inwards, outwards
    if input.shape[1] != inwards or outwards % groups or inwards % groups or input.numel() == 0 or weight.numel() == 0:
        return None
    strides, dilations, extras = _each_axis(stride, axes), _each_axis(dilation, axes), _each_axis(extra or 0, axes)
    if strides is None or dilations is None or extras is None or (bias is not None and bias.shape != (outwards,)):
        return None
    paddings: tuple[int, ...] | None
    if padding == "valid":
        paddings = (0,) * axes
    elif padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilations, weight.shape[2:], strict=True)]
        # One more on one side is torch's own affair, as is the refusal of strides.
        paddings = tuple(t // 2 for t in totals) if strides == (1,) * axes and all(t % 2 == 0 for t in totals) else None
    else:
        paddings = _each_axis(padding, axes)
    if paddings is None or input.numel() * purpose.scale < SMALLEST_CONVOLUTION:
        return None
    return "convolution", Convolution.apply(
        input, weight, bias, Geometry(strides, paddings, dilations, transposed, extras, groups), purpose
    )


def _each_axis(value: Any, axes: int) -> tuple[int, ...] | None:
    values = tuple(value) if isinstance(value, tuple | list) else (value,)
    if not all(type(v) is int for v in values) or len(values) not in (1, axes):
        return None
    return values * axes if len(values) == 1 else values


def _convolution_of(axes: int) -> Callable[..., _Replacement]:
    def replace(
        purpose: Purpose,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> _Replacement:
        if input.dim() != axes + 2:
            return None
        return _convolution(purpose, input, weight, bias, stride, padding, dilation, None, groups)

    return replace


def _transposed_convolution_of(axes: int) -> Callable[..., _Replacement]:
    def replace(
        purpose: Purpose,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> _Replacement:
        if input.dim() != axes + 2:
            return None
        return _convolution(purpose, input, weight, bias, stride, padding, dilation, output_padding, groups)

    return replace


class _Form:
    """A way of calling a layer."""

    def __init__(self, replace: Callable[..., _Replacement]) -> None:
        self.replace, self.signature = replace, inspect.signature(replace)


_CALLS: list[tuple[Callable[..., _Replacement], tuple[Any, ...]]] = [
    (_relu, (torch.relu, Tensor.relu, functional.relu)),
    (_relu_in_place, (torch.relu_, Tensor.relu_)),
    (_gelu, (functional.gelu,)),
    (_silu, (functional.silu,)),
    (_softmax, (torch.softmax, Tensor.softmax)),
    (_functional_softmax, (functional.softmax,)),
    (_linear, (functional.linear,)),
    (_layer_norm, (functional.layer_norm, torch.layer_norm)),
    (_batch_norm, (functional.batch_norm,)),
    (_convolution_of(1), (torch.conv1d,)),
    (_convolution_of(2), (torch.conv2d,)),
    (_convolution_of(3), (torch.conv3d,)),
    (_transposed_convolution_of(1), (torch.conv_transpose1d,)),
    (_transposed_convolution_of(2), (torch.conv_transpose2d,)),
    (_transposed_convolution_of(3), (torch.conv_transpose3d,)),
]
_FORMS = {function: _Form(replace) for replace, functions in _CALLS for function in functions}
