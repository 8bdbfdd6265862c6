"""Data in all forms: arrays, loaders, dicts, what is frozen, what is refused."""

import random

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import linop_spectra as ls  # noqa: E402

nn = torch.nn
functional = nn.functional


def setting(n=23):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    return model, torch.randn(n, 4, dtype=torch.float64), torch.randint(0, 3, (n,))


def vector(objective, seed=0):
    return np.random.default_rng(seed).standard_normal(objective.num_parameters)


def loader(x, y, **arguments):
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), **arguments)


def test_all_forms_of_the_same_data_agree():
    model, x, y = setting()
    whole = ls.objective(model, "cross_entropy", (x, y))
    expected = whole.hessian() @ vector(whole)
    forms = {
        "batches": ls.objective(model, "cross_entropy", (x, y), batch_size=5),
        "NumPy": ls.objective(model, "cross_entropy", (x.numpy(), y.numpy()), batch_size=6),
        "NumPy int32": ls.objective(model, "cross_entropy", (x.numpy(), y.numpy().astype(np.int32))),
        "reversed view": ls.objective(model, "cross_entropy", (x.numpy()[::-1], y.numpy()[::-1])),
        "list": ls.objective(model, "cross_entropy", [(x[:9], y[:9]), [x[9:], y[9:]]]),
        "loader": ls.objective(model, "cross_entropy", loader(x, y, batch_size=7)),
        "shuffled": ls.objective(model, "cross_entropy", loader(x, y, batch_size=7, shuffle=True)),
    }
    for name, objective in forms.items():
        assert objective.num_examples == 23, name
        np.testing.assert_allclose(objective.hessian() @ vector(whole), expected, rtol=1e-10, atol=1e-14, err_msg=name)
        assert objective.value() == pytest.approx(whole.value(), rel=1e-13)


def test_inputs_take_the_type_of_the_model():
    model, x, y = setting()
    single = ls.objective(model.float(), "cross_entropy", (x.numpy(), y.numpy()))
    assert single.gradient().dtype == np.float32
    tokens = nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Linear(6, 3))
    assert ls.objective(tokens, "cross_entropy", (np.arange(8).reshape(4, 2) % 7, np.array([0, 1, 2, 0]))).value() > 0


def test_models_with_several_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, a, b):
            return self.layer(a * b)

    x, y = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    model = Two()
    by_tuple = ls.objective(model, "cross_entropy", [((x, x + 1), y)])
    by_name = ls.objective(model, "cross_entropy", [({"a": x, "b": x + 1}, y)])
    assert by_tuple.value() == by_name.value() == pytest.approx(functional.cross_entropy(model(x, x + 1), y).item(), rel=1e-6)


def noisy_loader(x, y):
    """Shuffles, and augments from three sources of randomness."""

    def collate(items):
        inputs = torch.stack([item[0] for item in items])
        noise = torch.randn(len(items), 1) + np.random.rand() + random.random()  # noqa: NPY002
        return inputs + noise, torch.stack([item[1] for item in items])

    return loader(x, y, batch_size=6, shuffle=True, collate_fn=collate)


@pytest.mark.parametrize("kept", [True, False])
def test_shuffling_and_augmentation_are_frozen(kept):
    model, x, y = setting()
    objective = ls.objective(model, "cross_entropy", noisy_loader(x, y), memory_budget=None if kept else 200)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    if kept:
        first = objective.value()
    else:
        with pytest.warns(UserWarning, match="read again for every product") as caught:
            first = objective.value()
        assert len(caught) == 1
    assert objective.value() == first
    gradient = objective.gradient()
    np.testing.assert_array_equal(objective.gradient(), gradient)
    assert objective.num_examples == 23
    assert ls.check_operator(objective.hessian()).passed
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])  # noqa: NPY002
    assert states[2] == random.getstate()
    # Another objective, another draw.
    torch.manual_seed(7)
    assert ls.objective(model, "cross_entropy", noisy_loader(x, y)).value() != first


def test_a_generator_of_the_loader_is_frozen_too():
    model, x, y = setting()
    generator = torch.Generator().manual_seed(3)
    data = loader(x, y, batch_size=6, shuffle=True, generator=generator, drop_last=True)
    state = generator.get_state()
    objective = ls.objective(model, "cross_entropy", data, memory_budget=200)
    with pytest.warns(UserWarning, match="read again"):
        value = objective.value()
    assert objective.value() == value
    assert objective.num_examples == 18
    assert torch.equal(generator.get_state(), state)


class Drifting:
    """Batches that are others on every pass."""

    def __init__(self, x, y, change):
        self.x, self.y, self.passes, self.change = x, y, 0, change

    def __iter__(self):
        self.passes += 1
        shift = self.passes if self.change == "values" else 0
        last = len(self.x) if self.change != "count" or self.passes == 1 else 5
        for i in range(0, last, 5):
            yield self.x[i : i + 5] + shift, self.y[i : i + 5]


@pytest.mark.parametrize("change", ["values", "count"])
def test_changing_data_are_kept_or_refused(change):
    model, x, y = setting()
    kept = ls.objective(model, "cross_entropy", Drifting(x, y, change))
    assert kept.value() == kept.value()
    assert kept.functions is kept.with_parameters(kept.parameters()).functions
    objective = ls.objective(model, "cross_entropy", Drifting(x, y, change), memory_budget=200)
    with pytest.warns(UserWarning, match="read again"):
        objective.value()
    with pytest.raises(ValueError, match="changed between two passes"):
        objective.value()


def test_data_are_read_once_where_they_fit():
    model, x, y = setting()
    data = Drifting(x, y, None)
    objective = ls.objective(model, "cross_entropy", data)
    assert data.passes == 0
    for operator in (objective.hessian(), objective.ggn()):
        _ = operator @ vector(objective)
    objective.value(), objective.gradient(), objective.with_parameters(0 * objective.parameters()).value()
    assert data.passes == 1


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (((torch.zeros(2, 4), torch.zeros(2)) for _ in range(3)), TypeError, "one-shot iterator"),
        (iter([(torch.zeros(2, 4), torch.zeros(2).long())]), TypeError, "one-shot iterator"),
        (3, TypeError, "argument data is a int"),
        (torch.zeros(3, 4), TypeError, "put a single batch into a list"),
        ({"x": torch.zeros(3, 4)}, TypeError, "put a single batch into a list"),
        ([], ValueError, "is empty"),
        ((torch.zeros(0, 4), torch.zeros(0).long()), ValueError, "is empty"),
        ((torch.zeros(5, 4), torch.zeros(4).long()), ValueError, "5 inputs but 4 targets"),
        (torch.utils.data.TensorDataset(torch.zeros(2, 4), torch.zeros(2)), TypeError, "DataLoader"),
    ],
)
def test_refused_at_once(data, error, message):
    with pytest.raises(error, match=message) as caught:
        ls.objective(setting()[0], "cross_entropy", data)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([torch.zeros(3, 4), torch.zeros(3)], "A batch is a Tensor"),
        ([{"x": torch.zeros(3, 4)}], "A batch is a dict.*BatchLoss"),
        ([(torch.zeros(3, 4),)], "A batch is a tuple of length 1"),
        ((np.array(["a", "b"]), np.array([0, 1])), "no numbers"),
    ],
)
def test_refused_when_met(data, message):
    with pytest.raises(TypeError, match=message):
        ls.objective(setting()[0], "cross_entropy", data).value()


def test_an_empty_loader_and_a_batch_size_for_batches():
    model, x, y = setting()

    class Nothing:
        def __iter__(self):
            return iter(())

    with pytest.raises(ValueError, match="is empty"):
        ls.objective(model, "cross_entropy", Nothing()).value()
    with pytest.raises(ValueError, match="batches already"):
        ls.objective(model, "cross_entropy", [(x, y)], batch_size=4)


def test_data_that_are_not_finite_are_refused():
    model, x, _ = setting()
    x[3, 1] = float("nan")
    objective = ls.objective(model, "mse", (x, torch.zeros(23, 3, dtype=torch.float64)))
    for ask in (objective.value, objective.gradient, lambda: objective.hessian() @ vector(objective)):
        with pytest.raises(ValueError, match="not finite"):
            ask()


@pytest.mark.parametrize("kind", ["dict", "user dict", "frozen dataclass", "named tuple"])
def test_batches_of_any_kind(kind):
    import collections
    import dataclasses

    @dataclasses.dataclass(frozen=True)
    class Pair:
        x: object
        y: object

    class Entries(collections.UserDict):
        def __getattr__(self, name):
            if name == "data":
                raise AttributeError(name)
            return self.data[name]

    make = {"dict": dict, "user dict": lambda **items: Entries(items), "frozen dataclass": Pair}.get(
        kind, collections.namedtuple("Pair", "x y")
    )
    model, x, y = setting()
    batches = [make(x=x[:20].float(), y=y[:20]), make(x=x[20:].numpy(), y=y[20:].numpy())]

    def outputs(module, batch):
        return module(batch["x"] if kind == "dict" else batch.x)

    def loss(logits, batch):
        labels = batch["y"] if kind == "dict" else batch.y
        return functional.cross_entropy(logits, labels, reduction="sum"), len(labels)

    objective = ls.objective(model, ls.BatchLoss(outputs=outputs, loss=loss), batches)
    rounded = torch.cat([x[:20].float().double(), x[20:]])
    assert objective.value() == pytest.approx(functional.cross_entropy(model(rounded), y).item(), rel=1e-13)
    assert objective.num_examples == 23
    assert ls.check_operator(objective.hessian()).passed
    assert ls.check_operator(objective.ggn()).passed


def test_rows_that_are_no_examples():
    """A graph: features and adjacency have as many rows as nodes, but cannot be cut after eight of them."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    x, y, adjacency = torch.randn(23, 4), torch.randint(0, 3, (23,)), torch.rand(23, 23)

    def outputs(module, batch):
        return batch["adjacency"] @ module(batch["x"])

    def loss(logits, batch):
        return functional.cross_entropy(logits, batch["y"], reduction="sum"), len(batch["y"])

    objective = ls.objective(model, ls.BatchLoss(outputs=outputs, loss=loss), [{"x": x, "y": y, "adjacency": adjacency}])
    assert ls.check_operator(objective.hessian()).passed
    assert ls.check_operator(objective.ggn()).passed
