"""Objectives of torch modules."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..._memory import parse_budget
from ...backends import Backend, get_backend
from ...backends.cupy_backend import cupy_usable
from ...backends.torch_memory import CupyBesideTorch
from ...curvature import Objective
from ..common import check_batch_size, check_weight_decay
from .arrays import NumpyOnTorch
from .custom_losses import make_loss
from .functions import TorchFunctions
from .losses import BinaryCrossEntropy
from .module import PureModule, trainable_parameters, unwrapped


@torch.inference_mode(False)
def torch_objective(
    model: Any,
    loss: Any,
    data: Any,
    *,
    parameters: str | list[str] | None,
    batch_size: int | None,
    batch_norm: str | None,
    weight_decay: float,
    dtype: Any,
    backend: str | Backend | None,
    memory_budget: int | float | str | None,
) -> Objective:
    """The objective of a torch module; see `linop_spectra.objective` for the arguments."""
    check_batch_size(batch_size)
    decay = check_weight_decay(weight_decay)
    chosen = trainable_parameters(unwrapped(model), parameters)
    arrays = _backend_for(next(iter(chosen.values())).device, backend)
    budget = parse_budget(memory_budget, total=arrays.total_memory())
    output_loss = make_loss(loss)
    if isinstance(output_loss, BinaryCrossEntropy):
        output_loss.sigmoid_last = _ends_in_sigmoid(unwrapped(model))
    module = PureModule(model, parameters, batch_norm, _torch_dtype(dtype))
    functions = TorchFunctions(module, output_loss, arrays, budget, batch_size)
    return Objective(functions, functions.initial_point(), functions.batches(data), decay)


def _torch_dtype(dtype: Any) -> torch.dtype | None:
    if dtype is None:
        return None
    known = {np.dtype(np.float32): torch.float32, np.dtype(np.float64): torch.float64}
    if isinstance(dtype, torch.dtype):
        wanted = dtype if dtype in known.values() else None
    else:
        try:
            wanted = known.get(np.dtype(dtype))
        except TypeError:
            wanted = None
    if wanted is None:
        raise ValueError(f"The argument dtype is {dtype!r}, but must be 'float32', 'float64' or None for the model's own.")
    return wanted


def _backend_for(device: torch.device, backend: str | Backend | None) -> Backend:
    """NumPy for a model on the CPU; on a CUDA device CuPy, from torch's memory, and torch where CuPy cannot be used."""
    if device.type == "cuda" and backend in (None, "cupy") and cupy_usable():
        return CupyBesideTorch()
    if backend == "torch" or (device.type == "cuda" and backend is None):
        return get_backend(f"torch:{device}")
    chosen = get_backend(backend)
    return NumpyOnTorch() if chosen.name == "numpy" else chosen


def _ends_in_sigmoid(model: Any) -> bool:
    while isinstance(model, torch.nn.Sequential) and len(model):
        model = model[-1]
    return isinstance(model, torch.nn.Sigmoid)
