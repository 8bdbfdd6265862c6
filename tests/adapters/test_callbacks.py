"""Recorders as callbacks: Keras by its own fit, the others by the calls that their trainers make."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import linop_spectra as ls
from linop_spectra.adapters.callbacks import huggingface_callback, keras_callback, lightning_callback
from linop_spectra.evolution import SpectrumRecorder


def torch_setting(**options):
    torch.manual_seed(0)
    model = nn.Linear(3, 2).double()
    objective = ls.objective(model, "mse", (torch.randn(12, 3).double(), torch.randn(12, 2).double()))
    return model, SpectrumRecorder(objective, **{"num_steps": 4, "k": 1, **options})


def test_lightning_hooks():
    model, recorder = torch_setting(every=2)
    callback = lightning_callback(recorder)
    trainer = SimpleNamespace(global_step=0, is_global_zero=True, optimizers=[torch.optim.SGD(model.parameters(), lr=0.25)])
    callback.on_train_start(trainer, model)
    for batch in range(8):  # gradients of two batches for each step
        trainer.global_step = (batch + 1) // 2
        callback.on_train_batch_end(trainer, model, None, None, batch)
    assert recorder.evolution.steps.tolist() == [0, 2, 4] and recorder.evolution.learning_rates.tolist() == [0.25] * 3
    trainer.is_global_zero, trainer.global_step = False, 6
    callback.on_train_batch_end(trainer, model, None, None, 9)
    assert len(recorder.snapshots) == 3 and callback.recorder is recorder


def test_a_part_of_a_lightning_module():
    model, recorder = torch_setting()
    recorder.model = model
    lightning_callback(recorder).on_train_start(SimpleNamespace(global_step=0), nn.Sequential(model))
    assert len(recorder.snapshots) == 1 and np.isnan(recorder.snapshots[0].learning_rate)


def test_hugging_face_hooks():
    model, recorder = torch_setting(steps=(0, 3))
    callback = huggingface_callback(recorder)
    state = SimpleNamespace(global_step=0, is_world_process_zero=True)
    options = {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.5), "train_dataloader": None}
    callback.on_train_begin(None, state, None, **options)
    for step in range(1, 6):
        state.global_step = step
        assert callback.on_step_end(None, state, None, **options) is None
    assert recorder.evolution.steps.tolist() == [0, 3] and recorder.evolution.thresholds.tolist() == [4.0, 4.0]


def test_the_base_class_of_a_loaded_package_is_taken(monkeypatch):
    class Callback:
        state_key = "key"

        def on_fit_end(self, trainer, module):
            return "hook"

    import sys

    monkeypatch.setitem(sys.modules, "lightning.pytorch", SimpleNamespace(Callback=Callback))
    callback = lightning_callback(torch_setting()[1])
    assert isinstance(callback, Callback) and callback.on_fit_end(None, None) == "hook"


@pytest.mark.parametrize("per_epoch, steps", [(False, [0, 3, 6]), (True, [0, 3])])
def test_keras_fit(per_epoch, steps):
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 3)).astype("float32"), rng.standard_normal((20, 1)).astype("float32")
    model.compile(optimizer=keras.optimizers.SGD(0.125), loss="mse")
    recorder = SpectrumRecorder(ls.objective(model, "mse", (x, y)), every=3, num_steps=6, k=1)
    before = [np.array(w) for w in model.get_weights()]
    model.fit(x, y, epochs=3, batch_size=10, verbose=0, shuffle=False, callbacks=[keras_callback(recorder, per_epoch=per_epoch)])
    found = recorder.evolution
    assert found.steps.tolist() == steps and found.thresholds.tolist() == [16.0] * len(steps) and found.loss[-1] < found.loss[0]
    last = recorder.objective.with_parameters([np.asarray(w) for w in model.get_weights()])
    assert found.loss[-1] == pytest.approx(last.value(), rel=1e-5)
    plain = keras.models.clone_model(model)
    plain.set_weights(before)
    plain.compile(optimizer=keras.optimizers.SGD(0.125), loss="mse")
    plain.fit(x, y, epochs=3, batch_size=10, verbose=0, shuffle=False)
    for one, other in zip(plain.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
