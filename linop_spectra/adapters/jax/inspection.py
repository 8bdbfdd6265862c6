"""What can be read off a traced function: which inputs matter, which of them a gradient reaches, where outputs come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_PASSING = ("convert_element_type", "reshape", "squeeze", "transpose", "copy", "optimization_barrier")


def _inner(equation: Any) -> Any | None:
    """The jaxpr that an equation calls with its own arguments, one to one; None for loops, branches and plain operations."""
    if equation.primitive.name in ("scan", "while", "cond"):
        return None
    found = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
    inner = getattr(found, "jaxpr", found)
    if inner is None or not hasattr(inner, "eqns"):
        return None
    fits = len(inner.invars) == len(equation.invars) and len(inner.outvars) == len(equation.outvars)
    return inner if fits else None


def _is_variable(x: Any) -> bool:
    return not hasattr(x, "val")


def reached(jaxpr: Any, sources: Sequence[bool]) -> list[bool]:
    """For each output, whether it depends on one of the inputs that are marked in `sources`.

    Loops and branches count as depending on all of their inputs, so that a False is certain.
    """
    marked = {v for v, source in zip(jaxpr.invars, sources, strict=True) if source}
    for equation in jaxpr.eqns:
        inputs = [_is_variable(v) and v in marked for v in equation.invars]
        if not any(inputs):
            continue
        inner = _inner(equation)
        outputs = [True] * len(equation.outvars) if inner is None else reached(inner, inputs)
        marked |= {v for v, output in zip(equation.outvars, outputs, strict=True) if output}
    return [_is_variable(v) and v in marked for v in jaxpr.outvars]


def needed(jaxpr: Any, targets: Sequence[bool]) -> list[bool]:
    """For each input, whether one of the outputs that are marked in `targets` depends on it; a False is certain."""
    wanted = {v for v, target in zip(jaxpr.outvars, targets, strict=True) if target and _is_variable(v)}
    for equation in reversed(jaxpr.eqns):
        outputs = [v in wanted for v in equation.outvars]
        if not any(outputs):
            continue
        inner = _inner(equation)
        inputs = [True] * len(equation.invars) if inner is None else needed(inner, outputs)
        wanted |= {v for v, flag in zip(equation.invars, inputs, strict=True) if flag and _is_variable(v)}
    return [v in wanted for v in jaxpr.invars]


def ends_in(jaxpr: Any, operation: str, output: int = 0) -> bool:
    """Whether an output is the result of `operation`, but for its shape and type."""
    v = jaxpr.outvars[output]
    while True:
        equation = next((e for e in reversed(jaxpr.eqns) if v in e.outvars), None) if _is_variable(v) else None
        if equation is None:
            return False
        if equation.primitive.name == operation:
            return True
        inner = _inner(equation)
        if inner is not None:
            return ends_in(inner, operation, equation.outvars.index(v))
        if equation.primitive.name not in _PASSING:
            return False
        v = equation.invars[0]


def bytes_out(jaxpr: Any) -> int:
    """Memory of the outputs."""
    made = {v for v in jaxpr.outvars if _is_variable(v)}
    return sum(int(v.aval.size) * int(v.aval.dtype.itemsize) for v in made)
