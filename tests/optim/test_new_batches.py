"""A new batch costs no tracing and no compilation: methods with other data at each step, in the frameworks that compile."""

import numpy as np
import pytest

import linop_spectra as ls

METHODS = {
    "LanczosNewton": lambda: ls.optim.LanczosNewton(damping=0.1, num_steps=3),
    "Sophia": lambda: ls.optim.Sophia(refresh_every=1),
    "KFAC": lambda: ls.optim.KFAC(),
}
GENERATOR = np.random.default_rng(0)
X, Y = GENERATOR.standard_normal((60, 3)), GENERATOR.integers(0, 2, 60)
PARTS = [slice(i, i + 12) for i in range(0, 60, 12)]


class Traced:
    count = 0


@pytest.fixture(scope="module", params=["jax", "keras"])
def objective(request):
    if request.param == "keras":
        keras = pytest.importorskip("keras")
        if keras.backend.backend() != "tensorflow":
            pytest.skip("Keras runs on another backend")

        class Dense(keras.layers.Dense):
            def call(self, inputs, training=None):
                Traced.count += 1
                return super().call(inputs)

        model = keras.Sequential([keras.Input((3,)), Dense(4, activation="tanh"), keras.layers.Dense(2)])
        yield ls.objective(model, "cross_entropy", (X[PARTS[0]].astype(np.float32), Y[PARTS[0]]))
        return
    jax = pytest.importorskip("jax")

    def apply(params, x):
        Traced.count += 1
        return jax.numpy.tanh(x @ params["inner"]) @ params["outer"]

    params = {"inner": np.ones((3, 4), np.float32), "outer": np.ones((4, 2), np.float32)}
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)  # compiles quickly
    yield ls.objective(apply, "cross_entropy", (X[PARTS[0]].astype(np.float32), Y[PARTS[0]]), params=params)
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.mark.parametrize("name", METHODS)
def test_later_batches_trace_nothing(objective, name):
    method, theta, counts = METHODS[name](), objective.parameters(), []
    for step, part in enumerate(PARTS):
        other = PARTS[(step + 1) % len(PARTS)]
        here, there = (objective.with_data((X[which].astype(np.float32), Y[which])) for which in (part, other))
        theta, info = method.step(here, theta, curvature=there)
        assert info.refreshed
        counts.append(Traced.count)
    assert counts[1:] == counts[:1] * (len(PARTS) - 1) and counts[0] > 0
