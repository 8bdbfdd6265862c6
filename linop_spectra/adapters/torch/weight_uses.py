"""A forward pass in which every use of a weight is seen, for Kronecker factors.

A function mode follows the parameters through transposes, slices and conversions by the places of their numbers, recognises linear
layers, matrix products, convolutions, look-ups of rows and additions of a bias, and notes what else parameters go into. Gradients in the
results are those at the edges of the graph, so that later changes in place do not matter.
"""

from __future__ import annotations

import types as python_types
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ...backends import Array
from ...curvature.weight_uses import UseKind, WeightUse
from ..weight_layouts import Contraction, Names, added, bias_of, contraction, output_index, parse_einsum

if TYPE_CHECKING:
    from .functions import TorchFunctions, TorchPoint


class _Seen(NamedTuple):
    """What is kept of a use: how to arrange its inputs and its gradients."""

    x: Tensor | None
    edge: Any
    shape: tuple[int, ...]
    leading: tuple[int, ...]
    x_axes: tuple[int, ...]
    y_axes: tuple[int, ...]
    patches: Callable[[Tensor], Tensor] | None
    dtype: torch.dtype


class TorchWeightUses:
    """The torch adapter's `linop_spectra.curvature.weight_uses.RecordedUses`.

    Parameters
    ----------
    functions : TorchFunctions
        Model and loss.
    point : TorchPoint
        Parameters.
    batch : object
        A prepared batch.
    """

    def __init__(self, functions: TorchFunctions, point: TorchPoint, batch: Any) -> None:
        self._backend = functions.backend
        leaves = functions.leaves(point)
        with _Recorder(functions.names, functions.blocks, leaves) as recorder:
            self._outputs = functions.differentiable_outputs(leaves, point, batch)
        self.outputs = self._outputs.detach()
        found = [(use, seen) for use, seen in zip(recorder.uses, recorder.seen, strict=True) if use is not None]
        self.uses: tuple[WeightUse, ...] = tuple(use for use, _ in found)
        self._seen = [seen for _, seen in found]
        self.others: Mapping[str, str] = recorder.others

    def leading(self, number: int) -> tuple[int, ...]:
        """Axes of a use before the last one."""
        return self._seen[number].leading

    def inputs(self, number: int, start: int, stop: int) -> Array:
        """Inputs of a use, from `start` to `stop` of the first axis."""
        seen = self._seen[number]
        x = seen.x
        assert x is not None
        with torch.no_grad():
            if seen.patches is not None:
                return self._backend.asarray(seen.patches(x[start:stop]))
            x = x.permute(seen.x_axes) if x.ndim else x
            features = () if self.uses[number].kind == "embedding" else (-1,)
            return self._backend.asarray(x.reshape(*seen.leading, *features)[start:stop])

    def output_gradients(self, u: Tensor) -> list[Array]:
        """Gradients of ``<u, outputs>`` in what each use gives."""
        if not self._seen:
            return []
        edges = [seen.edge for seen in self._seen]
        found = torch.autograd.grad(self._outputs, edges, u, retain_graph=True, allow_unused=True)
        arranged = []
        for seen, g in zip(self._seen, found, strict=True):
            g = torch.zeros(seen.shape, dtype=seen.dtype, device=u.device) if g is None else g.detach()
            arranged.append(self._backend.asarray(g.permute(seen.y_axes).reshape(*seen.leading, -1)))
        return arranged


class _Recorder(TorchFunctionMode):
    """Looks at every call of torch while the context is open; changes nothing.

    Attributes
    ----------
    uses : list
        Uses with a place for each in `seen`; None for one that was no use of a single parameter.
    others : dict of str to str
        Parameters in other operations.
    """

    def __init__(self, names: Sequence[str], blocks: Mapping[str, slice], leaves: Sequence[Tensor]) -> None:
        super().__init__()
        self._names = Names(blocks)
        # Tensors are kept, so that no other one gets their identity.
        self._tracked: dict[int, tuple[Tensor, Tensor]] = {}
        self._results: dict[int, tuple[Tensor, int, Tensor]] = {}
        self._consumed: set[int] = set()
        self._joined: dict[int, tuple[int, WeightUse, np.ndarray, Tensor]] = {}
        for name, leaf in zip(names, leaves, strict=True):
            place = blocks[name]
            self._tracked[id(leaf)] = leaf, torch.arange(place.start, place.stop).view(leaf.shape)
        self.uses: list[WeightUse | None] = []
        self.seen: list[_Seen] = []
        self.others: dict[str, str] = {}

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """The function itself, and a note of what it did."""
        kwargs = kwargs or {}
        tensors = list(_tensors((args, kwargs)))
        parameters = [t for t in tensors if id(t) in self._tracked]
        if parameters:
            layout = _LAYOUTS.get(func)
            if layout is not None and args and args[0] is parameters[0] and len(parameters) == 1:
                return self._followed(layout, func, args, kwargs)
            known = _USES.get(func)
            if known is not None:
                if known is not _Recorder._addition:
                    for tensor in tensors:
                        self._read(tensor)
                result = func(*args, **kwargs)
                if isinstance(result, Tensor) and result.requires_grad and known(self, result, *args, **kwargs):
                    return result
                return self._noted(func, parameters, result)
            inner = _opened(func)
            if inner is not None:
                with self:
                    return inner(*args, **kwargs)
        result = func(*args, **kwargs)
        layout = _LAYOUTS.get(func)
        if layout is not None and args and id(args[0]) in self._results:
            self._passed_on(layout, func, args, kwargs, result)
        elif func is Tensor.__setitem__ or any(t.requires_grad for t in _tensors(result)):
            for tensor in tensors:
                self._read(tensor)
        return self._noted(func, parameters, result) if parameters else result

    def _follow(self, result: Tensor, found: Contraction) -> None:
        """Remember where outputs of the last use are, in case that a bias is added."""
        # One number for each output is enough: strides of zero stay zero.
        few = output_index(found, tuple(result.shape))
        constant = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in few.strides)
        index = torch.from_numpy(few[constant].copy()).expand(tuple(result.shape))
        self._results[id(result)] = result, len(self.uses) - 1, index

    def _passed_on(self, same: bool, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """What came out of a use, moved by a layout function, is still that if nothing else read it."""
        source = args[0]
        if result is source or not (isinstance(result, Tensor) and result.is_floating_point()):
            return
        fresh = id(source) not in self._consumed
        _, number, index = self._results[id(source)]
        self._read(source)
        if fresh and result.requires_grad and result.numel() == index.numel():
            self._results[id(result)] = result, number, index if same else func(index, *args[1:], **kwargs)

    def _read(self, tensor: Tensor) -> None:
        """Something reads a tensor: if it came out of a use, a sum with a bias is no longer all that becomes of it."""
        if id(tensor) in self._results:
            self._consumed.add(id(tensor))
            joined = self._joined.pop(id(tensor), None)
            if joined is not None:
                number, alone, bias, result = joined
                self.uses[number] = alone
                self._bias_alone(bias, result)

    def _noted(self, func: Any, parameters: list[Tensor], result: Any) -> Any:
        if any(t.requires_grad for t in _tensors(result)):
            name = f"torch's {getattr(func, '__name__', type(func).__name__)}"
            for parameter in parameters:
                for own in self._names.of(self._tracked[id(parameter)][1].numpy()):
                    self.others.setdefault(own, name)
        return result

    def _followed(self, same: bool, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        index = self._tracked[id(args[0])][1]
        moved = index if same else func(index, *args[1:], **kwargs)
        results = result if isinstance(result, tuple | list) else (result,)
        moved = moved if isinstance(moved, tuple | list) else (moved,)
        for tensor, own in zip(results, moved, strict=True):
            if isinstance(tensor, Tensor) and tensor.requires_grad and tensor.is_floating_point():
                self._tracked[id(tensor)] = tensor, own.expand(tensor.shape) if same else own
        return result

    # -- what is recognised; each says whether it was --------------------------------------------------------------------

    def _index(self, tensor: Any) -> np.ndarray | None:
        found = self._tracked.get(id(tensor)) if isinstance(tensor, Tensor) else None
        return None if found is None else found[1].numpy()

    def _add(
        self, kind: UseKind, places: np.ndarray | None, bias: np.ndarray | None, result: Tensor, x: Tensor | None,
        leading: tuple[int, ...], x_axes: tuple[int, ...], y_axes: tuple[int, ...], patches: Any = None,
    ) -> bool:  # fmt: skip
        use = self._names.use(kind, places, bias)
        if use is None:
            return False
        if x is not None and len(leading) == 0:
            x, x_axes = x.unsqueeze(0), (0, *(axis + 1 for axis in x_axes))
        seen = _Seen(
            None if x is None else x.detach(), get_gradient_edge(result), tuple(result.shape), leading or (1,), x_axes, y_axes, patches,
            result.dtype,
        )  # fmt: skip
        self.uses.append(use)
        self.seen.append(seen)
        return True

    def _product(self, x: Any, x_labels: Any, w: Any, w_labels: Any, y_labels: Any, result: Tensor, bias: np.ndarray | None) -> bool:
        index = self._index(w)
        if index is None or self._index(x) is not None or not isinstance(x, Tensor):
            return False
        found = contraction(x_labels, w_labels, y_labels, index)
        if found is None:
            return False
        leading = tuple(x.shape[axis] for axis in found.x_axes[: found.leading])
        was_added = self._add("dense", found.places, bias, result, x, leading, found.x_axes, found.y_axes)
        if was_added and bias is None:
            self._follow(result, found)
        return was_added

    def _linear(self, result: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
        if self._index(weight) is None:
            return self._bias(result, bias, result.ndim - 1)
        axes = tuple(range(input.ndim - 1))
        return self._product(input, (*axes, "in"), weight, ("out", "in"), (*axes, "out"), result, self._index(bias))

    def _bias(self, result: Tensor, bias: Any, axis: int) -> bool:
        index = self._index(bias)
        if index is None:
            return False
        others = tuple(a for a in range(result.ndim) if a != axis)
        leading = tuple(result.shape[a] for a in others)
        return self._add("bias", None, index, result, None, leading, (), (*others, axis))

    def _addmm(self, result: Tensor, input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> bool:
        bias = self._index(input)
        if beta != 1 or alpha != 1 or (bias is not None and bias.ndim != 1):
            return False
        return self._product(mat1, ("n", "in"), mat2, ("in", "out"), ("n", "out"), result, bias)

    def _matmul(self, result: Tensor, left: Any, right: Any) -> bool:
        if not (isinstance(left, Tensor) and isinstance(right, Tensor)):
            return False
        if self._index(right) is not None:
            x, w = left, right
            axes = tuple(range(x.ndim - 1))
            w_labels: tuple[Any, ...] = ("in", "out") if w.ndim == 2 else ("in",)
            return w.ndim <= 2 and self._product(x, (*axes, "in"), w, w_labels, (*axes, *w_labels[1:]), result, None)
        w, x = left, right
        if w.ndim > 2:
            return False
        axes = tuple(range(x.ndim - 2)) if x.ndim > 1 else ()
        last: tuple[Any, ...] = ("m",) if x.ndim > 1 else ()
        w_labels = ("out", "in") if w.ndim == 2 else ("in",)
        return self._product(x, (*axes, "in", *last), w, w_labels, (*axes, *w_labels[:-1], *last), result, None)

    def _reversed(self, result: Tensor, right: Any, left: Any) -> bool:
        return self._matmul(result, left, right)

    def _einsum(self, result: Tensor, equation: Any, *operands: Any) -> bool:
        operands = tuple(operands[0]) if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
        parsed = parse_einsum(equation) if isinstance(equation, str) and len(operands) == 2 else None
        if parsed is None:
            return False
        left, right, out = parsed
        if self._index(operands[1]) is not None:
            return self._product(operands[0], left, operands[1], right, out, result, None)
        return self._product(operands[1], right, operands[0], left, out, result, None)

    def _embedding(self, result: Tensor, input: Tensor, weight: Tensor, *others: Any, **options: Any) -> bool:
        index = self._index(weight)
        if index is None or index.ndim != 2:
            return False
        axes = tuple(range(input.ndim))
        return self._add("embedding", index.T, None, result, input, tuple(input.shape), axes, (*axes, input.ndim))

    def _addition(self, result: Tensor, left: Any, right: Any, *, alpha: Any = 1, out: Any = None) -> bool:
        if alpha != 1 or (self._index(left) is not None) == (self._index(right) is not None):
            return False
        x, bias = (left, right) if self._index(right) is not None else (right, left)
        index = self._index(bias)
        assert index is not None
        earlier = self._results.get(id(x)) if isinstance(x, Tensor) else None
        if earlier is not None and id(x) not in self._consumed:
            _, number, outputs = earlier
            use = self.uses[number]
            places = bias_of(outputs.numpy(), index) if tuple(result.shape) == tuple(x.shape) else None
            if places is not None and use is not None:
                joined = self._names.use(use.kind, use.places, places)
                if joined is not None:
                    self.uses[number] = joined
                    self._consumed.add(id(x))
                    if result is not x:
                        self._joined[id(x)] = number, use, index, result
                    return True
        if isinstance(x, Tensor):
            self._read(x)
        return self._bias_alone(index, result)

    def _bias_alone(self, index: np.ndarray, result: Tensor) -> bool:
        parts = added(tuple(result.shape), index)
        if parts is None:
            return False
        places, y_axes, count = parts
        leading = tuple(result.shape[a] for a in y_axes[:count])
        return self._add("bias", None, places, result, None, leading, (), y_axes)

    def _convolution(
        self, result: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1,
    ) -> bool:  # fmt: skip
        index, spatial = self._index(weight), weight.ndim - 2
        batched = input.ndim == spatial + 2
        channels = 1 if batched else 0
        if index is None:
            return self._bias(result, bias, channels)
        if groups != 1 or self._index(input) is not None:
            if bias is not None and self._index(bias) is not None:
                self._bias(result, bias, channels)
            self._noted(torch.conv2d, [weight], result)
            for name in self._names.of(index):
                self.others[name] = "a convolution with groups"
            return True
        geometry = tuple(_each(value, spatial) for value in (stride, dilation))
        pads = _padding(padding, tuple(weight.shape[2:]), geometry[1])
        others = tuple(a for a in range(result.ndim) if a != channels)
        leading = (result.shape[0] if batched else 1, int(np.prod([result.shape[a] for a in others[1 if batched else 0 :]])))

        def patches(x: Tensor) -> Tensor:
            return unfolded(x, tuple(weight.shape[2:]), geometry[0], pads, geometry[1])

        x = input if batched else input.unsqueeze(0)
        places = index.reshape(index.shape[0], -1)
        if not self._add("convolution", places, self._index(bias), result, x, leading, (), (*others, channels), patches):
            return False
        if bias is None:
            self._follow(result, Contraction(places, result.ndim - 1, (), (*others, channels)))
        return True


def unfolded(x: Tensor, size: Sequence[int], stride: Sequence[int], pads: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """Patches of a convolution, shape (num_examples, positions, channels times the window), for any number of axes.

    `pads` are as for ``torch.nn.functional.pad``.

    Examples
    --------
    >>> unfolded(torch.arange(4.0).view(1, 1, 4), (2,), (1,), (0, 0), (2,))
    tensor([[[0., 2.],
             [1., 3.]]])
    """
    x = functional.pad(x, list(pads))
    axes = len(size)
    for axis, (width, step, spread) in enumerate(zip(size, stride, dilation, strict=True)):
        x = x.unfold(axis + 2, (width - 1) * spread + 1, step)[..., ::spread]
    x = x.permute(0, *range(2, 2 + axes), 1, *range(2 + axes, 2 + 2 * axes))
    return x.reshape(x.shape[0], int(np.prod(x.shape[1 : 1 + axes])), -1)


def _each(value: Any, axes: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, tuple | list) else (value,)
    return tuple(int(v) for v in (values * axes if len(values) == 1 else values))


def _padding(padding: Any, size: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    """Padding of both ends of each axis, the last axis first."""
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, size, strict=True)]
        pairs = [(t // 2, t - t // 2) for t in totals]
    else:
        pairs = [(p, p) for p in _each(0 if padding == "valid" else padding, len(size))]
    return tuple(end for pair in reversed(pairs) for end in pair)


def _tensors(value: Any) -> Any:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)


def _opened(func: Any) -> Any:
    """A function of ``torch.nn.functional`` that calls others, as one that does not hand itself to function modes; None for others."""
    if not isinstance(func, python_types.FunctionType) or func.__module__ != "torch.nn.functional":
        return None
    asks = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    scope = {**func.__globals__, **dict.fromkeys(asks, _no)}
    made = python_types.FunctionType(func.__code__, scope, func.__name__, func.__defaults__, func.__closure__)
    made.__kwdefaults__ = func.__kwdefaults__
    return made


def _no(*_: Any) -> bool:
    return False


_USES: dict[Any, Callable[..., bool]] = {
    functional.linear: _Recorder._linear,
    torch.addmm: _Recorder._addmm,
    Tensor.addmm: _Recorder._addmm,
    torch.einsum: _Recorder._einsum,
    functional.embedding: _Recorder._embedding,
    torch.conv1d: _Recorder._convolution,
    torch.conv2d: _Recorder._convolution,
    torch.conv3d: _Recorder._convolution,
    Tensor.__rmatmul__: _Recorder._reversed,
    **dict.fromkeys((torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__), _Recorder._matmul),
    **dict.fromkeys((torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.add_, Tensor.__iadd__), _Recorder._addition),
}
# Whether the places stay as they are, or go through the same function.
_LAYOUTS: dict[Any, bool] = {
    **dict.fromkeys(
        (Tensor.to, Tensor.float, Tensor.double, Tensor.contiguous, Tensor.clone, torch.clone, Tensor.type_as, Tensor.requires_grad_),
        True,
    ),
    **dict.fromkeys(
        (
            Tensor.t, torch.t, Tensor.transpose, torch.transpose, Tensor.permute, torch.permute, Tensor.movedim, torch.movedim,
            Tensor.reshape, torch.reshape, Tensor.view, Tensor.flatten, torch.flatten, Tensor.unflatten, torch.unflatten,
            Tensor.unsqueeze, torch.unsqueeze, Tensor.squeeze, torch.squeeze, Tensor.__getitem__, Tensor.narrow, torch.narrow,
            Tensor.chunk, torch.chunk, Tensor.split, torch.split, Tensor.unbind, torch.unbind, Tensor.swapaxes, Tensor.select,
            Tensor.expand, Tensor.expand_as, Tensor.view_as, Tensor.T.__get__, Tensor.mT.__get__,
        ),
        False,
    ),
}  # fmt: skip
