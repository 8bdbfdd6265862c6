"""A learning rate that follows the spectrum: on quadratics that stand still or move, and on mini-batches."""

import math

import numpy as np
import pytest
import torch
from first_order_problems import network, of_vector, quadratic, resumed_is_identical, run

import linop_spectra as ls
from linop_spectra.evolution import stability_threshold
from linop_spectra.optim.first_order.batch_shift import batch_shift
from linop_spectra.optim.first_order.momentum import HeavyBall, Nesterov
from linop_spectra.optim.first_order.parameters import heavy_ball_parameters, nesterov_parameters
from linop_spectra.optim.first_order.schedule import SpectralSchedule

H = np.geomspace(0.01, 1.0, 12)


@pytest.mark.parametrize("nesterov", [False, True])
def test_quadratic_gives_the_best_parameters(nesterov):
    """After twelve Lanczos steps both ends of twelve eigenvalues are known, and the steps are those of the best fixed method."""
    method = SpectralSchedule(num_steps=12, factor=1.0, nesterov=nesterov)
    theta, infos = run(method, quadratic(H), 30)
    expected = (nesterov_parameters if nesterov else heavy_ball_parameters)(largest=1.0, smallest=0.01)
    assert infos[0].learning_rate == pytest.approx(expected.learning_rate, rel=1e-9)
    assert infos[0].details["momentum"] == pytest.approx(expected.momentum, rel=1e-8)
    assert [info.num_matvecs for info in infos[:3]] == [12, 0, 0] and [info.refreshed for info in infos[:3]] == [True, False, False]
    fixed = (Nesterov if nesterov else HeavyBall)(learning_rate=expected.learning_rate, momentum=expected.momentum)
    np.testing.assert_allclose(np.asarray(theta), np.asarray(run(fixed, quadratic(H), 30)[0]), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("momentum, nesterov", [(0.0, False), (0.8, False), (0.8, True)])
@pytest.mark.parametrize("factor", [0.5, 1.0])
def test_fixed_momentum_takes_a_share_of_the_threshold(momentum, nesterov, factor):
    method = SpectralSchedule(num_steps=12, factor=factor, momentum=momentum, nesterov=nesterov)
    _, info = method.step(quadratic(H), np.ones(12))
    limit = stability_threshold(1.0, "nesterov" if nesterov else "heavy_ball", momentum=momentum)
    assert info.learning_rate == pytest.approx(factor * limit, rel=1e-9)


@pytest.mark.parametrize("momentum", ["optimal", 0.0, 0.9])
def test_moving_spectrum(momentum):
    """Curvature that grows by 2 % a step: stable where it is measured in time, divergent where it is not."""

    def final(every):
        method, objective = SpectralSchedule(refresh_every=every, num_steps=12, factor=0.8, momentum=momentum), quadratic(H)
        theta, largest, ratios = objective.parameters(), 0.0, []
        for step in range(200):
            h = H * 1.02**step
            theta, info = method.step(objective.with_data([torch.as_tensor(h)]), theta)
            beta = info.details["momentum"]
            ratios.append(info.learning_rate * h[-1] / (2 * (1 + beta)))
            largest = max(largest, float(np.abs(theta[-1])))
            if largest > 1e6:
                break
        return largest, max(ratios)

    largest, ratio = final(every=8)  # 1.02^7 * 0.8 < 1
    assert largest < 10 and ratio < 1
    largest, ratio = final(every=200)
    assert largest > 1e6 and ratio > 1


@pytest.mark.parametrize("growth", [1.0, 1.3, math.inf])
def test_falling_spectrum(growth):
    """The learning rate falls with the inverse of the curvature at once, and rises with it by no more than `growth` at a refresh."""
    method, objective = SpectralSchedule(refresh_every=1, num_steps=12, factor=1.0, growth=growth, momentum=0.0), quadratic(H)
    rates = []
    for scale in (1.0, 0.5, 0.5, 4.0, 1.0):
        _, info = method.step(objective.with_data([torch.as_tensor(scale * H)]), np.ones(12))
        rates.append(info.learning_rate / 2)
    bounds = [1.0, max(0.5, 1 / growth), max(0.5, 1 / growth**2), 4.0, max(1.0, 4 / growth)]
    np.testing.assert_allclose(rates, 1 / np.array(bounds), rtol=1e-8)


def test_heavy_ball_is_stable_exactly_below_the_threshold():
    """The known answer behind the schedule: 2 (1 + momentum) / lambda."""
    for factor, stable in [(0.97, True), (1.03, False)]:
        theta, _ = run(HeavyBall(learning_rate=factor * 2 * 1.8, momentum=0.8), quadratic(H), 250)
        assert (abs(float(theta[-1])) < 1) is stable


def test_few_lanczos_steps_are_safe():
    """The residual of the largest Ritz value is part of it, so that three steps of two hundred eigenvalues do not diverge."""
    h = np.linspace(0.0, 1.0, 200) ** 0.3
    for seed in range(5):
        _, infos = run(SpectralSchedule(refresh_every=1000, num_steps=3, factor=1.0, momentum=0.5, seed=seed), quadratic(h), 80)
        assert infos[0].details["largest"] >= 1.0 and infos[-1].loss < infos[0].loss


def test_smallest_eigenvalue_is_resolved_or_the_weight_decay():
    h = np.concatenate([np.zeros(30), [0.5, 1.0, 4.0]])
    _, info = SpectralSchedule(num_steps=20).step(quadratic(h), np.ones(33))
    assert info.details["smallest"] == pytest.approx(0.5, rel=1e-8)
    model, data = network()
    objective = ls.objective(model, "cross_entropy", data, weight_decay=0.02)
    _, info = SpectralSchedule(num_steps=30, matrix="ggn").step(objective, objective.parameters())
    assert info.details["smallest"] == 0.02
    top = float(np.linalg.eigvalsh(np.asarray(objective.ggn().to_dense()))[-1])
    assert info.details["largest"] == pytest.approx(top, rel=1e-6)


def test_limit_of_the_momentum():
    method = SpectralSchedule(num_steps=2, largest_momentum=0.3, factor=1.0)
    _, info = method.step(quadratic([0.001, 1.0]), np.ones(2))
    assert info.details["momentum"] == 0.3 and info.learning_rate == pytest.approx((1 + math.sqrt(0.3)) ** 2, rel=1e-9)


def test_started_at_the_gradient():
    """Lanczos sees only what the gradient has: without a part along the largest eigenvector that sets no limit."""
    _, info = SpectralSchedule(num_steps=12, start_at="gradient", factor=1.0).step(quadratic(H), np.append(np.ones(11), 0.0))
    assert info.details["largest"] == pytest.approx(H[-2], rel=1e-9)
    _, info = SpectralSchedule(num_steps=12, start_at="gradient").step(quadratic(H), np.zeros(12))
    assert info.accepted and info.step_norm == 0 and "gradient is zero" in info.message


# -- mini-batches ------------------------------------------------------------------------------------------------------


def regression(batch_size=None, examples=3000, order=120, spike=6.0):
    """Linear regression with one large eigenvalue; the Hessian is twice the covariance of the inputs."""
    torch.manual_seed(0)
    x = torch.randn(examples, order, dtype=torch.float64)
    x[:, 0] *= math.sqrt(spike)
    layer = torch.nn.Linear(order, 1, bias=False).double()
    return ls.objective(layer, "mse", (x, x.sum(dim=1, keepdim=True)), batch_size=batch_size), x.numpy()


def top_of_batches(x, size, count=40):
    """Largest eigenvalues of random batches, shape (count,), dense."""
    rng = np.random.default_rng(0)
    tops = []
    for _ in range(count):
        rows = x[rng.choice(len(x), size, replace=False)]
        tops.append(2 / size * np.linalg.svd(rows, compute_uv=False)[0] ** 2)
    return np.array(tops)


@pytest.mark.parametrize("own_batches", [True, False])
def test_correction_for_batches(own_batches):
    """The largest eigenvalue of batches of 200 is that of all data and its shift, with the data in batches or in one piece."""
    objective, x = regression(150 if own_batches else None)
    matrix = 2 / len(x) * x.T @ x
    values, vectors = np.linalg.eigh(matrix)
    shift = batch_shift(lambda o: o.hessian(), objective, 200, float(values[-1]), vectors[:, -1], float(np.median(values)))
    tops = top_of_batches(x, 200)
    assert tops.mean() > 1.1 * values[-1]
    assert abs(values[-1] + shift - tops.mean()) < 3 * tops.std() / math.sqrt(len(tops)) + 0.1 * shift
    # Half of the data: the eigenvalue of all of them is shifted already by their own choice.
    half = batch_shift(lambda o: o.hessian(), objective, 1500, float(values[-1]), vectors[:, -1], float(np.median(values)))
    tops = top_of_batches(x, 1500)
    assert abs(values[-1] + half - tops.mean()) < 3 * tops.std() / math.sqrt(len(tops)) + 0.1 * half
    assert half / shift == pytest.approx((1 / 1500 - 1 / 3000) / (1 / 200 - 1 / 3000), rel=1e-9)
    # In the schedule, from a few Lanczos steps.
    batch = objective.with_data((torch.as_tensor(x[:200]), torch.zeros(200, 1, dtype=torch.float64)))
    method = SpectralSchedule(num_steps=25, momentum=0.0, factor=1.0)
    _, info = method.step(batch, np.ones(x.shape[1]), curvature=objective)
    assert info.details["batch_shift"] == pytest.approx(shift, rel=0.02) and info.num_matvecs == 26
    assert info.learning_rate == pytest.approx(2 / (values[-1] + shift), rel=0.01)
    _, info = SpectralSchedule(num_steps=25, momentum=0.0, factor=1.0, batch_correction=False).step(
        batch, np.ones(x.shape[1]), curvature=objective
    )
    assert info.learning_rate == pytest.approx(2 / values[-1], rel=1e-3) and info.details["batch_shift"] == 0


def test_no_correction_without_smaller_batches():
    objective, x = regression(500, examples=1000)
    method = SpectralSchedule(num_steps=10)
    _, info = method.step(objective, np.ones(x.shape[1]))
    assert info.details["batch_shift"] == 0 and info.num_matvecs == 10
    assert batch_shift(lambda o: o.hessian(), objective, 1000, 10.0, np.ones(x.shape[1]), 0.0) == 0


def test_data_that_cannot_be_cut():
    objective = of_vector(lambda w: (w**2).sum(), [1.0, 1.0])
    with pytest.raises(ValueError, match="batch_correction=False"):
        batch_shift(lambda o: o.hessian(), objective, 0, 1.0, np.ones(2), 0.0)


def test_network_without_tuning():
    """With no setting but the spectrum a classifier ends within ten per cent of the best of nine tuned runs of heavy ball."""
    torch.manual_seed(0)
    x = torch.randn(100, 6, dtype=torch.float64)
    teacher = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double()
    objective = ls.objective(model, "cross_entropy", (x, (3 * teacher(x)).argmax(1)), weight_decay=1e-3)

    def final(method):
        try:
            return objective.with_parameters(run(method, objective, 120)[0]).value()
        except FloatingPointError:
            return math.inf

    tuned = [final(HeavyBall(learning_rate=rate, momentum=beta)) for rate in (1.0, 3.0, 10.0) for beta in (0.8, 0.9, 0.95)]
    for options in [{}, {"matrix": "ggn"}, {"refresh_every": 10}, {"refresh_every": 10, "matrix": "ggn"}]:
        assert final(SpectralSchedule(**options)) < 1.1 * min(tuned)


# -- state and bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "start_at": "gradient"}, {"nesterov": True, "matrix": "ggn"}])
def test_resumes_bit_for_bit(options, tmp_path):
    model, (x, y) = network()
    objective = ls.objective(model, "cross_entropy", (x, y), batch_size=8)
    objectives = [objective.with_data((x[i : i + 4], y[i : i + 4])) for i in range(6)]

    def make():
        return SpectralSchedule(refresh_every=2, num_steps=5, **options)

    assert resumed_is_identical(make, objectives, tmp_path, curvature=objective)


def test_no_positive_curvature():
    """At first an error, later the parameters of before."""
    concave = of_vector(lambda w: -0.5 * (w**2).sum(), [1.0, 1.0])
    with pytest.raises(ValueError, match="No positive eigenvalue of the Hessian"):
        SpectralSchedule(num_steps=2).step(concave, [1.0, 1.0])
    turning = of_vector(lambda w: 0.5 * (w**2).sum() - (w**4).sum(), [0.1, 0.1])
    method = SpectralSchedule(refresh_every=1, num_steps=2)
    _, first = method.step(turning, [0.01, 0.01])
    _, second = method.step(turning, [3.0, 3.0])
    assert "No positive eigenvalue" in second.message and second.learning_rate == first.learning_rate


def test_rejected_step_halves_the_learning_rate():
    objective = of_vector(lambda w: 0.5 * (w**2).sum() + torch.where(w[0] < -0.5, torch.inf, 0.0), [1.0, 1.0])
    method = SpectralSchedule(num_steps=2, factor=0.9, momentum=0.0, evaluate=True)
    theta, first = method.step(objective, objective.parameters())
    assert not first.accepted and first.learning_rate == pytest.approx(1.8)
    theta, second = method.step(objective, theta)
    assert second.accepted and second.learning_rate == pytest.approx(0.9) and second.actual_decrease > 0


@pytest.mark.parametrize("arguments, words", [
    ({"refresh_every": 0}, "refresh_every"), ({"num_steps": 0}, "num_steps"), ({"matrix": "kfac"}, "matrix"), ({"factor": 1.5}, "factor"),
    ({"factor": 0.0}, "factor"), ({"growth": 0.9}, "growth"), ({"momentum": "best"}, "momentum"), ({"momentum": 1.0}, "momentum"),
    ({"largest_momentum": 1.0}, "largest_momentum"), ({"start_at": "top"}, "start_at"),
])  # fmt: skip
def test_wrong_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        SpectralSchedule(**arguments)


def test_non_finite_start():
    with pytest.raises(FloatingPointError):
        SpectralSchedule().step(quadratic(H), np.full(12, np.nan))
