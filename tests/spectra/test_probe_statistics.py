"""What one random probe says about a spectrum: exact laws, and what deflation does to them."""

import numpy as np
import pytest
from helpers import same_law
from scipy import stats

import linop_spectra as ls


def masses(values, dtype, draws):
    """Mass that single probes give to the eigenvalue one; the others are zero, so two steps are exact."""
    operator = ls.aslinearoperator(np.diag(values).astype(dtype), hermitian=True)
    out = []
    for seed in range(draws):
        S = ls.spectral_density(operator, num_steps=4, num_probes=1, seed=seed, deflate=False)
        out.append(1 - S.cdf(0.5))
    return np.array(out)


@pytest.mark.parametrize("m", [1, 12, 40])
def test_distribution_function_of_one_probe_is_a_beta_variable(m):
    n = 50
    assert same_law(masses(np.r_[np.zeros(n - m), np.ones(m)], np.float64, 400), stats.beta(m / 2, (n - m) / 2))


def test_distribution_function_of_one_complex_probe_is_a_beta_variable():
    n, m = 50, 12
    assert same_law(masses(np.r_[np.zeros(n - m), np.ones(m)], np.complex128, 400), stats.beta(m, n - m))


def test_weight_of_an_outlier_is_chi_square_with_one_degree():
    n = 300
    operator = ls.diagonal_operator(np.r_[np.linspace(-1, 1, n - 1), 8.0])
    weights = [ls.spectral_density(operator, num_steps=25, num_probes=1, seed=seed, deflate=False).weights[-1] for seed in range(400)]
    assert same_law(np.array(weights), stats.beta(0.5, (n - 1) / 2))
    assert same_law(n * np.array(weights), stats.chi2(1))  # to 1 / n
    assert np.std(weights) / np.mean(weights) == pytest.approx(np.sqrt(2), abs=0.25)


@pytest.mark.slow
def test_trace_of_ten_equal_outliers_from_one_probe_and_after_deflation():
    """Relative deviation sqrt(2) |H|_F / tr H = 0.447 without deflation, below 0.01 with it."""
    n, seeds = 1000, 300
    eigenvalues = np.r_[1e-2 * np.random.default_rng(0).laplace(size=n - 10), np.linspace(9, 11, 10)]
    operator, trace = ls.diagonal_operator(eigenvalues), eigenvalues.sum()
    predicted = np.sqrt(2) * np.linalg.norm(eigenvalues) / trace
    assert predicted == pytest.approx(0.447, abs=0.005)

    def relative(count, **options):
        return np.array(
            [ls.spectral_density(operator, num_steps=30, seed=seed, **options).trace().value / trace - 1 for seed in range(count)]
        )

    plain = relative(seeds, num_probes=1, deflate=False)
    # The standard error of a standard deviation of a chi-square mixture with kurtosis 3 + 12 / 10 is 5 % here.
    assert np.std(plain) == pytest.approx(predicted, rel=4 * np.sqrt(3.2 / (4 * seeds)))
    assert abs(plain.mean()) < 5 * predicted / np.sqrt(seeds)
    verified = relative(60, num_probes=2)
    assert np.std(verified) < 0.01 and np.abs(verified).max() < 0.04
    single = relative(60, num_probes=1)
    # The guard of a single probe objects by chance, about once in a hundred runs with ten outliers.
    assert np.sum(np.abs(single) < 0.05) >= 57 and np.std(np.sort(np.abs(single))[:57]) < 0.01


@pytest.mark.parametrize("probes", [1, 2, 5])
def test_standard_error_of_the_trace_is_the_deviation_over_seeds(probes):
    """One probe says what others would say: its standard error is the spread over seeds, sqrt(2 Var / (p (n + 2))) times n."""
    n, seeds = 300, 200
    eigenvalues = np.linspace(-1, 3, n)
    operator = ls.diagonal_operator(eigenvalues)
    estimates = [ls.spectral_density(operator, num_steps=12, num_probes=probes, seed=seed).trace() for seed in range(seeds)]
    exact = n * np.sqrt(2 * np.var(eigenvalues) / (probes * (n + 2)))
    assert np.std([e.value for e in estimates]) == pytest.approx(exact, rel=4 / np.sqrt(2 * seeds))
    assert np.median([e.standard_error for e in estimates]) == pytest.approx(exact, rel=0.1)
    assert abs(np.mean([e.value for e in estimates]) - eigenvalues.sum()) < 5 * exact / np.sqrt(seeds)
