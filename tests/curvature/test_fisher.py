"""Fisher matrices against dense ones, closed forms, and each other."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dense_torch import CASES, assert_close, case, classifier, to_dense  # noqa: E402

import linop_spectra as ls  # noqa: E402

nn = torch.nn


@pytest.mark.parametrize("name", CASES)
def test_exact_fisher_is_the_gauss_newton_matrix(name):
    objective, dense = case(name)
    exact = objective.fisher()
    assert exact.positive_semidefinite
    assert_close(exact, dense.ggn)
    assert_close(objective.ggn(), dense.ggn)
    assert ls.check_operator(exact).passed


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("soft targets", "sum")])
def test_monte_carlo_fisher_is_unbiased(name):
    """Every entry is a mean of independent terms: samples give its standard error."""
    objective, dense = case(name, batch_size=None)
    v = np.random.default_rng(0).standard_normal((objective.num_parameters, 3))
    samples = 120
    forms = np.array([np.sum(v * (objective.fisher("mc", seed=seed) @ v), axis=0) for seed in range(samples)])
    exact = np.sum(v * (dense.ggn @ v), axis=0)
    errors = forms.std(axis=0, ddof=1) / np.sqrt(samples)
    assert (errors < 0.2 * exact).all()
    assert (abs(forms.mean(axis=0) - exact) < 4 * errors).all()


def test_drawn_targets_take_no_forward_pass_of_their_own():
    """Outputs, number of terms and Jacobian come from one pass over each batch, and from none once they are kept."""
    model, passes = nn.Linear(3, 2).double(), []
    model.register_forward_hook(lambda *_: passes.append(1))
    data = torch.randn(8, 3, dtype=torch.float64), torch.randint(0, 2, (8,))
    fisher = ls.objective(model, "cross_entropy", data, batch_size=4).fisher("mc", num_samples=2)
    passes.clear()
    fisher @ np.ones(8)
    first = len(passes)
    fisher @ np.ones(8)
    assert (first, len(passes)) == (2, 2)


def test_the_weight_of_a_drawn_target_is_not_that_of_the_target_in_the_data():
    """Soft targets that do not sum to one weigh their position."""
    objective, dense = case("soft targets", batch_size=None)
    many = to_dense(objective.fisher("mc", num_samples=500))
    assert np.linalg.norm(many - dense.ggn) < 0.15 * np.linalg.norm(dense.ggn)


@pytest.mark.parametrize("name", ["tokens", "squared errors", "weighted binary"])
def test_monte_carlo_fisher_is_a_fixed_matrix(name):
    one, _ = case(name, batch_size=4)
    other, _ = case(name, batch_size=None)
    first = to_dense(one.fisher("mc", num_samples=2, seed=3))
    np.testing.assert_array_equal(first, to_dense(one.fisher("mc", num_samples=2, seed=3)))
    operator = one.fisher("mc", num_samples=2, seed=3)
    np.testing.assert_array_equal(operator @ np.ones(first.shape[0]), operator @ np.ones(first.shape[0]))
    # The numbers belong to the place in the data, and the first samples are those of fewer samples.
    assert_close(other.fisher("mc", num_samples=2, seed=3), first)
    assert_close((one.fisher("mc", seed=3) + _second_sample(one)) / 2, first)
    assert abs(to_dense(one.fisher("mc", num_samples=2, seed=4)) - first).max() > 1e-3
    assert ls.check_operator(operator).passed
    assert np.linalg.eigvalsh(first).min() > -1e-14


def _second_sample(objective):
    both, first = objective.fisher("mc", num_samples=2, seed=3), objective.fisher("mc", seed=3)
    return 2 * both - first


def test_monte_carlo_fisher_has_the_rank_of_its_samples():
    """Nine examples with one drawn class each give nine gradients: a mean over terms, not the square of a sum."""
    torch.manual_seed(0)
    objective = ls.objective(nn.Linear(20, 6).double(), "cross_entropy", (torch.randn(9, 20), torch.randint(0, 6, (9,))))
    assert np.linalg.matrix_rank(to_dense(objective.fisher("mc"))) == 9
    assert np.linalg.matrix_rank(to_dense(objective.fisher("mc", num_samples=2))) > 9


def test_classes_are_drawn_a_few_examples_at_a_time(monkeypatch):
    from linop_spectra.adapters.torch import likelihood

    objective, _ = case("tokens", batch_size=None)
    whole = to_dense(objective.fisher("mc", seed=5))
    monkeypatch.setattr(likelihood, "_NUMBERS_AT_ONCE", 50)
    np.testing.assert_array_equal(to_dense(objective.fisher("mc", seed=5)), whole)


def test_certain_classes_are_drawn():
    """Probabilities of 0 and 1, and a number at the end of the interval."""
    from linop_spectra.adapters.torch.likelihood import Categorical

    outputs, weight = torch.tensor([[0.0, 200.0, 0.0], [200.0, 0.0, 0.0], [0.0, 0.0, 200.0]]), torch.ones(3, 1)
    for number in (1e-16, 0.5, 1.0 - 2**-53, 1.0):
        drawn = Categorical(outputs, weight, 1).gradient(torch.full((3,), number, dtype=torch.float64))
        if number < 1:
            assert torch.equal(drawn, torch.zeros(3, 3))
        assert torch.isfinite(drawn).all()
        assert (drawn.sum(1) == 0).all()


def test_drawn_targets_where_nothing_may_be_kept():
    """One vector at a time, batches computed anew: the same matrix."""
    kept, _ = case("tokens", batch_size=2)
    scarce, _ = case("tokens", batch_size=2, memory_budget=4000)
    operator = scarce.fisher("mc", num_samples=3)
    assert_close(operator, to_dense(kept.fisher("mc", num_samples=3)))
    assert "0 of" in operator.engine or "computed anew" in operator.engine


@pytest.mark.parametrize("name", CASES)
def test_empirical_fisher_from_gradients_of_single_examples(name):
    objective, dense = case(name)
    g = dense.example_gradients
    empirical = objective.fisher("empirical")
    assert_close(empirical, g.T @ g / dense.terms)
    assert ls.check_operator(empirical).passed


def test_weight_decay():
    plain, dense = case("masked")
    decayed, _ = case("masked", weight_decay=0.3)
    eye = np.eye(plain.num_parameters)
    assert_close(decayed.fisher(), dense.ggn + 0.3 * eye)
    assert_close(decayed.fisher("mc", seed=1), to_dense(plain.fisher("mc", seed=1)) + 0.3 * eye)
    assert_close(decayed.fisher("empirical"), to_dense(plain.fisher("empirical")))
    for kind in ("exact", "mc", "empirical"):
        assert ls.check_operator(decayed.fisher(kind)).passed


def test_binary_classes_are_labels():
    """Two classes with logits (0, z) are one label with logit z."""
    torch.manual_seed(0)
    x, y = torch.randn(12, 3).double(), torch.randint(0, 2, (12,))
    label = nn.Linear(3, 1).double()

    class TwoClasses(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = label

        def forward(self, inputs):
            z = self.inner(inputs)
            return torch.cat([torch.zeros_like(z), z], dim=1)

    classes = ls.objective(TwoClasses(), "cross_entropy", (x, y))
    labels = ls.objective(label, "binary_cross_entropy", (x, y[:, None].double()))
    for kind in ("exact", "empirical"):
        assert_close(classes.fisher(kind), to_dense(labels.fisher(kind)))


def test_linear_regression():
    """``2 X^T X / N`` for one output and squared errors, the same for the Hessian."""
    torch.manual_seed(0)
    x, y = torch.randn(12, 3).double(), torch.randn(12, 1).double()
    objective = ls.objective(nn.Linear(3, 1, bias=False).double(), "mse", (x, y), batch_size=5)
    expected = 2 * (x.T @ x / 12).numpy()
    assert_close(objective.fisher(), expected)
    assert_close(objective.hessian(), expected)


def test_losses_without_a_likelihood_are_refused():
    torch.manual_seed(0)
    x, y = torch.randn(5, 4).double(), torch.randint(0, 3, (5,))
    model = classifier()
    callable_loss = ls.objective(model, lambda outputs, targets: nn.functional.cross_entropy(outputs, targets), (x, y))
    log_probabilities = ls.objective(nn.Sequential(model, nn.LogSoftmax(1)), nn.NLLLoss(), (x, y))
    split = ls.BatchLoss(
        outputs=lambda module, batch: module(batch[0]),
        loss=lambda outputs, batch: (nn.functional.cross_entropy(outputs, batch[1], reduction="sum"), len(batch[1])),
    )
    whole = ls.BatchLoss(lambda module, batch: (nn.functional.cross_entropy(module(batch[0]), batch[1], reduction="sum"), 5))
    negative = nn.CrossEntropyLoss(weight=torch.tensor([1.0, -1.0, 1.0]).double())
    objectives = [callable_loss, log_probabilities, ls.objective(model, split, [(x, y)]), ls.objective(model, whole, [(x, y)])]
    for objective in objectives:
        for kind in ("exact", "mc"):
            with pytest.raises(TypeError, match=r"cross_entropy"):
                objective.fisher(kind)
    with pytest.raises(TypeError, match="negative weights"):
        ls.objective(model, negative, (x, y)).fisher()
    with pytest.raises(TypeError, match=r"examples need the model's outputs .* BatchLoss\(outputs="):
        objectives[3].fisher("empirical")
    expected = to_dense(ls.objective(model, "cross_entropy", (x, y)).fisher("empirical"))
    for objective in objectives[:3]:
        assert_close(objective.fisher("empirical"), expected)


def test_batch_statistics_are_refused():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)).double()
    data = torch.randn(8, 4).double(), torch.randint(0, 3, (8,))
    objective = ls.objective(model, "cross_entropy", data, batch_norm="train")
    with pytest.raises(TypeError, match="batch_norm='eval'"):
        objective.fisher("empirical")
    with pytest.raises(TypeError, match="batch_norm='eval'"):
        objective.gradient_covariance()
    assert_close(objective.fisher(), to_dense(objective.ggn()))
    assert ls.check_operator(objective.fisher("mc")).passed


def test_rows_that_are_no_examples_are_refused():
    torch.manual_seed(0)
    tokens, targets = torch.randint(0, 5, (4, 6)), torch.randint(0, 5, (4, 6))
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5)).double()
    flat = ls.BatchLoss(
        outputs=lambda module, batch: module(batch[0]).flatten(0, 1),
        loss=lambda outputs, batch: (nn.functional.cross_entropy(outputs, batch[1].flatten(), reduction="sum"), batch[1].numel()),
    )
    with pytest.raises(ValueError, match="4 examples have 24 rows"):
        ls.objective(model, flat, [(tokens, targets)]).fisher("empirical") @ np.ones(35)
    single = ls.objective(nn.Linear(4, 3).double(), "cross_entropy", [(torch.randn(4), torch.tensor(1))])
    with pytest.raises(ValueError, match=r"first axis of length one|examples along the first axis"):
        single.fisher("empirical") @ np.ones(15)
    assert_close(single.fisher(), to_dense(single.ggn()))


def test_losses_that_mix_examples_are_refused():
    """A contrastive loss has no gradient of one example; one that only looks at the targets of others has."""
    torch.manual_seed(0)
    x, y = torch.randn(6, 4).double(), torch.randint(0, 3, (6,))

    def contrastive(outputs, targets):
        return nn.functional.cross_entropy(outputs @ outputs.T, targets)

    def balanced(outputs, targets):
        weights = 1 / torch.bincount(targets, minlength=3)[targets].double()
        return (weights * nn.functional.cross_entropy(outputs, targets, reduction="none")).sum(), weights.sum()

    mixed = ls.objective(classifier(), contrastive, (x, y))
    for operator in (mixed.fisher("empirical"), mixed.gradient_covariance()):
        with pytest.raises(ValueError, match="no sum over the rows"):
            operator @ np.ones(43)
    assert ls.check_operator(mixed.ggn()).passed
    single = ls.objective(classifier(), balanced, (x, y))
    weights = 1 / np.bincount(y, minlength=3)[y]
    plain = ls.objective(classifier(), "cross_entropy", (x, y), batch_size=1)
    g = np.array([weight * part.gradient() for weight, part in zip(weights, plain.per_batch(), strict=True)])
    assert_close(single.fisher("empirical"), g.T @ g / weights.sum())


@pytest.mark.parametrize(
    "arguments, match",
    [
        (("type2",), "kind is 'type2'"),
        (("mc", {"num_samples": 0}), "num_samples must be"),
        (("mc", {"seed": -1}), "seed must be"),
        (("mc", {"num_samples": 1.5}), "num_samples must be"),
        (("exact", {"num_samples": 2}), "belong to kind='mc'"),
        (("empirical", {"seed": 2}), "belong to kind='mc'"),
    ],
)
def test_bad_arguments(arguments, match):
    objective, _ = case("masked")
    kind, *options = arguments
    with pytest.raises(ValueError, match=match):
        objective.fisher(kind, **(options[0] if options else {}))


def test_nothing_of_the_model_changes():
    model = classifier()
    x, y = torch.randn(8, 4).double(), torch.randint(0, 3, (8,))
    state, rng = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    objective = ls.objective(model, "cross_entropy", (x, y))
    for kind in ("exact", "mc", "empirical"):
        objective.fisher(kind).to_dense()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(rng, torch.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()  # noqa: NPY002
    assert all(p.grad is None for p in model.parameters())


def test_single_precision():
    model = classifier().float()
    torch.manual_seed(0)
    x, y = torch.randn(30, 4), torch.randint(0, 3, (30,))
    single = ls.objective(model, "cross_entropy", (x, y))
    double = ls.objective(model, "cross_entropy", (x, y), dtype="float64")
    for kind in ("exact", "mc", "empirical"):
        operator = single.fisher(kind)
        assert operator.dtype == np.float32
        np.testing.assert_allclose(operator.to_dense(), double.fisher(kind).to_dense(), atol=1e-5)
