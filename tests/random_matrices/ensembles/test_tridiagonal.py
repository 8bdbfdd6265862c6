"""Tridiagonal ensembles have the eigenvalue laws of the dense ones, exactly."""

import numpy as np
import pytest
from helpers import same_law
from scipy import stats
from scipy.linalg import eigvalsh_tridiagonal

import linop_spectra as ls
from linop_spectra.random_matrices import MarchenkoPastur, Semicircle, wigner, wishart
from linop_spectra.random_matrices.ensembles.tridiagonal import tridiagonal_wigner, tridiagonal_wishart


def eigenvalues(operator):
    return eigvalsh_tridiagonal(operator.diagonal, operator.off_diagonal)


@pytest.mark.parametrize("beta", [0.5, 1, 2, 4])
def test_laws_of_the_entries(beta):
    n, variance = 2000, 3.0
    operator = tridiagonal_wigner(n, beta=beta, variance=variance, seed=1)
    assert same_law(operator.diagonal * np.sqrt(beta * n / (2 * variance)), stats.norm())
    squares = operator.off_diagonal**2 * beta * n / variance
    assert same_law(stats.chi2(beta * np.arange(n - 1, 0, -1)).cdf(squares), stats.uniform())
    assert np.all(operator.off_diagonal > 0)


@pytest.mark.parametrize("beta", [1, 2, 4])
def test_moments_at_finite_order(beta):
    """Exactly: E m_2 is 1 + (2 / beta - 1) / n; E m_4 is 2 + 5 / n + 5 / n^2 for beta 1 and 2 + 1 / n^2 for 2."""
    n, draws = 10, 3000
    diagonals = [tridiagonal_wigner(n, beta=beta, seed=seed) for seed in range(draws)]
    powers = np.array([np.mean(np.stack([values**2, values**4]), axis=1) for values in map(eigenvalues, diagonals)])
    error = 4 * powers.std(axis=0) / np.sqrt(draws)
    assert powers[:, 0].mean() == pytest.approx(1 + (2 / beta - 1) / n, abs=error[0])
    if beta < 4:
        assert powers[:, 1].mean() == pytest.approx({1: 2 + 5 / n + 5 / n**2, 2: 2 + 1 / n**2}[beta], abs=error[1])
        assert abs(powers[:, 1].mean() - {2: 2 + 5 / n + 5 / n**2, 1: 2 + 1 / n**2}[beta]) > error[1]


@pytest.mark.parametrize("ensemble, beta", [("goe", 1), ("gue", 2)])
def test_extreme_eigenvalues_are_those_of_the_dense_ensemble(ensemble, beta):
    n, draws = 8, 600
    dense = [np.linalg.eigvalsh(wigner(n, seed=s, ensemble=ensemble).to_dense()) for s in range(draws)]
    sparse = [eigenvalues(tridiagonal_wigner(n, beta=beta, seed=s)) for s in range(draws)]
    other = [eigenvalues(tridiagonal_wigner(n, beta={1: 4, 2: 0.5}[beta], seed=s)) for s in range(draws)]
    for statistic in (lambda v: v[-1], lambda v: v[n // 2] - v[n // 2 - 1]):
        ours, theirs, wrong = ([statistic(v) for v in sample] for sample in (sparse, dense, other))
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-4
        assert stats.ks_2samp(wrong, theirs).pvalue < 1e-4


@pytest.mark.parametrize("p, n", [(5, 8), (8, 5), (6, 6)])
@pytest.mark.parametrize("dtype, beta", [(np.float64, 1), (np.complex128, 2)])
def test_eigenvalues_of_wishart_are_those_of_the_dense_ensemble(p, n, dtype, beta):
    draws = 500
    dense = [np.linalg.eigvalsh(wishart(p, n, seed=s, dtype=dtype).to_dense()) for s in range(draws)]
    sparse = [eigenvalues(tridiagonal_wishart(p, n, beta=beta, seed=s)) for s in range(draws)]
    for statistic in (lambda v: v[-1], lambda v: v[max(0, p - n)]):
        assert stats.ks_2samp([statistic(v) for v in sparse], [statistic(v) for v in dense]).pvalue > 1e-4
    assert same_law([beta * n * values.sum() for values in sparse], stats.chi2(beta * n * p))


@pytest.mark.parametrize("beta", [1, 2, 6.5])
def test_all_eigenvalues_follow_the_semicircle(beta):
    n = 1500
    levels = (np.arange(n) + 0.5) / n
    values = eigenvalues(tridiagonal_wigner(n, beta=beta, variance=0.25, seed=2))
    assert np.abs(Semicircle(variance=0.25).cdf(values) - levels).max() < 8 / n
    assert np.abs(Semicircle(variance=0.25 * 1.05**2).cdf(values) - levels).max() > 8 / n


@pytest.mark.parametrize("p, n", [(600, 2400), (1200, 300), (700, 700)])
def test_all_eigenvalues_follow_marchenko_pastur(p, n):
    operator = tridiagonal_wishart(p, n, variance=2.0, seed=3)
    values, zeros = eigenvalues(operator), max(0, p - n)
    assert np.abs(values[:zeros]).max(initial=0.0) < 1e-12 and operator.positive_semidefinite is True
    assert np.all(operator.off_diagonal[n:] == 0) and np.all(operator.diagonal[n + 1 :] == 0)
    levels = (np.arange(p) + 0.5) / p
    assert np.abs(MarchenkoPastur(ratio=p / n, variance=2.0).cdf(values[zeros:]) - levels[zeros:]).max() < 8 / p


def test_lanczos_from_the_first_unit_vector_gives_the_diagonals_back():
    operator = tridiagonal_wishart(40, 90, seed=5)
    run = ls.lanczos(operator, 10, start=np.eye(40)[:, 0])
    np.testing.assert_allclose(run.alphas[0], operator.diagonal[:10], rtol=1e-10)
    np.testing.assert_allclose(run.betas[0], operator.off_diagonal[:10], rtol=1e-10)


def test_density_of_a_large_one_is_within_its_own_bound_of_the_law():
    n = 200_000
    density = ls.spectral_density(tridiagonal_wigner(n, seed=1), num_steps=40, num_probes=1)
    x = np.linspace(-3, 3, 20_001)
    assert np.trapezoid(np.abs(density.cdf(x) - Semicircle().cdf(x)), x) <= density.wasserstein_bound + 6 / n


def test_smallest_orders():
    one = tridiagonal_wigner(1, seed=1)
    assert one.off_diagonal.shape == (0,) and one.bandwidth == 0 and one.to_dense()[0, 0] == one.diagonal[0]
    assert tridiagonal_wigner(2, seed=1).to_dense().shape == (2, 2)
    for p, n in ((1, 1), (3, 1), (1, 3), (2, 1)):
        assert np.linalg.matrix_rank(tridiagonal_wishart(p, n, seed=1).to_dense()) == 1


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: tridiagonal_wigner(0), ValueError, "The argument n must be a whole number of at least 1, but is 0"),
        (lambda: tridiagonal_wigner(5, variance=-1), ValueError, "The argument variance"),
        (lambda: tridiagonal_wigner(5, beta=0), ValueError, "The argument beta, 1 for the orthogonal .*, must be a positive finite number"),
        (lambda: tridiagonal_wigner(5, beta=np.inf), ValueError, "The argument beta"),
        (lambda: tridiagonal_wigner(5, dtype=complex), TypeError, "The argument dtype is complex128, but the tridiagonal matrix is real"),
        (lambda: tridiagonal_wishart(0, 3), ValueError, "The argument p"),
        (lambda: tridiagonal_wishart(3, 0), ValueError, "The argument n"),
        (lambda: tridiagonal_wishart(3, 3, beta=-2), ValueError, "The argument beta"),
        (lambda: tridiagonal_wishart(3, 3, variance=np.nan), ValueError, "The argument variance"),
    ],
)
def test_bad_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
