"""Hessians of JAX models with respect to inputs and activations."""

import types

import numpy as np
import pytest

jax = pytest.importorskip("jax")
flax = pytest.importorskip("flax")

import jax.numpy as jnp  # noqa: E402
from flax import linen, nnx  # noqa: E402
from jax.ad_checkpoint import checkpoint_name  # noqa: E402
from jax_networks import (  # noqa: E402, F401
    NETWORKS,
    dense_hessian,
    double_precision,
    drawn,
    filled,
    labels,
    mean_cross_entropy,
    normal,
    relative,
)

import linop_spectra as ls  # noqa: E402


@pytest.mark.parametrize("name", ["mlp", "nnx cnn", "recurrent"])
def test_inputs_against_dense(name):
    case = NETWORKS[name]()
    x, y = (part[:4] for part in case.data)
    objective = ls.objective(case.model, "cross_entropy", [(x[:2], y[:2]), (x[2:4], y[2:4])], **case.arguments)
    operator = objective.input_hessian()
    expected = dense_hessian(lambda z: mean_cross_entropy(case.outputs(case.theta, z), jnp.asarray(y)), x)
    assert relative(operator.to_dense(), expected) < 1e-12
    assert operator.batches[0] == slice(0, x[:2].size)
    assert ls.check_operator(operator).passed
    each = x[0].size
    np.testing.assert_array_equal(operator.to_dense()[np.kron(np.eye(len(x)), np.ones((each, each))) == 0], 0)


def test_batches_of_one_form_share_a_compilation_and_nothing_of_the_objective_changes():
    case = NETWORKS["mlp"]()
    x, y = normal(6, 4), labels(6)
    objective = ls.objective(case.model, "cross_entropy", (x, y), batch_size=2, weight_decay=0.3, **case.arguments)
    plain = ls.objective(case.model, "cross_entropy", (x, y), **case.arguments)
    gradient = objective.gradient()
    operator = objective.input_hessian()
    assert relative(operator.to_dense(), plain.input_hessian().to_dense()) < 1e-13  # weight decay has no part in it
    parts = {id(hessian.objective.functions.programs) for hessian in operator._hessians}
    assert len(parts) == 1
    assert operator._hessians[0].objective.functions.programs.linearized_gradient._cache_size() == 1
    np.testing.assert_array_equal(objective.gradient(), gradient)


def test_several_inputs_masks_and_tokens():
    params = {"e": jnp.asarray(normal(5, 2, seed=1)), "w": jnp.asarray(normal(2, 3, seed=2))}

    def apply(p, inputs):
        hidden = jnp.tanh(p["e"][inputs["tokens"]]) * jnp.sin(inputs["more"][0])
        return jnp.where(inputs["mask"] > 0.5, hidden, 0.1) @ p["w"]

    tokens, x, mask, y = labels(4, classes=5), normal(4, 2), np.array([[1.0], [0.0], [1.0], [1.0]]), labels(4)
    objective = ls.objective(apply, "cross_entropy", [({"tokens": tokens, "more": [x], "mask": mask}, y)], params=params)
    operator = objective.input_hessian()
    with pytest.warns(UserWarning, match=r"'inputs\.mask'.*zero there"):
        matrix = operator.to_dense()
    (pieces,) = operator.unflatten(np.arange(12.0))
    assert {name: array.shape for name, array in pieces.items()} == {"inputs.mask": (4, 1), "inputs.more.0": (4, 2)}
    expected = dense_hessian(
        lambda z: mean_cross_entropy(apply(params, {"tokens": tokens, "more": [z], "mask": jnp.asarray(mask)}), jnp.asarray(y)), x
    )
    np.testing.assert_array_equal(matrix[:4], 0)
    assert relative(matrix[4:, 4:], expected) < 1e-12
    words = ls.objective(lambda p, t: p["e"][t] @ p["w"], "cross_entropy", (tokens, y), params=params)
    with pytest.raises(TypeError, match=r"int64.*activation_hessian"):
        words.input_hessian()


def test_single_precision_and_half_precision():
    params = {"w": jnp.asarray(normal(4, 3), jnp.float32)}
    x, y = normal(5, 4).astype(np.float32), labels(5)

    def apply(p, x):
        return jnp.tanh(x @ p["w"]) * 2

    expected = dense_hessian(
        lambda z: mean_cross_entropy(jnp.tanh(z @ params["w"].astype(float)) * 2, jnp.asarray(y)), x.astype(np.float64)
    )
    single = ls.objective(apply, "cross_entropy", (x, y), params=params).input_hessian()
    assert single.dtype == np.float32
    assert relative(single.to_dense(), expected) < 1e-5
    assert ls.check_operator(single).passed
    half = ls.objective(apply, "cross_entropy", (x, y), params={"w": params["w"].astype(jnp.bfloat16)}).input_hessian()
    assert half.dtype == np.float32
    assert half.unit_rounding == float(jnp.finfo(jnp.bfloat16).eps)
    assert relative(half.to_dense(), expected) < 0.1


# -- activations -------------------------------------------------------------------------------------------------------


class NnxNet(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)

        def layer(inputs, outputs, seed):
            return nnx.Linear(inputs, outputs, rngs=rngs, param_dtype=jnp.float64, kernel_init=drawn(seed))

        self.blocks = nnx.List([layer(4, 5, 1), layer(5, 5, 2)])
        self.head, self.spare = layer(5, 3, 3), layer(1, 1, 4)

    def __call__(self, x):
        x = jnp.tanh(self.blocks[0](x))
        return self.head(x + jnp.tanh(self.blocks[1](x)))


class LinenNet(linen.Module):
    class Block(linen.Module):
        @linen.compact
        def __call__(self, x):
            return jnp.tanh(linen.Dense(5, param_dtype=jnp.float64)(x))

    @linen.compact
    def __call__(self, x):
        x = self.Block(name="one")(x)
        x = x + linen.remat(self.Block)(name="two")(x)
        return linen.Dense(3, name="head", param_dtype=jnp.float64)(x)


@pytest.mark.filterwarnings("ignore:The loss of the batch does not depend on the parameters 'spare")
@pytest.mark.parametrize("kind", ["nnx", "linen", "linen function"])
def test_activations_of_flax_modules_against_dense(kind):
    x, y = normal(5, 4), labels(5)
    if kind == "nnx":
        net, params, names = NnxNet(), {}, ("blocks.0", "blocks.1")
        weights = [(m.kernel.get_value(), m.bias.get_value()) for m in (*net.blocks, net.head)]
        graph = nnx.graphdef(net)
    else:
        net, names = LinenNet(), ("one.Dense_0", "two.Dense_0")
        variables = filled(jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.asarray(x))))
        inner = variables["params"]
        weights = [(m["kernel"], m["bias"]) for m in (inner["one"]["Dense_0"], inner["two"]["Dense_0"], inner["head"])]
        params = {"params": variables}
    model = (lambda p, z: net.apply(p, z)) if kind == "linen function" else net
    objective = ls.objective(model, "cross_entropy", (x, y), **params)
    first, second, head = weights
    start = x @ first[0] + first[1]
    hidden = jnp.tanh(start)
    middle = hidden @ second[0] + second[1]
    after = {
        0: (start, lambda z: (jnp.tanh(z) + jnp.tanh(jnp.tanh(z) @ second[0] + second[1])) @ head[0] + head[1]),
        1: (middle, lambda z: (hidden + jnp.tanh(z)) @ head[0] + head[1]),
    }
    for place, name in enumerate(names):
        operator = objective.activation_hessian(name)
        at, rest = after[place]
        expected = dense_hessian(lambda z, rest=rest: mean_cross_entropy(rest(z), jnp.asarray(y)), at)
        assert relative(operator.to_dense(), expected) < 1e-12
        assert [list(piece) for piece in operator.unflatten(np.zeros(operator.shape[0]))] == [[name]]
    with pytest.raises(ValueError, match=r"'none', which is no layer.*" + names[0]):
        objective.activation_hessian("none")
    if kind == "nnx":
        assert nnx.graphdef(net) == graph
        assert type(net.blocks[1]) is nnx.Linear
        with pytest.raises(TypeError, match="'spare' runs 0 times"):
            objective.activation_hessian("spare")


def test_named_arrays_of_a_function():
    params = {"w": jnp.asarray(normal(4, 5, seed=1)), "v": jnp.asarray(normal(5, 3, seed=2))}

    @jax.jit
    def hidden_of(w, x):
        return checkpoint_name(jnp.tanh(x @ w), "hidden")

    def apply(p, x):
        single = jax.checkpoint(lambda row: hidden_of(p["w"], row))
        return jnp.sin(jax.vmap(single)(x)) @ p["v"]

    x, y = normal(5, 4), labels(5)
    operator = ls.objective(apply, "cross_entropy", (x, y), params=params).activation_hessian("hidden")
    expected = dense_hessian(lambda h: mean_cross_entropy(jnp.sin(h) @ params["v"], jnp.asarray(y)), jnp.tanh(x @ params["w"]))
    assert relative(operator.to_dense(), expected) < 1e-12
    assert ls.check_operator(operator).passed
    # A BatchLoss shows no inputs, but activations.
    loss = ls.BatchLoss(lambda model, batch: (model(batch).astype(float).__pow__(4).sum(), len(batch)))
    whole = ls.objective(apply, loss, [x], params=params)
    expected = dense_hessian(lambda h: ((jnp.sin(h) @ params["v"]) ** 4).sum() / 5, jnp.tanh(x @ params["w"]))
    assert relative(whole.activation_hessian("hidden").to_dense(), expected) < 1e-12
    with pytest.raises(TypeError, match="BatchLoss does not say which arrays are inputs"):
        whole.input_hessian()


def test_arrays_that_cannot_be_changed():
    params = {"w": jnp.asarray(normal(4, 4, seed=1))}

    @jax.custom_jvp
    def own(x):
        return checkpoint_name(jnp.tanh(x), "inside")

    own.defjvp(lambda primals, tangents: (own(*primals), (1 - own(*primals) ** 2) * tangents[0]))

    def apply(p, x):
        x = checkpoint_name(x @ p["w"], "twice")
        x = checkpoint_name(own(x @ p["w"]), "twice")
        x, _ = jax.lax.scan(lambda s, _: (checkpoint_name(jnp.tanh(s @ p["w"]), "looped"), None), x, None, length=3)
        return x + 0.0 * checkpoint_name(jnp.argmax(x), "index")

    objective = ls.objective(apply, "mse", (normal(3, 4), normal(3, 4, seed=1)), params=params)
    with pytest.raises(TypeError, match="'twice' runs 2 times"):
        objective.activation_hessian("twice")
    for name in ("looped", "inside"):
        with pytest.raises(TypeError, match=f"'{name}' lies inside of a loop, a branch or a function with a derivative"):
            objective.activation_hessian(name)
    with pytest.raises(TypeError, match="'index' gives an array of int64"):
        objective.activation_hessian("index")
    with pytest.raises(ValueError, match=r"there are 'twice', 'inside', 'looped', 'index'.*checkpoint_name"):
        objective.activation_hessian("other")


def test_a_module_that_gives_more_than_an_array():
    class Net(nnx.Module):
        def __init__(self):
            options = {"param_dtype": jnp.float64, "kernel_init": drawn(1), "recurrent_kernel_init": drawn(2)}
            self.cell = nnx.LSTMCell(3, 2, rngs=nnx.Rngs(0), **options)

        def __call__(self, x):
            carry = jnp.zeros((len(x), 2)), jnp.zeros((len(x), 2))
            return self.cell(carry, x)[1]

    objective = ls.objective(Net(), "mse", (normal(3, 3), normal(3, 2)))
    with pytest.raises(TypeError, match="'cell' gives a tuple"):
        objective.activation_hessian("cell")
    assert ls.check_operator(objective.input_hessian()).passed


def test_equal_to_torch():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()
    x, y = normal(4, 4), labels(4)
    theirs = ls.objective(model, "cross_entropy", (torch.tensor(x), torch.tensor(y)), batch_size=2)
    w, b, v, c = (jnp.asarray(p.detach().numpy()) for p in model.parameters())

    def apply(p, x):
        return checkpoint_name(jnp.tanh(checkpoint_name(x @ p[0].T + p[1], "0")), "1") @ p[2].T + p[3]

    ours = ls.objective(apply, "cross_entropy", (x, y), params=[w, b, v, c], batch_size=2)
    vectors = normal(16, 2)
    np.testing.assert_allclose(ours.input_hessian() @ vectors, theirs.input_hessian() @ vectors, rtol=1e-10, atol=1e-13)
    for layer in ("0", "1"):
        u = normal(20)
        np.testing.assert_allclose(ours.activation_hessian(layer) @ u, theirs.activation_hessian(layer) @ u, rtol=1e-10, atol=1e-13)


def test_scarce_memory_and_masked_batches():
    case = NETWORKS["mlp"]()
    x, y = normal(6, 4), labels(6)
    y[:3] = -100
    whole = ls.objective(case.model, "cross_entropy", (x, y), **case.arguments).input_hessian()
    batches = [(x[:3], y[:3]), (x[3:], y[3:])]
    parts = ls.objective(case.model, "cross_entropy", batches, memory_budget=2000, **case.arguments).input_hessian()
    assert relative(parts.to_dense(), whole.to_dense()) < 1e-13
    np.testing.assert_array_equal(parts.to_dense()[:12], 0)
    assert "0 of 1 batches are kept" in parts.engine


def test_other_frameworks_are_told():
    nothing = types.SimpleNamespace(functions=object())
    with pytest.raises(TypeError, match="do not exist for a model of this framework"):
        ls.curvature.Objective.input_hessian(nothing)
