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
