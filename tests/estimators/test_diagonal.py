"""Diagonals, entry by entry, against dense matrices."""

import numpy as np
import pytest
from helpers import BACKENDS, DTYPES, eps, random_array, rotated

import linop_spectra as ls
from linop_spectra.estimators import DiagonalEstimate, EstimationInterrupted, NonFiniteEstimateError, diagonal

_I = np.arange(100.0)
SPECTRA = {
    "flat": np.linspace(1, 3, 100),
    "geometric": 0.9**_I,
    "power law": 1 / (1 + _I),
    "outliers": np.r_[np.linspace(5, 10, 10), np.linspace(0.01, 0.05, 90)],
}


def hermitian(matrix):
    return ls.aslinearoperator(matrix, hermitian=True)


def on_device(device, matrix):
    held = device.asarray(matrix)
    return ls.aslinearoperator(lambda x: held @ x, shape=matrix.shape, dtype=matrix.dtype, hermitian=True, backend=device)


@pytest.mark.parametrize("products", [20, 50])
@pytest.mark.parametrize("method", ["hutchinson", "xdiag"])
@pytest.mark.parametrize("name", SPECTRA)
def test_unbiased_and_covered_entry_by_entry(name, method, products):
    """40 runs of 100 entries; entries of one run are nearly independent."""
    matrix = rotated(SPECTRA[name])
    true, covered, errors, variances = np.diag(matrix), [], [], []
    for seed in range(40):
        estimate = diagonal(hermitian(matrix), method=method, num_matvecs=products, seed=seed)
        low, high = estimate.confidence_interval(0.95)
        covered.append(np.mean((low <= true) & (true <= high)))
        errors.append(estimate.value - true)
        variances.append(estimate.standard_error**2)
        assert estimate.num_matvecs == products and estimate.converged
    assert 0.92 <= np.mean(covered) <= 0.98
    errors = np.array(errors)
    assert abs(errors.mean()) < 5 * errors.mean(axis=1).std() / np.sqrt(40)
    ratio = np.mean(variances) / np.mean(errors**2)
    assert 0.9 < ratio < 2.0  # the part that may not be negative makes it too large where ten vectors meet ten outliers


def test_variance_of_hutchinson():
    """Bekas, Kokiopoulou and Saad (2007): the variance of an entry is the squared norm of the rest of its row."""
    matrix = random_array((60, 60), np.float64, 0)
    errors = np.array([diagonal(matrix, method="hutchinson", num_matvecs=10, seed=seed).value - np.diag(matrix) for seed in range(300)])
    expected = (np.linalg.norm(matrix, axis=1) ** 2 - np.diag(matrix) ** 2) / 10
    np.testing.assert_allclose(np.mean(errors**2, axis=0) / expected, 1, atol=6 * np.sqrt(2 / 300))


def xdiag_without(A, omega, i, j):
    """The paper's estimate from vector i, without vector j."""
    keep = [k for k in range(omega.shape[1]) if k not in (i, j)]
    Q = np.linalg.qr(A @ omega[:, keep])[0]
    product = A @ omega[:, i]
    return np.diag(Q @ (Q.conj().T @ A)) + omega[:, i].conj() * (product - Q @ (Q.conj().T @ product))


@pytest.mark.parametrize("kind", ["hermitian", "general", "complex"])
def test_xdiag_word_for_word(kind):
    matrix = {
        "hermitian": rotated(0.8 ** np.arange(40.0)), "general": random_array((40, 40), np.float64, 0),
        "complex": rotated(0.8 ** np.arange(40.0), 0, np.complex128),
    }[kind]  # fmt: skip
    operator = ls.aslinearoperator(matrix, hermitian=kind != "general")
    estimate = diagonal(operator, method="xdiag", num_matvecs=12)
    omega = operator.backend.probes(40, range(6), kind="sign", seed=0, domain="diagonal", dtype=matrix.dtype).T
    t = np.array([[np.real(xdiag_without(matrix, omega, i, j)) for j in range(6)] for i in range(6)])  # [i, i] leaves out i alone
    own = t[np.arange(6), np.arange(6)]
    np.testing.assert_allclose(estimate.value, own.mean(axis=0), atol=1e-10)
    change = own[:, None, :] - t
    covariance = (change * change.swapaxes(0, 1)).sum(axis=(0, 1)) / 30
    np.testing.assert_allclose(estimate.standard_error**2, own.var(axis=0, ddof=1) / 6 + np.maximum(covariance, 0), rtol=1e-8, atol=1e-13)


def test_many_vectors_use_pairs_of_neighbours():
    matrix = rotated(1 / (1 + np.arange(160.0)))
    estimate = diagonal(hermitian(matrix), method="xdiag", num_matvecs=100)
    error = estimate.value - np.diag(matrix)
    assert np.mean(error**2) == pytest.approx(np.mean(estimate.standard_error**2), rel=0.5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["hutchinson", "xdiag", "auto"])
def test_exact_cases_and_tiny_budgets(method, dtype):
    low_rank = rotated(np.r_[3.0, 2.0, 1.0, np.zeros(117)], 0, dtype)
    for products in (1, 2, 3, 5, 40):
        estimate = diagonal(hermitian(low_rank), method=method, num_matvecs=products)
        assert estimate.num_matvecs <= products and np.all(np.isfinite(estimate.value)) and estimate.value.dtype == np.float64
        single = products == 1 or (method == "xdiag" and products < 4)
        assert np.all(np.isinf(estimate.standard_error)) == (not estimate.converged) == single
    if method != "hutchinson":
        assert np.max(np.abs(estimate.value - np.diag(low_rank).real)) <= estimate.rounding_error <= 1e3 * eps(dtype)
        assert np.all(estimate.standard_error == 0)
    entries = np.arange(120.0).astype(dtype)
    estimate = diagonal(hermitian(np.diag(entries)), method=method, num_matvecs=5)
    if method != "xdiag":  # signs are exact on diagonal matrices
        np.testing.assert_allclose(estimate.value, entries.real, rtol=10 * eps(dtype))
    for matrix in (np.zeros((50, 50), dtype), np.eye(1, dtype=dtype)):
        for products in (1, 2, 12):
            estimate = diagonal(hermitian(matrix), method=method, num_matvecs=products)
            np.testing.assert_allclose(estimate.value, np.diag(matrix).real, atol=1e-6)


def test_signs_that_depend_by_chance_do_not_count_as_the_whole_range():
    """Two entries alone: of three vectors of two signs two always agree, up to their sign."""
    matrix = np.zeros((60, 60))
    matrix[:2, :2] = [[2.0, 1.0], [1.0, 5.0]]
    for seed in range(20):
        estimate = diagonal(hermitian(matrix), method="xdiag", num_matvecs=20, seed=seed)
        np.testing.assert_allclose(estimate.value, np.diag(matrix), atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_where_the_products_allow_it(dtype):
    matrix = rotated(np.linspace(-1, 1, 40), 0, dtype)
    for options in ({}, {"method": "exact"}, {"num_matvecs": 40}):
        estimate = diagonal(hermitian(matrix), **options)
        assert estimate.method == "exact" and estimate.num_matvecs == 40 and np.all(estimate.standard_error == 0)
        np.testing.assert_allclose(estimate.value, np.diag(matrix).real, atol=10 * eps(dtype))


def test_auto_decides_by_the_decay_and_keeps_its_products():
    flat, decaying = rotated(np.linspace(1, 2, 150)), rotated(0.8 ** np.arange(150.0))
    assert diagonal(hermitian(flat), num_matvecs=60).method == "hutchinson"
    operator = hermitian(decaying)
    estimate = diagonal(operator, num_matvecs=60)
    assert estimate.method == "xdiag" and operator.num_matvecs == estimate.num_matvecs == 60
    np.testing.assert_allclose(estimate.value, diagonal(operator, method="xdiag", num_matvecs=60).value, rtol=1e-10)
    assert diagonal(decaying @ np.diag(np.linspace(1, 2, 150)), num_matvecs=60).method == "hutchinson"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", ["hutchinson", "xdiag", "auto", "exact"])
def test_every_backend_gives_the_same(method, backend):
    for dtype in (np.float64, np.float32, np.complex128):
        matrix = rotated(0.8 ** np.arange(50.0), 0, dtype)
        device = BACKENDS[backend]()
        there = on_device(device, matrix)
        options = {"method": method, "num_matvecs": 50 if method == "exact" else 24}
        one, two = diagonal(there, **options), diagonal(hermitian(matrix), **options)
        np.testing.assert_allclose(device.to_numpy(one.value), two.value, atol=1e3 * eps(dtype))
        low, high = one.confidence_interval()
        assert np.all(device.to_numpy(low) <= device.to_numpy(high))


def test_tolerance_budget_and_failures():
    matrix = rotated(0.8 ** np.arange(150.0))
    met = diagonal(hermitian(matrix), method="xdiag", tol=0.05)
    assert met.converged and met.num_matvecs < 150
    assert np.linalg.norm(met.value - np.diag(matrix)) < 0.05 * np.linalg.norm(np.diag(matrix))
    assert not diagonal(hermitian(matrix), method="hutchinson", tol=1e-6, num_matvecs=20).converged
    calls = []

    def product(x, error):
        calls.append(1)
        if len(calls) > 40:
            if isinstance(error, BaseException):
                raise error
            return error * x
        return matrix @ x

    def operator(error):
        calls.clear()
        return ls.aslinearoperator(lambda x: product(x, error), shape=(150, 150), dtype=float, hermitian=True)

    for method in ("hutchinson", "xdiag", "auto"):
        stopped = diagonal(operator(KeyboardInterrupt()), method=method, num_matvecs=100)
        assert not stopped.converged and 16 <= stopped.num_matvecs <= 40
        whole = diagonal(hermitian(matrix), method=method, num_matvecs=stopped.num_matvecs)
        np.testing.assert_allclose(stopped.value, whole.value, rtol=1e-10)
        for error, kind in ((ZeroDivisionError("no data"), EstimationInterrupted), (np.nan, NonFiniteEstimateError)):
            with pytest.raises(kind) as caught:
                diagonal(operator(error), method=method, num_matvecs=100)
            np.testing.assert_array_equal(caught.value.partial.value, stopped.value)
    assert not diagonal(hermitian(matrix), method="xdiag", num_matvecs=100, time_budget=1e-9).converged


def test_saved_and_loaded(tmp_path):
    estimate = diagonal(hermitian(rotated(np.linspace(1, 2, 150))), num_matvecs=30)
    estimate.save(tmp_path / "d.npz")
    again = ls.load(tmp_path / "d.npz")
    assert isinstance(again, DiagonalEstimate) and again.method == estimate.method
    assert again.degrees_of_freedom == estimate.degrees_of_freedom
    for one, two in zip(again.confidence_interval(0.9), estimate.confidence_interval(0.9), strict=True):
        np.testing.assert_array_equal(one, two)
    assert "30" in str(estimate) and "150 entries" in str(estimate) and "<table>" in estimate._repr_html_() and "n=150" in repr(estimate)


@pytest.mark.parametrize(
    "matrix, options, error, message",
    [
        (np.eye(20), {"method": "guess"}, ValueError, "argument method is 'guess'"),
        (np.eye(20), {"num_matvecs": 0}, ValueError, "argument num_matvecs"),
        (np.eye(20), {"tol": -1}, ValueError, "argument tol"),
        (np.eye(20), {"time_budget": 0}, ValueError, "argument time_budget"),
        (np.eye(20), {"method": "exact", "num_matvecs": 5}, ValueError, "use method='hutchinson'"),
        (np.ones((2, 3)), {}, ValueError, "square"),
        (np.diag(1j * np.arange(3.0)), {}, ValueError, "no real number"),
        (np.full((3, 3), np.nan), {}, FloatingPointError, "Product 1 .* NaN"),
    ],
)
def test_bad_arguments(matrix, options, error, message):
    with pytest.raises(error, match=message):
        diagonal(matrix, **options)
    with pytest.raises(ValueError, match="argument level"):
        diagonal(np.eye(3)).confidence_interval(95)


def test_products_with_the_adjoint_are_needed_for_what_is_not_hermitian():
    one_way = ls.aslinearoperator(lambda x: x[::-1].cumsum(), shape=(50, 50), dtype=float)
    with pytest.raises(TypeError, match="no product with its adjoint"):
        diagonal(one_way, method="xdiag", num_matvecs=20)
