"""Models of JAX: what is a parameter, names, modes, side effects, what is refused."""

import random

import numpy as np
import pytest
from scipy import special

jax = pytest.importorskip("jax")
flax = pytest.importorskip("flax")

import jax.numpy as jnp  # noqa: E402
from flax import linen, nnx  # noqa: E402
from jax_networks import double_precision, drawn, filled, labels, linen_cnn, normal, references, relative  # noqa: E402, F401

import linop_spectra as ls  # noqa: E402


def linear(params, x):
    return x @ params["w"] + params["b"]


def weights():
    return {"w": jnp.asarray(normal(4, 3, seed=2)), "b": jnp.asarray(normal(3, seed=3))}


DATA = normal(6, 4), labels(6)


class Net(nnx.Module):
    """Batch normalisation and dropout between two layers."""

    def __init__(self, rate=0.5):
        rngs = nnx.Rngs(0)
        self.first = nnx.Linear(4, 5, rngs=rngs, param_dtype=jnp.float64, kernel_init=drawn(1))
        self.norm = nnx.BatchNorm(5, rngs=rngs, param_dtype=jnp.float64)
        self.norm.mean.set_value(jnp.zeros(5))
        self.norm.var.set_value(jnp.ones(5))
        self.drop = nnx.Dropout(rate, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(5, 3, rngs=rngs, param_dtype=jnp.float64, kernel_init=drawn(2))])

    def __call__(self, x):
        x = self.drop(jnp.tanh(self.norm(self.first(x))))
        for layer in self.layers:
            x = layer(x)
        return x


def everything_of(model):
    graph, state = nnx.split(model)
    keys = [jnp.issubdtype(x.dtype, jax.dtypes.prng_key) for x in jax.tree.leaves(state)]
    return graph, [np.asarray(jax.random.key_data(x) if key else x) for x, key in zip(jax.tree.leaves(state), keys, strict=True)]


# -- names and choice --------------------------------------------------------------------------------------------------


def test_names_are_paths():
    objective = ls.objective(linear, "cross_entropy", DATA, params=weights())
    assert dict(objective.blocks) == {"b": slice(0, 3), "w": slice(3, 15)}  # dicts are in the order of their keys in JAX
    model = Net()
    model.eval()
    names = ("first.bias", "first.kernel", "layers.0.bias", "layers.0.kernel", "norm.bias", "norm.scale")
    assert ls.objective(model, "cross_entropy", DATA).functions.names == names
    case = linen_cnn()
    objective = ls.objective(case.model, "cross_entropy", case.data, **case.arguments)
    assert objective.functions.names[:2] == ("BatchNorm_0.bias", "BatchNorm_0.scale")
    nested = ls.objective(lambda p, x: x @ p[0]["w"][1], "mse", (DATA[0], DATA[0]), params=[{"w": (2.0, jnp.eye(4))}])
    assert nested.functions.names == ("0.w.0", "0.w.1")


def test_a_subset_of_the_parameters():
    case, _, hessian, ggn = references("mlp")
    full = ls.objective(case.model, "cross_entropy", case.data, **case.arguments)
    part = ls.objective(case.model, "cross_entropy", case.data, parameters=["second.*", "first.b"], **case.arguments)
    assert part.functions.names == ("first.b", "second.b", "second.w")
    rows = np.r_[full.blocks["first.b"], full.blocks["second.b"], full.blocks["second.w"]]
    np.testing.assert_allclose(part.hessian().to_dense(), hessian[np.ix_(rows, rows)], atol=1e-13)
    np.testing.assert_allclose(part.ggn().to_dense(), ggn[np.ix_(rows, rows)], atol=1e-13)
    assert part.value() == pytest.approx(full.value(), rel=1e-14)
    with pytest.raises(ValueError, match=r"'third\.\*'.*available are 'first\.b'"):
        ls.objective(case.model, "cross_entropy", case.data, parameters="third.*", **case.arguments)


def test_what_is_no_floating_number_is_constant():
    params = weights() | {"steps": jnp.arange(3), "power": 2, "name": "net", "none": None, "mask": np.array([True, False, True])}

    def apply(p, x):
        assert p["name"] == "net"
        return linear(p, x) ** p["power"] * p["mask"] + p["steps"]

    objective = ls.objective(apply, "mse", (DATA[0], normal(6, 3)), params=params)
    assert objective.functions.names == ("b", "w")
    assert ls.check_operator(objective.hessian()).passed


def test_collections_of_flax_are_constant_in_apply_functions():
    case = linen_cnn()
    variables = case.arguments["params"]
    by_module = ls.objective(case.model, "cross_entropy", case.data, params=variables)
    by_method = ls.objective(case.model.apply, "cross_entropy", case.data, params=variables)
    by_function = ls.objective(lambda v, x: case.model.apply(v, x, train=False), "cross_entropy", case.data, params=variables)
    assert by_module.functions.names == by_method.functions.names
    assert by_function.functions.names == tuple(f"params.{name}" for name in by_module.functions.names)
    assert by_module.value() == by_method.value() == by_function.value()
    # Statistics come along with new variables.
    moved = jax.tree.map(lambda x: x + 0.1, variables)
    expected = ls.objective(case.model, "cross_entropy", case.data, params=moved).value()
    assert by_module.with_parameters(moved).value() == expected
    assert by_module.with_parameters({"params": moved["params"]}).value() != expected


def test_models_with_several_inputs():
    class Two(nnx.Module):
        def __init__(self):
            self.layer = nnx.Linear(4, 3, rngs=nnx.Rngs(0), param_dtype=jnp.float64, kernel_init=drawn(1))

        def __call__(self, a, b):
            return self.layer(a * b)

    x, y = DATA
    model = Two()
    expected = ls.objective(lambda p, z: model.layer(z), "cross_entropy", (x * x, y), params=weights(), parameters="w")
    with pytest.warns(UserWarning, match="does not depend on the parameters 'w'"):
        expected.gradient()
    for inputs in ((x, x), {"a": x, "b": x}):
        assert ls.objective(model, "cross_entropy", [(inputs, y)]).value() == pytest.approx(expected.value(), rel=1e-14)
    # An apply function gets inputs as they are.
    objective = ls.objective(lambda p, z: linear(p, z["a"] * z["b"]), "cross_entropy", [({"a": x, "b": x}, y)], params=weights())
    assert objective.value() == ls.objective(linear, "cross_entropy", (x * x, y), params=weights()).value()


# -- modes and side effects --------------------------------------------------------------------------------------------


def test_batch_normalisation():
    x, y = DATA
    model = Net(rate=0.0)
    with pytest.raises(ValueError, match=r"'norm' \(BatchNorm\) is in training mode.*batch_norm='eval'"):
        ls.objective(model, "cross_entropy", DATA)
    with pytest.raises(ValueError, match="batch_norm is 'running'"):
        ls.objective(model, "cross_entropy", DATA, batch_norm="running")
    log_p = nnx.jit(lambda net, x: jax.nn.log_softmax(net(x)))(nnx.clone(model), jnp.asarray(x))
    trained = ls.objective(model, "cross_entropy", DATA, batch_norm="train")
    assert trained.value() == pytest.approx(-float(log_p[np.arange(6), y].mean()), rel=1e-13)
    assert ls.check_operator(trained.hessian()).passed
    assert trained.functions.example_refusal.startswith("Batch normalisation")
    evaluated = ls.objective(model, "cross_entropy", DATA, batch_norm="eval")
    assert evaluated.functions.example_refusal is None
    assert evaluated.value() != trained.value()
    model.eval()
    assert ls.objective(model, "cross_entropy", DATA).value() == evaluated.value()


def test_batch_normalisation_of_linen():
    class WithStatistics(linen.Module):
        @linen.compact
        def __call__(self, x, train: bool = True):
            return linen.Dense(3)(linen.BatchNorm(use_running_average=not train)(x))

    module = WithStatistics()
    x = jnp.asarray(DATA[0])
    variables = filled(jax.eval_shape(lambda: module.init(jax.random.key(0), x)))
    variables["batch_stats"] = jax.tree.map(abs, variables["batch_stats"])
    values = {}
    for mode in (None, "eval", "train"):
        values[mode] = ls.objective(module, "cross_entropy", DATA, params=variables, batch_norm=mode, dtype="float64").value()
        apply = jax.jit(lambda v, x, train=mode == "train": module.apply(v, x, train=train, mutable=["batch_stats"])[0])
        log_p = special.log_softmax(np.asarray(apply(variables, x)), axis=1)
        assert values[mode] == pytest.approx(-log_p[np.arange(6), DATA[1]].mean(), rel=1e-5)
    assert values[None] == values["eval"] != values["train"]
    with pytest.raises(ValueError, match="decides itself"):
        ls.objective(linear, "cross_entropy", DATA, params=weights(), batch_norm="eval")
    function = ls.objective(lambda v, x: module.apply(v, x), "cross_entropy", DATA, params=variables, dtype="float32")
    with pytest.raises(RuntimeError, match="updates its collections"):
        function.value()


def test_random_layers_are_refused_in_training_mode_only():
    with pytest.raises(ValueError, match=r"'drop' \(Dropout\).*stochastic.*call model.eval\(\)"):
        ls.objective(Net(), "cross_entropy", DATA, batch_norm="eval")
    ls.objective(Net(rate=0.0), "cross_entropy", DATA, batch_norm="eval")
    attention = nnx.MultiHeadAttention(2, 4, dropout_rate=0.1, deterministic=False, decode=False, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="stochastic"):
        ls.objective(attention, "mse", (normal(2, 3, 4), normal(2, 3, 4)))
    variables = linen.Dropout(0.5, deterministic=True).init(jax.random.key(0), jnp.ones((2, 4)))
    noisy = ls.objective(
        lambda p, x: linen.Dropout(0.5).apply(variables, linear(p, x), deterministic=False), "cross_entropy", DATA, params=weights()
    )
    with pytest.raises(RuntimeError, match="draws random numbers"):
        noisy.value()


def test_noise_of_the_host_is_frozen():
    def noisy(p, x):
        return linear(p, x + np.random.standard_normal(x.shape) + random.random())  # noqa: NPY002

    objective = ls.objective(noisy, "mse", (DATA[0], normal(6, 3)), params=weights())
    before = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    assert objective.with_data((DATA[0][:3], normal(6, 3)[:3])).value() == objective.with_data((DATA[0][:3], normal(6, 3)[:3])).value()
    assert ls.check_operator(objective.hessian()).passed
    assert np.array_equal(before[0], np.random.get_state()[1])  # noqa: NPY002
    assert before[1] == random.getstate()


@pytest.mark.parametrize("batch_norm", ["eval", "train"])
def test_nothing_about_the_model_changes(batch_norm):
    model = Net(rate=0.0)
    before = everything_of(model)
    settings = jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision
    objective = ls.objective(model, "cross_entropy", DATA, batch_norm=batch_norm)
    for operator in (objective.hessian(), objective.ggn()):
        _ = operator @ np.ones(objective.num_parameters)
    objective.value(), objective.gradient()
    after = everything_of(model)
    assert before[0] == after[0]
    for a, b in zip(before[1], after[1], strict=True):
        np.testing.assert_array_equal(a, b)
    assert settings == (jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision)


def test_later_training_does_not_change_the_objective():
    params = weights()
    objective = ls.objective(linear, "cross_entropy", DATA, params=params)
    before = objective.value()
    step = jax.jit(lambda p: jax.tree.map(lambda x: x + 1, p), donate_argnums=0)
    trained = step(params)
    assert params["w"].is_deleted() or trained is not params
    assert objective.value() == before
    model = nnx.Linear(4, 3, rngs=nnx.Rngs(0), param_dtype=jnp.float64, kernel_init=drawn(1))
    objective = ls.objective(model, "cross_entropy", DATA)
    before = objective.value()
    model.kernel[...] = 2 * model.kernel[...]
    assert objective.value() == before
    assert objective.with_parameters(model).value() != before
    assert objective.with_parameters(nnx.state(model)).value() == objective.with_parameters(model).value()


# -- parameters that do not count, or should not -----------------------------------------------------------------------


def test_unused_parameters_are_zero_and_said_once():
    objective = ls.objective(linear, "cross_entropy", DATA, params=weights() | {"spare": jnp.ones(2), "other": jnp.ones(())})
    hessian, v = objective.hessian(), np.ones(18)
    with pytest.warns(UserWarning, match=r"'other', 'spare'.*zero") as caught:
        product = hessian @ v
    assert len(caught) == 1
    assert not product[objective.blocks["spare"]].any()
    assert product[objective.blocks["w"]].any()
    # Silent: it was said.
    assert not (objective.ggn() @ v)[objective.blocks["spare"]].any()
    assert not objective.gradient()[objective.blocks["other"]].any()
    assert ls.check_operator(hessian).passed


def test_parameters_that_enter_linearly_or_not_at_this_point_are_no_mistake():
    def apply(p, x):
        return jax.nn.relu(x @ p["w"] - 100) + p["b"] + jax.jit(jnp.sum)(p["c"])

    objective = ls.objective(apply, "mse", (DATA[0], normal(6, 3)), params=weights() | {"c": jnp.ones(2)})
    assert not objective.gradient()[objective.blocks["w"]].any()  # every unit is dead
    linear_loss = ls.objective(linear, lambda z, y: z.mean(), DATA, params=weights())
    np.testing.assert_allclose(linear_loss.gradient()[:3], 1 / 3, rtol=1e-14)
    np.testing.assert_array_equal(linear_loss.hessian() @ np.ones(15), np.zeros(15))


@pytest.mark.parametrize("cut", [jax.lax.stop_gradient, jnp.round, lambda b: (b > 0) * 1.0, jax.jit(jax.lax.stop_gradient)])
def test_parameters_that_matter_without_a_gradient_are_refused(cut):
    objective = ls.objective(lambda p, x: x @ p["w"] + cut(p["b"]), "cross_entropy", DATA, params=weights())
    for ask in (objective.gradient, lambda: objective.hessian() @ np.ones(15)):
        with pytest.raises(ValueError, match="'b', but no gradient reaches them"):
            ask()
    ls.objective(lambda p, x: x @ p["w"] + cut(p["b"]), "cross_entropy", DATA, params=weights(), parameters="w").gradient()


def test_loops_and_callbacks():
    def looping(p, x):
        return jax.lax.while_loop(lambda z: z.sum() < 10, lambda z: z + 1, linear(p, x))

    with pytest.raises(RuntimeError, match=r"no reverse-mode derivative; use lax\.scan"):
        ls.objective(looping, "cross_entropy", DATA, params=weights()).gradient()

    def calling(p, x):
        z = linear(p, x)
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(z.shape, z.dtype), z)

    with pytest.raises(RuntimeError, match="calls back into Python"):
        ls.objective(calling, "cross_entropy", DATA, params=weights()).gradient()
    scanned = ls.objective(
        lambda p, x: jax.lax.fori_loop(0, 3, lambda i, z: jnp.sin(z), linear(p, x)), "cross_entropy", DATA, params=weights()
    )
    assert ls.check_operator(scanned.hessian()).passed


class _Abstract:
    def make(self):
        return jax.eval_shape(weights)


@pytest.mark.parametrize(
    ("model", "params", "error", "message"),
    [
        (linear, {}, ValueError, "no parameter"),
        (linear, {"n": jnp.arange(3)}, ValueError, "no parameter"),
        (linear, lambda: weights() | {"b": jnp.ones(3) * 1j}, TypeError, "'b' has dtype complex128"),
        (linear, lambda: weights() | {"b": jnp.ones((0, 3))}, ValueError, "'b' is empty"),
        (linear, _Abstract().make, ValueError, "a shape without numbers"),
        (linear, lambda: {"a.b": jnp.ones(1), "a": {"b": jnp.ones(1)}}, ValueError, "same name 'a.b'"),
        (linen.Dense(3), None, TypeError, r"params=model.init\(key, inputs\)"),
        (jax.jit(linear), None, TypeError, "argument params is missing"),
        (lambda: nnx.Linear(4, 3, rngs=nnx.Rngs(0)), weights, TypeError, "leave it out"),
    ],
)
def test_models_that_cannot_be_taken(model, params, error, message):
    if callable(params):
        params = params()
    if getattr(model, "__name__", "") == "<lambda>":
        model = model()
    with pytest.raises(error, match=message) as caught:
        ls.objective(model, "cross_entropy", DATA, params=params)
    assert str(caught.value).endswith(".")


def test_deleted_and_traced_parameters():
    params = weights()
    params["w"].delete()
    with pytest.raises(ValueError, match="was deleted"):
        ls.objective(linear, "cross_entropy", DATA, params=params)
    with pytest.raises(TypeError, match=r"outside of jax\.jit"):
        jax.jit(lambda p: ls.objective(linear, "cross_entropy", DATA, params=p).value())(weights())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"weight_decay": float("nan")}, "weight_decay"),
        ({"dtype": "int32"}, "dtype is 'int32'"),
        ({"memory_budget": "many"}, "memory_budget"),
        ({"backend": "tpu"}, "backend is 'tpu'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ls.objective(linear, "cross_entropy", DATA, params=weights(), **arguments)
