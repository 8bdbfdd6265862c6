"""Band matrices: variances by rows, exact moments, the semicircle as the band widens."""

import numpy as np
import pytest
from helpers import same_law
from scipy import stats

import linop_spectra as ls
from linop_spectra.random_matrices import Semicircle, wigner
from linop_spectra.random_matrices.ensembles.band_wigner import band_wigner


def moments(make, draws):
    """Second and fourth moments of the spectra, their means and four standard errors."""
    squares = [dense @ dense for dense in (make(seed).to_dense() for seed in range(draws))]
    values = np.array([(np.trace(s).real, np.linalg.norm(s) ** 2) for s in squares]) / len(squares[0])
    return values.mean(axis=0), 4 * values.std(axis=0) / np.sqrt(draws)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("bandwidth", [0, 1, 5])
def test_exact_moments(bandwidth, dtype):
    """With N = 2 b + 1: E m_2 is one and E m_4 is 2 + 1 / N for a real band, 2 + 1 / N^2 for a complex one."""
    width = 2 * bandwidth + 1
    mean, error = moments(lambda seed: band_wigner(30, bandwidth, variance=1.0, seed=seed, dtype=dtype), 300)
    assert mean == pytest.approx([1, 2 + 1 / width ** (1 if dtype is np.float64 else 2)], abs=np.maximum(error, 1e-12).max())
    assert np.all(np.abs(mean - [1, 2 + 1 / width ** (1 if dtype is np.float64 else 2)]) <= error)


def test_moments_of_an_open_band():
    """E tr A^4 of independent real normals with variances s_ij is 2 sum_i (sum_j s_ij)^2 + sum s_ij^2."""
    n, bandwidth = 20, 4
    rows = np.arange(n)
    profile = (np.abs(rows[:, None] - rows) <= bandwidth) / (2 * bandwidth + 1)
    mean, error = moments(lambda seed: band_wigner(n, bandwidth, periodic=False, seed=seed), 300)
    exact = [profile.sum() / n, (2 * (profile.sum(axis=1) ** 2).sum() + (profile**2).sum()) / n]
    assert np.all(np.abs(mean - exact) <= error)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_entries(dtype):
    n, bandwidth, variance = 400, 20, 3.0
    dense = band_wigner(n, bandwidth, variance=variance, seed=1, dtype=dtype).to_dense()
    distance = np.abs(np.arange(n)[:, None] - np.arange(n))
    distance = np.minimum(distance, n - distance)
    assert np.all(dense[distance > bandwidth] == 0) and np.all(dense[distance <= bandwidth] != 0)
    scale = np.sqrt((2 * bandwidth + 1) / variance)
    below = dense[(distance <= bandwidth) & np.tri(n, k=-1, dtype=bool)] * scale
    assert same_law(np.diag(dense).real * scale, stats.norm()) and np.all(np.diag(dense).imag == 0)
    parts = [below] if dtype is np.float64 else [below.real * np.sqrt(2), below.imag * np.sqrt(2)]
    assert all(same_law(part, stats.norm()) for part in parts)


def test_the_open_band_is_the_periodic_one_without_its_corners():
    closed, opened = (band_wigner(50, 6, periodic=periodic, seed=2).to_dense() for periodic in (True, False))
    inside = np.abs(np.arange(50)[:, None] - np.arange(50)) <= 6
    np.testing.assert_array_equal(closed * inside, opened)
    assert np.any(closed != opened)


def test_full_bands_follow_the_semicircle():
    n = 601
    values = np.linalg.eigvalsh(band_wigner(n, 300, variance=2.0, seed=1).to_dense())
    assert np.abs(Semicircle(variance=2.0).cdf(values) - (np.arange(n) + 0.5) / n).max() < 8 / n


def test_large_band_matrix():
    """Moments 2 and 4 of the measure of one probe, from the first Lanczos coefficients, at an order of 200 000."""
    n, bandwidth = 200_000, 12
    run = ls.lanczos(band_wigner(n, bandwidth, seed=1), 2)
    (a, _), (b, c) = run.alphas[0], run.betas[0]
    assert a == pytest.approx(0, abs=4 * np.sqrt(2 / n)) and b**2 == pytest.approx(1, abs=5 * np.sqrt(4 / n))
    assert c == pytest.approx(np.sqrt(1 + 1 / (2 * bandwidth + 1)), abs=10 / np.sqrt(n))


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ({"n": 0, "bandwidth": 0}, ValueError, "The argument n must be"),
        ({"n": 5, "bandwidth": -1}, ValueError, "The argument bandwidth must be a whole number of at least 0"),
        ({"n": 5, "bandwidth": 3}, ValueError, r"The argument bandwidth is 3, but a periodic band of order 5 has at most 2 .* wigner\(5\)"),
        (
            {"n": 5, "bandwidth": 5, "periodic": False},
            ValueError,
            "The argument bandwidth is 5, but a band matrix of order 5 has at most 4",
        ),
        ({"n": 5, "bandwidth": 1, "variance": 0}, ValueError, "The argument variance"),
        (
            {"n": 10**6, "bandwidth": 1000, "memory_budget": "1GB"},
            MemoryError,
            "takes 8.01 GB, over the budget of 1 GB; pass memory_budget=",
        ),
    ],
)
def test_bad_arguments_are_named(arguments, error, words):
    with pytest.raises(error, match=words):
        band_wigner(**arguments)


def test_smallest_orders():
    assert band_wigner(1, 0, seed=1).to_dense().shape == (1, 1)
    assert np.count_nonzero(band_wigner(2, 1, periodic=False).to_dense()) == 4
    assert wigner(3).shape == band_wigner(3, 1).shape
