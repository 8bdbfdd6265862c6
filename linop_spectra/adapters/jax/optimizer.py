"""A method of optimisation as an optax transformation."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...optim.optimizer import Optimizer
from ..optimizer_session import OptimizerSession


class SpectralState(NamedTuple):
    """State of a transformation.

    Attributes
    ----------
    num_steps : int
        Steps so far.
    values : dict
        The method's numbers and arrays.
    info : dict
        Numbers of the last step, as in `linop_spectra.optim.StepInfo`; empty before it.
    """

    num_steps: int
    values: dict[str, Any]
    info: dict[str, Any]


def optax_transformation(optimizer: Optimizer, model: Any, loss: Any, **options: Any) -> Any:
    """See `linop_spectra.optim.optax_transformation`."""
    import optax

    session = OptimizerSession(copy.copy(optimizer) if isinstance(optimizer, Optimizer) else optimizer, model, loss, options)

    def init(params: Any) -> SpectralState:
        return SpectralState(0, {}, {})

    def update(
        updates: Any, state: SpectralState, params: Any = None, *, data: Any = None, curvature_data: Any = None, **extra: Any
    ) -> tuple[Any, SpectralState]:
        if params is None or data is None:
            missing = "params" if params is None else "data"
            raise ValueError(f"The method computes its own gradients: call update(None, state, params, data=batch); {missing} is missing.")
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree_util.tree_leaves((params, data))):
            raise TypeError(
                "The method decides on the host from step to step and cannot run inside of jax.jit; call update outside (what it "
                "computes on the model is compiled)."
            )
        method = session.optimizer
        method.state, method.steps_taken = dict(state.values), int(state.num_steps)
        first = {"params": params} if session.is_new else {}
        here, before, after, info = session.step(data, params, curvature_data, **first)
        numbers = {name: value for name, value in dataclasses.asdict(info).items() if name != "details"} | dict(info.details)
        return _as_tree(here, after - before, params), SpectralState(method.steps_taken, dict(method.state), numbers)

    return optax.GradientTransformationExtraArgs(init, update)


def _as_tree(objective: Any, step: Any, params: Any) -> Any:
    """A step in the structure of the parameters, zero for what is not trained."""
    named = objective.unflatten(step)
    leaves, structure = jax.tree_util.tree_flatten(params)
    names = list(objective.functions.named_leaves(params))
    made = [
        named[name].astype(jnp.asarray(leaf).dtype) if name in named else jnp.zeros(np.shape(leaf), jnp.asarray(leaf).dtype)
        for name, leaf in zip(names, leaves, strict=True)
    ]
    return structure.unflatten(made)
