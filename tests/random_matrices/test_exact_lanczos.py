"""Exact laws of Lanczos coefficients at finite order (Dumitriu and Edelman, 2002): a test of ensembles and of Lanczos at once."""

import numpy as np
import pytest
from helpers import same_law
from scipy import stats

import linop_spectra as ls
from linop_spectra.random_matrices import wigner, wishart

STEPS = 5


def coefficients(make, draws):
    runs = [ls.lanczos(make(seed), STEPS, seed=seed + 10_000) for seed in range(draws)]
    return np.array([run.alphas[0] for run in runs]), np.array([run.betas[0] for run in runs])


def independent(*columns):
    """Whether no two columns are correlated."""
    correlations = np.corrcoef(np.stack(columns))[np.triu_indices(len(columns), 1)]
    return np.abs(correlations).max() < 4.5 / np.sqrt(len(columns[0]))


@pytest.mark.parametrize("ensemble, beta", [("goe", 1), ("gue", 2)])
def test_gaussian_ensembles(ensemble, beta):
    """alpha_j is normal of variance 2 s / (beta n), and beta n beta_j^2 / s chi-square with beta (n - 1 - j) degrees, all independent."""
    n, variance, draws = 40, 2.0, 300
    alphas, betas = coefficients(lambda seed: wigner(n, variance=variance, seed=seed, ensemble=ensemble), draws)
    squares = beta * n * betas**2 / variance
    for j in range(STEPS):
        assert same_law(alphas[:, j], stats.norm(0, np.sqrt(2 * variance / (beta * n))))
        assert same_law(squares[:, j], stats.chi2(beta * (n - 1 - j)))
    assert independent(*alphas.T, *squares.T)
    assert not same_law(1.1025 * squares[:, 0], stats.chi2(beta * (n - 1)))  # a scale that is 5 % off
    assert not same_law(alphas.ravel(), stats.norm(0, np.sqrt(2 * variance / ((3 - beta) * n))))  # the other ensemble


@pytest.mark.parametrize("dtype, beta", [(np.float64, 1), (np.complex128, 2)])
@pytest.mark.parametrize("p, n", [(30, 50), (50, 30)])
def test_wishart(p, n, dtype, beta):
    """Squares of the bidiagonal factor are chi-square: beta (n - j) degrees on the diagonal, beta (p - 1 - j) below."""
    draws = 250
    alphas, betas = coefficients(lambda seed: wishart(p, n, seed=seed, dtype=dtype), draws)
    diagonal, below = [beta * n * alphas[:, 0]], []
    for j in range(STEPS - 1):
        below.append((beta * n * betas[:, j]) ** 2 / diagonal[j])
        diagonal.append(beta * n * alphas[:, j + 1] - below[j])
    for j in range(STEPS):
        assert same_law(diagonal[j], stats.chi2(beta * (n - j)))
    for j in range(STEPS - 1):
        assert same_law(below[j], stats.chi2(beta * (p - 1 - j)))
        assert not same_law(below[j], stats.chi2(beta * (n - j)))  # rows and columns swapped
    assert independent(*diagonal, *below)
