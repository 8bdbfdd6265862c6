"""Takeuchi's criterion, gradient noise, evidence, and what the Gauss-Newton matrix leaves out, where they are known."""

import numpy as np
import pytest
from metric_networks import B1, B2, FRAMEWORKS, W1, W2, X, dense, in_torch, regression
from scipy import stats

import linop_spectra as ls
from linop_spectra.curvature import metrics

torch = pytest.importorskip("torch")


def _fitted(noise, n=4000, p=20, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, p))
    y = x @ rng.standard_normal(p) + noise * rng.standard_normal(n)
    theta = np.linalg.lstsq(x, y, rcond=None)[0]
    return x, y, theta


@pytest.mark.parametrize("noise, expected", [(np.sqrt(0.5), 20.0), (2 * np.sqrt(0.5), 80.0)])
def test_takeuchi_criterion_of_regression(noise, expected):
    """p for the noise that the likelihood says (variance 1/2), 4 p for twice its deviation."""
    x, y, theta = _fitted(noise)
    objective = regression(x, y, theta)
    found = metrics.takeuchi_criterion(objective, num_probes=20, tol=1e-8)
    assert found.value == pytest.approx(expected, rel=0.05) and found.method == "exact"
    gradients = -2 * (y - x @ theta)[:, None] * x
    exact = np.trace(np.linalg.solve(2 * x.T @ x / len(x), gradients.T @ gradients / len(x)))
    assert found.value == pytest.approx(exact, rel=1e-6)
    low, high = metrics.takeuchi_criterion(objective, num_probes=8, seed=1).confidence_interval(0.999)
    assert low < exact < high
    assert metrics.trace_ratio(objective).value == pytest.approx(expected / 20, rel=0.1)


def test_takeuchi_criterion_needs_a_regular_matrix():
    objective = in_torch()
    damped = metrics.takeuchi_criterion(objective, damping=0.1, num_probes=43, tol=1e-9)
    C, G = np.asarray(objective.gradient_covariance().to_dense()), dense(objective, "ggn")
    assert damped.value == pytest.approx(np.trace(np.linalg.solve(G + 0.1 * np.eye(43), C)), rel=1e-6)
    x = np.zeros((6, 2))
    x[:, 0] = np.arange(1, 7)
    singular = regression(np.c_[x[:, 0], x[:, 0]], np.ones(6), np.array([1.0, 2.0]))
    assert np.isfinite(metrics.takeuchi_criterion(singular, damping=1.0, num_probes=2).value)
    with pytest.raises(ValueError, match="matrix"):
        metrics.takeuchi_criterion(objective, matrix="other")
    with pytest.raises(ValueError, match="damping"):
        metrics.takeuchi_criterion(objective, damping=-1.0)


def test_gradient_noise_scale_of_a_gaussian_model():
    """Mean of a Gaussian: gradients 2 (theta - x_n), so that the scale is P s^2 / |theta - mean|^2."""
    values, curved, p, distance, spread = [], [], 3, 0.6, 1.5
    for seed in range(30):
        rng = np.random.default_rng(seed)
        y = rng.standard_normal((240, p)) * spread + distance
        model = torch.nn.Linear(1, p, bias=True).double()
        with torch.no_grad():
            model.weight.zero_()
            model.bias.zero_()
        data = (torch.zeros(240, 1, dtype=torch.float64), torch.as_tensor(y))
        objective = ls.objective(model, lambda f, t: ((f - t) ** 2).sum(dim=1).mean(), data, batch_size=20)
        values.append(metrics.gradient_noise_scale(objective).value)
        curved.append(metrics.curvature_noise_scale(objective, num_probes=11).value)
    expected = spread**2 / distance**2
    for found in (values, curved):
        # The ratio of two means has a bias of the order of their relative variance.
        assert abs(np.mean(found) - expected) < 4 * np.std(found, ddof=1) / np.sqrt(30) + 0.1 * expected
    np.testing.assert_allclose(values, curved, rtol=1e-8)  # the Hessian is twice the identity


def test_curvature_noise_scale_agrees_with_dense_matrices():
    objective = in_torch(batch_size=5)
    g = np.asarray(objective.gradient())
    parts = [np.asarray(part.gradient()) for part in objective.per_batch()]
    H = dense(objective)
    noise = sum(5 * (part - g) @ H @ (part - g) for part in parts) / 5
    clean = g @ H @ g - noise / 30
    exact = metrics.curvature_noise_scale(objective, num_probes=5)
    assert exact.value == pytest.approx(noise / clean, rel=1e-8) and exact.num_matvecs == 6
    trace = sum(5 * (part - g) @ (part - g) for part in parts) / 5
    assert metrics.gradient_noise_scale(objective).value == pytest.approx(trace / (g @ g - trace / 30), rel=1e-9)


def test_no_gradient_and_no_batches_are_said():
    x, y, theta = _fitted(1.0, n=60, p=3)
    with pytest.raises(ValueError, match="no larger than what its noise explains"):
        metrics.gradient_noise_scale(regression(x, y, theta, batch_size=10))
    with pytest.raises(ValueError, match="noise explains"):
        metrics.curvature_noise_scale(regression(x, y, theta, batch_size=10))
    for metric in (metrics.gradient_noise_scale, metrics.curvature_noise_scale):
        with pytest.raises(ValueError, match="smaller batch_size"):
            metric(in_torch())


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_residual_ratio(framework):
    objective = FRAMEWORKS[framework]()
    H, G = dense(objective), dense(objective, "ggn")
    truth = np.linalg.norm(H - G) / np.linalg.norm(H)
    assert metrics.residual_ratio(objective, num_probes=43).value == pytest.approx(truth, rel=1e-9)
    low, high = metrics.residual_ratio(objective, num_probes=12, seed=2).confidence_interval(0.999)
    assert low <= truth <= high


def test_a_loss_without_outputs_has_no_gauss_newton_matrix():
    model = torch.nn.Linear(2, 1).double()
    loss = ls.BatchLoss(lambda m, batch: (m(batch).square().sum(), len(batch)))
    objective = ls.objective(model, loss, [torch.randn(4, 2, dtype=torch.float64)])
    for metric in (metrics.residual_ratio, metrics.laplace_evidence, metrics.takeuchi_criterion, metrics.logit_metrics):
        with pytest.raises(TypeError):
            metric(objective)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 30.0])
def test_evidence_of_bayesian_linear_regression(alpha):
    """The targets are normal with covariance I/2 + X X^T / alpha, at any precision, exactly."""
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((15, 4)), rng.standard_normal(15)
    posterior = np.linalg.solve(2 * x.T @ x + alpha * np.eye(4), 2 * x.T @ y)
    expected = stats.multivariate_normal(cov=np.eye(15) / 2 + x @ x.T / alpha).logpdf(y)
    found = metrics.laplace_evidence(regression(x, y, posterior, weight_decay=0.7), [alpha], log_constant=-7.5 * np.log(np.pi))
    assert found.log_evidence[0] == pytest.approx(expected, abs=1e-8)
    mu = np.linalg.eigvalsh(2 * x.T @ x)
    assert found.effective_dimension[0] == pytest.approx(np.sum(mu / (mu + alpha)), rel=1e-9)


def test_one_run_serves_all_precisions(tmp_path):
    objective = in_torch()
    alphas = np.geomspace(1e-2, 1e2, 9)
    found = metrics.laplace_evidence(objective, alphas, num_steps=43)
    mu = 30 * np.maximum(np.linalg.eigvalsh(dense(objective, "ggn")), 0)
    theta = np.asarray(objective.parameters())
    for alpha, value, size in zip(alphas, found.log_evidence, found.effective_dimension, strict=True):
        exact = -30 * objective.value() - alpha / 2 * theta @ theta + 43 / 2 * np.log(alpha) - 0.5 * np.log(mu + alpha).sum()
        assert value == pytest.approx(exact, abs=1e-6) and size == pytest.approx((mu / (mu + alpha)).sum(), rel=1e-6)
    assert found.num_matvecs <= 4 * 43 and found.best in alphas
    np.testing.assert_allclose(found.updated, found.effective_dimension / (theta @ theta))
    found.save(tmp_path / "evidence.npz")
    np.testing.assert_array_equal(ls.load(tmp_path / "evidence.npz").log_evidence, found.log_evidence)
    few = metrics.laplace_evidence(objective, alphas, num_steps=10, num_probes=2)
    # Half of a 95 % interval, twice: one draw of the probes is about four standard errors off at most.
    assert (np.abs(few.log_evidence - found.log_evidence) <= 2 * few.log_evidence_error + 1e-6).all()
    with pytest.raises(ValueError, match="prior_precisions"):
        metrics.laplace_evidence(objective, [-1.0])
    assert len(metrics.laplace_evidence(objective).prior_precisions) == 25


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_clustering_of_logit_gradients(framework):
    """Against the Jacobian of a linear map of the features: computed with loops over all pairs."""
    objective = FRAMEWORKS[framework](batch_size=11)
    found = metrics.logit_metrics(objective, per_class=3, seed=4)
    chosen = objective.subset(3, 4)
    J = np.asarray(chosen.jacobian().to_dense()).reshape(-1, 3, objective.num_parameters)
    labels = np.concatenate([chosen.functions.labels(batch) for batch in chosen.batches()])
    unit = J / np.linalg.norm(J, axis=2, keepdims=True)
    same_class, same, other = {}, [], []
    for i in range(len(J)):
        for j in range(len(J)):
            for k in range(3):
                for m in range(3):
                    cosine = unit[i, k] @ unit[j, m]
                    if k != m:
                        other.append(cosine)
                    elif i != j:
                        same.append(cosine)
                        if labels[i] == labels[j]:
                            same_class.setdefault(labels[i], []).append(cosine)
    assert found["q_sl"].value == pytest.approx(np.mean(same), abs=1e-9)
    assert found["q_dl"].value == pytest.approx(np.mean(other), abs=1e-9)
    assert found["q_slsc"].value == pytest.approx(np.mean([np.mean(one) for one in same_class.values()]), abs=1e-9)
    hidden = np.tanh(X @ W1.T + B1) @ W2.T + B2
    assert found["logit_deviation"].value == pytest.approx(np.sqrt(hidden.var(axis=1, ddof=1).mean()), rel=1e-9)


def test_clusters_of_a_model_that_has_them():
    """Independent clusters: gradients c_k + E with |c|^2 / (|c|^2 + |E|^2) = q, within any class."""
    rng = np.random.default_rng(0)
    centers, noise = rng.standard_normal((3, 4000)), 0.7 * rng.standard_normal((40, 3, 4000))
    J = centers + noise
    unit = J / np.linalg.norm(J, axis=2, keepdims=True)
    cosines = np.einsum("ikp,jmp->ikjm", unit, unit)
    from linop_spectra.curvature.metrics.logits import clustering

    own, same, other = clustering(cosines, rng.integers(0, 3, 40))
    assert same == pytest.approx(1 / 1.49, abs=0.01) and own == pytest.approx(same, abs=0.01) and abs(other) < 0.05


def test_logits_of_another_form_are_refused():
    x = torch.randn(8, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="examples, classes"):
        metrics.logit_metrics(ls.objective(torch.nn.Linear(3, 1).double(), "mse", (x, torch.randn(8, 1, dtype=torch.float64))))
    with pytest.raises(ValueError, match="per_class"):
        metrics.logit_metrics(in_torch(), per_class=1)
