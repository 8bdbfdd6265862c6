"""Recording inside training loops: schedules, no side effects, and the same numbers as from checkpoints."""

import time

import numpy as np
import pytest
import torch
from torch import nn

import linop_spectra as ls
from linop_spectra.evolution import SpectrumRecorder, evolution


def setting(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, y = torch.randn(24, 4).double(), torch.arange(24) % 3
    return model, x, y, ls.objective(model, "cross_entropy", (x, y), batch_norm="eval")


def train(model, x, y, steps, record):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    torch.manual_seed(5)
    for step in range(steps):
        record(step, optimizer)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x + 0.01 * torch.randn_like(x)), y).backward()
        optimizer.step()


def test_training_is_left_alone():
    """The same training with and without a recorder ends with the same bits: parameters, buffers, gradients, random numbers."""
    ends = []
    for recording in (False, True):
        model, x, y, objective = setting()
        recorder = SpectrumRecorder(objective, model, every=3, num_steps=6, k=2, enabled=recording)
        train(model, x, y, 7, lambda step, optimizer, recorder=recorder: recorder(step))
        ends.append([*model.state_dict().values(), *(p.grad for p in model.parameters()), torch.get_rng_state()])
        assert len(recorder.snapshots) == (3 if recording else 0) and model.training
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))


def test_recorded_numbers_are_those_of_the_checkpoints():
    model, x, y, objective = setting()
    recorder, states = SpectrumRecorder(objective, every=2, num_steps=8, num_probes=2, k=2, tol=1e-9), []

    def record(step, optimizer):
        if step % 2 == 0:
            states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        assert (recorder(step, model) is None) == (step % 2 == 1)

    train(model, x, y, 5, record)
    from_files = evolution(objective, dict(zip((0, 2, 4), states, strict=True)), num_steps=8, num_probes=2, k=2, tol=1e-9)
    assert recorder.evolution.steps.tolist() == [0, 2, 4]
    np.testing.assert_allclose(recorder.evolution.eigenvalues, from_files.eigenvalues, rtol=1e-8)
    np.testing.assert_allclose(recorder.evolution.loss, from_files.loss)
    # Running statistics of batch normalisation count: those of the moment, not of the start.
    exact = np.linalg.eigvalsh(objective.with_parameters(states[-1]).hessian().to_dense())[-1]
    assert recorder.evolution.eigenvalues[-1, 0] == pytest.approx(exact, rel=1e-8)


def test_a_call_that_is_not_due_costs_next_to_nothing():
    model, _, _, objective = setting()
    for recorder in (SpectrumRecorder(objective, model, every=1000), SpectrumRecorder(objective, model, enabled=False)):
        began = time.perf_counter()
        for step in range(1, 1000):
            recorder(step, model)
        assert (time.perf_counter() - began) / 999 < 2e-5 and not recorder.snapshots


def test_schedules_learning_rates_and_files(tmp_path):
    model, _, _, objective = setting()
    recorder = SpectrumRecorder(
        objective, model, steps=(1, 4), num_steps=3, k=1, learning_rate=lambda step: 0.1 * step, method="heavy_ball", momentum=0.5,
        folder=tmp_path / "spectra",
    )  # fmt: skip
    for step in range(6):
        recorder(step)
    assert recorder.evolution.steps.tolist() == [1, 4]
    np.testing.assert_allclose(recorder.evolution.thresholds, [2 * 1.5 / 0.1, 2 * 1.5 / 0.4])
    assert recorder(5, learning_rate=0.3, force=True).learning_rate == 0.3
    assert ls.load(tmp_path / "spectra" / "step-00000004.npz").step == 4.0
    assert [s.eigenvectors is None for s in recorder.snapshots] == [True, True, False]


def test_preconditioner_is_asked_only_when_due():
    from linop_spectra.adapters.torch.adam import adam_preconditioner

    model, x, y, objective = setting()
    asked = []
    recorder = SpectrumRecorder(objective, steps=(3,), num_steps=10, k=1, tol=1e-9)

    def record(step, optimizer):
        recorder(step, model, preconditioner=lambda: asked.append(step) or adam_preconditioner(objective, optimizer, model=model))
        if step == 3:
            p = adam_preconditioner(objective, optimizer, model=model)
            dense = objective.with_parameters(model.state_dict()).hessian().to_dense() / np.sqrt(np.outer(p, p))
            assert recorder.snapshots[0].eigenvalues[0] == pytest.approx(np.linalg.eigvalsh(dense)[-1], rel=1e-6)

    train(model, x, y, 6, record)
    assert asked == [3] and recorder.evolution.matrix == "preconditioned hessian"


def test_a_loop_of_jax():
    jax = pytest.importorskip("jax")
    import jax.numpy as jnp

    x = jnp.asarray(np.random.default_rng(0).standard_normal((20, 3)), dtype=jnp.float32)
    y = jnp.sin(x[:, :1])

    def apply(params, inputs):
        return jnp.tanh(inputs @ params["w"]) @ params["v"]

    params = {"w": 0.5 * jnp.ones((3, 4)) * jnp.arange(1.0, 5.0), "v": 0.1 * jnp.ones((4, 1))}
    recorder = SpectrumRecorder(ls.objective(apply, "mse", (x, y), params=params), every=5, num_steps=8, k=2)
    gradient = jax.jit(jax.grad(lambda p: jnp.mean((apply(p, x) - y) ** 2)))
    for step in range(11):
        recorder(step, params)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient(params))
    found = recorder.evolution
    assert found.steps.tolist() == [0, 5, 10] and found.loss[-1] < found.loss[0]


def diverging(**options):
    """Gradient descent with far too large a step on a product of two numbers: its loss overflows within a dozen steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 1, bias=False))
    x, y = torch.randn(12, 2), torch.randn(12, 1)
    return model, x, y, SpectrumRecorder(ls.objective(model, "mse", (x, y)), model, num_steps=5, k=1, **options)


def descend(model, x, y, recorder, steps, rate=20.0):
    for step in range(steps):
        recorder(step)
        grads = torch.autograd.grad(nn.functional.mse_loss(model(x), y), list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), grads, strict=True):
                parameter -= rate * gradient


def test_a_training_that_diverges_goes_on_and_is_said(tmp_path):
    model, x, y, recorder = diverging(learning_rate=20.0, folder=tmp_path)
    with pytest.warns(RuntimeWarning, match=r"No spectrum was recorded at step \d+: .*not finite") as caught:
        descend(model, x, y, recorder, 20)
    assert len(caught) == 1
    assert not all(torch.isfinite(parameter).all() for parameter in model.parameters())
    first = recorder.failures[0][0]
    assert [step for step, _ in recorder.failures] == list(range(first, 20)) and recorder.evolution.steps.tolist() == list(range(first))
    assert first >= 2 and np.all(np.isfinite(recorder.evolution.eigenvalues)) and len(list(tmp_path.iterdir())) == first
    (note,) = recorder.evolution.notes
    assert f"at {20 - first} steps from {first} to 19" in note and "not finite" in note and str(recorder.evolution).endswith(note)
    recorder.evolution.save(tmp_path / "all.npz")
    assert ls.load(tmp_path / "all.npz").notes == (note,)
    # What comes back to finite numbers is measured again.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.1)
    assert recorder(20).step == 20 and len(recorder.failures) == 20 - first


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30], ids=["nan", "inf", "overflow"])
@pytest.mark.parametrize("matrix", ["hessian", "ggn", "gradient_covariance"])
def test_nothing_but_what_is_not_finite(matrix, value):
    model, _, _, recorder = diverging(matrix=matrix)
    with torch.no_grad():
        next(model.parameters()).fill_(value)
    with pytest.warns(RuntimeWarning, match="at step 0"):
        assert recorder(0) is None
    with pytest.raises(ValueError, match=r"Nothing was recorded yet: There is no spectrum at step 0, where .* not finite"):
        _ = recorder.evolution
    with pytest.raises(ValueError, match="parameter vector"):  # a mistake is still one
        recorder(1, torch.zeros(3))


def test_callbacks_are_asked_of_the_recorder(monkeypatch):
    from linop_spectra.adapters import callbacks

    _, _, _, recorder = diverging()
    monkeypatch.setattr(callbacks, "_base", lambda *places: object)
    made = {"Keras": recorder.keras_callback(), "Lightning": recorder.lightning_callback(), "HuggingFace": recorder.huggingface_callback()}
    assert all(type(callback).__name__ == f"{name}SpectrumCallback" and callback.recorder is recorder for name, callback in made.items())
    assert hasattr(recorder.keras_callback(per_epoch=True), "on_epoch_end") and not hasattr(made["Keras"], "on_epoch_end")


def test_what_is_missing_is_named():
    _, _, _, objective = setting()
    recorder = SpectrumRecorder(objective)
    with pytest.raises(ValueError, match="does not know what to measure"):
        recorder(0)
    with pytest.raises(ValueError, match="Nothing was recorded"):
        _ = recorder.evolution
    with pytest.raises(ValueError, match="every"):
        SpectrumRecorder(objective, every=0)
    with pytest.raises(TypeError, match="objective"):
        SpectrumRecorder("model")
