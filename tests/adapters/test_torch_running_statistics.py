"""Running statistics of batch normalisation collected anew at other parameters."""

import copy

import numpy as np
import pytest
import torch

import linop_spectra as ls
import linop_spectra.landscape as landscape


def make(sizes, dtype=torch.float64):
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv1d(2, 4, 2), torch.nn.BatchNorm1d(4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(12, 5),
        torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 3),
    ).to(dtype)  # fmt: skip
    data = [(torch.randn(size, 2, 4, dtype=dtype) * 2 + 1, torch.randint(0, 3, (size,))) for size in sizes]
    model(data[0][0])  # running statistics of something
    return model.eval(), data


def by_hand(model, data, state, held):
    """Loss of a copy with these parameters, whose statistics are those of a pass with a momentum that averages over the examples."""
    other = copy.deepcopy(model)
    other.load_state_dict({**model.state_dict(), **state})
    norms = [module for module in other.modules() if isinstance(module, torch.nn.BatchNorm1d)]
    seen = 0
    with torch.no_grad():
        for inputs, _ in data:
            seen += len(inputs)
            for norm in norms:
                norm.train().momentum = len(inputs) / seen
            other(inputs)
        other.eval()
        losses = [torch.nn.functional.cross_entropy(other(x), y, reduction="sum") for x, y in held]
    return float(sum(losses)) / sum(len(y) for _, y in held), [(n.running_mean.clone(), n.running_var.clone()) for n in norms]


@pytest.mark.parametrize("sizes", [(8,), (8, 8), (8, 3)])
def test_statistics_are_those_of_a_pass_in_training_mode(sizes):
    model, data = make(sizes)
    _, held_data = make((7,))
    objective = ls.objective(model, "cross_entropy", data)
    held = objective.with_data(held_data)
    d = np.random.default_rng(0).standard_normal(objective.num_parameters)
    line = landscape.line(objective, d, [-0.5, 0.0, 1.0], held_out=held, batch_norm="re-estimate")
    kept = landscape.line(objective, d, [-0.5, 0.0, 1.0], held_out=held)
    for i, t in enumerate(line.distances):
        state = objective.unflatten(np.asarray(objective.parameters()) + t * d)
        assert line.loss[i] == pytest.approx(by_hand(model, data, state, data)[0], rel=1e-12)
        assert line.held_out_loss[i] == pytest.approx(by_hand(model, data, state, held_data)[0], rel=1e-12)
        assert abs(line.loss[i] - kept.loss[i]) > 1e-3
    assert line.batch_norm == "re-estimate" and kept.batch_norm == "keep"


def test_equal_batches_give_the_plain_mean():
    model, data = make((6, 6, 6))
    objective = ls.objective(model, "cross_entropy", data)
    (point,) = objective.functions.with_running_statistics([objective.point], objective.data)
    with torch.no_grad():
        outputs = [model[0](inputs) for inputs, _ in data]
    mean = torch.stack([output.mean(dim=(0, 2)) for output in outputs]).mean(dim=0)
    variance = torch.stack([output.transpose(0, 1).flatten(1).var(dim=1) for output in outputs]).mean(dim=0)
    torch.testing.assert_close(point.rest["1.running_mean"], mean, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(point.rest["1.running_var"], variance, rtol=1e-12, atol=1e-14)
    assert point.rest["1.num_batches_tracked"] == objective.point.rest["1.num_batches_tracked"]


def test_nothing_is_left_behind():
    model, data = make((8, 3))
    objective = ls.objective(model, "cross_entropy", data)
    before, value = copy.deepcopy(model.state_dict()), objective.value()
    modes = [(m.training, getattr(m, "momentum", None)) for m in objective.functions._module.model.modules()]
    landscape.line(objective, "random", [0.0, 3.0], batch_norm="re-estimate")
    assert objective.value() == value
    assert [(m.training, getattr(m, "momentum", None)) for m in objective.functions._module.model.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    small = ls.objective(model, "cross_entropy", [data[0], (data[1][0][:1], data[1][1][:1])])
    with pytest.raises(ValueError, match="more than 1 value per channel"):  # torch's own sentence, from the second layer
        landscape.line(small, "random", [0.0], batch_norm="re-estimate")
    assert small.value() == small.value() and not any(m.training for m in small.functions._module.model.modules())


def test_where_there_is_nothing_to_estimate():
    model, data = make((8, 3))
    trained = ls.objective(model, "cross_entropy", data, batch_norm="train")
    plain = ls.objective(torch.nn.Linear(3, 2), "mse", (torch.ones(4, 3), torch.ones(4, 2)))
    for objective in (trained, plain):
        with pytest.raises(ValueError, match="no batch normalisation layer"):
            landscape.line(objective, "random", [0.0], batch_norm="re-estimate")
    objective = ls.objective(model, "cross_entropy", data)
    with pytest.raises(ValueError, match="with_data"):
        landscape.line(objective, "random", [0.0], batch_norm="re-estimate", held_out=ls.objective(model, "cross_entropy", data))
