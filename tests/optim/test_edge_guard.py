"""The guard at the edge of stability: on quadratics, on a model with progressive sharpening, and around every method."""

import math

import numpy as np
import pytest
import torch
from first_order_problems import network, of_vector, quadratic, resumed_is_identical, run

import linop_spectra as ls
from linop_spectra.optim.first_order.edge_guard import EdgeOfStabilityGuard
from linop_spectra.optim.first_order.momentum import GradientDescent, HeavyBall, Nesterov
from linop_spectra.optim.first_order.schedule import SpectralSchedule
from linop_spectra.optim.newton.lanczos_newton import LanczosNewton
from linop_spectra.optim.optimizer import Optimizer, Proposal

H = np.linspace(0.1, 2.0, 40)
METHODS = {
    "gd": (lambda rate: GradientDescent(learning_rate=rate), 2.0),
    "heavy ball": (lambda rate: HeavyBall(learning_rate=rate, momentum=0.6), 3.2),
    "Nesterov": (lambda rate: Nesterov(learning_rate=rate, momentum=0.6), 3.2 / 2.2),
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_ten_percent_above_the_threshold(name):
    """Without the guard it diverges, with it it converges, at the learning rate that the safety factor says."""
    make, constant = METHODS[name]
    rate = 1.1 * constant / 2.0
    assert run(make(rate), quadratic(H), 150)[1][-1].loss > 1e3
    _, infos = run(EdgeOfStabilityGuard(make(rate), safety=0.9, num_steps=10), quadratic(H), 150)
    assert infos[-1].loss < 1e-3 * infos[0].loss
    last = infos[-1].details
    assert last["sharpness"] == pytest.approx(2.0, rel=1e-4) and last["sharpness"] <= 2.0 <= last["sharpness"] + last["sharpness_error"]
    assert 0.98 * 0.9 * constant / 2.0 < infos[-1].learning_rate <= 0.9 * constant / 2.0
    assert last["threshold"] == pytest.approx(constant / rate) and last["scaled"] == pytest.approx(infos[-1].learning_rate / rate)
    assert "shortened" in infos[-1].message


@pytest.mark.parametrize("name", METHODS)
def test_the_method_at_the_lower_learning_rate(name):
    """Shortening the steps of these methods is lowering their learning rate."""
    make, constant = METHODS[name]
    guarded, _ = run(EdgeOfStabilityGuard(make(2 * constant / 2.0), safety=0.5, num_steps=25), quadratic(H), 40)
    plain, _ = run(make(0.5 * constant / 2.0), quadratic(H), 40)
    np.testing.assert_allclose(np.asarray(guarded), np.asarray(plain), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", METHODS)
def test_below_the_threshold_nothing_changes(name):
    make, constant = METHODS[name]
    guarded, infos = run(EdgeOfStabilityGuard(make(0.5 * constant / 2.0)), quadratic(H), 30)
    plain, _ = run(make(0.5 * constant / 2.0), quadratic(H), 30)
    np.testing.assert_array_equal(np.asarray(guarded), np.asarray(plain))
    assert all(info.details["scaled"] == 1 and not info.message for info in infos)


def test_cost_of_the_checks():
    _, infos = run(EdgeOfStabilityGuard(GradientDescent(learning_rate=0.1, evaluate=False), refresh_every=4, num_steps=3), quadratic(H), 9)
    assert [info.num_matvecs for info in infos] == [24, 0, 0, 0, 6, 0, 0, 0, 6]
    assert [info.refreshed for info in infos] == [step % 4 == 0 for step in range(9)]
    assert all(info.num_gradients == 1 and info.num_values == 0 for info in infos)


def test_follows_a_spectrum_that_moves():
    """The largest eigenvalue changes place: the last eigenvector alone would stay in its invariant space and never see it."""
    objective = quadratic(H)
    method, theta, found = EdgeOfStabilityGuard(GradientDescent(learning_rate=0.01), refresh_every=1), objective.parameters(), []
    for step in range(40):
        h = H.copy()
        h[7] = 0.2 * step
        theta, info = method.step(objective.with_data([torch.as_tensor(h)]), theta)
        found.append(info.details["sharpness"] / h.max())
        assert info.details["sharpness"] <= h.max() * (1 + 1e-12)
        assert info.details["sharpness"] + info.details["sharpness_error"] >= h.max() * (1 - 1e-2)
    assert min(found[20:]) > 0.99


def test_new_direction_without_gradient():
    """A top eigenvector that the last one and the gradient have no part of is found by the random direction."""
    after, theta = H.copy(), np.ones(40)
    after[7], theta[7] = 8.0, 0.0
    method, objective = EdgeOfStabilityGuard(GradientDescent(learning_rate=0.01), refresh_every=1, num_steps=10), quadratic(H)
    method.step(objective, theta)
    _, info = method.step(objective.with_data([torch.as_tensor(after)]), theta)
    assert info.details["sharpness"] == pytest.approx(8.0, rel=1e-2)


def test_residual_is_added():
    """One block step is far from converged; the learning rate is that for the Ritz value and its residual."""
    _, info = EdgeOfStabilityGuard(GradientDescent(learning_rate=9.0), num_steps=1, safety=1.0).step(quadratic(H), np.ones(40))
    assert info.details["sharpness_error"] > 1e-3
    assert info.learning_rate == pytest.approx(2 / (info.details["sharpness"] + info.details["sharpness_error"]), rel=1e-12)


# -- progressive sharpening --------------------------------------------------------------------------------------------


def scalar_model(w):
    return 0.5 * (1 - (w[0] * w[1]) ** 2) ** 2


def start_of_sharpness(value, beside):
    """Point of ``x y = 1`` with largest eigenvalue ``4 (x^2 + y^2) = value``, and a step away from it."""
    x, y = (math.sqrt((value / 4 + sign * math.sqrt((value / 4) ** 2 - 4)) / 2) for sign in (1, -1))
    return [x, y + beside]


@pytest.mark.parametrize("rate, above, beside, steps, ratio", [(0.05, 1.2, 0.01, 1000, 0.998), (0.02, 1.01, 0.1, 800, 0.9996)])
def test_gradient_descent_ends_at_the_edge(rate, above, beside, steps, ratio):
    """From above 2 / rate the sharpness falls to the edge; with the guard nothing drives it away from where it was."""
    objective = of_vector(scalar_model, start_of_sharpness(above * 2 / rate, beside))
    theta, _ = run(GradientDescent(learning_rate=rate), objective, steps)
    sharpness = 4 * float(theta @ theta)
    assert sharpness * rate / 2 == pytest.approx(ratio, abs=5e-4) and sharpness * rate / 2 < 1
    theta, infos = run(EdgeOfStabilityGuard(GradientDescent(learning_rate=rate), safety=0.6, refresh_every=1, num_steps=2), objective, 60)
    assert infos[-1].loss < 1e-12
    assert 4 * float(theta @ theta) * rate / 2 == pytest.approx(above, abs=0.01)


# -- around every method -----------------------------------------------------------------------------------------------


class Diagonal(Optimizer):
    """Momentum by an average, divided by a diagonal: Adam without its adaptation."""

    _evaluates = False

    def __init__(self, learning_rate, momentum, diagonal):
        super().__init__()
        self.learning_rate, self.momentum, self.diagonal = learning_rate, momentum, diagonal

    def _propose(self, start):
        mean = self.momentum * start.state.get("mean", 0.0) + (1 - self.momentum) * start.gradient
        step = -self.learning_rate * mean / self.diagonal
        return Proposal(step, {"mean": mean, "diagonal": self.diagonal}, learning_rate=self.learning_rate)


def test_preconditioned_sharpness():
    """38 over the learning rate for eigenvalues of the preconditioned Hessian, at a momentum of 0.9."""
    diagonal = np.geomspace(0.5, 8.0, 40)
    sharpness = (H / diagonal).max()
    for factor in (0.97, 1.03):
        base = Diagonal(factor * 38 / sharpness, 0.9, diagonal)
        assert (run(base, quadratic(H), 600)[1][-1].loss < 1) is (factor < 1)
        guard = EdgeOfStabilityGuard(
            Diagonal(factor * 38 / sharpness, 0.9, diagonal), num_steps=20, method="adam", momentum=0.9,
            preconditioner=lambda state: state["diagonal"],
        )
        _, infos = run(guard, quadratic(H), 20)
        assert infos[-1].details["sharpness"] == pytest.approx(sharpness, rel=1e-5)
        assert infos[-1].details["threshold"] == pytest.approx(sharpness / factor, rel=1e-9)
        assert infos[-1].details["scaled"] == pytest.approx(0.95 / factor, rel=5e-3)
    assert infos[0].num_matvecs == 40  # the space is everything


def test_preconditioner_that_is_not_known_yet():
    guard = EdgeOfStabilityGuard(GradientDescent(learning_rate=5.0), preconditioner=lambda state: None)
    _, info = guard.step(quadratic(H), np.ones(40))
    assert info.details["scaled"] == 1 and "sharpness" not in info.details and info.num_matvecs == 0


def test_schedule_inside():
    """The momentum is the one of the step, although the state of the schedule is the guard's."""
    method = EdgeOfStabilityGuard(SpectralSchedule(num_steps=30, factor=1.0, refresh_every=1000), safety=1.0, num_steps=20)
    _, infos = run(method, quadratic(H), 40)
    threshold = 2 * (1 + infos[0].details["momentum"]) / infos[0].learning_rate
    assert infos[-1].details["threshold"] == pytest.approx(threshold, rel=1e-9)
    assert infos[-1].loss < 1e-6 * infos[0].loss and min(info.details["scaled"] for info in infos) > 0.999


def test_method_that_says_nothing_of_itself():
    """Judged by its step along the top eigenvector: Newton steps stay, steps that overshoot are shortened."""
    model, data = network()
    objective = ls.objective(model, "cross_entropy", data)
    newton, infos = run(EdgeOfStabilityGuard(LanczosNewton(damping=0.1, num_steps=10), refresh_every=1), objective, 5)
    plain, expected = run(LanczosNewton(damping=0.1, num_steps=10), objective, 5)
    np.testing.assert_array_equal(np.asarray(newton), np.asarray(plain))
    assert [info.predicted_decrease for info in infos] == [info.predicted_decrease for info in expected]

    class Twice(Optimizer):
        def _propose(self, start):
            return Proposal(-1.5 * start.gradient, predicted_decrease=1.0)

    _, info = EdgeOfStabilityGuard(Twice(), safety=1.0, num_steps=10).step(quadratic(H), np.ones(40))
    assert info.details["scaled"] == pytest.approx(2 / (1.5 * 2.0), rel=1e-6) and info.actual_decrease > 0
    assert info.predicted_decrease == pytest.approx(2 / 3, rel=1e-6)


def test_verdict_of_the_method_inside():
    """The base's own judgement, and what it wants to keep, pass through."""

    class Stubborn(Optimizer):
        def _propose(self, start):
            return Proposal(-start.gradient, {"kept": 1}, {"damping": start.state.get("damping", 1.0)}, learning_rate=0.1)

        def _judge(self, start, proposal, actual_decrease):
            proposal.rejected_state["damping"] *= 2
            return False, "Not today."

    guard = EdgeOfStabilityGuard(Stubborn())
    theta, infos = run(guard, quadratic(H), 2)
    np.testing.assert_array_equal(np.asarray(theta), np.ones(40))
    assert not infos[0].accepted and "Not today." in infos[0].message
    assert guard.state["base/damping"] == 4.0 and "base/kept" not in guard.state and "sharpness" in guard.state


def test_state_of_the_base_is_the_guards():
    base = HeavyBall(learning_rate=0.1)
    guard = EdgeOfStabilityGuard(base)
    guard.step(quadratic(H), np.ones(40))
    assert base.state == {} and base.steps_taken == 0 and "base/velocity" in guard.state and "velocity" not in guard.state


@pytest.mark.parametrize("make", [lambda: HeavyBall(learning_rate=3.0), lambda: SpectralSchedule(refresh_every=4, num_steps=5),
                                  lambda: LanczosNewton(damping=0.1, num_steps=4)])  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_resumes_bit_for_bit(make, dtype, tmp_path):
    model, (x, y) = network(dtype=dtype)
    objective = ls.objective(model, "cross_entropy", (x, y), batch_size=8)
    objectives = [objective.with_data((x[i : i + 4], y[i : i + 4])) for i in range(6)]
    assert resumed_is_identical(lambda: EdgeOfStabilityGuard(make(), refresh_every=2), objectives, tmp_path, curvature=objective)


def test_zero_gradient_and_concave_loss():
    _, info = EdgeOfStabilityGuard(GradientDescent(learning_rate=9.0)).step(quadratic(H), np.zeros(40))
    assert info.accepted and info.step_norm == 0 and "gradient is zero" in info.message
    _, info = EdgeOfStabilityGuard(GradientDescent(learning_rate=9.0), num_steps=10).step(quadratic(-H), np.ones(40))
    assert info.details["scaled"] == 1 and info.details["sharpness"] == pytest.approx(-0.1, rel=1e-6)


def test_non_finite_start_leaves_the_state():
    guard = EdgeOfStabilityGuard(HeavyBall(learning_rate=0.1))
    guard.step(quadratic(H), np.ones(40))
    before = dict(guard.state)
    with pytest.raises(FloatingPointError):
        guard.step(quadratic(H), np.full(40, np.nan))
    assert guard.state.keys() == before.keys() and guard.steps_taken == 1


@pytest.mark.parametrize("options, error, words", [
    ({"refresh_every": 0}, ValueError, "refresh_every"), ({"num_steps": 0}, ValueError, "num_steps"),
    ({"safety": 1.2}, ValueError, "safety"),
    ({"matrix": "kfac"}, ValueError, "matrix"), ({"momentum": 0.5}, ValueError, "method"), ({"method": "sgd"}, ValueError, "method"),
    ({"method": "adam", "momentum": 1.0}, ValueError, "momentum"), ({"preconditioner": [1.0]}, TypeError, "preconditioner"),
])  # fmt: skip
def test_wrong_arguments(options, error, words):
    with pytest.raises(error, match=words):
        EdgeOfStabilityGuard(GradientDescent(learning_rate=0.1), **options)


def test_base_must_be_an_optimiser():
    with pytest.raises(TypeError, match="base"):
        EdgeOfStabilityGuard("sgd")
