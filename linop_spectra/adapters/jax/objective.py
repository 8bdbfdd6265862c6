"""Objectives of JAX models."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..._memory import parse_budget
from ...backends import Backend, get_backend
from ...backends.cupy_backend import cupy_usable
from ...curvature import Objective
from ..common import check_batch_size, check_weight_decay
from .context import double_precision
from .custom_losses import make_loss
from .functions import JaxFunctions
from .models import pure_model


def jax_objective(
    model: Any,
    loss: Any,
    data: Any,
    *,
    params: Any,
    parameters: str | list[str] | None,
    batch_size: int | None,
    batch_norm: str | None,
    weight_decay: float,
    dtype: Any,
    backend: str | Backend | None,
    memory_budget: int | float | str | None,
) -> Objective:
    """The objective of a JAX model; see `linop_spectra.objective` for the arguments that all frameworks have in common.

    Parameters
    ----------
    model : callable or module
        ``apply(params, inputs)``, which gets a batch's inputs as they are; a flax nnx module, which carries its parameters; a flax
        linen module (or its ``apply``) with its variables as `params`, called in evaluation mode unless ``batch_norm="train"``; or
        an equinox module, which is mapped over the examples (one with a state as ``equinox.Partial(equinox.nn.inference_mode(model),
        state=state)``). Modules get a tuple of inputs as several arguments and a dict as named
        ones. In a `BatchLoss` the model is the apply function with its parameters filled in, or the module.
    loss : str, callable or BatchLoss
        For ``"cross_entropy"`` the classes are along the last axis of the outputs. A callable ``(outputs, targets)`` returns a mean
        over the examples, a pair ``(sum, number_of_terms)``, or an array with one entry for each example, position or element, as
        optax's losses do: its entries are then the terms.
    params : pytree, optional
        Floating arrays in it are parameters, everything else is constant; so are a flax model's other collections.
    dtype : {"float32", "float64"}, optional
        ``"float64"`` works on a copy, also where ``jax_enable_x64`` is off; parameters that are float64 need one or the other.
    """
    check_batch_size(batch_size)
    decay = check_weight_decay(weight_decay)
    wanted = _numpy_dtype(dtype)
    output_loss = make_loss(loss)
    with double_precision(wanted == np.float64):
        own = pure_model(model, params, parameters, batch_norm, wanted)
    arrays = _backend_for(own.device, backend)
    budget = parse_budget(memory_budget, total=arrays.total_memory())
    functions = JaxFunctions(own, output_loss, arrays, budget, batch_size)
    return Objective(functions, functions.initial_point(), functions.batches(data), decay)


def _numpy_dtype(dtype: Any) -> np.dtype | None:
    if dtype is None:
        return None
    try:
        wanted = np.dtype(dtype)
    except TypeError:
        wanted = None
    if wanted not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"The argument dtype is {dtype!r}, but must be 'float32', 'float64' or None for the model's own.")
    return wanted


def _backend_for(device: Any, backend: str | Backend | None) -> Backend:
    """NumPy for a model on the CPU; on a CUDA device CuPy, and NumPy where CuPy cannot be used."""
    if backend is None and device.platform in ("gpu", "cuda") and cupy_usable():
        return get_backend("cupy")
    return get_backend(backend)
