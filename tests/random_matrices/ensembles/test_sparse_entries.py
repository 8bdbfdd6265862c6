"""Places of sparse entries: the right law, whatever the pieces, exactly, up to the largest triangle."""

import numpy as np
import pytest
from helpers import same_law
from scipy import stats

from linop_spectra.random_matrices.ensembles import sparse_entries
from linop_spectra.random_matrices.ensembles.entries import chi_square_entries, exponential_entries
from linop_spectra.random_matrices.ensembles.sparse_entries import bernoulli_places, hermitian_csr, lower_triangle


def places(total, probability, seed=0):
    return bernoulli_places(total, probability, seed=seed, domain="ensemble/test")


@pytest.mark.parametrize("total, probability", [(50, 0.1), (50, 0.9), (10**15, 3e-14)])
def test_numbers_and_places(total, probability):
    drawn = [places(total, probability, seed) for seed in range(1500)]
    counts = np.array([len(found) for found in drawn])
    law = stats.binom(total, probability)
    observed = np.bincount(np.digitize(counts, law.ppf([0.2, 0.4, 0.6, 0.8]), right=True), minlength=5)
    edges = np.r_[-1, law.ppf([0.2, 0.4, 0.6, 0.8]), total]
    assert stats.chisquare(observed, np.diff(law.cdf(edges)) * len(counts)).pvalue > 1e-4
    everything = np.concatenate(drawn)
    assert same_law((everything + stats.uniform.rvs(size=len(everything), random_state=0)) / total, stats.uniform())
    assert everything.min() >= 0 and everything.max() < total
    assert all(np.all(np.diff(found) > 0) for found in drawn)


def test_neighbours_are_independent():
    found = np.isin(np.arange(40_000), places(40_000, 0.3))
    for gap in (1, 2, 7):
        assert abs(np.corrcoef(found[gap:], found[:-gap])[0, 1]) < 4 / np.sqrt(40_000)


def test_pieces_change_nothing(monkeypatch):
    expected = places(10**6, 0.01, 5)
    for gaps in (1000, 3333, 10**5):
        monkeypatch.setattr(sparse_entries, "_GAPS", gaps)
        np.testing.assert_array_equal(places(10**6, 0.01, 5), expected)


def test_extremes():
    assert places(5, 1.0).tolist() == [0, 1, 2, 3, 4]
    assert places(10, 1e-300).tolist() == []
    assert len(places(1 << 57, 1e-16, 1)) == pytest.approx(14.4, abs=16)
    with pytest.raises(ValueError, match="has at most 2\\^57 places"):
        places(1 << 58, 1e-16)


@pytest.mark.parametrize("diagonal", [True, False])
def test_lower_triangle(diagonal):
    rows, columns = lower_triangle(np.arange(45), diagonal=diagonal)
    expected = np.tril_indices(10, 0 if diagonal else -1)
    count = len(expected[0])
    np.testing.assert_array_equal(rows[:count], expected[0][:45])
    np.testing.assert_array_equal(columns[:count], expected[1][:45])


def test_rows_of_far_places_are_exact():
    rows = np.array([10**5, 10**8 - 1, 5 * 10**8])
    ends = np.concatenate([rows * (rows + 1) // 2 + offset for offset in (0, 1)] + [rows * (rows + 1) // 2 + rows])
    found, columns = lower_triangle(ends, diagonal=True)
    np.testing.assert_array_equal(found, np.tile(rows, 3))
    np.testing.assert_array_equal(columns, np.r_[[0] * 3, [1] * 3, rows])


def test_hermitian_csr():
    values = np.array([1 + 0j, 2 + 3j, 4, 5j])
    matrix = hermitian_csr(4, np.array([0, 2, 2, 3]), np.array([0, 0, 2, 1]), values)
    expected = np.zeros((4, 4), complex)
    expected[[0, 2, 2, 3], [0, 0, 2, 1]] = values
    expected[[0, 1], [2, 3]] = [2 - 3j, -5j]
    np.testing.assert_array_equal(matrix.toarray(), expected)
    assert matrix.nnz == 6 and matrix.indices.dtype == np.int32 and matrix.has_sorted_indices


def test_exponentials_and_chi_squares():
    assert same_law(exponential_entries(0, 20_000, seed=0, domain="ensemble/test"), stats.expon())
    np.testing.assert_array_equal(
        exponential_entries(0, 100, seed=0, domain="ensemble/test")[40:], exponential_entries(40, 100, seed=0, domain="ensemble/test")
    )
    for degree in (0.3, 1.0, 7.0, 1e6):
        assert same_law(chi_square_entries(np.full(5000, degree), seed=1, domain="ensemble/test"), stats.chi2(degree))
    assert np.all(chi_square_entries(np.zeros(3), seed=1, domain="ensemble/test") == 0)
