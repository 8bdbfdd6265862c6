"""Models of equinox: names, every matrix against dense derivatives, state and modes, what is refused."""

import functools

import numpy as np
import pytest

jax = pytest.importorskip("jax")
eqx = pytest.importorskip("equinox")

import jax.numpy as jnp  # noqa: E402
from jax.flatten_util import ravel_pytree  # noqa: E402
from jax_networks import (  # noqa: E402, F401
    dense_hessian,
    dense_matrices,
    double_precision,
    filled,
    labels,
    mean_cross_entropy,
    normal,
    relative,
)

import linop_spectra as ls  # noqa: E402


class Convolutional(eqx.Module):
    """Convolution, normalisation with a state, dropout, and a layer that is frozen by nobody."""

    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    drop: eqx.nn.Dropout
    head: eqx.nn.Linear

    def __init__(self, key):
        first, second = jax.random.split(key)
        self.conv = eqx.nn.Conv2d(1, 3, 3, key=first)
        self.norm = eqx.nn.BatchNorm(3, axis_name="batch", mode="batch")
        self.drop = eqx.nn.Dropout(0.5)
        self.head = eqx.nn.Linear(3, 3, key=second)

    def __call__(self, x, state):
        x, state = self.norm(self.conv(x), state)
        return self.head(self.drop(jnp.tanh(x)).mean(axis=(1, 2))), state


def mlp():
    return filled(eqx.filter_eval_shape(eqx.nn.MLP, 4, 3, 5, 2, activation=jnp.tanh, key=jax.random.key(0)))


def linear():
    return filled(eqx.filter_eval_shape(eqx.nn.Linear, 4, 3, key=jax.random.key(1)))


@functools.cache  # immutable, and long to make
def with_statistics():
    """The convolutional model after a forward pass in training mode, its state and data."""
    images = normal(5, 1, 4, 4)

    @eqx.filter_jit
    def made(key, x):
        model, state = eqx.nn.make_with_state(Convolutional)(key)
        still = eqx.tree_at(lambda m: m.drop, model, eqx.nn.Dropout(0.0))
        return model, jax.vmap(still, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x + 0.3, state)[1]

    return *made(jax.random.key(2), jnp.asarray(images)), images


def references(model, outputs_of, x, y):
    """Gradient, Hessian and Gauss-Newton matrix of the mean cross-entropy in the arrays of a model, in the order of its tree."""
    arrays, rest = eqx.partition(model, eqx.is_inexact_array)
    theta, unravel = ravel_pytree(arrays)
    return dense_matrices(lambda t: outputs_of(eqx.combine(unravel(t), rest), jnp.asarray(x)), theta, y)


def assert_matrices(objective, expected):
    gradient, hessian, ggn = expected
    np.testing.assert_allclose(objective.gradient(), gradient, atol=1e-13)
    assert relative(objective.hessian().to_dense(), hessian) < 1e-12
    assert relative(objective.ggn().to_dense(), ggn) < 1e-12


@pytest.mark.parametrize("make", [linear, mlp])
def test_matrices_against_dense(make):
    model, x, y = make(), normal(5, 4), labels(5)
    before = jax.tree.map(np.array, eqx.filter(model, eqx.is_array))
    # For one of them two batches of different sizes; each size compiles anew.
    objective = ls.objective(model, "cross_entropy", (x, y), batch_size=3 if make is mlp else None)
    assert_matrices(objective, references(model, lambda m, z: jax.vmap(m)(z), x, y))
    assert ls.check_operator(objective.hessian()).passed
    after = jax.tree.map(np.array, eqx.filter(model, eqx.is_array))
    assert all(map(np.array_equal, jax.tree.leaves(before), jax.tree.leaves(after)))
    if make is mlp:
        names = [f"layers.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")]
        assert list(objective.blocks) == names
        part = ls.objective(model, "cross_entropy", (x, y), parameters="layers.1.*")
        rows = np.r_[objective.blocks["layers.1.weight"], objective.blocks["layers.1.bias"]]
        np.testing.assert_allclose(part.hessian().to_dense(), objective.hessian().to_dense()[np.ix_(rows, rows)], atol=1e-13)


def test_with_parameters_takes_another_model():
    model, x, y = mlp(), normal(5, 4), labels(5)
    other = jax.tree.map(lambda leaf: 2 * leaf if eqx.is_array(leaf) else leaf, model)
    moved = ls.objective(model, "cross_entropy", (x, y)).with_parameters(other)
    assert moved.value() == pytest.approx(ls.objective(other, "cross_entropy", (x, y)).value(), rel=1e-14)


def test_state_and_modes():
    model, state, images = with_statistics()
    images, y = images[:4], labels(4)
    still = eqx.Partial(eqx.nn.inference_mode(model), state=state)
    objective = ls.objective(still, "cross_entropy", (images, y), batch_size=2)
    assert [name.partition(".")[2] for name in objective.blocks] == [
        "conv.weight", "conv.bias", "norm.weight", "norm.bias", "head.weight", "head.bias",
    ]  # fmt: skip  # neither the statistics nor the probability of dropout

    def outputs(m, x):
        return jax.vmap(m, in_axes=(0, None), out_axes=(0, None))(x, state)[0]

    assert_matrices(objective, references(still.func, outputs, images, y))
    assert ls.check_operator(objective.ggn()).passed


def test_statistics_of_the_batch_by_a_batch_loss():
    model, state, images = with_statistics()
    y = labels(5)
    model = eqx.tree_at(lambda m: m.drop, model, eqx.nn.Dropout(0.5, inference=True))

    def outputs(m, batch):
        return jax.vmap(m, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(batch[0], state)[0]

    def loss(z, batch):
        return mean_cross_entropy(z, batch[1]) * len(z), len(z)

    objective = ls.objective(model, ls.BatchLoss(outputs=outputs, loss=loss), [(images, y)])
    expected = references(model, lambda m, x: outputs(m, (x, None)), images, y)
    # The bias before the normalisation counts for nothing, but up to rounding.
    assert_matrices(objective, expected)


def test_modes_that_are_refused():
    model, state, images = with_statistics()
    data = images, labels(5)
    with pytest.raises(RuntimeError, match=r"axis name.*equinox\.nn\.inference_mode"):
        ls.objective(eqx.Partial(model, state=state), "cross_entropy", data).value()
    with pytest.raises(RuntimeError, match=r"keeps a state.*equinox\.Partial"):
        ls.objective(eqx.nn.inference_mode(model), "cross_entropy", data).value()
    dropped = eqx.nn.Sequential([linear(), eqx.nn.Dropout(0.5)])
    with pytest.raises(RuntimeError, match=r"dropout.*equinox\.nn\.inference_mode"):
        ls.objective(dropped, "cross_entropy", (normal(5, 4), labels(5))).value()
    still = ls.objective(eqx.nn.inference_mode(dropped), "cross_entropy", (normal(5, 4), labels(5)))
    assert list(still.blocks) == ["layers.0.weight", "layers.0.bias"]
    assert still.value() == pytest.approx(ls.objective(dropped.layers[0], "cross_entropy", (normal(5, 4), labels(5))).value())
    with pytest.raises(TypeError, match="an equinox module"):
        ls.objective(mlp(), "cross_entropy", (normal(5, 4), labels(5)), params={})


def test_inputs_and_activations_against_dense():
    model, x, y = mlp(), normal(4, 4), labels(4)
    objective = ls.objective(model, "cross_entropy", (x, y))

    def dense(function, at):
        return dense_hessian(lambda z: mean_cross_entropy(function(z), jnp.asarray(y)), at)

    assert relative(objective.input_hessian().to_dense(), dense(jax.vmap(model), x)) < 1e-12
    before = jax.jit(jax.vmap(lambda row: model.layers[1](jnp.tanh(model.layers[0](row)))))(jnp.asarray(x))
    operator = objective.activation_hessian("layers.1")
    assert relative(operator.to_dense(), dense(jax.vmap(lambda h: model.layers[2](jnp.tanh(h))), before)) < 1e-12
    assert ls.check_operator(operator).passed
    with pytest.raises(ValueError, match=r"there are .*'layers\.0'"):
        objective.activation_hessian("layers.9")


def test_activations_have_the_examples_first():
    """Wherever the mapped axis is inside."""

    class Moved(eqx.Module):
        inner: eqx.nn.Lambda
        head: eqx.nn.Linear

        def __call__(self, x):
            return self.head(self.inner(x).reshape(-1))

    class Outer(eqx.Module):
        moved: Moved

        def __call__(self, x):
            return jax.vmap(self.moved, in_axes=1, out_axes=0)(x)

    # Inside, each example is a column of the input.
    head = filled(eqx.filter_eval_shape(eqx.nn.Linear, 2, 3, key=jax.random.key(0)))
    moved = Moved(eqx.nn.Lambda(lambda x: jnp.sin(x) * jnp.array([1.0, 2.0])), head)
    x, y = normal(4, 2, 3), labels(4, 3)
    objective = ls.objective(Outer(moved), "cross_entropy", (x, y))
    operator = objective.activation_hessian("moved.inner")
    activations = jnp.sin(jnp.asarray(x).transpose(0, 2, 1)) * jnp.array([1.0, 2.0])

    def loss(z):
        return mean_cross_entropy(z @ moved.head.weight.T + moved.head.bias, jnp.asarray(y))

    assert relative(operator.to_dense(), dense_hessian(loss, activations)) < 1e-12
