"""Squared gradients and drawn targets, against the gradients of single examples by autograd and against dense matrices."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import linop_spectra as ls  # noqa: E402
from linop_spectra.approximations import approximate  # noqa: E402

nn = torch.nn
_RNG = np.random.default_rng(0)
WEIGHTS = {"a": _RNG.standard_normal((5, 4)), "b": _RNG.standard_normal(5), "c": _RNG.standard_normal((3, 5)), "d": _RNG.standard_normal(3)}
INPUTS, MASKED = _RNG.standard_normal((11, 4)), _RNG.integers(0, 3, 11)
MASKED[[1, 6]] = -100
TARGETS = {
    "cross_entropy": MASKED, "mse": _RNG.standard_normal((11, 3)), "binary_cross_entropy": _RNG.integers(0, 2, (11, 3)).astype(float),
}  # fmt: skip
SUMS = {
    "cross_entropy": (nn.CrossEntropyLoss(reduction="sum"), 9), "mse": (nn.MSELoss(reduction="sum"), 33),
    "binary_cross_entropy": (nn.BCEWithLogitsLoss(reduction="sum"), 33),
}  # fmt: skip


def network():
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), WEIGHTS.values(), strict=True):
            parameter.copy_(torch.tensor(value))
    return model


def in_torch(loss, **options):
    return ls.objective(network(), loss, (torch.tensor(INPUTS), torch.tensor(TARGETS[loss])), **{"batch_size": 4, **options})


def in_jax(loss):
    jnp = pytest.importorskip("jax.numpy")

    def apply(p, x):
        return jnp.tanh(x @ p["a"].T + p["b"]) @ p["c"].T + p["d"]

    size = 5 if loss == "cross_entropy" else None  # JAX compiles anew for the last, smaller batch
    return ls.objective(apply, loss, (INPUTS, TARGETS[loss]), params={k: jnp.asarray(v) for k, v in WEIGHTS.items()}, batch_size=size)


def in_tensorflow(loss):
    tf = pytest.importorskip("tensorflow")

    class Network(tf.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d = (tf.Variable(value) for value in WEIGHTS.values())

        def __call__(self, x):
            return tf.tanh(x @ tf.transpose(self.a) + self.b) @ tf.transpose(self.c) + self.d

    return ls.objective(Network(), loss, (INPUTS, TARGETS[loss]), batch_size=3)


FRAMEWORKS = {"torch": in_torch, "jax": in_jax, "tensorflow": in_tensorflow}


@pytest.fixture
def _double_precision(request):
    if "jax" not in request.node.callspec.id:
        yield
        return
    jax = pytest.importorskip("jax")
    settings = {"jax_enable_x64": True, "jax_disable_most_optimizations": True}
    before = {name: jax.config.values[name] for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def example_gradients(loss):
    """One backward pass for each example."""
    model, (total, terms) = network(), SUMS[loss]
    rows = []
    for x, y in zip(INPUTS, TARGETS[loss], strict=True):
        value = total(model(torch.tensor(x)[None]), torch.as_tensor(y)[None])
        grads = torch.autograd.grad(value, list(model.parameters()), materialize_grads=True)
        rows.append(torch.cat([g.reshape(-1) for g in grads]).numpy())
    return np.array(rows), terms


@pytest.mark.usefixtures("_double_precision")
@pytest.mark.parametrize("loss", TARGETS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_framework(framework, loss):
    g, terms = example_gradients(loss)
    objective = FRAMEWORKS[framework](loss)
    squared = approximate(objective, "squared_gradients")
    np.testing.assert_allclose(squared.diagonal, (g**2).sum(axis=0) / terms, atol=1e-12)
    assert squared.kind == "squared_gradients" and squared.source_matvecs == 0 and squared.positive_semidefinite
    drawn = approximate(objective, "ggn_mc", num_samples=3, seed=2)
    if loss == "cross_entropy":  # one term for each example: the squares are those of the terms
        dense = np.asarray(objective.fisher("mc", num_samples=3, seed=2).to_dense())
        np.testing.assert_allclose(drawn.diagonal, np.diag(dense), atol=1e-12)
    assert drawn.source_matvecs == 0


@pytest.mark.parametrize("each", ["example", "batch"])
@pytest.mark.parametrize("loss", TARGETS)
def test_drawn_targets_are_unbiased(loss, each):
    """Also where an example has three terms, whose gradients add up before the square."""
    objective = in_torch(loss, weight_decay=0.2)
    exact = np.diag(np.asarray(objective.ggn().to_dense()))
    found = approximate(objective, "ggn_mc", num_samples=250, each=each, seed=1)
    z = (found.diagonal - exact) / np.maximum(found.standard_error, 1e-12)
    assert np.max(abs(z)) < 4.5 and 0.5 < np.std(z) < 1.6
    assert np.median(found.standard_error / exact) < 0.15
    wrong = np.diag(np.asarray(objective.fisher("empirical").to_dense()))
    assert np.max(abs(wrong - exact) / np.maximum(found.standard_error, 1e-12)) > 10  # the test can tell


def test_variance_of_both_ways_to_draw():
    """The square of a sum of many terms is like a chi-square: a relative error of sqrt(2) for each batch; examples are far better."""
    objective = in_torch("cross_entropy", batch_size=11)
    errors = {each: approximate(objective, "ggn_mc", num_samples=300, each=each).standard_error for each in ("example", "batch")}
    exact = np.diag(np.asarray(objective.ggn().to_dense()))
    per_sample = errors["batch"] * np.sqrt(300) / exact
    assert 0.8 < np.median(per_sample) < 2.0
    assert np.median(errors["example"] / errors["batch"]) < 0.7


@pytest.mark.parametrize("loss", TARGETS)
def test_random_signs_are_unbiased(loss):
    g, terms = example_gradients(loss)
    found = approximate(in_torch(loss), "squared_gradients", method="signs", num_samples=800, seed=3)
    exact = (g**2).sum(axis=0) / terms
    z = (found.diagonal - exact) / np.maximum(found.standard_error, 1e-14)
    assert np.max(abs(z)) < 4.5
    # Cross terms make all of the variance: sum over pairs in a batch of 2 g_m^2 g_n^2.
    batches = [g[first : first + 4] ** 2 for first in range(0, 11, 4)]
    variance = sum(2 * ((b.sum(axis=0)) ** 2 - (b**2).sum(axis=0)) for b in batches) / terms**2 / 800
    np.testing.assert_allclose(found.standard_error**2, variance, rtol=0.6, atol=1e-12)


def test_one_example_alone():
    model = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        model.weight.zero_()
    objective = ls.objective(model, "mse", (torch.tensor([[1.0, 2.0]]).double(), torch.tensor([[3.0]]).double()))
    np.testing.assert_allclose(approximate(objective, "squared_gradients").diagonal, [36.0, 144.0])
    np.testing.assert_allclose(approximate(objective, "squared_gradients", method="signs").diagonal, [36.0, 144.0])


def test_weight_decay_is_in_the_matrix_that_has_it():
    plain, decayed = in_torch("mse"), in_torch("mse", weight_decay=0.3)
    difference = approximate(decayed, "ggn_mc").diagonal - approximate(plain, "ggn_mc").diagonal
    np.testing.assert_allclose(difference, 0.3, atol=1e-14)
    np.testing.assert_array_equal(approximate(decayed, "squared_gradients").diagonal, approximate(plain, "squared_gradients").diagonal)


def test_sequences():
    """Six sequences of seven tokens, some masked: an example is a sequence, a term a token."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv1d(4, 3, 1)).double()
    x, y = torch.randn(6, 2, 7).double(), torch.randint(0, 3, (6, 7))
    y[:2, 3:] = -100
    objective = ls.objective(model, "cross_entropy", (x, y), batch_size=4)
    empirical = np.diag(np.asarray(objective.fisher("empirical").to_dense()))
    np.testing.assert_allclose(approximate(objective, "squared_gradients").diagonal, empirical, atol=1e-13)
    found = approximate(objective, "ggn_mc", num_samples=200)
    z = (found.diagonal - np.diag(np.asarray(objective.ggn().to_dense()))) / found.standard_error
    assert np.max(abs(z)) < 4.5


def test_nothing_of_the_model_changes():
    model = network()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    objective = ls.objective(model, "cross_entropy", (torch.tensor(INPUTS), torch.tensor(MASKED)))
    for options in ({}, {"method": "signs"}):
        approximate(objective, "squared_gradients", **options)
    approximate(objective, "ggn_mc", num_samples=2, each="batch")
    assert torch.equal(torch.get_rng_state(), state) and np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model[0].weight.grad, torch.ones(5, 4)) and model[0].bias.grad is None and model.training


def test_progress_counts_examples():
    seen = []
    approximate(in_torch("mse"), "squared_gradients", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 11) for i in range(1, 12)]


def test_losses_that_mix_examples():
    model = nn.Linear(4, 2).double()

    def contrastive(outputs, targets):
        return torch.logsumexp(outputs @ outputs.T, dim=1).sum(), len(outputs)

    objective = ls.objective(model, contrastive, (torch.randn(6, 4).double(), torch.zeros(6)))
    with pytest.raises(ValueError, match="no sum over its examples"):
        approximate(objective, "squared_gradients")
    with pytest.raises(TypeError, match="likelihood"):
        approximate(objective, "ggn_mc")
    normalised = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).double()
    coupled = ls.objective(normalised, "cross_entropy", (torch.randn(6, 4).double(), torch.zeros(6, dtype=torch.long)), batch_norm="train")
    for kind in ("squared_gradients", "ggn_mc"):
        with pytest.raises((TypeError, ValueError), match="batch"):
            approximate(coupled, kind)


@pytest.mark.parametrize("kind, options, words", [
    ("squared_gradients", {"method": "hutchinson"}, "must be 'exact' or 'signs'"),
    ("squared_gradients", {"num_samples": 3}, "belong to method='signs'"),
    ("squared_gradients", {"method": "signs", "num_samples": 0}, "num_samples must be a whole number"),
    ("squared_gradients", {"method": "signs", "seed": -1}, "seed must be a whole number"),
    ("ggn_mc", {"num_samples": 1.5}, "num_samples must be a whole number"),
    ("ggn_mc", {"seed": -1}, "seed must be a whole number"),
    ("ggn_mc", {"each": "term"}, "must be 'example' or 'batch'"),
    ("ggn_mc", {"matrix": "hessian"}, "says itself which matrix"),
])  # fmt: skip
def test_wrong_options(kind, options, words):
    with pytest.raises(ValueError, match=words):
        approximate(in_torch("mse"), kind, **options)
