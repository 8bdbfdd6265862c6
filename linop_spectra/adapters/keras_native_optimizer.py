"""Optimisers of Keras, on any backend, as methods of this library."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from ..backends import Array, backend_of
from ..curvature import Objective
from ..curvature.subspace import SubspaceObjective
from ..evolution.edge import Method
from ..optim.evaluation import Start
from ..optim.native import STARTED, NativeOptimizer
from ..optim.stability import StableProposal
from .common import listed
from .keras_layers import KerasLayers

_PREFIX = "keras/"


class NativeKerasOptimizer(NativeOptimizer):
    """See `linop_spectra.optim.as_optimizer`.

    Parameters
    ----------
    native : keras.optimizers.Optimizer
        The optimiser.
    evaluate : bool
        Whether the loss after each step is evaluated.
    """

    def __init__(self, native: Any, *, evaluate: bool = True) -> None:
        if not isinstance(native, keras.optimizers.Optimizer):
            raise TypeError(
                f"The optimiser is a {type(native).__module__}.{type(native).__name__}, but must be an optimiser of Keras 3."
            )
        if isinstance(native, keras.optimizers.LossScaleOptimizer):
            native = native.inner_optimizer  # an objective's gradients are not scaled
        super().__init__(native, evaluate=evaluate)
        self._known: tuple[Any, _Shadow | None] = (None, None)

    def _native_step(self, start: Start) -> StableProposal:
        objective = start.objective
        with objective.functions.session():
            shadow = self._shadow(start)
            rate = shadow.prepare(self.native, objective, start.theta)
            shadow.apply(objective, start.gradient)
            step = shadow.flat(objective) - start.theta
            proposal = StableProposal(step, shadow.packed(), learning_rate=rate, stability=_stability(shadow.optimizer))
            if proposal.stability is not None and proposal.stability[0] == "adam":
                proposal.preconditioner = functools.partial(shadow.adam_preconditioner, objective)
        return proposal

    def _shadow(self, start: Start) -> _Shadow:
        """Copies whose state is that of the step's start."""
        key: Any = (start.objective.functions, start.objective.num_parameters)
        started = start.state.get(STARTED, False)
        if self._known[1] is None or self._known[0] != key or not started:
            self._known = key, _Shadow(start.objective, self.native)
        shadow = self._known[1]
        assert shadow is not None
        if started:
            shadow.restore(start.state)
        return shadow

    def __getstate__(self) -> dict[str, Any]:
        """Without the copies, which are made again."""
        return vars(self) | {"_known": (None, None)}


class _Shadow:
    """An optimiser like the native one, with its state, of copies of the variables.

    Parameters
    ----------
    objective : Objective
        Names the variables and their values.
    native : keras.optimizers.Optimizer
        The optimiser.

    Raises
    ------
    ValueError
        When it was built for other variables.
    """

    def __init__(self, objective: Objective, native: Any) -> None:
        layers = None if isinstance(objective, SubspaceObjective) else _layers_of(objective.functions)
        originals: dict[str, Any] = {} if layers is None else dict(layers.trainable)
        values = _host_values(objective, objective.parameters())
        order = _built_order(native, originals, values) if native.built else list(values)
        self.names, self._all = tuple(values), {}
        for name in order:
            original = originals.get(name)
            value = values[name] if name in values else _numpy(original)
            self._all[name] = _variable(name if original is None else original.path, value)
            self._all[name].constraint = getattr(original, "constraint", None)
        self.optimizer = _like(native)
        _exclude_from_decay(native, originals, self.optimizer, self._all)
        self.optimizer.build(list(self._all.values()))
        if native.built:
            for own, given in zip(self.optimizer.variables, native.variables, strict=True):
                own.assign(_numpy(given))
        self._entries = self._named_state()

    def _named_state(self) -> dict[str, Any]:
        """Variables of the optimiser by what they are and, for those of a parameter, its number; but for the learning rate."""
        prefixes = {f"{variable.path.replace('/', '_')}_": number for number, variable in enumerate(self._all.values())}
        found: dict[str, Any] = {}
        for variable in self.optimizer.variables:
            if variable is self.optimizer._learning_rate:
                continue
            prefix = max((prefix for prefix in prefixes if variable.name.startswith(prefix)), key=len, default="")
            name = f"{variable.name.removeprefix(prefix)}/{prefixes[prefix]}" if prefix else variable.name
            found[_PREFIX + (name if _PREFIX + name not in found else f"{name}/{len(found)}")] = variable
        return found

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state that `packed` gave."""
        for name, variable in self._entries.items():
            if name not in state or tuple(np.shape(state[name])) != tuple(variable.shape):
                raise ValueError(
                    f"The state has no entry {name!r} of shape {tuple(variable.shape)}, which the optimiser has; it belongs to another "
                    "optimiser, or to one with other settings. Make the optimiser with those."
                )
            value = state[name]
            variable.assign(value if isinstance(value, np.ndarray) else backend_of(value).to_numpy(value))

    def packed(self) -> dict[str, Any]:
        """The state by name."""
        return {name: _numpy(variable) for name, variable in self._entries.items()}

    def prepare(self, native: Any, objective: Objective, theta: Array) -> float:
        """Take over parameters and learning rate; the learning rate of the next step."""
        for name, value in _values(objective, theta).items():
            self._all[name].assign(value)
        if isinstance(native._learning_rate, keras.Variable):
            self.optimizer.learning_rate.assign(_numpy(native._learning_rate))
        return float(_numpy(self.optimizer.learning_rate))

    def apply(self, objective: Objective, gradient: Array) -> None:
        """One step."""
        gradients = _values(objective, gradient)
        unused = getattr(objective.functions, "_unused", ()) if keras.backend.backend() != "jax" else ()
        # Natively the gradient of what the loss does not depend on is None, and such variables do not even decay.
        used = [
            name
            for index, name in enumerate(self.names)
            if index not in unused or np.any(_numpy(gradients[name]))
        ]
        self.optimizer.apply([keras.ops.convert_to_tensor(gradients[name]) for name in used], [self._all[name] for name in used])

    def flat(self, objective: Objective) -> Array:
        """The copies as a vector."""
        return _flat(objective, {name: self._all[name] for name in self.names})

    def adam_preconditioner(self, objective: Objective) -> Array:
        """What Adam divides by."""
        optimizer = self.optimizer
        second = optimizer._velocity_hats if optimizer.amsgrad else optimizer._velocities
        count = float(_numpy(optimizer.iterations))
        correction = math.sqrt(-math.expm1(count * math.log(optimizer.beta_2))) if optimizer.beta_2 > 0 else 1.0
        by_name = dict(zip(self._all, second, strict=True))
        roots = {name: np.sqrt(np.float64(_numpy(by_name[name]))) for name in self.names}
        return _flat(objective, {name: (root + optimizer.epsilon) / correction for name, root in roots.items()})


def _stability(optimizer: Any) -> tuple[Method, float] | None:
    """Method and momentum; of subclasses, which may change anything, nothing is known."""
    kind = type(optimizer)
    # By name, because on torch the classes are others than those that were called.
    if not kind.__module__.startswith("keras.src.") or optimizer.gradient_accumulation_steps or optimizer.use_ema:
        return None
    if kind.__name__ == "SGD":
        if not optimizer.momentum:
            return "gd", 0.0
        if optimizer.momentum >= 1:
            return None
        return "nesterov" if optimizer.nesterov else "heavy_ball", float(optimizer.momentum)
    if kind.__name__ in ("Adam", "AdamW"):
        return "adam", float(optimizer.beta_1)
    return None


# -- copies ------------------------------------------------------------------------------------------------------------


def _like(native: Any) -> Any:
    """An optimiser with the same settings, not built."""
    rate = native._learning_rate
    settings = native.get_config()
    settings["learning_rate"] = float(_numpy(rate)) if isinstance(rate, keras.Variable) else rate
    if "loss_scale_factor" in settings:
        settings["loss_scale_factor"] = None  # an objective's gradients are not scaled
    try:
        return type(native).from_config(settings)
    except Exception as error:
        raise TypeError(
            f"The optimiser {type(native).__name__} cannot be made again from its get_config() ({type(error).__name__}: {error}), which "
            "has to hold all arguments of its constructor."
        ) from error


def _exclude_from_decay(native: Any, originals: Mapping[str, Any], optimizer: Any, variables: Mapping[str, Any]) -> None:
    """Exempt from weight decay what the native optimiser exempts."""
    keys = getattr(native, "_exclude_from_weight_decay", None)
    pattern = getattr(native, "_exclude_from_weight_decay_pattern", None)
    exempt = [variables[name] for name, v in originals.items() if keys and native._var_key(v) in keys and name in variables]
    if exempt or pattern is not None:
        optimizer.exclude_from_weight_decay(var_list=exempt, var_names=None if pattern is None else [pattern.pattern])


def _variable(path: str, value: np.ndarray) -> Any:
    """A variable of Keras with this path."""
    *scopes, name = path.split("/")
    with contextlib.ExitStack() as stack:
        for scope in scopes:
            stack.enter_context(keras.name_scope(scope))
        return keras.Variable(value, dtype=value.dtype.name, name=name)


def _built_order(native: Any, originals: Mapping[str, Any], values: Mapping[str, np.ndarray]) -> list[str]:
    """Names of the variables that an optimiser was built for, in its order."""
    own = list(native._trainable_variables)
    names = {id(variable): name for name, variable in originals.items()}
    order = [names.get(id(variable), "") for variable in own]
    if set(values) <= set(order) and "" not in order:
        return order
    if not any(order) and [tuple(variable.shape) for variable in own] == [value.shape for value in values.values()]:
        return list(values)
    raise ValueError(
        f"The optimiser {type(native).__name__} was built for other variables than the objective's {listed(list(values))}; pass a new one, "
        "as from type(optimizer).from_config(optimizer.get_config())."
    )


def _layers_of(functions: Any) -> KerasLayers | None:
    """The Keras model behind an objective; None where there is none."""
    found = getattr(getattr(functions, "program", None), "_layers", None)
    if hasattr(functions, "_module"):
        found = getattr(functions._module.model, "_held", [None])[0]
    elif hasattr(functions, "_model"):
        model = functions._model
        try:
            found = getattr(getattr(model.build(model.leaves, model.constants), "func", None), "_layers", None)
        except TypeError:
            found = None
    return found if isinstance(found, KerasLayers) else None


# -- vectors -----------------------------------------------------------------------------------------------------------


def _host_values(objective: Objective, vector: Array) -> dict[str, np.ndarray]:
    """A vector as named NumPy arrays, copied."""
    host = objective.functions.backend.to_numpy(vector)
    shapes = {name: tuple(value.shape) for name, value in objective.unflatten(vector).items()}
    return {name: np.array(host[place]).reshape(shapes[name]) for name, place in objective.blocks.items()}


def _values(objective: Objective, vector: Array) -> Mapping[str, Any]:
    """A vector as named arrays that Keras takes."""
    values = objective.unflatten(vector)
    return values if all(map(keras.ops.is_tensor, values.values())) else _host_values(objective, vector)


def _flat(objective: Objective, values: Mapping[str, Any]) -> Array:
    """Named arrays or variables as a vector."""
    own = objective.unflatten(objective.parameters())
    if all(map(keras.ops.is_tensor, own.values())):
        return objective.flatten({name: keras.ops.convert_to_tensor(value) for name, value in values.items()})
    return objective.flatten({name: _numpy(value) for name, value in values.items()})


def _numpy(value: Any) -> np.ndarray:
    """A variable or tensor as a NumPy array of its own."""
    return np.array(keras.ops.convert_to_numpy(value.value if isinstance(value, keras.Variable) else value))
