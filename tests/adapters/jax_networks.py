"""Small float64 networks of every kind that the JAX adapter takes, and their curvature by other means than the library's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

CLASSES = 3


@pytest.fixture(scope="module", autouse=True)
def double_precision():
    """Float64, and quick compilation of networks that run only a few times."""
    before = jax.config.jax_enable_x64, jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_enable_x64", before[0])
    jax.config.update("jax_disable_most_optimizations", before[1])


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def labels(*shape, classes=CLASSES, seed=1):
    return np.random.default_rng(seed).integers(0, classes, shape)


def filled(tree, seed=0):
    """Normal numbers in place of the shapes in a tree; drawing them by initialisers would compile each of them."""
    leaves, treedef = jax.tree_util.tree_flatten(tree)
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            leaves[i] = jnp.asarray(0.5 * normal(*leaf.shape, seed=seed + i), leaf.dtype)
    return treedef.unflatten(leaves)


def drawn(seed):
    """An initialiser of flax that compiles nothing."""
    return lambda key, shape, dtype, *_, **options: jnp.asarray(0.5 * normal(*shape, seed=seed), dtype)


class Case:
    """A model with what ``linop_spectra.objective`` wants, and its outputs as a function of one flat vector of parameters."""

    def __init__(self, model, params, outputs, tree, inputs, targets):
        self.model, self.arguments, self.data = model, {} if params is None else {"params": params}, (inputs, targets)
        self.theta, self.unravel = ravel_pytree(tree)
        self.outputs = lambda theta, x: outputs(self.unravel(theta), x)


def mlp():
    def apply(p, x):
        hidden = jnp.tanh(x @ p["first"]["w"] + p["first"]["b"])
        return hidden @ p["second"]["w"] + p["second"]["b"]

    params = {
        "first": {"w": jnp.asarray(normal(4, 5, seed=2)), "b": jnp.asarray(normal(5, seed=3))},
        "second": {"w": jnp.asarray(normal(5, CLASSES, seed=4)), "b": jnp.asarray(normal(CLASSES, seed=5))},
    }
    return Case(apply, params, apply, params, normal(5, 4), labels(5))


def nnx_cnn():
    """Convolution and batch normalisation in evaluation mode."""
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(1, 3, (3, 3), padding="VALID", rngs=rngs, param_dtype=jnp.float64, kernel_init=drawn(12))
            self.norm = nnx.BatchNorm(3, rngs=rngs, param_dtype=jnp.float64)
            self.drop = nnx.Dropout(0.5, rngs=rngs)
            self.head = nnx.Linear(3, CLASSES, rngs=rngs, param_dtype=jnp.float64, kernel_init=drawn(13))

        def __call__(self, x):
            x = nnx.relu(self.norm(self.conv(x)))
            x = nnx.max_pool(x, (2, 2), strides=(1, 1))
            return self.head(self.drop(x).mean(axis=(1, 2)))

    net = Net(nnx.Rngs(0))
    net.norm.mean[...] = jnp.asarray(normal(3, seed=6), jnp.float32)
    net.norm.var[...] = jnp.asarray([0.5, 1.0, 2.0], jnp.float32)
    net.eval()
    graph, params, rest = nnx.split(net, nnx.Param, ...)
    return Case(net, None, lambda p, x: nnx.merge(graph, p, rest)(x), params, normal(5, 5, 5, 1), labels(5))


def linen_cnn():
    """Convolution, and batch normalisation whose statistics are a collection; the mode is an argument."""
    from flax import linen

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x, train):
            x = linen.Conv(3, (3, 3), padding="VALID", param_dtype=jnp.float64)(x)
            x = linen.BatchNorm(use_running_average=not train, param_dtype=jnp.float64)(x)
            x = linen.Dropout(0.5, deterministic=not train)(linen.silu(x))
            return linen.Dense(CLASSES, param_dtype=jnp.float64)(x.mean(axis=(1, 2)))

    net = Net()
    inputs = normal(5, 4, 4, 1)
    variables = filled(jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.asarray(inputs), False)))
    variables["batch_stats"] = {"BatchNorm_0": {"mean": jnp.full(3, 0.3, jnp.float32), "var": jnp.full(3, 1.3, jnp.float32)}}

    def outputs(params, x):
        return net.apply({**variables, "params": params}, x, train=False)

    return Case(net, variables, outputs, variables["params"], inputs, labels(5))


def attention():
    """Attention, layer normalisation and GELU, with one class for each position."""
    from flax import linen

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            double = {"param_dtype": jnp.float64}
            y = linen.LayerNorm(**double)(x)
            x = x + linen.MultiHeadDotProductAttention(num_heads=2, **double)(y)
            return linen.Dense(CLASSES, **double)(linen.gelu(x))

    net = Net()
    inputs, targets = normal(3, 4, 4), labels(3, 4)
    targets[0, 1:] = -100
    variables = filled(jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.asarray(inputs))))
    return Case(net, variables, lambda p, x: net.apply({"params": p}, x), variables["params"], inputs, targets)


def tied_embedding():
    """Tokens in, one class for each position out, the same matrix at both ends."""

    def apply(p, tokens):
        return jnp.tanh(p["embedding"][tokens] @ p["middle"]) @ p["embedding"].T

    params = {"embedding": jnp.asarray(normal(6, 4, seed=7)), "middle": jnp.asarray(normal(4, 4, seed=8))}
    return Case(apply, params, apply, params, labels(4, 3, classes=6), labels(4, 3, classes=6, seed=2))


def recurrent():
    """A recurrent cell by lax.scan."""

    def apply(p, x):
        def step(state, row):
            state = jnp.tanh(row @ p[0] + state @ p[1])
            return state, None

        last, _ = jax.lax.scan(step, jnp.zeros((x.shape[0], 4)), jnp.swapaxes(x, 0, 1))
        return last @ p[2]

    params = [jnp.asarray(normal(*shape, seed=9 + i)) for i, shape in enumerate([(3, 4), (4, 4), (4, CLASSES)])]
    return Case(apply, params, apply, params, normal(4, 5, 3), labels(4))


NETWORKS = {
    "mlp": mlp, "nnx cnn": nnx_cnn, "linen cnn": linen_cnn, "attention": attention, "tied embedding": tied_embedding,
    "recurrent": recurrent,
}  # fmt: skip


def mean_cross_entropy(outputs, targets):
    """Mean over the positions that are not masked, with the classes along the last axis."""
    mask = targets != -100
    log_p = outputs - jax.nn.logsumexp(outputs, axis=-1, keepdims=True)
    picked = (log_p * jax.nn.one_hot(jnp.where(mask, targets, 0), outputs.shape[-1])).sum(axis=-1)
    return -(picked * mask).sum() / mask.sum()


def dense_matrices(outputs_of, theta, targets):
    """Gradient, Hessian and Gauss-Newton matrix of the mean cross-entropy in a vector, by dense autodiff in one program.

    The latter is ``J^T H J`` with the dense Jacobian by forward mode and the dense Hessian of the loss by two reverse modes.
    """
    targets = jnp.asarray(targets)

    def loss(t):
        z = outputs_of(t)
        return mean_cross_entropy(z, targets), z

    def first(t):
        found = jax.grad(loss, has_aux=True)(t)
        return found, found

    (hessian, jacobian), (gradient, z) = jax.jit(jax.jacfwd(first, has_aux=True))(theta)
    size = len(theta)
    jacobian = np.asarray(jacobian).reshape(-1, size)
    inner = dense_hessian(lambda w: mean_cross_entropy(w, targets), z)
    return np.asarray(gradient), np.asarray(hessian), jacobian.T @ inner @ jacobian


@functools.cache
def references(name):
    """Case, gradient, dense Hessian and dense Gauss-Newton matrix of the mean cross-entropy."""
    case = NETWORKS[name]()
    x, y = map(jnp.asarray, case.data)
    return case, *dense_matrices(lambda theta: case.outputs(theta, x), case.theta, y)


def dense_hessian(function, at):
    """Hessian of a function of an array, by two reverse modes, flattened."""
    flat = jnp.asarray(at).reshape(-1)
    return np.asarray(jax.jit(jax.jacrev(jax.jacrev(lambda x: function(x.reshape(np.shape(at))))))(flat))


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)
