"""Batches, with hooks that count: no framework needed."""

import numpy as np
import pytest

from linop_spectra.curvature import Batches
from linop_spectra.curvature.data import ArraySource, BatchSizes, refuse_one_shot


class Hooks:
    """Batches are lists of numbers, eight bytes each."""

    def __init__(self):
        self.passes = 0

    def prepare(self, raw):
        return list(raw)

    def own(self, batch):
        return list(batch)

    def num_examples(self, batch):
        return len(batch)

    def num_bytes(self, batch):
        return 8 * len(batch)

    def checksum(self, batch):
        return hash(tuple(batch))

    def replay(self, source):
        self.passes += 1
        return iter(source)


SOURCE = [[1, 2, 3], [4, 5, 6], [7]]


def test_kept_after_the_first_pass():
    hooks = Hooks()
    batches = Batches(SOURCE, hooks, budget=56)
    assert batches.num_batches is None
    assert list(batches) == SOURCE == list(batches)
    assert (hooks.passes, batches.num_batches, batches.num_examples, batches.kept) == (1, 3, 7, True)


def test_read_again_over_the_budget():
    hooks = Hooks()
    batches = Batches(SOURCE, hooks, budget=55)
    assert list(batches) == SOURCE == list(batches)
    assert (hooks.passes, batches.num_batches, batches.num_examples, batches.kept) == (2, 3, 7, False)


def test_a_pass_that_was_broken_off_is_begun_again():
    hooks = Hooks()
    batches = Batches(SOURCE, hooks, budget=1000)
    assert next(iter(batches)) == [1, 2, 3]
    assert not batches.kept
    assert batches.num_examples == 7
    assert list(batches) == SOURCE


@pytest.mark.parametrize("second", [[[1, 2, 3], [4, 5, 7], [7]], SOURCE[:2], [*SOURCE, [8]], [[1, 2], [3, 4, 5, 6], [7]]])
def test_changes_are_refused(second):
    class Changing:
        passes = 0

        def __iter__(self):
            self.passes += 1
            return iter(SOURCE if self.passes == 1 else second)

    batches = Batches(Changing(), Hooks(), budget=10)
    with pytest.warns(UserWarning, match="read again"):
        list(batches)
    with pytest.raises(ValueError, match="changed between two passes"):
        list(batches)


def test_batches_that_are_given():
    batches = Batches.of([[1, 2], [3]], Hooks())
    assert (list(batches), batches.num_examples, batches.num_batches, batches.kept) == ([[1, 2], [3]], 3, 2, True)


def test_arrays_in_slices():
    source = ArraySource(np.arange(5), np.arange(5) * 2, 2)
    assert [len(x) for x, _ in source] == [2, 2, 1]
    assert [len(x) for x, _ in ArraySource(np.arange(5), np.arange(5), None)] == [5]
    with pytest.raises(ValueError, match="5 inputs but 4 targets"):
        ArraySource(np.arange(5), np.arange(4), None)


def test_the_free_batch_size_is_chosen_once():
    asked = []

    def choose(point, batch):
        asked.append((point, len(batch)))
        return 2

    batches = Batches(ArraySource(np.arange(5), np.arange(5), None), Hooks(), 1000, BatchSizes(choose))
    batches.plan("theta")
    batches.plan("another")
    assert asked == [("theta", 2)]  # the pair of arrays is the one batch
    assert len(list(batches)) == 3


@pytest.mark.parametrize("data", [iter([1]), (x for x in [1]), map(str, [1]), zip([1], [2], strict=True)])
def test_one_shot_iterators(data):
    with pytest.raises(TypeError, match="one-shot iterator"):
        refuse_one_shot(data)
    with pytest.raises(TypeError, match="argument data is a float"):
        refuse_one_shot(1.0)


def test_mini_batches_of_a_kind_are_judged_once():
    """Each batch of a training comes by `with_data`: finding out whether it fits must not cost a pass each time."""
    torch = pytest.importorskip("torch")
    import linop_spectra as ls

    model = torch.nn.Linear(3, 2)
    objective = ls.objective(model, "mse", (torch.randn(40, 3), torch.randn(40, 2)))
    asked = []
    sizes = objective.functions._sizes
    choose = sizes._choose
    sizes._choose = lambda point, batch: asked.append(len(batch[0])) or choose(point, batch)
    for examples in (20, 20, 8, 30):
        objective.with_data((torch.randn(examples, 3), torch.randn(examples, 2))).gradient()
    assert asked == [20, 30]
    small = ls.objective(model, "mse", (torch.randn(40, 3), torch.randn(40, 2)), memory_budget=4_000)
    for examples in (400, 4, 400):
        here = small.with_data((torch.randn(examples, 3), torch.randn(examples, 2)))
        here.gradient()
        assert (here.data.num_batches > 1) == (examples == 400)
