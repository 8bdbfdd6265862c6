"""A method of optimisation as a ``torch.optim.Optimizer``."""

from __future__ import annotations

from typing import Any

import torch

from ...curvature import BatchLoss
from ...optim.optimizer import Optimizer
from ...optim.step_info import StepInfo
from ..optimizer_session import OptimizerSession
from .modes import _BATCH_NORM
from .parameter_files import without_wrappers


class TorchOptimizer(torch.optim.Optimizer):
    """See `linop_spectra.optim.torch_optimizer`.

    Parameters
    ----------
    optimizer : Optimizer
        The method.
    model : torch.nn.Module
        What is trained, in place.
    loss
        As for `linop_spectra.objective`.
    **options
        Further arguments of it.
    """

    def __init__(self, optimizer: Optimizer, model: torch.nn.Module, loss: Any, **options: Any) -> None:
        if not isinstance(model, torch.nn.Module):
            raise TypeError(f"The argument model is a {type(model).__name__}, but must be a torch.nn.Module.")
        self._session = OptimizerSession(optimizer, model, loss, options)
        self._model, self._loss, self._batch_norm = model, loss, options.get("batch_norm")
        rate = getattr(optimizer, "learning_rate", None)
        self._has_rate = isinstance(rate, float | int)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        super().__init__(trained, {"lr": float(rate)} if self._has_rate and rate is not None else {})

    @property
    def method(self) -> Optimizer:
        """The method, with its settings and state."""
        return self._session.optimizer

    def step(self, batch: Any, curvature_batch: Any = None) -> StepInfo:
        """One step on a batch.

        Parameters
        ----------
        batch : tuple of two tensors, or what a `BatchLoss` takes, or an iterable of such
            Data of loss and gradient.
        curvature_batch : optional
            Other data for the curvature.

        Returns
        -------
        StepInfo
            What happened.
        """
        if callable(batch):
            raise TypeError(
                "step() takes a batch, not a closure: the method computes loss, gradient and curvature from the data itself; pass "
                "(inputs, targets)."
            )
        if self._has_rate:
            self.method.learning_rate = float(self.param_groups[0]["lr"])  # type: ignore[attr-defined]
        here, _, after, info = self._session.step(batch, self._model.state_dict(), curvature_batch)
        own = without_wrappers(dict(self._model.named_parameters(remove_duplicate=False)))
        with torch.no_grad():
            for name, value in here.unflatten(after).items():
                own[name].copy_(value)
            if self._batch_norm == "train":
                self._update_running_statistics(batch)
        return info

    def _update_running_statistics(self, batch: Any) -> None:
        """One forward pass in which only layers of batch normalisation are in training mode."""
        layers = [module for module in self._model.modules() if isinstance(module, _BATCH_NORM)]
        modes = [layer.training for layer in layers]
        try:
            for layer in layers:
                torch.nn.Module.train(layer, True)
            for one in self._batches(batch):
                if isinstance(self._loss, BatchLoss):
                    (self._loss.fn or self._loss.outputs)(self._model, one)  # type: ignore[misc]
                else:
                    device = next(self._model.parameters()).device
                    inputs = one[0]
                    self._model(inputs.to(device) if isinstance(inputs, torch.Tensor) else inputs)
        finally:
            for layer, mode in zip(layers, modes, strict=True):
                torch.nn.Module.train(layer, mode)

    def _batches(self, batch: Any) -> Any:
        single = isinstance(self._loss, BatchLoss) or isinstance(batch, tuple)
        pair = isinstance(batch, list) and len(batch) == 2 and all(hasattr(part, "shape") for part in batch)
        return [batch] if single or pair else batch

    def state_dict(self) -> dict[str, Any]:
        """That of torch, with the method's state as tensors under ``"method"``."""
        held = self.method.state_dict()
        values = {
            name: torch.from_numpy(value) if hasattr(value, "dtype") else value for name, value in held.pop("state").items()
        }
        return {**super().state_dict(), "method": {**held, "state": values}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises
        ------
        ValueError
            When it belongs to another method, settings or number of parameters.
        """
        if "method" not in state_dict:
            raise ValueError("The argument state_dict holds no state of a method of linop_spectra; pass what state_dict() returned.")
        rest = {name: value for name, value in state_dict.items() if name != "method"}
        super().load_state_dict(rest)
        held = dict(state_dict["method"])
        if self._has_rate:
            self.method.learning_rate = held["settings"].get("learning_rate")  # type: ignore[attr-defined]
        held["state"] = {
            name: value.cpu().numpy() if isinstance(value, torch.Tensor) else value for name, value in held["state"].items()
        }
        self.method.load_state_dict(held)
