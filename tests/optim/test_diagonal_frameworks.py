"""AdaHessian, Sophia and KFAC take the same steps in torch, JAX and Keras."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import linop_spectra as ls  # noqa: E402
from linop_spectra.optim.preconditioned.adahessian import AdaHessian  # noqa: E402
from linop_spectra.optim.preconditioned.diagonal_curvature import averaged, convolution_windows  # noqa: E402
from linop_spectra.optim.preconditioned.kronecker import KFAC  # noqa: E402
from linop_spectra.optim.preconditioned.sophia import Sophia  # noqa: E402

RNG = np.random.default_rng(0)
X = RNG.standard_normal((36, 4))
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.3)
WEIGHTS = [RNG.standard_normal((5, 4)) / 2, RNG.standard_normal(5) / 5, RNG.standard_normal((3, 5)) / 2, RNG.standard_normal(3) / 5]
BATCHES = [(X[:20], Y[:20]), (X[20:], Y[20:])]

METHODS = {
    "adahessian": lambda: AdaHessian(learning_rate=0.05, refresh_every=3),
    "sophia hutchinson": lambda: Sophia(learning_rate=0.05, estimator="hutchinson", betas=(0.9, 0.6), gamma=2.0, refresh_every=3),
    "sophia gnb": lambda: Sophia(learning_rate=0.05, betas=(0.9, 0.6), gamma=2.0, num_samples=2, refresh_every=3),
    "kfac": lambda: KFAC(damping=0.01, inverse_every=4),
    "kfac fitted": lambda: KFAC(damping=0.1, momentum="fitted", rescale=True, adapt_damping=True, factored_damping=True),
    "ekfac": lambda: KFAC(damping=0.01, kind="ekfac", inverse_every=4, factors_every=2),
}
EQUIVARIANT = {"sophia gnb", "kfac", "kfac fitted", "ekfac"}
"""Whose steps do not depend on how a framework lays out its weights; the signs of the others belong to places in the vector."""


@pytest.fixture(scope="module", autouse=True)
def _double_precision():
    jax = pytest.importorskip("jax")
    settings = {"jax_enable_x64": True, "jax_disable_most_optimizations": True}  # the second compiles quickly
    before = {name: jax.config.values[name] for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def in_torch(transposed):
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), WEIGHTS, strict=True):
            parameter.copy_(torch.as_tensor(value))
    data = [(torch.as_tensor(x), torch.as_tensor(y)) for x, y in BATCHES]
    return ls.objective(model, "cross_entropy", data[0]), data


def in_jax(transposed):
    import jax.numpy as jnp

    def apply(p, x):
        a, c = (p["a"], p["c"]) if transposed else (p["a"].T, p["c"].T)
        return jnp.tanh(x @ a + p["b"]) @ c + p["d"]

    values = [value.T if transposed else value for value in WEIGHTS]
    params = {name: jnp.asarray(value) for name, value in zip("abcd", values, strict=True)}
    return ls.objective(apply, "cross_entropy", BATCHES[0], params=params), BATCHES


def in_keras(transposed):
    keras = pytest.importorskip("keras")

    class Rows(keras.layers.Layer):
        """A dense layer whose outputs are the rows of its weights."""

        def __init__(self, outputs):
            super().__init__(dtype="float64")
            self.outputs = outputs

        def build(self, shape):
            self.kernel = self.add_weight(shape=(self.outputs, shape[-1]), name="kernel")
            self.bias = self.add_weight(shape=(self.outputs,), name="bias")

        def call(self, x):
            return keras.ops.matmul(x, keras.ops.transpose(self.kernel)) + self.bias

    def layer(outputs):
        return keras.layers.Dense(outputs, dtype="float64") if transposed else Rows(outputs)

    model = keras.Sequential([keras.Input((4,), dtype="float64"), layer(5), keras.layers.Activation("tanh", dtype="float64"), layer(3)])
    model.set_weights([value.T if transposed else value for value in WEIGHTS])
    return ls.objective(model, "cross_entropy", BATCHES[0]), BATCHES


FRAMEWORKS = {"jax": in_jax, "keras": in_keras}


def run(objective, data, method, steps=20):
    """Parameters as arrays with outputs along the first axis, and what was said of each step."""
    theta, said = np.asarray(objective.parameters()), []
    objectives = [objective.with_data(batch) for batch in data]
    for step in range(steps):
        theta, info = method.step(objectives[step % 2], theta)
        said.append((info.loss, info.gradient_norm, info.step_norm, info.damping, info.num_matvecs, info.num_gradients))
    return [np.asarray(value) for value in objective.unflatten(theta).values()], np.array(said)


@pytest.mark.parametrize(("frameworks", "transposed"), [(["jax", "keras"], False), (["keras"], True)], ids=["same layout", "own layout"])
def test_twenty_steps_are_the_same(frameworks, transposed):
    built = {name: FRAMEWORKS[name](transposed) for name in frameworks}  # one compilation for all methods
    reference = in_torch(transposed)
    for which in EQUIVARIANT if transposed else METHODS:
        expected, expected_words = run(*reference, METHODS[which]())
        assert expected_words[-2:, 0].mean() < expected_words[:3, 0].mean()
        for framework, setting in built.items():
            found, words = run(*setting, METHODS[which]())
            for own, other in zip(found, expected, strict=True):
                np.testing.assert_allclose(own.T if transposed else own, other, rtol=0, atol=1e-8, err_msg=f"{which} {framework}")
            np.testing.assert_allclose(words, expected_words, rtol=1e-6, atol=1e-9, err_msg=f"{which} {framework}")


# -- windows of convolutions -------------------------------------------------------------------------------------------


def images(first):
    return RNG.standard_normal((4, 5, 6, 2) if first == "last" else (4, 2, 5, 6)), RNG.integers(0, 3, 4)


def jax_kernels(layout):
    jax = pytest.importorskip("jax")
    shape = {"OIHW": (3, 2, 3, 2), "HWIO": (3, 2, 2, 3), "IOHW": (2, 3, 3, 2), "HWOI": (3, 2, 3, 2)}[layout]
    channels = "NHWC" if layout.startswith("HW") else "NCHW"

    def apply(p, x):
        found = jax.lax.conv_general_dilated(x, p["k"], (1, 1), "VALID", dimension_numbers=(channels, layout, channels))
        return jax.numpy.tanh(found).mean((1, 2) if channels == "NHWC" else (2, 3))

    params = {"k": jax.numpy.asarray(RNG.standard_normal(shape))}
    objective = ls.objective(apply, "cross_entropy", images("last" if channels == "NHWC" else "second"), params=params)
    return objective, layout.index("H"), layout.index("W")


def keras_kernels(_):
    keras = pytest.importorskip("keras")
    double = {"dtype": "float64"}
    model = keras.Sequential([
        keras.Input((5, 6, 2), dtype="float64"), keras.layers.Conv2D(3, (3, 2), use_bias=False, **double),
        keras.layers.GlobalAveragePooling2D(**double),
    ])  # fmt: skip
    return ls.objective(model, "cross_entropy", images("last")), 0, 1


@pytest.mark.parametrize(
    ("make", "layout"), [*((jax_kernels, layout) for layout in ("OIHW", "HWIO", "IOHW", "HWOI")), (keras_kernels, "")]
)  # fmt: skip
def test_windows_are_found_in_every_layout(make, layout):
    objective, *axes = make(layout)
    (kernel,) = objective.unflatten(objective.parameters()).values()
    values = RNG.standard_normal(kernel.shape)
    expected = np.broadcast_to(values.mean(tuple(axes), keepdims=True), values.shape)
    found = averaged(objective, values.ravel(), convolution_windows(objective))
    np.testing.assert_allclose(found, expected.ravel(), rtol=1e-14)
    if make is keras_kernels:
        assert AdaHessian().step(objective, objective.parameters())[1].details["averaged"] == 36
