"""The life of an objective of a JAX model: other parameters, other data, precision, compilation, memory, data of all kinds."""

import gc
import subprocess
import sys
import textwrap
import weakref

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
from jax import monitoring  # noqa: E402
from jax_networks import double_precision, labels, mlp, normal, relative  # noqa: E402, F401

import linop_spectra as ls  # noqa: E402

COMPILED = []


@pytest.fixture(scope="module", autouse=True)
def compilations():
    """Every compilation of this process is counted."""

    def listen(name, seconds, **details):
        if name.endswith("backend_compile_duration"):
            COMPILED.append(name)

    monitoring.register_event_duration_secs_listener(listen)
    yield
    monitoring.unregister_event_duration_listener(listen)


def linear(params, x):
    return x @ params["w"] + params["b"]


def weights():
    return {"w": jnp.asarray(normal(4, 3, seed=2)), "b": jnp.asarray(normal(3, seed=3))}


DATA = normal(6, 4), labels(6)


@pytest.fixture(scope="module")
def objective():
    return ls.objective(linear, "cross_entropy", DATA, params=weights())


def test_nothing_is_compiled_anew_for_other_parameters_and_data():
    traces = []

    def apply(p, x):
        traces.append(x.shape)
        return linear(p, x)

    objective = ls.objective(apply, "cross_entropy", DATA, params=weights(), batch_size=3)
    v = np.ones((15, 2))

    def use(it):
        hessian, ggn = it.hessian(), it.ggn()
        _ = hessian @ v, ggn @ v, hessian @ v[:, 0], it.value(), it.gradient(), hessian.engine
        return it.parameters()

    theta = use(objective)
    assert set(traces) == {(3, 4)}
    assert len(traces) <= 6  # one for each compiled function
    objective.with_parameters(weights())  # copying has its own small functions
    traces.clear()
    COMPILED.clear()
    use(objective)
    use(objective.with_parameters(theta + 0.1))
    use(objective.with_parameters(weights()))
    use(objective.with_data((normal(9, 4, seed=5), labels(9, seed=6))))
    use(objective.per_batch()[1])
    assert not traces
    assert not COMPILED
    use(objective.with_data((normal(2, 4), labels(2))))  # another shape
    assert set(traces) == {(2, 4)}


def test_with_parameters_from_vectors_trees_and_files(objective, tmp_path):
    theta = objective.parameters()
    moved = jax.tree.map(lambda x: x + 0.1, weights())
    expected = ls.objective(linear, "cross_entropy", DATA, params=moved).value()
    np.savez(tmp_path / "weights.npz", **{name: np.asarray(x) for name, x in moved.items()})
    sources = [moved, tmp_path / "weights.npz", str(tmp_path / "weights.npz"), {k: np.asarray(x) for k, x in moved.items()}, list(
        objective.unflatten(theta + 0.1).values()
    )]  # fmt: skip
    for source in sources:
        other = objective.with_parameters(source)
        assert other.value() == pytest.approx(expected, rel=1e-14)
        assert other.functions is objective.functions
        assert other.data is objective.data
    for vector in (theta + 0.1, jnp.asarray(theta + 0.1), (theta + 0.1).tolist()):
        np.testing.assert_array_equal(objective.with_parameters(vector).parameters(), theta + 0.1)
    vector = theta + 0.1
    other = objective.with_parameters(vector)
    vector += 1
    assert other.value() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (np.ones(3), ValueError, r"shape \(15,\), but the one given has \(3,\)"),
        ({"w": np.zeros((4, 3))}, ValueError, "lack 'b'"),
        ({"w": np.zeros((3, 4)), "b": np.zeros(3)}, ValueError, r"'w' has shape \(4, 3\)"),
        ("no/such/file.npz", FileNotFoundError, "no file"),
        (np.ones(15) * 1j, TypeError, "complex"),
        ([np.zeros(3)], ValueError, "1 arrays were given"),
    ],
)
def test_parameters_that_do_not_fit(objective, source, error, message):
    with pytest.raises(error, match=message):
        objective.with_parameters(source)


def test_files_of_other_kinds(objective, tmp_path):
    (tmp_path / "weights.msgpack").write_bytes(b"1")
    with pytest.raises(ValueError, match=r"come from \.npz"):
        objective.with_parameters(tmp_path / "weights.msgpack")


def test_flatten_and_unflatten_are_inverse():
    case = mlp()
    objective = ls.objective(case.model, "cross_entropy", case.data, **case.arguments)
    theta = objective.parameters()
    np.testing.assert_array_equal(theta, case.theta)
    assert theta.ctypes.data % 64 == 0
    tree = objective.unflatten(theta)
    assert list(tree) == list(objective.blocks) == ["first.b", "first.w", "second.b", "second.w"]
    np.testing.assert_array_equal(objective.flatten(tree), theta)
    np.testing.assert_array_equal(objective.flatten(list(tree.values())), theta)
    np.testing.assert_array_equal(objective.flatten(case.arguments["params"]), theta)
    before = theta.copy()
    theta += 1
    np.testing.assert_array_equal(objective.flatten(tree), before)
    with pytest.raises(ValueError, match="lack"):
        objective.flatten({"first.w": tree["first.w"]})


def test_vectors_that_the_core_hands_out(objective):
    """Read-only ones, columns that are not aligned, and ones that are written to as soon as the product is there."""
    hessian = objective.hessian()
    block = np.asfortranarray(normal(15, 3, seed=8))
    expected = hessian.to_dense() @ block
    block.flags.writeable = False
    np.testing.assert_allclose(hessian @ block, expected, atol=1e-14)
    np.testing.assert_allclose(hessian @ block[:, 1], expected[:, 1], atol=1e-14)
    np.testing.assert_allclose(hessian @ np.ascontiguousarray(block), expected, atol=1e-14)
    functions = objective.functions
    v = normal(15, seed=9)
    native = functions.to_native(v)
    kept = v.copy()
    v[:] = 0
    np.testing.assert_array_equal(objective.flatten(list(native)), kept)


def test_memory_rule(objective):
    data = normal(64, 4), labels(64)
    many = ls.objective(mlp().model, "cross_entropy", data, batch_size=16, **mlp().arguments)
    batch = next(iter(many.batches()))
    with many.functions.session():
        size = many.functions.retained_bytes(many.point, batch)
        linearization = many.functions.linearize(many.point, batch, num_products=None)
        linearization.hvp(many.point.leaves)
    held = {x.unsafe_buffer_pointer(): x.nbytes for x in jax.tree.leaves(linearization._linear_gradient)}
    given = {x.unsafe_buffer_pointer() for x in (*many.point.leaves, *batch)}
    assert held.keys() & given  # neither parameters nor data are held twice
    extra = size - sum(nbytes for pointer, nbytes in held.items() if pointer not in given)
    assert 0 <= extra <= 32  # the loss itself and the number of terms
    # Room for two of the four batches, and a batch size that follows from it.
    budget = int(2.5 * size / 0.25)
    part = ls.objective(mlp().model, "cross_entropy", data, batch_size=16, memory_budget=budget, **mlp().arguments)
    whole = many.hessian() @ many.parameters()
    hessian = part.hessian()
    np.testing.assert_allclose(hessian @ part.parameters(), whole, atol=1e-13)
    assert "2 of 4 batches are kept" in hessian.engine
    chosen = ls.objective(mlp().model, "cross_entropy", data, memory_budget=budget, **mlp().arguments)
    sizes = [len(y) for _, y in chosen.batches()]
    assert 1 < len(sizes) <= 64
    assert sum(sizes) == 64


def test_operators_free_what_they_kept():
    objective = ls.objective(linear, "cross_entropy", DATA, params=weights())
    hessian = objective.hessian()
    _ = hessian @ np.ones(15)
    (part,) = hessian._linearizations._kept
    kept = weakref.ref(getattr(part, "linearization", part))
    gc.disable()
    try:
        del hessian, part
        assert kept() is None  # no reference cycle holds the memory
    finally:
        gc.enable()


def test_weight_decay_and_subset(objective):
    decayed = ls.objective(linear, "cross_entropy", DATA, params=weights(), weight_decay=0.3)
    np.testing.assert_allclose(decayed.hessian().to_dense(), objective.hessian().to_dense() + 0.3 * np.eye(15), atol=1e-14)
    theta = objective.parameters()
    assert decayed.value() == pytest.approx(objective.value() + 0.15 * theta @ theta, rel=1e-14)
    part = ls.objective(linear, "cross_entropy", (normal(12, 4), np.arange(12) % 3), params=weights()).subset(2, seed=1)
    assert part.num_examples == 6


@pytest.mark.parametrize("kind", ["NumPy", "JAX", "torch loader", "objects", "not kept"])
def test_data_of_all_kinds(objective, kind):
    x, y = DATA
    budget, form = None, (x, y.astype(np.int32))
    if kind == "JAX":
        form = (jnp.asarray(x), jnp.asarray(y))
    elif kind == "torch loader":
        torch = pytest.importorskip("torch")
        form = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y)), batch_size=6, shuffle=True)
    elif kind == "objects":
        form = [(x, y)]
    elif kind == "not kept":
        budget = 100
    same = objective.with_data(form) if budget is None else ls.objective(
        linear, "cross_entropy", form, params=weights(), batch_size=6, memory_budget=budget
    )  # fmt: skip
    assert same.value() == pytest.approx(objective.value(), rel=1e-14)
    np.testing.assert_allclose(same.gradient(), objective.gradient(), atol=1e-14)
    assert same.num_examples == 6


def test_batches_of_one_form_share_what_is_compiled():
    class Item:
        def __init__(self, i, name):
            self.x, self.y, self.name = normal(3, 4, seed=i), labels(3, seed=i), name

    traces = []

    def loss(model, batch):
        traces.append(batch.name)
        return -jax.nn.log_softmax(model(batch.x))[jnp.arange(3), batch.y].sum(), 3

    objective = ls.objective(linear, ls.BatchLoss(loss), [Item(i, "same") for i in range(4)], params=weights())
    objective.value()
    assert traces == ["same"]
    objective.with_data([Item(5, "other")]).value()
    assert traces == ["same", "other"]


def test_data_that_are_not_finite_are_refused():
    x = DATA[0].copy()
    x[3, 1] = np.nan
    objective = ls.objective(linear, "mse", (x, normal(6, 3)), params=weights())
    for ask in (objective.value, objective.gradient, lambda: objective.hessian() @ np.ones(15), lambda: objective.ggn() @ np.ones(15)):
        with pytest.raises(ValueError, match="not finite"):
            ask()


def test_one_example_and_wrong_shapes(objective):
    one = objective.with_data((DATA[0][:1], DATA[1][:1]))
    assert ls.check_operator(one.ggn()).passed
    with pytest.raises(TypeError, match="contracting dimensions"):
        objective.with_data((normal(6, 5), DATA[1])).value()


WITHOUT_DOUBLE = """
    import warnings; warnings.simplefilter("error")
    import jax, jax.numpy as jnp, numpy as np, linop_spectra as ls
    jax.config.update("jax_disable_most_optimizations", True)
    assert not jax.config.jax_enable_x64
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6, 4)), rng.integers(0, 3, 6)
    w = rng.standard_normal((4, 3))

    def apply(p, x):
        return jnp.tanh(x @ p["w"])

    def dense(w):
        z = np.tanh(x @ w)
        p = np.exp(z); p /= p.sum(1, keepdims=True)
        g = (p - np.eye(3)[y]) * (1 - z**2) / 6
        return (x.T @ g).ravel()

    def product(w, v, step=1e-6):
        return (dense(w + step * v) - dense(w - step * v)) / (2 * step)

    v = rng.standard_normal((4, 3))
    single = ls.objective(apply, "cross_entropy", (x, y), params={"w": jnp.asarray(w)})
    assert single.dtype == np.float32
    found = single.hessian() @ v.ravel().astype(np.float32)
    rounded = np.asarray(w, np.float32).astype(float)
    expected = product(rounded, v)
    assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)
    check = ls.check_operator(single.hessian())
    assert check.passed and check.finite_difference_error < 1e-7, str(check)

    double = ls.objective(apply, "cross_entropy", (x, y), params={"w": w}, dtype="float64")
    assert double.dtype == np.float64
    found = double.hessian() @ v.ravel()
    expected = product(w, v)
    assert np.linalg.norm(found - expected) < 1e-8 * np.linalg.norm(expected)
    np.testing.assert_array_equal(double.parameters(), w.ravel())
    np.testing.assert_array_equal(double.with_parameters(w.ravel() + 0.1).parameters(), w.ravel() + 0.1)
    np.testing.assert_array_equal(double.flatten(double.unflatten(w.ravel())), w.ravel())
    assert double.num_examples == 6 and double.subset(1).num_examples == 3
    check = ls.check_operator(double.ggn())
    assert check.passed and check.finite_difference_error < 1e-7, str(check)

    try:
        ls.objective(apply, "cross_entropy", (x, y), params={"w": w})
    except ValueError as error:
        assert "jax_enable_x64 is off" in str(error), error
    else:
        raise AssertionError
    narrow = ls.objective(apply, "cross_entropy", (x, y), params={"w": w}, dtype="float32")
    assert narrow.value() == single.value()
    assert not jax.config.jax_enable_x64
    print("done")
"""


def test_a_process_without_double_precision():
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(WITHOUT_DOUBLE)], capture_output=True, text=True, timeout=300)
    assert result.stdout.strip() == "done", result.stderr
