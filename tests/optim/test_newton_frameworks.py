"""Newton-like methods on the same problems in PyTorch, JAX and TensorFlow."""

import numpy as np
import pytest

import linop_spectra as ls
from linop_spectra.optim.newton.hessian_free import HessianFree
from linop_spectra.optim.newton.lanczos_newton import LanczosNewton
from linop_spectra.optim.newton.saddle_free import SaddleFreeNewton

RNG = np.random.default_rng(7)
X = RNG.standard_normal((40, 5))
Y = np.argmax(X @ RNG.standard_normal((5, 3)) + 0.8 * RNG.standard_normal((40, 3)), axis=1)
W1, B1 = RNG.standard_normal((6, 5)) / 2, RNG.standard_normal(6) / 5
W2, B2 = RNG.standard_normal((3, 6)) / 2, RNG.standard_normal(3) / 5
FRAMEWORKS = ("torch", "jax", "keras")


def objective_of(framework, examples=slice(None)):
    """A tanh classifier with weights and data that do not depend on the framework; its flat vectors may have another order."""
    x, y = X[examples], Y[examples]
    if framework == "torch":
        torch = pytest.importorskip("torch")
        model = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3)).double()
        with torch.no_grad():
            for parameter, value in zip(model.parameters(), (W1, B1, W2, B2), strict=True):
                parameter.copy_(torch.as_tensor(value))
        return ls.objective(model, "cross_entropy", (torch.as_tensor(x), torch.as_tensor(y)), weight_decay=1e-3)
    if framework == "jax":
        jax = pytest.importorskip("jax")
        jax.config.update("jax_enable_x64", True)
        jnp = jax.numpy

        def apply(params, inputs):
            return jnp.tanh(inputs @ params["w1"].T + params["b1"]) @ params["w2"].T + params["b2"]

        params = {"w1": jnp.asarray(W1), "b1": jnp.asarray(B1), "w2": jnp.asarray(W2), "b2": jnp.asarray(B2)}
        return ls.objective(apply, "cross_entropy", (x, y), params=params, weight_decay=1e-3)
    keras = pytest.importorskip("keras")
    hidden, last = keras.layers.Dense(6, "tanh", dtype="float64"), keras.layers.Dense(3, dtype="float64")
    model = keras.Sequential([keras.Input((5,), dtype="float64"), hidden, last])
    model.set_weights([W1.T, B1, W2.T, B2])
    return ls.objective(model, "cross_entropy", (x, y), weight_decay=1e-3)


@pytest.fixture(scope="module")
def objectives():
    return {name: (objective_of(name), objective_of(name, slice(0, 25))) for name in FRAMEWORKS}


METHODS = {
    "lanczos": lambda: LanczosNewton(damping=0.05, num_steps=8),
    "lanczos kept": lambda: LanczosNewton(damping=0.05, num_steps=8, matrix="ggn", refresh_every=4),
    "saddle free": lambda: SaddleFreeNewton(damping=0.05, num_steps=8),
    "saddle free adaptive": lambda: SaddleFreeNewton(damping=0.05, num_steps=8, adaptive=True),
    # Conjugate gradients that run on after their first Ritz values converged magnify rounding, by more in each step of the method, within
    # one framework as well as between two: so short runs.
    "hessian free": lambda: HessianFree(damping=0.5, num_steps=5),
    "hessian free preconditioned": lambda: HessianFree(damping=0.5, num_steps=5, preconditioner="squared_gradients", matrix="hessian"),
}


@pytest.mark.parametrize(
    "method, separate", [(name, False) for name in METHODS] + [(name, True) for name in ("lanczos kept", "saddle free", "hessian free")]
)
def test_twenty_steps_are_the_same_in_every_framework(objectives, method, separate):
    # A gradient of each example on its own is slow in networks as small as this one.
    steps, runs = 5 if "preconditioned" in method else 20, {}
    for name, (objective, part) in objectives.items():
        optimizer, theta, infos = METHODS[method](), objective.parameters(), []
        for _ in range(steps):
            theta, info = optimizer.step(objective, theta, **({"curvature": part} if separate else {}))
            infos.append((info.loss, info.gradient_norm, info.step_norm, info.predicted_decrease, info.damping))
        runs[name] = np.array(infos)
    assert runs["torch"][-1, 0] < 0.6 * runs["torch"][0, 0]
    for name in FRAMEWORKS[1:]:
        np.testing.assert_allclose(runs[name], runs["torch"], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("make", [lambda: HessianFree(damping=0.0), lambda: SaddleFreeNewton(num_steps=20)], ids=["HF", "SFN"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_model_is_left_alone(objectives, framework, make):
    objective, _ = objectives[framework]
    before, gradient = objective.parameters(), objective.gradient()
    make().step(objective, before)
    np.testing.assert_array_equal(objective.parameters(), before)
    np.testing.assert_array_equal(objective.gradient(), gradient)


@pytest.mark.parametrize("method", METHODS)
def test_work_arrays_of_torch_give_the_same(method, tmp_path):
    torch = pytest.importorskip("torch")
    x, y, runs = torch.as_tensor(X), torch.as_tensor(Y), []
    model = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3)).double()
    for backend in (None, "torch"):
        objective = ls.objective(model, "cross_entropy", (x, y), backend=backend)
        optimizer, theta = METHODS[method](), objective.parameters()
        for step in range(4):
            if step == 3:  # the arrays of a file are on the host
                optimizer.save(tmp_path / "state.npz")
                optimizer = METHODS[method]()
                optimizer.restore(tmp_path / "state.npz")
            theta, info = optimizer.step(objective, theta)
        assert isinstance(theta, torch.Tensor) is (backend == "torch")
        runs.append((info.loss, info.step_norm, info.predicted_decrease))
    np.testing.assert_allclose(runs[1], runs[0], rtol=1e-9)
