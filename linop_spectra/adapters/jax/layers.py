"""Layers of a model by name, and the model with the outputs of one of them tagged."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import tree_util

from .models import belongs_to, key_name
from .tags import tagged


def _tagged_output(layer: str, output: Any) -> Any:
    if not isinstance(output, jax.Array) or not jnp.issubdtype(output.dtype, jnp.floating):
        found = f"an array of {output.dtype}" if isinstance(output, jax.Array) else f"a {type(output).__name__}"
        raise TypeError(
            f"The layer {layer!r} gives {found} in a forward pass, but to differentiate in its outputs it must run once and give one array "
            "of real numbers; choose another one."
        )
    return tagged(output)


def with_tag(model: Any, layer: str, run: Callable[[Any], Any]) -> tuple[Any, list[str]]:
    """What `run` gives for the model with the outputs of a layer tagged, and the names of all layers that were found.

    The model is one that was built for this purpose; functions are searched for the flax linen modules that they call.
    """
    if belongs_to(model, "flax.nnx."):
        return _with_nnx_tag(model, layer, run)
    if belongs_to(model, "equinox."):
        return _with_equinox_tag(model, layer, run)
    with _intercepted_linen(layer) as seen:
        return run(model), list(seen)


def _with_nnx_tag(model: Any, layer: str, run: Callable[[Any], Any]) -> tuple[Any, list[str]]:
    from flax import nnx

    modules = {".".join(map(str, path)): module for path, module in nnx.iter_modules(model)}
    modules = {name: module for name, module in modules.items() if name and callable(module)}
    if layer in modules:
        module: Any = modules[layer]
        kind: Any = type(module)

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            return _tagged_output(layer, kind.__call__(self, *args, **kwargs))

        # Calls look at the class; only this copy of the module gets another one.
        object.__setattr__(module, "__class__", type(kind)(kind.__name__, (kind,), {"__call__": call}))
    return run(model), sorted(modules)


def _with_equinox_tag(model: Any, layer: str, run: Callable[[Any], Any]) -> tuple[Any, list[str]]:
    equinox: Any = sys.modules["equinox"]
    modules: dict[str, Any] = {}

    def visit(path: tuple[str, ...], parent: Any) -> None:
        below = tree_util.tree_flatten_with_path(parent, is_leaf=lambda x: x is not parent and isinstance(x, equinox.Module))[0]
        for keys, child in below:
            if isinstance(child, equinox.Module):
                own = (*path, *(key_name(key) for key in keys))
                modules[".".join(own)] = child
                visit(own, child)

    visit((), model)
    modules = {name: module for name, module in modules.items() if callable(module)}
    if layer in modules:
        target, tagging = modules[layer], _equinox_wrapper()
        model = tree_util.tree_map(lambda x: tagging(x, layer) if x is target else x, model, is_leaf=lambda x: x is target)
    return run(model), sorted(modules)


def _equinox_wrapper() -> Any:
    equinox: Any = sys.modules["equinox"]

    class Tagging(equinox.Module):
        inner: Any
        layer: str = equinox.field(static=True)

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return _tagged_output(self.layer, self.inner(*args, **kwargs))

        def __getattr__(self, name: str) -> Any:
            return getattr(object.__getattribute__(self, "inner"), name)

    return Tagging


@contextlib.contextmanager
def _intercepted_linen(layer: str) -> Iterator[dict[str, None]]:
    linen = sys.modules.get("flax.linen")
    seen: dict[str, None] = {}
    if linen is None:
        yield seen
        return

    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        output = call(*args, **kwargs)
        name = ".".join(context.module.path)
        if context.method_name != "__call__" or not name:
            return output
        seen[name] = None
        return _tagged_output(layer, output) if name == layer else output

    with linen.intercept_methods(intercept):
        yield seen
