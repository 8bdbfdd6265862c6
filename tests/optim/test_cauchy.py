"""Cauchy steps against the exact minimiser along the gradient."""

import itertools

import numpy as np
import pytest
import torch
from first_order_problems import network, of_vector, quadratic, resumed_is_identical, run
from scipy import optimize

import linop_spectra as ls
from linop_spectra.optim.first_order.cauchy import CauchySteps


def test_minimises_along_the_gradient():
    h, start = np.array([0.3, 1.0, 5.0]), np.array([1.0, -2.0, 0.5])
    theta, info = CauchySteps(evaluate=True).step(quadratic(h), start)
    line = optimize.minimize_scalar(lambda eta: 0.5 * (h * (start - eta * h * start) ** 2).sum())
    assert info.learning_rate == pytest.approx(line.x, rel=1e-6) and info.num_matvecs == 1
    np.testing.assert_allclose(np.asarray(theta), start - line.x * h * start, rtol=1e-6)
    assert info.ratio == pytest.approx(1.0) and info.actual_decrease == pytest.approx(0.5 * (h * start**2).sum() - line.fun)


def test_rate_of_steepest_descent():
    """From the worst start each step multiplies the loss by ((k - 1) / (k + 1))^2 (Kantorovich); relaxed steps are faster."""
    h = np.array([0.01, 1.0])
    _, infos = run(CauchySteps(), quadratic(h, start=1 / h), 20)
    for before, after in itertools.pairwise(infos):
        assert after.loss / before.loss == pytest.approx((0.99 / 1.01) ** 2, rel=1e-9)
    relaxed = run(CauchySteps(relaxation=0.8), quadratic(h, start=1 / h), 60)[1][-1].loss
    assert relaxed < 0.01 * run(CauchySteps(), quadratic(h, start=1 / h), 60)[1][-1].loss


def test_curvature_from_other_data():
    model, (x, y) = network()
    objective = ls.objective(model, "cross_entropy", (x, y))
    batch = objective.with_data((x[:6], y[:6]))
    g, H = np.asarray(batch.gradient()), np.asarray(objective.hessian().to_dense())
    _, info = CauchySteps().step(batch, batch.parameters(), curvature=objective)
    assert info.details["gradient_curvature"] == pytest.approx(g @ H @ g / (g @ g), rel=1e-9)


def test_learning_rate_between_refreshes():
    _, infos = run(CauchySteps(refresh_every=3), quadratic([0.3, 1.0]), 5)
    assert [info.num_matvecs for info in infos] == [1, 0, 0, 1, 0]
    assert infos[0].learning_rate == infos[2].learning_rate != infos[3].learning_rate


def test_negative_and_missing_curvature():
    saddle = quadratic([1.0, -3.0])
    theta, info = CauchySteps(evaluate=True).step(saddle, [0.1, 1.0])
    assert "negative" in info.message and info.actual_decrease > 0 and abs(theta[1]) > 1
    flat = of_vector(lambda w: w.sum(), [1.0, 1.0])
    with pytest.raises(ValueError, match="largest_rate"):
        CauchySteps().step(flat, [1.0, 1.0])
    _, info = CauchySteps(largest_rate=0.5).step(flat, [1.0, 1.0])
    assert info.learning_rate == 0.5
    edge = of_vector(lambda w: torch.where(w > 0, 0.5 * w**2, w).sum(), [1.0, 1.0])
    method = CauchySteps()
    method.step(edge, [1.0, 1.0])
    _, info = method.step(edge, [-1.0, -1.0])
    assert "stays as it was" in info.message and info.learning_rate == pytest.approx(1.0)


def test_zero_gradient_and_rejection():
    _, info = CauchySteps().step(quadratic([1.0, 2.0]), [0.0, 0.0])
    assert info.accepted and info.step_norm == 0 and "gradient is zero" in info.message
    wall = of_vector(lambda w: 0.5 * (w**2).sum() + torch.where(w[0] < 0.2, torch.inf, 0.0), [1.0])
    method = CauchySteps(refresh_every=10, evaluate=True)
    theta, info = method.step(wall, [1.0])
    assert not info.accepted
    theta, info = method.step(wall, theta)
    assert info.accepted and info.learning_rate == pytest.approx(0.5)


def test_resumes_bit_for_bit(tmp_path):
    model, (x, y) = network()
    objective = ls.objective(model, "cross_entropy", (x, y))
    objectives = [objective.with_data((x[i : i + 8], y[i : i + 8])) for i in range(6)]
    assert resumed_is_identical(lambda: CauchySteps(refresh_every=2, matrix="ggn"), objectives, tmp_path)


@pytest.mark.parametrize("arguments, words", [
    ({"refresh_every": 0}, "refresh_every"), ({"matrix": "kfac"}, "matrix"), ({"relaxation": 0.0}, "relaxation"),
    ({"largest_rate": -1.0}, "largest_rate"),
])  # fmt: skip
def test_wrong_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        CauchySteps(**arguments)
