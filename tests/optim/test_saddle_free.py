"""Saddle-free Newton against dense linear algebra."""

import numpy as np
import pytest
from newton_objectives import function_of, modulus, network, quadratic, same_after_restoring, symmetric, torch

from linop_spectra.optim.newton.lanczos_newton import LanczosNewton
from linop_spectra.optim.newton.saddle_free import SaddleFreeNewton


def step_of(method, objective, **options):
    theta = objective.parameters()
    after, info = method.step(objective, theta, **options)
    return after - theta, info


def test_at_a_saddle_point_it_goes_away_where_newton_goes_there():
    saddle = np.diag([1.0, -1.0])
    objective = quadratic(saddle, np.zeros(2), [1.0, 0.5])
    step, info = step_of(SaddleFreeNewton(num_steps=2), objective)
    np.testing.assert_allclose(step, [-1.0, 0.5], atol=1e-14)
    np.testing.assert_allclose(-np.linalg.solve(saddle, objective.gradient()), [-1.0, -0.5], atol=1e-14)
    assert info.predicted_decrease == pytest.approx(0.5 + 0.375) and info.ratio == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("damping", [0.0, 0.7])
def test_with_all_steps_it_is_the_modulus(damping):
    a, _ = symmetric([-5.0, -1.0, 0.2, 2.0, 8.0])
    objective = quadratic(a, np.ones(5), np.arange(5.0))
    step, info = step_of(SaddleFreeNewton(damping=damping, num_steps=20, learning_rate=0.5), objective)
    np.testing.assert_allclose(step, -0.5 * np.linalg.solve(modulus(a) + damping * np.eye(5), objective.gradient()), rtol=1e-10)
    assert info.num_matvecs == 5 and info.message == ""


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_that_are_rounding_are_left_out_and_said(dtype):
    # The gradient has a part where there is no curvature at all: the least-squares solution leaves that alone.
    a, _ = symmetric([-2.0, 1.0, 3.0, 0.0, 0.0, 0.0], dtype=dtype)
    b = np.array([1.0, -1.0, 0.5, 2.0, 1.0, 0.3], dtype=dtype)
    objective = quadratic(a, b, np.zeros(6, dtype=dtype))
    step, info = step_of(SaddleFreeNewton(num_steps=6), objective)
    np.testing.assert_allclose(step, -np.linalg.pinv(modulus(a.astype(float)), rcond=1e-5) @ b, rtol=1e-10 if dtype == np.float64 else 1e-4)
    assert f"{int(info.details['num_left_out'])} of {int(info.details['num_ritz_pairs'])} Ritz values are zero" in info.message
    assert info.details["num_left_out"] >= 1


def test_the_best_of_three_dampings_is_taken():
    objective = network()
    n, hessian, g = objective.num_parameters, objective.hessian().to_dense(), objective.gradient()
    for damping in (1e-4, 0.05, 10.0):
        tried = {d: -np.linalg.solve(modulus(hessian) + d * np.eye(n), g) for d in (10 * damping, damping, damping / 10)}
        best = min(tried, key=lambda d: objective.with_parameters(objective.parameters() + tried[d]).value())
        method = SaddleFreeNewton(damping=damping, num_steps=n, adaptive=True)
        step, info = step_of(method, objective)
        if info.accepted:
            assert info.damping == pytest.approx(best) == method.state["damping"]
            np.testing.assert_allclose(step, tried[best], atol=1e-8)
        assert info.num_values == 3


def test_on_a_quadratic_the_damping_falls_to_rounding():
    a, _ = symmetric([1.0, 2.0, 3.0])
    objective = quadratic(a, np.ones(3), np.zeros(3))
    method = SaddleFreeNewton(damping=1.0, num_steps=3, adaptive=True)
    _, info = step_of(method, objective)
    assert info.damping == pytest.approx(0.1)
    theta = objective.parameters()
    for _ in range(30):
        theta, info = method.step(objective, theta)
    assert method.state["damping"] >= 1e-16 and abs(objective.with_parameters(theta).gradient()).max() < 1e-12


def test_where_no_damping_helps_the_step_is_rejected_and_larger_ones_are_tried():
    # The third derivative dominates: steps by the curvature at 0.01 go far beyond the minimum.
    objective = function_of(lambda x: (1e-3 * x**2 + torch.relu(-x) ** 2 * 1e6).sum() + 1.0 * x.sum(), [1.0])
    method, theta = SaddleFreeNewton(damping=1e-3, num_steps=1, adaptive=True), objective.parameters()
    theta, info = method.step(objective, theta)
    assert not info.accepted and theta[0] == 1.0 and "lowers the loss" in info.message
    assert method.state["damping"] == pytest.approx(0.1)
    for _ in range(10):
        theta, info = method.step(objective, theta)
    assert info.loss < objective.value() and theta[0] < 0.5


def test_a_loss_that_is_not_finite_rejects_the_step_and_raises_the_damping():
    for adaptive in (False, True):
        objective = function_of(lambda x: (x - torch.log(x)).sum(), [30.0])
        method, theta = SaddleFreeNewton(damping=1e-6, num_steps=1, adaptive=adaptive), objective.parameters()
        theta, info = method.step(objective, theta)
        assert not info.accepted and theta[0] == 30.0 and "not finite" in info.message
        for _ in range(40):
            theta, info = method.step(objective, theta)
        assert theta[0] == pytest.approx(1.0, abs=1e-5)


def test_a_zero_gradient_is_a_zero_step():
    objective = quadratic(np.diag([1.0, -1.0]), np.zeros(2), np.zeros(2))
    theta, info = SaddleFreeNewton().step(objective, objective.parameters())
    np.testing.assert_array_equal(theta, np.zeros(2))
    assert info.accepted and "gradient is zero" in info.message


@pytest.mark.parametrize("options", [{"damping": 0.1}, {"damping": 0.1, "adaptive": True}])
def test_saving_and_restoring_changes_no_bit(options, tmp_path):
    assert same_after_restoring(lambda: SaddleFreeNewton(num_steps=6, **options), network(), tmp_path)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_trains_a_network(dtype):
    objective = network(dtype)
    method, theta = SaddleFreeNewton(damping=0.1, num_steps=15, adaptive=True), objective.parameters()
    losses = []
    for _ in range(15):
        theta, info = method.step(objective, theta)
        losses.append(info.loss)
    assert theta.dtype == dtype and losses[-1] < 0.05 * losses[0] and (np.diff(losses) <= 0).all()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"damping": -1.0}, "damping is -1.0"), ({"num_steps": 0}, "num_steps"), ({"learning_rate": -1.0}, "learning_rate"),
        ({"adaptive": True}, "pass a positive one"), ({"matrix": 3}, "matrix is 3"),
    ],
)  # fmt: skip
def test_wrong_settings_are_said(options, message):
    with pytest.raises(ValueError, match=message):
        SaddleFreeNewton(**options)


@pytest.mark.parametrize(
    "make", [lambda: SaddleFreeNewton(num_steps=1), lambda: LanczosNewton(damping=0.0, num_steps=1)], ids=["SFN", "Lanczos"]
)
def test_steps_that_raise_the_loss_more_than_they_promised_are_said(make):
    """Newton's step on sqrt(1 + x^2) goes from x to -x^3: from 3 the loss rises as to 27."""
    objective, method = function_of(lambda x: torch.sqrt(1 + x[0] ** 2), [3.0]), make()
    after, info = method.step(objective, objective.parameters())
    assert info.accepted and float(after[0]) == pytest.approx(-27.0)
    assert "rose by 23.9" in info.message and "raise the damping" in info.message
    assert info.actual_decrease == pytest.approx(np.sqrt(10) - np.sqrt(1 + 27**2))
    small = function_of(lambda x: torch.sqrt(1 + x[0] ** 2), [0.5])
    assert not method.step(small, small.parameters())[1].message
