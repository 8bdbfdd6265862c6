"""Losses, data, parameters, modes and refusals of objectives on TensorFlow."""

import random

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
if keras.backend.backend() != "tensorflow":
    pytest.skip("Keras runs on another backend here", allow_module_level=True)

from tensorflow_networks import CLASSES, Network, dense, make, relative, state_of  # noqa: E402

import linop_spectra as ls  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((8, 4)), RNG.integers(0, CLASSES, 8)
ONE_HOT = np.eye(CLASSES)[Y]
losses = keras.losses


def linear(units=CLASSES, **options):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((4,), dtype="float64"), dense(units, **options)])


def _labels():
    return RNG.integers(0, 2, (8, CLASSES)).astype(float)


@pytest.mark.parametrize(
    ("loss", "targets", "same"),
    [
        ("cross_entropy", Y, losses.SparseCategoricalCrossentropy(from_logits=True)),
        ("cross_entropy", ONE_HOT, losses.CategoricalCrossentropy(from_logits=True)),
        ("binary_cross_entropy", _labels(), losses.BinaryCrossentropy(from_logits=True)),
        ("mse", RNG.standard_normal((8, CLASSES)), losses.MeanSquaredError()),
        (None, Y[:, None], losses.SparseCategoricalCrossentropy(from_logits=True)),
        (None, Y, losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=1)),
        (None, ONE_HOT, losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)),
        (None, _labels(), losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.2)),
        (None, Y, losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")),
        (None, ONE_HOT, losses.MeanSquaredError(reduction="sum")),
        (None, ONE_HOT, losses.Huber(delta=0.3)),
        (losses.mean_squared_error, ONE_HOT, losses.MeanSquaredError()),
    ],
)
def test_losses_equal_those_of_keras(loss, targets, same):
    model = linear()
    objective = ls.objective(model, same if loss is None else loss, (X, targets))
    # Keras' objects compute in single precision.
    assert objective.value() == pytest.approx(float(same(targets, model(X))), rel=1e-6)
    theta, v = objective.parameters(), RNG.standard_normal(objective.num_parameters)
    ahead, behind = (objective.with_parameters(theta + sign * 1e-6 * v).gradient() for sign in (1, -1))
    product = objective.hessian() @ v
    assert relative(product, (ahead - behind) / 2e-6) < 1e-7
    # The model is linear: its Gauss-Newton matrix, by the closed form of the loss, is the Hessian.
    np.testing.assert_allclose(objective.ggn() @ v, product, atol=1e-12)
    np.testing.assert_allclose(objective.with_data([(X[:3], targets[:3]), (X[3:], targets[3:])]).ggn() @ v, product, atol=1e-12)


def test_masked_positions_and_uneven_batches_are_exact():
    model, tokens, targets = make("tied")
    targets = targets.copy()
    targets[:4, 1:] = -100
    targets[6] = -100  # a whole batch without terms
    whole = ls.objective(model, "cross_entropy", (tokens, targets))
    split = ls.objective(model, "cross_entropy", (tokens, targets), batch_size=3)
    v = RNG.standard_normal(whole.num_parameters)
    kept = np.argwhere(targets >= 0)
    logits = model(tokens).numpy()
    expected = np.mean([np.log(np.exp(logits[i, j]).sum()) - logits[i, j, targets[i, j]] for i, j in kept])
    assert whole.value() == pytest.approx(expected, rel=1e-13) == split.value()
    np.testing.assert_allclose(split.hessian() @ v, whole.hessian() @ v, atol=1e-14)
    with pytest.raises(ValueError, match="has 0 terms"):
        ls.objective(model, "cross_entropy", (tokens[6:], targets[6:])).value()


def test_callables_and_batch_losses_agree():
    model, inputs, targets = linear(), tf.constant(X), tf.constant(ONE_HOT)
    reference = ls.objective(model, "mse", (X, ONE_HOT))

    def outputs_of(net, batch):
        return net(batch["x"])

    def total(outputs, batch):
        return tf.reduce_sum((outputs - batch["y"]) ** 2), tf.size(outputs)

    batches = [{"x": inputs[:5], "y": targets[:5]}, {"x": inputs[5:], "y": targets[5:]}]
    others = [
        ls.objective(model, lambda z, y: tf.reduce_mean((z - y) ** 2), (X, ONE_HOT), batch_size=3),
        ls.objective(model, lambda z, y: tf.reduce_mean((z - y) ** 2, axis=1), (X, ONE_HOT), batch_size=3),
        ls.objective(model, lambda z, y: (tf.reduce_sum((z - y) ** 2), z.shape[1] * tf.shape(z)[0]), (X, ONE_HOT), batch_size=3),
        ls.objective(model, ls.BatchLoss(outputs=outputs_of, loss=total), batches),
        ls.objective(model, ls.BatchLoss(lambda net, batch: total(outputs_of(net, batch), batch)), batches),
    ]
    v = RNG.standard_normal(reference.num_parameters)
    for other in others:
        assert other.value() == pytest.approx(reference.value(), rel=1e-13)
        np.testing.assert_allclose(other.hessian() @ v, reference.hessian() @ v, atol=1e-14)
        if other is not others[-1]:
            np.testing.assert_allclose(other.ggn() @ v, reference.ggn() @ v, atol=1e-14)
        with pytest.raises(TypeError, match="likelihood"):
            other.fisher("mc")
    with pytest.raises(TypeError, match="does not show"):
        others[-1].ggn()


def test_a_loss_of_the_parameters_alone():
    loss = ls.BatchLoss(lambda net, batch: (tf.reduce_sum(net.w**4), 1))
    module = tf.Module()
    module.w = tf.Variable([1.0, 2.0])
    type(module).__call__ = lambda self: None
    try:
        hessian = ls.objective(module, loss, None).hessian().to_dense()
    finally:
        del type(module).__call__
    np.testing.assert_allclose(hessian, np.diag([12.0, 48.0]), rtol=1e-6)


def test_regularisers_count_once():
    l2 = keras.regularizers.L2(0.25)
    model, plain = linear(kernel_regularizer=l2), linear()
    plain.set_weights(model.get_weights())
    objective = ls.objective(model, "cross_entropy", (X, Y), batch_size=3)
    reference = ls.objective(plain, "cross_entropy", (X, Y))
    kernel = np.asarray(model.get_weights()[0])
    v = RNG.standard_normal(objective.num_parameters)
    extra = np.concatenate([0.5 * v[: kernel.size], np.zeros(CLASSES)])
    assert objective.value() == pytest.approx(reference.value() + 0.25 * (kernel**2).sum(), rel=1e-13)
    np.testing.assert_allclose(objective.hessian() @ v, reference.hessian() @ v + extra, atol=1e-14)
    np.testing.assert_allclose(objective.gradient()[: kernel.size], reference.gradient()[: kernel.size] + 0.5 * kernel.ravel())
    ggn = objective.ggn()
    np.testing.assert_allclose(ggn @ v, reference.ggn() @ v, atol=1e-14)
    assert "regularisers" in ggn.engine
    np.testing.assert_allclose(objective.residual() @ v, extra, atol=1e-14)  # the model is linear
    with pytest.raises(ValueError, match="reduction='sum'"):
        ls.objective(model, losses.MeanSquaredError(reduction="sum"), (X, ONE_HOT))
    with pytest.raises(TypeError, match="activity_regularizer"):
        ls.objective(linear(activity_regularizer=l2), "cross_entropy", (X, Y)).value()


class Pairs(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return X[4 * index : 4 * index + 4], Y[4 * index : 4 * index + 4]


def test_data_of_all_kinds():
    model = linear()
    expected = ls.objective(model, "cross_entropy", (X, Y)).gradient()
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(3)
    shuffled = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(8).batch(3)
    for data in (dataset, shuffled, Pairs(), list(dataset), (tf.constant(X), tf.constant(Y)), (X.astype("float32").astype(float), Y)):
        objective = ls.objective(model, "cross_entropy", data)
        assert relative(objective.gradient(), expected) < 1e-6
        assert objective.num_examples == 8
    chosen = ls.objective(model, "cross_entropy", dataset).subset(1, seed=0)
    assert sorted(np.concatenate([b[1].numpy() for b in chosen.batches()])) == [0, 1, 2]
    inputs = {"a": X[:, :2], "b": X[:, 2:]}
    a, b = (keras.Input((2,), dtype="float64", name=name) for name in "ab")
    two = keras.Model({"a": a, "b": b}, dense(CLASSES)(keras.layers.Concatenate(dtype="float64")([a, b])))
    two.set_weights(model.get_weights())
    np.testing.assert_allclose(ls.objective(two, "cross_entropy", [(inputs, Y)]).gradient(), expected, atol=1e-15)
    mutable = X.copy()
    objective = ls.objective(model, "cross_entropy", [(mutable, Y)])
    value = objective.value()
    mutable[:] = 0
    assert objective.value() == value


def test_data_that_change_or_end_are_refused():
    model = linear()
    with pytest.raises(TypeError, match="one-shot"):
        ls.objective(model, "cross_entropy", ((X, Y) for _ in range(2)))
    shuffled = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(8, seed=0).batch(3)
    objective = ls.objective(model, "cross_entropy", shuffled, memory_budget=100)
    with pytest.warns(UserWarning, match="read again"):
        objective.gradient()
    with pytest.raises(ValueError, match="changed between two passes"):
        objective.gradient()


def test_parameters_in_all_forms(tmp_path):
    model, inputs, targets = make("batch norm")
    objective = ls.objective(model, "cross_entropy", (inputs, targets))
    other = make("batch norm", seed=1)[0]
    expected = ls.objective(other, "cross_entropy", (inputs, targets))
    before, value = state_of(model), objective.value()
    theta = expected.parameters()
    np.testing.assert_array_equal(objective.with_parameters(theta).parameters(), theta)
    np.testing.assert_array_equal(objective.flatten(objective.unflatten(theta)), theta)
    np.testing.assert_array_equal(objective.with_parameters(objective.unflatten(theta)).parameters(), theta)
    np.testing.assert_array_equal(objective.with_parameters([v.numpy() for v in other.trainable_variables]).parameters(), theta)
    # Files of another model know its layers by other names or order; weights of all variables bring the moving statistics too.
    model_two = keras.models.clone_model(model)
    model_two.set_weights(other.get_weights())
    model_two.save_weights(tmp_path / "two.weights.h5")
    model_two.save(tmp_path / "two.keras")
    names = [*objective.functions.names, *objective.functions.program.rest_names]
    by_name = dict(zip(names, [v.numpy() for v in [*other.trainable_variables, *other.non_trainable_variables]], strict=True))
    np.savez(tmp_path / "two.npz", **by_name)
    for source in (other.get_weights(), by_name, *(tmp_path / f"two.{kind}" for kind in ("weights.h5", "keras", "npz"))):
        assert objective.with_parameters(source).value() == pytest.approx(expected.value(), rel=1e-14)
    assert objective.value() == value
    assert all(np.array_equal(a, b) for a, b in zip(before, state_of(model), strict=True))
    model.set_weights(other.get_weights())  # training on does not change the objective
    assert objective.value() == value
    refused = [(theta[:-1], "has shape"), ([theta], "1 arrays were given"), ({}, "lack"), ("x.npz", "no file"), (1j * theta, "real")]
    for wrong, match in refused:
        with pytest.raises((TypeError, ValueError, FileNotFoundError), match=match):
            objective.with_parameters(wrong)


def test_choice_of_parameters():
    model, inputs, targets = make("tanh")
    whole = ls.objective(model, "cross_entropy", (inputs, targets))
    part = ls.objective(model, "cross_entropy", (inputs, targets), parameters="*/kernel")
    assert [name.partition("/")[2] for name in part.functions.names] == ["kernel", "kernel"]
    rows = np.r_[tuple(whole.blocks[name] for name in part.functions.names)]
    np.testing.assert_allclose(part.hessian().to_dense(), whole.hessian().to_dense()[np.ix_(rows, rows)], atol=1e-15)
    model.layers[0].trainable = False
    frozen = ls.objective(model, "cross_entropy", (inputs, targets))
    assert len(frozen.functions.names) == 2
    rows = np.r_[tuple(whole.blocks[name] for name in frozen.functions.names)]
    np.testing.assert_allclose(frozen.hessian().to_dense(), whole.hessian().to_dense()[np.ix_(rows, rows)], atol=1e-15)
    assert len(whole.functions.names) == 4
    with pytest.raises(ValueError, match="matches no trainable parameter"):
        ls.objective(model, "cross_entropy", (inputs, targets), parameters="*.weight")


def test_nothing_is_left_behind():
    layers = keras.layers
    keras.utils.set_random_seed(3)
    stack = [dense(4), layers.Dropout(0.5), layers.BatchNormalization(dtype="float64"), layers.GaussianNoise(1.0), dense(CLASSES)]
    model = keras.Sequential([keras.Input((4,), dtype="float64"), *stack])
    model.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True))
    model.add_loss(model.layers[0].kernel[0, 0])
    random_state = (np.random.get_state()[1].copy(), random.getstate())  # noqa: NPY002
    before, policy, tf32 = state_of(model), keras.config.dtype_policy(), tf.config.experimental.tensor_float_32_execution_enabled()
    held = [dict(vars(layer)) for layer in model._flatten_layers()]
    extra = len(model.losses)
    objective = ls.objective(model, losses.SparseCategoricalCrossentropy(from_logits=True), (X, Y), batch_norm="train", dtype="float64")
    v = np.ones(objective.num_parameters)
    objective.value(), objective.gradient(), objective.hessian() @ v, objective.ggn() @ v
    assert ls.check_operator(objective.hessian()).passed
    assert all(np.array_equal(a, b) for a, b in zip(before, state_of(model), strict=True))
    assert np.array_equal(np.random.get_state()[1], random_state[0])  # noqa: NPY002
    assert random.getstate() == random_state[1]
    assert len(model.losses) == extra == 1
    assert [dict(vars(layer)) for layer in model._flatten_layers()] == held
    assert keras.config.dtype_policy() is policy
    assert tf.config.experimental.tensor_float_32_execution_enabled() == tf32
    # Dropout and noise are off, so that two values are the same.
    assert objective.value() == objective.value()


def test_what_cannot_be_is_said():
    with pytest.raises(ValueError, match="probabilities already"):
        ls.objective(linear(activation="softmax"), "cross_entropy", (X, Y)).value()
    with pytest.raises(ValueError, match="ends in a sigmoid"):
        ls.objective(linear(activation="sigmoid"), "binary_cross_entropy", (X, ONE_HOT)).hessian() @ np.ones(15)
    with pytest.raises(ValueError, match="from_logits=True"):
        ls.objective(linear(), losses.SparseCategoricalCrossentropy(), (X, Y))
    with pytest.raises(ValueError, match="from_logits=True"):
        ls.objective(linear(), losses.binary_crossentropy, (X, Y))
    with pytest.raises(ValueError, match="reduction=None"):
        ls.objective(linear(), losses.MeanSquaredError(reduction=None), (X, Y))
    with pytest.raises(ValueError, match="the names are"):
        ls.objective(linear(), "sparse_categorical_crossentropy", (X, Y))
    with pytest.raises(ValueError, match="classes from 0 to 7"):
        ls.objective(linear(), "cross_entropy", (X, Y * 0 + np.arange(8))).gradient()
    with pytest.raises(ValueError, match="do not fit cross-entropy"):
        ls.objective(linear(), "cross_entropy", (X, np.stack([Y, Y], 1))).hessian() @ np.ones(15)
    with pytest.raises(TypeError, match="pass integers"):
        ls.objective(linear(), "cross_entropy", (X, Y.astype(float))).value()
    with pytest.raises(ValueError, match="both shapes must be equal"):
        ls.objective(linear(1), "mse", (X, Y.astype(float))).value()
    with pytest.raises(ValueError, match="is not finite"):
        ls.objective(linear(), "mse", (X * np.nan, ONE_HOT)).gradient()
    with pytest.raises(ValueError, match="empty"):
        ls.objective(linear(), "mse", (X[:0], ONE_HOT[:0]))
    with pytest.raises(ValueError, match="not built yet"):
        ls.objective(keras.Sequential([keras.layers.Dense(2)]), "mse", (X, ONE_HOT))
    with pytest.raises(ValueError, match="batch_norm is 'on'"):
        ls.objective(linear(), "mse", (X, ONE_HOT), batch_norm="on")
    with pytest.raises(ValueError, match="decides by itself"):
        ls.objective(Network(), "mse", (X, ONE_HOT), batch_norm="eval")
    with pytest.raises(ValueError, match="dtype is 'int32'"):
        ls.objective(linear(), "mse", (X, ONE_HOT), dtype="int32")
    with pytest.raises(TypeError, match="must return a pair"):
        ls.objective(linear(), ls.BatchLoss(lambda net, batch: tf.reduce_sum(net(batch[0]))), [(X, Y)]).value()
    double = keras.Input((4,), dtype="float64")
    with pytest.raises(TypeError, match="needs one tensor of outputs"):
        ls.objective(keras.Model(double, [dense(2)(double), dense(2)(double)]), "mse", (X, ONE_HOT)).value()
    with pytest.raises(RuntimeError, match=r"outside of tf\.function"):
        tf.function(lambda: ls.objective(linear(), "mse", (X, ONE_HOT)))()


def test_random_models_are_refused():
    dropped = keras.Sequential([keras.Input((4,), dtype="float64"), keras.layers.Dropout(0.5, dtype="float64"), dense(CLASSES)])

    def in_training(net, batch):
        return tf.reduce_sum(net(batch[0], training=True) ** 2), 8

    with pytest.raises(ValueError, match="in training mode and stochastic"):
        ls.objective(dropped, ls.BatchLoss(in_training), [(X, Y)]).value()

    class Noisy(Network):
        def __call__(self, x):
            return super().__call__(x, training=True)

    with pytest.raises(ValueError, match="draws random numbers anew"):
        ls.objective(Noisy(), "cross_entropy", (X, Y)).value()
    masked = keras.Sequential([keras.Input((3,), dtype="int32"), keras.layers.Embedding(5, 3, mask_zero=True, dtype="float64")])
    with pytest.raises(ValueError, match="carry a mask"):
        ls.objective(masked, "cross_entropy", (np.ones((4, 3), int), np.ones((4, 3), int))).value()
    holder = tf.Module()
    holder.layer = linear()
    type(holder).__call__ = lambda self, x: self.layer(x)
    try:
        with pytest.raises(TypeError, match=r"make the whole a keras\.Model"):
            ls.objective(holder, "cross_entropy", (X, Y))
    finally:
        del type(holder).__call__


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("functional", [False, True])
def test_rounding_is_that_of_what_computes(narrow, functional):
    """A model of double-precision layers casts its inputs where they were declared narrower, and only there."""
    import keras

    given = keras.Input((4,), dtype="float32" if narrow else "float64")
    layers = [keras.layers.Dense(3, "tanh", dtype="float64"), keras.layers.Dense(2, dtype="float64")]
    model = keras.Model(given, layers[1](layers[0](given))) if functional else keras.Sequential([given, *layers])
    rng = np.random.default_rng(0)
    data = rng.standard_normal((10, 4)), rng.integers(0, 2, 10)
    hessian = ls.objective(model, "cross_entropy", data).hessian()
    v = rng.standard_normal(hessian.shape[0])
    error = relative(hessian @ v, ls.objective(model, "cross_entropy", data, dtype="float64").hessian() @ v)
    assert hessian.dtype == np.float64 and hessian.unit_rounding == np.finfo(np.float32 if narrow else np.float64).eps
    assert 1e-10 < error < 1e-6 if narrow else error < 1e-14
