"""Models that write to what they are given: the data stay as they are, ours and the user's."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import linop_spectra as ls  # noqa: E402

nn = torch.nn


def models():
    torch.manual_seed(0)
    last = nn.Linear(3, 2).double()
    return nn.Sequential(nn.SiLU(inplace=True), last), nn.Sequential(nn.SiLU(), last)


def data():
    torch.manual_seed(1)
    return torch.randn(8, 3).double(), torch.randint(0, 2, (8,))


@pytest.mark.parametrize("budget", [None, 200], ids=["kept", "read again"])
@pytest.mark.parametrize("form", ["arrays", "batches"])
def test_a_first_layer_that_works_in_place(form, budget):
    x, y = data()
    before = x.clone()
    source = (x, y) if form == "arrays" else [(x[:5], y[:5]), (x[5:], y[5:])]
    options = {"batch_size": 3} if form == "arrays" else {}
    writes, plain = (
        ls.objective(model, "cross_entropy", source, memory_budget=budget, **options) for model in models()
    )
    for _ in range(2):
        assert writes.value() == plain.value()
        np.testing.assert_array_equal(writes.gradient(), plain.gradient())
        for name in ("hessian", "ggn", "residual", "jacobian", "input_hessian"):
            np.testing.assert_allclose(getattr(writes, name)().to_dense(), getattr(plain, name)().to_dense(), atol=1e-14)
        np.testing.assert_allclose(writes.fisher("empirical").to_dense(), plain.fisher("empirical").to_dense(), atol=1e-14)
    assert torch.equal(x, before)
    assert ls.check_operator(writes.hessian()).passed


def test_a_loss_of_the_whole_batch_that_writes_to_it():
    x, y = data()
    batch = {"x": x, "y": y.double()}

    def loss(module, entries):
        entries["x"] += 1
        entries["y"].mul_(2)
        return (module(entries["x"])[:, 0] - entries["y"]).square().sum(), 8

    objective = ls.objective(models()[1], ls.BatchLoss(loss), [batch])
    values = [objective.value() for _ in range(3)]
    assert values[0] == values[1] == values[2]
    assert ls.check_operator(objective.hessian()).passed
    assert torch.equal(x, data()[0])
