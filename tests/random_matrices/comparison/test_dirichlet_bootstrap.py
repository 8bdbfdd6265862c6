"""Draws of Lanczos coefficients against Lanczos itself, SciPy, and the exact laws of finite Gaussian ensembles."""

import numpy as np
import pytest
from helpers import CHANCE
from scipy import stats

import linop_spectra as ls
from linop_spectra.random_matrices import MarchenkoPastur, Semicircle
from linop_spectra.random_matrices.comparison.dirichlet_bootstrap import (
    base_measure,
    draw_coefficients,
    jacobi_coefficients,
    law_coefficients,
    most_steps,
)


@pytest.mark.parametrize("scale", [1.0, 1e-160, 1e160])
def test_coefficients_are_those_of_lanczos(scale):
    rng = np.random.default_rng(0)
    places = np.sort(rng.standard_t(3, 300)) * scale
    weights = rng.gamma(0.5, size=(300, 3))
    weights /= weights.sum(axis=0)
    alphas, betas = jacobi_coefficients(places, weights, 40)
    run = ls.lanczos(ls.diagonal_operator(places / scale), 40, start=np.sqrt(weights), num_probes=3)
    np.testing.assert_allclose(alphas / scale, run.alphas, atol=1e-12 * np.abs(places / scale).max())
    np.testing.assert_allclose(betas / scale, run.betas[:, :-1], atol=1e-12 * np.abs(places / scale).max())


def test_each_column_may_have_its_own_places_and_the_order_does_not_matter():
    rng = np.random.default_rng(1)
    places, weights = rng.normal(size=(50, 4)), rng.gamma(0.5, size=(50, 4))
    together = jacobi_coefficients(places, weights, 12)
    for column in range(4):
        order = rng.permutation(50)
        alone = jacobi_coefficients(places[order, column], weights[order, column, None], 12)
        np.testing.assert_allclose(together[0][column], alone[0][0], atol=1e-11)
        np.testing.assert_allclose(together[1][column], alone[1][0], atol=1e-11)


def test_fewer_places_than_steps_end_in_zeros():
    alphas, betas = jacobi_coefficients(np.array([1.0, 2.0, 4.0]), np.full((3, 1), 1 / 3), 5)
    np.testing.assert_array_equal(betas[0, 2:], 0)
    jacobi = np.diag(alphas[0, :3]) + np.diag(betas[0, :2], 1) + np.diag(betas[0, :2], -1)
    np.testing.assert_allclose(np.linalg.eigvalsh(jacobi), [1, 2, 4], atol=1e-13)


@pytest.mark.parametrize("law", [Semicircle(variance=2.0), MarchenkoPastur(ratio=0.3), MarchenkoPastur(ratio=4.0, variance=0.5)])
def test_base_measure_has_the_coefficients_of_the_law(law):
    alphas, betas = law_coefficients(law, 20)
    expected = law.jacobi_coefficients(20)
    np.testing.assert_allclose(alphas, expected[0], atol=1e-11)
    np.testing.assert_allclose(betas, expected[1][:-1], atol=1e-11)
    _, masses = base_measure(law, 20)
    assert masses.min() >= 0 and masses.sum() == pytest.approx(1)


def test_grouping_eigenvalues_does_not_change_the_weights_of_a_probe():
    """n = 3000 quantiles with Dirichlet(1/2) each, against a few nodes with the sums: the same law of the coefficients."""
    law, n, k, count = MarchenkoPastur(ratio=0.5), 3000, 8, 1000
    rng = np.random.default_rng(2)
    quantiles = law.quantile((np.arange(n) + 0.5) / n)
    weights = rng.gamma(0.5, size=(count, n)).T
    one = np.concatenate(jacobi_coefficients(quantiles, weights / weights.sum(axis=0), k), axis=1)
    places, masses = base_measure(law, k)
    assert len(places) == 4 * k
    weights = np.maximum(rng.gamma(n / 2 * masses, size=(count, len(places))), 1e-290).T
    other = np.concatenate(jacobi_coefficients(places, weights / weights.sum(axis=0), k), axis=1)
    for column in range(one.shape[1]):
        assert stats.ks_2samp(one[:, column], other[:, column]).pvalue > CHANCE
        assert stats.ansari(one[:, column] - np.median(one[:, column]), other[:, column] - np.median(other[:, column])).pvalue > CHANCE


@pytest.mark.parametrize("beta", [1, 2])
def test_draws_follow_the_exact_law_of_the_gaussian_ensembles(beta):
    """alpha_j ~ N(0, 2 / (beta n)), beta n beta_j^2 ~ chi^2 of beta (n - 1 - j) degrees (Dumitriu and Edelman), in the first steps."""
    n, count = 2000, 2000
    alphas, betas = draw_coefficients(Semicircle(), n, 8, 1, count, np.random.default_rng(3), beta=beta)
    for j in range(5):
        assert stats.kstest(alphas[:, 0, j], stats.norm(0, np.sqrt(2 / (beta * n))).cdf).pvalue > CHANCE
        assert stats.kstest(beta * n * betas[:, 0, j] ** 2, stats.chi2(beta * (n - 1 - j)).cdf).pvalue > CHANCE


def test_probes_of_one_matrix_share_its_eigenvalues():
    """The sum over eigenvalues fluctuates by 2 / n^2 (Johansson); probes of one matrix have that covariance, of others none."""
    n, count = 100, 40_000
    alphas, _ = draw_coefficients(Semicircle(), n, 2, 2, count, np.random.default_rng(4))
    first, second = alphas[:, 0, 0], alphas[:, 1, 0]
    error = 2 / n / np.sqrt(count)
    assert abs(np.mean(first * second) - 2 / n**2) < 4 * error
    assert abs(first.var() - 2 / n) < 4 * np.sqrt(2 / count) * 2 / n + 4 / n**2


def test_an_atom_stays_where_it_is():
    law = MarchenkoPastur(ratio=4.0)
    alphas, betas = draw_coefficients(law, 4000, 12, 2, 5, np.random.default_rng(5))
    for a, b in zip(alphas.reshape(-1, 12), betas.reshape(-1, 11), strict=True):
        nodes, vectors = np.linalg.eigh(np.diag(a) + np.diag(b, -1), UPLO="L")
        assert abs(nodes[0]) < 1e-3 and vectors[0, 0] ** 2 == pytest.approx(0.75, abs=0.06)


def test_number_of_steps():
    assert most_steps(Semicircle(), 100) == 5 and most_steps(Semicircle(), 3) == 4
    assert most_steps(MarchenkoPastur(ratio=4.0), 400) == 5
