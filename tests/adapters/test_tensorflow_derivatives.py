"""Derivatives of Keras models and modules on TensorFlow, against differences, plain tapes and the torch adapter."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
if keras.backend.backend() != "tensorflow":
    pytest.skip("Keras runs on another backend here", allow_module_level=True)

from tensorflow_networks import (  # noqa: E402
    CLASSES,
    NETWORKS,
    Network,
    cross_entropy,
    dense,
    gauss_newton,
    gradient,
    gradient_difference,
    make,
    relative,
    state_of,
    torch_twin,
)

import linop_spectra as ls  # noqa: E402

# NumPy warns where Keras' variables are read with its newest protocol.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")


def _compare(objective, model, outputs_of, targets, *, step=1e-6):
    v = np.random.default_rng(1).standard_normal((objective.num_parameters, 2))

    def loss(m):
        return cross_entropy(outputs_of(m), targets)

    assert objective.value() == pytest.approx(float(loss(model)), rel=1e-13)
    assert relative(objective.gradient(), gradient(model, loss)) < 1e-12
    hessian = objective.hessian() @ v
    assert relative(hessian[:, 0], gradient_difference(model, loss, v[:, 0], step)) < 1e-7
    assert relative(objective.ggn() @ v, gauss_newton(model, outputs_of, targets) @ v) < 1e-12
    assert relative(objective.hessian() @ v[:, 1], hessian[:, 1]) < 1e-13


# Attention is compared with torch and with differences among the tests of all frameworks.
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "attention"])
def test_products_equal_plain_tapes_and_differences(name):
    model, inputs, targets = make(name)
    before = state_of(model)
    # Three batches, the last one of a single example.
    objective = ls.objective(model, "cross_entropy", (inputs, targets), batch_size=3)
    _compare(objective, model, lambda m: m(inputs), targets)
    functions, point = objective.functions, objective.point
    v, out = np.random.default_rng(2).standard_normal(objective.num_parameters), np.empty(objective.num_parameters)
    with functions.session():
        total, terms = functions.accumulator(out), 0.0
        for batch in objective.batches():
            linearization = functions.linearize(point, batch, num_products=1)
            total.add(linearization.gauss_newton_product(functions.to_native(v)))
            terms += linearization.num_terms
        total.finish(1 / terms)
    assert relative(out, objective.ggn() @ v) < 1e-13
    if name == "tanh":
        assert relative(objective.residual() @ v, objective.hessian() @ v - out) < 1e-12
    assert ("forward mode is not safe" in objective.ggn().engine) == (name == "lstm")
    assert set(functions.compiled.traces.values()) == {1}  # one graph of each kind for batches of all sizes
    assert all(np.array_equal(a, b) for a, b in zip(before, state_of(model), strict=True))


def test_hessian_equals_the_dense_one_by_nested_tapes():
    model, inputs, targets = make("tanh")
    variables = [v.value for v in model.trainable_variables]
    with tf.GradientTape(persistent=True) as outer:
        with tf.GradientTape() as inner:
            loss = cross_entropy(model(inputs), targets)
        flat = tf.concat([tf.reshape(g, [-1]) for g in inner.gradient(loss, variables)], 0)
    rows = outer.jacobian(flat, variables, experimental_use_pfor=False)
    expected = np.concatenate([r.numpy().reshape(len(flat), -1) for r in rows], axis=1)
    dense_hessian = ls.objective(model, "cross_entropy", (inputs, targets), batch_size=4).hessian().to_dense()
    np.testing.assert_allclose(dense_hessian, expected, atol=1e-14)


def test_batch_normalisation_by_the_statistics_of_the_batch():
    model, inputs, targets = make("batch norm")

    def outputs_of(m):
        first, norm, *others = m.layers
        hidden = first(inputs)
        mean = tf.reduce_mean(hidden, [0, 1, 2])
        variance = tf.reduce_mean((hidden - mean) ** 2, [0, 1, 2])
        hidden = (hidden - mean) / tf.sqrt(variance + norm.epsilon) * norm.gamma + norm.beta
        for layer in others:
            hidden = layer(hidden)
        return hidden

    before = state_of(model)
    objective = ls.objective(model, "cross_entropy", (inputs, targets), batch_norm="train")
    _compare(objective, model, outputs_of, targets)
    assert all(np.array_equal(a, b) for a, b in zip(before, state_of(model), strict=True))
    with pytest.raises(TypeError, match="batch_norm='eval'"):
        objective.fisher("empirical")


def test_module_is_copied_and_called_out_of_training():
    model, inputs, targets = Network(), np.random.default_rng(1).standard_normal((7, 4)), np.arange(7) % CLASSES

    def outputs_of(m):
        m.calls.assign(0.0)
        return m(tf.constant(inputs), training=False)

    objective = ls.objective(model, "cross_entropy", (inputs, targets), batch_size=3)
    assert objective.functions.names == ("again", "bias", "weights/1")  # the shared one once
    _compare(objective, model, outputs_of, targets)
    assert "variables of a tf.Module" in objective.ggn().engine
    model.calls.assign(5.0)
    model.bias.assign_add(np.ones(CLASSES))
    theta, value = objective.parameters(), objective.value()
    model.again.assign(0 * model.again)
    np.testing.assert_array_equal(objective.parameters(), theta)
    assert objective.value() == value
    double = ls.objective(Network(tf.float32), "cross_entropy", (inputs, targets), dtype="float64")
    assert double.dtype == np.float64
    assert relative(double.hessian() @ theta, objective.hessian() @ theta) < 1e-5
    assert ls.check_operator(ls.objective(Network(tf.float32), "cross_entropy", (inputs, targets)).hessian()).passed


def test_moments_are_repaired_and_restored(monkeypatch):
    from tensorflow.python.ops import nn_impl

    from linop_spectra.adapters.tensorflow import keras_program, repairs

    original = nn_impl.moments
    x = tf.constant(np.random.default_rng(0).standard_normal((4, 5, 3)))
    for axes, keep in (([0, 1], False), ([2], True)):
        with repairs.right_moments():
            found = tf.nn.moments(x, axes, keepdims=keep)
        for ours, theirs in zip(found, tf.nn.moments(x, axes, keepdims=keep), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-13)
            assert ours.shape == theirs.shape
    assert nn_impl.moments is original
    # Without the repair the Hessian is wrong, and its own check says so.
    model, inputs, targets = make("layer norm")
    monkeypatch.setattr(keras_program, "right_moments", __import__("contextlib").nullcontext)
    assert not ls.check_operator(ls.objective(model, "cross_entropy", (inputs, targets)).hessian()).passed


def _single_precision(kind):
    layers = keras.layers
    if kind == "image":
        stack = [keras.Input((5, 5, 2)), layers.Conv2D(3, 3), layers.BatchNormalization(), layers.ReLU(), layers.Flatten()]
    elif kind == "tokens":
        stack = [keras.Input((2,), dtype="int32"), layers.Embedding(5, 3), layers.LSTM(2, unroll=True)]
    else:
        inputs = keras.Input((4, 6))
        hidden = layers.LayerNormalization()(inputs + layers.MultiHeadAttention(2, 3)(inputs, inputs))
        return keras.Model(inputs, layers.Dense(CLASSES)(layers.GlobalAveragePooling1D()(layers.Dense(4, "gelu")(hidden))))
    return keras.Sequential([*stack, layers.Dense(CLASSES)])


@pytest.mark.parametrize("kind", ["image", "tokens", "attention"])
def test_single_precision_models_and_their_double_copies(kind):
    keras.utils.set_random_seed(1)
    generator = np.random.default_rng(1)
    model = _single_precision(kind)
    inputs = generator.integers(0, 5, (6, 2)) if kind == "tokens" else generator.standard_normal((6, *model.input_shape[1:]))
    targets = generator.integers(0, CLASSES, 6)
    single = ls.objective(model, "cross_entropy", (inputs, targets))
    double = ls.objective(model, "cross_entropy", (inputs, targets), dtype="float64")
    assert (single.dtype, double.dtype) == (np.float32, np.float64)
    v = generator.standard_normal(single.num_parameters)
    assert (single.hessian() @ v).dtype == np.float32 == single.gradient().dtype
    assert relative(single.hessian() @ v, double.hessian() @ v) < 1e-4
    check = ls.check_operator(single.ggn() if kind == "image" else single.hessian())
    assert check.passed, str(check)
    assert check.finite_difference_error < 1e-6
    policies = {layer.dtype_policy.name for layer in model._flatten_layers()}
    assert policies == {"float32"} == {keras.config.floatx()}
    assert all(tensor.dtype in ("float32", "int32") for tensor in model.inputs)


def test_mixed_precision_has_single_precision_vectors():
    keras.utils.set_random_seed(0)
    stack = [keras.layers.Dense(8, "tanh", dtype="mixed_bfloat16"), keras.layers.Dense(CLASSES, dtype="mixed_bfloat16")]
    model = keras.Sequential([keras.Input((4,)), *stack])
    inputs, targets = np.random.default_rng(0).standard_normal((40, 4)), np.arange(40) % CLASSES
    objective = ls.objective(model, "cross_entropy", (inputs, targets))
    assert objective.dtype == np.float32
    assert objective.functions.unit_rounding == 2.0**-7
    reference = ls.objective(model, "cross_entropy", (inputs, targets), dtype="float64")
    v = np.random.default_rng(0).standard_normal(objective.num_parameters)
    assert 1e-5 < relative(objective.hessian() @ v, reference.hessian() @ v) < 0.1
    assert relative(objective.ggn() @ v, reference.ggn() @ v) < 0.1


def _to_torch_order(name, objective, flat):
    arrays = [np.asarray(a) for a in objective.unflatten(flat).values()]
    turned = [a.transpose(3, 2, 0, 1) if a.ndim == 4 else a.T for a in arrays]
    return np.concatenate([a.ravel() for a in turned])


@pytest.mark.parametrize("name", ["tanh", "batch norm"])
def test_the_torch_adapter_gives_the_same(name):
    model, inputs, targets = make(name, examples=9)
    channels_first = inputs.transpose(0, 3, 1, 2).copy() if name != "tanh" else inputs
    ours = ls.objective(model, "cross_entropy", (inputs, targets), batch_size=4)
    theirs = ls.objective(torch_twin(name, model), "cross_entropy", (channels_first, targets), batch_size=5)
    v = np.random.default_rng(2).standard_normal(ours.num_parameters)
    w = _to_torch_order(name, ours, v)
    for make_operator in ("hessian", "ggn", "residual"):
        found = _to_torch_order(name, ours, getattr(ours, make_operator)() @ v)
        assert relative(found, getattr(theirs, make_operator)() @ w) < 1e-10
    for kind, options in (("exact", {}), ("empirical", {}), ("mc", {"num_samples": 2, "seed": 3})):
        found = _to_torch_order(name, ours, ours.fisher(kind, **options) @ v)
        assert relative(found, theirs.fisher(kind, **options) @ w) < 1e-10


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "mse"])
def test_likelihoods_are_those_of_torch(loss):
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(0)
    inputs, outputs = generator.standard_normal((6, 4)), generator.standard_normal((6, CLASSES))
    targets = np.array([0, 2, -100, 1, 1, 0]) if loss == "cross_entropy" else generator.integers(0, 2, (6, CLASSES)).astype(float)
    sides = []
    keras_model = keras.Sequential([keras.Input((4,), dtype="float64"), dense(CLASSES)])
    for model, array in ((keras_model, tf.constant), (torch.nn.Linear(4, CLASSES).double(), torch.as_tensor)):
        objective = ls.objective(model, loss, (inputs, targets))
        functions, batch = objective.functions, next(objective.batches())
        place, other = array(outputs), array(outputs[::-1].copy())
        kind, shape = functions.noise_of(place, batch)
        noise = np.random.default_rng(1).uniform(size=shape)
        drawn = functions.sampled_gradient(place, batch, noise)
        parts = [drawn, functions.output_gradient(place, batch)]
        parts += [functions.rank_one(drawn, other, each) for each in ("example", "term")]
        sides.append((kind, shape, [functions.flat_outputs(part) for part in parts]))
        np.testing.assert_array_equal(functions.flat_outputs(functions.outputs_from(outputs.ravel(), place)), outputs.ravel())
    assert sides[0][:2] == sides[1][:2]
    for ours, theirs in zip(sides[0][2], sides[1][2], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-14)


class Inside(keras.layers.Layer):
    """Calls another layer in a tf.function, or reads a variable of it past Keras."""

    def __init__(self, past):
        super().__init__(dtype="float64")
        self.inner = dense(4, "tanh")
        self.inner.build((None, 4))
        self.past = [self.inner.kernel.value] if past else None

    @tf.function
    def apply(self, x):
        return self.inner(x)

    def call(self, x):
        return x @ self.past[0] if self.past else self.apply(x)


def test_functions_inside_a_keras_model():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,), dtype="float64"), Inside(False), dense(CLASSES)])
    inputs, targets = np.random.default_rng(0).standard_normal((5, 4)), np.arange(5) % CLASSES
    objective = ls.objective(model, "cross_entropy", (inputs, targets))
    _compare(objective, model, lambda m: m(inputs), targets)
    assert not tf.config.functions_run_eagerly()
    past = keras.Sequential([keras.Input((4,), dtype="float64"), Inside(True), dense(CLASSES)])
    with pytest.raises(TypeError, match="past Keras"):
        ls.objective(past, "cross_entropy", (inputs, targets)).value()


def test_new_parameters_and_data_trace_nothing():
    model, inputs, targets = make("tanh", examples=12)
    objective = ls.objective(model, "cross_entropy", (inputs[:5], targets[:5]))
    v = np.ones(objective.num_parameters)

    def everything(o):
        return o.value(), o.gradient(), o.hessian() @ v, o.ggn() @ v

    everything(objective)
    traces = dict(objective.functions.compiled.traces)
    for size in (3, 7):
        everything(objective.with_data((inputs[5:], targets[5:])).with_parameters(size * v))
        everything(objective.with_data([(inputs[:size], targets[:size]), (inputs[size:], targets[size:])]))
    assert dict(objective.functions.compiled.traces) == traces
    # Sequences of other lengths: two graphs at most.
    model, tokens, classes = make("tied")
    pairs = [(tokens[:, :n], classes[:, :n]) for n in (3, 2, 1)]
    objective = ls.objective(model, "cross_entropy", pairs)
    objective.gradient()
    assert objective.functions.compiled.traces["gradient"] == 2


def test_models_that_know_the_length_of_a_batch():
    class Fixed(tf.Module):
        def __init__(self):
            super().__init__()
            self.w = tf.Variable(np.eye(2))

        def __call__(self, x):
            return tf.stack([x[i] @ self.w for i in range(x.shape[0])])

    inputs, targets = np.random.default_rng(0).standard_normal((5, 1, 2)), np.zeros((5, 1), int)
    whole = ls.objective(Fixed(), "cross_entropy", (inputs, targets)).hessian().to_dense()
    parts = ls.objective(Fixed(), "cross_entropy", (inputs, targets), batch_size=2).hessian().to_dense()
    np.testing.assert_allclose(parts, whole, atol=1e-15)


def test_unused_parameters_are_said_once_and_detached_ones_refused():
    class Odd(tf.Module):
        def __init__(self, detached):
            super().__init__()
            self.used, self.other, self.detached = tf.Variable(np.ones((2, 2))), tf.Variable(np.ones(3)), detached

        def __call__(self, x):
            shift = tf.stop_gradient(self.other)[:2] * tf.constant([1.0, 0.0], tf.float64) if self.detached else 0.0
            return x @ self.used + shift

    data = (np.random.default_rng(0).standard_normal((5, 2)), np.zeros(5, int))
    objective = ls.objective(Odd(False), "cross_entropy", data)
    with pytest.warns(UserWarning, match="does not depend on the parameters 'other'"):
        hessian = objective.hessian().to_dense()
    assert not hessian[objective.blocks["other"]].any()
    assert hessian[objective.blocks["used"]].any()
    objective.gradient()  # no second warning
    with pytest.raises(ValueError, match="no gradient reaches them"):
        ls.objective(Odd(True), "cross_entropy", data).gradient()


def test_budget_cuts_the_data_and_says_what_is_kept():
    model, inputs, targets = make("tanh", examples=300)
    whole = ls.objective(model, "cross_entropy", (inputs, targets))
    assert len(whole.per_batch()) == 1
    tight = ls.objective(model, "cross_entropy", (inputs, targets), memory_budget="100kB")
    assert len(tight.per_batch()) > 4
    v = np.random.default_rng(0).standard_normal(whole.num_parameters)
    assert relative(tight.hessian() @ v, whole.hessian() @ v) < 1e-12
    assert "one graph, anew in each product" in tight.hessian().engine
    assert "forward with tangents" in whole.ggn().engine
