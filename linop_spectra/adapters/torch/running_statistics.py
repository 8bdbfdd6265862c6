"""Running statistics of batch normalisation, collected anew at other parameters; the user's model is left alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...curvature import Batches
from .modes import _BATCH_NORM

if TYPE_CHECKING:
    from .functions import TorchFunctions, TorchPoint

_BUFFERS = ("running_mean", "running_var")


def with_running_statistics(functions: TorchFunctions, point: TorchPoint, batches: Batches) -> TorchPoint:
    """The point with statistics of one pass over the data: means over the batches, weighted by their examples.

    Raises
    ------
    ValueError
        When no layer uses running statistics.
    """
    from .functions import TorchPoint

    model = functions._module.model
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BATCH_NORM) and module.track_running_stats and module.running_mean is not None
    }
    if not layers:
        raise ValueError(
            "The argument batch_norm is 're-estimate', but no batch normalisation layer of the model uses running statistics: there is "
            "none, or the objective was made with batch_norm='train'; leave the argument out."
        )
    rest, seen = dict(point.rest), 0
    batches.plan(point)
    with functions.session():
        for batch in batches:
            examples = batches.count(batch)
            with _collecting(layers, examples / (seen + examples)) as found:
                functions.outputs_at(TorchPoint(point.leaves, rest), batch)
            rest.update(found)
            seen += examples
    return TorchPoint(point.leaves, rest)


@contextlib.contextmanager
def _collecting(layers: Mapping[str, Any], momentum: float) -> Iterator[dict[str, Tensor]]:
    """Our copy's layers in training mode, and what their buffers are after a forward pass; restored on the way out."""
    before = {name: (layer.training, layer.momentum) for name, layer in layers.items()}
    found: dict[str, Tensor] = {}
    hooks = []

    def keep(name: str) -> Any:
        def hook(layer: Any, inputs: Any, output: Any) -> None:
            # Substituted buffers exist only while the model runs.
            found.update({f"{name}.{buffer}" if name else buffer: getattr(layer, buffer).detach().clone() for buffer in _BUFFERS})

        return hook

    try:
        for name, layer in layers.items():
            torch.nn.Module.train(layer, True)
            layer.momentum = momentum
            hooks.append(layer.register_forward_hook(keep(name)))
        yield found
    finally:
        for hook in hooks:
            hook.remove()
        for name, layer in layers.items():
            training, own = before[name]
            torch.nn.Module.train(layer, training)
            layer.momentum = own
