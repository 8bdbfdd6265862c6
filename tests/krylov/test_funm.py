"""Functions of operators against dense eigendecompositions, SciPy and the solvers of linear systems."""

import time

import numpy as np
import pytest
from helpers import BACKENDS, DTYPES, eps, random_array, rotated
from scipy.sparse import linalg as sparse_linalg

import linop_spectra as ls
from linop_spectra.krylov.funm import funm_multiply
from linop_spectra.krylov.solve import solve

SPECTRA = {
    "uniform": np.linspace(0.01, 5, 300),
    "quadratic": np.linspace(0.05, 1, 300) ** 2 * 5,
    "both signs": np.linspace(-3, 3, 300) + 0.003,
    "outliers": np.r_[np.linspace(0.1, 1, 290), 10.0 * np.arange(1, 11)],
}
FUNCTIONS = {
    "exp": np.exp,
    "sqrt": np.sqrt,
    "inverse": lambda x: 1 / x,
    "sign": np.sign,
    "log": np.log,
    "oscillation": lambda x: np.exp(-5j * x),
    "modulus": np.abs,
}
POSITIVE_ONLY = ("sqrt", "log")


def dense(matrix, f, b):
    values, vectors = np.linalg.eigh(matrix.astype(np.complex128))
    values = np.where(np.abs(values) < 1e-12, 0.0, values)
    coefficients = f(values)
    return vectors @ ((coefficients * (vectors.conj().T @ b).T).T)


@pytest.mark.parametrize("reorthogonalize", ["full", "none"])
@pytest.mark.parametrize("columns", [None, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_against_dense(dtype, columns, reorthogonalize):
    matrix = rotated(np.linspace(0.5, 3, 120), 0, dtype)
    b = random_array(120 if columns is None else (120, columns), dtype, 1)
    tol = 1e-11 if eps(dtype) < 1e-10 else 2e-5
    for name, f in FUNCTIONS.items():
        result = funm_multiply(matrix, f, b, num_steps=60, tol=tol, reorthogonalize=reorthogonalize)
        expected = dense(matrix, f, b)
        assert result.value.shape == b.shape and result.status == "complete" and result.converged.all(), name
        complex_valued = np.dtype(dtype).kind == "c" or name == "oscillation"
        assert result.value.dtype == (np.result_type(dtype, np.complex64) if complex_valued else dtype)
        error = np.atleast_1d(np.linalg.norm(result.value - expected, axis=0))
        assert np.all(error <= 2 * tol * np.atleast_1d(np.linalg.norm(expected, axis=0))), name
        assert result.error_estimate.shape == (columns or 1,)
        np.testing.assert_array_equal(np.asarray(result), result.value)


@pytest.mark.parametrize("reorthogonalize", ["full", "none"])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend(name, dtype, reorthogonalize):
    backend = BACKENDS[name]()
    matrix = rotated(np.linspace(-2, 3, 50), 2, dtype)
    operator = ls.aslinearoperator(matrix, backend=backend, hermitian=True)
    for f in (np.exp, lambda x: np.exp(-2j * x)):
        for b in (random_array((50, 2), dtype, 3), random_array(50, np.complex128, 4)):
            result = funm_multiply(operator, f, b, num_steps=30, reorthogonalize=reorthogonalize)
            np.testing.assert_allclose(backend.to_numpy(result.value), dense(matrix, f, b), atol=1e-10)


def test_exp_as_scipy_does():
    matrix = rotated(np.linspace(-6, 2, 80), 5)
    b = random_array((80, 3), float, 6)
    result = funm_multiply(matrix, lambda x: np.exp(0.7 * x), b, tol=1e-12)
    np.testing.assert_allclose(result.value, sparse_linalg.expm_multiply(0.7 * matrix, b), atol=1e-10)
    result = funm_multiply(matrix, lambda x: np.exp(-1j * x), b[:, 0], tol=1e-12)
    np.testing.assert_allclose(result.value, sparse_linalg.expm_multiply(-1j * matrix, b[:, 0].astype(complex)), atol=1e-10)
    np.testing.assert_allclose(np.linalg.norm(result.value), np.linalg.norm(b[:, 0]), rtol=1e-12)  # unitary


def test_the_inverse_is_conjugate_gradients():
    """In exact arithmetic Lanczos for the inverse is conjugate gradients, step by step."""
    operator, b = ls.diagonal_operator(np.linspace(1, 20, 100)), random_array(100, float, 7)
    for steps in (1, 4, 12):
        with pytest.warns(UserWarning, match="did not converge"):
            by_cg = solve(operator, b, method="cg", max_iterations=steps, tol=1e-14)
        np.testing.assert_allclose(funm_multiply(operator, lambda x: 1 / x, b, num_steps=steps).value, by_cg.x, atol=1e-12)


@pytest.mark.parametrize("reorthogonalize", ["full", "none"])
def test_polynomials_of_lower_degree_are_exact(reorthogonalize):
    matrix = rotated(np.linspace(-1, 1, 40), 8)
    b = random_array((40, 2), float, 9)
    for degree in range(6):
        coefficients = random_array(degree + 1, float, 10 + degree)
        expected = sum(c * np.linalg.matrix_power(matrix, p) @ b for p, c in enumerate(coefficients))
        polynomial = np.polynomial.Polynomial(coefficients)
        result = funm_multiply(matrix, polynomial, b, num_steps=degree + 1, reorthogonalize=reorthogonalize)
        np.testing.assert_allclose(result.value, expected, atol=1e-13)
    np.testing.assert_allclose(funm_multiply(matrix, lambda x: 1.0, b, num_steps=1).value, b, atol=1e-14)  # a plain number is a constant
    np.testing.assert_allclose(funm_multiply(matrix, lambda x: x, b, num_steps=2).value, matrix @ b, atol=1e-14)
    few = funm_multiply(matrix, lambda x: x**3, b, num_steps=3, reorthogonalize=reorthogonalize)
    assert np.linalg.norm(few.value - np.linalg.matrix_power(matrix, 3) @ b) > 1e-3  # one step too few


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_the_error_estimate_is_honest(spectrum, name):
    """Never far below the true error once a few steps are taken, with and without reorthogonalisation, and small in the end."""
    if spectrum == "both signs" and name in POSITIVE_ONLY:
        pytest.skip("not defined there")
    values, f = SPECTRA[spectrum], FUNCTIONS[name]
    operator = ls.diagonal_operator(values)
    for seed in range(3):
        b = random_array(300, float, seed)
        expected = f(values) * b
        for steps in (8, 16, 32, 64, 128):
            for reorthogonalize in ("full", "none"):
                result = funm_multiply(operator, f, b, num_steps=steps, reorthogonalize=reorthogonalize)
                assert np.linalg.norm(expected - result.value) <= 4 * result.error_estimate[0]
    if (spectrum, name) in {("uniform", "exp"), ("uniform", "sqrt"), ("outliers", "log"), ("both signs", "oscillation")}:
        assert result.error_estimate[0] < 1e-9 * np.linalg.norm(expected) and result.converged.all()


def test_the_error_estimate_in_single_precision():
    """The rounding of products is part of it: nothing is promised beyond single precision."""
    values = np.linspace(0.5, 2, 100).astype(np.float32)
    b = random_array(100, np.float32, 11)
    for f in (np.exp, np.sqrt, lambda x: np.exp(-30j * x)):
        result = funm_multiply(ls.diagonal_operator(values), f, b, num_steps=90)
        error = np.linalg.norm(f(values.astype(float)) * b - result.value)
        assert error <= 4 * result.error_estimate[0] and result.error_estimate[0] < 1e-3 * np.linalg.norm(b)


def test_a_tolerance_stops_early():
    operator, b = ls.diagonal_operator(np.linspace(0, 1, 500)), random_array((500, 2), float, 12)
    taken = []
    for tol in (1e-2, 1e-6, 1e-12):
        result = funm_multiply(operator, np.exp, b, tol=tol)
        expected = np.exp(np.linspace(0, 1, 500))[:, None] * b
        assert result.converged.all() and result.num_matvecs == 2 * result.num_steps
        assert np.all(np.linalg.norm(result.value - expected, axis=0) <= tol * np.linalg.norm(expected, axis=0))
        taken.append(result.num_steps)
    assert taken[0] < taken[1] < taken[2] < 32
    hopeless = funm_multiply(operator, lambda x: np.sign(x - 0.5), b, num_steps=20, tol=1e-10)
    assert not hopeless.converged.any() and hopeless.num_steps == 20


def test_two_passes_where_the_basis_does_not_fit():
    operator, b = ls.diagonal_operator(np.linspace(0.1, 1, 1000)), random_array((1000, 2), float, 13)
    kept = funm_multiply(operator, np.sqrt, b, num_steps=30)
    with pytest.warns(UserWarning, match=r"basis of 2 x 31 vectors takes .* over the memory budget .* twice the products"):
        twice = funm_multiply(operator, np.sqrt, b, num_steps=30, memory_budget="100 kB")
    assert (kept.method, twice.method) == ("stored basis", "two passes")
    assert (kept.num_matvecs, twice.num_matvecs) == (60, 118)  # the last vector of the second pass needs no product
    np.testing.assert_allclose(twice.value, kept.value, atol=1e-9)
    with pytest.raises(MemoryError, match="over the memory budget"):
        funm_multiply(operator, np.sqrt, b, num_steps=30, memory_budget="100 kB", reorthogonalize="full")


def test_two_passes_need_products_that_repeat():
    products = [0]

    def drifting(x):
        products[0] += 1
        return np.linspace(0, 1, 200) * x * (1.0 if products[0] <= 6 else 1.001)

    operator = ls.aslinearoperator(drifting, shape=(200, 200), dtype=float, hermitian=True)
    with pytest.raises(ValueError, match="do not repeat"):
        funm_multiply(operator, np.exp, np.ones(200), num_steps=6, reorthogonalize="none")


@pytest.mark.parametrize("reorthogonalize", ["full", "none"])
def test_invariant_subspaces_and_zeros(reorthogonalize):
    b = random_array((30, 3), float, 15)
    b[:, 1] = 0
    for operator, scale in ((ls.identity(30), np.e), (ls.diagonal_operator(np.zeros(30)), 1.0)):
        result = funm_multiply(operator, np.exp, b, reorthogonalize=reorthogonalize)
        np.testing.assert_allclose(result.value, scale * b, atol=1e-13)
        assert result.converged.all() and result.num_steps == 1 and result.error_estimate[1] == 0
    result = funm_multiply(ls.identity(30), np.exp, np.zeros(30), reorthogonalize=reorthogonalize)
    np.testing.assert_array_equal(result.value, 0)
    assert result.num_matvecs == 0 and result.converged.all()
    # Three eigenvalues: three steps are everything, whatever the function.
    operator = ls.diagonal_operator(np.repeat([1.0, 2.0, 5.0], 10))
    result = funm_multiply(operator, np.log, b, reorthogonalize=reorthogonalize)
    np.testing.assert_allclose(result.value, np.log(np.repeat([1.0, 2.0, 5.0], 10))[:, None] * b, atol=1e-12)
    assert result.num_steps == 3 and result.converged.all()


@pytest.mark.parametrize("n", [1, 2, 5])
def test_tiny_orders(n):
    matrix = rotated(np.linspace(2, 3, n), 16)
    b = np.ones(n)
    result = funm_multiply(matrix, np.log, b)  # 64 steps are more than there are
    np.testing.assert_allclose(result.value, dense(matrix, np.log, b).real, atol=1e-13)
    assert result.converged.all()


def test_roots_of_semidefinite_operators():
    """Rounding makes an eigenvalue zero negative; a square root is meant to be zero there."""
    root = random_array((60, 40), float, 17)
    gram = ls.aslinearoperator(root) @ ls.aslinearoperator(root).H
    matrix = root @ root.T
    b = random_array(60, float, 18)
    expected = dense((matrix + matrix.T) / 2, lambda x: np.sqrt(np.maximum(x, 0)), b).real
    for operator in (gram, (matrix + matrix.T) / 2):
        np.testing.assert_allclose(funm_multiply(operator, np.sqrt, b, num_steps=60).value, expected, atol=1e-5)


def test_functions_that_are_not_finite():
    b = np.ones(20)
    with pytest.raises(ValueError, match=r"f is nan at the Ritz value -0\.9.*finite between"):
        funm_multiply(ls.diagonal_operator(np.r_[-0.9, np.ones(19)]), np.log, b)
    with pytest.raises(ValueError, match=r"f is inf at the Ritz value 1.*finite between"):
        funm_multiply(ls.identity(20), lambda x: 1 / (x - x), b)
    with pytest.raises(ValueError, match="as many numbers"):
        funm_multiply(ls.identity(20), lambda x: np.ones(7), b)


def test_wrong_arguments():
    matrix, b = rotated(np.linspace(1, 2, 20)), np.ones(20)
    with pytest.raises(ValueError, match=r"argument b must have shape \(20,\) or \(20, j\)"):
        funm_multiply(matrix, np.exp, np.ones(19))
    with pytest.raises(ValueError, match="argument b holds NaN"):
        funm_multiply(matrix, np.exp, np.full(20, np.inf))
    with pytest.raises(ValueError, match="argument tol"):
        funm_multiply(matrix, np.exp, b, tol=1.5)
    with pytest.raises(ValueError, match="argument num_steps"):
        funm_multiply(matrix, np.exp, b, num_steps=0)
    with pytest.raises(ValueError, match="argument reorthogonalize is 'twice'"):
        funm_multiply(matrix, np.exp, b, reorthogonalize="twice")
    with pytest.raises(ValueError, match="argument time_budget"):
        funm_multiply(matrix, np.exp, b, time_budget=-1)
    with pytest.raises(ValueError, match="needs a Hermitian"):
        funm_multiply(np.triu(np.ones((20, 20))), np.exp, b)


def failing(at, action):
    left = [at]

    def product(x):
        left[0] -= 1
        return action() if left[0] == 0 else np.linspace(0, 1, 100) * x

    return ls.aslinearoperator(product, shape=(100, 100), dtype=float, hermitian=True)


def _raise(kind):
    raise kind("the device is gone")


@pytest.mark.parametrize("reorthogonalize", ["full", "none"])
def test_interruptions_keep_what_there_is(reorthogonalize):
    b = np.ones(100)
    expected = np.exp(np.linspace(0, 1, 100))
    result = funm_multiply(failing(9, lambda: _raise(KeyboardInterrupt)), np.exp, b, reorthogonalize=reorthogonalize)
    assert result.status == "interrupted" and result.num_steps == 8
    assert np.linalg.norm(result.value - expected) <= result.error_estimate[0] < 1e-3
    with pytest.raises(KeyboardInterrupt):
        funm_multiply(failing(1, lambda: _raise(KeyboardInterrupt)), np.exp, b)
    with pytest.raises(ls.LanczosInterrupted, match="the device is gone") as caught:
        funm_multiply(failing(9, lambda: _raise(OSError)), np.exp, b, reorthogonalize=reorthogonalize)
    if reorthogonalize == "full":
        assert np.linalg.norm(caught.value.partial.value - expected) < 1e-6
    with pytest.raises(ls.NonFiniteProductError, match="NaN"):
        funm_multiply(failing(9, lambda: np.full(100, np.nan)), np.exp, b)


@pytest.mark.parametrize("reorthogonalize", ["full", "none"])
def test_time_budget_and_progress(reorthogonalize):
    def slow(x):
        time.sleep(0.004)
        return np.linspace(-1, 1, 300) * x

    operator = ls.aslinearoperator(slow, shape=(300, 300), dtype=float, hermitian=True)
    began = time.perf_counter()
    result = funm_multiply(operator, np.abs, np.ones(300), num_steps=200, time_budget=0.15, reorthogonalize=reorthogonalize)
    assert time.perf_counter() - began < 0.6 and result.status == "time budget" and 1 < result.num_steps < 60
    calls = []
    matrix = rotated(np.linspace(1, 2, 20))
    funm_multiply(matrix, np.exp, np.ones(20), num_steps=7, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (7, 7)


def test_saved_and_loaded(tmp_path):
    result = funm_multiply(rotated(np.linspace(1, 2, 20)), np.exp, np.ones(20))
    result.save(tmp_path / "f.npz")
    again = ls.load(tmp_path / "f.npz")
    np.testing.assert_array_equal(again.value, result.value)
    assert again.method == result.method and again.num_steps == result.num_steps and "stored basis" in result._repr_html_()
