"""Many points in one pass over the data: the numbers of a loop, few passes, and what is kept when it is cut short."""

import numpy as np
import pytest
from landscape_networks import B1, B2, MAKERS, W1, W2, X, Y, classifier, cross_entropy, held_out, logits

import linop_spectra as ls
import linop_spectra.landscape as landscape
from linop_spectra.landscape import evaluation
from linop_spectra.landscape.metrics import Accuracy
from linop_spectra.landscape.one_pass import MOST_POINTS, losses_and_accuracies

T = np.linspace(-1.5, 2.0, 24)


class Loader:
    """Batches that are read, and counted, in every pass; what it calls may interrupt it."""

    def __init__(self, convert, called=lambda passes: None):
        self.passes, self.convert, self.called = 0, convert, called

    def __iter__(self):
        self.passes += 1
        for first in range(0, len(X), 9):
            self.called(self.passes)
            yield self.convert(X[first : first + 9]), self.convert(Y[first : first + 9])


def torch_model(dtype=np.float64):
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(*W1.shape[::-1]), torch.nn.Tanh(), torch.nn.Linear(*W2.shape[::-1])).double()
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), (W1, B1, W2, B2), strict=True):
            parameter.copy_(torch.as_tensor(value))
    return model


def reading(loader, budget=60_000):
    """An objective whose data are too large for its memory."""
    objective = ls.objective(torch_model(), "cross_entropy", loader, memory_budget=budget)
    objective.data._budget = 0
    return objective


def direction_of(objective, seed=0):
    return np.random.default_rng(seed).standard_normal(objective.num_parameters)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("framework", MAKERS)
def test_the_same_as_one_point_after_the_other(framework, dtype):
    objective = classifier(framework, dtype=dtype, batch_size=9, weight_decay=0.1)
    other = held_out(objective, dtype)
    d = direction_of(objective).astype(dtype)
    line = landscape.line(objective, d, T, metrics="accuracy", held_out=other)
    for side, losses, shares in ((objective, line.loss, line.metrics), (other, line.held_out_loss, line.held_out_metrics)):
        accuracy, theta = Accuracy(side), side.parameters()
        there = [side.with_parameters(theta + np.asarray(t, dtype) * d) for t in T]
        np.testing.assert_allclose(losses, [one.value() for one in there], rtol=1e-13 if dtype == "float64" else 1e-5)
        np.testing.assert_array_equal(shares["accuracy"], [accuracy(one) for one in there])


@pytest.mark.parametrize("framework", MAKERS)
def test_several_points_with_one_that_overflows(framework):
    objective = classifier(framework, batch_size=9)
    theta = np.asarray(objective.parameters())
    with np.errstate(over="ignore"):
        points = [objective.with_parameters(v) for v in (theta, 1e308 * theta, 2 * theta)]
        losses, shares = losses_and_accuracies(points, Accuracy(objective))
    assert np.isnan([losses[1], shares[1]]).all()
    for i, scale in ((0, 1.0), (2, 2.0)):
        assert losses[i] == pytest.approx(cross_entropy(logits(objective, scale * theta), Y), rel=1e-13)
        assert shares[i] == np.mean(logits(objective, scale * theta).argmax(axis=1) == Y)


@pytest.mark.filterwarnings("ignore:The batches take more")
def test_a_loader_is_read_once_for_many_points():
    torch = pytest.importorskip("torch")
    loader = Loader(torch.as_tensor)
    objective = reading(loader)
    d = direction_of(objective)
    before = loader.passes
    line = landscape.line(objective, d, T)
    assert loader.passes - before == 4  # groups of 1, 4, 16 and 3 points
    expected = [cross_entropy(logits(objective, np.asarray(objective.parameters()) + t * d), Y) for t in T]
    np.testing.assert_allclose(line.loss, expected, rtol=1e-13)
    before = loader.passes
    landscape.line(objective, d, T, metrics="accuracy", held_out=objective)
    assert loader.passes - before == 2 * 4 + 2  # the targets of either side are read once
    # Points that do not fit: 8 times 12 of them are the budget.
    small = reading(loader, budget=8 * 2 * 8 * objective.num_parameters)
    before = loader.passes
    landscape.line(small, d, T)
    assert loader.passes - before == 1 + 12
    assert MOST_POINTS >= 16


@pytest.mark.filterwarnings("ignore:The batches take more")
@pytest.mark.parametrize("kind", ["line", "plane", "interpolate"])
def test_interrupted_inside_a_pass_and_resumed_to_the_same_bits(tmp_path, monkeypatch, kind):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr("linop_spectra.landscape.checkpoint.CHECKPOINT_SECONDS", 0.0)

    def run(called, **options):
        objective = reading(Loader(torch.as_tensor, called))
        d = direction_of(objective)
        options |= {"metrics": "accuracy"}
        if kind == "plane":
            return landscape.plane(objective, d, direction_of(objective, 1), T[:5], **options)
        return landscape.line(objective, d, T, **options) if kind == "line" else landscape.interpolate(objective, d, T, **options)

    def interrupt(passes):
        if passes == 4 and armed:
            raise KeyboardInterrupt

    armed = False
    whole = run(lambda passes: None)
    armed = True
    part = run(interrupt, checkpoint=tmp_path / "state.npz")
    kept = part.evaluated.sum()
    assert part.status == "interrupted" and 0 < kept < part.loss.size
    np.testing.assert_array_equal(part.loss[part.evaluated], whole.loss[part.evaluated])
    again = run(lambda passes: None, checkpoint=tmp_path / "state.npz")
    assert again.status == "complete"
    np.testing.assert_array_equal(again.loss, whole.loss)
    np.testing.assert_array_equal(again.metrics["accuracy"], whole.metrics["accuracy"])


def test_points_that_are_batched_match_and_others_fall_back():
    """Batched matrix products for networks of matrices; one after the other where torch has no rule, or for convolutions."""
    torch = pytest.importorskip("torch")

    class Branch(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x) if float(self.weight.detach().sum()) > -1e9 else x

    found, data = [], (torch.as_tensor(X), torch.as_tensor(Y))
    for layer in (torch.nn.Linear(5, 3), Branch(5, 3)):
        with torch.no_grad():
            layer.weight.copy_(torch.arange(15.0).reshape(3, 5) / 10)
            layer.bias.zero_()
        objective = ls.objective(layer.double(), "cross_entropy", data)
        objective.value()
        batch = next(objective.batches())
        assert objective.functions.points_at_once(objective.point, batch) > 1
        found.append(landscape.line(objective, direction_of(objective), T).loss)
        assert (objective.functions.points_at_once(objective.point, batch) > 1) == (type(layer) is torch.nn.Linear)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-13)
    conv = ls.objective(torch.nn.Sequential(torch.nn.Unflatten(1, (1, 5)), torch.nn.Conv1d(1, 3, 5), torch.nn.Flatten()).double(),
                        "cross_entropy", data)  # fmt: skip
    assert conv.functions.points_at_once(conv.point, next(conv.batches())) == 1


def test_groups_grow_and_do_not_depend_on_what_is_done():
    objective = classifier("torch")
    measurement = evaluation._Measurement(objective, lambda index: None, evaluation.Options())
    objective.value()
    assert [len(group) for group in measurement.groups(range(120), 1)] == [1, 4, 16, 32, 32, 32, 3]
    assert [len(group) for group in measurement.groups(range(3), 2)] == [1, 1, 1]
