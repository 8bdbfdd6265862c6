"""The protocol of all optimisers: flat vectors, objectives of mini-batches, a state that can be saved."""

from __future__ import annotations

import abc
import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from ..backends import Array, backend_of
from ..curvature import Objective
from ..curvature.non_finite import NonFiniteLossError
from ..results import PathLike, read_result, save_result
from .evaluation import Start
from .step_info import StepInfo

Rate = float | Callable[[int], float]
"""A learning rate, or one for each step."""
NO_GRADIENT = "The gradient is zero, and so is the step."


@dataclasses.dataclass
class Proposal:
    """What a method wants to do.

    Attributes
    ----------
    step : array
        To be added to the parameters, shape (n,).
    state : dict
        Entries of the state that change where the step is accepted.
    rejected_state : dict
        Entries that change where it is not.
    predicted_decrease, learning_rate, damping : float
        As in `StepInfo`.
    loss_after : float, optional
        Loss after the step on the gradient's data, where the method knows it already.
    refreshed : bool
        Whether curvature was measured.
    message : str
        What a user should know of this step.
    details : dict
        For `StepInfo.details`.
    """

    step: Array
    state: dict[str, Any] = dataclasses.field(default_factory=dict)
    rejected_state: dict[str, Any] = dataclasses.field(default_factory=dict)
    predicted_decrease: float = math.nan
    learning_rate: float = math.nan
    damping: float = math.nan
    loss_after: float | None = None
    refreshed: bool = False
    message: str = ""
    details: dict[str, float] = dataclasses.field(default_factory=dict)


class Optimizer(abc.ABC):
    """A method that moves a parameter vector; a subclass says how in ``_propose``.

    An optimiser holds its settings and a flat `state` of numbers and arrays. Arrays of the state are replaced, never written to, so that
    a step that fails or raises leaves the state as it was. Settings are keyword arguments with attributes of the same names; `_settings`
    lists them.

    Attributes
    ----------
    state : dict
        Numbers, strings and arrays by name; empty before the first step.
    steps_taken : int
        Steps so far, rejected ones included.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> _ = torch.manual_seed(0)
    >>> x, y = torch.randn(20, 3), torch.randn(20, 1)
    >>> objective = ls.objective(torch.nn.Linear(3, 1), "mse", (x, y))
    >>> theta, info = ls.optim.LanczosNewton(damping=1e-6, num_steps=4).step(objective, objective.parameters())
    >>> info.accepted, bool(info.actual_decrease > 0)
    (True, True)
    """

    _settings: ClassVar[tuple[str, ...]] = ()
    _evaluates: bool = True
    """Whether the loss after a step is evaluated, at one forward pass, where `_propose` does not know it; else only the step's finiteness
    is looked at."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}
        self.steps_taken = 0

    @abc.abstractmethod
    def _propose(self, start: Start) -> Proposal:
        """The step from here; must not change the optimiser."""

    def _judge(self, start: Start, proposal: Proposal, actual_decrease: float) -> tuple[bool, str]:
        """Whether to accept a step whose loss is finite or was not evaluated, and why not; may change entries of `proposal.state`."""
        return True, ""

    def step(self, objective: Objective, theta: Any, *, curvature: Objective | None = None) -> tuple[Array, StepInfo]:
        """One step.

        Parameters
        ----------
        objective : Objective
            Model, loss and (mini-batch) data; its own parameters do not matter. ``objective.with_data(batch)`` makes one for the next
            batch at no cost.
        theta : array
            Parameters, shape (n,); not written to.
        curvature : Objective, optional
            The same on other data, for what the method measures of curvature: a quadratic whose gradient and curvature come from the same
            few examples promises more than it keeps. By default the data of the gradient.

        Returns
        -------
        array
            New parameters, shape (n,), of the objective's type; the old ones where the step was rejected.
        StepInfo
            What happened.

        Raises
        ------
        NonFiniteLossError
            A FloatingPointError and a ValueError: when loss or gradient are not finite before the step.
        ValueError
            When the parameters have another number than the objective or the state.
        """
        began = time.perf_counter()
        theta = self._checked(objective, theta)
        if curvature is not None:
            _check_curvature(objective, curvature)
        held = self._held(objective)
        start = Start(objective, curvature, theta, held, self.steps_taken)
        proposal = self._propose(start)
        accepted, actual, message = self._verdict(start, proposal)
        # Everything that can fail has happened: now the state changes.
        self.state = {**held, **(proposal.state if accepted else proposal.rejected_state)}
        self.steps_taken += 1
        return (
            start.backend.asarray(theta + proposal.step, dtype=objective.dtype) if accepted else theta,
            StepInfo(
                step=start.step, loss=start.loss, gradient_norm=start.gradient_norm,
                step_norm=start.norm(proposal.step) if accepted else 0.0, accepted=accepted,
                predicted_decrease=self._promise(start, proposal), actual_decrease=actual, learning_rate=proposal.learning_rate,
                damping=proposal.damping, num_matvecs=start.num_matvecs, num_gradients=start.num_gradients,
                num_values=start.num_values, refreshed=proposal.refreshed, seconds=time.perf_counter() - began,
                message=" ".join(part for part in (message, proposal.message) if part), details=proposal.details,
            ),
        )  # fmt: skip

    @staticmethod
    def _promise(start: Start, proposal: Proposal) -> float:
        """What the method's model promised; the linear one where it has none of its own."""
        if not math.isnan(proposal.predicted_decrease):
            return proposal.predicted_decrease
        return -start.dot(start.gradient, proposal.step)

    def _verdict(self, start: Start, proposal: Proposal) -> tuple[bool, float, str]:
        if not math.isfinite(start.norm(proposal.step)):
            return False, math.nan, "The proposed step is not finite."
        after = proposal.loss_after
        if after is None and self._evaluates:
            after = start.loss_after(proposal.step)
        actual = math.nan if after is None else start.loss - after
        if after is not None and not math.isfinite(after):
            return False, -math.inf, "The loss after the step is not finite."
        accepted, message = self._judge(start, proposal, actual)
        return accepted, actual, message

    def _checked(self, objective: Any, theta: Any) -> Array:
        if not isinstance(objective, Objective):
            raise TypeError(
                f"The argument objective is a {type(objective).__name__}, but must be an objective made by linop_spectra.objective."
            )
        backend, n = objective.functions.backend, objective.num_parameters
        vector = backend.asarray(theta, dtype=objective.dtype)
        if tuple(vector.shape) != (n,):
            raise ValueError(f"The argument theta has shape {tuple(vector.shape)}, but the objective has {n} parameters; pass ({n},).")
        if "num_parameters" in self.state and self.state["num_parameters"] != n:
            raise ValueError(
                f"The optimiser's state belongs to {self.state['num_parameters']} parameters, but the objective has {n}; make a new "
                "optimiser, or restore the state of this model."
            )
        return vector

    def _held(self, objective: Objective) -> dict[str, Any]:
        """The state with its arrays on the objective's backend: one that was restored holds arrays of the host."""
        backend = objective.functions.backend
        moved = {
            name: backend.asarray(value)
            for name, value in self.state.items()
            if isinstance(value, np.ndarray) and value.ndim and not backend.owns(value) and value.dtype.kind in "fc"
        }
        return {**self.state, **moved, "num_parameters": objective.num_parameters}

    # -- state ---------------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings by name; functions are shown by their names."""
        values = {name: getattr(self, name) for name in self._settings}
        # Not the text of an object, which has its address in it.
        return {
            name: getattr(value, "__qualname__", type(value).__qualname__) if callable(value) else value for name, value in values.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Method, settings and state as plain numbers, texts and NumPy arrays; `load_state_dict` takes them back."""
        held = {
            name: value if isinstance(value, bool | int | float | str) else backend_of(value).to_numpy(value).copy()
            for name, value in self.state.items()
        }
        return {"method": type(self).__name__, "settings": _plain(dict(self.settings)), "num_steps": self.steps_taken, "state": held}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave; the next steps are bit-identical to those of the run that it came from.

        Raises
        ------
        ValueError
            When it belongs to another method or to other settings.
        """
        missing = [name for name in ("method", "settings", "num_steps", "state") if name not in state]
        if missing:
            raise ValueError(f"The argument state has no entry {missing[0]!r}; pass what state_dict() returned.")
        if state["method"] != type(self).__name__:
            raise ValueError(f"This is the state of {state['method']!r}, not of {type(self).__name__}.")
        own, stored = _plain(dict(self.settings)), state["settings"]
        different = [name for name in own if stored.get(name) != own[name]]
        if different:
            listed = ", ".join(f"{name} ({stored.get(name)!r} there, {own[name]!r} here)" for name in different)
            raise ValueError(f"The state was written with other settings: {listed}; make the optimiser with those.")
        self.state, self.steps_taken = dict(state["state"]), int(state["num_steps"])

    def save(self, path: PathLike) -> None:
        """Write `state_dict` to `path` (``.npz``); `restore` reads it back."""
        header, arrays = self.to_file()
        save_result(path, "optimizer", header, arrays)

    def restore(self, path: PathLike) -> None:
        """Take over the state in a file that `save` wrote.

        Raises
        ------
        ValueError
            When the file holds something else, or the state of another method or of other settings.
        """
        scalars, arrays = read_result(path)
        if scalars.pop("kind") != "optimizer":
            raise ValueError(f"The file {str(path)!r} does not hold the state of an optimiser.")
        self.from_file(scalars, arrays)

    def to_file(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """`state_dict` as what JSON can hold, and arrays."""
        state = self.state_dict()
        arrays = {name: value for name, value in state["state"].items() if isinstance(value, np.ndarray)}
        numbers = {name: value for name, value in state["state"].items() if name not in arrays}
        return {**state, "state": numbers}, arrays

    def from_file(self, scalars: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Take over what `to_file` gave."""
        self.load_state_dict({**scalars, "state": {**scalars["state"], **arrays}})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.settings.items())})"


def _plain(settings: dict[str, Any]) -> Any:
    """Settings as a file gives them back."""
    import json

    return json.loads(json.dumps(settings))


def _check_curvature(objective: Objective, curvature: Any) -> None:
    if not isinstance(curvature, Objective):
        found = f"a {type(curvature).__name__}"
    elif curvature.num_parameters != objective.num_parameters:
        found = f"one of {curvature.num_parameters} parameters"
    elif curvature.dtype != objective.dtype or curvature.functions.backend.name != objective.functions.backend.name:
        found = (
            f"one of {curvature.dtype} vectors on {curvature.functions.backend.name} where the objective's are {objective.dtype} on "
            f"{objective.functions.backend.name}"
        )
    else:
        return
    raise ValueError(
        f"The argument curvature must be an objective of the same model, such as objective.with_data(other_batch), but is {found}."
    )


def checked_rate(rate: Any) -> Rate:
    """A learning rate as the constructors keep it: a positive number or a function of the step.

    Raises
    ------
    ValueError
        When a number is not positive and finite.
    """
    return rate if callable(rate) else check_number("learning_rate", rate, positive=True)


def rate_at(rate: Rate, step: int) -> float:
    """The learning rate of a step; zero, where schedules start or end, is a step of length zero.

    Raises
    ------
    ValueError
        When it is negative, not finite or no number.
    """
    value = rate(step) if callable(rate) else rate
    number = _as_float(value)
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"The learning rate of step {step} is {value!r}, but must be a number, finite and at least zero.")
    return number


def _as_float(value: Any) -> float:
    """The number, NaN where it is none."""
    try:
        return math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        return math.nan


def check_number(name: str, value: Any, *, positive: bool = False, below: float = math.inf) -> float:
    """`value` as a float that is finite and at least zero (or positive) and below a limit.

    Raises
    ------
    ValueError
        When it is not.
    """
    number = _as_float(value)
    if not math.isfinite(number) or number < 0 or (positive and number == 0) or number >= below:
        kind = "positive" if positive else "at least zero"
        limit = "" if math.isinf(below) else f" and below {below:g}"
        raise ValueError(f"The argument {name} is {value!r}, but must be finite and {kind}{limit}.")
    return number


def check_seed(seed: Any) -> int:
    """The seed as a whole number that is not negative.

    Raises
    ------
    ValueError
        When it is none.
    """
    if isinstance(seed, bool | np.bool_) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"The argument seed must be a whole number of at least 0, but is {seed!r}.")
    return int(seed)


__all__ = ["NO_GRADIENT", "NonFiniteLossError", "Optimizer", "Proposal", "Rate", "check_number", "check_seed", "checked_rate", "rate_at"]
