"""Running statistics collected anew along a line: by NumPy, for the models of flax and for Keras on its three backends."""

import numpy as np
import pytest
from scipy import special

import linop_spectra as ls
import linop_spectra.landscape as landscape

RNG = np.random.default_rng(5)
SIZES = (7, 4)  # an uneven last batch
N, D, HIDDEN, CLASSES, EPSILON = sum(SIZES), 3, 5, 3, 1e-3
X, Y = RNG.standard_normal((N, D)) * 2 + 1, RNG.integers(0, CLASSES, N)
HELD_X, HELD_Y = RNG.standard_normal((6, D)), RNG.integers(0, CLASSES, 6)
T = np.array([-0.7, 0.0, 1.0])
BATCHES = [(X[: SIZES[0]], Y[: SIZES[0]]), (X[SIZES[0] :], Y[SIZES[0] :])]


def in_linen():
    linen = pytest.importorskip("flax.linen")
    import jax

    jax.config.update("jax_enable_x64", True)

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x, train: bool = True):
            x = linen.Dense(HIDDEN, param_dtype=np.float64)(x)
            x = linen.BatchNorm(use_running_average=not train, epsilon=EPSILON, param_dtype=np.float64)(x)
            x = linen.Dropout(0.5, deterministic=not train)(jax.numpy.tanh(x))
            return linen.Dense(CLASSES, param_dtype=np.float64)(x)

    net = Net()
    variables = net.init(jax.random.key(0), X, train=False)
    return lambda data, **options: ls.objective(net, "cross_entropy", data, params=variables, **options), variables


def in_nnx():
    nnx = pytest.importorskip("flax.nnx")
    import jax

    jax.config.update("jax_enable_x64", True)

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(D, HIDDEN, param_dtype=np.float64, rngs=rngs)
            self.norm = nnx.BatchNorm(HIDDEN, epsilon=EPSILON, param_dtype=np.float64, rngs=rngs)
            self.drop = nnx.Dropout(0.5, rngs=rngs)
            self.last = nnx.Linear(HIDDEN, CLASSES, param_dtype=np.float64, rngs=rngs)

        def __call__(self, x):
            return self.last(self.drop(jax.numpy.tanh(self.norm(self.first(x)))))

    net = Net(nnx.Rngs(0))
    net.eval()
    return lambda data, **options: ls.objective(net, "cross_entropy", data, **options), nnx.state(net)


def in_keras():
    keras = pytest.importorskip("keras")
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((D,), dtype="float64"), layers.Dense(HIDDEN, dtype="float64"),
        layers.BatchNormalization(epsilon=EPSILON, dtype="float64"), layers.Activation("tanh", dtype="float64"),
        layers.Dropout(0.5, dtype="float64"), layers.Dense(CLASSES, dtype="float64"),
    ])  # fmt: skip
    return lambda data, **options: ls.objective(model, "cross_entropy", data, **options), model


MODELS = {"linen": in_linen, "nnx": in_nnx, "keras": in_keras}
PRECISION = {"linen": 1e-6, "nnx": 1e-6, "keras": 1e-11}  # flax keeps running statistics in single precision


def held_by(state):
    """Every number that the user's model holds."""
    if hasattr(state, "get_weights"):
        return state.get_weights()
    import jax

    return [np.array(leaf) for leaf in jax.tree.leaves(state) if getattr(getattr(leaf, "dtype", None), "kind", "") == "f"]


def by_hand(objective, vector, inputs, labels):
    """The loss by NumPy, with statistics that are means over the batches, weighted by their examples, in every framework but torch."""
    found = {name: np.asarray(value) for name, value in objective.unflatten(vector).items()}
    weights = {a.shape: a for a in found.values() if a.ndim == 2}
    w1, w2 = weights[(D, HIDDEN)], weights[(HIDDEN, CLASSES)]
    b2 = next(a for a in found.values() if a.shape == (CLASSES,))
    named = {kind: next((a for name, a in found.items() if kind in name), None) for kind in ("scale", "gamma", "beta")}
    scale = named["scale"] if named["scale"] is not None else named["gamma"]
    biases = {name: a for name, a in found.items() if a.shape == (HIDDEN,) and not any(kind in name for kind in ("scale", "gamma"))}
    norm = next(name for name in biases if "beta" in name or "norm" in name.lower())
    shift, b1 = biases[norm], next(a for name, a in biases.items() if name != norm)
    means = [((x @ w1 + b1).mean(axis=0), (x @ w1 + b1).var(axis=0)) for x, _ in BATCHES]
    mean, var = (np.average([pair[i] for pair in means], axis=0, weights=SIZES) for i in (0, 1))
    hidden = np.tanh((inputs @ w1 + b1 - mean) / np.sqrt(var + EPSILON) * scale + shift)
    return -special.log_softmax(hidden @ w2 + b2, axis=1)[np.arange(len(labels)), labels].mean()


def line_of(make):
    objective = make(BATCHES)
    d = np.random.default_rng(1).standard_normal(objective.num_parameters)
    held = objective.with_data((HELD_X, HELD_Y))
    return objective, landscape.line(objective, d, T, held_out=held, metrics="accuracy", batch_norm="re-estimate")


@pytest.mark.parametrize("kind", MODELS)
def test_statistics_of_a_pass_in_training_mode(kind):
    make, own = MODELS[kind]()
    before = held_by(own)
    objective, line = line_of(make)
    kept = landscape.line(objective, line.direction, T)
    theta, precision = np.asarray(objective.parameters()), PRECISION[kind]
    for i, t in enumerate(T):
        there = theta + t * line.direction
        assert line.loss[i] == pytest.approx(by_hand(objective, there, X, Y), rel=precision)
        assert line.held_out_loss[i] == pytest.approx(by_hand(objective, there, HELD_X, HELD_Y), rel=precision)
        assert abs(line.loss[i] - kept.loss[i]) > 1e-3
    assert all(np.array_equal(a, b) for a, b in zip(before, held_by(own), strict=True))


@pytest.mark.parametrize("kind", ["nnx", "keras"])
def test_one_batch_gives_the_loss_in_training_mode(kind):
    """The statistics of the only batch are what batch normalisation in training uses."""
    make, _ = MODELS[kind]()
    objective = make((X, Y), batch_size=N)
    line = landscape.line(objective, "random", T, batch_norm="re-estimate")
    train = make((X, Y), batch_size=N, batch_norm="train")
    np.testing.assert_allclose(line.loss, landscape.line(train, line.direction, T).loss, rtol=PRECISION[kind])
    with pytest.raises(ValueError, match="no batch normalisation layer"):
        landscape.line(train, "random", T, batch_norm="re-estimate")


def test_models_that_hide_their_statistics_say_so():
    jax = pytest.importorskip("jax")
    objective = ls.objective(lambda w, x: jax.numpy.tanh(x @ w), "cross_entropy", (X, Y), params=RNG.standard_normal((D, CLASSES)))
    with pytest.raises(TypeError, match=r"function of parameters and inputs hides its running statistics.*pass the flax module itself"):
        landscape.line(objective, "random", T, batch_norm="re-estimate")
    linen = pytest.importorskip("flax.linen")

    class Own(linen.Module):
        @linen.compact
        def __call__(self, x):
            mean = self.variable("batch_stats", "mean", lambda: jax.numpy.zeros(D))
            return linen.Dense(CLASSES)(x - mean.value)

    variables = Own().init(jax.random.key(0), X)
    with pytest.raises(TypeError, match=r"'batch_stats.mean'.*belong to no flax\.linen\.BatchNorm"):
        landscape.line(ls.objective(Own(), "cross_entropy", (X, Y), params=variables), "random", T, batch_norm="re-estimate")
    tf = pytest.importorskip("tensorflow")

    class Module(tf.Module):
        def __init__(self):
            super().__init__()
            self.w = tf.Variable(RNG.standard_normal((D, CLASSES)))

        def __call__(self, x):
            return x @ self.w

    with pytest.raises(TypeError, match=r"a tf\.Module hides"):
        landscape.line(ls.objective(Module(), "cross_entropy", (X, Y)), "random", T, batch_norm="re-estimate")


def compare_keras_with_numpy():
    """For the other backends of Keras: their tests call this in processes that they start anyway."""
    make, model = in_keras()
    rng = np.random.default_rng(9)
    model.set_weights([rng.uniform(0.5, 1.5, w.shape) if w.dtype.kind == "f" else w for w in model.get_weights()])
    before = model.get_weights()
    objective, line = line_of(make)
    there = [np.asarray(objective.parameters()) + t * line.direction for t in T]
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    for i, theta in enumerate(there):
        np.testing.assert_allclose(line.loss[i], by_hand(objective, theta, X, Y), rtol=1e-11)
        np.testing.assert_allclose(line.held_out_loss[i], by_hand(objective, theta, HELD_X, HELD_Y), rtol=1e-11)
    train = make((X, Y), batch_size=N, batch_norm="train")
    alone = make((X, Y), batch_size=N)
    one = landscape.line(alone, line.direction, T, batch_norm="re-estimate")
    np.testing.assert_allclose(one.loss, landscape.line(train, line.direction, T).loss, rtol=1e-11)
