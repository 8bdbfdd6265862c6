"""Products whose graph is cut in a part that all of them share and the rest."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
if keras.backend.backend() != "tensorflow":
    pytest.skip("Keras runs on another backend here", allow_module_level=True)

from tensorflow_networks import CLASSES, Network, make, relative  # noqa: E402

import linop_spectra as ls  # noqa: E402
from linop_spectra.adapters.tensorflow.linearized import Linearized  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
KINDS = {"hessian": "hvp", "gauss-newton": "gauss_newton_product", "residual": "residual"}


@pytest.mark.parametrize("name", ["batch norm", "layer norm", "tied"])
def test_kept_products_equal_those_of_one_pass(name):
    model, inputs, targets = make(name)
    objective = ls.objective(model, "cross_entropy", (inputs, targets), batch_size=4)
    functions, point = objective.functions, objective.point
    vectors = np.random.default_rng(0).standard_normal((2, objective.num_parameters))
    batches = list(objective.batches())
    with functions.session():
        for batch in batches:  # of four examples, and of three: one pair of graphs for both
            linear, once = (functions.linearize(point, batch, num_products=number) for number in (None, 1))
            for method in KINDS.values():
                for v in map(functions.to_native, vectors):
                    found, expected = (getattr(side, method)(v).numpy() for side in (linear, once))
                    assert relative(found, expected) < 1e-13
            assert linear.num_terms == once.num_terms == targets[: len(batch[1])].size
            assert linear.engine.count("no vector reaches is computed once for all of them") == 3
            assert once.engine.count("anew in each product") == 3
    cut = [linearized for linearized in functions.compiled._linearized.values() if linearized is not None]
    assert len(cut) == 3
    # The estimate by which the budget is spent is no less than what is held.
    held = max(sum(array.numpy().nbytes for array in side.start((point.flat, *point.rest, *batches[0]))[0]) for side in cut)
    assert 0 < held <= functions.retained_bytes(point, batches[0])


def test_parameters_are_not_kept():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((30,)), keras.layers.Dense(40, "relu"), keras.layers.Dense(CLASSES)])
    x, y = np.random.default_rng(0).standard_normal((2, 30)), np.array([0, 1])
    objective = ls.objective(model, "cross_entropy", (x, y))
    hessian = objective.hessian()
    v = np.ones(objective.num_parameters, np.float32)
    first = hessian @ v
    (linearized,) = objective.functions.compiled._linearized.values()
    batch = next(objective.batches())
    kept, _ = linearized.start((objective.point.flat, *objective.point.rest, *batch))
    assert sum(array.numpy().size for array in kept) < 2 * 10 * 40  # a few arrays of the hidden layer; the weights have 1200 numbers
    assert np.array_equal(first, hessian @ v)
    blocks = np.stack([v, 2 * v], 1)
    small = ls.objective(model, "cross_entropy", (x, y), memory_budget=8, batch_size=2).hessian()
    assert relative(small @ blocks, hessian @ blocks) < 1e-6
    assert "anew for each block of vectors" in small.engine


def test_what_cannot_be_cut_is_computed_anew():
    x, y = np.random.default_rng(1).standard_normal((5, 4)), np.arange(5) % CLASSES
    objective = ls.objective(Network(), "cross_entropy", (x, y))
    hessian = objective.hessian()
    v = np.ones(objective.num_parameters)
    assert relative(hessian @ v, ls.objective(Network(), "cross_entropy", (x, y), memory_budget=8, batch_size=5).hessian() @ v) < 1e-14
    assert "cannot be cut off" in hessian.engine
    graph = tf.function(lambda a, v: (a * tf.random.normal([]) * v, a)).get_concrete_function(*[tf.TensorSpec([2])] * 2)
    with pytest.raises(ValueError, match="operations with a state"):
        Linearized(graph)


def test_order_among_operations_does_not_matter():
    def body(a, unused, v):
        with tf.control_dependencies([v + 1.0]):  # as gradients of some functions have it
            scale = tf.sin(a) * 2.0
        return scale * tf.reduce_sum(scale * v), tf.reduce_sum(scale)

    graph = tf.function(body).get_concrete_function(*[tf.TensorSpec([3], tf.float64)] * 3)
    a, unused, v = (tf.constant(row) for row in np.random.default_rng(0).standard_normal((3, 3)))
    linearized = Linearized(graph)
    kept, (total,) = linearized.start((a, unused))
    assert len(kept) == 1
    expected = body(a, unused, v)
    np.testing.assert_allclose(linearized.product((a, unused), kept, v), expected[0], rtol=1e-15)
    np.testing.assert_allclose(total, expected[1], rtol=1e-15)
