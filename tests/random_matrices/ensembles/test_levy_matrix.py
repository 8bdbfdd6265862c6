"""Matrices with heavy-tailed entries."""

import numpy as np
import pytest
from helpers import same_law
from scipy import stats

from linop_spectra.random_matrices.ensembles.levy_matrix import levy_matrix


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.9])
def test_entries_have_the_pareto_law(alpha):
    n = 150
    dense = levy_matrix(n, alpha, seed=1).to_dense()
    entries = dense[np.tril_indices(n)] * n ** (1 / alpha)
    assert same_law(np.abs(entries), stats.pareto(alpha)) and np.abs(entries).min() >= 1 - 1e-12
    assert abs(np.sum(entries > 0) - len(entries) / 2) < 2 * np.sqrt(len(entries))
    np.testing.assert_array_equal(dense, dense.T)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_the_largest_eigenvalues_are_the_largest_entries(alpha):
    """Soshnikov (2004): their law is that of the largest of n (n + 1) / 2 Pareto variables."""
    n, draws = 100, 120
    matrices = [levy_matrix(n, alpha, seed=s).to_dense() for s in range(draws)]
    largest = np.array([np.linalg.eigvalsh(m)[-1] for m in matrices])
    entries = np.array([np.abs(m).max() for m in matrices])
    assert np.median(largest / entries) == pytest.approx(1, abs=0.02)
    pairs = n * (n + 1) / 2
    assert stats.kstest(entries * n ** (1 / alpha), lambda x: (1 - np.maximum(x, 1) ** -alpha) ** pairs).pvalue > 1e-4


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ({"n": 0, "alpha": 1.0}, ValueError, "The argument n must be"),
        ({"n": 5, "alpha": 0.0}, ValueError, "The argument alpha, the exponent of the tails, must be a positive finite number"),
        ({"n": 5, "alpha": 2.0}, ValueError, "The argument alpha is 2, but must be below 2"),
        ({"n": 5, "alpha": 1.0, "dtype": complex}, TypeError, "The argument dtype is complex128, but Levy matrices are real"),
    ],
)
def test_bad_arguments_are_named(arguments, error, words):
    with pytest.raises(error, match=words):
        levy_matrix(**arguments)
