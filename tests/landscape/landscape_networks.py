"""The same two small models in every framework, and their losses by NumPy."""

import numpy as np
import pytest
from scipy import special

import linop_spectra as ls

RNG = np.random.default_rng(3)
N, D, HIDDEN, CLASSES = 22, 5, 4, 3
X, Y = RNG.standard_normal((N, D)), RNG.integers(0, CLASSES, N)
HELD_X, HELD_Y = RNG.standard_normal((9, D)), RNG.integers(0, CLASSES, 9)
W1, B1 = RNG.standard_normal((HIDDEN, D)), RNG.standard_normal(HIDDEN) / 3
W2, B2 = RNG.standard_normal((CLASSES, HIDDEN)), RNG.standard_normal(CLASSES) / 3
SLOPE, OFFSET = RNG.standard_normal((1, D)), RNG.standard_normal(1)
TARGET = RNG.standard_normal((N, 1))


def in_torch(weights, activation, loss, data, dtype="float64", **options):
    torch = pytest.importorskip("torch")
    layers = [torch.nn.Linear(*w.shape[::-1]) for w, _ in weights]
    model = torch.nn.Sequential(*(part for layer in layers for part in (layer, getattr(torch.nn, activation)())))[:-1]
    model = model.to(getattr(torch, dtype))
    with torch.no_grad():
        for layer, (w, b) in zip(layers, weights, strict=True):
            layer.weight.copy_(torch.as_tensor(w))
            layer.bias.copy_(torch.as_tensor(b))
    arrays = tuple(torch.as_tensor(a if a.dtype.kind == "i" else a.astype(dtype)) for a in data)
    return ls.objective(model, loss, arrays, **options)


def in_jax(weights, activation, loss, data, dtype="float64", **options):
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    act = {"Tanh": jax.numpy.tanh, "ReLU": jax.nn.relu}[activation]

    def apply(params, x):
        for i in range(len(weights)):
            x = x @ params[f"w{i}"] + params[f"b{i}"]
            x = act(x) if i < len(weights) - 1 else x
        return x

    params = {}
    for i, (w, b) in enumerate(weights):
        params |= {f"w{i}": jax.numpy.asarray(w.T, dtype), f"b{i}": jax.numpy.asarray(b, dtype)}
    arrays = tuple(a if a.dtype.kind == "i" else a.astype(dtype) for a in data)
    return ls.objective(apply, loss, arrays, params=params, **options)


def in_keras(weights, activation, loss, data, dtype="float64", **options):
    keras = pytest.importorskip("keras")
    kinds = [activation.lower()] * (len(weights) - 1) + [None]
    model = keras.Sequential([keras.Input((weights[0][0].shape[1],), dtype=dtype)])
    for (w, _), kind in zip(weights, kinds, strict=True):
        model.add(keras.layers.Dense(len(w), kind, dtype=dtype))
    model.set_weights([array for w, b in weights for array in (w.T, b)])
    return ls.objective(model, loss, tuple(a if a.dtype.kind == "i" else a.astype(dtype) for a in data), **options)


MAKERS = {"torch": in_torch, "jax": in_jax, "keras": in_keras}


def classifier(framework, *, activation="Tanh", scales=(1.0, 1.0), dtype="float64", **options):
    """A network with one hidden layer under cross-entropy; `scales` multiply the layers (of the first, its bias too)."""
    a, b = scales
    return MAKERS[framework]([(a * W1, a * B1), (b * W2, B2)], activation, "cross_entropy", (X, Y), dtype, **options)


def regression(framework, **options):
    """A linear model under squared errors: its loss is a quadratic."""
    return MAKERS[framework]([(SLOPE, OFFSET)], "Tanh", "mse", (X, TARGET), **options)


def held_out(objective, dtype="float64"):
    x = HELD_X.astype(dtype)
    if type(objective.functions).__module__.startswith("linop_spectra.adapters.torch"):
        import torch

        return objective.with_data((torch.as_tensor(x), torch.as_tensor(HELD_Y)))
    return objective.with_data((x, HELD_Y))


def arrays(objective, vector):
    """Weights and biases in torch's layout, layer by layer, of a parameter vector."""
    found = {name: np.asarray(value) for name, value in objective.unflatten(vector).items()}
    weights = [array for array in found.values() if array.ndim == 2]
    biases = [array for array in found.values() if array.ndim == 1]
    first = D
    layers = []
    while weights:
        which = next(i for i, w in enumerate(weights) if first in w.shape)
        w = weights.pop(which)
        w = w if w.shape[1] == first else w.T
        b = biases.pop(next(i for i, b in enumerate(biases) if len(b) == len(w)))
        layers.append((w, b))
        first = len(w)
    return layers


def logits(objective, vector, x=X):
    """Outputs of the tanh network by NumPy."""
    layers = arrays(objective, vector)
    for w, b in layers[:-1]:
        x = np.tanh(x @ w.T + b)
    return x @ layers[-1][0].T + layers[-1][1]


def cross_entropy(outputs, labels):
    return -special.log_softmax(outputs, axis=1)[np.arange(len(labels)), labels].mean()
