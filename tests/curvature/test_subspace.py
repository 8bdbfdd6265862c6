"""Objectives in subspaces, against dense projections."""

import numpy as np
import pytest

import linop_spectra as ls
from linop_spectra.curvature.subspace import in_subspace, random_rows

torch = pytest.importorskip("torch")


def objective():
    generator = torch.Generator().manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2)
    x = torch.randn(10, 3, generator=generator, dtype=torch.float64)
    return ls.objective(model, "cross_entropy", (x, torch.arange(10) % 3), weight_decay=0.1)


def test_everything_is_a_projection():
    obj = objective()
    rows = random_rows(obj, 5, seed=2)
    np.testing.assert_allclose(rows @ rows.T, np.eye(5), atol=1e-14)
    inside = in_subspace(obj, rows)
    coordinates = np.arange(5) / 10
    there, whole = inside.with_parameters(coordinates), obj.with_parameters(obj.parameters() + coordinates @ rows)
    assert there.value() == whole.value() and there.num_parameters == 5 and there.num_examples == 10
    np.testing.assert_array_equal(there.parameters(), coordinates)
    np.testing.assert_allclose(there.gradient(), rows @ whole.gradient(), atol=1e-14)
    step = 1e-5
    for i in range(5):
        e = np.eye(5)[i] * step
        slope = (inside.with_parameters(coordinates + e).value() - inside.with_parameters(coordinates - e).value()) / (2 * step)
        assert slope == pytest.approx(float(there.gradient()[i]), abs=1e-9)
    for name in ("hessian", "ggn", "fisher", "residual", "gradient_covariance"):
        matrix = getattr(whole, name)().to_dense()
        np.testing.assert_allclose(getattr(there, name)().to_dense(), rows @ matrix @ rows.T, atol=1e-13, err_msg=name)
    np.testing.assert_allclose(there.jacobian().to_dense(), whole.jacobian().to_dense() @ rows.T, atol=1e-13)
    np.testing.assert_allclose(there.ntk().to_dense(), there.jacobian().to_dense() @ there.jacobian().to_dense().T, atol=1e-13)


def test_data_and_batches_follow():
    obj = objective()
    inside = in_subspace(obj, random_rows(obj, 3))
    x, y = torch.ones(4, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    np.testing.assert_allclose(inside.with_data((x, y)).gradient(), inside.rows @ obj.with_data((x, y)).gradient(), atol=1e-14)
    assert [one.num_parameters for one in inside.per_batch()] == [3]


def test_what_belongs_to_all_parameters_is_refused():
    obj = objective()
    inside = in_subspace(obj, random_rows(obj, 3))
    for call in (inside.class_structure, inside.filter_normalized):
        with pytest.raises(TypeError, match="all parameters"):
            call()
    with pytest.raises(ValueError, match="has 3 coordinates"):
        inside.with_parameters(np.zeros(4))
    for bad in (0, 32, 2.5, True):
        with pytest.raises(ValueError, match="between 1 and the 31"):
            random_rows(obj, bad)
    with pytest.raises(ValueError, match="must have shape"):
        in_subspace(obj, np.eye(3))
    assert "3 coordinates of 31" in repr(inside)


def test_the_subspace_is_the_same_in_every_framework():
    jax = pytest.importorskip("jax")
    obj = objective()
    params = {"w": jax.numpy.zeros(obj.num_parameters)}
    other = ls.objective(lambda p, x: x @ p["w"], "mse", (np.zeros((2, 31), "float32"), np.zeros(2, "float32")), params=params)
    np.testing.assert_allclose(random_rows(other, 4, seed=7), random_rows(obj, 4, seed=7), atol=1e-6)


def test_a_subspace_of_all_dimensions_is_the_whole():
    obj = objective()
    rows = random_rows(obj, obj.num_parameters)
    inside = in_subspace(obj, rows)
    np.testing.assert_allclose(np.linalg.eigvalsh(inside.hessian().to_dense()), np.linalg.eigvalsh(obj.hessian().to_dense()), atol=1e-12)
