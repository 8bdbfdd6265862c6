"""Sophia against its recursion in NumPy, with drawn targets and dense Hessians computed apart from the library."""

import numpy as np
import pytest
from newton_objectives import network, quadratic, torch

import linop_spectra as ls
from linop_spectra.backends.probes import random_vector
from linop_spectra.curvature.examples import random_numbers
from linop_spectra.optim.preconditioned.diagonal_curvature import seed_of_step
from linop_spectra.optim.preconditioned.sophia import Sophia


def recursion(gradients, estimates, theta, *, rate, betas, gamma, eps, decay, every):
    """The paper's algorithm 3; ``gradients(theta)`` and ``estimates(theta, step)``."""
    m = h = np.zeros_like(theta)
    t = 0
    while True:
        m = betas[0] * m + (1 - betas[0]) * gradients(theta)
        if t % every == 0:
            h = betas[1] * h + (1 - betas[1]) * estimates(theta, t)
        ratio = m / np.maximum(gamma * h, eps)
        theta = theta - rate * decay * theta - rate * np.clip(ratio, -1, 1)
        yield theta, float((abs(ratio) >= 1).mean())
        t += 1


@pytest.mark.parametrize("num_samples", [1, 2])
def test_gauss_newton_bartlett_in_numpy(num_samples):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3)).double()
    x, y = torch.randn(15, 3).double(), torch.randint(0, 3, (15,))
    objective = ls.objective(model, "cross_entropy", (x, y))

    def gradient(theta, targets):
        torch.nn.utils.vector_to_parameters(torch.as_tensor(theta), model.parameters())
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(x), targets).backward()
        return torch.cat([p.grad.ravel() for p in model.parameters()]).numpy()

    def estimate(theta, step):
        torch.nn.utils.vector_to_parameters(torch.as_tensor(theta), model.parameters())
        cumulative = torch.softmax(model(x), 1).cumsum(1).detach().numpy()
        found = 0.0
        for sample in range(num_samples):
            uniform = random_numbers("uniform", 15, seed=seed_of_step(3, step), sample=sample, start=0)
            drawn = torch.as_tensor((cumulative <= uniform[:, None]).sum(1).clip(max=2))
            found = found + 15 * gradient(theta, drawn) ** 2 / num_samples
        return found

    method = Sophia(
        learning_rate=0.02, betas=(0.7, 0.6), gamma=0.4, weight_decay=0.1, num_samples=num_samples, refresh_every=3, seed=3
    )
    theta, expected = objective.parameters(), objective.parameters()
    steps = recursion(
        lambda theta: gradient(theta, y), estimate, expected, rate=0.02, betas=(0.7, 0.6), gamma=0.4, eps=1e-12, decay=0.1, every=3
    )
    fractions = []
    for t, (expected, fraction) in zip(range(7), steps, strict=False):
        theta, info = method.step(objective, theta)
        np.testing.assert_allclose(theta, expected, rtol=1e-9, atol=1e-12)
        assert info.details["clip_fraction"] == fraction and info.refreshed == (t % 3 == 0) and info.num_matvecs == 0
        assert info.num_gradients == (1 + num_samples if t % 3 == 0 else 1)
        fractions.append(fraction)
    assert 0 < np.mean(fractions) < 1  # both sides of the clip were met


def test_hutchinson_in_numpy():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((6, 6))
    a = a + a.T + 3 * np.eye(6)
    b, at = rng.standard_normal(6), rng.standard_normal(6)
    objective = quadratic(a, b, at)

    def estimate(theta, step):
        z = random_vector(6, kind="sign", seed=1, domain="sophia", index=step, dtype=np.dtype(float))
        return z * (a @ z)

    method = Sophia(learning_rate=0.1, estimator="hutchinson", gamma=0.2, refresh_every=2, seed=1)
    theta = objective.parameters()
    steps = recursion(lambda theta: a @ theta + b, estimate, at, rate=0.1, betas=(0.96, 0.99), gamma=0.2, eps=1e-12, decay=0, every=2)
    for t, (expected, fraction) in zip(range(8), steps, strict=False):
        theta, info = method.step(objective, theta)
        np.testing.assert_allclose(theta, expected, rtol=1e-10)
        assert info.details["clip_fraction"] == fraction and info.num_matvecs == (1 if t % 2 == 0 else 0)


def test_without_curvature_it_is_descent_by_signs():
    objective = quadratic(np.zeros((4, 4)), np.array([3.0, -1e-3, 1e6, 0.0]), np.ones(4))
    theta, info = Sophia(learning_rate=0.1, estimator="hutchinson").step(objective, objective.parameters())
    np.testing.assert_allclose(theta - 1, [-0.1, 0.1, -0.1, 0.0], rtol=1e-14)
    assert info.details["clip_fraction"] == 0.75


def test_negative_curvature_is_descended_by_signs_and_large_curvature_by_newtons_step():
    objective = quadratic(np.diag([-5.0, 1e4]), np.array([1.0, 2.0]), np.zeros(2))
    theta, info = Sophia(learning_rate=0.3, estimator="hutchinson", betas=(0, 0), gamma=1.0).step(objective, objective.parameters())
    np.testing.assert_allclose(theta, [-0.3, -0.3 * 2 / 1e4], rtol=1e-12)
    assert info.details["clip_fraction"] == 0.5


def test_no_entry_moves_further_than_the_learning_rate():
    objective = network()
    theta, method = objective.parameters(), Sophia(learning_rate=0.01)
    for _ in range(12):
        after, _ = method.step(objective, theta)
        assert abs(after - theta).max() <= 0.01 * (1 + 1e-12)
        theta = after


def test_the_defaults_are_those_of_the_paper():
    assert (Sophia().gamma, Sophia(estimator="hutchinson").gamma, Sophia().betas, Sophia().refresh_every) == (0.05, 0.01, (0.96, 0.99), 10)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"estimator": "fisher"}, "'gnb' or 'hutchinson'"), ({"gamma": 0.0}, "argument gamma"), ({"eps": 0.0}, "argument eps"),
        ({"betas": 0.9}, "two numbers"), ({"betas": (-0.1, 0.9)}, "at least zero"), ({"learning_rate": np.inf}, "finite and positive"),
        ({"num_samples": 1.5}, "num_samples"), ({"seed": 0.5}, "argument seed"),
    ],
)  # fmt: skip
def test_wrong_settings_are_said(options, words):
    with pytest.raises(ValueError, match=words):
        Sophia(**options)


def test_drawn_targets_need_a_likelihood():
    model = torch.nn.Linear(2, 1)
    objective = ls.objective(model, lambda outputs, targets: (outputs - targets).abs().mean(), (torch.randn(5, 2), torch.randn(5, 1)))
    with pytest.raises(TypeError, match="likelihood"):
        Sophia().step(objective, objective.parameters())
