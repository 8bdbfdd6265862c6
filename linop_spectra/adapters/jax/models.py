"""Models of all kinds as functions of two lists of arrays: the parameters that count, and the constants."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import tree_util

from ..common import listed, matching_names
from .context import double_precision_enabled

# Collections of flax that no optimiser changes.
_COLLECTIONS = ("batch_stats", "cache", "constants", "intermediates", "losses", "stats", "state", "rng", "dropout")
_EVALUATION = {"train": False, "training": False, "is_training": False, "deterministic": True, "use_running_average": True}
_BATCH_STATISTICS = {"train": True, "training": True, "is_training": True, "use_running_average": False}


@dataclasses.dataclass(frozen=True)
class PureModel:
    """A model as a pure function.

    Attributes
    ----------
    names, constant_names : tuple of str
        Paths in the model's tree, joined by dots.
    leaves, constants : tuple of jax.Array
        Our own copies: parameters that count, and all other arrays.
    build : callable
        ``build(leaves, constants)``: the model with these arrays, as the user's loss meets it.
    call : callable
        ``call(model, inputs)``: its outputs.
    named : callable
        ``named(tree)``: the arrays of a tree like the one the user gave, by name; None for another kind of object.
    device : object
        Where all of it is.
    batch_statistics : bool
        Whether an example's outputs depend on the other examples of its batch.
    dtype : numpy.dtype or None
        The type of all floating parameters, where it is a single one.
    statistics : tuple of str or None
        Those of `constant_names` that are running statistics of batch normalisation in use; None where that is not known.
    collect : callable or None
        ``collect(model, run)``: runs the model by ``run(model)`` with batch normalisation in training; the `statistics` of the batch, and
        possibly others, by name.
    """

    names: tuple[str, ...]
    leaves: tuple[jax.Array, ...]
    constant_names: tuple[str, ...]
    constants: tuple[jax.Array, ...]
    build: Callable[[Any, Any], Any]
    call: Callable[[Any, Any], Any]
    named: Callable[[Any], dict[str, Any] | None]
    device: Any
    batch_statistics: bool
    dtype: np.dtype | None
    statistics: tuple[str, ...] | None = None
    collect: Callable[[Any, Callable[[Any], Any]], dict[str, Any]] | None = None

    def converted(self, dtype: np.dtype) -> PureModel:
        """A copy whose floating arrays have another type; to be called where JAX has that type."""

        def change(arrays: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            return tuple(x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x for x in arrays)

        return dataclasses.replace(
            self, leaves=change(self.leaves), constants=change(self.constants), dtype=None if self.dtype is None else dtype
        )


@dataclasses.dataclass(frozen=True)
class _Kind:
    """What is special about a kind of model: its tree, how the tree becomes callable, and which arrays are parameters."""

    tree: Any
    bind: Callable[[Any], Any]
    call: Callable[[Any, Any], Any]
    place: Callable[[tuple[str, ...]], tuple[str, bool]]
    as_tree: Callable[[Any], Any]
    batch_statistics: bool = False
    numbers_count: bool = True
    """Whether a Python number is a parameter."""
    statistics: tuple[str, ...] | None = None
    collect: Callable[[Any, Callable[[Any], Any]], dict[str, Any]] | None = None


def pure_model(model: Any, params: Any, patterns: str | list[str] | None, batch_norm: str | None, dtype: np.dtype | None) -> PureModel:
    """A user's model as a pure function.

    Raises
    ------
    TypeError, ValueError
        When it is no model, is in a mode that leaves something open, or cannot be differentiated.
    """
    kind = _kind_of(model, params, batch_norm)
    paths, treedef = tree_util.tree_flatten_with_path(kind.tree)
    candidates: dict[str, Any] = {}
    entries: list[tuple[str, Any, bool]] = []
    for path, value in paths:
        name, counts = kind.place(tuple(key_name(key) for key in path))
        is_parameter = counts and _is_floating(value) and (kind.numbers_count or not isinstance(value, float))
        _refuse_empty_shells(name, value)
        entries.append((name, value, is_parameter))
        if is_parameter:
            if name in candidates:
                raise ValueError(f"Two parameters have the same name {name!r}; rename one of them.")
            candidates[name] = value
    if not candidates:
        raise ValueError("The model has no parameter: none of its arrays holds floating numbers; pass params= with some.")
    wanted = set(matching_names(candidates, patterns))
    _check_parameters({name: candidates[name] for name in candidates if name in wanted}, dtype)
    device = _device_of([value for _, value, _ in entries])

    leaves, constants, others = [], [], {}
    for place, (name, value, is_parameter) in enumerate(entries):
        if is_parameter and name in wanted:
            leaves.append((place, name, _copied(value, dtype, device)))
        elif _is_array(value):
            constants.append((place, name, _copied(value, dtype if _is_floating(value) else None, device)))
        else:
            others[place] = value
    leaf_places, constant_places = [place for place, *_ in leaves], [place for place, *_ in constants]

    def build(values: Any, fixed: Any) -> Any:
        found = dict(others)
        found.update(zip(leaf_places, values, strict=True))
        found.update(zip(constant_places, fixed, strict=True))
        return kind.bind(treedef.unflatten([found[i] for i in range(len(entries))]))

    def named(tree: Any) -> dict[str, Any] | None:
        tree = kind.as_tree(tree)
        if tree is None:
            return None
        found = tree_util.tree_flatten_with_path(tree)[0]
        return {kind.place(tuple(key_name(key) for key in path))[0]: value for path, value in found}

    floats = {_dtype(value) for name, value in candidates.items()} if dtype is None else {dtype}
    return PureModel(
        names=tuple(name for _, name, _ in leaves),
        leaves=tuple(value for *_, value in leaves),
        constant_names=tuple(name for _, name, _ in constants),
        constants=tuple(value for *_, value in constants),
        build=build,
        call=kind.call,
        named=named,
        device=device,
        batch_statistics=kind.batch_statistics,
        dtype=floats.pop() if len(floats) == 1 else None,
        statistics=kind.statistics,
        collect=kind.collect,
    )


# -- kinds of models ---------------------------------------------------------------------------------------------------


def _kind_of(model: Any, params: Any, batch_norm: str | None) -> _Kind:
    if batch_norm not in (None, "eval", "train"):
        raise ValueError(f"The argument batch_norm is {batch_norm!r}, but must be 'eval', 'train' or None.")
    if belongs_to(model, "flax.nnx."):
        return _nnx_kind(model, params, batch_norm)
    owner = getattr(model, "__self__", None)
    if owner is not None and getattr(model, "__name__", "") == "apply" and belongs_to(owner, "flax.linen."):
        model = owner  # module.apply stands for the module
    if belongs_to(model, "flax.linen."):
        return _linen_kind(model, params, batch_norm)
    if batch_norm is not None:
        raise ValueError(
            f"The argument batch_norm is {batch_norm!r}, but a model of this kind ({type(model).__name__}) decides itself how batch "
            "normalisation works; leave it out, and pass a function in the mode you want."
        )
    if belongs_to(model, "equinox."):
        return _equinox_kind(model, params)
    return _function_kind(model, params)


def belongs_to(model: Any, package: str) -> bool:
    """Whether a model's class comes from a package, whose name ends in a dot."""
    return any(f"{base.__module__}.".startswith(package) for base in type(model).__mro__)


def _nnx_kind(model: Any, params: Any, batch_norm: str | None) -> _Kind:
    from flax import nnx

    from .modes import in_training, refuse_stochastic, running_statistics, uses_batch_statistics, with_batch_norm

    if params is not None:
        raise TypeError(
            f"The argument params is for models without parameters of their own; this one ({type(model).__name__}, a flax nnx "
            "module) carries them, so leave it out."
        )
    refuse_stochastic(model)
    model = with_batch_norm(model, batch_norm)
    divide: Any = nnx.split
    graph, parameters, rest = divide(model, nnx.Param, ...)

    def place(path: tuple[str, ...]) -> tuple[str, bool]:
        # The last key is the variable's own: its value.
        return ".".join(path[1:-1] if path[-1] == "value" else path[1:]), path[0] == "0"

    def as_tree(source: Any) -> Any:
        if isinstance(source, nnx.Module):
            _, own, others = divide(source, nnx.Param, ...)
            return own, others
        return (source, {}) if isinstance(source, nnx.State) else None

    def collect(bound: Any, run: Callable[[Any], Any]) -> dict[str, Any]:
        in_training(bound)
        run(bound)
        paths = tree_util.tree_flatten_with_path(as_tree(bound))[0]
        return {place(tuple(key_name(key) for key in path))[0]: value for path, value in paths}

    return _Kind(
        (parameters, rest), lambda tree: nnx.merge(graph, *tree), _call_module, place, as_tree, uses_batch_statistics(model),
        statistics=running_statistics(model), collect=collect,
    )  # fmt: skip


def _linen_kind(module: Any, params: Any, batch_norm: str | None) -> _Kind:
    if not isinstance(params, Mapping):
        raise TypeError(
            f"The model is a flax linen module ({type(module).__name__}), which carries no parameters; pass its variables, as in "
            "params=model.init(key, inputs)."
        )
    from .modes import training_interceptor

    variables = params if "params" in params else {"params": params}
    flags = _BATCH_STATISTICS if batch_norm == "train" else _EVALUATION
    known = inspect.signature(type(module).__call__).parameters if callable(module) else {}
    modes = {name: value for name, value in flags.items() if name in known}
    collections = [name for name in variables if name != "params"] if batch_norm == "train" else []

    def bind(tree: Any) -> Callable[..., Any]:
        def apply(*args: Any, **kwargs: Any) -> Any:
            kwargs = {**(modes if "method" not in kwargs else {}), **kwargs}
            if not collections:
                return module.apply(tree, *args, **kwargs)
            kwargs.setdefault("mutable", collections)
            return module.apply(tree, *args, **kwargs)[0]  # without the updated statistics

        apply.variables = tree  # type: ignore[attr-defined]
        return apply

    def place(path: tuple[str, ...]) -> tuple[str, bool]:
        counts = path[0] == "params"
        return ".".join(path[1:] if counts else path), counts

    def as_tree(source: Any) -> Any:
        if not isinstance(source, Mapping):
            return None
        return source if "params" in source else {"params": source}

    def collect(bound: Any, run: Callable[[Any], Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        seen: set[str] = set()

        def apply(*args: Any, **kwargs: Any) -> Any:
            kwargs = {**(modes if "method" not in kwargs else {}), **kwargs}
            with training_interceptor(seen):
                outputs, updated = module.apply(bound.variables, *args, mutable=["batch_stats"], **kwargs)
            paths = tree_util.tree_flatten_with_path({"batch_stats": updated["batch_stats"]})[0]
            found.update({".".join(key_name(key) for key in path): value for path, value in paths})
            return outputs

        run(apply)
        hidden = [name for name in names if name.rpartition(".")[0] not in seen]
        if hidden:
            raise TypeError(
                f"The argument batch_norm is 're-estimate', but the batch statistics {listed(hidden)} belong to no flax.linen.BatchNorm "
                "that ran, so that how training would change them is not known; keep them (batch_norm='keep')."
            )
        return found

    statistics = tree_util.tree_flatten_with_path({"batch_stats": variables.get("batch_stats", {})})[0]
    names = () if batch_norm == "train" else tuple(".".join(key_name(key) for key in path) for path, _ in statistics)
    return _Kind(variables, bind, _call_module, place, as_tree, batch_norm == "train", statistics=names, collect=collect)


def _equinox_kind(model: Any, params: Any) -> _Kind:
    if params is not None:
        raise TypeError(
            f"The argument params is for models without parameters of their own; this one ({type(model).__name__}, an equinox "
            "module) carries them, so leave it out."
        )

    State: Any = sys.modules["equinox"].nn.State

    # A model that was given its state, as by equinox.Partial(model, state=state), returns the new state too.
    paths = tree_util.tree_flatten_with_path(model, is_leaf=lambda x: isinstance(x, State))[0]
    states = [tuple(map(key_name, path)) for path, value in paths if isinstance(value, State)]

    def single(bound: Any, *inputs: Any) -> Any:
        outputs = bound(*inputs)
        return outputs[0] if isinstance(outputs, tuple) and len(outputs) == 2 and isinstance(outputs[1], State) else outputs

    def call(bound: Any, inputs: Any) -> Any:
        # Modules of equinox take a single example.
        each = jax.vmap(functools.partial(single, bound))
        return each(*inputs) if isinstance(inputs, tuple | list) else each(inputs)

    def place(path: tuple[str, ...]) -> tuple[str, bool]:
        return ".".join(path), not any(path[: len(state)] == state for state in states)

    def as_tree(source: Any) -> Any:
        return source if isinstance(source, type(model)) else None

    return _Kind(model, lambda tree: tree, call, place, as_tree, numbers_count=False)


def _function_kind(apply: Any, params: Any) -> _Kind:
    if not callable(apply):
        hint = "; pass its function apply" if callable(getattr(apply, "apply", None)) else ""
        raise TypeError(f"The argument model is a {type(apply).__name__}, but must be a function apply(params, inputs){hint}.")
    if params is None:
        raise TypeError("The argument params is missing: a function apply(params, inputs) needs its parameters, as any pytree of arrays.")
    collections = isinstance(params, Mapping) and "params" in params and set(params) - {"params"} <= set(_COLLECTIONS)

    def place(path: tuple[str, ...]) -> tuple[str, bool]:
        # The variables of a flax model: statistics are no parameters.
        return ".".join(path), not collections or path[0] == "params"

    return _Kind(params, lambda tree: functools.partial(apply, tree), lambda bound, inputs: bound(inputs), place, lambda source: source)


def _call_module(model: Any, inputs: Any) -> Any:
    """A module on a batch's inputs: an array, a tuple of arguments, or a mapping of named ones."""
    if isinstance(inputs, dict):
        return model(**inputs)
    if isinstance(inputs, tuple | list):
        return model(*inputs)
    return model(inputs)


# -- arrays in trees ---------------------------------------------------------------------------------------------------


def key_name(key: Any) -> str:
    """A step of a path in a tree as a part of a name."""
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _is_array(x: Any) -> bool:
    return isinstance(x, jax.Array | np.ndarray | np.generic) and getattr(x.dtype, "kind", "V") not in "OUSMm"


def _is_floating(x: Any) -> bool:
    if isinstance(x, float):
        return True
    return _is_array(x) and bool(jnp.issubdtype(x.dtype, jnp.inexact))


def _dtype(x: Any) -> np.dtype:
    if isinstance(x, float):
        return np.dtype(np.float64 if double_precision_enabled() else np.float32)
    return np.dtype(x.dtype)


def _refuse_empty_shells(name: str, value: Any) -> None:
    if isinstance(value, jax.ShapeDtypeStruct):
        raise ValueError(f"The parameter {name!r} is a shape without numbers (of jax.eval_shape); initialise or load the model first.")
    if isinstance(value, jax.core.Tracer):
        raise TypeError(f"The parameter {name!r} is being traced; make the objective outside of jax.jit, grad and vmap.")
    if isinstance(value, jax.Array) and value.is_deleted():
        raise ValueError(f"The array of {name!r} was deleted (donated to a compiled function); pass the new parameters.")


def _check_parameters(parameters: Mapping[str, Any], dtype: np.dtype | None) -> None:
    for name, value in parameters.items():
        if jnp.issubdtype(_dtype(value), jnp.complexfloating):
            raise TypeError(
                f"The parameter {name!r} has dtype {value.dtype}, but curvature needs real floating parameters; leave it out with "
                "parameters=."
            )
        if np.size(value) == 0:
            raise ValueError(f"The parameter {name!r} is empty (shape {np.shape(value)}); leave it out with parameters=.")
    wide = [name for name, value in parameters.items() if _dtype(value) == np.float64]
    if wide and dtype is None and not double_precision_enabled():
        raise ValueError(
            f"The parameters {listed(wide)} are float64, but jax_enable_x64 is off, so that JAX computes with them in float32; switch "
            "it on by jax.config.update('jax_enable_x64', True), or pass dtype='float64' or dtype='float32'."
        )


def _device_of(values: list[Any]) -> Any:
    devices = {device for value in values if isinstance(value, jax.Array) for device in value.devices()}
    if len(devices) > 1:
        raise ValueError(
            f"The parameters are on several devices ({', '.join(sorted(map(str, devices)))}); move them to one of them with "
            "jax.device_put."
        )
    return devices.pop() if devices else next(iter(jnp.zeros(()).devices()))


def _copied(value: Any, dtype: np.dtype | None, device: Any) -> jax.Array:
    """A copy of our own: compiled training steps may delete the user's arrays."""
    if isinstance(value, float):
        value = np.asarray(value, dtype=_dtype(value))
    return jax.device_put(jnp.array(value, dtype=dtype, copy=True), device)
