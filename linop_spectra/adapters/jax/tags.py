"""Arrays inside of a traced function that bear a tag, and the function with something added to one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

_LAYER = Primitive("outputs_of_a_layer")
# What calls a function of its own with its arguments, one to one, and nothing more.
_CALLS = ("jit", "pjit", "closed_call", "core_call", "core_closed_call", "checkpoint", "remat", "remat2")


def _batched(arguments: Sequence[Any], axes: Sequence[Any]) -> tuple[Any, int]:
    # Examples come first, wherever the mapped function has them.
    return _LAYER.bind(jnp.moveaxis(arguments[0], axes[0], 0)), 0


_LAYER.def_impl(lambda x: x)
_LAYER.def_abstract_eval(lambda x: x)
mlir.register_lowering(_LAYER, lambda context, x: [x])
batching.primitive_batchers[_LAYER] = _batched
ad.primitive_jvps[_LAYER] = lambda primals, tangents: (_LAYER.bind(*primals), *tangents)


def tagged(x: jax.Array) -> jax.Array:
    """The array itself, to be found again in a traced function."""
    return _LAYER.bind(x)


def _name_of(equation: Any) -> str | None:
    """The name that `jax.ad_checkpoint.checkpoint_name` gave to an equation's result."""
    return equation.params.get("name") if equation.primitive.name == "name" else None


def _inside(equation: Any) -> Iterator[Any]:
    """Functions that an equation holds."""
    for parameter in equation.params.values():
        for one in parameter if isinstance(parameter, tuple | list) else (parameter,):
            inner = getattr(one, "jaxpr", one)
            if hasattr(inner, "eqns"):
                yield inner


def names(jaxpr: Any) -> list[str]:
    """Names of the arrays that were given one, each once."""
    found: dict[str, None] = {}
    for equation in jaxpr.eqns:
        name = _name_of(equation)
        if name is not None:
            found[name] = None
        for inner in _inside(equation):
            found.update(dict.fromkeys(names(inner)))
    return list(found)


def places(jaxpr: Any, name: str) -> list[tuple[Any, bool]]:
    """Type of each array with the tag, by `tagged` or under that name, and whether it can be changed there.

    It cannot inside of loops and branches, which run several times or not at all, and of functions with a derivative of their own.
    """
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive is _LAYER or _name_of(equation) == name:
            found.append((equation.outvars[0].aval, True))
        open_to_change = equation.primitive.name in _CALLS
        for inner in _inside(equation):
            found += [(aval, inner_open and open_to_change) for aval, inner_open in places(inner, name)]
    return found


def with_addition(function: Callable[..., Any], name: str, delta: Any, *arguments: Any) -> Any:
    """``function(*arguments)`` where `delta` is added to the array with the tag."""
    closed, result = jax.make_jaxpr(function, return_shape=True)(*arguments)
    outputs = _run(closed.jaxpr, closed.consts, jax.tree_util.tree_leaves(arguments), name, delta)
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(result), outputs)


def _run(jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Any], name: str, delta: Any) -> list[Any]:
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments], strict=True))

    def read(variable: Any) -> Any:
        return variable.val if hasattr(variable, "val") else values[variable]

    for equation in jaxpr.eqns:
        inputs = [read(variable) for variable in equation.invars]
        if equation.primitive is _LAYER or _name_of(equation) == name:
            outputs = [inputs[0] + delta.astype(inputs[0].dtype)]
        elif any(places(inner, name) for inner in _inside(equation)):
            inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
            outputs = _run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), inputs, name, delta)
        else:
            found = equation.primitive.get_bind_params(equation.params)
            functions, parameters = found if isinstance(found, tuple) else ((), found)
            with equation.ctx.manager:
                result = equation.primitive.bind(*functions, *inputs, **parameters)
            outputs = result if equation.primitive.multiple_results else [result]
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(variable) for variable in jaxpr.outvars]
