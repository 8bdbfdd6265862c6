"""The same network with the same weights in two frameworks: the same matrices, drawn targets included, whatever the batch sizes."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import linop_spectra as ls  # noqa: E402

_RNG = np.random.default_rng(0)
WEIGHTS = {"a": _RNG.standard_normal((5, 4)), "b": _RNG.standard_normal(5), "c": _RNG.standard_normal((3, 5)), "d": _RNG.standard_normal(3)}
INPUTS = _RNG.standard_normal((11, 4))
MASKED = _RNG.integers(0, 3, 11)
MASKED[[1, 6]] = -100
TARGETS = {
    "cross_entropy": MASKED,
    "mse": _RNG.standard_normal((11, 3)),
    "binary_cross_entropy": _RNG.integers(0, 2, (11, 3)).astype(float),
}
MATRICES = {
    "exact": lambda o: o.fisher(),
    "mc": lambda o: o.fisher("mc", num_samples=3, seed=2),
    "empirical": lambda o: o.fisher("empirical"),
    "residual": lambda o: o.residual(),
    "covariance": lambda o: o.gradient_covariance(),
    "jacobian": lambda o: o.jacobian(),
    "kernel": lambda o: o.ntk(),
}


def in_torch(loss):
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), WEIGHTS.values(), strict=True):
            parameter.copy_(torch.tensor(value))
    return ls.objective(model, loss, (torch.tensor(INPUTS), torch.tensor(TARGETS[loss])), batch_size=4)


def in_jax(loss, batch_size=None):
    jnp = pytest.importorskip("jax.numpy")

    def apply(p, x):
        return jnp.tanh(x @ p["a"].T + p["b"]) @ p["c"].T + p["d"]

    params = {name: jnp.asarray(value) for name, value in WEIGHTS.items()}
    return ls.objective(apply, loss, (INPUTS, TARGETS[loss]), params=params, batch_size=batch_size)


def in_tensorflow(loss):
    tf = pytest.importorskip("tensorflow")

    class Network(tf.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d = (tf.Variable(value) for value in WEIGHTS.values())

        def __call__(self, x):
            return tf.tanh(x @ tf.transpose(self.a) + self.b) @ tf.transpose(self.c) + self.d

    return ls.objective(Network(), loss, (INPUTS, TARGETS[loss]), batch_size=3)


# JAX compiles anew for a last, smaller batch: one loss has it.
FRAMEWORKS = {"jax": lambda loss: in_jax(loss, 5 if loss == "cross_entropy" else None), "tensorflow": in_tensorflow}


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


@pytest.mark.usefixtures("_double_precision")
@pytest.mark.parametrize("loss", TARGETS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_same_matrices(framework, loss):
    other, reference = FRAMEWORKS[framework](loss), in_torch(loss)
    for name, make in MATRICES.items():
        expected = np.asarray(make(reference).to_dense())
        np.testing.assert_allclose(np.asarray(make(other).to_dense()), expected, rtol=0, atol=1e-12 * abs(expected).max(), err_msg=name)
    assert ls.check_operator(MATRICES["mc"](other)).passed


@pytest.mark.parametrize("framework", ["torch", "jax", "keras"])
def test_curvature_of_certain_labels_does_not_cancel(framework):
    """At a logit z of binary cross-entropy it is s(z) s(-z), also where 1 - s(z) rounds to zero."""
    if framework == "torch":
        torch = pytest.importorskip("torch")
        model = torch.nn.Linear(1, 1, bias=False)
        with torch.no_grad():
            model.weight.fill_(20.0)
        objective = ls.objective(model, "binary_cross_entropy", (torch.ones(1, 1), torch.ones(1, 1)))
    elif framework == "jax":
        jax = pytest.importorskip("jax")
        one = np.ones((1, 1), np.float32)
        params = {"w": jax.numpy.full((1, 1), 20.0, jax.numpy.float32)}
        objective = ls.objective(lambda p, x: x @ p["w"], "binary_cross_entropy", (one, one), params=params)
    else:
        keras = pytest.importorskip("keras")
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
        model.set_weights([np.full((1, 1), 20.0)])
        objective = ls.objective(model, "binary_cross_entropy", (np.ones((1, 1), np.float32), np.ones((1, 1), np.float32)))
    expected = 1 / (1 + np.exp(-20.0)) / (1 + np.exp(20.0))
    assert float(np.asarray(objective.ggn().to_dense())[0, 0]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("framework", ["torch", "torch tokens", "jax", "keras"])
def test_curvature_of_certain_classes_does_not_cancel(framework):
    """The Hessian of cross-entropy annihilates constants: what they leave in single precision must not drown what is small."""
    generator = np.random.default_rng(3)
    x, w = generator.standard_normal((6, 4)), generator.standard_normal((3, 4)) * 12
    y = np.zeros(6, np.int64)
    logits = np.float32(x) @ np.float32(w).T
    shifted = np.exp(np.float64(logits - logits.max(axis=1, keepdims=True)))
    p = shifted / shifted.sum(axis=1, keepdims=True)
    certain = 1 - p.max(axis=1) < 1e-4
    assert certain.sum() >= 3
    x, p = np.float32(x[certain]), p[certain]
    y = y[certain]
    blocks = [np.kron(np.diag(q) - np.outer(q, q), np.outer(row, row)) for q, row in zip(p, np.float64(x), strict=True)]
    expected = sum(blocks) / len(x)
    if framework.startswith("torch"):
        torch = pytest.importorskip("torch")
        model = torch.nn.Linear(4, 3, bias=False)
        with torch.no_grad():
            model.weight.copy_(torch.as_tensor(w))
        if framework == "torch":
            objective = ls.objective(model, "cross_entropy", (torch.as_tensor(x), torch.as_tensor(y)))
        else:
            from linop_spectra.adapters.torch.token_cross_entropy import curvature_product

            here = torch.as_tensor(np.float32(x) @ np.float32(w).T)
            u = torch.as_tensor(generator.standard_normal(here.shape).astype(np.float32)) + 100
            exact = p * (u.numpy().astype(np.float64) - (p * u.numpy()).sum(axis=1, keepdims=True))
            found = curvature_product(here, torch.ones(len(here)))(u).numpy()
            assert np.abs(found - exact).max() < 1e-4 * np.abs(exact).max()
            return
    elif framework == "jax":
        jax = pytest.importorskip("jax")
        objective = ls.objective(lambda q, z: z @ q["w"].T, "cross_entropy", (x, y), params={"w": jax.numpy.asarray(np.float32(w))})
    else:
        keras = pytest.importorskip("keras")
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, use_bias=False)])
        model.set_weights([np.float32(w).T])
        objective = ls.objective(model, "cross_entropy", (x, y))
        expected = expected.reshape(3, 4, 3, 4).transpose(1, 0, 3, 2).reshape(12, 12)
    found = np.asarray(objective.ggn().to_dense(), dtype=np.float64)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
