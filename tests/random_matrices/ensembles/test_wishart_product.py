"""Products of Wisharts: moments, ranks, one factor."""

import numpy as np
import pytest
from scipy import stats

from linop_spectra.random_matrices import MarchenkoPastur
from linop_spectra.random_matrices.ensembles.wishart_product import wishart_product


def moments(dims, draws, **options):
    values = [np.linalg.eigvalsh(wishart_product(dims, seed=s, **options).to_dense()) for s in range(draws)]
    powers = np.array([[np.mean(v**k) for k in (1, 2, 3)] for v in values])
    return powers.mean(axis=0), powers.std(axis=0) / np.sqrt(draws)


def test_square_factors_have_the_moments_of_fuss_and_catalan():
    """1, 3, 12 for two, 1, 4, 22 for three; what is left is of order 1 / n."""
    for count, exact in ((2, [1, 3, 12]), (3, [1, 4, 22])):
        mean, error = moments((300,) * (count + 1), 4)
        assert np.all(np.abs(mean - exact) < 4 * error + 0.02 * np.array(exact))


@pytest.mark.parametrize("dims", [(200, 400, 100), (200, 100, 400), (100, 300, 200, 500)])
def test_moments_of_rectangular_factors(dims):
    """The S-transform is prod 1 / (1 + c_k w): m_2 = 1 + sum c_k, m_3 = m_2^2 + sum c_k + sum over pairs of c_j c_k."""
    mean, error = moments(dims, 6)
    ratios = dims[0] / np.array(dims[1:])
    first, pairs = ratios.sum(), (ratios.sum() ** 2 - (ratios**2).sum()) / 2
    exact = np.array([1, 1 + first, (1 + first) ** 2 + first + pairs])
    assert np.all(np.abs(mean - exact) < 4 * error + 0.03 * exact)


def test_mean_trace_is_exact():
    """E tr S / p is one at any size."""
    mean, error = moments((3, 2, 4), 2000)
    assert mean[0] == pytest.approx(1, abs=4 * error[0])
    complex_mean, complex_error = moments((3, 2, 4), 2000, dtype=complex)
    assert complex_mean[0] == pytest.approx(1, abs=4 * complex_error[0])


@pytest.mark.parametrize("dims", [(20, 5, 9), (20, 9, 5), (5, 20, 20), (20, 20, 20, 1)])
def test_rank_is_the_smallest_dimension(dims):
    operator = wishart_product(dims, seed=1)
    assert np.linalg.matrix_rank(operator.to_dense()) == min(dims) and operator.positive_semidefinite is True


def test_one_factor_is_a_wishart_matrix():
    p, n = 300, 900
    values = np.linalg.eigvalsh(wishart_product((p, n), seed=1).to_dense())
    assert np.abs(MarchenkoPastur(ratio=p / n).cdf(values) - (np.arange(p) + 0.5) / p).max() < 8 / p
    ones = [wishart_product((1, 1), seed=s).to_dense()[0, 0] for s in range(300)]
    assert stats.kstest(ones, stats.chi2(1).cdf).pvalue > 1e-4


@pytest.mark.parametrize("dims", [5, (5,), "55", None, ()])
def test_dims_that_are_no_list_are_named(dims):
    with pytest.raises(ValueError, match="The argument dims must list the order and the columns of every factor"):
        wishart_product(dims)


def test_bad_sizes_are_named():
    with pytest.raises(ValueError, match=r"The argument dims\[1\] must be a whole number of at least 1, but is 0"):
        wishart_product((5, 0, 5))
