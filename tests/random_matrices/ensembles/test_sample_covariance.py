"""Sample covariances of a population with given eigenvalues."""

import numpy as np
import pytest

from linop_spectra.random_matrices import MarchenkoPastur, wishart
from linop_spectra.random_matrices.ensembles.sample_covariance import sample_covariance

TWO = np.repeat([1.0, 5.0], 250)


def test_two_clusters_are_separated_exactly():
    """Edges by Silverstein and Choi (1995) for half at one and half at five, ratio 0.1."""
    values = np.linalg.eigvalsh(sample_covariance(TWO, 5000, seed=1).to_dense())
    low, high = values[:250], values[250:]
    assert low[-1] < 1.41576 + 0.06 and high[0] > 3.08129 - 0.15
    assert [low[0], low[-1], high[0], high[-1]] == pytest.approx([0.55711, 1.41576, 3.08129, 7.54584], rel=0.03)


def test_resolvent_solves_the_equation_of_silverstein():
    p, n = 400, 800
    population = np.linspace(0.5, 3, p)
    values = np.linalg.eigvalsh(sample_covariance(population, n, seed=2).to_dense())
    for z in (1.0 + 0.5j, 4.0 + 0.5j):
        companion = p / n * np.mean(1 / (values - z)) - (1 - p / n) / z
        assert abs(-1 / companion + p / n * np.mean(population / (1 + population * companion)) - z) < 40 / p
        assert abs(-1 / companion + n / p * np.mean(population / (1 + population * companion)) - z) > 40 / p  # the ratio turned round


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("basis", ["fast", "exact"])
def test_a_basis_changes_eigenvectors_and_not_eigenvalues(basis, dtype):
    population = np.linspace(0, 2, 31)
    plain, rotated = (sample_covariance(population, 20, basis=b, seed=3, dtype=dtype) for b in (None, basis))
    values = np.linalg.eigvalsh(rotated.to_dense())
    np.testing.assert_allclose(values, np.linalg.eigvalsh(plain.to_dense()), atol=1e-13)
    assert np.abs(rotated.to_dense() - plain.to_dense()).max() > 0.1
    np.testing.assert_array_equal(rotated.population_eigenvalues, population)
    assert rotated.positive_semidefinite is True and plain.positive_semidefinite is True
    silent = rotated.rotation @ np.eye(31)[0]  # the eigenvector of population eigenvalue zero
    np.testing.assert_allclose(rotated @ silent, 0, atol=1e-13)


def test_without_a_basis_it_is_wishart_with_a_population():
    np.testing.assert_array_equal(sample_covariance(TWO, 40, seed=1).to_dense(), wishart(500, 40, population=TWO, seed=1).to_dense())


def test_a_law_of_populations():
    law = MarchenkoPastur(ratio=0.5)
    operator = sample_covariance(law, 50, p=20, seed=1, basis="fast")
    np.testing.assert_allclose(law.cdf(operator.population_eigenvalues), (np.arange(20) + 0.5) / 20, atol=1e-9)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"population_eigenvalues": [1.0, -1.0], "n": 5}, "The argument population_eigenvalues must be at least 0, .* -1"),
        ({"population_eigenvalues": [], "n": 5}, "The argument population_eigenvalues must be real numbers"),
        ({"population_eigenvalues": MarchenkoPastur(ratio=1.0), "n": 5}, "The argument population_eigenvalues is a law, .* pass p= too"),
        ({"population_eigenvalues": [1.0], "n": 0}, "The argument n must be"),
        (
            {"population_eigenvalues": [1.0], "n": 5, "basis": "any"},
            "The argument basis is 'any', but must be None .*, 'fast' .* or 'exact'",
        ),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        sample_covariance(**arguments)


def test_smallest_sizes():
    np.testing.assert_allclose(sample_covariance([4.0], 3, seed=1, basis="fast").to_dense(), 4 * wishart(1, 3, seed=1).to_dense())
    assert np.all(sample_covariance(np.zeros(3), 3).to_dense() == 0)
