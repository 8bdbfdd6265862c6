"""Gram matrices of class means from kept vectors, of examples sorted by class, against streamed inner products and the definitions."""

import pathlib
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
sys.path.insert(0, str(pathlib.Path(__file__).parent / "metrics"))

from classifiers import LABELS, assert_close, explicit, objective_of  # noqa: E402
from metric_networks import FRAMEWORKS  # noqa: E402

import linop_spectra as ls  # noqa: E402
from linop_spectra.curvature import class_batches, class_means  # noqa: E402
from linop_spectra.curvature.class_batches import sorted_by_class  # noqa: E402
from linop_spectra.curvature.classification import read_classes  # noqa: E402

PARTS = ("A1", "A1+A2+B1")


@pytest.fixture(autouse=True)
def _small(request, monkeypatch):
    monkeypatch.setattr(class_batches, "_LEAST", 2)
    if "jax" not in request.node.name:
        yield
        return
    jax = pytest.importorskip("jax")
    before = jax.config.values["jax_enable_x64"]
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def streamed(objective, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(class_means, "_KEPT_SHARE", 0.0)
        structure = objective.class_structure()
        return {part: structure.gram(part) for part in PARTS}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_kept_and_streamed_are_the_same(framework, monkeypatch):
    objective = FRAMEWORKS[framework](batch_size=16)  # the last batch has fourteen
    assert sorted_by_class(objective, read_classes(objective)).data.num_batches == 6
    expected = streamed(objective, monkeypatch)
    for part in PARTS:
        assert_close(objective.class_structure().gram(part), expected[part])


@pytest.mark.parametrize("name", LABELS)
def test_sorted_examples_give_the_means_of_the_definitions(name):
    expected, structure = explicit(name), objective_of(name, batch_size=9).class_structure()
    vectors = (np.sqrt(expected.pair_weights)[:, :, None] * expected.pairs).reshape(structure.num_classes**2, -1)
    assert structure._means._in_few_batches() is not structure._means
    assert_close(structure.gram("A1+A2+B1"), vectors @ vectors.T)


def test_each_part_holds_few_classes_and_sizes_repeat(monkeypatch):
    monkeypatch.setattr(class_batches, "_LEAST", 32)
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(500, 3, generator=generator), torch.randint(0, 5, (500,), generator=generator)
    objective = ls.objective(torch.nn.Linear(3, 5), "cross_entropy", data, batch_size=200)
    parts = sorted_by_class(objective, read_classes(objective))
    sizes = [parts.data.count(batch) for batch in parts.data]
    assert sum(sizes) == 500 and set(sizes) <= {40, 32, 4}  # 40 is 200 / 5, and the last batch of 100 takes the least
    assert max(len(np.unique(parts.functions.labels(batch))) for batch in parts.data) <= 3
    assert sum(len(np.unique(parts.functions.labels(batch))) for batch in parts.data) < 2 * len(sizes)
    assert parts.value() == pytest.approx(objective.value(), rel=1e-6)


def test_what_cannot_be_cut_is_left_as_it_is(monkeypatch):
    single = objective_of("mlp", batch_size=2)
    assert sorted_by_class(single, read_classes(single)) is None
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 3)).double()
    data = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)).double(), torch.arange(30) % 3
    mixed = ls.objective(model, "cross_entropy", data, batch_size=10, batch_norm="train")
    assert sorted_by_class(mixed, read_classes(mixed)) is None  # other batches have other means
    for part, gram in streamed(mixed, monkeypatch).items():
        assert_close(mixed.class_structure().gram(part), gram)
    tokens = torch.nn.Linear(4, 3).double()
    data = torch.randn(8, 6, 4, generator=torch.Generator().manual_seed(0)).double(), torch.arange(48).reshape(8, 6) % 3
    loss = lambda outputs, targets: torch.nn.functional.cross_entropy(outputs.reshape(-1, 3), targets.reshape(-1))  # noqa: E731
    positions = ls.objective(tokens, loss, data, batch_size=4)
    assert sorted_by_class(positions, read_classes(positions)) is None
    for part, gram in streamed(positions, monkeypatch).items():
        assert_close(positions.class_structure().gram(part), gram)


def test_a_loss_that_depends_on_the_batch_keeps_its_batches(monkeypatch):
    """A mean with class weights, over the sum of the weights in each batch: other batches make another loss of it."""
    weight = torch.tensor([1.0, 5.0, 0.2]).double()

    def loss(outputs, targets):
        return torch.nn.functional.cross_entropy(outputs, targets, weight=weight)

    objective = objective_of("mlp", loss=loss, batch_size=9)
    structure = objective.class_structure()
    assert structure._means._in_few_batches() is structure._means
    for part, gram in streamed(objective, monkeypatch).items():
        assert_close(structure.gram(part), gram)


def test_nothing_of_the_model_changes():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 3)).eval()
    data = torch.randn(30, 4), torch.arange(30) % 3
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    ls.objective(model, "cross_entropy", data, batch_size=10).class_structure().gram("A1+A2+B1")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state) and all(p.grad is None for p in model.parameters())
