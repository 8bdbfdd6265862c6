"""Classes, weights and masks read off the loss, whatever form it has."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from classifiers import PARTS, Explicit, assert_close, jacobian_of, make  # noqa: E402
from torch import nn  # noqa: E402

import linop_spectra as ls  # noqa: E402


def masked(labels):
    labels = labels.clone()
    labels[[1, 7, 8]] = -100
    return labels


def one_hot(labels):
    return torch.nn.functional.one_hot(labels, 3).double()


def weighted_by_class():
    return nn.CrossEntropyLoss(weight=torch.tensor([0.5, 2.0, 1.25]).double())


VARIANTS = {
    "one-hot": ("cross_entropy", one_hot),
    "masked": ("cross_entropy", masked),
    "sum": (nn.CrossEntropyLoss(reduction="sum"), lambda labels: labels),
    "class weights": (weighted_by_class(), lambda labels: labels),
    "masked with class weights": (weighted_by_class(), masked),
    "smoothing": (nn.CrossEntropyLoss(label_smoothing=0.1), lambda labels: labels),
    "callable": (lambda z, y: -torch.log_softmax(z, 1)[torch.arange(len(y)), y].mean(), lambda labels: labels),
    "callable with terms": (
        lambda z, y: (nn.functional.cross_entropy(z, y, reduction="sum", ignore_index=7), (y != 7).sum()),
        lambda labels: torch.where(torch.arange(17) % 3 == 0, 7, labels),
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_other_forms_of_the_loss(variant):
    loss, change = VARIANTS[variant]
    model, inputs, labels = make("mlp")
    targets = change(labels)
    objective = ls.objective(model, loss, (inputs, targets), batch_size=4)
    parts = objective.class_structure()
    used = np.ones(17, dtype=bool) if targets.ndim == 2 else ((targets != -100) & (targets != 7)).numpy()
    weights = used.astype(float)
    if "class weights" in variant:
        weights *= np.array([0.5, 2.0, 1.25])[labels]
    weights /= 1 if variant == "sum" else weights.sum()
    outputs = model(inputs)
    kept = np.where(used, labels.numpy(), -1)
    expected = Explicit(jacobian_of(outputs, model), torch.softmax(outputs, 1).detach().numpy(), kept, weights)
    assert np.array_equal(parts.targets, kept)
    assert parts.counts.sum() == used.sum()
    for part in PARTS:
        assert_close(getattr(parts, part).to_dense(), getattr(expected, part))
    assert_close(sum(getattr(parts, part).to_dense() for part in PARTS), objective.ggn().to_dense())
    assert parts.label_smoothing == pytest.approx(0.1 / 3 if variant == "smoothing" else 0, abs=1e-12)


@pytest.mark.parametrize("classes_last", [False, True])
def test_each_position_of_a_sequence_is_an_example(classes_last):
    torch.manual_seed(2)
    model = nn.Sequential(nn.Embedding(6, 3), nn.Tanh(), nn.Linear(3, 4)).double()
    tokens, labels = torch.randint(0, 6, (5, 4)), torch.randint(0, 4, (5, 4))
    labels[1, 2:] = -100

    def loss(outputs, batch):
        return nn.functional.cross_entropy(outputs.flatten(0, 1), batch[1].flatten(), reduction="sum"), (batch[1] >= 0).sum()

    if classes_last:
        objective = ls.objective(
            model, ls.BatchLoss(outputs=lambda m, batch: m(batch[0]), loss=loss), [(tokens[:2], labels[:2]), (tokens[2:], labels[2:])]
        )
    else:
        ahead = copy.deepcopy(model)
        ahead.append(Transposed())
        # Sequences of two lengths.
        objective = ls.objective(ahead, "cross_entropy", [(tokens[:2], labels[:2]), (tokens[2:, :3], labels[2:, :3])])
        tokens, labels = [tokens[:2], tokens[2:, :3]], [labels[:2], labels[2:, :3]]
    pieces = zip(tokens, labels, strict=True) if isinstance(tokens, list) else [(tokens, labels)]
    outputs, targets = [], []
    for piece, own in pieces:
        outputs.append(model(piece).flatten(0, 1))
        targets.append(own.flatten())
    outputs, targets = torch.cat(outputs), torch.cat(targets)
    used = (targets >= 0).numpy()
    kept = np.where(used, targets.numpy(), -1)
    expected = Explicit(jacobian_of(outputs, model), torch.softmax(outputs, 1).detach().numpy(), kept, used / used.sum())
    parts = objective.class_structure()
    assert np.array_equal(parts.targets, kept)
    for part in PARTS:
        assert_close(getattr(parts, part).to_dense(), getattr(expected, part))
    assert_close(parts.class_means(), expected.classes)
    assert_close(parts.spectrum("A1+A2+B1")[-9:], np.linalg.eigvalsh(expected.A1 + expected.A2 + expected.B1)[-9:], 1e-10)
    assert ls.check_operator(parts.B1).passed


class Transposed(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)


@pytest.mark.parametrize("loss", ["mse", "binary_cross_entropy", nn.L1Loss(), nn.MultiMarginLoss()])
def test_other_losses_are_refused(loss):
    model, inputs, labels = make("mlp")
    targets = labels if isinstance(loss, nn.MultiMarginLoss) else one_hot(labels)
    with pytest.raises(TypeError, match="needs softmax cross-entropy with one class for each example, but the loss is another"):
        ls.objective(model, loss, (inputs, targets)).class_structure()


def test_losses_close_to_cross_entropy_are_refused():
    model, inputs, labels = make("mlp")
    focal = lambda z, y: ((1 - torch.softmax(z, 1)[torch.arange(len(y)), y]) * nn.functional.cross_entropy(z, y, reduction="none")).mean()  # noqa: E731
    squared = lambda z, y: nn.functional.cross_entropy(z, y) + 1e-4 * z.logsumexp(1).square().mean()  # noqa: E731
    for loss in (focal, squared):
        with pytest.raises(TypeError, match="the loss is another function"):
            ls.objective(model, loss, (inputs, labels)).class_structure()
    with pytest.raises(TypeError, match="log-softmax"):
        ls.objective(model, nn.NLLLoss(), (inputs, labels)).class_structure()
    with pytest.raises(TypeError, match="BatchLoss"):
        ls.objective(model, ls.BatchLoss(lambda m, b: (m(b[0]).sum(), 1)), [(inputs, labels)]).class_structure()


def test_targets_that_are_no_classes_are_refused():
    model, inputs, labels = make("mlp")
    mixed = 0.7 * one_hot(labels) + 0.3 * one_hot(labels.flip(0))
    with pytest.raises(ValueError, match="distributions over the classes"):
        ls.objective(model, "cross_entropy", (inputs, mixed)).class_structure()
    uniform = torch.full((17, 3), 1 / 3).double()
    with pytest.raises(ValueError, match="distributions over the classes"):
        ls.objective(model, "cross_entropy", (inputs, uniform)).class_structure()
    binary = nn.Linear(4, 2).double()
    shares = torch.rand(17).double()
    with pytest.raises(ValueError, match="distributions over the classes"):
        ls.objective(binary, "cross_entropy", (inputs, torch.stack([shares, 1 - shares], 1)), batch_size=1).class_structure()


def test_smoothing_with_class_weights_is_refused():
    model, inputs, labels = make("mlp")
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 0.5, 2.0]).double(), label_smoothing=0.1)
    with pytest.raises(ValueError, match="label smoothing together with class weights"):
        ls.objective(model, loss, (inputs, labels)).class_structure()


def test_weights_below_zero_and_one_class_are_refused():
    model, inputs, labels = make("mlp")
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, -0.5, 2.0]).double())
    with pytest.raises(ValueError, match="negative weights"):
        ls.objective(model, loss, (inputs, labels)).class_structure()
    with pytest.raises(TypeError, match="fewer than two classes"):
        ls.objective(nn.Linear(4, 1).double(), "cross_entropy", (inputs, 0 * labels)).class_structure()


def test_all_masked_and_too_large():
    model, inputs, labels = make("mlp")
    with pytest.raises(ValueError, match="no"):
        ls.objective(model, "cross_entropy", (inputs, torch.full_like(labels, -100))).class_structure()
    with pytest.raises(MemoryError, match="memory_budget"):
        ls.objective(model, "cross_entropy", (inputs, labels), memory_budget=1000).class_structure()
    parts = ls.objective(model, "cross_entropy", (inputs, labels), memory_budget=2000).class_structure()
    with pytest.raises(MemoryError, match="Gram matrix of all pairs of 3 classes"):
        parts.gram("B1")
    assert parts.gram("A1").shape == (3, 3)
