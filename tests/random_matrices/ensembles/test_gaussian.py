"""Rectangular Gaussian matrices: entries, singular values, adjoint products."""

import numpy as np
import pytest
from helpers import same_law
from scipy import stats

import linop_spectra as ls
from linop_spectra.random_matrices import MarchenkoPastur
from linop_spectra.random_matrices.ensembles.gaussian import gaussian


@pytest.mark.parametrize("m, n", [(300, 500), (500, 300)])
def test_singular_values_follow_marchenko_pastur(m, n):
    squares = np.sort(np.linalg.svd(gaussian(m, n, variance=2.0, seed=1).to_dense(), compute_uv=False)) ** 2
    levels = (max(0, m - n) + np.arange(min(m, n)) + 0.5) / m
    assert np.abs(MarchenkoPastur(ratio=m / n, variance=2.0).cdf(squares) - levels).max() < 8 / min(m, n)


def test_entries_and_rows():
    dense = gaussian(200, 100, variance=3.0, seed=2, dtype=complex).to_dense() * np.sqrt(100 / 3)
    assert same_law(dense.real.ravel() * np.sqrt(2), stats.norm()) and same_law(dense.imag.ravel() * np.sqrt(2), stats.norm())
    np.testing.assert_array_equal(gaussian(7, 30, seed=2).to_dense(), gaussian(9, 30, seed=2).to_dense()[:7])


def test_circular_law():
    n = 500
    values = np.linalg.eigvals(gaussian(n, n, variance=4.0, seed=3).to_dense())
    assert stats.kstest((np.abs(values) / 2) ** 2, stats.uniform.cdf).statistic < 0.06
    assert np.abs(values).max() < 2 * 1.1


def test_singular_values_by_products():
    operator = gaussian(300, 40, seed=4)
    top = ls.svds(operator, k=2).singular_values
    np.testing.assert_allclose(np.sort(top), np.sort(np.linalg.svd(operator.to_dense(), compute_uv=False))[-2:], rtol=1e-6)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"m": 0, "n": 3}, "The argument m must be"),
        ({"m": 3, "n": 1.5}, "The argument n must be"),
        ({"m": 3, "n": 3, "variance": -1.0}, "The argument variance, n times that of the entries, must be"),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        gaussian(**arguments)
