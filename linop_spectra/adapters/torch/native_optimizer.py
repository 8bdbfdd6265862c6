"""Optimisers of torch as methods of this library."""

from __future__ import annotations

import collections
import copy
import inspect
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...backends import Array, Backend
from ...curvature import Objective
from ...evolution.edge import Method
from ...optim.evaluation import Start
from ...optim.native import STARTED, NativeOptimizer
from ...optim.stability import StableProposal
from ..common import listed
from .adam import names_by_identity, second_moments
from .vectors import as_tensor

_GROUP = "group/"
_STILL = 1e20
"""Times the largest entry of a preconditioner: that of parameters which do not move."""
_Groups = list[tuple[dict[str, Any], list[str], list[Any]]]
"""Settings of each group, the names of those of its parameters that the objective has, and these parameters."""


class NativeTorchOptimizer(NativeOptimizer):
    """See `linop_spectra.optim.as_optimizer`.

    Parameters
    ----------
    native : torch.optim.Optimizer
        The optimiser.
    evaluate : bool
        Whether the loss after each step is evaluated.
    """

    def __init__(self, native: Any, *, evaluate: bool = True) -> None:
        if not isinstance(native, torch.optim.Optimizer):
            raise TypeError(f"The optimiser is a {type(native).__module__}.{type(native).__name__}, but must be a torch.optim.Optimizer.")
        if isinstance(native, torch.optim.SparseAdam):
            raise TypeError("SparseAdam takes sparse gradients only, but an objective's are dense; use torch.optim.Adam.")
        required = [
            parameter.name
            for parameter in list(inspect.signature(type(native).step).parameters.values())[1:]
            if parameter.default is parameter.empty and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
        if required:
            raise TypeError(
                f"{type(native).__name__}.step() asks for {required[0]}, by which it evaluates the loss as often as it likes, but a step "
                "of this library has one gradient; use an optimiser whose step() needs no arguments."
            )
        _refuse_ascent(native)
        super().__init__(native, evaluate=evaluate)

    @torch.inference_mode(False)
    def _native_step(self, start: Start) -> StableProposal:
        _refuse_ascent(self.native)
        objective = start.objective
        values, gradients = objective.unflatten(start.theta), objective.unflatten(start.gradient)
        if not all(isinstance(value, Tensor) for value in values.values()):
            raise TypeError(
                f"The optimiser {self.optimizer} is one of torch, but the objective's parameters are none of a torch model; use an "
                "optimiser of the model's framework, or a method of linop_spectra.optim."
            )
        groups = self._groups(objective, values)
        unused = {
            name
            for index, name in enumerate(values)
            if index in objective.functions._unused and not gradients[name].any()  # type: ignore[attr-defined]
        }
        for name, value in values.items():
            # Natively the gradient of what the loss does not depend on is None, and such parameters do not even decay.
            value.requires_grad_(True).grad = None if name in unused else gradients[name]
        shadow = self._shadow(groups, values, start.state)
        given = [dict(group) for group in shadow.param_groups]
        shadow.step()
        if getattr(self.native.step, "_wrapped_by_lr_sched", False):
            self.native._opt_called = True  # or a scheduler would warn that no step was taken before its own
        state = _packed(objective.functions.backend, groups, values, shadow.state)
        state |= _changed_settings(given, shadow.param_groups)
        step = objective.flatten({name: value.detach() for name, value in values.items()}) - start.theta
        still = unused | (set(values) - {name for _, names, _ in groups for name in names})
        rates = [float(settings["lr"]) for settings, names, _ in groups if names and "lr" in settings]
        rate = max(rates, default=float("nan"))
        proposal = StableProposal(step, state, learning_rate=rate, stability=_stability(type(self.native), groups))
        if proposal.stability is not None and rate > 0:
            adaptive = proposal.stability[0] == "adam"
            if adaptive or still or len(set(rates)) > 1:
                proposal.preconditioner = lambda: _preconditioner(objective, groups, shadow, adaptive, rate, still)
            proposal.decay = _decay(objective, groups)
        return proposal

    def _groups(self, objective: Objective, values: Mapping[str, Tensor]) -> _Groups:
        """Which parameters of the objective are in which group: by identity, else by name, else by order."""
        native: Any = self.native.param_groups
        module = objective.functions._module  # type: ignore[attr-defined]
        names = names_by_identity(native, ((name, reference()) for name, reference in module._originals.items()))
        if not set(names) & set(values) and all("param_names" in group for group in native):
            names = [name for group in native for name in group["param_names"]]
        if not set(names) & set(values):
            everything = [parameter for group in native for parameter in group["params"]]
            trained = [parameter for parameter in everything if parameter.requires_grad]
            if [tuple(parameter.shape) for parameter in trained] != [tuple(value.shape) for value in values.values()]:
                raise ValueError(
                    f"The optimiser {self.optimizer} holds none of the parameters of the objective's model, and its own are not as many of "
                    f"the same shapes in the same order; make it from model.parameters(), with {listed(list(values))}."
                )
            by_order = dict(zip(map(id, trained), values, strict=True))
            names = [by_order.get(id(parameter), "") for parameter in everything]
        remaining = iter(names)
        found: _Groups = []
        for group in native:
            own = [(name, parameter) for parameter, name in zip(group["params"], remaining, strict=False) if name in values]
            settings = {key: value for key, value in group.items() if key not in ("params", "param_names")}
            found.append((settings, [name for name, _ in own], [parameter for _, parameter in own]))
        return found

    def _shadow(self, groups: _Groups, values: Mapping[str, Tensor], state: Mapping[str, Any]) -> Any:
        """An optimiser like the native one, of the values in the place of the parameters."""
        native: Any = self.native
        made = []
        for position, (settings, names, _) in enumerate(groups):
            own = {key: value.clone() if isinstance(value, Tensor) else copy.copy(value) for key, value in settings.items()}
            start = f"{_GROUP}{position}/"
            own |= {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}
            if "differentiable" in own:
                own["differentiable"] = False
            made.append({"params": [values[name] for name in names], **own})
        # Not by its constructor, whose arguments may be any.
        shadow = object.__new__(type(native))
        defaults = {**native.defaults, "differentiable": False}
        shadow.__setstate__({"defaults": defaults, "state": collections.defaultdict(dict), "param_groups": made})
        for name, value in vars(native).items():
            if name not in vars(shadow) and name not in ("step", "_opt_called"):
                vars(shadow)[name] = copy.copy(value)
        packed: dict[str, dict[str, Any]] = collections.defaultdict(dict)
        for entry, value in state.items():
            key, _, name = entry.partition("/")
            packed[name][key] = value
        for settings, names, parameters in groups:
            on_device = bool(settings.get("capturable") or settings.get("fused"))
            for name, parameter in zip(names, parameters, strict=True):
                held = packed.get(name, {}) if state.get(STARTED) else native.state.get(parameter, {})
                for key, value in held.items():
                    shadow.state[values[name]][key] = _unpacked(value, values[name], parameter, key == "step" and not on_device)
        return shadow


def _refuse_ascent(native: Any) -> None:
    if any(group.get("maximize") for group in native.param_groups):
        raise ValueError(
            f"The optimiser {type(native).__name__} has maximize=True, and its steps would climb the loss; make it with maximize=False."
        )


# -- state -------------------------------------------------------------------------------------------------------------


def _unpacked(value: Any, like: Tensor, parameter: Tensor, on_host: bool) -> Any:
    """An entry of the state as a torch optimiser keeps it, copied."""
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    tensor = value.detach() if isinstance(value, Tensor) else as_tensor(value)
    # State of a model in half precision goes on in that of the objective.
    dtype = like.dtype if tensor.ndim and tensor.is_floating_point() and tensor.dtype == parameter.dtype else tensor.dtype
    return tensor.to("cpu" if on_host else like.device, dtype, copy=True)


def _packed(backend: Backend, groups: _Groups, values: Mapping[str, Tensor], state: Mapping[Any, Any]) -> dict[str, Any]:
    """State of all parameters as numbers and arrays by name."""
    packed: dict[str, Any] = {}
    for _, names, _ in groups:
        for name in names:
            for key, value in state.get(values[name], {}).items():
                if value is None:
                    continue
                if not isinstance(value, Tensor | bool | int | float | str):
                    raise TypeError(
                        f"The optimiser keeps {key!r} as a {type(value).__name__}, but only tensors and numbers can be saved and rejected; "
                        "use another optimiser."
                    )
                packed[f"{key}/{name}"] = _as_array(backend, value.detach()) if isinstance(value, Tensor) else value
    return packed


def _as_array(backend: Backend, tensor: Tensor) -> Array:
    if tensor.ndim and tensor.is_floating_point():
        return backend.asarray(tensor)
    return np.array(tensor.cpu().numpy())


def _changed_settings(given: list[dict[str, Any]], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Numbers that the optimiser keeps among the settings of its groups, and has changed."""
    changed = {}
    for position, (before, after) in enumerate(zip(given, groups, strict=True)):
        for key, value in after.items():
            if isinstance(value, bool | int | float) and (key not in before or before[key] != value):
                changed[f"{_GROUP}{position}/{key}"] = value
    return changed


# -- stability ---------------------------------------------------------------------------------------------------------


def _stability(kind: type, groups: _Groups) -> tuple[Method, float] | None:
    """Method and momentum, where all groups have the same; of subclasses, which may change anything, nothing is known."""
    own = [types.SimpleNamespace(**settings) for settings, names, _ in groups if names]
    if not own:
        return None
    if kind is torch.optim.SGD:
        if len({(group.momentum, group.nesterov) for group in own}) > 1 or not 0 <= own[0].momentum < 1:
            return None
        if not own[0].momentum:
            return "gd", 0.0
        if any(group.dampening for group in own):
            return None
        return "nesterov" if own[0].nesterov else "heavy_ball", float(own[0].momentum)
    if kind in (torch.optim.Adam, torch.optim.AdamW) and len({float(group.betas[0]) for group in own}) == 1:
        return "adam", float(own[0].betas[0])
    return None


def _preconditioner(objective: Objective, groups: _Groups, shadow: Any, adaptive: bool, rate: float, still: set[str]) -> Array:
    """What Adam divides by, times the largest learning rate over that of each group."""
    shapes = objective.unflatten(objective.parameters())
    found: dict[str, Tensor] = {}
    moments = iter(second_moments(shadow) if adaptive else ())
    for settings, names, _ in groups:
        own = float(settings["lr"])
        for name in names:
            moment = next(moments) if adaptive else torch.ones_like(shapes[name], dtype=torch.float64)
            if moment is not None and own > 0 and name not in still:
                found[name] = moment * (rate / own)
    largest = max((float(value.max()) for value in found.values()), default=1.0)
    for name, value in shapes.items():
        found.setdefault(name, torch.full_like(value, _STILL * largest, dtype=torch.float64))
    return objective.flatten(found)


def _decay(objective: Objective, groups: _Groups) -> Array | None:
    """Weight decay that is added to the gradient; that of AdamW is not, and counts for next to nothing."""
    rates = {
        name: 0.0 if settings.get("decoupled_weight_decay") else float(settings.get("weight_decay", 0.0))
        for settings, names, _ in groups
        for name in names
    }
    if not any(rates.values()):
        return None
    return objective.flatten(
        {name: torch.full_like(value, rates.get(name, 0.0)) for name, value in objective.unflatten(objective.parameters()).items()}
    )
