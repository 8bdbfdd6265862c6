"""Batches as loaders give them: dicts, named tuples, data classes, streams, sample weights."""

import dataclasses
import typing

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import linop_spectra as ls  # noqa: E402

nn = torch.nn
functional = nn.functional
COUNT = 11


class Batch(typing.NamedTuple):
    x: torch.Tensor
    y: torch.Tensor
    weight: torch.Tensor


@dataclasses.dataclass
class Record:
    x: torch.Tensor
    y: torch.Tensor
    weight: torch.Tensor
    name: str = "no array"


def examples():
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "x": torch.randn(4, generator=generator, dtype=torch.float64),
            "y": torch.randint(0, 3, (), generator=generator),
            "weight": torch.rand((), generator=generator, dtype=torch.float64),
        }
        for _ in range(COUNT)
    ]


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(examples())


def collated(kind):
    return lambda items: kind(**torch.utils.data.default_collate(items))


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def field(batch, name):
    return batch[name] if isinstance(batch, dict) else getattr(batch, name)


def outputs(module, batch):
    return module(field(batch, "x"))


def loss(logits, batch):
    losses = functional.cross_entropy(logits, field(batch, "y"), reduction="none")
    return (field(batch, "weight") * losses).sum(), field(batch, "weight").sum()


def whole():
    return torch.utils.data.default_collate(examples())


def reference(module):
    total, terms = loss(module(whole()["x"]), whole())
    return (total / terms).item()


LOADERS = {
    "dicts": lambda: torch.utils.data.DataLoader(examples(), batch_size=4),
    "dicts, shuffled": lambda: torch.utils.data.DataLoader(examples(), batch_size=4, shuffle=True),
    "named tuples": lambda: torch.utils.data.DataLoader(examples(), batch_size=4, collate_fn=collated(Batch)),
    "data classes": lambda: torch.utils.data.DataLoader(examples(), batch_size=4, shuffle=True, collate_fn=collated(Record)),
    "stream": lambda: torch.utils.data.DataLoader(Stream(), batch_size=4),
    "stream of data classes": lambda: torch.utils.data.DataLoader(Stream(), batch_size=3, collate_fn=collated(Record)),
    "list": lambda: list(torch.utils.data.DataLoader(examples(), batch_size=5)),
}


@pytest.mark.filterwarnings("ignore:The batches take more")
@pytest.mark.parametrize("memory_budget", [None, 200], ids=["kept", "read again"])
@pytest.mark.parametrize("name", LOADERS)
def test_loaders(name, memory_budget):
    module = model()
    form = ls.BatchLoss(outputs=outputs, loss=loss)
    objective = ls.objective(module, form, LOADERS[name](), memory_budget=memory_budget)
    single = ls.objective(module, form, [whole()])
    v = np.random.default_rng(0).standard_normal(single.num_parameters)
    assert objective.value() == pytest.approx(reference(module), rel=1e-13)
    assert objective.num_examples == COUNT
    for matrix in ("hessian", "ggn"):
        np.testing.assert_allclose(getattr(objective, matrix)() @ v, getattr(single, matrix)() @ v, rtol=1e-11)
    assert ls.check_operator(objective.hessian()).passed


@pytest.mark.parametrize("batch_size", [None, 4])
def test_sample_weights_beside_the_targets(batch_size):
    """A callable takes whatever stands in the place of the targets."""
    module, data = model(), whole()
    size = batch_size or COUNT
    parts = [slice(first, first + size) for first in range(0, COUNT, size)]
    batches = [(data["x"][part], (data["y"][part], data["weight"][part])) for part in parts]

    def weighted(logits, targets):
        labels, weights = targets
        return (weights * functional.cross_entropy(logits, labels, reduction="none")).sum(), weights.sum()

    objective = ls.objective(module, weighted, batches)
    assert objective.value() == pytest.approx(reference(module), rel=1e-13)
    for operator in (objective.hessian(), objective.ggn()):
        assert ls.check_operator(operator).passed


def test_a_mapping_of_inputs_beside_the_targets():
    """Also one that is no dict, as tokenizers return it."""
    import collections

    class Keyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = model()

        def forward(self, x, scale):
            return self.inside(x * scale)

    data, module = whole(), Keyword()
    inputs = {"x": data["x"], "scale": torch.full((COUNT, 1), 0.5, dtype=torch.float64)}
    values = [ls.objective(module, "cross_entropy", [(kind(inputs), data["y"])]).value() for kind in (dict, collections.UserDict)]
    assert values[0] == values[1] == pytest.approx(functional.cross_entropy(module(**inputs), data["y"]).item(), rel=1e-13)
