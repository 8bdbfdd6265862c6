"""Means with honest errors, and the pilot that tells a decaying spectrum from a flat one."""

import numpy as np
import pytest
from helpers import BACKENDS, haar, least_hits, rotated
from scipy import stats

import linop_spectra as ls
from linop_spectra.estimators.sampling import _shape, half_width, mean_with_error, multiply, random_rows, share_outside


@pytest.mark.parametrize("samples", [30, 60, 90])
@pytest.mark.parametrize("name", ["flat", "geometric", "power law", "outliers"])
def test_coverage_of_quadratic_forms_in_random_signs(name, samples):
    """Hutchinson in a uniform basis, 400 runs; with m - 1 degrees of freedom the power law would be at 90 to 91 % with 30 samples."""
    n, i = 120, np.arange(120.0)
    eigenvalues = {
        "flat": np.linspace(1, 3, n), "geometric": 0.7**i, "power law": 1 / (1 + i) ** 2,
        "outliers": np.r_[np.linspace(5, 10, 10), np.linspace(0.01, 0.05, n - 10)],
    }[name]  # fmt: skip
    rng, matrix = np.random.default_rng(2), rotated(eigenvalues)
    hits = 0
    for _ in range(400):
        z = rng.choice([-1.0, 1.0], (samples, n))
        mean, error, dof = mean_with_error(np.sum((z @ matrix) * z, axis=1))
        hits += abs(mean - eigenvalues.sum()) <= half_width(error, dof)
    assert 0.92 <= hits / 400 <= 0.98


def test_degrees_of_freedom_of_normal_and_of_heavy_tailed_samples():
    rng = np.random.default_rng(0)
    normal = np.mean([mean_with_error(rng.standard_normal(50))[2] for _ in range(200)])
    heavy = np.median([mean_with_error(rng.standard_normal(50) ** 2)[2] for _ in range(200)])
    # A chi-square with one degree of freedom has the excess kurtosis 12: 2 / (12 / 50 + 2 / 49).
    assert 40 < normal <= 49 and 5 < heavy < 16


@pytest.mark.parametrize("m", [4, 5, 50])
def test_skewness_and_kurtosis_are_those_of_scipy(m):
    rng = np.random.default_rng(m)
    for samples in (rng.standard_normal(m), 1e40 * rng.standard_exponential(m) ** 3, 5 + 1e-6 * rng.standard_normal(m)):
        expected = stats.skew(samples, bias=False), stats.kurtosis(samples, bias=False)
        np.testing.assert_allclose(_shape(samples - samples.mean()), expected, rtol=1e-9, atol=1e-9)


def test_few_and_constant_samples():
    assert mean_with_error(np.array([3.0])) == (3.0, np.inf, 1.0)
    assert mean_with_error(np.array([1.0, 3.0])) == (2.0, 1.0, pytest.approx(1.0))
    assert mean_with_error(np.full(10, 2.5)) == (2.5, 0.0, pytest.approx(9.0))
    assert half_width(0.0, 5) == 0 and half_width(np.inf, 1) == np.inf and half_width(1, 9) == pytest.approx(stats.t.ppf(0.975, 9))


@pytest.mark.parametrize("complex_valued", [False, True])
def test_share_outside_is_unbiased(complex_valued):
    """What eight products leave out, by leaving one out of nine, is what seven others leave out on average."""
    eigenvalues = 0.8 ** np.arange(80.0)
    q = haar(80, 0, complex_valued)
    operator = ls.aslinearoperator((q * eigenvalues) @ q.conj().T, hermitian=True)
    estimates, truths = [], []
    for seed in range(150):
        rows = random_rows(operator, range(8), "sign", seed, "test")
        products, _ = multiply(operator, rows, 0)
        estimates.append(share_outside(operator, products))
        Q = np.linalg.qr(products[:7].T)[0]
        A = operator.to_dense()
        truths.append(np.linalg.norm(A - Q @ (Q.conj().T @ A)) ** 2 / np.linalg.norm(A) ** 2)
    spread = np.std(estimates) / np.sqrt(150) + np.std(truths) / np.sqrt(150)
    assert np.mean(estimates) == pytest.approx(np.mean(truths), abs=5 * spread)


def test_share_outside_of_a_range_that_is_spanned():
    operator = ls.diagonal_operator(np.r_[np.arange(1.0, 4), np.zeros(50)])
    products, _ = multiply(operator, random_rows(operator, range(8), "sign", 0, "test"), 0)
    assert share_outside(operator, products) == 0.0


@pytest.mark.parametrize("backend", BACKENDS)
def test_products_are_ours_and_checked(backend):
    device = BACKENDS[backend]()
    matrix = np.arange(12.0).reshape(3, 4)
    held = device.asarray(matrix)
    operator = ls.aslinearoperator(lambda x: held @ x, shape=(3, 4), dtype=float, backend=device)
    rows = device.asarray(np.eye(2, 4))
    products, norms = multiply(operator, rows, 0)
    np.testing.assert_array_equal(device.to_numpy(products), matrix[:, :2].T)
    np.testing.assert_allclose(norms, np.linalg.norm(matrix[:, :2], axis=0))


def test_three_samples_cover_too():
    rng = np.random.default_rng(1)
    hits = sum(abs(mean) <= half_width(error, dof) for mean, error, dof in (mean_with_error(rng.standard_normal(3)) for _ in range(300)))
    assert hits >= least_hits(300, 0.95)
