"""Running statistics of batch normalisation, collected anew at other parameters; the user's model is left alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...curvature import Batches
from ..common import NO_RUNNING_STATISTICS
from .modes import _BATCH_NORM

if TYPE_CHECKING:
    from .functions import TorchFunctions, TorchPoint

_BUFFERS = ("running_mean", "running_var")


def with_running_statistics(functions: TorchFunctions, points: Sequence[TorchPoint], batches: Batches) -> list[TorchPoint]:
    """The points with statistics of one pass over the data: means over the batches, weighted by their examples.

    Raises
    ------
    ValueError
        When no layer uses running statistics.
    """
    from .functions import TorchPoint

    model = functions._module.model
    collected = getattr(model, "collected_statistics", None)
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BATCH_NORM) and module.track_running_stats and module.running_mean is not None
    }
    if not layers and not (collected is not None and model.statistics):
        raise ValueError(NO_RUNNING_STATISTICS)
    made, seen = [TorchPoint(point.leaves, dict(point.rest)) for point in points], 0
    batches.plan(points[0])
    with functions.session():
        for batch in batches:
            examples = batches.count(batch)
            share = examples / (seen + examples)
            for index, point in enumerate(made):
                if collected is None:
                    with _collecting(layers, share) as found:
                        functions.outputs_at(point, batch)
                else:
                    with collected() as theirs:
                        functions.outputs_at(point, batch)
                    found = {name: value.to(point.rest[name]) for name, value in theirs.items()}
                    if seen:
                        found = {name: point.rest[name].lerp(value, share) for name, value in found.items()}
                made[index] = TorchPoint(point.leaves, {**point.rest, **found})
            seen += examples
    return made


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
