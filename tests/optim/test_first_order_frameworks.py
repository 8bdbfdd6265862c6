"""The same network in torch, JAX and Keras: first-order methods make the same twenty steps."""

import numpy as np
import pytest
from first_order_problems import run

import linop_spectra as ls
from linop_spectra.optim.first_order.cauchy import CauchySteps
from linop_spectra.optim.first_order.edge_guard import EdgeOfStabilityGuard
from linop_spectra.optim.first_order.momentum import GradientDescent, HeavyBall, Nesterov
from linop_spectra.optim.first_order.noisy_quadratic import NoisyQuadratic
from linop_spectra.optim.first_order.schedule import SpectralSchedule

_RNG = np.random.default_rng(0)
W1, B1, W2, B2 = (_RNG.standard_normal(shape) / 2 for shape in [(5, 4), 5, (3, 5), 3])
X, Y = _RNG.standard_normal((24, 4)), _RNG.integers(0, 3, 24)
TARGETS = X @ _RNG.standard_normal((4, 2)) + 0.1


def in_torch(kind):
    torch = pytest.importorskip("torch")
    if kind == "regression":
        model = torch.nn.Linear(4, 2).double()
        weights, data = (W1[:2], B1[:2]), (torch.as_tensor(X), torch.as_tensor(TARGETS))
    else:
        model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()
        weights, data = (W1, B1, W2, B2), (torch.as_tensor(X), torch.as_tensor(Y))
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), weights, strict=True):
            parameter.copy_(torch.as_tensor(value))
    return ls.objective(model, "mse" if kind == "regression" else "cross_entropy", data)


def in_jax(kind):
    jnp = pytest.importorskip("jax.numpy")
    if kind == "regression":
        params = {"a": jnp.asarray(W1[:2]), "b": jnp.asarray(B1[:2])}
        return ls.objective(lambda p, x: x @ p["a"].T + p["b"], "mse", (X, TARGETS), params=params)
    params = {"a": jnp.asarray(W1), "b": jnp.asarray(B1), "c": jnp.asarray(W2), "d": jnp.asarray(B2)}
    return ls.objective(lambda p, x: jnp.tanh(x @ p["a"].T + p["b"]) @ p["c"].T + p["d"], "cross_entropy", (X, Y), params=params)


def in_keras(kind):
    keras = pytest.importorskip("keras")
    layers = [keras.Input((4,), dtype="float64")]
    if kind == "regression":
        model = keras.Sequential([*layers, keras.layers.Dense(2, dtype="float64")])
        model.set_weights([W1[:2].T, B1[:2]])
        return ls.objective(model, "mse", (X, TARGETS))
    model = keras.Sequential([*layers, keras.layers.Dense(5, "tanh", dtype="float64"), keras.layers.Dense(3, dtype="float64")])
    model.set_weights([W1.T, B1, W2.T, B2])
    return ls.objective(model, "cross_entropy", (X, Y))


OTHERS = {"jax": in_jax, "keras": in_keras}
# Keras has its weights in another order, and random vectors with it: Krylov spaces start at the gradient, or are everything.
METHODS = {
    "heavy ball": lambda: HeavyBall(learning_rate=0.3, momentum=0.9),
    "Nesterov": lambda: Nesterov(learning_rate=lambda step: 0.5 / (1 + step), momentum=0.8),
    "schedule": lambda: SpectralSchedule(refresh_every=5, num_steps=12, matrix="ggn", start_at="gradient"),
    "Cauchy": lambda: CauchySteps(refresh_every=2, matrix="ggn", evaluate=True),
    "guard": lambda: EdgeOfStabilityGuard(HeavyBall(learning_rate=40.0, momentum=0.5), refresh_every=5, num_steps=22),
}


@pytest.fixture(autouse=True)
def _double_precision():
    jax = pytest.importorskip("jax")
    settings = {"jax_enable_x64": True, "jax_disable_most_optimizations": True}  # the second compiles quickly
    before = {name: jax.config.values[name] for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.parametrize("framework", OTHERS)
def test_twenty_steps(framework):
    objective, reference = OTHERS[framework]("network"), in_torch("network")
    batches = [slice(0, 12), slice(12, 24)]
    parts = [[o.with_data((_like(o, X[b]), _like(o, Y[b]))) for b in batches] for o in (objective, reference)]
    for name, make in METHODS.items():
        numbers = []
        for whole, halves in zip((objective, reference), parts, strict=True):
            method, theta, rows = make(), whole.parameters(), []
            for step in range(20):
                theta, info = method.step(halves[step % 2], theta, curvature=whole)
                rows.append([info.loss, info.gradient_norm, info.step_norm, info.learning_rate, np.linalg.norm(np.asarray(theta))])
            numbers.append(rows)
        np.testing.assert_allclose(numbers[0], numbers[1], rtol=1e-8, atol=1e-8, err_msg=name)
        if name == "guard":
            assert "shortened" in info.message


def _like(objective, array):
    if "torch" not in type(objective.functions).__module__:
        return array
    import torch

    return torch.as_tensor(array)


@pytest.mark.parametrize("framework", ["torch", *OTHERS])
def test_measured_quadratic_is_exact_for_linear_regression(framework):
    """Full-batch methods on linear regression do what the measured noisy quadratic says, rounding apart."""
    objective = {"torch": in_torch, **OTHERS}[framework]("regression")
    model = NoisyQuadratic.measured(objective, num_steps=10)
    heavy, nesterov = (kind(learning_rate=0.2, momentum=0.7) for kind in (HeavyBall, Nesterov))
    for method in (GradientDescent(learning_rate=0.3), heavy, nesterov):
        _, infos = run(method, objective, 20)
        predicted = model.expected_loss(np.arange(20), method.learning_rate, method.momentum, nesterov=isinstance(method, Nesterov))
        np.testing.assert_allclose(predicted, [info.loss for info in infos], rtol=1e-10, atol=1e-14 * infos[0].loss)
