"""Jacobian passes over all batches, against torch's own derivatives."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import linop_spectra as ls  # noqa: E402
from linop_spectra.curvature.output_space import OutputSpace, OutputSpaceOperator  # noqa: E402


@pytest.fixture
def network():
    """Objective with batches of 2 and 1 examples, each with outputs of shape (2, 3), and the dense Jacobian in C order."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.Tanh(), torch.nn.Unflatten(1, (2, 3))).double()
    inputs = torch.randn(3, 2).double()
    rows = [
        torch.cat([g.reshape(-1) for g in torch.autograd.grad(o, list(model.parameters()), retain_graph=True)])
        for o in model(inputs).reshape(-1)
    ]
    return ls.objective(model, "mse", (inputs, torch.zeros(3, 2, 3).double()), batch_size=2), torch.stack(rows).numpy()


def by_columns(examples):
    """Places of the outputs of shape (examples, 2, 3) with the middle axis last."""
    return np.moveaxis(np.arange(6 * examples).reshape(examples, 2, 3), 1, 2).reshape(-1)


@pytest.mark.parametrize("reordered", [False, True])
def test_passes_are_the_jacobian_and_its_transpose(network, reordered):
    objective, jacobian = network
    order = np.arange(18)
    if reordered:
        order = np.concatenate([by_columns(2), 12 + by_columns(1)])
    space = OutputSpace(objective, [12, 6], [by_columns(2), by_columns(1)] if reordered else [None, None])
    generator = np.random.default_rng(0)
    x, u = generator.standard_normal((objective.num_parameters, 4)), generator.standard_normal((3, 18))
    np.testing.assert_allclose(space.push(x), (jacobian[order] @ x).T, atol=1e-14)
    np.testing.assert_allclose(space.pull(3, lambda j, index: u[j, space.batches[index]]), u @ jacobian[order], atol=1e-14)


def test_batches_that_are_left_out_are_zero(network):
    objective, jacobian = network
    space = OutputSpace(objective, [12, 6], [None, None])
    x, u = np.ones((objective.num_parameters, 1)), np.ones(18)
    np.testing.assert_allclose(space.push(x, np.array([False, True]))[0], np.r_[np.zeros(12), jacobian[12:] @ x[:, 0]], atol=1e-14)
    found = space.pull(3, lambda j, index: u[space.batches[index]] if j == index else None)
    np.testing.assert_allclose(found, [u[:12] @ jacobian[:12], u[12:] @ jacobian[12:], np.zeros(objective.num_parameters)], atol=1e-14)


def centred(objective):
    """The operator of a kernel that mixes all outputs of all batches: it subtracts their mean."""
    sizes = [6 * objective.data.count(batch) for batch in objective.batches()]
    return OutputSpaceOperator(OutputSpace(objective, sizes, [None] * len(sizes)), lambda u: u - u.mean(), "centred", centred)


def test_operator_with_a_kernel_across_batches(network):
    objective, jacobian = network
    operator = centred(objective)
    np.testing.assert_allclose(operator.to_dense(), jacobian.T @ (jacobian - jacobian.mean(axis=0)), atol=1e-13)
    assert ls.check_operator(operator).passed
    assert "twice" in operator.engine
    assert repr(operator).endswith("centred")


@pytest.mark.parametrize("name", ["push", "pull"])
def test_the_check_sees_a_wrong_pass(network, name, monkeypatch):
    right = getattr(OutputSpace, name)
    monkeypatch.setattr(OutputSpace, name, lambda *args: 1.01 * right(*args))
    check = ls.check_operator(centred(network[0]))
    assert not check.passed
    assert 0.005 < check.finite_difference_error < 0.02
