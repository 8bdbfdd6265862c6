"""What all methods share: the step, what it says, rejections, the state."""

import math

import numpy as np
import pytest
from descent_methods import Averaged

import linop_spectra as ls

torch = pytest.importorskip("torch")


def objective(seed=0, examples=20, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=dtype) / 2)
    x, y = torch.randn(examples, 3, generator=generator, dtype=dtype), torch.randn(examples, 1, generator=generator, dtype=dtype)
    return ls.objective(model, "mse", (x, y))


def run(method, obj, theta, steps):
    for _ in range(steps):
        theta, info = method.step(obj, theta)
    return theta, info


def test_a_step_says_what_it_did():
    obj = objective()
    theta = obj.parameters()
    before = theta.copy()
    after, info = Averaged(learning_rate=0.1).step(obj, theta)
    gradient = obj.gradient()
    np.testing.assert_array_equal(theta, before)
    np.testing.assert_allclose(after, before - 0.1 * gradient, rtol=1e-14)
    assert info.step == 0 and info.accepted and info.loss == pytest.approx(obj.value(), rel=1e-14)
    assert info.gradient_norm == pytest.approx(np.linalg.norm(gradient)) and info.step_norm == pytest.approx(0.1 * np.linalg.norm(gradient))
    assert info.actual_decrease == pytest.approx(obj.value() - obj.with_parameters(after).value(), rel=1e-10)
    assert info.predicted_decrease == pytest.approx(0.1 * gradient @ gradient) and 0 < info.ratio < 2
    assert (info.num_gradients, info.num_values, info.num_matvecs, info.learning_rate) == (1, 1, 0, 0.1)
    assert "step 0" in str(info)


def test_value_and_gradient_are_those_apart():
    obj = objective()
    decayed = ls.optim.optimizer.Objective(obj.functions, obj.point, obj.data, weight_decay=0.3)
    for one in (obj, decayed, *obj.per_batch()):
        value, gradient = one.value_and_gradient()
        assert value == pytest.approx(one.value(), rel=1e-14)
        np.testing.assert_array_equal(gradient, one.gradient())
    step = 1e-6 * gradient
    difference = decayed.with_parameters(decayed.parameters() + step).value() - decayed.with_parameters(decayed.parameters() - step).value()
    assert difference == pytest.approx(2 * float(step @ decayed.gradient()), rel=1e-5)


def test_a_loss_that_is_not_finite_rejects_the_step_and_keeps_the_state():
    obj = objective()
    method = Averaged(learning_rate=0.1)
    theta, _ = run(method, obj, obj.parameters(), 2)
    kept = dict(method.state)
    method.learning_rate = 1e300
    after, info = method.step(obj, theta)
    np.testing.assert_array_equal(after, theta)
    assert not info.accepted and info.step_norm == 0.0 and "not finite" in info.message and "rejected" in str(info)
    assert method.state["mean"] is kept["mean"] and method.state["scale"] == 0.1 and method.state["rejections"] == 1
    method.learning_rate = 0.1
    assert method.step(obj, after)[1].accepted


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_start_that_is_not_finite_is_said_and_changes_nothing(bad):
    obj = objective()
    method = Averaged()
    theta, _ = run(method, obj, obj.parameters(), 1)
    kept, steps = dict(method.state), method.steps_taken
    with pytest.raises(FloatingPointError, match="not finite"):
        method.step(obj, np.full_like(theta, bad))
    assert method.steps_taken == steps and all(method.state[name] is value for name, value in kept.items())


def test_resumed_runs_are_bit_identical(tmp_path):
    obj = objective()
    whole = run(Averaged(noise=0.01, seed=3), obj, obj.parameters(), 6)[0]
    first = Averaged(noise=0.01, seed=3)
    theta = run(first, obj, obj.parameters(), 3)[0]
    first.save(tmp_path / "state.npz")
    second = Averaged(noise=0.01, seed=3)
    second.restore(tmp_path / "state.npz")
    np.testing.assert_array_equal(run(second, obj, theta, 3)[0], whole)
    third = Averaged(noise=0.01, seed=3)
    third.load_state_dict(first.state_dict())
    np.testing.assert_array_equal(run(third, obj, theta, 3)[0], whole)


def test_a_state_of_something_else_is_refused(tmp_path):
    obj = objective()
    method = Averaged(learning_rate=0.1)
    run(method, obj, obj.parameters(), 1)
    method.save(tmp_path / "state.npz")
    with pytest.raises(ValueError, match=r"learning_rate \(0\.1 there, 0\.2 here\)"):
        Averaged(learning_rate=0.2).restore(tmp_path / "state.npz")

    class Other(Averaged):
        pass

    with pytest.raises(ValueError, match="state of 'Averaged', not of Other"):
        Other().restore(tmp_path / "state.npz")
    ls.Estimate(1.0).save(tmp_path / "estimate.npz")
    with pytest.raises(ValueError, match="does not hold the state"):
        Averaged().restore(tmp_path / "estimate.npz")
    with pytest.raises(ValueError, match="no entry 'settings'"):
        Averaged().load_state_dict({"method": "Averaged"})
    smaller = ls.objective(torch.nn.Linear(3, 1).double(), "mse", (torch.ones(4, 3).double(), torch.ones(4, 1).double()))
    restored = Averaged(learning_rate=0.1)
    restored.restore(tmp_path / "state.npz")
    with pytest.raises(ValueError, match="belongs to 21 parameters, but the objective has 4"):
        restored.step(smaller, smaller.parameters())


def test_bad_arguments():
    obj = objective()
    theta = obj.parameters()
    with pytest.raises(ValueError, match=r"shape \(3,\), but the objective has 21"):
        Averaged().step(obj, theta[:3])
    with pytest.raises(TypeError, match=r"made by linop_spectra\.objective"):
        Averaged().step("objective", theta)
    with pytest.raises(ValueError, match="same model"):
        Averaged().step(obj, theta, curvature="data")
    with pytest.raises(ValueError, match=r"learning rate of step 0 is -1\.0"):
        Averaged(learning_rate=-1.0).step(obj, theta)
    with pytest.raises(ValueError, match="noise is -1"):
        Averaged(noise=-1)
    assert repr(Averaged(learning_rate=rate)) == "Averaged(learning_rate='rate', noise=0.0, seed=0)"


def rate(step):
    return 0.1 / (1 + step)


def test_rates_may_be_schedules():
    obj = objective()
    method = Averaged(learning_rate=rate)
    _, info = run(method, obj, obj.parameters(), 2)
    assert info.learning_rate == 0.05


def test_float32_stays_float32():
    obj = objective(dtype=torch.float32)
    after, info = Averaged().step(obj, np.asarray(obj.parameters(), dtype=np.float64))
    assert after.dtype == np.float32 and info.accepted


def test_ratio_of_decreases():
    common = {"step": 0, "loss": 1.0, "gradient_norm": 1.0, "step_norm": 1.0, "accepted": True}
    info = ls.optim.StepInfo(**common, predicted_decrease=0.5, actual_decrease=-0.25)
    assert info.ratio == -0.5
    assert math.isnan(ls.optim.StepInfo(**common).ratio)
