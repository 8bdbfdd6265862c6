"""Closed forms for random eigenvectors, against integrals, exact laws and rotated matrices."""

import numpy as np
import pytest
from helpers import haar, rotated
from scipy import stats

from linop_spectra.approximations import haar_null
from linop_spectra.approximations.haar_null import HaarDiagonal

SPECTRA = {
    "power law": 1 / np.arange(1.0, 81),
    "outliers": np.r_[np.full(4, 10.0), np.full(76, 0.01)],
    "indefinite": np.linspace(-1, 2, 80),
}


def rotations(eigenvalues, count):
    """Independent matrices with these eigenvalues."""
    return (rotated(eigenvalues, seed) for seed in range(count))


@pytest.mark.parametrize("name", SPECTRA)
def test_second_moments_of_entries(name):
    """Means over 60 matrices of order 80; diagonal entries of one matrix are almost independent."""
    eigenvalues, n = SPECTRA[name], 80
    v, mean = eigenvalues.var(), eigenvalues.mean()
    diagonals = np.array([np.diag(a) for a in rotations(eigenvalues, 60)])
    squares = (diagonals - mean) ** 2
    error = squares.mean(axis=1).std(ddof=1) / np.sqrt(60)
    assert abs(squares.mean() - haar_null.diagonal_variance(n, v)) < 4 * error
    # What is not on the diagonal is off it, exactly.
    off = (n * v - squares.sum(axis=1)) / (n * (n - 1))
    expected = (n * v - n * haar_null.diagonal_variance(n, v)) / (n * (n - 1))
    assert haar_null.off_diagonal_mean_square(n, v) == pytest.approx(expected, rel=1e-13)
    assert abs(off.mean() - expected) < 4 * off.std(ddof=1) / np.sqrt(60)


def test_one_off_diagonal_entry():
    samples = np.array([a[0, 1] ** 2 for a in rotations(np.linspace(0, 1, 6), 4000)])
    expected = haar_null.off_diagonal_mean_square(6, np.linspace(0, 1, 6).var())
    assert abs(samples.mean() - expected) < 4 * samples.std() / np.sqrt(4000)


@pytest.mark.parametrize("sizes", [10, [10] * 8, [5, 15, 20, 40], [80]])
def test_blocks_keep_their_share(sizes):
    eigenvalues, n = SPECTRA["power law"], 80
    orders = [sizes] * (n // sizes) if isinstance(sizes, int) else sizes
    mask = np.kron(np.eye(len(orders)), np.ones((1, 1)))
    mask = np.repeat(np.repeat(mask, orders, axis=0), orders, axis=1)
    centred = [a - eigenvalues.mean() * np.eye(n) for a in rotations(eigenvalues, 80)]
    kept = np.array([np.sum((a * mask) ** 2) / np.sum(a**2) for a in centred])
    expected = haar_null.block_variance_retained(n, sizes)
    assert abs(kept.mean() - expected) < 4 * kept.std(ddof=1) / np.sqrt(80) + 1e-12
    assert haar_null.block_norm_kept(n, 0.0, 1.0, sizes) == pytest.approx(expected)


def test_special_cases():
    assert haar_null.diagonal_norm_kept(7, 2.0, 0.0) == 1.0  # a multiple of the identity
    assert haar_null.diagonal_norm_kept(7, 0.0, 0.0) == 1.0  # zero
    assert haar_null.diagonal_norm_kept(1000, 1e-3, 1e-3 - 1e-6) == pytest.approx(3 / 1002)  # rank one
    assert haar_null.block_variance_retained(1, 1) == 1.0
    assert haar_null.block_variance_retained(50, 1) == pytest.approx(2 / 52)
    assert haar_null.off_diagonal_mean_square(1, 0.0) == 0.0


def test_law_of_an_entry_in_the_plane_is_the_arcsine_law():
    """Of order two, with eigenvalues 0 and 1: the squared cosine of a uniform angle. The saddlepoint is worst for so few terms."""
    law = HaarDiagonal([0.0, 1.0], [0.5, 0.5], 2)
    t = np.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(law.cdf(t), stats.arcsine.cdf(t), atol=0.02)
    assert law.variance == pytest.approx(1 / 8)


def test_law_of_an_entry_of_a_projection_is_a_beta_law():
    """Of k equal eigenvalues among zeros an entry has the law Beta(k / 2, (P - k) / 2)."""
    law, exact = HaarDiagonal([1.0, 0.0], [0.1, 0.9], 100), stats.beta(5, 45)
    t = exact.ppf([1e-6, 1e-4, 0.01, 0.3, 0.5, 0.9, 0.999, 1 - 1e-6])
    np.testing.assert_allclose(law.cdf(t[:4]), exact.cdf(t[:4]), rtol=0.03)
    np.testing.assert_allclose(1 - law.cdf(t[4:]), exact.sf(t[4:]), rtol=0.03)
    np.testing.assert_allclose(law.quantile([1e-6, 0.5, 1 - 1e-6]), exact.ppf([1e-6, 0.5, 1 - 1e-6]), rtol=0.01)
    assert law.cdf(law.mean) == pytest.approx(exact.cdf(0.1), rel=2e-3)


def test_extremes():
    law = HaarDiagonal(1 / np.arange(1.0, 201), np.full(200, 1 / 200), 200)
    largest, smallest = [], []
    for seed in range(100):
        diagonal = haar(200, seed) ** 2 @ (1 / np.arange(1.0, 201))
        largest.append(diagonal.max())
        smallest.append(diagonal.min())
    assert abs(np.mean(np.array(largest) > law.largest) - 0.5) < 0.2
    assert abs(np.mean(np.array(smallest) > law.smallest) - 0.5) < 0.2


@pytest.mark.parametrize("seed", range(6))
def test_law_of_wild_spectra(seed):
    """Nodes over many decades, some with next to no weight, as quadrature gives them: a distribution function all the same."""
    rng = np.random.default_rng(seed)
    nodes = rng.choice([-1.0, 1.0], 40) * 10 ** rng.uniform(-12, 3, 40)
    weights = 10 ** rng.uniform(-25, 0, 40)
    law = HaarDiagonal(nodes, weights, int(10 ** rng.uniform(1, 8)))
    deviation = np.sqrt(law.variance)
    values = law.cdf(law.mean + deviation * np.linspace(-6, 6, 49))
    assert np.isfinite(values).all() and (np.diff(values) > -1e-3).all() and values[0] < 0.02 and values[-1] > 0.9
    assert nodes.min() <= law.smallest <= law.largest <= nodes.max()


def test_nothing_is_random():
    law = HaarDiagonal([3.0], [1.0], 10)
    assert law.largest == law.smallest == 3.0 and law.variance == 0
    assert law.cdf(2.9) == 0.0 and law.cdf(3.0) == 1.0


@pytest.mark.parametrize("call", [
    lambda: haar_null.diagonal_variance(0, 1.0),
    lambda: haar_null.diagonal_variance(5, -1.0),
    lambda: haar_null.diagonal_variance(5, np.nan),
    lambda: haar_null.block_variance_retained(5, 6),
    lambda: haar_null.block_variance_retained(5, [2, 2]),
    lambda: HaarDiagonal([1.0, 2.0], [1.0], 5),
    lambda: HaarDiagonal([1.0], [-1.0], 5),
])  # fmt: skip
def test_wrong_arguments(call):
    with pytest.raises(ValueError, match="The argument"):
        call()
