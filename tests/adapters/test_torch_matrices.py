"""Fisher matrices, residual, covariance and Jacobian of every kind of layer, tied and unused parameters and half precision."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch_networks import NETWORKS, _flat, dense_gauss_newton, dense_hessian, make, parameters_of, relative  # noqa: E402

import linop_spectra as ls  # noqa: E402

nn = torch.nn


def jacobian_of(model, inputs):
    model = copy.deepcopy(model)
    parameters = parameters_of(model)
    with sdpa_kernel(SDPBackend.MATH):
        outputs = model(inputs).reshape(-1)
        rows = [_flat(torch.autograd.grad(o, parameters, retain_graph=True, materialize_grads=True)) for o in outputs]
    return torch.stack(rows).numpy()


def example_gradients(model, inputs, targets):
    """One backward pass for each example."""
    model = copy.deepcopy(model)
    parameters = parameters_of(model)
    rows = []
    for x, y in zip(inputs, targets, strict=True):
        loss = nn.functional.cross_entropy(model(x[None]), y[None], reduction="sum")
        rows.append(_flat(torch.autograd.grad(loss, parameters)).numpy())
    return np.array(rows)


@pytest.mark.parametrize("budget", [None, 3000], ids=["kept", "anew"])
@pytest.mark.parametrize("name", NETWORKS)
def test_matrices_of_every_kind_of_layer(name, budget):
    model, inputs, targets = make(name)
    terms, examples = targets.numel(), len(inputs)
    objective = ls.objective(model, "cross_entropy", (inputs, targets), batch_size=3, memory_budget=budget)
    v = np.random.default_rng(0).standard_normal((objective.num_parameters, 2))
    ggn = dense_gauss_newton(model, inputs, lambda z: nn.functional.cross_entropy(z, targets))
    hessian = dense_hessian(model, lambda m: nn.functional.cross_entropy(m(inputs), targets))
    g = example_gradients(model, inputs, targets)
    jacobian = jacobian_of(model, inputs)
    mean = g.sum(axis=0) / terms
    expected = {
        "exact": (objective.fisher(), ggn @ v),
        "empirical": (objective.fisher("empirical"), g.T @ (g @ v) / terms),
        "covariance": (objective.gradient_covariance(), examples / terms**2 * g.T @ (g @ v) - np.outer(mean, mean @ v)),
        "jacobian": (objective.jacobian(), jacobian @ v),
        "kernel": (objective.ntk() @ jacobian, jacobian @ (jacobian.T @ jacobian)),
    }
    for key, (operator, product) in expected.items():
        found = operator if isinstance(operator, np.ndarray) else operator @ v
        assert relative(np.asarray(found), product) < 1e-11, key
    residual = objective.residual() @ v
    assert np.linalg.norm(residual - (hessian - ggn) @ v) < 1e-11 * np.linalg.norm(hessian @ v)


@pytest.mark.parametrize("name", ["batch norm", "lstm", "encoder layer", "tied embedding"])
def test_checks_against_differences(name):
    model, inputs, targets = make(name)
    objective = ls.objective(model, "cross_entropy", (inputs, targets), batch_size=3)
    operators = [objective.fisher("mc"), objective.fisher("empirical"), objective.residual(), objective.jacobian(), objective.ntk()]
    if name != "tied embedding":
        operators.append(objective.input_hessian())
    for operator in operators:
        assert ls.check_operator(operator).passed, operator


def test_half_precision():
    """Parameters in bfloat16, vectors in single precision: the same matrices to the precision of the model."""
    model, inputs, targets = make("tanh", examples=20)
    half = ls.objective(copy.deepcopy(model).bfloat16(), "cross_entropy", (inputs, targets))
    rounded = copy.deepcopy(model).bfloat16().double()
    double = ls.objective(rounded, "cross_entropy", (inputs.bfloat16().double(), targets))
    assert half.dtype == np.float32
    for make_operator in (
        lambda o: o.fisher(), lambda o: o.fisher("empirical"), lambda o: o.gradient_covariance(),
        lambda o: o.jacobian(), lambda o: o.residual(),
    ):  # fmt: skip
        assert relative(np.asarray(make_operator(half).to_dense()), np.asarray(make_operator(double).to_dense())) < 0.05
    drawn = half.fisher("mc", num_samples=300).to_dense()
    assert relative(drawn, double.fisher().to_dense()) < 0.2


def test_some_parameters_only():
    model, inputs, targets = make("silu")
    whole = ls.objective(model, "cross_entropy", (inputs, targets))
    part = ls.objective(model, "cross_entropy", (inputs, targets), parameters="2.*")
    for kind in ("exact", "mc", "empirical"):
        np.testing.assert_allclose(part.fisher(kind).to_dense(), whole.fisher(kind).block("2").to_dense(), rtol=0, atol=1e-14)
    np.testing.assert_allclose(
        part.gradient_covariance().to_dense(), whole.gradient_covariance().block("2").to_dense(), rtol=0, atol=1e-14
    )
    np.testing.assert_array_equal(part.residual().to_dense(), 0)
