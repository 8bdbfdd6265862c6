"""Known failures of torch inside second derivatives, said in sentences that tell the fix."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

# What the exception's text contains, in lower case, and what to say. The first match counts.
_EXPLANATIONS = (
    (
        ("checkpoint",),
        "The model uses activation checkpointing, which runs layers again outside of the substituted parameters; switch it off "
        "before making the objective (memory_budget already decides what is kept).",
    ),
    (
        ("support double backward",),
        "The model contains compiled code, which has no second derivative; pass the model before torch.compile.",
    ),
    (
        ("_scaled_dot_product", "flash_attn", "flex_attention"),
        "The model calls an attention kernel that has no second derivative; choose the plain one when it is built, for instance "
        "attn_implementation='eager'.",
    ),
    (
        ("_cudnn_rnn",),
        "A recurrent layer ran under cuDNN, which has no second derivative; use torch.nn's own recurrent layers, for which it is "
        "switched off here.",
    ),
    (
        ("derivative for", "not implemented"),
        "The model contains an operation whose gradient torch cannot differentiate again; replace it by one that has a second "
        "derivative.",
    ),
)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Raise known failures again as a RuntimeError with the reason and the fix in front."""
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        text = str(error).lower()
        for marks, sentence in _EXPLANATIONS:
            if any(mark in text for mark in marks) and not text.startswith("the model"):
                raise RuntimeError(f"{sentence} (torch said: {str(error).strip().splitlines()[0]})") from error
        raise


def refuse_once_differentiable(graph: Any) -> None:
    """Raise when a graph passes through a custom function that has a first derivative only.

    Torch itself does not notice when gradients are asked for by ``torch.autograd.grad(inputs=...)``: the products would be wrong
    without a word.

    Parameters
    ----------
    graph : torch.autograd node or None
        ``grad_fn`` of the outputs.

    Raises
    ------
    TypeError
        When there is such a function.
    """
    for node in nodes(graph):
        function: Any = getattr(type(node), "_forward_cls", None)
        backward = getattr(function, "backward", None)
        if backward is not None and getattr(backward, "__module__", "") != "torch.autograd.function":
            code = getattr(backward, "__code__", None)
            # The decorator leaves its own wrapper around the user's function.
            if hasattr(backward, "__wrapped__") and code is not None and code.co_filename.endswith("autograd/function.py"):
                raise TypeError(
                    f"The model calls the custom function {function.__name__}, whose backward is marked once_differentiable: it has no "
                    "second derivative. Write its backward with differentiable operations and take the mark off, or leave it out."
                )


def leaf_variables(graph: Any) -> list[Any]:
    """Tensors that require a gradient and that a graph, given by the ``grad_fn`` of its outputs, ends in."""
    found = (getattr(node, "variable", None) for node in nodes(graph))
    return [variable for variable in found if variable is not None]


def refuse_references(graph: Any, names: Mapping[int, str]) -> None:
    """Raise when a graph ends in parameters that a model reached by another way than its modules' attributes.

    Other values cannot be substituted for those, so that the loss would seem not to depend on them.

    Parameters
    ----------
    graph : torch.autograd node or None
        ``grad_fn`` of the outputs.
    names : mapping of int to str
        Names of such parameters by the identity of the tensor.

    Raises
    ------
    TypeError
        When there is one.
    """
    for variable in leaf_variables(graph):
        if id(variable) in names:
            raise TypeError(
                f"The model computes with its parameter {names[id(variable)]!r} through a reference that other values cannot be "
                "substituted for: a forward method replaced by a function that holds the module, or a parameter in a list or a closure. "
                "Let the model reach its parameters through attributes of its modules."
            )


def nodes(graph: Any, seen: set[Any] | None = None) -> Iterator[Any]:
    """Nodes of a graph, each once, but for those in `seen`, which grows."""
    seen, waiting = set() if seen is None else seen, [graph]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        waiting += [child for child, _ in node.next_functions]
