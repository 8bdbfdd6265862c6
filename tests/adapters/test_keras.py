"""Keras on torch and on JAX, in processes of their own, against the same weights on TensorFlow."""

import os
import subprocess
import sys

import numpy as np
import pytest

keras = pytest.importorskip("keras")

import linop_spectra as ls  # noqa: E402

_LANDSCAPE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "landscape")
_PROGRAM = """
import sys, warnings
import numpy as np
import keras
import linop_spectra as ls
from linop_spectra.adapters import keras_layers
if keras.backend.backend() == "jax":
    import jax
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_disable_most_optimizations", True)  # most programs run once or twice
if keras.backend.backend() == "tensorflow":
    warnings.filterwarnings("ignore", message="__array__ implementation")
layers = keras.layers
on_tensorflow = keras.backend.backend() == "tensorflow"  # what compares one backend with itself has tests of its own there

class Quartic(keras.regularizers.Regularizer):
    def __call__(self, x):
        return 0.1 * keras.ops.sum(keras.ops.square(keras.ops.square(x)))

def build(dtype, regularizer=None):
    same = {"dtype": dtype, "kernel_initializer": "ones"}  # other numbers follow; drawing them takes JAX seconds
    inputs = keras.Input((3, 4), dtype=dtype)
    attention = layers.MultiHeadAttention(2, 3, name="attention", **same)(inputs, inputs)
    mixed = layers.LayerNormalization(dtype=dtype, name="layer_norm")(attention)
    hidden = layers.Dense(4, "gelu", name="dense", kernel_regularizer=regularizer, **same)(mixed)
    hidden = layers.BatchNormalization(dtype=dtype, name="batch_norm")(hidden)
    outputs = layers.Dense(3, name="last_dense", **same)(layers.Dropout(0.3, dtype=dtype)(hidden))
    return keras.Model(inputs, outputs)

generator = np.random.default_rng(0)
single, double = build("float32", Quartic()), build("float64")
weights = [generator.uniform(0.5, 1.5, w.shape).astype("float32") if w.dtype == "float32" else w for w in single.get_weights()]
single.set_weights(weights)
double.set_weights(weights)
inputs, targets = generator.standard_normal((6, 3, 4)), generator.integers(0, 3, (6, 3))
targets[0, 1:] = -100
v = {name: generator.standard_normal(variable.shape) for name, variable in keras_layers.KerasLayers(double, None).trainable.items()}
before = [np.array(keras.ops.convert_to_numpy(w)) for w in double.variables]
results = {}
results["uneven"] = ls.objective(double, "cross_entropy", (inputs, targets), batch_size=4).value()
objective = ls.objective(double, "cross_entropy", (inputs, targets), batch_size=3)
vector = objective.flatten({name: v[name] for name in objective.functions.names})
results["value"] = objective.value()
for given in (double.get_weights(), double.trainable_variables):  # lists of weights are in the order of Keras
    doubled = objective.with_parameters([2 * keras.ops.convert_to_numpy(w) for w in given]).parameters()
    np.testing.assert_array_equal(doubled, 2 * objective.parameters())
for kind, operator in (("hessian", objective.hessian()), ("ggn", objective.ggn())):
    for name, piece in objective.unflatten(operator @ vector).items():
        results[f"{kind} {name}"] = np.asarray(keras.ops.convert_to_numpy(piece))
with_object = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-100)
results["object"] = ls.objective(double, with_object, (inputs, targets)).value()
small = ls.objective(single, "cross_entropy", (inputs.astype("float32"), targets), parameters="*dense*/kernel")
assert len(small.functions.names) == 2, small.functions.names
if not on_tensorflow:
    check = ls.check_operator(small.hessian())
    assert check.passed and check.finite_difference_error < 1e-6, str(check)
assert all(np.array_equal(a, keras.ops.convert_to_numpy(w)) for a, w in zip(before, double.variables))
try:
    ls.objective(double, "other", (inputs, targets))
except ValueError as error:
    assert "names are" in str(error), error
else:
    raise AssertionError("other")

def network_with(regularizer):
    same = {"dtype": "float64", "kernel_initializer": "ones"}
    first = layers.Dense(4, "tanh", name="first", kernel_regularizer=regularizer, **same)
    stack = [first, layers.BatchNormalization(dtype="float64", name="norm"), layers.Dropout(0.5, dtype="float64")]
    return keras.Sequential([keras.Input((4,), dtype="float64"), *stack, layers.Dense(3, name="last", **same)])

x, y = generator.standard_normal((6, 4)), np.array([0, 1, 2, 0, -100, 1])
network = network_with(Quartic())
network.set_weights([generator.uniform(0.5, 1.5, w.shape) for w in network.get_weights()])
before = [np.array(keras.ops.convert_to_numpy(w)) for w in network.variables]
for mode in ("eval", "train"):
    objective = ls.objective(network, "cross_entropy", (x, y), batch_norm=mode, batch_size=None if mode == "train" else 3)
    names = sorted(objective.functions.names)
    u = np.random.default_rng(1).standard_normal(objective.num_parameters)
    ends = np.cumsum([objective.blocks[name].stop - objective.blocks[name].start for name in names])[:-1]
    shapes = {name: tuple(piece.shape) for name, piece in objective.unflatten(u).items()}
    vector = objective.flatten({name: piece.reshape(shapes[name]) for name, piece in zip(names, np.split(u, ends))})
    products = {"gradient": objective.gradient()}
    for kind in ("hessian", "ggn", "residual") if mode == "eval" else ("hessian",):
        products[kind] = getattr(objective, kind)() @ vector
        if mode == "eval" and kind != "ggn" and not on_tensorflow:  # nothing is kept
            spare = ls.objective(network, "cross_entropy", (x, y), memory_budget=8, batch_size=3)
            once = getattr(spare, kind)() @ vector
            assert np.linalg.norm(once - products[kind]) <= 1e-12 * np.linalg.norm(once), kind
    if mode == "eval":
        np.testing.assert_allclose(products["hessian"], products["ggn"] + products["residual"], rtol=1e-12, atol=1e-13)
    results[f"{mode} value"] = objective.value()
    for kind, product in products.items():
        for name, piece in objective.unflatten(product).items():
            results[f"{mode} {kind} {name}"] = np.asarray(keras.ops.convert_to_numpy(piece))
    first = np.zeros(24)
    first[:4] = 1.0
    results[f"{mode} input"] = column = objective.input_hessian() @ first
    assert (abs(column[8:12]).max() > 1e-6) == (mode == "train")
try:
    objective.fisher("empirical")
except TypeError as error:
    assert "batch_norm='eval'" in str(error), error
else:
    raise AssertionError("examples depend on each other")
kernel = np.array(keras.ops.convert_to_numpy(network.layers[0].kernel))
plain = network_with(None)
plain.set_weights(network.get_weights())
if not on_tensorflow:
    without, block = ls.objective(plain, "cross_entropy", (x, y)), objective.blocks["first/kernel"]
    whole = ls.objective(network, "cross_entropy", (x, y))
    assert abs(whole.value() - without.value() - 0.1 * (kernel**4).sum()) < 1e-12
    extra = whole.hessian() @ vector - without.hessian() @ vector
    np.testing.assert_allclose(extra[block], 1.2 * kernel.ravel() ** 2 * vector[block], atol=1e-12)
    np.testing.assert_allclose(whole.ggn() @ vector, without.ggn() @ vector, atol=1e-13)
alone = ls.BatchLoss(lambda net, batch: (keras.ops.sum(net(batch) ** 2), 18))
np.testing.assert_allclose(ls.objective(network, alone, [x]).gradient(), ls.objective(plain, alone, [x]).gradient(), atol=1e-13)
if keras.backend.backend() == "torch":  # JAX compiles for long
    check = ls.check_operator(whole.residual())
    assert check.passed, str(check)
assert all(np.array_equal(a, keras.ops.convert_to_numpy(w)) for a, w in zip(before, network.variables))
if not on_tensorflow:  # spares two processes
    sys.path.insert(0, sys.argv[2])
    import test_landscape_batch_norm
    test_landscape_batch_norm.compare_keras_with_numpy()
np.savez(sys.argv[1], **{name.replace("/", "|"): value for name, value in results.items()})
"""


def _results(backend, path):
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    file = path / f"{backend}.npz"
    command = [sys.executable, "-c", _PROGRAM, str(file), _LANDSCAPE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(file) as archive:
        return dict(archive)


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
def test_backends_give_the_same(tmp_path, monkeypatch):
    if keras.backend.backend() == "tensorflow":  # spares a process
        monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "here.npz"), _LANDSCAPE])
        exec(compile(_PROGRAM, "program", "exec"), {"__name__": "program"})
        with np.load(tmp_path / "here.npz") as archive:
            reference = dict(archive)
    else:
        reference = _results("tensorflow", tmp_path)
    assert reference["object"] == pytest.approx(reference["value"], rel=1e-12) == reference["uneven"]
    for backend in ("torch", "jax"):
        found = _results(backend, tmp_path)
        assert found.keys() == reference.keys()
        for name, value in reference.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-9, err_msg=f"{backend}: {name}")


def test_keras_2_is_refused():
    legacy = type("Model", (), {"__module__": "tf_keras.src.engine.training"})()
    with pytest.raises(TypeError, match="which is Keras 2"):
        ls.objective(legacy, "mse", (np.zeros((2, 2)), np.zeros(2)))
