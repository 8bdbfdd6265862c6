"""The class structure against sums written out from the definitions, closed forms, and what must not be stored."""

import copy
import itertools
import tracemalloc

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from classifiers import LABELS, PARTS, assert_close, explicit, make, objective_of  # noqa: E402
from torch import nn  # noqa: E402

import linop_spectra as ls  # noqa: E402


@pytest.mark.parametrize("memory_budget", [None, 9000], ids=["kept", "recomputed"])
@pytest.mark.parametrize("name", LABELS)
def test_parts_equal_their_definitions_and_add_up(name, memory_budget):
    expected, objective = explicit(name), objective_of(name, memory_budget=memory_budget)
    parts = objective.class_structure()
    dense = {part: getattr(parts, part).to_dense() for part in PARTS}
    for part in PARTS:
        assert_close(dense[part], getattr(expected, part))
        operator = getattr(parts, part)
        assert operator.positive_semidefinite
        assert part in repr(operator)
        assert np.linalg.eigvalsh(dense[part]).min() > -1e-14
    assert_close(sum(dense.values()), objective.ggn().to_dense())
    v = np.random.default_rng(0).standard_normal(objective.num_parameters)
    assert_close((parts.A1 + parts.A2 + parts.B1 + parts.B2) @ v, objective.ggn() @ v)
    assert ("computed anew" in parts.engine) == (memory_budget is not None)
    assert "twice" in parts.engine
    assert "3 classes, 17 examples" in repr(parts) or "4 classes, 12 examples" in repr(parts)


@pytest.mark.parametrize("name", LABELS)
def test_sums_of_parts_are_one_operator(name):
    expected, parts = explicit(name), objective_of(name).class_structure()
    for count in range(1, 5):
        for chosen in itertools.combinations(PARTS, count):
            operator = parts.sum_of(" + ".join(chosen))
            assert_close(operator.to_dense(), sum(getattr(expected, part) for part in chosen))
            assert operator.positive_semidefinite and type(operator) is type(parts.A1)
    with pytest.raises(ValueError, match="A1, A2, B1 and B2"):
        parts.sum_of("A1+C")
    with pytest.raises(ValueError, match="A1, A2, B1 and B2"):
        parts.sum_of("B2+B2")


def test_the_misprinted_variance_does_not_add_up():
    gauss_newton = objective_of("mlp").ggn().to_dense()
    right, wrong = explicit("mlp"), explicit("mlp", misprinted=True)
    assert_close(right.sum(), gauss_newton)
    assert np.linalg.norm(wrong.sum() - gauss_newton) > 0.01 * np.linalg.norm(gauss_newton)


@pytest.mark.parametrize("name", LABELS)
def test_ranks(name):
    parts = objective_of(name).class_structure()
    occurring, classes = len(set(LABELS[name])), parts.num_classes
    ranks = {part: np.linalg.matrix_rank(getattr(parts, part).to_dense(), tol=1e-12) for part in PARTS}
    assert ranks["A1"] == ranks["A2"] == occurring == np.linalg.matrix_rank((parts.A1 + parts.A2).to_dense(), tol=1e-12)
    assert ranks["B1"] <= occurring * (classes - 2)


@pytest.mark.parametrize("name", LABELS)
def test_means_and_weights(name):
    expected, parts = explicit(name), objective_of(name).class_structure()
    labels = np.array(LABELS[name])
    assert parts.counts.tolist() == [int((labels == c).sum()) for c in range(parts.num_classes)]
    assert_close(parts.cross_class_weights, expected.pair_weights)
    assert parts.cross_class_weights.sum() == pytest.approx(1, rel=1e-14)
    assert_close(parts.class_weights, expected.class_weights)
    assert_close(parts.class_means(), expected.classes)
    for c in range(parts.num_classes):
        assert_close(parts.cross_class_means(c), expected.pairs[c])
    # The mean towards the right class is a multiple of the one away from it.
    own = parts.cross_class_weights.diagonal()
    assert_close(parts.class_weights[:, None] * expected.classes, -own[:, None] * expected.pairs[range(len(own)), range(len(own))])


@pytest.mark.parametrize("sum_of_parts", ["A1", "A2", "B1", "A1+A2", "A1 + B1", "A2+B1", "A1+A2+B1"])
@pytest.mark.parametrize("name", LABELS)
def test_gram_matrices_have_the_eigenvalues_of_the_parts(name, sum_of_parts):
    expected, parts = explicit(name), objective_of(name).class_structure()
    dense = sum(getattr(expected, part.strip()) for part in sum_of_parts.split("+"))
    eigenvalues, found = np.linalg.eigvalsh(dense), parts.spectrum(sum_of_parts)
    assert found.size == (parts.num_classes**2 if "B1" in sum_of_parts else parts.num_classes)
    rank = int((eigenvalues > 1e-12).sum())
    np.testing.assert_allclose(found[-rank:], eigenvalues[-rank:], rtol=1e-10)
    assert np.abs(found[:-rank]).max(initial=0) < 1e-14
    gram = parts.gram(sum_of_parts)
    assert np.array_equal(gram, gram.T) or np.abs(gram - gram.T).max() < 1e-16


def test_gram_matrix_is_made_of_the_means():
    expected, parts = explicit("mlp"), objective_of("mlp").class_structure()
    vectors = (np.sqrt(expected.pair_weights)[:, :, None] * expected.pairs).reshape(9, -1)
    assert_close(parts.gram("A1+A2+B1"), vectors @ vectors.T)
    vectors = np.sqrt(expected.class_weights)[:, None] * expected.classes
    assert_close(parts.gram("A1"), vectors @ vectors.T)


def test_multinomial_logistic_regression_in_closed_form():
    """Inputs ``t e_c + z`` with ``z`` of unit covariance and probabilities ``1 - a`` and ``a / (C - 1)``; Papyan (2020), section on MLR.

    The outliers come from A1 and A2, the small bulk from B1 and the main bulk from B2.
    """
    classes, dimension, t, a = 4, 5, 3.0, 0.2

    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(dimension, classes, bias=False)

        def forward(self, x, logits):
            return self.linear(x) + logits

    model = Shifted().double()
    nn.init.zeros_(model.linear.weight)
    # Two points for each class and direction have the mean and the covariance exactly.
    noise = np.sqrt(dimension) * np.concatenate([np.eye(dimension), -np.eye(dimension)])
    labels = np.repeat(np.arange(classes), 2 * dimension)
    inputs = t * np.eye(dimension)[labels] + np.tile(noise, (classes, 1))
    logits = np.log(np.where(np.eye(classes)[labels] > 0, 1 - a, a / (classes - 1)))
    order = np.random.default_rng(0).permutation(labels.size)
    batches = [((torch.tensor(inputs[i]), torch.tensor(logits[i])), torch.tensor(labels[i])) for i in np.array_split(order, 7)]
    objective = ls.objective(model, "cross_entropy", batches)
    parts = objective.class_structure()
    unit, bulk, s = a / (classes - 1), 2 - a * classes / (classes - 1), t**2
    np.testing.assert_allclose(parts.spectrum("A1"), unit * s * (1 - a) ** 2, rtol=1e-12)
    np.testing.assert_allclose(parts.spectrum("A2"), unit * s * a * (1 - a), rtol=1e-12)
    np.testing.assert_allclose(parts.spectrum("A1+A2"), unit * s * (1 - a), rtol=1e-12)
    small = classes * (classes - 2)
    np.testing.assert_allclose(parts.spectrum("B1")[-small:], unit * s / classes, rtol=1e-12)
    np.testing.assert_allclose(np.linalg.eigvalsh(parts.B2.to_dense())[dimension:], unit * bulk, rtol=1e-12)
    expected = [unit * (s * (1 - a) + bulk)] * classes + [unit * (s / classes + bulk)] * small
    expected += [unit * bulk] * (dimension * (classes - 1) - len(expected)) + [0.0] * dimension
    total = (parts.A1 + parts.A2 + parts.B1 + parts.B2).to_dense()
    np.testing.assert_allclose(np.linalg.eigvalsh(total), np.sort(expected), atol=1e-14)
    # A product with the main part alone gives the outliers, too, from a few products.
    found = ls.eigsh(parts.A1, k=4, which="LA")
    np.testing.assert_allclose(found.eigenvalues, unit * s * (1 - a) ** 2, rtol=1e-8)


def test_operators_pass_their_own_check():
    for name in LABELS:
        parts = objective_of(name).class_structure()
        for operator in (*(getattr(parts, part) for part in PARTS), parts.B2_class(0), parts.B2_class(1, 2)):
            check = ls.check_operator(operator)
            assert check.passed, f"{operator}: {check}"
            assert check.finite_difference_error < 1e-6


def test_two_classes_have_no_spread_of_means():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    inputs, labels = torch.randn(9, 3).double(), torch.tensor([0, 1, 1] * 3)
    objective = ls.objective(model, "cross_entropy", (inputs, labels), batch_size=4)
    parts = objective.class_structure()
    assert np.abs(parts.B1.to_dense()).max() < 1e-15
    assert ls.check_operator(parts.B1).passed
    assert_close(sum(getattr(parts, part).to_dense() for part in PARTS), objective.ggn().to_dense())


@pytest.mark.parametrize("name", LABELS)
def test_one_example_in_each_batch_and_all_in_one(name):
    whole, single = objective_of(name, batch_size=100).class_structure(), objective_of(name, batch_size=1).class_structure()
    for part in PARTS:
        assert_close(getattr(single, part).to_dense(), getattr(whole, part).to_dense())
    assert_close(single.gram("A1+A2+B1"), whole.gram("A1+A2+B1"))
    model, inputs, labels = make(name)
    alone = ls.objective(model, "cross_entropy", (inputs[:1], labels[:1]))
    parts = alone.class_structure()
    assert np.abs(parts.B2.to_dense()).max() < 1e-15  # a single example is its own mean
    assert_close(sum(getattr(parts, part).to_dense() for part in PARTS), alone.ggn().to_dense())


def test_confident_networks_keep_their_digits():
    model, inputs, labels = make("mlp")
    with torch.no_grad():
        model[2].weight *= 300  # probabilities of 1e-300 and of exactly one
    objective = ls.objective(model, "cross_entropy", (inputs, labels), batch_size=5)
    parts = objective.class_structure()
    assert parts.probabilities.max() == 1
    assert parts.counts.tolist() == [9, 3, 5]  # nobody is taken for masked
    total, gauss_newton = sum(getattr(parts, part).to_dense() for part in PARTS), objective.ggn().to_dense()
    assert np.isfinite(total).all()
    assert np.linalg.norm(total - gauss_newton) <= 1e-9 * np.linalg.norm(gauss_newton)


def test_single_precision_and_no_side_effects():
    model, inputs, labels = make("mlp")
    reference = ls.objective(model, "cross_entropy", (inputs, labels), batch_size=5).class_structure()
    model, inputs = model.float(), inputs.float()
    state, random_state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    objective = ls.objective(model, "cross_entropy", (inputs, labels), batch_size=5)
    parts = objective.class_structure()
    assert parts.A1.dtype == np.float32 == parts.class_means().dtype
    for part in PARTS:
        assert_close(getattr(parts, part).to_dense(), getattr(reference, part).to_dense(), 1e-5)
    assert_close(parts.gram("A1+A2+B1"), reference.gram("A1+A2+B1"), 1e-5)
    parts.B2_traces(3)
    for operator in (parts.A2, parts.B2):
        assert ls.check_operator(operator).passed
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert torch.equal(random_state, torch.get_rng_state())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_arrays_of_another_library():
    reference, parts = objective_of("cnn").class_structure(), objective_of("cnn", backend="torch").class_structure()
    assert isinstance(parts.class_means(), torch.Tensor)
    assert_close(parts.cross_class_means(2).numpy(), reference.cross_class_means(2))
    for part in PARTS:
        assert_close(ls.to_numpy(getattr(parts, part).to_dense()), getattr(reference, part).to_dense())
    assert_close(parts.spectrum("A1+A2+B1"), reference.spectrum("A1+A2+B1"))
    assert_close(parts.B2_traces(4).samples, reference.B2_traces(4).samples)
    assert_close(parts.B2_traces(None).values, reference.B2_traces(None).values)


def test_weight_decay_is_left_to_the_whole_matrix():
    objective = objective_of("mlp", weight_decay=0.3)
    parts = objective.class_structure()
    total = sum(getattr(parts, part).to_dense() for part in PARTS)
    assert_close(total + 0.3 * np.eye(objective.num_parameters), objective.ggn().to_dense())


def test_blocks_of_parts():
    parts = objective_of("mlp").class_structure()
    assert_close(parts.B1.block("2.bias").to_dense(), parts.B1.to_dense()[-3:, -3:])


def test_nothing_of_the_size_of_all_means_is_stored():
    classes, examples = 30, 60
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(60, 220), nn.Tanh(), nn.Linear(220, classes))
    data = torch.randn(examples, 60), torch.arange(examples) % classes
    # Vectors of 20,020 parameters go through in blocks that fit a small share of the budget.
    objective = ls.objective(model, "cross_entropy", data, batch_size=25, memory_budget="40MB")
    everything = classes**2 * objective.num_parameters * 4
    parts = objective.class_structure()
    v = objective.parameters()
    assert everything > 70e6
    tracemalloc.start()
    try:
        parts.gram("A1+A2+B1")
        for part in PARTS:
            getattr(parts, part) @ v
        parts.class_means()
        parts.cross_class_means(3)
        parts.B2_traces(6)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < everything / 2
    assert peak > 900**2 * 8  # the measurement sees NumPy's arrays: the Gram matrix is one of them


def test_arguments():
    parts = objective_of("mlp").class_structure()
    for wrong in ("B2", "A1+B2", "A1+A1", "", "a1", None):
        with pytest.raises(ValueError, match="argument parts"):
            parts.gram(wrong)
    for wrong in (3, -1, 1.0, True):
        with pytest.raises(ValueError, match="a class from 0 to 2"):
            parts.B2_class(wrong)
        with pytest.raises(ValueError, match="a class from 0 to 2"):
            parts.cross_class_means(wrong)
    for wrong in (0, 2.5, True):
        with pytest.raises(ValueError, match="num_probes"):
            parts.B2_traces(wrong)
    with pytest.raises(ValueError, match="3 classes"):
        parts.B2_traces(2).estimate(3)
