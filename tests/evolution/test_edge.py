"""Stability thresholds against iterations on a quadratic, and the edge of stability of gradient descent."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import linop_spectra as ls
from linop_spectra.evolution import SpectrumRecorder, stability_threshold

BETA = 0.9


def grows(update, curvature):
    """Whether an iteration on ``curvature x^2 / 2`` diverges; each update gets state and gradient function."""
    state = (1.0, 0.0)
    for _ in range(4000):
        state = update(state, curvature)
        if abs(state[0]) > 1e6:
            return True
    return abs(state[0]) > 1.0


UPDATES = {
    "gd": (0.0, lambda s, c: (s[0] - c * s[0], 0.0)),
    "heavy_ball": (BETA, lambda s, c: (s[0] + BETA * s[1] - c * s[0], BETA * s[1] - c * s[0])),
    "nesterov": (BETA, lambda s, c: (lambda v: (s[0] + v, v))(BETA * s[1] - c * (s[0] + BETA * s[1]))),
    "adam": (BETA, lambda s, c: (lambda m: (s[0] - m, m))(BETA * s[1] + (1 - BETA) * c * s[0])),
}


@pytest.mark.parametrize("method", UPDATES)
def test_threshold_is_where_iterations_begin_to_diverge(method):
    momentum, update = UPDATES[method]
    limit = stability_threshold(1.0, method, momentum=momentum)
    assert not grows(update, 0.99 * limit) and grows(update, 1.01 * limit)


@pytest.mark.parametrize("arguments, words", [
    ({"learning_rate": 0.0}, "learning_rate"), ({"learning_rate": 1.0, "momentum": 1.0}, "momentum"),
    ({"learning_rate": 1.0, "method": "sgd"}, "method"), ({"learning_rate": 1.0, "momentum": 0.5}, "plain gradient descent"),
])  # fmt: skip
def test_wrong_thresholds(arguments, words):
    with pytest.raises(ValueError, match=words):
        stability_threshold(**arguments)


@pytest.mark.parametrize("rate", [0.05, 0.02])
def test_scalar_model_ends_at_the_edge(rate):
    """(1 - x^2 y^2)^2 / 2 has the minima x y = 1 with largest eigenvalue 4 (x^2 + y^2); from 1.2 times 2 / rate it goes to the edge."""
    total = 1.2 * 2 / rate / 4
    x, y = (math.sqrt((total + sign * math.sqrt(total**2 - 4)) / 2) for sign in (1, -1))
    y += 1e-3
    for _ in range(40_000):
        r = (1 - x * x * y * y) * 2 * x * y
        x, y = x + rate * r * y, y + rate * r * x

    class Scalar(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor([x, y], dtype=torch.float64))

    loss = ls.BatchLoss(lambda model, batch: (0.5 * (1 - (model.w[0] * model.w[1]) ** 2) ** 2, 1.0))
    recorder = SpectrumRecorder(ls.objective(Scalar(), loss, [torch.zeros(1)]), num_steps=2, k=1, learning_rate=rate)
    snapshot = recorder(0, torch.tensor([x, y], dtype=torch.float64).numpy())
    assert snapshot.eigenvalues[0] == pytest.approx(4 * (x * x + y * y), rel=1e-3)  # at a minimum
    assert recorder.evolution.edge_ratios[0] == pytest.approx(1.0, abs=5e-3)


X = np.linspace(-1, 1, 20)[:, None]
TARGET = 4 * X**3 - 3 * X  # the cubic Chebyshev polynomial


def weights_of(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))
    return [p.detach().double().numpy() for p in net.parameters()]


def half_square(outputs, targets):
    return 0.5 * ((outputs - targets) ** 2).sum(), outputs.shape[0]


def in_torch(weights):
    net = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)).double()
    with torch.no_grad():
        for parameter, value in zip(net.parameters(), weights, strict=True):
            parameter.copy_(torch.as_tensor(value))
    return ls.objective(net, half_square, (torch.as_tensor(X), torch.as_tensor(TARGET)))


def in_jax(weights):
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)

    def apply(params, x):
        w1, b1, w2, b2, w3, b3 = params
        return jax.numpy.tanh(jax.numpy.tanh(x @ w1.T + b1) @ w2.T + b2) @ w3.T + b3

    return ls.objective(apply, half_square, (X, TARGET), params=[np.array(w) for w in weights])


def in_keras(weights):
    keras = pytest.importorskip("keras")
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((1,), dtype="float64"), layers.Dense(16, "tanh", dtype="float64"), layers.Dense(16, "tanh", dtype="float64"),
        layers.Dense(1, dtype="float64"),
    ])  # fmt: skip
    model.set_weights([w.T for w in weights])
    return ls.objective(model, "mse", (X, 1.0 * TARGET))


def descend(objective, rate, steps, recorder):
    """Gradient descent on all of the data, by the framework's own gradients."""
    theta = objective.parameters()
    for step in range(steps + 1):
        recorder(step, theta)
        theta = theta - rate * objective.with_parameters(theta).gradient()
    return recorder.evolution


@pytest.mark.parametrize("make, rate, seed, steps", [(in_torch, 0.4, 0, 3000), (in_jax, 0.2, 1, 2500)])
def test_largest_eigenvalue_of_a_network_rises_to_two_over_the_learning_rate(make, rate, seed, steps):
    """1-16-16-1 with tanh under full-batch gradient descent: a mean over the oscillation around the edge."""
    objective = make(weights_of(seed))
    moments = [0, *range(steps - 1000, steps + 1, 50)]
    recorder = SpectrumRecorder(objective, steps=moments, num_steps=12, k=1, learning_rate=rate)
    found = descend(objective, rate, steps, recorder)
    assert found.edge_ratios[0] < 0.8 and np.all(found.thresholds == 2 / rate)
    assert np.mean(found.eigenvalues[1:, 0]) == pytest.approx(2 / rate, rel=0.02)


def test_frameworks_record_the_same_training():
    """Eigenvalues, spectra and loss along a few steps; Keras knows squared errors by a mean without the half."""
    weights, rate, found = weights_of(2), 0.3, []
    for make, scale in ((in_torch, 1.0), (in_jax, 1.0), (in_keras, 2.0)):
        objective = make(weights)
        recorder = SpectrumRecorder(objective, every=4, num_steps=20, k=2, tol=1e-9, learning_rate=rate)
        evolution = descend(objective, rate / scale, 12, recorder)
        assert evolution.steps.tolist() == [0, 4, 8, 12]
        found.append([evolution.loss / scale, evolution.eigenvalues / scale, evolution.edge_ratios / scale])
    for other in found[1:]:
        for ours, theirs in zip(found[0], other, strict=True):
            np.testing.assert_allclose(theirs, ours, rtol=1e-7)
    loss, eigenvalues, _ = found[0]
    assert loss[-1] < loss[0] and np.ptp(eigenvalues[:, 0]) > 1e-2
