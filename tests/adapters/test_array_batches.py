"""Reading of data for frameworks whose arrays are made from NumPy's; NumPy itself plays the framework here."""

import collections
import dataclasses
import random

import numpy as np
import pytest

from linop_spectra.adapters.array_batches import ArrayBatches
from linop_spectra.adapters.batch_leaves import leaves, map_leaves
from linop_spectra.adapters.random_states import HostRandomState
from linop_spectra.curvature.data import BatchSizes


class Native(np.ndarray):
    """An array type of its own."""


def to_native(array, dtype):
    return np.array(array, dtype=dtype).view(Native)


def reader(dtype=np.float32, pairs=True, **arguments):
    return ArrayBatches(
        to_native, lambda x: x.view(np.ndarray), lambda x: isinstance(x, Native), dtype, pairs=pairs, **arguments
    )


def read(data, batch_size=None, budget=10**6, **arguments):
    return list(reader(**arguments).batches(data, batch_size, budget, None))


X, Y = np.arange(20.0).reshape(10, 2), np.arange(10) % 3


def whole(batches):
    return np.concatenate([x for x, _ in batches]), np.concatenate([y for _, y in batches])


class Numbered:
    """Batches by number, as Keras has them."""

    def __len__(self):
        return 3

    def __getitem__(self, i):
        return X[4 * i : 4 * i + 4], Y[4 * i : 4 * i + 4]


def forms():
    yield "arrays", (X, Y), 3
    yield "framework's", (to_native(X, np.float32), to_native(Y, None)), 3
    yield "list", [(X[:4], Y[:4]), [X[4:], Y[4:]]], None
    yield "reversed twice", (X[::-1][::-1], Y[::-1][::-1]), None
    yield "big-endian", (X.astype(">f8"), Y.astype(">i4")), None
    yield "numbered", Numbered(), None


@pytest.mark.parametrize(("data", "batch_size"), [form[1:] for form in forms()], ids=[form[0] for form in forms()])
def test_all_forms_agree(data, batch_size):
    batches = read(data, batch_size)
    x, y = whole(batches)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)
    assert x.dtype == np.float32
    assert y.dtype.kind == "i"
    assert all(type(array) is Native for batch in batches for array in batch)


def test_arrays_of_other_libraries():
    torch = pytest.importorskip("torch")
    batches = read([(torch.tensor(X, requires_grad=True), torch.tensor(Y)), (torch.ones(2, 2).bfloat16(), torch.zeros(2).long())])
    np.testing.assert_array_equal(batches[0][0], X)
    assert batches[1][0].dtype == np.float32
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y)), batch_size=4)
    np.testing.assert_array_equal(whole(read(loader))[0], X)
    with pytest.raises(TypeError, match="DataLoader"):
        read(loader.dataset)


def test_types():
    mixed = {"image": np.zeros((2, 3), np.uint8), "x": np.zeros(2, np.longdouble), "flag": np.ones(2, bool), "name": "first"}
    (batch,) = read([mixed], pairs=False)
    assert [batch[key].dtype.name for key in ("image", "x", "flag")] == ["uint8", "float32", "bool"]
    assert batch["name"] == "first"
    (batch,) = read([mixed], pairs=False, dtype=None)
    assert batch["x"].dtype == np.float64
    (batch,) = read([(X[0, 0], Y)], pairs=False)
    assert batch[0].shape == ()
    with pytest.raises(TypeError, match="no numbers"):
        read([(np.array(["a"]), Y)])


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: object
    y: object
    note: str = "kept"


@dataclasses.dataclass(slots=True)
class Slotted:
    x: object
    y: object


class Plain:
    def __init__(self, x, y):
        self.x, self.y = x, y


Named = collections.namedtuple("Named", "x y")


@pytest.mark.parametrize("make", [Frozen, Slotted, Plain, Named, lambda x, y: collections.UserDict(x=x, y=y)])
def test_batches_of_any_kind(make):
    raw = make(x=X, y=Y)
    (batch,) = read([raw], pairs=False)
    assert type(batch) is type(raw)
    assert [array.dtype.name for array in leaves(batch)] == ["float32", Y.dtype.name]
    assert leaves(raw)[0] is X  # the user's own is as it was
    part = reader(pairs=False).take(batch, np.array([7, 1, 99]))
    np.testing.assert_array_equal(leaves(part)[0], X[[7, 1]])
    nested = map_leaves({"pair": (raw, [X])}, np.shape)
    assert nested["pair"][1] == [(10, 2)]


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (((X, Y) for _ in range(3)), TypeError, "one-shot iterator"),
        (iter([(X, Y)]), TypeError, "one-shot iterator"),
        (3, TypeError, "argument data is a int"),
        (X, TypeError, "put a single batch into a list"),
        ({"x": X}, TypeError, "put a single batch into a list"),
        ("text", TypeError, "argument data is a str"),
        (None, TypeError, "only a BatchLoss can do without"),
        ([], ValueError, "is empty"),
        ((X[:0], Y[:0]), ValueError, "is empty"),
        ((X[:5], Y[:4]), ValueError, "5 inputs but 4 targets"),
        ((X, np.float32(1)), ValueError, "single number"),
        ([X, Y], TypeError, "A batch is a ndarray"),
        ([{"x": X}], TypeError, "A batch is a dict.*BatchLoss"),
        ([(X,)], TypeError, "A batch is a tuple of length 1"),
    ],
)
def test_refusals(data, error, message):
    with pytest.raises(error, match=message) as caught:
        read(data)
    assert str(caught.value).endswith(".")


def test_a_batch_size_is_for_arrays():
    with pytest.raises(ValueError, match="batches already"):
        read([(X, Y)], 4)
    assert read(None, pairs=False) == [None]
    chosen = reader().batches((X, Y), None, 10**6, BatchSizes(lambda point, batch: len(batch[0]) // 2))
    chosen.plan(None)
    assert [len(x) for x, _ in chosen] == [5, 5]


def test_what_is_kept_does_not_follow_the_user():
    x = X.copy()
    batches = reader().batches((x, Y), 5, 10**6, None)
    first = whole(batches)[0]
    x += 1
    np.testing.assert_array_equal(whole(batches)[0], first)
    assert batches.kept
    assert batches.num_examples == 10


class Noisy:
    """Other numbers from NumPy's and Python's generators on every pass."""

    def __iter__(self):
        for i in range(3):
            yield X[i : i + 2] + np.random.rand() + random.random(), Y[i : i + 2]  # noqa: NPY002


def test_random_states_are_frozen_and_restored():
    batches = reader().batches(Noisy(), None, 10, None)
    before = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    with pytest.warns(UserWarning, match="read again for every product"):
        first = [x.copy() for x, _ in batches]
    for (x, _), known in zip(batches, first, strict=True):
        np.testing.assert_array_equal(x, known)
        random.random()  # what happens between two batches does not matter
    assert not batches.kept
    assert np.array_equal(before[0], np.random.get_state()[1])  # noqa: NPY002
    random.setstate(before[1])
    assert next(iter(reader().batches(Noisy(), None, 10**6, None)))[0][0, 0] == first[0][0, 0]
    random.seed(5)
    assert next(iter(reader().batches(Noisy(), None, 10**6, None)))[0][0, 0] != first[0][0, 0]


def test_shuffling_loaders_are_frozen():
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    for generator in (None, torch.Generator().manual_seed(3)):
        loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True, generator=generator)
        batches = reader().batches(loader, None, 10, None)
        state = torch.get_rng_state()
        with pytest.warns(UserWarning, match="read again"):
            first = whole(batches)[0]
        np.testing.assert_array_equal(whole(batches)[0], first)
        assert torch.equal(state, torch.get_rng_state())


def test_data_that_change_are_refused():
    class Drifting:
        passes = 0

        def __iter__(self):
            self.passes += 1
            yield X + self.passes, Y

    batches = reader().batches(Drifting(), None, 10, None)
    with pytest.warns(UserWarning, match="read again"):
        list(batches)
    with pytest.raises(ValueError, match="changed between two passes"):
        list(batches)


def test_another_random_state():
    class Counting(HostRandomState):
        taken = 0

        def replay(self, source):
            Counting.taken += 1
            return super().replay(source)

    read([(X, Y)], random_state=Counting)
    assert Counting.taken == 1


def test_labels_and_parts():
    hooks = reader()
    batch = hooks.prepare((X, Y))
    np.testing.assert_array_equal(hooks.labels(batch), Y)
    np.testing.assert_array_equal(hooks.labels(hooks.prepare((X, np.eye(3)[Y]))), Y)
    for targets in (X, Y.astype(float), {"labels": Y}):
        with pytest.raises(TypeError, match="one class for each example"):
            hooks.labels(hooks.prepare((X, targets)))
    np.testing.assert_array_equal(hooks.take(batch, np.arange(3))[0], X[:3])
    assert hooks.take((X, Y[:3]), np.arange(2)) is None
    assert hooks.num_examples(batch) == 10
    assert hooks.num_examples(None) == 1
    assert hooks.num_bytes(batch) == 20 * 4 + Y.nbytes
    assert hooks.checksum(batch) == hooks.checksum(hooks.prepare((X.copy(), Y)))
    assert hooks.checksum(batch) != hooks.checksum(hooks.prepare((X + 1e-3, Y)))
    assert hooks.checksum(batch) != hooks.checksum(hooks.prepare((X.reshape(5, 4), Y)))
