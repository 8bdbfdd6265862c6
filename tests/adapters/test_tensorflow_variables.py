"""Hessians in inputs and activations of Keras models and modules on TensorFlow."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
if keras.backend.backend() != "tensorflow":
    pytest.skip("Keras runs on another backend here", allow_module_level=True)

from tensorflow_networks import CLASSES, Network, cross_entropy, dense, make, relative, state_of, torch_twin  # noqa: E402

import linop_spectra as ls  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")


def by_differences(loss, at, step=1e-6):
    """Dense Hessian in an array by central differences of the gradient of one tape."""
    gradient = tf.function(lambda x: _slope(loss, x))
    rows = []
    for index in range(at.size):
        shift = np.zeros(at.size)
        shift[index] = step
        ahead, behind = (gradient(tf.constant(at + sign * shift.reshape(at.shape))).numpy().ravel() for sign in (1, -1))
        rows.append((ahead - behind) / (2 * step))
    return np.array(rows)


def by_tapes(loss, at):
    """Dense Hessian by a tape over a tape."""
    x = tf.constant(at)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        slope = _slope(loss, x)
    return tape.jacobian(slope, x, experimental_use_pfor=False).numpy().reshape(at.size, at.size)


def _slope(loss, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(x)
    return tape.gradient(value, x)


@pytest.mark.parametrize("name", ["tanh", "batch norm", "attention", "lstm"])
def test_inputs_against_differences(name):
    # For one of them batches of two sizes; each size has a graph of its own.
    examples, size = (3, 2) if name == "tanh" else (2, 1)
    model, inputs, targets = make(name, examples=examples)
    before = state_of(model)
    operator = ls.objective(model, "cross_entropy", (inputs, targets), batch_size=size).input_hessian()
    expected = by_differences(lambda x: cross_entropy(model(x), targets), inputs)
    found = operator.to_dense()
    assert relative(found, expected) < 1e-7
    each = inputs[0].size
    assert operator.batches == (slice(0, size * each), slice(size * each, examples * each))
    places = np.arange(examples).repeat(each)
    outside = places[:, None] != places
    np.testing.assert_array_equal(found[outside], 0)
    assert name == "lstm" or ls.check_operator(operator).passed
    assert all(np.array_equal(a, b) for a, b in zip(before, state_of(model), strict=True))


@pytest.mark.parametrize("name", ["tanh", "batch norm"])
def test_torch_gives_the_same(name):
    model, inputs, targets = make(name, examples=4)
    first = inputs.transpose(0, 3, 1, 2).copy() if name != "tanh" else inputs
    ours = ls.objective(model, "cross_entropy", (inputs, targets), batch_size=3)
    theirs = ls.objective(torch_twin(name, model), "cross_entropy", (first, targets), batch_size=3)
    order = np.moveaxis(np.arange(inputs.size).reshape(inputs.shape), -1, 1).ravel() if name != "tanh" else np.arange(inputs.size)
    dense_ours, dense_theirs = ours.input_hessian().to_dense(), theirs.input_hessian().to_dense()
    assert relative(dense_ours[np.ix_(order, order)], dense_theirs) < 1e-12
    layer = next(n for n in ours.functions.program.layer_names if n.startswith(("dense", "conv")))
    activations = ours.activation_hessian(layer), theirs.activation_hessian("0")
    shape = (4, -1) if name == "tanh" else (4, 3, 3, 3)
    order = np.arange(activations[0].shape[0]).reshape(shape)
    order = order.ravel() if name == "tanh" else np.moveaxis(order, -1, 1).ravel()
    found = [operator.to_dense() for operator in activations]
    if name == "tanh":  # Keras' layer includes its activation
        found[1] = theirs.activation_hessian("1").to_dense()
    assert relative(found[0][np.ix_(order, order)], found[1]) < 1e-12
    assert isinstance(activations[0].unflatten(np.zeros(order.size))[0][layer], tf.Tensor)


def test_weight_decay_regularisers_and_masks():
    generator = np.random.default_rng(0)
    l2 = keras.regularizers.L2(0.25)
    model = keras.Sequential([keras.Input((4,), dtype="float64"), dense(5, "tanh", kernel_regularizer=l2), dense(CLASSES)])
    x, y = generator.standard_normal((6, 4)), generator.integers(0, CLASSES, 6)
    y[:2] = -100
    whole = ls.objective(model, "cross_entropy", (x, y), weight_decay=0.5).input_hessian()
    expected = by_tapes(lambda inputs: cross_entropy(model(inputs)[2:], y[2:]), x)
    np.testing.assert_allclose(whole.to_dense(), expected, atol=1e-14)
    parts = ls.objective(model, "cross_entropy", [(x[:2], y[:2]), (x[2:], y[2:])]).input_hessian()
    np.testing.assert_allclose(parts.to_dense(), expected, atol=1e-14)
    first = whole.objective.functions.program.layer_names[0]
    activations = model.layers[0](x).numpy()
    expected = by_tapes(lambda a: cross_entropy(model.layers[1](a)[2:], y[2:]), activations)
    np.testing.assert_allclose(whole.objective.activation_hessian(first).to_dense(), expected, atol=1e-14)


def test_batch_statistics_couple_examples():
    model, x, y = make("batch norm", examples=4)
    conv, norm, *others = model.layers

    def loss(inputs):
        hidden = conv(inputs)
        mean = tf.reduce_mean(hidden, [0, 1, 2])
        variance = tf.reduce_mean((hidden - mean) ** 2, [0, 1, 2])
        hidden = (hidden - mean) / tf.sqrt(variance + norm.epsilon) * norm.gamma + norm.beta
        for layer in others:
            hidden = layer(hidden)
        return cross_entropy(hidden, y)

    before = state_of(model)
    operator = ls.objective(model, "cross_entropy", (x, y), batch_norm="train").input_hessian()
    v = np.random.default_rng(0).standard_normal((x.size, 2))
    matrix = by_differences(loss, x)
    assert relative(operator @ v, matrix @ v) < 1e-7
    assert abs(matrix[:50, 50:]).max() > 1e-6
    assert all(np.array_equal(a, b) for a, b in zip(before, state_of(model), strict=True))


def test_several_inputs():
    keras.utils.set_random_seed(0)
    tokens, x = keras.Input((), dtype="int32", name="tokens"), keras.Input((2,), dtype="float64", name="x")
    embedded = keras.layers.Embedding(5, 2, dtype="float64", name="embedding")(tokens)
    mixed = keras.layers.Multiply(dtype="float64")([embedded, keras.layers.Activation("tanh", dtype="float64", name="tanh")(x)])
    outputs = dense(2)(mixed)
    a, b, y = np.array([0, 3, 1, 4, 4]), np.random.default_rng(0).standard_normal((5, 2)), np.array([0, 1, 0, 1, 1])
    listed, named = keras.Model([tokens, x], outputs), keras.Model({"tokens": tokens, "x": x}, outputs)
    objective = ls.objective(listed, "cross_entropy", [([a[:3], b[:3]], y[:3]), ([a[3:], b[3:]], y[3:])])
    operator = objective.input_hessian()
    expected = by_tapes(lambda z: cross_entropy(listed([tf.constant(a), z]), y), b)
    np.testing.assert_allclose(operator.to_dense(), expected, atol=1e-14)
    pieces = operator.unflatten(np.arange(10.0))
    assert [list(piece) for piece in pieces] == [["inputs.1"], ["inputs.1"]]
    np.testing.assert_array_equal(pieces[1]["inputs.1"], np.arange(6.0, 10.0).reshape(2, 2))
    again = ls.objective(named, "cross_entropy", [({"tokens": a, "x": b}, y)])
    np.testing.assert_allclose(again.input_hessian().to_dense(), expected, atol=1e-14)
    assert list(again.input_hessian().unflatten(np.zeros(10))[0]) == ["inputs.x"]
    # An activation without parameters, and the layer behind the integers.
    assert objective.activation_hessian("embedding").shape == objective.activation_hessian("tanh").shape == (10, 10)
    only = keras.Model(tokens, dense(2)(embedded))
    only.set_weights(listed.get_weights())
    blind = ls.objective(only, "cross_entropy", (a, y))
    with pytest.raises(TypeError, match=r"types 'int64'.*activation_hessian"):
        blind.input_hessian()
    rows = only.layers[1](tf.constant(a)).numpy()
    found = blind.activation_hessian("embedding")
    np.testing.assert_allclose(found.to_dense(), by_tapes(lambda z: cross_entropy(only.layers[2](z), y), rows), atol=1e-14)
    assert ls.check_operator(found).passed


class Residual(keras.Model):
    """A connection around a layer, another layer used twice, one in a loop over time, one that gives two arrays, one unused."""

    def __init__(self):
        super().__init__(name="residual", dtype="float64")
        self.first, self.second, self.last = dense(3, "tanh"), dense(3), dense(2)
        self.shared, self.spare = dense(3), dense(1)
        self.recurrent = keras.layers.LSTM(3, return_sequences=True, return_state=True, dtype="float64")

    def build(self, shape):
        self.spare.build((None, 3))

    def call(self, x):
        x = self.first(x)
        x = self.shared(self.shared(x + tf.tanh(self.second(x))))
        return self.last(self.recurrent(x[:, tf.newaxis])[0][:, 0])


def test_activations_of_a_model_of_its_own():
    keras.utils.set_random_seed(0)
    model, x = Residual(), np.random.default_rng(0).standard_normal((4, 3))
    model(x)
    loss = ls.BatchLoss(lambda net, batch: (tf.reduce_sum(net(batch) ** 4), 8))
    objective = ls.objective(model, loss, [x])
    held = [dict(vars(layer)) for layer in model._flatten_layers()]
    h = model.first(x)
    at = model.second(h).numpy()

    def behind(a):
        rest = model.shared(model.shared(h + tf.tanh(a)))
        return tf.reduce_sum(model.last(model.recurrent(rest[:, tf.newaxis])[0][:, 0]) ** 4) / 8

    names = dict(zip(("first", "second", "last", "shared", "spare", "recurrent"), objective.functions.program.layer_names, strict=False))
    operator = objective.activation_hessian(names["second"])
    assert relative(operator.to_dense(), by_tapes(behind, at)) < 1e-12
    assert ls.check_operator(operator).passed
    with pytest.raises(TypeError, match="BatchLoss does not say which arrays are inputs"):
        objective.input_hessian()
    for name, match in (("shared", "runs 2 times"), ("spare", "runs 0 times"), ("recurrent", "gives a (tuple|list)")):
        with pytest.raises(TypeError, match=match):
            objective.activation_hessian(names[name])
    for name in ("none", "", "residual"):
        with pytest.raises(ValueError, match="no layer of the model; there are 'dense"):
            objective.activation_hessian(name)
    assert [dict(vars(layer)) for layer in model._flatten_layers()] == held


def test_modules():
    model, x, y = Network(), np.random.default_rng(1).standard_normal((5, 4)), np.arange(5) % CLASSES
    objective = ls.objective(model, "cross_entropy", (x, y), batch_size=3)

    def loss(inputs):
        model.calls.assign(0.0)
        return cross_entropy(model(inputs, training=False), y)

    operator = objective.input_hessian()
    assert relative(operator.to_dense(), by_tapes(loss, x)) < 1e-12
    assert ls.check_operator(operator).passed
    with pytest.raises(TypeError, match="write it as a Keras model"):
        objective.activation_hessian("again")


def test_batches_of_one_form_are_traced_once():
    model, x, y = make("tanh", examples=11)
    objective = ls.objective(model, "cross_entropy", (x, y), batch_size=2)
    operator = objective.input_hessian()
    operator @ np.ones(x.size)
    objective.with_parameters(0.5 * objective.parameters()).input_hessian() @ np.ones(x.size)
    kinds = list(objective.functions.derived.values())
    assert [compiled.traces["hessian"] for compiled in kinds] == [1, 1]  # two examples, and one
    single = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "tanh"), keras.layers.Dense(CLASSES)])
    narrow = ls.objective(single, "cross_entropy", (x, y)).input_hessian()
    assert narrow.dtype == np.float32
    assert ls.check_operator(narrow).passed
