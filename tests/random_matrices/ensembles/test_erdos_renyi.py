"""Random graphs: edges, the outlier of the mean, the semicircle without it."""

import numpy as np
import pytest
from scipy import stats

import linop_spectra as ls
from linop_spectra.random_matrices import Semicircle
from linop_spectra.random_matrices.ensembles.erdos_renyi import erdos_renyi


def test_edges():
    n, chance = 500, 0.04
    dense = erdos_renyi(n, probability=chance, normalized=False, seed=1).to_dense()
    assert set(np.unique(dense)) == {0.0, 1.0} and np.all(np.diag(dense) == 0)
    np.testing.assert_array_equal(dense, dense.T)
    pairs = n * (n - 1) // 2
    assert stats.binomtest(int(dense.sum() / 2), pairs, chance).pvalue > 1e-4
    degrees = dense.sum(axis=0)
    assert degrees.var() == pytest.approx(n * chance * (1 - chance), rel=6 * np.sqrt(2 / n))
    np.testing.assert_array_equal(dense, erdos_renyi(n, degree=n * chance, normalized=False, seed=1).to_dense())


@pytest.mark.parametrize("degree", [20, 100])
def test_outlier_of_the_mean(degree):
    """theta + 1 / theta; its fluctuation is that of the number of edges, about sqrt(2) / n in units of theta over sqrt(degree)."""
    n = 2000
    theta = np.sqrt(degree / (1 - degree / n))
    top = ls.eigsh(erdos_renyi(n, degree=degree, seed=2), k=2, which="LA", tol=1e-8).eigenvalues
    # The correction of the next order is of size theta^-3, and (n - 1) / n of the mean is there.
    assert top[1] == pytest.approx(theta + 1 / theta, abs=4 * np.sqrt(2 / n) + 2 * theta**-3 + theta / n)
    assert top[0] < 2 + 3 / theta


def test_without_its_mean_it_follows_the_semicircle():
    n, degree = 1000, 100
    values = np.linalg.eigvalsh(erdos_renyi(n, degree=degree, centered=True, seed=3).to_dense())
    assert values[-1] < 2.2 and values[0] > -2.2
    law, levels = Semicircle(), (np.arange(n) + 0.5) / n
    # The fourth moment is above that of the law by (1 - 6 q (1 - q)) / (n q (1 - q)), which moves the distribution function by as much.
    assert np.abs(law.cdf(values) - levels).max() < 8 / n + 1 / degree
    assert np.abs(Semicircle(variance=1.1).cdf(values) - levels).max() > 8 / n + 1 / degree


@pytest.mark.parametrize("chance", [0.1, 0.5, 0.9])
def test_exact_moments_of_the_centred_matrix(chance):
    n, draws, spread = 12, 1200, chance * (1 - chance)
    matrices = [erdos_renyi(n, probability=chance, centered=True, seed=s).to_dense() for s in range(draws)]
    values = np.array([(np.linalg.norm(m) ** 2, np.linalg.norm(m @ m) ** 2) for m in matrices]) / n
    second, fourth = (1 - np.eye(n)) / n, spread * (1 - 3 * spread) / (n * spread) ** 2
    exact = [(n - 1) / n, (2 * (second.sum(axis=1) ** 2).sum() - 2 * (second**2).sum()) / n + (n - 1) * fourth]
    assert np.all(np.abs(values.mean(axis=0) - exact) < 4 * values.std(axis=0) / np.sqrt(draws) + 1e-12)
    assert np.all(np.abs(np.mean(matrices, axis=0)) < 5 / np.sqrt(n * draws))


def test_centring_of_zeros_and_ones():
    plain, centered = (erdos_renyi(9, probability=0.3, normalized=False, centered=c, seed=4).to_dense() for c in (False, True))
    np.testing.assert_allclose(centered, plain - 0.3 * (1 - np.eye(9)), atol=1e-15)


def test_smallest_and_complete_graphs():
    assert np.all(erdos_renyi(1, probability=0.5).to_dense() == 0)
    np.testing.assert_array_equal(erdos_renyi(4, probability=1.0, normalized=False).to_dense(), 1 - np.eye(4))
    np.testing.assert_allclose(erdos_renyi(4, probability=1, normalized=False, centered=True).to_dense(), 0)


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ({}, ValueError, "Exactly one of the arguments probability and degree must be given"),
        ({"probability": 0.1, "degree": 2}, ValueError, "Exactly one of the arguments probability and degree"),
        ({"probability": 0.0}, ValueError, "The argument probability, that of an edge, must be a positive finite number"),
        ({"probability": 1.5}, ValueError, "The argument probability is 1.5, but must be at most 1"),
        ({"degree": 11}, ValueError, "The argument degree is 11, but must be at most 10"),
        ({"degree": np.nan}, ValueError, "The argument degree, .*, must be a positive finite number"),
        ({"probability": 1.0}, ValueError, "complete graph has no randomness to normalise; pass normalized=False"),
        ({"probability": 0.5, "dtype": complex}, TypeError, "The argument dtype is complex128, but the adjacency matrix is real"),
        ({"probability": 0.5, "memory_budget": 10}, MemoryError, "over the budget of 10 B"),
    ],
)
def test_bad_arguments_are_named(arguments, error, words):
    with pytest.raises(error, match=words):
        erdos_renyi(10, **arguments)
