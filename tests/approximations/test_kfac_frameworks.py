"""The same networks in torch, JAX, Keras and TensorFlow have the same Kronecker factors."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import linop_spectra as ls  # noqa: E402
from linop_spectra.approximations.ekfac import ekfac  # noqa: E402
from linop_spectra.approximations.kfac import kfac  # noqa: E402

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape)


# In the layout of torch.
CONVOLUTIONS = {"a": normal(3, 2, 3, 2), "b": normal(3), "c": normal(4, 3, 2, 2), "d": normal(4), "e": normal(3, 4), "f": normal(3)}
IMAGES, LABELS = normal(7, 2, 8, 7), RNG.integers(0, 3, 7)
LABELS[2] = -100
POSITIONS = {"a": normal(5, 4), "b": normal(5), "c": normal(5, 5), "d": normal(5), "e": normal(3, 5), "f": normal(3)}
SERIES, CODES = normal(6, 5, 4), RNG.integers(0, 3, 6)
OPTIONS = {
    "exact": {}, "mc": {"fisher": "mc", "num_samples": 2, "seed": 4}, "empirical": {"fisher": "empirical"}, "reduce": {"sharing": "reduce"},
    "apart": {"include_bias": False},
}  # fmt: skip


def swapped(name, array):
    """To the layout of JAX and Keras and back: outputs last, channels before them."""
    return np.asarray(array).transpose((2, 3, 1, 0) if array.ndim == 4 else tuple(range(array.ndim))[::-1])


def back(array):
    return np.asarray(array).transpose((3, 2, 0, 1) if array.ndim == 4 else tuple(range(array.ndim))[::-1])


# -- torch -------------------------------------------------------------------------------------------------------------


class Torch(torch.nn.Module):
    def __init__(self, weights, forward):
        super().__init__()
        self.run = forward
        for name, value in weights.items():
            self.register_parameter(name, torch.nn.Parameter(torch.tensor(value)))

    def forward(self, x):
        return self.run(self, x)


def torch_convolutions(p, x):
    functional = torch.nn.functional
    x = torch.tanh(functional.conv2d(x, p.a, p.b, stride=(2, 1)))
    x = torch.tanh(functional.conv2d(x, p.c, p.d, dilation=(1, 2)))
    return functional.linear(x.mean((2, 3)), p.e, p.f)


def torch_positions(p, x):
    linear = torch.nn.functional.linear
    x = torch.tanh(linear(x, p.a, p.b))
    x = torch.tanh(linear(torch.tanh(linear(x, p.c, p.d)), p.c, p.d))  # twice the same layer
    return linear(x.mean(1), p.e, p.f)


def in_torch(network):
    weights, inputs, targets = NETWORKS[network]
    run = {"convolutions": torch_convolutions, "positions": torch_positions}[network]
    data = torch.tensor(inputs), torch.tensor(targets)
    return ls.objective(Torch(weights, run), "cross_entropy", data, batch_size=3), lambda name, array: array, lambda array: array


# -- JAX ---------------------------------------------------------------------------------------------------------------


def in_jax(network):
    jax = pytest.importorskip("jax")
    jnp, lax = jax.numpy, jax.lax
    weights, inputs, targets = NETWORKS[network]

    def convolutions(p, x):
        layout = ("NHWC", "HWIO", "NHWC")
        x = jnp.tanh(lax.conv_general_dilated(x, p["a"], (2, 1), "VALID", dimension_numbers=layout) + p["b"])
        x = jnp.tanh(lax.conv_general_dilated(x, p["c"], (1, 1), "VALID", rhs_dilation=(1, 2), dimension_numbers=layout) + p["d"])
        return x.mean((1, 2)) @ p["e"] + p["f"]

    def positions(p, x):
        def one(x):  # a single example, mapped over
            x = jnp.tanh(x @ p["a"] + p["b"])
            layer = jax.checkpoint(lambda x: jnp.tanh(jnp.einsum("tj,jk->tk", x, p["c"]) + p["d"]))
            return jnp.dot(layer(layer(x)).mean(0), p["e"]) + p["f"]

        return jax.vmap(one)(x)

    run = {"convolutions": convolutions, "positions": positions}[network]
    params = {name: jnp.asarray(swapped(name, value)) for name, value in weights.items()}
    inputs = inputs.transpose(0, 2, 3, 1) if inputs.ndim == 4 else inputs
    size = 7 if network == "convolutions" else 4  # JAX compiles anew for the last, smaller batch: once is enough
    return ls.objective(run, "cross_entropy", (inputs, targets), params=params, batch_size=size), swapped, back


# -- Keras and TensorFlow ----------------------------------------------------------------------------------------------


def in_keras(network):
    keras = pytest.importorskip("keras")
    weights, inputs, targets = NETWORKS[network]
    layers, double = keras.layers, {"dtype": "float64"}
    if network == "convolutions":
        inputs = inputs.transpose(0, 2, 3, 1)
        model = keras.Sequential([
            keras.Input(inputs.shape[1:], dtype="float64"),
            layers.Conv2D(3, (3, 2), strides=(2, 1), activation="tanh", name="a", **double),
            layers.Conv2D(4, 2, dilation_rate=(1, 2), activation="tanh", name="c", **double),
            layers.GlobalAveragePooling2D(**double),
            layers.Dense(3, name="e", **double),
        ])  # fmt: skip
    else:
        given = keras.Input(inputs.shape[1:], dtype="float64")
        shared = layers.Dense(5, "tanh", name="c", **double)
        x = shared(shared(layers.Dense(5, "tanh", name="a", **double)(given)))
        model = keras.Model(given, layers.Dense(3, name="e", **double)(layers.GlobalAveragePooling1D(**double)(x)))
    names = {"a": "a/kernel", "b": "a/bias", "c": "c/kernel", "d": "c/bias", "e": "e/kernel", "f": "e/bias"}
    for layer in model.layers:
        if layer.weights:
            layer.set_weights([swapped("", weights[layer.name]), weights[chr(ord(layer.name) + 1)]])
    objective = ls.objective(model, "cross_entropy", (inputs, targets), batch_size=7 if network == "convolutions" else 4)
    return _Renamed(objective, names), swapped, back


def in_tensorflow(network):
    tf = pytest.importorskip("tensorflow")
    weights, inputs, targets = NETWORKS[network]
    inputs = inputs.transpose(0, 2, 3, 1) if inputs.ndim == 4 else inputs

    class Module(tf.Module):
        def __init__(self):
            super().__init__()
            for name, value in weights.items():
                setattr(self, name, tf.Variable(swapped(name, value)))

        def __call__(self, x):
            if network == "convolutions":
                x = tf.tanh(tf.nn.bias_add(tf.nn.conv2d(x, self.a, (2, 1), "VALID"), self.b))
                x = tf.tanh(tf.nn.convolution(x, self.c, padding="VALID", dilations=(1, 2)) + self.d)
                return tf.linalg.matmul(tf.reduce_mean(x, (1, 2)), self.e) + self.f
            x = tf.tanh(x @ self.a + self.b)
            for _ in range(2):
                x = tf.tanh(tf.tensordot(x, self.c, 1) + self.d)
            return tf.einsum("nj,jk->nk", tf.reduce_mean(x, 1), self.e) + self.f

    return ls.objective(Module(), "cross_entropy", (inputs, targets), batch_size=4), swapped, back


class _Renamed:
    """An objective with the names of the others."""

    def __init__(self, objective, names):
        self.objective, self._names = objective, names

    def flatten(self, tree):
        return self.objective.flatten({self._names[name]: value for name, value in tree.items()})

    def unflatten(self, vector):
        tree = self.objective.unflatten(vector)
        return {short: tree[long] for short, long in self._names.items()}


NETWORKS = {"convolutions": (CONVOLUTIONS, IMAGES, LABELS), "positions": (POSITIONS, SERIES, CODES)}
FRAMEWORKS = {"jax": in_jax, "keras": in_keras, "tensorflow": in_tensorflow}


@pytest.fixture
def _double_precision():
    jax = pytest.importorskip("jax")
    settings = {"jax_enable_x64": True, "jax_disable_most_optimizations": True}  # the second compiles quickly
    before = {name: jax.config.values[name] for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def product(found, tree):
    """A product as named arrays, in the layout of torch."""
    objective, into, out = found
    own = getattr(objective, "objective", objective)
    vector = objective.flatten({name: into(name, value) for name, value in tree.items()})
    return own, vector, lambda result: {name: out(np.asarray(value)) for name, value in objective.unflatten(result).items()}


@pytest.mark.usefixtures("_double_precision")
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_same_approximations(framework, network):
    rng = np.random.default_rng(3)
    tree = {name: rng.standard_normal(value.shape) for name, value in NETWORKS[network][0].items()}
    objective, vector, named = product(FRAMEWORKS[framework](network), tree)
    reference, expected_vector, expected_named = product(in_torch(network), tree)
    for make in (kfac, ekfac):
        for what, options in OPTIONS.items():
            if what == "reduce" and make is ekfac:  # with fewer examples than columns the eigenvectors are not unique
                continue
            found, expected = make(objective, **options), make(reference, **options)
            assert len(found.layers) == (3 if what != "apart" else 6)
            for apply in (lambda m, v: m @ v, lambda m, v: m.solve(v, damping=0.1)):
                own, other = named(apply(found, vector)), expected_named(apply(expected, expected_vector))
                for name, value in other.items():
                    np.testing.assert_allclose(own[name], value, rtol=0, atol=1e-10 * abs(value).max(), err_msg=f"{what} {name}")


# -- what each framework sees ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_double_precision")
def test_what_jax_sees():
    jax = pytest.importorskip("jax")
    jnp = jax.numpy
    rng = np.random.default_rng(0)
    params = {
        "table": rng.standard_normal((6, 4)), "packed": rng.standard_normal((4, 12)), "scale": rng.standard_normal(4),
        "twice": rng.standard_normal((4, 4)), "bias": rng.standard_normal(4), "shift": rng.standard_normal((5, 4)),
    }  # fmt: skip

    def apply(p, codes):
        x = p["table"][codes] + p["shift"]
        q, k, v = jnp.split(x @ p["packed"], 3, axis=-1)
        x = jax.nn.softmax(jnp.einsum("ntd,nsd->nts", q, k)) @ v
        y = (p["twice"].T @ x.reshape(-1, 4).T).T.reshape(x.shape)
        x = jax.nn.relu(y + p["bias"]) * y * p["scale"]
        return (x @ p["table"].T).mean(1)

    params = {name: jnp.asarray(value) for name, value in params.items()}
    codes, labels = rng.integers(0, 6, (5, 5)), rng.integers(0, 6, 5)
    objective = ls.objective(apply, "cross_entropy", (codes, labels), params=params)
    found, matrix = ekfac(objective), np.asarray(objective.ggn().to_dense())
    kinds = {layer.names: type(layer).__name__ for layer in found.layers}
    assert kinds == {
        ("table",): "RescaledBlock", ("packed",): "RescaledBlock", ("twice",): "RescaledBlock", ("scale",): "DenseBlock",
        ("bias",): "DenseBlock", ("shift",): "DenseBlock",
    }  # fmt: skip
    assert found.trace() == pytest.approx(np.trace(matrix), rel=1e-10)
    for name in ("scale", "bias", "shift"):
        place = objective.blocks[name]
        np.testing.assert_allclose(found.block(name).to_dense(), matrix[place, place], atol=1e-12)

    def loop(p, x):
        return jax.lax.fori_loop(0, 2, lambda _, h: jnp.tanh(h @ p["w"]), x) @ p["v"]

    params = {"w": jnp.asarray(rng.standard_normal((40, 40))), "v": jnp.asarray(rng.standard_normal((40, 2)))}
    data = rng.standard_normal((3, 40)), rng.standard_normal((3, 2))
    with pytest.raises(ValueError, match="The parameter 'w' of 1,600 numbers is used by JAX's scan"):
        kfac(ls.objective(loop, "mse", data, params=params))
    assert len(kfac(ls.objective(loop, "mse", data, params=params, parameters="v")).layers) == 1


def test_what_keras_sees():
    keras = pytest.importorskip("keras")
    layers, double, rng = keras.layers, {"dtype": "float64"}, np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    codes = keras.Input((5,), dtype="int32")
    x = layers.Embedding(6, 4, **double)(codes)
    x = x + layers.MultiHeadAttention(2, 3, **double)(x, x)
    x = layers.EinsumDense("abc,cd->abd", output_shape=(5, 5), bias_axes="d", **double)(layers.LayerNormalization(**double)(x))
    x = layers.Conv1D(3, 2, padding="causal", activation="tanh", **double)(x)
    x = layers.Conv1D(3, 2, dilation_rate=2, activation="tanh", **double)(x)
    x = layers.DepthwiseConv1D(2, **double)(x)
    model = keras.Model(codes, layers.Dense(3, **double)(layers.Flatten(**double)(x)))
    objective = ls.objective(model, "cross_entropy", (rng.integers(0, 6, (5, 5)).astype("int32"), rng.integers(0, 3, 5)), batch_size=5)
    before = [np.array(w) for w in model.get_weights()]
    found, matrix = ekfac(objective), np.asarray(objective.ggn().to_dense())
    exact = {name for layer in found.layers if type(layer).__name__ == "DenseBlock" for name in layer.names}
    assert {name.split("/")[0].rstrip("_0123456789") for name in exact} == {"layer_normalization", "depthwise_conv1d"}
    assert found.trace() == pytest.approx(np.trace(matrix), rel=1e-10)
    for layer in found.layers:
        if type(layer).__name__ == "DenseBlock":
            index = np.ix_(layer.places, layer.places)
            np.testing.assert_allclose(layer.matrix, matrix[index], atol=1e-12)
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))
    recurrent = keras.Sequential([keras.Input((4, 3)), layers.LSTM(20), layers.Dense(2)])
    data = rng.standard_normal((3, 4, 3)).astype("float32"), rng.standard_normal((3, 2)).astype("float32")
    with pytest.raises(ValueError, match="recurrent_kernel' of 1,600 numbers is used by TensorFlow's"):
        kfac(ls.objective(recurrent, "mse", data))
