"""Hessian and Gauss-Newton products of all kinds of layers, against dense autodiff and finite differences."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_networks import (  # noqa: E402
    NETWORKS,
    dense_gauss_newton,
    dense_hessian,
    gradient_difference,
    make,
    relative,
)

import linop_spectra as ls  # noqa: E402

cross_entropy = torch.nn.functional.cross_entropy


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("memory_budget", [None, 1], ids=["kept", "recomputed"])
def test_products_equal_dense_autodiff_and_differences(name, memory_budget):
    model, inputs, targets = make(name)
    # Three batches, the last one of a single example.
    objective = ls.objective(model, "cross_entropy", (inputs, targets), batch_size=3, memory_budget=memory_budget)
    v = np.random.default_rng(1).standard_normal((objective.num_parameters, 2))
    hessian = dense_hessian(model, lambda m: cross_entropy(m(inputs), targets))
    assert relative(objective.hessian() @ v, hessian @ v) < 1e-12
    assert relative(objective.hessian() @ v[:, 0], hessian @ v[:, 0]) < 1e-12
    difference = gradient_difference(model, lambda m: cross_entropy(m(inputs), targets), v[:, 0])
    assert relative(objective.hessian() @ v[:, 0], difference) < 1e-7
    gauss_newton = dense_gauss_newton(model, inputs, lambda z: cross_entropy(z, targets))
    assert relative(objective.ggn() @ v, gauss_newton @ v) < 1e-12
    assert relative(objective.ggn() @ v[:, 0], gauss_newton @ v[:, 0]) < 1e-12
    expected = torch.nn.utils.parameters_to_vector(
        torch.autograd.grad(cross_entropy(model(inputs), targets), list(model.parameters()))
    )
    assert relative(objective.gradient(), expected.numpy()) < 1e-12
    assert objective.value() == pytest.approx(cross_entropy(model(inputs), targets).item(), rel=1e-13)


@pytest.mark.parametrize("name", ["layer norm", "batch norm", "encoder layer", "lstm", "max pooling", "tied embedding"])
def test_operators_pass_their_own_check(name):
    model, inputs, targets = make(name)
    objective = ls.objective(model, "cross_entropy", (inputs, targets), batch_size=5)
    for operator in (objective.hessian(), objective.ggn()):
        check = ls.check_operator(operator)
        assert check.passed, str(check)
        assert check.finite_difference_error < 1e-6


def test_single_precision_agrees_and_the_check_is_in_double():
    model, inputs, targets = make("layer norm")
    double = ls.objective(model, "cross_entropy", (inputs, targets))
    single = ls.objective(model.float(), "cross_entropy", (inputs, targets))
    v = np.random.default_rng(0).standard_normal(double.num_parameters)
    product = single.hessian() @ v
    assert product.dtype == np.float32 == single.gradient().dtype
    assert relative(product, double.hessian() @ v) < 1e-5
    check = ls.check_operator(single.hessian())
    assert check.passed, str(check)
    assert check.finite_difference_error < 1e-7
    # A copy in double precision of the rounded model: the model itself stays in single precision.
    wide = ls.objective(model, "cross_entropy", (inputs, targets), dtype="float64")
    assert wide.dtype == np.float64
    assert next(model.parameters()).dtype == torch.float32
    assert relative(single.hessian() @ v, wide.hessian() @ v) < 1e-5


def test_engine_sentences_and_partial_keeping():
    model, inputs, targets = make("tanh", examples=40)
    everything = ls.objective(model, "cross_entropy", (inputs, targets), batch_size=10)
    v = np.random.default_rng(0).standard_normal(everything.num_parameters)
    for name in ("hessian", "ggn", "residual"):
        reference = getattr(everything, name)()
        _ = reference @ v
        size = reference._linearizations._spent / 4
        assert size > 0
        for room in (0, 2):
            # A quarter of the budget is for one operator: room for none, or for two of the four batches.
            budget = 4 * (room + 0.5) * size
            operator = getattr(ls.objective(model, "cross_entropy", (inputs, targets), batch_size=10, memory_budget=budget), name)()
            for _ in range(2):
                np.testing.assert_allclose(operator @ v, reference @ v, rtol=1e-12)
            assert f"{room} of 4 batches are kept" in operator.engine
            assert "anew in each product" in operator.engine
            assert operator.engine.endswith(".")
    assert "all 4 batches are kept" in everything.hessian().engine


def test_free_batch_size_follows_the_budget():
    model, inputs, targets = make("tanh", examples=300)
    whole = ls.objective(model, "cross_entropy", (inputs, targets))
    assert len(whole.per_batch()) == 1
    tight = ls.objective(model, "cross_entropy", (inputs, targets), memory_budget="100kB")
    assert len(tight.per_batch()) > 4
    v = np.random.default_rng(0).standard_normal(whole.num_parameters)
    assert relative(tight.hessian() @ v, whole.hessian() @ v) < 1e-12


def test_building_an_operator_runs_nothing():
    calls = []

    class Counting(torch.nn.Linear):
        def forward(self, x):
            calls.append(len(x))
            return super().forward(x)

    objective = ls.objective(Counting(3, 2), "cross_entropy", (torch.randn(5, 3), torch.tensor([0, 1, 0, 1, 1])))
    hessian, ggn = objective.hessian(), objective.ggn()
    repr(hessian), repr(ggn), repr(objective)
    assert calls == []
    v = np.ones(8, np.float32)
    _ = hessian @ v
    built = len(calls)
    _ = hessian @ v
    assert len(calls) == built  # retained: no forward pass any more


def test_half_precision_models_have_single_precision_vectors():
    model, inputs, targets = make("tanh", examples=50)
    reference = ls.objective(model.bfloat16(), "cross_entropy", (inputs, targets), dtype="float64")
    objective = ls.objective(model, "cross_entropy", (inputs, targets))
    assert objective.dtype == np.float32
    v = np.random.default_rng(0).standard_normal(objective.num_parameters)
    assert relative(objective.hessian() @ v, reference.hessian() @ v) < 0.1
    assert relative(objective.ggn() @ v, reference.ggn() @ v) < 0.1


def test_mixed_precision_parameters_use_the_widest_type():
    class Mixed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Linear(3, 4), torch.nn.Linear(4, 2).double()

        def forward(self, x):
            return self.second(torch.tanh(self.first(x)).double())

    torch.manual_seed(0)
    model, x, y = Mixed(), torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 1, 0])
    objective = ls.objective(model, "cross_entropy", (x, y))
    assert objective.dtype == np.float64
    wide = ls.objective(model, "cross_entropy", (x, y), dtype="float64")
    v = np.random.default_rng(0).standard_normal(objective.num_parameters)

    class Double(Mixed):
        def forward(self, x):
            return self.second(torch.tanh(self.first(x)))

    same = Double().double()
    same.load_state_dict(model.state_dict())
    expected = ls.objective(same, "cross_entropy", (x.double(), y)).hessian() @ v
    assert relative(objective.hessian() @ v, expected) < 1e-5
    assert relative(wide.hessian() @ v, expected) < 1e-12


def test_read_only_vectors_are_taken_without_warning():
    model, inputs, targets = make("tanh")
    hessian = ls.objective(model, "cross_entropy", (inputs, targets)).hessian()
    v = np.random.default_rng(0).standard_normal(hessian.shape[0])
    expected = hessian @ v
    v.flags.writeable = False
    before = v.copy()
    np.testing.assert_array_equal(hessian @ v, expected)
    np.testing.assert_array_equal(v, before)


def test_weight_decay_adds_a_multiple_of_the_identity():
    model, inputs, targets = make("tanh")
    plain = ls.objective(model, "cross_entropy", (inputs, targets))
    decayed = ls.objective(model, "cross_entropy", (inputs, targets), weight_decay=0.25)
    theta = plain.parameters()
    assert decayed.value() == pytest.approx(plain.value() + 0.125 * theta @ theta, rel=1e-13)
    np.testing.assert_allclose(decayed.gradient(), plain.gradient() + 0.25 * theta, rtol=1e-12)
    identity = 0.25 * np.eye(theta.size)
    np.testing.assert_allclose(decayed.hessian().to_dense(), plain.hessian().to_dense() + identity, atol=1e-14)
    np.testing.assert_allclose(decayed.ggn().to_dense(), plain.ggn().to_dense() + identity, atol=1e-14)
    for operator in (decayed.hessian(), decayed.ggn()):
        assert ls.check_operator(operator).passed


def test_gauss_newton_is_the_hessian_of_a_linear_model():
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 4).double()
    objective = ls.objective(model, "cross_entropy", (torch.randn(9, 3), torch.randint(0, 4, (9,))), batch_size=4)
    np.testing.assert_allclose(objective.ggn().to_dense(), objective.hessian().to_dense(), atol=1e-15)
    assert objective.ggn().positive_semidefinite
    assert objective.hessian().positive_semidefinite is None
