"""Lanczos Newton against dense linear algebra."""

import numpy as np
import pytest
from newton_objectives import function_of, modulus, network, other_data, quadratic, same_after_restoring, symmetric, torch

from linop_spectra.optim.newton.lanczos_newton import LanczosNewton

INDEFINITE = np.array([-3.0, -1.0, -0.2, 0.3, 0.5, 1.0, 4.0, 9.0])


def indefinite():
    a, _ = symmetric(INDEFINITE)
    rng = np.random.default_rng(2)
    return a, quadratic(a, rng.standard_normal(8), rng.standard_normal(8))


def step_of(method, objective, **options):
    theta = objective.parameters()
    after, info = method.step(objective, theta, **options)
    return after - theta, info


@pytest.mark.parametrize("start_at", ["gradient", "random"])
@pytest.mark.parametrize("damping", [0.0, 0.1, 5.0])
def test_with_all_steps_it_is_the_damped_modulus_of_the_hessian(damping, start_at):
    a, objective = indefinite()
    step, info = step_of(LanczosNewton(damping=damping, num_steps=8, start_at=start_at), objective)
    expected = -np.linalg.solve(modulus(a) + damping * np.eye(8), objective.gradient())
    np.testing.assert_allclose(step, expected, rtol=1e-10)
    assert info.num_matvecs == 8 and info.details["complement_norm"] == 0.0 and info.damping == damping


@pytest.mark.parametrize("start_at", ["gradient", "random"])
def test_a_large_damping_is_gradient_descent(start_at):
    _, objective = indefinite()
    step, _ = step_of(LanczosNewton(damping=1e9, num_steps=3, complement_rate=1e-9, start_at=start_at), objective)
    np.testing.assert_allclose(step, -1e-9 * objective.gradient(), atol=1e-15)  # differences of parameters of order one


@pytest.mark.parametrize("num_steps", [1, 3, 5])
def test_from_the_gradient_it_uses_the_ritz_pairs_of_its_krylov_space(num_steps):
    a, objective = indefinite()
    g = objective.gradient()
    krylov = np.column_stack([np.linalg.matrix_power(a, power) @ g for power in range(num_steps)])
    q = np.linalg.qr(krylov)[0]
    values, small = np.linalg.eigh(q.T @ a @ q)
    y = q @ small
    step, info = step_of(LanczosNewton(damping=0.3, num_steps=num_steps, learning_rate=0.7), objective)
    np.testing.assert_allclose(step, -0.7 * y @ ((y.T @ g) / (abs(values) + 0.3)), rtol=1e-8)
    assert info.details["complement_norm"] == 0.0 and info.num_matvecs == num_steps


def test_an_invariant_space_ends_the_run_and_leaves_nothing_outside():
    a, q = symmetric(np.arange(1.0, 11.0))
    at = np.zeros(10)
    objective = quadratic(a, q[:, 1] + 2 * q[:, 4] - q[:, 8], at)
    step, info = step_of(LanczosNewton(damping=0.5, num_steps=8, complement_rate=1e6), objective)
    np.testing.assert_allclose(step, -np.linalg.solve(a + 0.5 * np.eye(10), objective.gradient()), atol=1e-12)
    assert info.num_matvecs == 3 and info.details["complement_norm"] == 0.0


@pytest.mark.parametrize("rate", [None, 0.05])
def test_outside_of_the_pairs_it_descends_along_the_gradient(rate):
    a, objective = indefinite()
    g = objective.gradient()
    method = LanczosNewton(damping=0.2, num_steps=4, start_at="random", refresh_every=5, complement_rate=rate)
    step, info = step_of(method, objective)
    y, values = method.state["ritz/vectors"], method.state["ritz/values"]
    np.testing.assert_allclose(y @ y.T, np.eye(4), atol=1e-13)
    np.testing.assert_allclose(y @ a @ y.T, np.diag(values), atol=1e-12)
    outside = g - y.T @ (y @ g)
    expected_rate = 1 / (abs(values).max() + 0.2) if rate is None else rate
    np.testing.assert_allclose(step, -y.T @ ((y @ g) / (abs(values) + 0.2)) - expected_rate * outside, rtol=1e-10)
    assert info.details["complement_norm"] == pytest.approx(np.linalg.norm(outside), rel=1e-12)
    assert info.num_matvecs == 5  # one along the step


def test_the_part_outside_is_orthogonal_to_the_pairs_although_it_is_small():
    a, _ = symmetric(np.linspace(1.0, 2.0, 12))
    objective = quadratic(a, np.zeros(12), np.ones(12))
    method = LanczosNewton(damping=1e10, num_steps=4, start_at="random", refresh_every=5, complement_rate=1e10, learning_rate=1e-6)
    method.step(objective, objective.parameters())
    y = method.state["ritz/vectors"]
    outside = np.random.default_rng(0).standard_normal(12)
    outside -= y.T @ (y @ outside)
    place = np.linalg.solve(a, y.sum(axis=0) + 1e-10 * outside)  # nearly all of the gradient is inside
    after, info = method.step(objective, place)
    step = 1e6 * (after - place)
    assert info.details["complement_norm"] == pytest.approx(1e-10 * np.linalg.norm(outside), rel=1e-4)
    assert np.linalg.norm(step) > 1 and np.linalg.norm(y @ step) < 1e-9 * np.linalg.norm(step)


def test_the_default_rate_outside_is_stable_where_that_of_the_damping_is_not():
    a, _ = symmetric(np.linspace(0.5, 10.0, 30))
    at = np.random.default_rng(0).standard_normal(30)
    losses = {}
    for rate in (None, 1e4):
        method, theta = LanczosNewton(damping=1e-4, num_steps=6, start_at="random", complement_rate=rate), at
        objective = quadratic(a, np.zeros(30), at)
        for _ in range(5):
            theta, _ = method.step(objective, theta)
        losses[rate] = objective.with_parameters(theta).value() / objective.value()
    assert losses[None] < 0.1 and losses[1e4] > 1e6


def test_pairs_are_kept_between_refreshes():
    a, objective = indefinite()
    method, theta = LanczosNewton(damping=1.0, num_steps=3, refresh_every=3, learning_rate=0.5), objective.parameters()
    infos = []
    for number in range(4):
        g = a @ theta + (objective.gradient() - a @ objective.parameters())
        before = theta
        theta, info = method.step(objective, theta)
        infos.append(info)
        if number in (1, 2):
            y, values = method.state["ritz/vectors"], method.state["ritz/values"]
            outside = g - y.T @ (y @ g)
            inside = -y.T @ ((y @ g) / (abs(values) + 1.0))
            np.testing.assert_allclose(theta - before, 0.5 * (inside - outside / (abs(values).max() + 1.0)), rtol=1e-8)
            assert info.details["complement_norm"] > 0.1
    assert [info.num_matvecs for info in infos] == [3, 0, 0, 3]
    assert [info.refreshed for info in infos] == [True, False, False, True]


@pytest.mark.parametrize(
    "options", [{}, {"start_at": "random"}, {"learning_rate": lambda step: 0.4 + step}], ids=["gradient", "random", "rate"]
)
def test_the_quadratic_predicts_a_quadratic(options):
    _, objective = indefinite()
    _, info = step_of(LanczosNewton(damping=0.4, num_steps=4, **options), objective)
    assert info.ratio == pytest.approx(1.0, abs=1e-10) and info.actual_decrease > 0


def test_curvature_comes_from_its_own_data():
    objective = network()
    curvature = objective.with_data(other_data())
    n = objective.num_parameters
    for matrix, dense in (("hessian", curvature.hessian().to_dense()), ("ggn", curvature.ggn().to_dense())):
        method = LanczosNewton(damping=0.1, num_steps=n, matrix=matrix)
        step, info = step_of(method, objective, curvature=curvature)
        g = objective.gradient()
        np.testing.assert_allclose(step, -np.linalg.solve(modulus(dense) + 0.1 * np.eye(n), g), atol=1e-9)
        assert info.predicted_decrease == pytest.approx(-g @ step - 0.5 * step @ dense @ step, rel=1e-8)


def test_a_function_makes_the_matrix():
    objective = network()
    named, _ = step_of(LanczosNewton(num_steps=5, matrix="ggn"), objective)
    made, _ = step_of(LanczosNewton(num_steps=5, matrix=lambda one: one.ggn()), objective)
    np.testing.assert_array_equal(named, made)


def test_a_loss_that_is_not_finite_rejects_the_step_and_raises_the_damping():
    objective = function_of(lambda x: (x - torch.log(x)).sum(), [3.0])  # Newton's step goes to -3
    method, theta = LanczosNewton(damping=0.0, num_steps=1), objective.parameters()
    seen = []
    for _ in range(12):
        theta, info = method.step(objective, theta)
        seen.append(info.accepted)
        if len(seen) == 1:
            np.testing.assert_array_equal(theta, [3.0])
            assert "not finite" in info.message and method.state["extra_damping"] == pytest.approx(1 / 9)
    assert seen[0] is False and all(seen[3:])
    assert theta[0] == pytest.approx(1.0, abs=1e-8) and method.state["extra_damping"] == 0.0


def test_a_rejected_step_measures_anew():
    objective = function_of(lambda x: (x - torch.log(x)).sum(), [10.0])
    method = LanczosNewton(damping=0.0, num_steps=1, refresh_every=10, learning_rate=0.05)
    infos = [method.step(objective, np.array([place]))[1] for place in (10.0, 9.0, 2.0, 2.0, 2.0)]
    # The curvature of 10, 1/100, carries a step from 2 to -1/2.
    assert [info.accepted for info in infos] == [True, True, False, True, True]
    assert [info.refreshed for info in infos] == [True, False, False, True, False]


def test_a_zero_gradient_is_a_zero_step():
    objective = quadratic(np.eye(3), np.zeros(3), np.zeros(3))
    theta, info = LanczosNewton().step(objective, objective.parameters())
    np.testing.assert_array_equal(theta, np.zeros(3))
    assert info.accepted and "gradient is zero" in info.message and info.num_matvecs == 0


def test_no_curvature_at_all_without_damping_is_no_step():
    objective = quadratic(np.zeros((3, 3)), np.ones(3), np.zeros(3))
    step, info = step_of(LanczosNewton(damping=0.0), objective)
    np.testing.assert_array_equal(step, np.zeros(3))
    assert "zero up to rounding" in info.message
    step, _ = step_of(LanczosNewton(damping=0.5), objective)
    np.testing.assert_allclose(step, -2 * np.ones(3), rtol=1e-14)


@pytest.mark.parametrize(
    "options", [{}, {"refresh_every": 2}, {"start_at": "random", "refresh_every": 4}, {"start_at": "random", "seed": 5}]
)
def test_saving_and_restoring_changes_no_bit(options, tmp_path):
    assert same_after_restoring(lambda: LanczosNewton(num_steps=4, **options), network(), tmp_path)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_trains_a_network_and_leaves_it_alone(dtype):
    objective = network(dtype)
    method, theta = LanczosNewton(damping=0.05, num_steps=12), objective.parameters()
    kept = theta.copy()
    first = theta
    for _ in range(15):
        theta, info = method.step(objective, theta)
        assert info.accepted
    assert theta.dtype == dtype and info.loss < 0.1 * objective.value()
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(objective.parameters(), kept)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"damping": -1.0}, "damping is -1.0"), ({"damping": np.nan}, "damping"), ({"num_steps": 0}, "num_steps"),
        ({"complement_rate": -0.1}, "complement_rate"), ({"learning_rate": 0.0}, "learning_rate"), ({"refresh_every": 0}, "refresh_every"),
        ({"matrix": "newton"}, "matrix is 'newton'"), ({"start_at": "zero"}, "start_at is 'zero'"),
    ],
)  # fmt: skip
def test_wrong_settings_are_said(options, message):
    with pytest.raises(ValueError, match=message):
        LanczosNewton(**options)


def test_parameters_that_are_not_finite_are_said_and_change_nothing():
    objective = network()
    method = LanczosNewton()
    with pytest.raises(FloatingPointError):
        method.step(objective, np.full(objective.num_parameters, np.nan))
    assert method.steps_taken == 0
