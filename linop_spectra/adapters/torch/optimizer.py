"""A method of optimisation as a ``torch.optim.Optimizer``."""

from __future__ import annotations

from typing import Any

import torch

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
        self._model, self._batch_norm = model, options.get("batch_norm")
        self._trained: set[str] | None = None
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
        own = without_wrappers(dict(self._model.named_parameters(remove_duplicate=False)))
        self._require_same(own)
        here, _, after, info = self._session.step(batch, self._model.state_dict(), curvature_batch)
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
            device = next(self._model.parameters()).device
            self._session.forward(batch, lambda x: self._model(x.to(device) if isinstance(x, torch.Tensor) else x))
        finally:
            for layer, mode in zip(layers, modes, strict=True):
                torch.nn.Module.train(layer, mode)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refused: the parameters are those of the model."""
        if self.param_groups:
            raise ValueError(
                "The method moves the parameters of the model as one vector, so that there are no groups to add; choose parameters with "
                "parameters= and make a new optimiser."
            )
        super().add_param_group(param_group)

    def _require_same(self, own: dict[str, torch.nn.Parameter]) -> None:
        """Raise where parameters were frozen or set free since the first step."""
        trained = {name for name, parameter in own.items() if parameter.requires_grad}
        if self._trained is None:
            self._trained = trained
        changed = sorted(self._trained ^ trained)
        if changed:
            raise ValueError(
                f"The requires_grad of {', '.join(map(repr, changed[:5]))} has changed since the first step, and the state belongs to the "
                "parameters before; make a new optimiser."
            )

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
        held = dict(state_dict["method"])
        held["state"] = {
            name: value.cpu().numpy() if isinstance(value, torch.Tensor) else value for name, value in held["state"].items()
        }
        method: Any = self.method
        before = method.state, method.steps_taken, getattr(method, "learning_rate", None)
        try:
            if self._has_rate:
                method.learning_rate = held["settings"].get("learning_rate", before[2])
            method.load_state_dict(held)
            super().load_state_dict(rest)
        except BaseException:
            method.state, method.steps_taken = before[:2]
            if self._has_rate:
                method.learning_rate = before[2]
            raise
