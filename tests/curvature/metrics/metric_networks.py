"""One small float64 classifier in each framework, a linear regression, and dense matrices for comparison."""

import numpy as np
import pytest

import linop_spectra as ls

_RNG = np.random.default_rng(0)
X, Y = _RNG.standard_normal((30, 4)), _RNG.integers(0, 3, 30)
W1, B1 = _RNG.standard_normal((5, 4)) / 2, _RNG.standard_normal(5) / 5
W2, B2 = _RNG.standard_normal((3, 5)) / 2, _RNG.standard_normal(3) / 5


def in_torch(**options):
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), (W1, B1, W2, B2), strict=True):
            parameter.copy_(torch.as_tensor(value))
    return ls.objective(model, "cross_entropy", (torch.as_tensor(X), torch.as_tensor(Y)), **options)


def in_jax(**options):
    jnp = pytest.importorskip("jax.numpy")

    def apply(p, x):
        return jnp.tanh(x @ p["w1"].T + p["b1"]) @ p["w2"].T + p["b2"]

    params = {name: jnp.asarray(value) for name, value in (("w1", W1), ("b1", B1), ("w2", W2), ("b2", B2))}
    return ls.objective(apply, "cross_entropy", (X, Y), params=params, **options)


def in_keras(**options):
    keras = pytest.importorskip("keras")
    layers = [keras.layers.Dense(5, "tanh", dtype="float64"), keras.layers.Dense(3, dtype="float64")]
    model = keras.Sequential([keras.Input((4,), dtype="float64"), *layers])
    model.set_weights([W1.T, B1, W2.T, B2])
    return ls.objective(model, "cross_entropy", (X, Y), **options)


FRAMEWORKS = {"torch": in_torch, "jax": in_jax, "keras": in_keras}


def regression(x, y, theta, **options):
    """Mean squared error of a linear model without a bias, in torch; its Hessian is 2 X^T X / n."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(x.shape[1], 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.as_tensor(theta)[None, :])
    return ls.objective(model, "mse", (torch.as_tensor(x), torch.as_tensor(y)[:, None]), **options)


def dense(objective, matrix="hessian"):
    return np.asarray(getattr(objective, matrix)().to_dense())
