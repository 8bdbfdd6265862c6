"""Blocks of torch objectives: products that stop at the layers they need."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_networks import NETWORKS, dense_gauss_newton, dense_hessian, make  # noqa: E402

import linop_spectra as ls  # noqa: E402

functional = torch.nn.functional


@pytest.mark.parametrize("memory_budget", [None, 1], ids=["kept", "recomputed"])
@pytest.mark.parametrize("name", ["layer norm", "batch norm", "gru", "encoder layer", "tied embedding"])
def test_blocks_of_networks(name, memory_budget):
    model, inputs, targets = make(name)
    assert name in NETWORKS
    objective = ls.objective(model, "cross_entropy", (inputs, targets), batch_size=4, memory_budget=memory_budget, weight_decay=0.1)
    identity = 0.1 * np.eye(objective.num_parameters)
    hessian = dense_hessian(model, lambda m: functional.cross_entropy(m(inputs), targets)) + identity
    gauss_newton = dense_gauss_newton(model, inputs, lambda z: functional.cross_entropy(z, targets)) + identity
    rng = np.random.default_rng(0)
    names = [objective.functions.names[0], objective.functions.names[-1], "*.bias"]
    for matrix, expected in (("hessian", hessian), ("ggn", gauss_newton), ("residual", hessian - gauss_newton)):
        operator = getattr(objective, matrix)()
        whole = rng.standard_normal(objective.num_parameters)
        for block in (operator.block(one) for one in names):
            places = [operator.blocks[own] for own in block.parameter_names]
            index = np.concatenate([np.arange(place.start, place.stop) for place in places])
            for columns in (rng.standard_normal(len(index)), rng.standard_normal((len(index), 2))):
                exact = expected[np.ix_(index, index)] @ columns
                np.testing.assert_allclose(block @ columns, exact, atol=1e-12)
            np.testing.assert_allclose(operator @ whole, expected @ whole, atol=1e-12)  # nothing is left restricted


@pytest.mark.parametrize("matrix", ["hessian", "ggn", "residual"])
def test_blocks_of_last_layers_leave_the_others_out(matrix):
    """Counted in operations of the backward pass."""
    torch.manual_seed(0)
    layers = [layer for _ in range(6) for layer in (torch.nn.Linear(4, 4), torch.nn.Tanh())]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(4, 3))
    objective = ls.objective(model, "cross_entropy", (torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])))
    operator = getattr(objective, matrix)()
    counts = {}
    for name in ("0", "10"):
        block = operator.block(name)
        v = np.ones(block.shape[0], np.float32)
        _ = block @ v
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            _ = block @ v
        counts[name] = sum(event.key in ("aten::mm", "aten::addmm") and event.count for event in profile.key_averages())
    assert 0 < counts["10"] < 0.5 * counts["0"]
