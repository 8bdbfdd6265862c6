"""AdaHessian against Newton's method on diagonal quadratics and against its recursion with dense Hessians in NumPy."""

import numpy as np
import pytest
from newton_objectives import network, quadratic, torch

import linop_spectra as ls
from linop_spectra.backends.probes import random_vector
from linop_spectra.optim.preconditioned.adahessian import AdaHessian
from linop_spectra.optim.preconditioned.diagonal_curvature import convolution_windows


def dense_derivatives(model, loss, x, y, theta):
    """Gradient and Hessian of the mean loss by torch, in the order of the model's parameters."""
    names, shapes = zip(*((name, p.shape) for name, p in model.named_parameters()), strict=True)

    def value(vector):
        parts = torch.split(vector, [shape.numel() for shape in shapes])
        tree = {name: part.reshape(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        return loss(torch.func.functional_call(model, tree, (x,)), y)

    at = torch.as_tensor(theta)
    return torch.func.grad(value)(at).numpy(), torch.autograd.functional.hessian(value, at).numpy()


def signs(n, count, step, seed):
    """What step number `step` draws."""
    return np.array([
        random_vector(n, kind="sign", seed=seed, domain="adahessian", index=step * count + i, dtype=np.dtype(float)) for i in range(count)
    ])  # fmt: skip


@pytest.mark.parametrize("num_samples", [1, 3])
def test_a_diagonal_quadratic_gets_the_step_of_newtons_method(num_samples):
    d = np.array([1e-4, 0.3, 2.0, 50.0, -4.0])
    objective = quadratic(np.diag(d), np.arange(1.0, 6.0), np.ones(5))
    theta, gradient = objective.parameters(), objective.gradient()
    method = AdaHessian(learning_rate=0.7, betas=(0, 0), eps=0, num_samples=num_samples)
    for _ in range(2):
        after, info = method.step(objective, theta)
        np.testing.assert_allclose(after - theta, -0.7 * gradient / abs(d), rtol=1e-12)
        assert info.num_matvecs == num_samples and info.refreshed and info.num_gradients == 1
    half, _ = AdaHessian(learning_rate=1.0, betas=(0, 0), eps=0, hessian_power=0.5).step(objective, theta)
    np.testing.assert_allclose(half - theta, -gradient / abs(d) ** 0.5, rtol=1e-12)
    none, _ = AdaHessian(learning_rate=1.0, betas=(0, 0), eps=0, hessian_power=0).step(objective, theta)
    np.testing.assert_allclose(none - theta, -gradient, rtol=1e-12)
    positive = quadratic(np.diag(abs(d)), np.arange(1.0, 6.0), np.ones(5))
    solved, _ = AdaHessian(learning_rate=1.0, betas=(0, 0), eps=0).step(positive, theta)
    np.testing.assert_allclose(solved, -np.arange(1.0, 6.0) / abs(d), rtol=1e-12)


@pytest.mark.parametrize("matrix", ["hessian", lambda objective: objective.hessian()])
def test_the_recursion_in_numpy(matrix):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
    x, y = torch.randn(12, 3).double(), torch.randint(0, 2, (12,))
    objective, cross_entropy = ls.objective(model, "cross_entropy", (x, y)), torch.nn.functional.cross_entropy
    method = AdaHessian(
        learning_rate=lambda step: 0.1 / (1 + step), betas=(0.8, 0.95), eps=1e-3, hessian_power=0.7, weight_decay=0.2, num_samples=2,
        refresh_every=2, matrix=matrix, seed=4,
    )  # fmt: skip
    theta = expected = objective.parameters()
    n = len(theta)
    m, v, refreshes = np.zeros(n), np.zeros(n), 0
    for t in range(5):
        theta, info = method.step(objective, theta)
        gradient, hessian = dense_derivatives(model, cross_entropy, x, y, expected)
        m = 0.8 * m + 0.2 * gradient
        if t % 2 == 0:
            z = signs(n, 2, t, 4)
            v, refreshes = 0.95 * v + 0.05 * (z * (z @ hessian)).mean(0) ** 2, refreshes + 1
        scale = (v / (1 - 0.95**refreshes)) ** 0.35 + 1e-3
        expected = expected - 0.1 / (1 + t) * (m / (1 - 0.8 ** (t + 1)) / scale + 0.2 * expected)
        np.testing.assert_allclose(theta, expected, rtol=1e-9, atol=1e-12)
        assert info.refreshed == (t % 2 == 0) and info.num_matvecs == (0 if t % 2 else 2)


def test_off_the_diagonal_the_mean_of_squares_is_the_norm_of_a_row():
    """What the docstring warns of: one sample has the off-diagonal entries for noise, and their squares do not cancel."""
    n, steps = 6, 300
    rng = np.random.default_rng(0)
    a = rng.standard_normal((n, n))
    a = a + a.T
    objective = quadratic(a, np.zeros(n), np.ones(n))
    method = AdaHessian(learning_rate=1e-12, betas=(0.0, 1 - 1e-9))
    for _ in range(steps):
        method.step(objective, np.ones(n))
    found = method.state["squares"] / (1 - method.betas[1] ** steps)
    every = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    squares = (every * (every @ a)) ** 2
    np.testing.assert_allclose(squares.mean(0), (a**2).sum(0))
    assert (abs(found - squares.mean(0)) < 4.5 * squares.std(0) / steps**0.5).all()
    assert (squares.mean(0) > 2 * np.diag(a) ** 2).any()


def test_batch_statistics_in_training_mode():
    torch.manual_seed(0)
    nn = torch.nn
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    objective = ls.objective(model, "cross_entropy", (torch.randn(8, 1, 4, 4), torch.randint(0, 2, (8,))), batch_norm="train")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    theta, method = objective.parameters(), AdaHessian()
    for _ in range(10):
        theta, info = method.step(objective, theta)
    assert info.details["averaged"] == 18 and info.loss < objective.value()
    assert all((before[name] == value).all() for name, value in model.state_dict().items())


def test_kernels_are_averaged_over_their_window():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, (3, 2)), torch.nn.Tanh(), torch.nn.Conv2d(4, 4, 2, groups=4, bias=False), torch.nn.Tanh(), torch.nn.Flatten(),
        torch.nn.Linear(8, 2),
    ).double()  # fmt: skip
    x, y = torch.randn(6, 2, 4, 4).double(), torch.randint(0, 2, (6,))
    objective = ls.objective(model, "cross_entropy", (x, y))
    theta = objective.parameters()
    gradient, hessian = dense_derivatives(model, torch.nn.functional.cross_entropy, x, y, theta)
    z = signs(len(theta), 1, 0, 0)[0]
    estimate = z * (hessian @ z)
    plain, info = AdaHessian(learning_rate=1.0, betas=(0, 0), eps=1e-4, spatial_average=False).step(objective, theta)
    np.testing.assert_allclose(plain - theta, -gradient / (abs(estimate) + 1e-4), rtol=1e-8)
    assert "averaged" not in info.details
    kernel = estimate[:48].reshape(4, 2, 3, 2)  # the second one has groups and is left alone
    estimate[:48] = np.broadcast_to(kernel.mean((2, 3), keepdims=True), kernel.shape).ravel()
    after, info = AdaHessian(learning_rate=1.0, betas=(0, 0), eps=1e-4).step(objective, theta)
    np.testing.assert_allclose(after - theta, -gradient / (abs(estimate) + 1e-4), rtol=1e-8)
    assert info.details["averaged"] == 48


def test_kernels_in_one_and_three_axes():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.line, self.space = torch.nn.Conv1d(2, 3, 4), torch.nn.Conv3d(1, 2, 2, bias=False)

        def forward(self, x):  # (n, 8)
            return self.line(x.reshape(-1, 2, 4)).mean(2)[:, :2] + self.space(x.reshape(-1, 1, 2, 2, 2)).mean((2, 3, 4))

    objective = ls.objective(Net(), "mse", (torch.randn(3, 8), torch.randn(3, 2)))
    places = objective.blocks
    assert convolution_windows(objective) == [(places["line.weight"], (6, 4), 1), (places["space.weight"], (2, 8), 1)]
    assert convolution_windows(network()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"learning_rate": -1.0}, "must be finite and positive"), ({"betas": (0.9,)}, "two numbers"), ({"betas": (0.9, 1.0)}, "below 1"),
        ({"eps": -1e-3}, "argument eps"), ({"hessian_power": 1.5}, "between 0 and 1"), ({"num_samples": 0}, "num_samples"),
        ({"refresh_every": 0}, "refresh_every"), ({"matrix": "hesse"}, "argument matrix"), ({"seed": -1}, "argument seed"),
        ({"weight_decay": np.nan}, "weight_decay"),
    ],
)  # fmt: skip
def test_wrong_settings_are_said(options, words):
    with pytest.raises(ValueError, match=words):
        AdaHessian(**options)


def test_flat_directions_need_eps():
    objective = quadratic(np.diag([1.0, 0.0]), np.array([1.0, 1.0]), np.ones(2))
    method = AdaHessian(eps=0)
    with pytest.raises(ValueError, match="eps is 0, but the diagonal of the hessian has 1 zeros"):
        method.step(objective, objective.parameters())
    assert method.steps_taken == 0 and "mean" not in method.state
    after, _ = AdaHessian(learning_rate=0.1, betas=(0, 0), eps=0.5).step(objective, objective.parameters())
    np.testing.assert_allclose(after - 1, [-0.1 * 2 / 1.5, -0.1 / 0.5])
