"""The Gaussian orthogonal and unitary ensembles against exact laws of entries, moments, spectra and spacings."""

import numpy as np
import pytest
from helpers import same_law
from scipy import integrate, stats

import linop_spectra as ls
from linop_spectra.backends import random_vector
from linop_spectra.random_matrices import Semicircle, wigner


def test_entries_are_the_published_stream_row_by_row():
    n, variance = 12, 3.0
    lower = random_vector(n * (n + 1) // 2, kind="normal", seed=5, domain="ensemble/goe", index=0, dtype=np.dtype(float))
    matrix = np.zeros((n, n))
    matrix[np.tril_indices(n)] = lower
    matrix = (matrix + matrix.T) * np.sqrt(variance / n)
    matrix[np.diag_indices(n)] /= np.sqrt(2)
    np.testing.assert_allclose(wigner(n, variance=variance, seed=5).to_dense(), matrix, rtol=1e-15)


@pytest.mark.parametrize("n, variance", [(300, 1.0), (300, 0.04)])
def test_variances_of_the_entries(n, variance):
    real = wigner(n, variance=variance, seed=1).to_dense()
    assert same_law(real[np.tril_indices(n, -1)] * np.sqrt(n / variance), stats.norm())
    assert same_law(np.diag(real) * np.sqrt(n / (2 * variance)), stats.norm())
    complex_valued = wigner(n, variance=variance, seed=1, ensemble="gue").to_dense()
    below = complex_valued[np.tril_indices(n, -1)] * np.sqrt(2 * n / variance)
    assert same_law(below.real, stats.norm()) and same_law(below.imag, stats.norm())
    assert np.all(np.diag(complex_valued).imag == 0)
    assert same_law(np.diag(complex_valued).real * np.sqrt(n / variance), stats.norm())


@pytest.mark.parametrize("ensemble, exact", [("goe", 1 + 1 / 10), ("gue", 1.0)])
def test_mean_square_at_finite_n(ensemble, exact):
    """E tr A^2 / n is (n + 1) / n for real and 1 for complex entries, exactly; n^2 tr A^2 / n is a weighted sum of squares."""
    n, draws = 10, 400
    squares = [np.linalg.norm(wigner(n, seed=s, ensemble=ensemble).to_dense()) ** 2 / n for s in range(draws)]
    assert np.mean(squares) == pytest.approx(exact, abs=4 * np.std(squares) / np.sqrt(draws))
    other = {"goe": 1.0, "gue": 1.1}[ensemble]
    assert abs(np.mean(squares) - other) > 4 * np.std(squares) / np.sqrt(draws)


@pytest.mark.parametrize("ensemble", ["goe", "gue"])
@pytest.mark.parametrize("variance", [1.0, 2.25])
def test_all_eigenvalues_follow_the_semicircle(ensemble, variance):
    """Eigenvalues are rigid: a few units over n from the law, where independent ones would be 1 / sqrt(n) away."""
    n = 600
    eigenvalues = np.linalg.eigvalsh(wigner(n, variance=variance, seed=2, ensemble=ensemble).to_dense())
    levels = (np.arange(n) + 0.5) / n

    def distance(law):
        return np.abs(law.cdf(eigenvalues) - levels).max()

    assert distance(Semicircle(variance=variance)) < 8 / n
    assert distance(Semicircle(variance=1.05**2 * variance)) > 8 / n


@pytest.mark.parametrize("ensemble, n", [("goe", 3000), ("gue", 1500)])
def test_spectral_density_is_within_its_own_bound_of_the_law(ensemble, n):
    """W1(measured, law) <= W1(measured, spectrum) + W1(spectrum, law); rigidity bounds the latter by 6 / n."""
    density = ls.spectral_density(wigner(n, seed=3, ensemble=ensemble), num_steps=80, num_probes=6)
    x = np.linspace(-3.5, 3.5, 40_001)

    def distance(law):
        return integrate.trapezoid(np.abs(density.cdf(x) - law.cdf(x)), x)

    assert distance(Semicircle()) <= density.wasserstein_bound + 6 / n < distance(Semicircle(variance=1.3**2))
    assert density.outliers() == ()


def mean_spacing_ratio(eigenvalues):
    gaps = np.diff(eigenvalues)
    return float(np.mean(np.minimum(gaps[1:], gaps[:-1]) / np.maximum(gaps[1:], gaps[:-1])))


@pytest.mark.slow
@pytest.mark.parametrize("ensemble, expected", [("goe", 0.5307), ("gue", 0.5996)])
def test_mean_ratio_of_consecutive_spacings(ensemble, expected):
    """Atas, Bogomolny, Giraud and Roux (2013); independent levels would have 2 ln 2 - 1 = 0.386."""
    ratios = np.array([mean_spacing_ratio(np.linalg.eigvalsh(wigner(100, seed=s, ensemble=ensemble).to_dense())) for s in range(720)])
    error = ratios.std() / np.sqrt(len(ratios))
    assert ratios.mean() == pytest.approx(expected, abs=4 * error)
    assert 4 * error < 0.0055


def test_a_spike_pulls_out_one_eigenvalue():
    """Strength theta > 1: to theta + 1 / theta with overlap 1 - 1 / theta^2; below one nothing leaves the bulk."""
    n = 1200
    u = np.ones((n, 1)) / np.sqrt(n)
    bulk = wigner(n, seed=7)
    for theta in (2.0, 4.0):
        result = ls.eigsh(bulk + ls.low_rank(u, [theta]), k=1, which="LA", tol=1e-8)
        deviation = np.sqrt(2 * (1 - theta**-2) / n)
        assert result.eigenvalues[0] == pytest.approx(theta + 1 / theta, abs=4 * deviation)
        assert (u[:, 0] @ result.eigenvectors[:, 0]) ** 2 == pytest.approx(1 - theta**-2, abs=6 / np.sqrt(n))
    below = ls.eigsh(bulk + ls.low_rank(u, [0.5]), k=1, which="LA", tol=1e-6).eigenvalues[0]
    assert below == pytest.approx(2.0, abs=6 * n ** (-2 / 3))


def test_smallest_orders():
    one = [wigner(1, seed=s).to_dense()[0, 0] for s in range(400)]
    assert same_law(one, stats.norm(0, np.sqrt(2)))
    assert wigner(1, ensemble="gue").to_dense().imag == 0
    for n in (1, 2, 3):
        operator = wigner(n, seed=1)
        assert operator.hermitian is True and operator.shape == (n, n)
        run = ls.lanczos(operator, n)
        np.testing.assert_allclose(run.ritz_values[0], np.linalg.eigvalsh(operator.to_dense()), atol=1e-14)


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ({"n": 0}, ValueError, "The argument n must be a whole number of at least 1, but is 0"),
        ({"n": -3}, ValueError, "The argument n must be a whole number of at least 1, but is -3"),
        ({"n": 10.0}, ValueError, "The argument n must be a whole number of at least 1, but is 10.0"),
        ({"n": True}, ValueError, "The argument n must be a whole number"),
        ({"n": "ten"}, ValueError, "The argument n must be a whole number"),
        ({"n": 5, "variance": -1.0}, ValueError, "The argument variance, .*, must be a positive finite number, but is -1.0"),
        ({"n": 5, "variance": 0}, ValueError, "The argument variance, .*, must be a positive finite number, but is 0"),
        ({"n": 5, "variance": np.nan}, ValueError, "The argument variance, .*, must be a positive finite number, but is nan"),
        ({"n": 5, "ensemble": "gse"}, ValueError, "The argument ensemble is 'gse', but must be 'goe' .* or 'gue'"),
        ({"n": 5, "ensemble": None}, ValueError, "The argument ensemble is None"),
        ({"n": 5, "dtype": complex}, TypeError, "The argument dtype is complex128, but ensemble='goe' needs a real floating type"),
        ({"n": 5, "dtype": float, "ensemble": "gue"}, TypeError, "The argument dtype is float64, but ensemble='gue' needs a complex"),
    ],
)
def test_bad_arguments_are_named(arguments, error, words):
    with pytest.raises(error, match=words):
        wigner(**arguments)
