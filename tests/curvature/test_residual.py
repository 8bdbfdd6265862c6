"""Hessian minus Gauss-Newton matrix, and identities of networks that do not see the scale of a layer."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dense_torch import CASES, Dense, assert_close, case, to_dense  # noqa: E402

import linop_spectra as ls  # noqa: E402

nn = torch.nn


@pytest.mark.parametrize("name", CASES)
def test_against_dense(name):
    objective, dense = case(name)
    residual = objective.residual()
    assert_close(residual, dense.hessian - dense.ggn)
    np.testing.assert_allclose(
        to_dense(objective.ggn()) + to_dense(residual), to_dense(objective.hessian()), rtol=0, atol=1e-12 * abs(dense.hessian).max()
    )
    assert residual.positive_semidefinite is None
    assert ls.check_operator(residual).passed


def test_weight_decay_cancels():
    plain, _ = case("masked")
    decayed, _ = case("masked", weight_decay=0.7)
    np.testing.assert_array_equal(to_dense(plain.residual()), to_dense(decayed.residual()))
    assert ls.check_operator(decayed.residual()).passed


def test_a_wrong_residual_is_caught():
    from linop_spectra.curvature import ResidualOperator

    class Sum(ResidualOperator):
        """Adds the Gauss-Newton matrix instead of taking it off."""

        def _add_product(self, part, v, total):
            total.add(part.linearization.hvp(v))
            total.add(part.linearization.vjp(part.linearization.loss_hessian(part.linearization.jvp(v))))

    objective, _ = case("squared errors")
    check = ls.check_operator(Sum(objective))
    assert check.finite_difference_error > 1e-2
    assert not check.passed


def test_models_that_are_linear_in_their_parameters_have_none():
    torch.manual_seed(0)
    x, y = torch.randn(9, 4).double(), torch.randint(0, 3, (9,))
    objective = ls.objective(nn.Linear(4, 3).double(), "cross_entropy", (x, y), batch_size=4)
    assert_close(objective.hessian(), to_dense(objective.ggn()))
    np.testing.assert_allclose(to_dense(objective.residual()), 0, atol=1e-16)


def test_blocks_of_piecewise_linear_networks_are_exactly_zero():
    """Outputs are linear in the parameters of each layer: only blocks between layers are left, and no rounding."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    x, y = torch.randn(9, 4).double(), torch.randint(0, 3, (9,))
    residual = ls.objective(model, "cross_entropy", (x, y), batch_size=4).residual()
    assert abs(to_dense(residual)).max() > 1e-3
    for layer in ("0", "2", "4"):
        np.testing.assert_array_equal(residual.block(layer).to_dense(), 0)
        assert ls.spectral_density(residual.block(layer)).trace().value == 0


def test_adapters_without_second_derivatives_of_outputs(monkeypatch):
    """The difference of both products, in the same pass."""
    from linop_spectra.curvature import residual

    objective, dense = case("class weights")
    monkeypatch.setattr(residual, "SupportsResidual", ())
    assert_close(objective.residual(), dense.hessian - dense.ggn)
    assert ls.check_operator(objective.residual()).passed


def test_where_nothing_is_kept():
    plentiful, _ = case("tokens")
    scarce, _ = case("tokens", batch_size=2, memory_budget=4000)
    residual = scarce.residual()
    assert_close(residual, to_dense(plentiful.residual()))
    assert "built anew" in residual.engine


def test_one_step_losses_are_refused():
    objective = ls.objective(
        nn.Linear(2, 1), ls.BatchLoss(lambda module, batch: (module(batch).square().sum(), len(batch))), [torch.ones(3, 2)]
    )
    for make in (objective.residual, objective.jacobian, objective.ntk):
        with pytest.raises(TypeError, match=r"BatchLoss\(outputs="):
            make()


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_scale_invariant_layers(norm):
    """A layer before a normalisation: ``<theta, g> = 0``, ``H theta = -g`` and ``G theta = 0`` there (Euler)."""
    torch.manual_seed(0)
    normalisation = nn.LayerNorm(6, eps=0.0) if norm == "layer" else nn.BatchNorm1d(6, eps=1e-30)
    model = nn.Sequential(nn.Linear(4, 6), normalisation, nn.Tanh(), nn.Linear(6, 3)).double()
    x, y = torch.randn(12, 4).double(), torch.randint(0, 3, (12,))
    objective = ls.objective(model, "cross_entropy", (x, y), batch_norm="train", batch_size=6)
    layer = np.r_[objective.blocks["0.weight"], objective.blocks["0.bias"]]
    theta, g = np.zeros(objective.num_parameters), objective.gradient()
    theta[layer] = objective.parameters()[layer]
    scale = np.linalg.norm(g[layer])
    assert scale > 1e-3
    assert abs(theta @ g) < 1e-13 * np.linalg.norm(theta) * scale
    # Only the entries of the layer follow -g: other parameters' gradients are invariant, so that their rows give zero.
    expected = np.zeros_like(g)
    expected[layer] = -g[layer]
    np.testing.assert_allclose(objective.hessian() @ theta, expected, rtol=0, atol=1e-12 * scale)
    np.testing.assert_allclose(objective.ggn() @ theta, 0, atol=1e-12 * scale)
    np.testing.assert_allclose(objective.fisher("mc") @ theta, 0, atol=1e-12 * scale)
    np.testing.assert_allclose(objective.residual() @ theta, expected, rtol=0, atol=1e-12 * scale)
    np.testing.assert_allclose(objective.jacobian() @ theta, 0, atol=1e-12 * np.linalg.norm(theta))
    block = objective.hessian().block("0")
    np.testing.assert_allclose(block @ theta[layer], -g[layer], rtol=0, atol=1e-12 * scale)


def test_homogeneous_networks():
    """Without biases a ReLU network of three layers is homogeneous of degree three: ``J theta = 3 f``."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 3, bias=False)
    ).double()
    x, y = torch.randn(10, 4).double(), torch.randn(10, 3).double()
    objective = ls.objective(model, "mse", (x, y), batch_size=4)
    dense = Dense(model, nn.MSELoss(reduction="sum"), x, y, 30)
    outputs = model(x).detach().numpy().reshape(-1)
    np.testing.assert_allclose(objective.jacobian() @ objective.parameters(), 3 * outputs, rtol=1e-12)
    # theta^T F theta = 9 <f, H_L f> / T with H_L = 2.
    theta = objective.parameters()
    np.testing.assert_allclose(theta @ (objective.fisher() @ theta), 9 * 2 * (outputs @ outputs) / 30, rtol=1e-12)
    assert_close(objective.residual(), dense.hessian - dense.ggn)
