"""Transformations of optax as methods of this library."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import tree_util

from ...backends import Array, Backend
from ...curvature import Objective
from ...curvature.subspace import SubspaceObjective
from ...evolution.edge import Method
from ...optim.evaluation import Start
from ...optim.native import STARTED, NativeOptimizer
from ...optim.stability import StableProposal
from .functions import JaxFunctions
from .vectors import as_jax

_PREFIX = "optax/"
_UNTRACEABLE = (
    jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError, jax.errors.TracerIntegerConversionError,
)  # fmt: skip


class NativeOptaxOptimizer(NativeOptimizer):
    """See `linop_spectra.optim.as_optimizer`.

    Parameters
    ----------
    native : optax.GradientTransformation
        The transformation.
    evaluate : bool
        Whether the loss after each step is evaluated.
    """

    def __init__(self, native: Any, *, evaluate: bool = True) -> None:
        if not all(callable(getattr(native, name, None)) for name in ("init", "update")):
            raise TypeError(
                f"The optimiser is a {type(native).__module__}.{type(native).__name__}, but must be a transformation of optax, with init "
                "and update."
            )
        super().__init__(native, evaluate=evaluate)
        self._known: tuple[Any, _Form | None] = (None, None)
        self._compiled: Callable[..., Any] | None = None
        self._traceable = True

    @property
    def optimizer(self) -> str:
        """Name of the function that made the transformation's update."""
        return getattr(self.native.update, "__qualname__", type(self.native).__qualname__)

    def _native_step(self, start: Start) -> StableProposal:
        objective = start.objective
        functions: Any = objective.functions
        if not isinstance(functions, JaxFunctions):
            raise TypeError(
                "The optimiser is a transformation of optax, but the objective's model is none of JAX; use an optimiser of the model's "
                "framework, or a method of linop_spectra.optim."
            )
        with functions.session():
            form = self._form(objective)
            params, gradients = form.tree(start.theta), form.tree(start.gradient)
            state = form.unpacked(start.state) if start.state.get(STARTED) else self.native.init(params)
            extra = {"value": jnp.asarray(start.loss, objective.dtype), "grad": gradients}
            updates, after = self._updated(gradients, state, params, **(extra if _takes_more(self.native) else {}))
            step = form.flat(updates)
            proposal = StableProposal(step, form.packed(after))
            _say(proposal, start, form, after)
        return proposal

    def _form(self, objective: Objective) -> _Form:
        key: Any = (objective.functions, objective.num_parameters)
        if self._known[1] is None or self._known[0] != key:
            self._known = key, _Form(objective, self.native)
        return self._known[1]  # type: ignore[return-value]

    def _updated(self, *arguments: Any, **extra: Any) -> Any:
        """Updates and state, compiled where the transformation allows it."""
        try:
            if self._traceable:
                self._compiled = self._compiled or jax.jit(self.native.update)
                try:
                    return self._compiled(*arguments, **extra)
                except _UNTRACEABLE:
                    self._traceable = False
            return self.native.update(*arguments, **extra)
        except TypeError as error:
            if "value_fn" not in str(error):
                raise
            raise TypeError(
                "The transformation searches along a line and asks for the loss as a function (value_fn), but a step of this library has "
                "one gradient; use one without such a search (optax.lbfgs has linesearch=None)."
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        """Without what is compiled."""
        return vars(self) | {"_compiled": None, "_known": (None, None)}


def _takes_more(native: Any) -> bool:
    import optax

    return isinstance(native, optax.GradientTransformationExtraArgs)


class _Form:
    """Parameters and state of a transformation as trees on one side, flat vectors and named arrays on the other.

    The tree of the parameters is the user's, where the model is a function of one, so that masks of optax fit; leaves that are not trained
    are None. Other models have a dictionary of names.
    """

    def __init__(self, objective: Objective, native: Any) -> None:
        functions: Any = objective.functions
        inside = isinstance(objective, SubspaceObjective)
        # Not the objective itself, which would keep its batches alive.
        without_data: Any = {"data": None}
        self._vectors: Any = dataclasses.replace(objective, **without_data) if inside else functions
        self._backend, self._device = functions.backend, functions._layout.device
        self._names: Any = (None if inside else _named_tree(functions)) or {name: name for name in objective.blocks}
        leaves, self._structure = tree_util.tree_flatten_with_path(native.init(self.tree(objective.parameters())))
        self._entries: list[_Entry] = []
        taken: set[str] = set()
        for path, leaf in leaves:
            name = tree_util.keystr(path, simple=True, separator="/")
            name = name if name not in taken else tree_util.keystr(path)
            taken.add(name)
            self._entries.append(_Entry.of(_PREFIX + name, leaf))

    def tree(self, vector: Array) -> Any:
        """A vector as a tree like the parameters."""
        named = self._vectors.unflatten(vector)
        return tree_util.tree_map(lambda name: jnp.asarray(named[name]), self._names)

    def flat(self, tree: Any) -> Array:
        """A tree like the parameters as a vector.

        Raises
        ------
        ValueError
            When it has another structure.
        """
        named: dict[str, Any] = {}
        tree_util.tree_map(named.__setitem__, self._names, tree)
        return self._vectors.flatten(named)

    def packed(self, state: Any) -> dict[str, Any]:
        """A state as named arrays."""
        leaves, structure = tree_util.tree_flatten(state)
        if structure != self._structure:
            raise TypeError(
                f"The transformation's state has changed its structure from {self._structure} to {structure}, so that it cannot be saved "
                "and rejected; use another transformation."
            )
        return {entry.name: entry.packed(self._backend, leaf) for entry, leaf in zip(self._entries, leaves, strict=True)}

    def unpacked(self, state: Mapping[str, Any]) -> Any:
        """A state from named arrays."""
        missing = [entry.name for entry in self._entries if entry.name not in state]
        if missing:
            raise ValueError(
                f"The state has no entry {missing[0]!r}, which the transformation has; it belongs to another one. Use that."
            )
        return self._structure.unflatten([entry.unpacked(state[entry.name], self._device) for entry in self._entries])


@dataclasses.dataclass(frozen=True)
class _Entry:
    """One leaf of a transformation's state."""

    name: str
    dtype: Any
    key: Any
    """Implementation of random numbers that a key is of; None for what is no key."""

    @classmethod
    def of(cls, name: str, leaf: Any) -> _Entry:
        is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return cls(name, None if is_key else jnp.asarray(leaf).dtype, jax.random.key_impl(leaf) if is_key else None)

    def packed(self, backend: Backend, leaf: Any) -> Array:
        if self.key is not None:
            return np.array(jax.random.key_data(leaf))
        leaf = jnp.asarray(leaf)
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            # Types that NumPy does not have, such as bfloat16, are widened: no bit is lost.
            leaf = leaf if leaf.dtype in (jnp.float32, jnp.float64) else leaf.astype(jnp.float32)
            return backend.asarray(leaf) if leaf.ndim else np.array(leaf)
        return np.array(leaf)

    def unpacked(self, value: Any, device: Any) -> Any:
        on_backend = np.ndim(value) and np.dtype(str(value.dtype).removeprefix("torch.")).kind == "f"
        array = as_jax(value, device) if on_backend else jax.device_put(jnp.asarray(value), device)
        return jax.random.wrap_key_data(array, impl=self.key) if self.key is not None else array.astype(self.dtype)


def _named_tree(functions: Any) -> Any:
    """The user's tree of parameters with their names in the place of arrays; None where the model has no such tree."""
    model, names = functions._model, set(functions.names)
    try:
        bound = model.build(model.names, [None] * len(model.constants))
    except Exception:  # modules that are made of arrays cannot be made of names
        return None
    tree = bound.args[0] if isinstance(bound, functools.partial) and bound.args else getattr(bound, "variables", bound)
    tree = tree_util.tree_map(lambda leaf: leaf if isinstance(leaf, str) and leaf in names else None, tree)
    if isinstance(tree, Mapping) and "params" in tree and not tree_util.tree_leaves({k: v for k, v in tree.items() if k != "params"}):
        tree = tree["params"] if len(tree) > 1 or hasattr(bound, "variables") else tree
    return tree if sorted(tree_util.tree_leaves(tree)) == sorted(names) else None


# -- stability ---------------------------------------------------------------------------------------------------------


def _say(proposal: StableProposal, start: Start, form: _Form, state: Any) -> None:
    """Learning rate and stability, as far as injected hyperparameters and the state show them.

    A transformation may be chained with anything, so that a method is only believed to be what the step itself confirms.
    """
    injected = [part.hyperparams for part in _parts(state) if isinstance(getattr(part, "hyperparams", None), Mapping)]
    with_rate = [values for values in injected if "learning_rate" in values]
    if len(with_rate) != 1:
        return
    known = {name: float(value) for name, value in with_rate[0].items() if np.ndim(value) == 0}
    rate = proposal.learning_rate = known["learning_rate"]
    for method, momentum, direction, diagonal in _candidates(start, form, state, known):
        expected = -rate * direction
        if start.norm(proposal.step - expected) <= math.sqrt(np.finfo(start.objective.dtype).eps) * start.norm(expected):
            proposal.stability = method, momentum
            if diagonal is not None:
                proposal.preconditioner = functools.partial(_same, diagonal)
            return


def _same(value: Array) -> Array:
    return value


def _candidates(
    start: Start, form: _Form, state: Any, known: Mapping[str, float]
) -> Iterator[tuple[Method, float, Array, Array | None]]:
    """Methods that the transformation may be, with their momentum, the step over minus the learning rate, and the preconditioner."""
    decay = known.get("weight_decay", 0.0) * start.theta
    for part in _parts(state):
        if all(hasattr(part, name) for name in ("mu", "nu", "count")) and {"b1", "b2", "eps"} <= set(known):
            try:
                first, second = form.flat(part.mu), form.flat(getattr(part, "nu_max", part.nu))
            except (ValueError, TypeError, KeyError):  # of a part of the parameters
                continue
            count = float(part.count)
            second = second if hasattr(part, "nu_max") else second / -math.expm1(count * math.log(known["b2"]))
            diagonal = (second + known.get("eps_root", 0.0)) ** 0.5 + known["eps"]
            corrected = first / -math.expm1(count * math.log(known["b1"])) if known["b1"] else first
            yield "adam", known["b1"], corrected / diagonal + decay, diagonal
        momentum = known.get("momentum", known.get("decay", 0.0))
        if hasattr(part, "trace") and 0 < momentum < 1:
            try:
                trace = form.flat(part.trace)
            except (ValueError, TypeError, KeyError):
                continue
            yield "heavy_ball", momentum, trace, None
            yield "nesterov", momentum, start.gradient + momentum * trace, None
    yield "gd", 0.0, start.gradient, None


def _parts(state: Any) -> Iterator[Any]:
    """A state and everything in it."""
    yield state
    if isinstance(state, Mapping):
        state = tuple(state.values())
    if isinstance(state, tuple | list):
        for part in state:
            yield from _parts(part)
