"""Losses of JAX models: closed forms against autodiff and optax, masks, weights, what is refused."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
from jax_networks import double_precision, labels, normal, relative  # noqa: E402, F401

import linop_spectra as ls  # noqa: E402
from linop_spectra.adapters.jax.custom_losses import CallableLoss, make_loss  # noqa: E402

OUTPUTS = normal(6, 3, seed=4)
INTEGERS = np.array([0, 2, -100, 1, 1, 0])
SOFT = np.abs(normal(6, 3, seed=5)) * [[1.0], [2.0], [0.0], [1.0], [0.5], [1.0]]
BINARY = labels(6, 3, classes=2)


def linear(params, x):
    return x @ params


CASES = [
    ("cross_entropy", INTEGERS),
    ("cross_entropy", SOFT),
    ("cross_entropy", BINARY),
    ("binary_cross_entropy", BINARY),
    ("binary_cross_entropy", SOFT),
    ("mse", SOFT),
    ("mse", BINARY),
]


@pytest.mark.parametrize(("name", "targets"), CASES)
def test_closed_forms_are_the_derivatives(name, targets):
    loss, batch, outputs = make_loss(name), (None, jnp.asarray(targets)), jnp.asarray(OUTPUTS)
    u = jnp.asarray(normal(6, 3, seed=6))
    hessian = np.asarray(jax.jit(jax.hessian(lambda z: loss.total(z, batch)[0]))(outputs))
    product = jax.jit(lambda z, t: loss.hessian_product(z, batch, t))
    assert relative(product(outputs, u), np.einsum("ijkl,kl", hessian, u)) < 1e-14
    assert jax.eval_shape(product, outputs.astype(jnp.bfloat16), u.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("name", "function", "targets"),
    [
        ("cross_entropy", "softmax_cross_entropy_with_integer_labels", labels(6)),
        ("cross_entropy", "softmax_cross_entropy", SOFT),
        ("binary_cross_entropy", "sigmoid_binary_cross_entropy", BINARY),
        ("mse", "squared_error", SOFT),
    ],
)
def test_names_equal_the_functions_of_optax(name, function, targets):
    optax = pytest.importorskip("optax")
    fn, outputs, targets = getattr(optax, function), jnp.asarray(OUTPUTS), jnp.asarray(targets)
    expected = float(fn(outputs, targets).mean())
    total, terms = make_loss(name).total(outputs, (None, targets))
    assert float(total) / float(terms) == pytest.approx(expected, rel=1e-14)
    assert type(make_loss(fn)) is type(make_loss(name))  # so that masks count and there is a likelihood
    for form in (lambda z, y: fn(z, y), lambda z, y: fn(z, y).mean(), lambda z, y: (fn(z, y).sum(), fn(z, y).size)):
        loss = make_loss(form)
        assert isinstance(loss, CallableLoss)
        total, terms = loss.total(outputs, (None, targets))
        assert float(total) / float(terms) == pytest.approx(expected, rel=1e-14)


def objective(loss, targets, x=None, **arguments):
    x = normal(len(targets), 4) if x is None else x
    return ls.objective(linear, loss, (x, targets), params=jnp.asarray(normal(4, 3, seed=7)), **arguments)


def test_masked_positions_count_for_nothing():
    x = normal(6, 4)
    whole = objective("cross_entropy", INTEGERS, x)
    kept = np.asarray(INTEGERS) != -100
    part = objective("cross_entropy", np.asarray(INTEGERS)[kept], x[kept])
    assert whole.value() == pytest.approx(part.value(), rel=1e-14)
    v = normal(12, seed=8)
    np.testing.assert_allclose(whole.hessian() @ v, part.hessian() @ v, rtol=1e-12)
    # Batches with different numbers of positions: the sum is divided at the end.
    split = objective("cross_entropy", INTEGERS, x, batch_size=3)
    np.testing.assert_allclose(split.ggn() @ v, part.ggn() @ v, rtol=1e-12)
    nothing = objective("cross_entropy", np.full(6, -100))
    with pytest.raises(ValueError, match="0 terms over the whole data"):
        nothing.value()


def test_weights_as_a_pair_of_sum_and_terms():
    x, y, w = normal(6, 4), labels(6), np.array([1.0, 0.0, 2.0, 0.5, 0.0, 1.0])

    def weighted(outputs, targets):
        classes, weights = targets
        losses = -jnp.take_along_axis(jax.nn.log_softmax(outputs), classes[:, None], axis=1)[:, 0]
        return (weights * losses).sum(), weights.sum()

    params = jnp.asarray(normal(4, 3, seed=7))
    batches = [(x[:4], (y[:4], w[:4])), (x[4:], (y[4:], w[4:]))]
    value = ls.objective(linear, weighted, batches, params=params).value()
    assert value == pytest.approx(float(weighted(x @ params, (y, w))[0] / w.sum()), rel=1e-13)


def test_batch_losses():
    x, y, mask = normal(5, 4), normal(5, 3, seed=1), np.array([1.0, 1.0, 0.0, 1.0, 1.0])
    batches = [{"x": x[i : i + 3], "y": y[i : i + 3], "mask": mask[i : i + 3], "name": f"{i}"} for i in (0, 3)]

    def squares(outputs, batch):
        return (batch["mask"][:, None] * (outputs - batch["y"]) ** 2).sum(), batch["mask"].sum()

    params = jnp.asarray(normal(4, 3, seed=7))
    whole = ls.objective(linear, ls.BatchLoss(lambda model, batch: squares(model(batch["x"]), batch)), batches, params=params)
    split = ls.objective(
        linear, ls.BatchLoss(outputs=lambda model, batch: model(batch["x"]), loss=squares), batches, params=params
    )
    kept = mask > 0
    exact = np.kron(2 * x[kept].T @ x[kept] / 4, np.eye(3))  # of the mean over four rows of squared lengths
    np.testing.assert_allclose(whole.hessian().to_dense(), exact, atol=1e-13)
    np.testing.assert_allclose(split.ggn().to_dense(), exact, atol=1e-13)
    with pytest.raises(TypeError, match="BatchLoss\\(outputs="):
        whole.ggn()
    assert whole.num_examples == 5
    # A loss of the parameters alone.
    alone = ls.objective(linear, ls.BatchLoss(lambda model, batch: ((model(jnp.eye(4)) ** 2).sum(), 1)), None, params=params)
    np.testing.assert_allclose(alone.hessian() @ np.ones(12), 2 * np.ones(12), rtol=1e-14)


@pytest.mark.parametrize(
    ("loss", "targets", "error", "message"),
    [
        ("mse", np.zeros((6, 1)), ValueError, r"shape \(6, 3\) with targets of shape \(6, 1\)"),
        ("binary_cross_entropy", np.zeros(6), ValueError, r"targets of shape \(6,\)"),
        ("cross_entropy", np.zeros((6, 2), int), ValueError, "classes along the last axis: one class for each position"),
        ("cross_entropy", np.zeros(6), TypeError, "pass integers"),
        ("cross_entropy", np.array([0, 1, 2, 3, -100, 0]), ValueError, "classes from 0 to 3"),
        ("cross_entropy", np.array([0, 1, 2, -1, 0, 0]), ValueError, "classes from -1 to 2"),
        (lambda z, y: jnp.zeros((2, 2)), np.zeros(6), TypeError, "not a scalar but of shape"),
        (lambda z, y: 1.0, np.zeros(6), TypeError, "not a scalar but a float"),
        (lambda z, y: (z.sum(), 1, 2), np.zeros(6), TypeError, "must return a pair"),
        (lambda z, y: (z.sum(), z[:, 0]), np.zeros(6), TypeError, "must be a single number"),
        (lambda z, y: z.sum() / 0.0, np.zeros(6), ValueError, "not finite"),
        (lambda z, y: (z.sum(), -1), np.zeros(6), ValueError, "-1.0 terms"),
        (lambda z, y: float(z.sum()), np.zeros(6), RuntimeError, "needs the values of arrays in Python"),
        (lambda z, y: z.sum() if z.sum() > 0 else -z.sum(), np.zeros(6), RuntimeError, "branches on the values"),
        (lambda z, y: np.sum(np.asarray(z)), np.zeros(6), RuntimeError, "into NumPy arrays"),
    ],
)
def test_losses_that_do_not_fit(loss, targets, error, message):
    with pytest.raises(error, match=message):
        objective(loss, targets).value()


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        ("hinge", ValueError, "the names are"),
        (3, TypeError, "argument loss is a int"),
        (CallableLoss, TypeError, "argument loss is a type"),
    ],
)
def test_arguments_that_are_no_losses(loss, error, message):
    with pytest.raises(error, match=message):
        objective(loss, np.zeros((6, 3)))


def test_classes_in_the_place_where_torch_has_them():
    with pytest.raises(ValueError, match="move the classes to the last axis"):
        ls.objective(
            lambda p, x: jnp.swapaxes(x @ p, 1, 2), "cross_entropy", (normal(2, 5, 4), labels(2, 5)), params=jnp.ones((4, 3))
        ).value()


def test_outputs_that_are_no_single_array():
    data, params = (normal(5, 4), normal(5, 3)), jnp.ones((4, 3))
    with pytest.raises(TypeError, match="returns a tuple"):
        ls.objective(lambda p, x: (x @ p, 1), "mse", data, params=params).value()
    with pytest.raises(TypeError, match="dtype int"):
        ls.objective(lambda p, x: jnp.round(x @ p).astype(int), "mse", data, params=params).value()


def test_probabilities_are_refused():
    data, params = normal(6, 4), jnp.ones((4, 3))
    softmax = ls.objective(lambda p, x: jax.nn.softmax(x @ p), "cross_entropy", (data, labels(6)), params=params)
    for ask in (softmax.value, softmax.gradient, lambda: softmax.ggn() @ np.ones(12), lambda: softmax.hessian() @ np.ones(12)):
        with pytest.raises(ValueError, match="needs logits"):
            ask()
    targets = labels(6, 3, classes=2)
    for last in (jax.nn.sigmoid, lambda z: jax.jit(jax.nn.sigmoid)(z.reshape(18)).reshape(6, 3)):
        sigmoid = ls.objective(lambda p, x, f=last: f(x @ p), "binary_cross_entropy", (data, targets), params=params)
        for ask in (sigmoid.value, lambda o=sigmoid: o.hessian() @ np.ones(12)):
            with pytest.raises(ValueError, match="ends in a sigmoid"):
                ask()


def test_logits_between_zero_and_one_are_fine():
    data, params = np.abs(normal(6, 4)) / 9, jnp.full((4, 3), 0.1)
    assert ls.objective(linear, "binary_cross_entropy", (data, labels(6, 3, classes=2)), params=params).value() > 0


# -- likelihoods -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "targets"), [CASES[i] for i in (0, 1, 3, 5)])
def test_sampled_gradients_have_the_hessian_as_covariance(name, targets):
    functions = objective(name, targets).functions
    batch = functions.prepare((normal(6, 4), targets))
    outputs = jnp.asarray(OUTPUTS)
    kind, shape = functions.noise_of(outputs, batch)
    gradient = functions.loss.likelihood(outputs, batch).gradient
    dense = np.asarray(jax.jit(jax.hessian(lambda z: functions.loss.total(z, batch)[0]))(outputs)).reshape(18, 18)
    if kind == "normal":
        matrix = np.stack([gradient(row.reshape(shape)).ravel() for row in np.eye(18)])
        np.testing.assert_allclose(matrix.T @ matrix, dense, atol=1e-13)
    else:
        # Evenly spaced numbers in place of random ones: the gradient is piecewise constant in each of them.
        count, terms = 2000, int(np.prod(shape))
        rows = np.stack([gradient(np.full(shape, (i + 0.5) / count)) for i in range(count)]).reshape(count, terms, -1)
        classes = rows.shape[-1]
        found = np.einsum("itc,itd->tcd", rows, rows) / count
        blocks = dense.reshape(terms, classes, terms, classes)
        np.testing.assert_allclose(found, np.einsum("tctd->tcd", blocks), atol=5 * classes / count)
        np.testing.assert_allclose(rows.mean(axis=0), 0, atol=5 * classes / count)
        assert not np.einsum("tcsd->tscd", blocks)[~np.eye(terms, dtype=bool)].any()
        assert abs(found).max() > 0.2
    native = functions.sampled_gradient(outputs, batch, np.full(shape, 0.3))
    assert native.shape == outputs.shape
    assert native.dtype == outputs.dtype


def test_sampled_gradients_are_those_of_torch():
    torch = pytest.importorskip("torch")
    numbers = np.random.default_rng(0).random((6, 3))
    for (name, given), noise in zip([CASES[0], CASES[3], CASES[5]], [numbers[:, 0], numbers, numbers], strict=True):
        ours = objective(name, given)
        model = torch.nn.Linear(4, 3, bias=False).double()
        theirs = ls.objective(model, name, (normal(6, 4), given))
        if not hasattr(theirs.functions, "sampled_gradient"):
            pytest.skip("the torch adapter draws no targets")
        g = ours.functions.sampled_gradient(jnp.asarray(OUTPUTS), next(iter(ours.batches())), noise)
        h = theirs.functions.sampled_gradient(torch.tensor(OUTPUTS), next(iter(theirs.batches())), noise)
        np.testing.assert_allclose(np.asarray(g), h.numpy(), atol=1e-14)


def test_products_of_rank_one():
    functions = objective("cross_entropy", INTEGERS).functions
    g, u = jnp.asarray(normal(2, 4, 3)), jnp.asarray(normal(2, 4, 3, seed=1))
    by_example = np.einsum("nij,nkl,nkl->nij", g, g, u)
    by_position = np.einsum("nti,ntj,ntj->nti", g, g, u)
    np.testing.assert_allclose(functions.rank_one(g, u, "example"), by_example, atol=1e-13)
    np.testing.assert_allclose(functions.rank_one(g, u, "term"), by_position, atol=1e-13)
    for name, expected in (("mse", g * g * u), ("binary_cross_entropy", g * g * u)):
        np.testing.assert_allclose(make_loss(name).rank_one(g, u), expected)
    np.testing.assert_allclose(make_loss(lambda z, y: 0).rank_one(g, u), by_example, atol=1e-13)
    with pytest.raises(ValueError, match="without an axis of examples"):
        functions.rank_one(g[0, 0], u[0, 0], "example")


def test_flat_outputs_and_back():
    functions = objective("mse", SOFT).functions
    outputs = jnp.asarray(OUTPUTS)
    flat = functions.flat_outputs(outputs)
    np.testing.assert_array_equal(flat, OUTPUTS.ravel())
    np.testing.assert_array_equal(functions.outputs_from(flat, outputs), OUTPUTS)
    assert functions.outputs_from(flat, outputs.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_refusals_of_what_a_loss_has_not():
    assert objective("mse", SOFT).functions.fisher_refusal is None
    for loss in (lambda z, y: z.mean(), ls.BatchLoss(lambda m, b: (m(b[0]).sum(), 1))):
        functions = objective(loss, SOFT).functions
        assert functions.fisher_refusal.endswith(".")
        assert (functions.example_refusal is None) == callable(loss)
