"""Sample covariances of thinned data."""

import numpy as np
import pytest

from linop_spectra.random_matrices import MarchenkoPastur
from linop_spectra.random_matrices.ensembles.thinned_wishart import thinned_wishart


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("p, n, degree", [(6, 9, 2.0), (9, 6, 6.0), (1, 4, 1.0)])
def test_exact_moments(p, n, degree, dtype):
    """E tr S / p = 1 and E tr S^2 / p = k / d + 1 - 1 / n + (p - 1) / n, k = 3 for real and 2 for complex entries."""
    draws, kurtosis = 1500, 3 if dtype is np.float64 else 2
    matrices = [thinned_wishart(p, n, degree, seed=s, dtype=dtype).to_dense() for s in range(draws)]
    values = np.array([(np.trace(m).real, np.linalg.norm(m) ** 2) for m in matrices]) / p
    exact = [1, kurtosis / degree + 1 - 1 / n + (p - 1) / n]
    assert np.all(np.abs(values.mean(axis=0) - exact) < 4 * values.std(axis=0) / np.sqrt(draws))


def test_large_ones_and_their_empty_rows():
    p, n, degree = 20_000, 40_000, 2
    operator = thinned_wishart(p, n, degree, seed=1)
    data = operator.factors[0].matrix
    gram = data @ data.T
    assert float(gram.power(2).sum()) / p == pytest.approx(1 + p / n + 3 / degree, abs=5 * np.sqrt(40 / p))
    empty = np.mean(np.diff(data.indptr) == 0)
    assert empty == pytest.approx((1 - degree / n) ** n, abs=4 * np.sqrt(0.12 / p))
    assert operator.positive_semidefinite is True


def test_full_data_follow_marchenko_pastur():
    p, n = 300, 600
    values = np.linalg.eigvalsh(thinned_wishart(p, n, n, seed=2).to_dense())
    assert np.abs(MarchenkoPastur(ratio=p / n).cdf(values) - (np.arange(p) + 0.5) / p).max() < 8 / p


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ({"p": 0, "n": 5, "degree": 1}, ValueError, "The argument p must be"),
        ({"p": 5, "n": 0, "degree": 1}, ValueError, "The argument n must be"),
        ({"p": 5, "n": 5, "degree": -1}, ValueError, "The argument degree, .*, must be a positive finite number"),
        ({"p": 5, "n": 4, "degree": 5}, ValueError, r"The argument degree is 5, but there are only 4 samples; .* wishart\(5, 4\)"),
        ({"p": 10**5, "n": 10**5, "degree": 10**4, "memory_budget": "1GB"}, MemoryError, "over the budget of 1 GB"),
    ],
)
def test_bad_arguments_are_named(arguments, error, words):
    with pytest.raises(error, match=words):
        thinned_wishart(**arguments)
