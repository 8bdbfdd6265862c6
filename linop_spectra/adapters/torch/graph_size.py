"""Memory that graphs of automatic differentiation hold, read off the graphs themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor

from .errors import nodes

_saved: dict[type, list[str]] = {}
"""Names under which each kind of node shows what it saved."""


def graph_bytes(ends: Iterable[Tensor], others: Iterable[Tensor]) -> int:
    """Bytes of all arrays that the graphs behind some tensors hold, each once, with the tensors themselves.

    Parameters
    ----------
    ends : iterable of Tensor
        Results with a graph.
    others : iterable of Tensor
        Arrays that are held anyway and do not count.
    """
    held: dict[int, int] = {}
    seen: set[Any] = set()
    for end in ends:
        _count(end, held)
        for node in nodes(end.grad_fn, seen):
            for tensor in _saved_tensors(node):
                _count(tensor, held)
    for tensor in others:
        own: dict[int, int] = {}
        _count(tensor, own)
        for place in own:
            held.pop(place, None)
    return sum(held.values())


def _count(tensor: Tensor, held: dict[int, int]) -> None:
    try:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
    except (RuntimeError, NotImplementedError):  # sparse, or wrapped by a transform inside the model
        held[-id(tensor)] = tensor.numel() * tensor.element_size()


def _saved_tensors(node: Any) -> Iterator[Tensor]:
    kind = type(node)
    if kind not in _saved:
        names = [name for name in dir(kind) if name.startswith("_saved_")]
        _saved[kind] = ["saved_tensors"] if hasattr(kind, "saved_tensors") else names
    for name in _saved[kind]:
        try:
            value = getattr(node, name)
        except RuntimeError:  # freed already, or changed in place since
            continue
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, Tensor):
                yield item
