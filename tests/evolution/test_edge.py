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


def train(weights, rate, steps, record):
    """Full-batch gradient descent of a 1-16-16-1 tanh network on the cubic Chebyshev polynomial, by hand."""
    x = np.linspace(-1, 1, 20)[:, None]
    target = 4 * x**3 - 3 * x
    w1, b1, w2, b2, w3, b3 = (np.array(w) for w in weights)
    for step in range(steps + 1):
        record(step, (w1, b1, w2, b2, w3, b3))
        h1 = np.tanh(x @ w1.T + b1)
        h2 = np.tanh(h1 @ w2.T + b2)
        e3 = (h2 @ w3.T + b3 - target) / 20
        e2 = (e3 @ w3) * (1 - h2**2)
        e1 = (e2 @ w2) * (1 - h1**2)
        w3, b3 = w3 - rate * e3.T @ h2, b3 - rate * e3.sum(0)
        w2, b2 = w2 - rate * e2.T @ h1, b2 - rate * e2.sum(0)
        w1, b1 = w1 - rate * e1.T @ x, b1 - rate * e1.sum(0)


@pytest.mark.parametrize("rate, seed, steps", [(0.4, 0, 20_000), (0.2, 1, 8_000)])
def test_largest_eigenvalue_of_a_network_rises_to_two_over_the_learning_rate(rate, seed, steps):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)).double()
    x = torch.linspace(-1, 1, 20, dtype=torch.float64)[:, None]
    objective = ls.objective(net, lambda out, y: (0.5 * ((out - y) ** 2).sum(), out.shape[0]), (x, 4 * x**3 - 3 * x))
    moments = [0, *range(steps - 4000, steps + 1, 500)]
    recorder = SpectrumRecorder(objective, steps=moments, num_steps=20, k=2, learning_rate=rate)
    weights = [p.detach().numpy() for p in net.parameters()]
    train(weights, rate, steps, lambda step, parameters: recorder(step, parameters) if recorder.due(step) else None)
    found = recorder.evolution
    assert found.edge_ratios[0] < 0.8
    # A mean over the oscillation around the edge.
    assert np.mean(found.eigenvalues[1:, 0]) == pytest.approx(2 / rate, rel=0.02)
