"""Batch statistics against dense matrices, and the effect of the data against many draws of them."""

import numpy as np
import pytest
from metric_networks import FRAMEWORKS, dense, in_torch, regression

from linop_spectra.curvature import metrics
from linop_spectra.curvature.metrics.batch_statistics import measure_batches
from linop_spectra.curvature.metrics.batches import BatchSet
from linop_spectra.estimators import spectral_sums


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_statistics_of_batches_agree_with_dense_matrices(framework):
    objective = FRAMEWORKS[framework](batch_size=6)
    found = metrics.batch_statistics(objective, num_steps=43)
    H, g, parts = dense(objective), np.asarray(objective.gradient()), objective.per_batch()
    losses = np.array([part.value() for part in parts])
    assert found.loss_variance.value == pytest.approx(losses.var(ddof=1), rel=1e-9)
    scatter = sum((np.asarray(part.gradient()) - g) @ (np.asarray(part.gradient()) - g) for part in parts) / 4
    assert found.gradient_variance.value == pytest.approx(scatter, rel=1e-8)
    assert found.gradient_squared.value == pytest.approx(g @ g - scatter / 5, rel=1e-8)
    w, V = np.linalg.eigh(H)
    along = [np.mean([np.sum(((dense(part) - H) @ V[:, j]) ** 2) for part in parts]) * 5 / 4 for j in (0, -1)]
    assert [one.value for one in found.hessian.directional[:2]] == pytest.approx(along, rel=1e-4)
    assert found.kappa[1] == pytest.approx(along[1] / found.hessian.isotropic, rel=1e-4)
    assert found.mean_eigenvalue.value == pytest.approx(w.mean(), rel=1e-6)
    # Ledoit and Wolf: what is left of the Hessian after shrinking to a multiple of the identity.
    expected = 1 - found.hessian.isotropic * 6 / 30 / w.var()
    assert found.shrinkage.value == pytest.approx(max(0.0, expected), abs=1e-6)
    assert found.num_batches == 5 and found.batch_size == 6 and found.num_matvecs == 5 * 7
    assert found.predicted(30).largest == pytest.approx(max(w[-1], 0), rel=1e-5)
    sizes = [row["batch_size"] for row in found.table()]
    caps = [row["learning_rate_cap"] for row in found.table()]
    assert sizes == found.sizes() and sorted(caps) == caps and str(found).count("\n") == len(sizes)


def test_interval_of_a_prediction_holds_that_of_many_batches():
    """From four batches the prediction is uncertain; its interval holds the one from the exact variances in most draws of the data."""
    p, count, scales = 4, 64, np.sqrt([5.0, 2.0, 1.0, 1.0])
    S = scales**2
    held, above = 0, []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((count, p)) * scales
        objective = regression(x, rng.standard_normal(count), np.array([0.5, -0.2, 0.1, 0.3]), batch_size=16)
        found = metrics.batch_statistics(objective, seed=seed)
        low, high = found.predicted_interval(16)
        middle = found.predicted(16).largest
        w, V = np.linalg.eigh(2 * x.T @ x / count)
        # One example has 2 x x^T: E |(2 x x^T - 2 S) u|^2 = 4 (tr(S) <u, S u> + |S u|^2) for x of covariance S.
        u = V[:, -1]
        exact = 4 * (S.sum() * u @ (S * u) + u @ (S**2 * u))
        expected = w[-1] + exact * (1 / 16 - 1 / count) / w[-1]
        held += low.largest <= expected <= high.largest
        assert low.largest <= middle <= high.largest
        above.append(high.largest - middle)
        (row,) = [row for row in found.table() if row["batch_size"] == 16]
        assert (row["largest_low"], row["largest_high"]) == (low.largest, high.largest)
    assert held >= 34  # of 40 with a probability of 95 %: fewer have one of 4e-3
    assert np.median(above) > 0.2 * np.median(w[-1])  # and it says that it knows little


def test_effect_of_the_data_on_regression():
    """Standard errors and biases of one data set against the scatter over many; H = 2 X^T X / N with known moments."""
    p, count, scales = 4, 160, np.sqrt([5.0, 2.0, 1.0, 1.0])
    largest, smallest, traces, norms, errors = [], [], [], [], []
    theta = np.array([0.5, -0.2, 0.1, 0.3])
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((count, p)) * scales
        H = 2 * x.T @ x / count
        w = np.linalg.eigvalsh(H)
        largest.append(w[-1])
        smallest.append(w[0])
        traces.append(w.sum())
        norms.append(np.linalg.norm(H))
        if seed < 12:
            objective = regression(x, rng.standard_normal(count), theta, batch_size=16)
            shared = metrics.SharedRun.of(objective, seed=seed)
            slopes = {
                "trace": lambda data: data.function(spectral_sums.trace(data.shared.density)),
                "frobenius_norm": lambda data: data.function(spectral_sums.frobenius_norm(data.shared.density)),
            }
            errors.append(measure_batches(shared, BatchSet.of(objective, "test"), slopes=slopes).sampling)
    for name, values in (("largest_eigenvalue", largest), ("trace", traces), ("frobenius_norm", norms)):
        claimed = np.sqrt(np.mean([one[name][0] ** 2 for one in errors]))
        assert claimed == pytest.approx(np.std(values, ddof=1), rel=0.35), name
    bias = np.mean([one["frobenius_norm"][1] for one in errors])
    # Of one example |2 x x^T - 2 S|_F^2 has the mean 4 (tr(S)^2 + tr(S^2)), and the norm the variance 8 tr(S^4) / tr(S^2).
    S = scales**2
    added, own = 4 * (S.sum() ** 2 + (S**2).sum()) / count, 8 * (S**4).sum() / (S**2).sum() / count
    assert bias == pytest.approx((added - own) / (4 * np.linalg.norm(S)), rel=0.3)
    above = np.mean([one["largest_eigenvalue"][1] for one in errors])
    below = np.mean([one["smallest_eigenvalue"][1] for one in errors])
    assert above > 0 > below
    assert above == pytest.approx(np.mean(largest) - 10.0, abs=3 * np.std(largest) / np.sqrt(60) + 0.15)


def test_effect_of_the_data_on_the_gradient():
    """For the mean of a Gaussian every gradient has the covariance 4 s^2 I."""
    torch = pytest.importorskip("torch")
    import linop_spectra as ls

    claimed, norms = [], []
    for seed in range(20):
        y = np.random.default_rng(seed).standard_normal((120, 2)) + 1.5
        model = torch.nn.Linear(1, 2).double()
        with torch.no_grad():
            model.weight.zero_()
            model.bias.zero_()
        data = (torch.zeros(120, 1, dtype=torch.float64), torch.as_tensor(y))
        objective = ls.objective(model, lambda f, t: ((f - t) ** 2).sum(dim=1).mean(), data, batch_size=8)
        claimed.append(metrics.batch_statistics(objective, num_probes=1).sampling["gradient_norm"])
        norms.append(np.linalg.norm(2 * y.mean(axis=0)))
    assert np.mean([one[0] for one in claimed]) == pytest.approx(2 / np.sqrt(120), rel=0.15)
    assert np.mean([one[1] for one in claimed]) == pytest.approx(4 / 120 / (2 * 2 * 1.5 * np.sqrt(2)), rel=0.3)  # 4 / N across it


def test_one_probe_still_gives_a_standard_error():
    found = metrics.batch_statistics(in_torch(batch_size=6), num_probes=1, num_steps=10)
    assert np.isfinite(found.hessian.standard_error) and found.num_matvecs == 5 * 7


def test_what_cannot_be_measured_is_said():
    with pytest.raises(ValueError, match="smaller batch_size"):
        metrics.batch_statistics(in_torch())
    with pytest.raises(ValueError, match="kept no vectors"):
        metrics.batch_statistics(in_torch(batch_size=6), reorthogonalize="none", num_steps=5)
    objective = in_torch(batch_size=6)
    with pytest.raises(MemoryError, match="memory_budget"):
        measure_batches(metrics.SharedRun.of(objective, num_steps=5), BatchSet.of(objective, "test"), memory_budget=100)
