"""Gradient methods on noisy quadratics: closed forms against simulation, Lyapunov equations and networks."""

import math

import numpy as np
import pytest
import torch
from first_order_problems import network, quadratic, run
from scipy import linalg, optimize

import linop_spectra as ls
from linop_spectra.optim.first_order.momentum import GradientDescent, HeavyBall, Nesterov
from linop_spectra.optim.first_order.noisy_quadratic import NoisyQuadratic

METHODS = {"gd": (0.0, False), "heavy ball": (0.7, False), "Nesterov": (0.7, True)}
H, NOISE, START = np.array([0.05, 0.4, 1.0]), np.array([0.2, 0.1, 0.3]), np.array([1.0, 2.0, 0.5])


def simulate(values, noise, start, rates, momentum, nesterov, seeds=20_000):
    """Positions after each step, shape (steps + 1, seeds, k), by the definition of the methods in torch."""
    rng = np.random.default_rng(0)
    x, v = np.broadcast_to(np.sqrt(start), (seeds, len(values))).copy(), 0.0
    out = [x]
    for eta in rates:
        g = values * x + rng.standard_normal(x.shape) * np.sqrt(noise)
        v = momentum * v + g
        x = x - eta * (g + momentum * v if nesterov else v)
        out.append(x)
    return np.array(out)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("changing", [False, True])
def test_simulation(name, changing):
    """Means, variances and losses within five standard errors."""
    momentum, nesterov = METHODS[name]
    rates = 0.5 / (1 + 0.2 * np.arange(12)) if changing else np.full(12, 0.5)
    x = simulate(H, NOISE, START, rates, momentum, nesterov)
    model, steps = NoisyQuadratic(H, NOISE, start=START, minimum=3.0), np.arange(13)
    given = rates if changing else 0.5
    mean = np.sqrt(START) * model.gain(steps, given, momentum, nesterov=nesterov)
    variance = model.variance(steps, given, momentum, nesterov=nesterov)
    seeds = x.shape[1]
    error = np.sqrt(variance / seeds)
    assert (np.abs(x.mean(axis=1) - mean) <= 5 * error + 1e-10).all()
    assert (np.abs(x.var(axis=1) - variance) <= 5 * np.sqrt(2 / seeds) * variance + 1e-10).all()
    losses = 3.0 + 0.5 * (H * x**2).sum(axis=2)
    expected = model.expected_loss(steps, given, momentum, nesterov=nesterov)
    assert (np.abs(losses.mean(axis=1) - expected) <= 5 * losses.std(axis=1) / math.sqrt(seeds) + 1e-10).all()
    assert model.expected_loss(5, given, momentum, nesterov=nesterov) == pytest.approx(expected[5], rel=1e-12)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("eta", [0.01, 0.5, 1.2])
def test_stationary_variance_solves_the_lyapunov_equation(name, eta):
    momentum, nesterov = METHODS[name]
    model = NoisyQuadratic(H, NOISE)
    found = model.stationary_variance(eta, momentum, nesterov=nesterov)
    for h, c, variance in zip(H, NOISE, found, strict=True):
        if nesterov:
            # Positions w after the gradient step, y = w + b (w - w_before), w' = y - eta (h y + noise); the parameters are y.
            A = np.array([[(1 - eta * h) * (1 + momentum), -(1 - eta * h) * momentum], [1.0, 0.0]])
            look = np.array([1 + momentum, -momentum])
        else:
            A = np.array([[1 + momentum - eta * h, -momentum], [1.0, 0.0]])
            look = np.array([1.0, 0.0])
        covariance = linalg.solve_discrete_lyapunov(A, np.diag([eta**2 * c, 0.0]))
        assert variance == pytest.approx(look @ covariance @ look, rel=1e-8)
    late = model.variance(10**6, eta, momentum, nesterov=nesterov)
    np.testing.assert_allclose(late, found, rtol=1e-8)
    assert model.stationary_loss(eta, momentum, nesterov=nesterov) == pytest.approx(0.5 * (H * found).sum(), rel=1e-12)


def test_gradient_descent_in_closed_form():
    eta, t = 0.3, np.arange(20)[:, None]
    model, q = NoisyQuadratic(H, NOISE, start=START), 1 - 0.3 * H
    np.testing.assert_allclose(model.stationary_variance(eta), eta * NOISE / (H * (2 - eta * H)), rtol=1e-13)
    np.testing.assert_allclose(model.gain(t[:, 0], eta), q**t, rtol=1e-12)
    np.testing.assert_allclose(model.variance(t[:, 0], eta), eta**2 * NOISE * (1 - q ** (2 * t)) / (1 - q**2), rtol=1e-11)


@pytest.mark.parametrize("name", METHODS)
def test_rate_and_stability(name):
    momentum, nesterov = METHODS[name]
    model = NoisyQuadratic(H, 0.0, start=START)
    # Means over a window, because complex roots make the losses oscillate.
    early, late = (model.expected_loss(first + np.arange(40), 0.8, momentum, nesterov=nesterov).mean() for first in (100, 900))
    assert (late / early) ** (1 / 1600) == pytest.approx(model.rate(0.8, momentum, nesterov=nesterov), rel=0.002)
    limit = model.largest_learning_rate(momentum, nesterov=nesterov)
    for factor, stable in [(0.999, True), (1.001, False)]:
        assert model.stable(factor * limit, momentum, nesterov=nesterov) is stable
        assert (model.rate(factor * limit, momentum, nesterov=nesterov) < 1) is stable
        assert math.isfinite(NoisyQuadratic(H, 1.0).stationary_loss(factor * limit, momentum, nesterov=nesterov)) is stable
    assert model.expected_loss(10**6, 1.5 * limit, momentum, nesterov=nesterov) == math.inf


@pytest.mark.parametrize("name", METHODS)
def test_best_learning_rate(name):
    """Against brute force; for one step of gradient descent it is the greedy one."""
    momentum, nesterov = METHODS[name]
    model = NoisyQuadratic(H, NOISE, start=START)
    for steps in (1, 7, 60):
        best = model.best_learning_rate(steps, momentum, nesterov=nesterov)
        grid = np.linspace(1e-4, 1, 500) * model.largest_learning_rate(momentum, nesterov=nesterov)
        losses = [model.expected_loss(steps, eta, momentum, nesterov=nesterov) for eta in grid]
        assert model.expected_loss(steps, best, momentum, nesterov=nesterov) <= min(losses) * (1 + 1e-9)
    found = optimize.minimize_scalar(lambda eta: model.expected_loss(1, eta), bounds=(0, 2), method="bounded", options={"xatol": 1e-10})
    assert model.greedy_learning_rate() == pytest.approx(found.x, rel=1e-5)
    # One eigenvalue (Schaul, Zhang and LeCun): x^2 / (x^2 + noise of the position) over the curvature.
    assert NoisyQuadratic([2.0], 0.5).greedy_learning_rate(start=3.0) == pytest.approx(0.5 * 3.0 / (3.0 + 0.5 / 4.0))


def test_larger_momentum_pays_where_noise_is_small():
    """Zhang et al. (2019): without noise momentum speeds an ill-conditioned problem up, at the noise floor it does not."""
    h = 1.0 / np.arange(1, 201)
    for noise, faster in [(0.0, True), (1.0, False)]:
        model = NoisyQuadratic(h, lambda values, noise=noise: noise * values)
        plain = model.expected_loss(50, model.best_learning_rate(50))
        heavy = model.expected_loss(50, model.best_learning_rate(50, 0.9), 0.9)
        assert (heavy < 0.5 * plain) is faster


def test_spectra_of_every_kind():
    """Eigenvalues, a measured density and a law give the same losses."""
    law = ls.random_matrices.MarchenkoPastur(ratio=0.5)
    from_law = NoisyQuadratic(law, lambda h: 0.01 * h, dimension=3000, num_nodes=40)
    values = law.quantile((np.arange(3000) + 0.5) / 3000)
    from_values = NoisyQuadratic(values, lambda h: 0.01 * h)
    density = ls.spectral_density(ls.diagonal_operator(values), num_steps=40, num_probes=8)
    from_density = NoisyQuadratic(density, lambda h: 0.01 * h)
    steps = np.array([0, 1, 5, 20])
    expected = from_values.expected_loss(steps, 0.3, 0.5)
    np.testing.assert_allclose(from_law.expected_loss(steps, 0.3, 0.5), expected, rtol=2e-3)
    np.testing.assert_allclose(from_density.expected_loss(steps, 0.3, 0.5), expected, rtol=0.05)
    assert from_law.largest == pytest.approx(law.support[0][1]) and from_density.largest == pytest.approx(values.max(), rel=1e-2)
    # The Gauss rule is exact: loss after t steps of gradient descent is a polynomial of degree 2 t + 1.
    rough = NoisyQuadratic(law, 0.0, dimension=1, num_nodes=6).expected_loss(5, 0.3)
    assert rough == pytest.approx(NoisyQuadratic(law, 0.0, dimension=1, num_nodes=200).expected_loss(5, 0.3), rel=1e-11)


def test_flat_and_negative_eigenvalues():
    model = NoisyQuadratic([0.0, 1.0], noise=0.1)
    assert model.stationary_variance(0.5)[0] == math.inf and math.isfinite(model.stationary_loss(0.5)) and model.stable(0.5)
    assert model.rate(0.5) == pytest.approx(0.5) and model.variance(10, 0.5)[0] == pytest.approx(10 * 0.25 * 0.1)
    saddle = NoisyQuadratic([-0.1, 1.0], noise=0.1)
    assert not saddle.stable(0.5) and saddle.rate(0.5) == pytest.approx(1.05) and saddle.expected_loss(200, 0.5) < -1e3
    with pytest.raises(ValueError, match="negative eigenvalues"):
        saddle.stationary_loss(0.5)
    with pytest.raises(ValueError, match="No eigenvalue is positive"):
        NoisyQuadratic([-1.0, 0.0], 0.1).best_learning_rate(3)
    with pytest.raises(ValueError, match="no learning rate is best"):
        NoisyQuadratic([-1.0, 0.0], 0.1).greedy_learning_rate()


@pytest.mark.parametrize("make, words", [
    (lambda: NoisyQuadratic([1.0, np.nan], 0.1), "spectrum"), (lambda: NoisyQuadratic([], 0.1), "spectrum"),
    (lambda: NoisyQuadratic([1.0, 2.0], [0.1, 0.2, 0.3]), "noise has shape"), (lambda: NoisyQuadratic([1.0], -0.1), "noise"),
    (lambda: NoisyQuadratic([1.0], 0.1, start=-1.0), "start"), (lambda: NoisyQuadratic([1.0], 0.1, dimension=3), "dimension"),
    (lambda: NoisyQuadratic(ls.random_matrices.Semicircle(), 0.1), "dimension"),
    (lambda: NoisyQuadratic([1.0], 0.1, minimum=np.inf), "minimum"),
    (lambda: NoisyQuadratic([1.0], 0.1, multiplicities=[-1.0]), "multiplicities"),
    (lambda: NoisyQuadratic([1.0], 0.1).expected_loss(3, -0.1), "learning_rate"),
    (lambda: NoisyQuadratic([1.0], 0.1).expected_loss(3, [0.1, 0.1]), "2 entries"),
    (lambda: NoisyQuadratic([1.0], 0.1).expected_loss(-1, 0.1), "num_steps"),
    (lambda: NoisyQuadratic([1.0], 0.1).expected_loss(0.5, 0.1), "num_steps"),
    (lambda: NoisyQuadratic([1.0], 0.1).expected_loss(3, 0.1, 1.0), "momentum"),
    (lambda: NoisyQuadratic([1.0], 0.1).stationary_variance(0.1, 1.0), "momentum"),
])  # fmt: skip
def test_wrong_input(make, words):
    with pytest.raises(ValueError, match=words):
        make()


# -- measured on objectives --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: GradientDescent(learning_rate=0.2), lambda: HeavyBall(learning_rate=0.2, momentum=0.6),
                                  lambda: Nesterov(learning_rate=0.2, momentum=0.6)], ids=["gd", "heavy ball", "Nesterov"])  # fmt: skip
def test_few_products_predict_as_many_steps(make):
    """Seven products at the gradient give the losses of the first seven steps of a method with 60 eigenvalues, rounding apart."""
    objective = quadratic(np.geomspace(0.001, 4.0, 60), start=np.random.default_rng(0).standard_normal(60))
    model = NoisyQuadratic.measured(objective, num_steps=7)
    assert model.num_matvecs == 7 and len(model.eigenvalues) == 7
    method = make()
    _, infos = run(method, objective, 9)
    found = model.expected_loss(np.arange(9), 0.2, method.momentum, nesterov=isinstance(method, Nesterov))
    np.testing.assert_allclose(found[:8], [info.loss for info in infos[:8]], rtol=1e-10)
    assert abs(found[8] / infos[8].loss - 1) < 1e-2


def test_prediction_for_a_network():
    """With small steps a network follows the quadratic at its start for a while; with larger ones the prediction is rougher."""
    model, data = network(examples=60)
    objective = ls.objective(model, "cross_entropy", data)
    predicted = NoisyQuadratic.measured(objective, num_steps=20)
    for rate, tolerance in [(0.01, 0.01), (0.1, 0.1)]:
        _, infos = run(HeavyBall(learning_rate=rate, momentum=0.9), objective, 11)
        fall = infos[0].loss - predicted.expected_loss(10, rate, 0.9)
        assert fall == pytest.approx(infos[0].loss - infos[10].loss, rel=tolerance)


def test_noise_of_batches():
    """Linear regression at the minimum, where the noise of batches is all: many runs with batches drawn without replacement.

    Steps are small, so that the noise hardly changes from where it was measured.
    """
    torch.manual_seed(0)
    x = torch.randn(32, 4, dtype=torch.float64) * torch.tensor([0.3, 0.6, 1.0, 1.5])
    y = x.sum(dim=1, keepdim=True) + torch.randn(32, 1, dtype=torch.float64)
    w = torch.linalg.lstsq(x, y).solution
    layer = torch.nn.Linear(4, 1, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(w.T)
    objective = ls.objective(layer, "mse", (x, y), batch_size=1)
    model = NoisyQuadratic.measured(objective, batch_size=8, num_noise_vectors=32, num_steps=4)
    X, Y, theta = x.numpy(), y.numpy()[:, 0], w.numpy()[:, 0]
    rng, eta, steps, seeds = np.random.default_rng(1), 0.02, 15, 4000
    t = np.tile(theta, (seeds, 1))
    for _ in range(steps):
        chosen = rng.random((seeds, 32)).argsort(axis=1)[:, :8]
        errors = np.einsum("sbk,sk->sb", X[chosen], t) - Y[chosen]
        t -= eta * 2 / 8 * np.einsum("sbk,sb->sk", X[chosen], errors)
    losses = np.mean((t @ X.T - Y) ** 2, axis=1)
    least = np.mean((X @ theta - Y) ** 2)
    error = np.std(losses) / math.sqrt(seeds)
    predicted = model.expected_loss(steps, eta)
    assert np.mean(losses) - least > 20 * error
    assert abs(np.mean(losses) - predicted) < 5 * error + 0.03 * (predicted - least)
    assert NoisyQuadratic.measured(objective, batch_size=16, num_noise_vectors=32).noise.sum() == pytest.approx(
        model.noise.sum() * (1 / 16 - 1 / 32) / (1 / 8 - 1 / 32)
    )


def test_objectives_that_predict_nothing():
    with pytest.raises(ValueError, match="nothing to predict"):
        NoisyQuadratic.measured(quadratic([1.0, 2.0], start=[0.0, 0.0]))
    model, data = network()
    objective = ls.objective(model, "cross_entropy", data)
    with pytest.raises(ValueError, match="one batch"):
        NoisyQuadratic.measured(objective, batch_size=4)
    assert not NoisyQuadratic.measured(objective, batch_size=24).noise.any()
    with pytest.raises(TypeError, match="ndarray"):
        NoisyQuadratic.measured(np.ones(3))
    with pytest.raises(ValueError, match="matrix"):
        NoisyQuadratic.measured(objective, matrix="kfac")
