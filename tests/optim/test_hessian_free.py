"""Hessian-free optimisation and its conjugate gradients against dense linear algebra and a textbook loop."""

import numpy as np
import pytest
from newton_objectives import function_of, network, other_data, quadratic, regression, same_after_restoring, symmetric, torch

import linop_spectra as ls
from linop_spectra.optim.newton.hessian_free import HessianFree
from linop_spectra.optim.newton.quadratic_path import quadratic_path


def step_of(method, objective, **options):
    theta = objective.parameters()
    after, info = method.step(objective, theta, **options)
    return after - theta, info


def path_of(a, g, **options):
    options = {"damping": 0.0, "guess": None, "preconditioner": None, "tolerance": 0.0, "max_steps": 250, **options}
    return quadratic_path(ls.aslinearoperator(a, hermitian=True), np.asarray(g), **options)


def textbook(a, b, steps):
    """Conjugate gradients as in every textbook: the values of the model after each step."""
    x, r = np.zeros(len(b)), b.copy()
    p, values = r.copy(), [0.0]
    for _ in range(steps):
        alpha = (r @ r) / (p @ a @ p)
        x = x + alpha * p
        new = r - alpha * (a @ p)
        p = new + (new @ new) / (r @ r) * p
        r = new
        values.append(0.5 * x @ a @ x - b @ x)
    return np.array(values)


def objective_batches(examples=40, seed=3):
    """The data of `network`, an example a batch."""
    generator = torch.Generator().manual_seed(seed)
    for shape in ((5, 4), (5,), (3, 5), (3,)):
        torch.randn(shape, generator=generator, dtype=torch.float64)
    x = torch.randn(examples, 4, generator=generator, dtype=torch.float64)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    return [(x[i : i + 1], y[i : i + 1]) for i in range(examples)]


# -- conjugate gradients -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distinct", [1, 2, 3, 5])
def test_it_takes_as_many_steps_as_there_are_distinct_eigenvalues(distinct):
    curvatures = np.resize(np.array([0.5, 1.0, 2.0, 3.0, 7.0])[:distinct], 9)
    objective = regression(curvatures)
    np.testing.assert_allclose(np.linalg.eigvalsh(objective.hessian().to_dense()), np.sort(curvatures), rtol=1e-12)
    step, info = step_of(HessianFree(damping=0.0), objective)
    assert info.num_matvecs == info.details["num_cg_steps"] == distinct
    np.testing.assert_allclose(step, -np.linalg.solve(objective.hessian().to_dense(), objective.gradient()), rtol=1e-9)
    assert info.ratio == pytest.approx(1.0, abs=1e-9) and info.learning_rate == 1.0


@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_iterates_minimise_the_model_in_their_krylov_spaces(damping):
    a, _ = symmetric(np.linspace(0.1, 5.0, 12))
    g = np.random.default_rng(0).standard_normal(12)
    damped = a + damping * np.eye(12)
    path = path_of(a, g, damping=damping, max_steps=7)
    assert [iterate.number for iterate in path.iterates] == [1, 2, 3, 4, 6, 7] and path.ending == "max steps" and path.num_steps == 7
    for iterate in path.iterates:
        q = np.linalg.qr(np.column_stack([np.linalg.matrix_power(damped, power) @ g for power in range(iterate.number)]))[0]
        best = -q @ np.linalg.solve(q.T @ damped @ q, q.T @ g)
        np.testing.assert_allclose(iterate.step, best, rtol=1e-6)
        assert iterate.linear == pytest.approx(g @ best, rel=1e-8)
        assert iterate.quadratic == pytest.approx(best @ damped @ best, rel=1e-8)


@pytest.mark.parametrize("smallest, tolerance", [(1e-3, 5e-4), (1e-3, 2e-4), (1e-4, 1e-4)])
def test_it_ends_when_the_model_gains_little(smallest, tolerance):
    # No Ritz value of this spectrum converges early, so that two implementations agree to 13 digits over 250 steps. It ends after 72, 80
    # and 211 of them: with few the least window of ten decides, with many the tenth.
    a, _ = symmetric(1 + smallest - np.cos(np.pi * (np.arange(400) + 0.5) / 400))
    b = np.random.default_rng(1).standard_normal(400)
    values = textbook(a, b, 250)
    window = np.maximum(10, np.arange(251) // 10)
    done = [i for i in range(1, 251) if i > window[i] and (values[i] - values[i - window[i]]) / values[i] < window[i] * tolerance]
    path = path_of(a, -b, tolerance=tolerance)
    assert path.num_steps == done[0] < 250 and path.ending == "progress" and path.num_steps > 12


def test_it_starts_from_a_guess_only_where_that_is_better_than_zero():
    a, _ = symmetric(np.linspace(1.0, 3.0, 8))
    g = np.random.default_rng(0).standard_normal(8)
    solution = -np.linalg.solve(a, g)
    counted = ls.aslinearoperator(a, hermitian=True)
    options = {"damping": 0.0, "preconditioner": None, "tolerance": 0.0, "max_steps": 50}
    path = quadratic_path(counted, g, guess=solution, **options)
    assert path.num_steps == 0 and counted.num_matvecs == 1 and path.ending == "residual"
    np.testing.assert_allclose(path.iterates[-1].step, solution, rtol=1e-14)
    near = path_of(a, g, guess=0.95 * solution, tolerance=0.0, max_steps=3).iterates[-1].step
    far = path_of(a, g, max_steps=3).iterates[-1].step
    assert np.linalg.norm(near - solution) < 0.2 * np.linalg.norm(far - solution)
    np.testing.assert_array_equal(path_of(a, g, guess=-solution, max_steps=3).iterates[-1].step, far)


def test_a_preconditioner_changes_the_path_and_not_the_end():
    scales = np.geomspace(1e-3, 1e3, 20)
    a = np.diag(scales) + 1e-4 * symmetric(np.linspace(0.0, 1.0, 20))[0]
    g = np.random.default_rng(0).standard_normal(20)
    plain = path_of(a, g)
    quick = path_of(a, g, preconditioner=ls.diagonal_operator(1 / scales))
    np.testing.assert_allclose(quick.iterates[-1].step, -np.linalg.solve(a, g), rtol=1e-6)
    assert quick.num_steps < 10 < plain.num_steps


def test_the_preconditioner_is_the_power_of_the_squared_gradients():
    objective = network()
    method = HessianFree(damping=0.2, num_steps=1, preconditioner="squared_gradients")
    method.step(objective, objective.parameters())
    scale = np.mean([one.gradient() ** 2 for one in objective.with_data(objective_batches()).per_batch()], axis=0)
    g, direction = objective.gradient(), method.state["solution"]
    expected = -g / (scale + 0.2) ** 0.75
    np.testing.assert_allclose(direction / np.linalg.norm(direction), expected / np.linalg.norm(expected), rtol=1e-10)


# -- the method --------------------------------------------------------------------------------------------------------


def exact(**options):
    return HessianFree(tol=0.0, num_steps=400, **options)


@pytest.mark.parametrize(
    "preconditioner, examples, gradients", [(None, 40, 1), ("squared_gradients", 40, 2), ("squared_gradients", 90, 17)]
)
def test_the_direction_is_the_damped_gauss_newton_step(preconditioner, examples, gradients):
    objective = network(examples=examples)
    n = objective.num_parameters
    method = exact(damping=0.3, preconditioner=preconditioner)
    step, info = step_of(method, objective)
    dense, g = objective.ggn().to_dense(), objective.gradient()
    # The step itself may be an earlier iterate, whose loss is lower.
    np.testing.assert_allclose(method.state["solution"], -np.linalg.solve(dense + 0.3 * np.eye(n), g), atol=1e-9)
    assert info.predicted_decrease == pytest.approx(-g @ step - 0.5 * step @ dense @ step, rel=1e-9)
    assert info.num_gradients == gradients


def test_the_curvature_comes_from_its_own_data():
    objective = network()
    curvature = objective.with_data(other_data())
    method = exact(damping=1.0)
    _, info = step_of(method, objective, curvature=curvature)
    dense = curvature.ggn().to_dense() + np.eye(objective.num_parameters)
    np.testing.assert_allclose(method.state["solution"], -np.linalg.solve(dense, objective.gradient()), atol=1e-9)
    assert info.loss == pytest.approx(objective.value(), rel=1e-14)


@pytest.mark.parametrize("share, change", [(1.0, 2 / 3), (2 / 3, 1.0), (0.5, 1.5), (0.1, 1.5)])
def test_the_damping_follows_the_ratio(share, change):
    # A matrix that is `share` times the true one: the ratio is 2 - 1 / share.
    objective = regression(np.array([1.0, 2.0, 3.0, 4.0]))
    method = HessianFree(damping=1e-9, matrix=lambda one: share * one.hessian())
    _, info = step_of(method, objective)
    assert info.details["ratio_before_line_search"] == pytest.approx(2 - 1 / share, abs=1e-6)
    assert method.state["damping"] == pytest.approx(change * 1e-9)
    fixed = HessianFree(damping=1e-9, matrix=lambda one: share * one.hessian(), adaptive=False)
    step_of(fixed, objective)
    assert fixed.state["damping"] == 1e-9


def test_the_line_search_takes_the_first_length_that_lowers_the_loss_enough():
    objective = regression(np.full(4, 2.0))  # one step of conjugate gradients
    step, info = step_of(exact(damping=0.0, matrix=lambda one: 0.1 * one.hessian()), objective)
    full = -10 * np.linalg.solve(objective.hessian().to_dense(), objective.gradient())
    theta, loss, slope = objective.parameters(), objective.value(), objective.gradient() @ full
    rate = 1.0
    while objective.with_parameters(theta + rate * full).value() > loss + 0.01 * rate * slope:
        rate *= 0.8
    assert rate < 1 and info.learning_rate == pytest.approx(rate) and "shortened" in info.message
    np.testing.assert_allclose(step, rate * full, rtol=1e-9)


def test_backtracking_takes_the_iterate_before_the_loss_rises():
    # The model does not see how steep the loss is along one eigenvector of small curvature.
    a, q = symmetric(np.geomspace(0.01, 1.0, 12))
    b = np.random.default_rng(4).standard_normal(12)
    steep = torch.as_tensor(q[:, 0].copy())
    hidden = torch.as_tensor(a)

    def function(x):
        return 0.5 * x @ (hidden @ x) + torch.as_tensor(b) @ x + 1e-3 * (steep @ x) ** 4

    objective = function_of(function, np.zeros(12))
    path = path_of(a, objective.gradient(), max_steps=250)
    losses = [function(torch.as_tensor(iterate.step)).item() for iterate in path.iterates]
    expected = len(losses) - 1
    while expected and losses[expected - 1] < losses[expected]:
        expected -= 1
    step, info = step_of(exact(damping=0.0, matrix="hessian"), objective)
    assert 0 < expected < len(losses) - 1
    assert info.details["chosen_cg_step"] == path.iterates[expected].number < info.details["num_cg_steps"]
    np.testing.assert_allclose(step, info.learning_rate * path.iterates[expected].step, rtol=1e-8)


def test_a_step_starts_from_the_last_solution():
    objective = network()
    warm, cold = HessianFree(damping=0.1, num_steps=4, adaptive=False), HessianFree(damping=0.1, num_steps=4, adaptive=False, decay=0)
    theta = objective.parameters()
    first, second = (warm.step(objective, place)[1] for place in (theta, 1.01 * theta))
    solution = warm.state["solution"]
    _, other = cold.step(objective, 1.01 * theta)
    assert (first.num_matvecs, second.num_matvecs, other.num_matvecs) == (4, 5, 4)
    there = objective.with_parameters(1.01 * theta)
    damped, g = there.ggn().to_dense() + 0.1 * np.eye(len(theta)), there.gradient()

    def model(s):
        return g @ s + 0.5 * s @ damped @ s

    assert model(solution) < model(cold.state["solution"]) < 0


def test_negative_curvature_ends_the_iteration_and_is_said():
    # Along the gradient the curvature is positive, along the second direction it is not.
    objective = quadratic(np.diag([1.0, -1.0]), np.zeros(2), [1.0, 0.5])
    g = objective.gradient()
    step, info = step_of(HessianFree(damping=0.0, matrix="hessian"), objective)
    np.testing.assert_allclose(step, -g * (g @ g) / (g[0] ** 2 - g[1] ** 2), rtol=1e-12)
    assert "negative curvature" in info.message and info.details["lowest_curvature"] < 0 and info.ratio == pytest.approx(1.0)


def test_negative_curvature_along_the_gradient_is_followed():
    objective = quadratic(np.diag([1.0, -1.0]), np.zeros(2), [0.5, 1.0])
    g = objective.gradient()
    method = HessianFree(damping=0.1, matrix="hessian")
    step, info = step_of(method, objective)
    length = (g @ g) / abs(g[0] ** 2 - g[1] ** 2 + 0.1 * (g @ g))
    np.testing.assert_allclose(step, -length * g, rtol=1e-12)
    assert "negative curvature" in info.message and info.ratio == pytest.approx(1.0) and info.num_matvecs == 1
    assert method.state["damping"] == pytest.approx(0.15)


def test_a_singular_gauss_newton_matrix_needs_no_damping():
    objective = network(examples=4)  # 12 outputs, 43 parameters
    method, theta = HessianFree(damping=0.0), objective.parameters()
    for _ in range(5):
        theta, info = method.step(objective, theta)
    assert np.isfinite(theta).all() and info.loss < 0.05 * objective.value()


def test_parameters_without_a_gradient_do_no_harm():
    x = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[:, 2] = 0.0
    model = torch.nn.Linear(3, 1, bias=False).double()
    objective = ls.objective(model, "mse", (x, x[:, :1] * 2))
    step, info = step_of(HessianFree(damping=0.0, preconditioner="squared_gradients"), objective)
    assert step[2] == 0.0 and info.accepted
    np.testing.assert_allclose((objective.parameters() + step)[:2], [2.0, 0.0], atol=1e-9)


def test_a_loss_without_curvature_raises_the_damping_from_zero():
    objective = quadratic(np.zeros((3, 3)), np.array([3.0, 0.0, 4.0]), np.zeros(3))
    method = HessianFree(damping=0.0, matrix="hessian")
    theta, info = method.step(objective, objective.parameters())
    assert not info.accepted and "curvature along the gradient is zero" in info.message and method.state["damping"] == 5.0
    theta, info = method.step(objective, theta)
    np.testing.assert_allclose(theta, [-0.6, 0.0, -0.8], rtol=1e-12)
    assert info.accepted


def test_where_no_length_helps_the_step_is_rejected():
    objective = function_of(lambda x: x.sum() + 10.0 * (x < 1.0).sum(), [1.0, 2.0])  # jumps up at once along the gradient
    method = HessianFree(damping=1.0, matrix=lambda one: ls.identity(2))
    theta, info = method.step(objective, objective.parameters())
    assert not info.accepted and "No step along the direction" in info.message and info.step_norm == 0.0
    np.testing.assert_array_equal(theta, [1.0, 2.0])
    assert method.state["damping"] == 10.0 and "solution" not in method.state


def test_steps_that_are_not_finite_are_shortened():
    objective = function_of(lambda x: (x - torch.log(x)).sum(), [30.0])
    method, theta = HessianFree(damping=1e-6, matrix="hessian"), objective.parameters()
    theta, info = method.step(objective, theta)
    assert info.accepted and 0 < theta[0] < 30.0 and "shortened" in info.message
    for _ in range(20):
        theta, info = method.step(objective, theta)
    assert theta[0] == pytest.approx(1.0, abs=1e-6)


def test_a_zero_gradient_is_a_zero_step():
    objective = quadratic(np.eye(3), np.zeros(3), np.zeros(3))
    theta, info = HessianFree(matrix="hessian").step(objective, objective.parameters())
    np.testing.assert_array_equal(theta, np.zeros(3))
    assert info.accepted and "gradient is zero" in info.message


def test_at_the_minimum_it_stays():
    objective = regression(np.array([1.0, 2.0, 5.0]))
    method, theta = HessianFree(damping=1e-3), objective.parameters()
    for _ in range(30):
        theta, info = method.step(objective, theta)
        assert info.accepted
    assert np.linalg.norm(objective.with_parameters(theta).gradient()) < 1e-12 and method.state["damping"] < 1e-3


@pytest.mark.parametrize("options", [{}, {"preconditioner": "squared_gradients"}, {"matrix": "hessian"}])
def test_saving_and_restoring_changes_no_bit(options, tmp_path):
    assert same_after_restoring(lambda: HessianFree(num_steps=8, **options), network(), tmp_path)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, {"preconditioner": "squared_gradients"}, {"matrix": "hessian"}])
def test_it_trains_a_network(dtype, options):
    objective = network(dtype)
    method, theta = HessianFree(**options), objective.parameters()
    kept = theta.copy()
    for _ in range(15):
        theta, info = method.step(objective, theta)
        assert info.actual_decrease > 0 or not info.accepted
    assert theta.dtype == dtype and info.loss < 0.1 * objective.value()
    np.testing.assert_array_equal(objective.parameters(), kept)


def test_a_product_that_is_not_finite_is_said_and_changes_nothing():
    objective = network()
    n = objective.num_parameters
    broken = ls.aslinearoperator(lambda v: np.nan * v, shape=(n, n), dtype=np.float64, hermitian=True)
    method = HessianFree(matrix=lambda one: broken)
    with pytest.raises(FloatingPointError, match="NaN"):
        method.step(objective, objective.parameters())
    assert method.steps_taken == 0 and "solution" not in method.state


@pytest.mark.parametrize(
    "options, message",
    [
        ({"damping": -1.0}, "damping is -1.0"), ({"num_steps": 0}, "num_steps"), ({"tol": -1e-3}, "tol"),
        ({"decay": 1.5}, "between 0 and 1"), ({"preconditioner": "jacobi"}, "preconditioner is 'jacobi'"),
        ({"matrix": None}, "matrix is None"),
    ],
)  # fmt: skip
def test_wrong_settings_are_said(options, message):
    with pytest.raises(ValueError, match=message):
        HessianFree(**options)
