"""The whole pipeline, model to measure, on problems whose spectrum is known."""

import numpy as np
import pytest
from scipy import stats

import linop_spectra as ls
from linop_spectra.spectra.quadrature import gauss_rule

torch = pytest.importorskip("torch")


def linear_regression(num_features, num_examples, seed):
    """Linear regression on standard normal features: the Hessian of the mean squared error is 2 X^T X / N."""
    x = np.random.default_rng(seed).standard_normal((num_examples, num_features))
    model = torch.nn.Linear(num_features, 1, bias=False).double()
    data = torch.from_numpy(x), torch.zeros(num_examples, 1, dtype=torch.float64)
    return x, ls.objective(model, "mse", data, batch_size=300)  # the last batch is uneven


@pytest.mark.parametrize("ratio", [0.25, 4.0])
def test_linear_regression_follows_marchenko_pastur(ratio):
    """Marchenko and Pastur (1967): the spectrum of X^T X / N for p / N = ratio, its atom and its edges."""
    p, steps = 1000, 24
    x, objective = linear_regression(p, round(p / ratio), seed=1)
    covariance = 0.5 * objective.hessian()
    rng = np.random.default_rng(0)
    v = rng.standard_normal(p)
    exact = x.T @ x / len(x)
    np.testing.assert_allclose(covariance @ v, exact @ v, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(objective.ggn() @ v, objective.hessian() @ v, rtol=1e-10, atol=1e-10)

    law = ls.random_matrices.MarchenkoPastur(ratio=ratio)
    eigenvalues = np.linalg.eigvalsh(exact)  # one product found the operator to be this matrix
    zeros = int(np.sum(np.abs(eigenvalues) < 1e-10))
    atom = dict(law.atoms).get(0.0, 0.0)
    assert zeros == round(p * atom) == max(0, p - len(x))
    low, high = law.support[0]
    assert eigenvalues[zeros] == pytest.approx(low, abs=0.03 * (high - low))
    assert eigenvalues[-1] == pytest.approx(high, abs=0.03 * (high - low))

    S = ls.spectral_density(covariance, num_steps=60, seed=2)
    inside = S.cdf_band(np.array([1e-6]), confidence=0.999)
    assert inside[0][0] <= atom <= inside[1][0]
    assert S.bulk_edges()[1] == pytest.approx(high, rel=0.03)
    assert S.negative_mass()[0] == 0.0

    # One probe against the law's own Gauss rule; the null comes from probes of a matrix that has exactly the law's quantiles.
    nodes, weights = law.gauss_rule(steps)

    def distance(run):
        rule = gauss_rule(*run.jacobi())
        return stats.wasserstein_distance(rule.nodes, nodes, rule.weights, weights)

    observed = distance(ls.lanczos(covariance, steps, seed=3))
    ideal = ls.diagonal_operator(law.quantile((np.arange(p) + 0.5) / p))
    null = [distance(ls.lanczos(ideal, steps, seed=seed)) for seed in range(300)]
    assert observed < np.quantile(null, 0.995)
    # The test has teeth: the ratio turned upside down is found out.
    swapped = ls.random_matrices.MarchenkoPastur(ratio=1 / ratio)
    nodes, weights = swapped.gauss_rule(steps)
    assert distance(ls.lanczos(covariance, steps, seed=3)) > np.quantile(null, 0.995)


def test_softmax_regression_at_zero_weights():
    """At zero weights every example has the same output Hessian: H = (1/C) (I - 11^T / C) kron X^T X / n."""
    n, d, classes = 400, 12, 10
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((n, d)), rng.integers(0, classes, n)
    model = torch.nn.Linear(d, classes, bias=False).double()
    torch.nn.init.zeros_(model.weight)
    objective = ls.objective(model, "cross_entropy", (torch.from_numpy(x), torch.from_numpy(y)), batch_size=150)
    exact = np.kron((np.eye(classes) - 1 / classes) / classes, x.T @ x / n)
    hessian, ggn = objective.hessian(), objective.ggn()
    np.testing.assert_allclose(hessian.to_dense(), exact, atol=1e-14)
    np.testing.assert_allclose(ggn.to_dense(), exact, atol=1e-14)
    assert objective.value() == pytest.approx(np.log(classes), rel=1e-12)

    eigenvalues = np.linalg.eigvalsh(exact)
    assert int(np.sum(np.abs(eigenvalues) < 1e-12)) == d
    # d + 1 distinct eigenvalues: as many steps find them all, and none of multiplicity C - 1 is taken for a simple one.
    S = ls.spectral_density(hessian, num_steps=d + 1, seed=0)
    assert len(S.deflation.pinned) == 0 and len(S.deflation.atoms) > d / 2
    distinct = np.linalg.eigvalsh(x.T @ x / n) / classes
    for value in distinct:
        assert np.min(np.abs(S.nodes - value)) < 1e-9  # the last steps amplify rounding: the distinct eigenvalues are close
    low, high = S.trace().confidence_interval(0.999)
    assert low <= np.trace(exact) <= high
    assert S.negative_mass()[0] == 0.0 and S.negative_mass()[1] < 1e-3
    multiplicities = np.array([d * classes * atom.weight for atom in S.deflation.atoms if atom.value > 1e-6])
    # Mean of 4 probes of a multiplicity of 9: standard deviation about sqrt(2 * 9 / 4).
    assert np.all(np.abs(multiplicities - (classes - 1)) < 5 * np.sqrt(2 * (classes - 1) / 4))


def test_hessian_spectrum_of_a_network_against_dense_eigenvalues():
    """Every view of the measured spectrum of a small trained network holds against dense eigenvalues."""
    torch.manual_seed(0)
    x = torch.randn(90, 6, dtype=torch.float64)
    y = (x[:, :3].argmax(1) + (x[:, 5] > 1).long()) % 3
    model = torch.nn.Sequential(torch.nn.Linear(6, 14), torch.nn.Tanh(), torch.nn.LayerNorm(14), torch.nn.Linear(14, 3)).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    objective = ls.objective(model, "cross_entropy", (x, y), batch_size=40)
    hessian = objective.hessian()
    assert ls.check_operator(hessian).passed
    eigenvalues = np.linalg.eigvalsh(hessian.to_dense())
    S = ls.spectral_density(hessian, num_steps=60, seed=0)
    (low, low_residual), (high, high_residual) = S.extreme_eigenvalues()
    assert abs(high - eigenvalues[-1]) <= high_residual + 1e-12
    assert abs(low - eigenvalues[0]) <= low_residual + 1e-12
    for f in (None, np.abs, np.square):
        truth = eigenvalues.sum() if f is None else f(eigenvalues).sum()
        interval = S.trace(f).confidence_interval(0.999)
        assert interval[0] - 1e-10 <= truth <= interval[1] + 1e-10
    share = np.arange(1, len(eigenvalues) + 1) / len(eigenvalues)
    assert np.max(np.abs(S.cdf(eigenvalues + 1e-9) - share)) <= S.kolmogorov_bound + 1 / len(eigenvalues)
    assert stats.wasserstein_distance(S.nodes, eigenvalues, S.weights) <= S.wasserstein_bound
    for outlier in S.outliers():
        assert np.min(np.abs(eigenvalues - outlier.value)) <= outlier.residual_norm + 1e-12
