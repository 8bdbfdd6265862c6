"""The same runs of cubic regularisation and trust regions in every framework."""

import itertools

import numpy as np
import pytest

import linop_spectra as ls
from linop_spectra.optim.regions.cubic import CubicNewton
from linop_spectra.optim.regions.trust_region import TrustRegionNewton

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((30, 4)), RNG.integers(0, 3, 30)
W1, B1, W2, B2 = (RNG.standard_normal(shape) / 2 for shape in ((5, 4), (5,), (3, 5), (3,)))
METHODS = {
    "cubic": lambda: CubicNewton(num_steps=15),
    "gltr": lambda: TrustRegionNewton(num_steps=15),
    "steihaug": lambda: TrustRegionNewton(num_steps=15, method="steihaug"),
}


def torch_objective():
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), (W1, B1, W2, B2), strict=True):
            parameter.copy_(torch.as_tensor(value))
    return ls.objective(model, "cross_entropy", (torch.as_tensor(X), torch.as_tensor(Y)))


def jax_objective():
    jax = pytest.importorskip("jax")
    params = [jax.numpy.asarray(value) for value in (W1, B1, W2, B2)]
    return ls.objective(
        lambda p, x: jax.numpy.tanh(x @ p[0].T + p[1]) @ p[2].T + p[3], "cross_entropy", (X, Y), params=params
    )


def keras_objective():
    keras = pytest.importorskip("keras")
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((4,), dtype="float64"), layers.Dense(5, "tanh", dtype="float64"), layers.Dense(3, dtype="float64")]
    )
    model.set_weights([W1.T, B1, W2.T, B2])
    return ls.objective(model, "cross_entropy", (X, Y))


def in_torch_order(vector, framework):
    """Parameters as torch orders them: Keras keeps the weights of a dense layer transposed."""
    vector = np.asarray(vector)
    if framework != "keras":
        return vector
    parts = np.split(vector, np.cumsum([20, 5, 15]))
    return np.concatenate([parts[0].reshape(4, 5).T.ravel(), parts[1], parts[2].reshape(5, 3).T.ravel(), parts[3]])


@pytest.fixture(scope="module")
def double_precision():
    jax = pytest.importorskip("jax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture(scope="module")
def objectives(double_precision):
    return {"torch": torch_objective(), "jax": jax_objective(), "keras": keras_objective()}


@pytest.mark.parametrize("name", METHODS)
def test_twenty_steps_are_the_same(objectives, name):
    ends, losses, products = {}, {}, {}
    for framework, objective in objectives.items():
        optimizer, theta = METHODS[name](), objective.parameters()
        infos = []
        for _ in range(20):
            theta, info = optimizer.step(objective, theta)
            infos.append(info)
        ends[framework] = in_torch_order(theta, framework)
        losses[framework] = [info.loss for info in infos]
        products[framework] = [info.num_matvecs for info in infos]
        assert infos[-1].loss < 0.5 * infos[0].loss
        assert all(after <= before * (1 + 1e-12) for before, after in itertools.pairwise(losses[framework]))
    for framework in ("jax", "keras"):
        np.testing.assert_allclose(losses[framework], losses["torch"], rtol=1e-8)
        np.testing.assert_allclose(ends[framework], ends["torch"], rtol=1e-8, atol=1e-8)
        assert products[framework] == products["torch"]
