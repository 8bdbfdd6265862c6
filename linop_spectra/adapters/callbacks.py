"""A spectrum recorder as a callback of Keras, Lightning and the trainers of Hugging Face.

None of these packages is imported: where one is loaded, its own base class is taken, so that the trainer finds every hook; otherwise the
callback is a plain object with the hooks that it uses.
"""

from __future__ import annotations

import sys
from typing import Any

from ..evolution import SpectrumRecorder


def keras_callback(recorder: SpectrumRecorder, *, per_epoch: bool = False) -> Any:
    """A callback for ``model.fit(callbacks=[...])`` that records the model's spectra.

    A recorder makes its own by ``recorder.keras_callback()``. Where every batch holds all of the data, give `fit` a repeated data set and
    ``steps_per_epoch``: an epoch of one batch costs many times what the batch does.

    Parameters
    ----------
    recorder : SpectrumRecorder
        Made with an objective of the same model.
    per_epoch : bool
        Whether its steps are epochs, counted from zero, instead of batches over all epochs.

    Returns
    -------
    keras.callbacks.Callback
        The moment before training is step 0; after n batches (or epochs) it is step n.

    Examples
    --------
    >>> # recorder = ls.SpectrumRecorder(ls.objective(model, "mse", (x, y)), every=100)
    >>> # model.fit(x, y, callbacks=[recorder.keras_callback()])
    """
    state = {"step": 0}

    def record(self: Any) -> None:
        recorder(state["step"], self.model, learning_rate=_keras_rate(self.model) if recorder.due(state["step"]) else None)

    def on_train_begin(self: Any, logs: Any = None) -> None:
        if state["step"] == 0:
            record(self)

    def count(self: Any) -> None:
        state["step"] += 1
        record(self)

    def on_train_batch_end(self: Any, batch: int, logs: Any = None) -> None:
        count(self)

    def on_epoch_end(self: Any, epoch: int, logs: Any = None) -> None:
        count(self)

    hooks: dict[str, Any] = {"on_train_begin": on_train_begin}
    hooks |= {"on_epoch_end": on_epoch_end} if per_epoch else {"on_train_batch_end": on_train_batch_end}
    return _make("KerasSpectrumCallback", _base(("keras.callbacks", "Callback")), hooks, recorder)


def lightning_callback(recorder: SpectrumRecorder) -> Any:
    """A callback for a Lightning ``Trainer(callbacks=[...])`` that records the spectra of its module: ``recorder.lightning_callback()``.

    Parameters
    ----------
    recorder : SpectrumRecorder
        Made with an objective of the module, or of a module inside of it: then make the recorder with ``model=`` that one. Its steps are
        the trainer's ``global_step``.

    Returns
    -------
    lightning.pytorch.Callback
        It records at the start and after batches, on the process of rank zero.
    """

    def record(trainer: Any, module: Any) -> None:
        step = int(trainer.global_step)
        # Accumulated gradients leave the step as it was.
        if getattr(trainer, "is_global_zero", True) and recorder.due(step) and _last_step(recorder) != step:
            recorder(step, module if recorder.model is None else None, learning_rate=_torch_rate(getattr(trainer, "optimizers", None)))

    def on_train_start(self: Any, trainer: Any, pl_module: Any) -> None:
        record(trainer, pl_module)

    def on_train_batch_end(self: Any, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        record(trainer, pl_module)

    base = _base(("lightning.pytorch", "Callback"), ("pytorch_lightning", "Callback"))
    hooks = {"on_train_start": on_train_start, "on_train_batch_end": on_train_batch_end}
    return _make("LightningSpectrumCallback", base, hooks, recorder)


def huggingface_callback(recorder: SpectrumRecorder) -> Any:
    """A callback for a Hugging Face ``Trainer(callbacks=[...])`` that records its model's spectra: ``recorder.huggingface_callback()``.

    Parameters
    ----------
    recorder : SpectrumRecorder
        Made with an objective of the model. Its steps are the trainer's ``state.global_step``.

    Returns
    -------
    transformers.TrainerCallback
        It records at the start and after optimiser steps, on the process of rank zero.
    """

    def record(state: Any, kwargs: Any) -> None:
        step = int(state.global_step)
        if getattr(state, "is_world_process_zero", True) and recorder.due(step) and _last_step(recorder) != step:
            optimizer = kwargs.get("optimizer")
            rate = _torch_rate(None if optimizer is None else [optimizer])
            recorder(step, kwargs.get("model") if recorder.model is None else None, learning_rate=rate)

    def on_train_begin(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        record(state, kwargs)

    def on_step_end(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        record(state, kwargs)

    base = _base(("transformers", "TrainerCallback"))
    return _make("HuggingFaceSpectrumCallback", base, {"on_train_begin": on_train_begin, "on_step_end": on_step_end}, recorder)


def _base(*places: tuple[str, str]) -> type:
    """The first of these classes whose module is loaded."""
    for module, name in places:
        if module in sys.modules or module.partition(".")[0] in sys.modules:
            found = getattr(sys.modules.get(module) or sys.modules[module.partition(".")[0]], name, None)
            if isinstance(found, type):
                return found
    return object


def _make(name: str, base: type, hooks: dict[str, Any], recorder: SpectrumRecorder) -> Any:
    callback = type(name, (base,), {**hooks, "__doc__": "Records spectra through training; `recorder` holds them."})()
    callback.recorder = recorder
    return callback


def _last_step(recorder: SpectrumRecorder) -> float | None:
    return recorder.snapshots[-1].step if recorder.snapshots else None


def _torch_rate(optimizers: Any) -> float | None:
    """The learning rate, where all groups of all optimisers have the same."""
    rates = {float(group["lr"]) for optimizer in optimizers or () for group in getattr(optimizer, "param_groups", ()) if "lr" in group}
    return rates.pop() if len(rates) == 1 and min(rates) > 0 else None


def _keras_rate(model: Any) -> float | None:
    rate = getattr(getattr(model, "optimizer", None), "learning_rate", None)
    if rate is None or (callable(rate) and not hasattr(rate, "numpy")):
        return None
    value = float(rate)
    return value if value > 0 else None
