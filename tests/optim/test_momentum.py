"""Heavy ball, Nesterov's method and gradient descent: equal to torch's, with the rates and limits of theory."""

import math

import numpy as np
import pytest
import torch
from first_order_problems import network, of_vector, quadratic, resumed_is_identical, run

import linop_spectra as ls
from linop_spectra.curvature.non_finite import NonFiniteLossError
from linop_spectra.optim.first_order.momentum import GradientDescent, HeavyBall, Nesterov
from linop_spectra.optim.first_order.parameters import heavy_ball_parameters, nesterov_parameters


@pytest.mark.parametrize("make, options", [
    (lambda rate: HeavyBall(learning_rate=rate, momentum=0.9), {"momentum": 0.9}),
    (lambda rate: Nesterov(learning_rate=rate, momentum=0.9), {"momentum": 0.9, "nesterov": True}),
    (lambda rate: GradientDescent(learning_rate=rate), {}), (lambda rate: HeavyBall(learning_rate=rate, momentum=0.0), {}),
], ids=["heavy ball", "Nesterov", "gradient descent", "without momentum"])  # fmt: skip
@pytest.mark.parametrize("changing", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_same_as_torch(make, options, changing, dtype):
    """Twenty steps over mini-batches, also with a learning rate that changes."""
    model, (x, y) = network(dtype=dtype)
    objective = ls.objective(model, "cross_entropy", (x, y))
    method, theta = make((lambda step: 0.5 / (1 + step)) if changing else 0.5), objective.parameters()
    reference = torch.optim.SGD(model.parameters(), lr=0.5, **options)
    for step in range(20):
        batch = slice(8 * (step % 3), 8 * (step % 3) + 8)
        theta, info = method.step(objective.with_data((x[batch], y[batch])), theta)
        rate = 0.5 / (1 + step) if changing else 0.5
        reference.param_groups[0]["lr"] = rate
        reference.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x[batch]), y[batch])
        loss.backward()
        reference.step()
        assert info.learning_rate == rate and info.loss == pytest.approx(loss.item(), rel=1e-5)
    expected = torch.cat([p.detach().reshape(-1) for p in model.parameters()]).numpy()
    tolerance = 1e-13 if dtype == torch.float64 else 2e-5
    np.testing.assert_allclose(np.asarray(theta), expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_polyaks_form():
    """Position after position, without a velocity."""
    h, eta, beta = np.array([0.3, 1.0, 2.0]), 0.7, 0.6
    theta, _ = run(HeavyBall(learning_rate=eta, momentum=beta), quadratic(h), 15)
    before = now = np.ones(3)
    for _ in range(15):
        before, now = now, now - eta * h * now + beta * (now - before)
    np.testing.assert_allclose(np.asarray(theta), now, rtol=1e-12)


@pytest.mark.parametrize("condition, tail", [(100, 0.8227), (1000, 0.9403)])
def test_rate_of_heavy_ball(condition, tail):
    """The double root makes the distance t r^t: over the last half of the steps it falls a little slower than r."""
    found = heavy_ball_parameters(largest=1.0, smallest=1 / condition)
    objective = quadratic(np.geomspace(1 / condition, 1.0, 50))
    method, theta, distances = HeavyBall(learning_rate=found.learning_rate, momentum=found.momentum), objective.parameters(), []
    for _ in range(round(25 * math.sqrt(condition))):
        theta, _ = method.step(objective, theta)
        distances.append(float(np.linalg.norm(theta)))
    half = len(distances) // 2
    measured = (distances[-1] / distances[half]) ** (1 / (len(distances) - 1 - half))
    assert found.rate < measured < 1.01 * found.rate
    assert measured == pytest.approx(tail, rel=3e-3)


def test_rate_of_nesterov():
    found = nesterov_parameters(largest=1.0, smallest=0.01)
    objective = quadratic(np.geomspace(0.01, 1.0, 50))
    method, theta, distances = Nesterov(learning_rate=found.learning_rate, momentum=found.momentum), objective.parameters(), []
    for _ in range(300):
        theta, _ = method.step(objective, theta)
        distances.append(float(np.linalg.norm(theta)))
    assert found.rate < (distances[-1] / distances[150]) ** (1 / 149) < 1.01 * found.rate


@pytest.mark.parametrize("make, threshold", [
    (lambda rate: GradientDescent(learning_rate=rate), 2.0), (lambda rate: HeavyBall(learning_rate=rate, momentum=0.9), 3.8),
    (lambda rate: Nesterov(learning_rate=rate, momentum=0.9), 3.8 / 2.8),
], ids=["gradient descent", "heavy ball", "Nesterov"])  # fmt: skip
def test_stability_threshold_by_bisection(make, threshold):
    """2.002, 3.800 and 1.358 in a bisection of the interval from 0.5 to 4.5."""
    objective = quadratic([1.0])

    def diverges(rate):
        method = make(rate)
        middle, _ = run(method, objective, 40)
        return abs(float(run(method, objective, 40, middle)[0][0])) > abs(float(middle[0]))

    low, high = 0.5, 4.5
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (low, middle) if diverges(middle) else (middle, high)
    assert high == pytest.approx(threshold, abs=0.01)


def test_parameters_from_a_measured_spectrum():
    objective = quadratic(np.geomspace(0.01, 1.0, 50))
    pairs = ls.eigsh(objective.hessian(), 2, which="BE", tol=1e-8)
    methods = [kind.from_spectrum(pairs, evaluate=True) for kind in (HeavyBall, Nesterov, GradientDescent)]
    assert methods[0].learning_rate == pytest.approx(3.30579, abs=1e-4) and methods[0].momentum == pytest.approx(0.66942, abs=1e-4)
    assert methods[2].learning_rate == pytest.approx(2 / 1.01, rel=1e-4) and all(method.evaluate for method in methods)
    losses = [run(method, objective, 100)[1][-1].loss for method in methods]
    assert losses[0] < 1e-6 * losses[2] and losses[0] < losses[1] < losses[2]
    assert Nesterov.from_spectrum(pairs, weight_decay=0.5).momentum < methods[1].momentum


def test_numbers_of_a_step():
    objective = quadratic([1.0, 2.0])
    plain, info = GradientDescent(learning_rate=0.1, evaluate=False).step(objective, [1.0, 1.0])
    assert (info.loss, info.num_gradients, info.num_values, info.num_matvecs) == (1.5, 1, 0, 0)
    assert math.isnan(info.actual_decrease) and info.step_norm == pytest.approx(0.1 * math.sqrt(5)) and info.learning_rate == 0.1
    _, info = GradientDescent(learning_rate=0.1).step(objective, [1.0, 1.0])
    assert info.actual_decrease == pytest.approx(1.5 - 0.5 * (0.81 + 2 * 0.64)) and info.num_values == 1
    np.testing.assert_allclose(np.asarray(plain), [0.9, 0.8])


@pytest.mark.parametrize("make", [
    lambda: HeavyBall(learning_rate=0.1), lambda: Nesterov(learning_rate=0.1), lambda: GradientDescent(learning_rate=0.1)
])  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_resumes_bit_for_bit(make, dtype, tmp_path):
    model, (x, y) = network(dtype=dtype)
    objective = ls.objective(model, "cross_entropy", (x, y))
    objectives = [objective.with_data((x[i : i + 4], y[i : i + 4])) for i in range(6)]
    assert resumed_is_identical(make, objectives, tmp_path)


def test_objective_and_state_are_left_alone():
    model, data = network()
    before = [p.detach().clone() for p in model.parameters()]
    objective = ls.objective(model, "cross_entropy", data)
    method, theta = HeavyBall(learning_rate=0.3), objective.parameters()
    first = theta.copy()
    second, _ = method.step(objective, theta)
    velocity, copied = method.state["velocity"], np.array(method.state["velocity"])
    method.step(objective, second)
    assert np.array_equal(theta, first) and np.array_equal(velocity, copied)
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, model.parameters(), strict=True))


def test_zero_gradient():
    """A zero step and a message, unless there is a velocity left."""
    objective = quadratic([1.0, 2.0], start=[0.0, 0.0])
    theta, info = HeavyBall(learning_rate=0.1).step(objective, objective.parameters())
    assert info.accepted and info.step_norm == 0 and "gradient is zero" in info.message and not np.asarray(theta).any()
    method = HeavyBall(learning_rate=0.1, momentum=0.5)
    method.step(objective, [1.0, 1.0])
    _, info = method.step(objective, [0.0, 0.0])
    assert info.gradient_norm == 0 and info.step_norm == pytest.approx(0.05 * math.sqrt(5)) and not info.message


def wall():
    """A quadratic that ends where w_0 is below minus one."""
    return of_vector(lambda w: 0.5 * (w**2).sum() + torch.where(w[0] < -1, torch.inf, 0.0), [1.0, 1.0])


def test_step_to_where_the_loss_is_not_finite():
    """Looked at before it is taken, it is rejected and the velocity forgotten; otherwise the next step says it."""
    objective = wall()
    method = HeavyBall(learning_rate=3.0, evaluate=True)
    theta, info = method.step(objective, objective.parameters())
    assert not info.accepted and "not finite" in info.message and info.step_norm == 0
    np.testing.assert_array_equal(np.asarray(theta), [1.0, 1.0])
    assert not np.asarray(method.state["velocity"]).any() and method.steps_taken == 1
    method.learning_rate = 0.5
    theta, info = method.step(objective, theta)
    assert info.accepted and info.actual_decrease > 0
    method = HeavyBall(learning_rate=3.0, evaluate=False)
    theta, _ = method.step(objective, objective.parameters())
    before = dict(method.state)
    with pytest.raises(NonFiniteLossError):
        method.step(objective, theta)
    assert method.state.keys() == before.keys() and all(method.state[name] is before[name] for name in before)


def test_wrong_input():
    for arguments, words in [
        ({"learning_rate": 0.0}, "learning_rate"), ({"learning_rate": -1.0}, "learning_rate"), ({"learning_rate": np.nan}, "learning_rate"),
        ({"learning_rate": 0.1, "momentum": 1.0}, "momentum"), ({"learning_rate": 0.1, "momentum": -0.1}, "momentum"),
    ]:  # fmt: skip
        for kind in (HeavyBall, Nesterov):
            with pytest.raises(ValueError, match=words):
                kind(**arguments)
    objective = quadratic([1.0, 2.0])
    with pytest.raises(ValueError, match="learning rate of step 0"):
        HeavyBall(learning_rate=lambda step: -1.0).step(objective, [1.0, 1.0])
    with pytest.raises(FloatingPointError):
        HeavyBall(learning_rate=0.1).step(objective, [np.nan, 1.0])
    method = HeavyBall(learning_rate=0.1)
    method.step(objective, [1.0, 1.0])
    with pytest.raises(ValueError, match="2 parameters"):
        method.step(quadratic([1.0, 2.0, 3.0]), np.ones(3))


def test_other_settings_are_not_restored(tmp_path):
    method = HeavyBall(learning_rate=0.1)
    method.step(quadratic([1.0]), [1.0])
    method.save(tmp_path / "state.npz")
    with pytest.raises(ValueError, match="momentum"):
        HeavyBall(learning_rate=0.1, momentum=0.5).restore(tmp_path / "state.npz")
    with pytest.raises(ValueError, match="HeavyBall"):
        Nesterov(learning_rate=0.1).restore(tmp_path / "state.npz")
