"""Norms, against dense algebra."""

import math

import numpy as np
import pytest
from helpers import BACKENDS, DTYPES, eps, least_hits, random_array, rotated

import linop_spectra as ls
from linop_spectra.estimators import EstimationInterrupted, nuclear_norm, schatten_norm

INF = math.inf


def schatten(matrix, p):
    return np.linalg.norm(np.linalg.svd(matrix, compute_uv=False), p)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(60, 60), (90, 40), (40, 90), (1, 5)])
def test_spectral_norm(shape, dtype):
    matrix = random_array(shape, dtype, 0)
    estimate = ls.spectral_norm(matrix, tol=1e-5)
    true = np.linalg.norm(matrix, 2)
    assert estimate.value == pytest.approx(true, rel=1e-4) and estimate.converged
    assert abs(true - estimate.value) <= estimate.quadrature_error + 100 * eps(dtype) * true
    hermitian = rotated(np.r_[np.linspace(-1, 1, 50), -4.0], 0, dtype)
    assert ls.spectral_norm(ls.aslinearoperator(hermitian, hermitian=True)).value == pytest.approx(4, rel=1e-5)


def test_norms_of_zero_and_identity():
    zero, one = ls.diagonal_operator(np.zeros(300)), ls.identity(300)
    for norm in (ls.spectral_norm, ls.frobenius_norm, nuclear_norm, lambda a: schatten_norm(a, 3)):
        assert norm(zero).value == 0
    assert ls.spectral_norm(one).value == pytest.approx(1) and ls.frobenius_norm(one).value == pytest.approx(math.sqrt(300))
    assert nuclear_norm(one).value == pytest.approx(300) and schatten_norm(one, 4).value == pytest.approx(300**0.25)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(70, 70), (50, 90), (90, 50), (7, 1)])
def test_frobenius_norm(shape, dtype):
    matrix = random_array(shape, dtype, 1)
    true = np.linalg.norm(matrix)
    exact = ls.frobenius_norm(matrix)
    assert exact.value == pytest.approx(true, rel=1e3 * eps(dtype)) and exact.method == "exact" and exact.num_matvecs == shape[1]
    assert abs(exact.value - true) <= exact.rounding_error
    if shape[1] == 1 or eps(dtype) > 1e-10:
        return
    hits = 0
    for seed in range(100):
        low, high = ls.frobenius_norm(matrix, num_matvecs=12, seed=seed).confidence_interval(0.95)
        hits += low <= true <= high
    assert hits >= least_hits(100, 0.95)


def test_frobenius_norm_to_a_tolerance():
    matrix = rotated(np.linspace(-1, 2, 150))
    estimate = ls.frobenius_norm(matrix, tol=0.03)
    low, high = estimate.confidence_interval(0.95)
    assert estimate.converged and (high - low) / 2 <= 0.03 * estimate.value and low <= np.linalg.norm(matrix) <= high
    assert not ls.frobenius_norm(matrix, tol=1e-4, num_matvecs=20).converged
    assert not ls.frobenius_norm(matrix, num_matvecs=100, time_budget=1e-9).converged
    assert not ls.frobenius_norm(matrix, num_matvecs=1).converged


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_squares_that_are_no_numbers(scale):
    assert ls.frobenius_norm(scale * np.eye(40)).value == pytest.approx(scale * math.sqrt(40))
    assert ls.frobenius_norm(scale * np.eye(200)).value == pytest.approx(scale * math.sqrt(200))


@pytest.mark.parametrize("backend", BACKENDS)
def test_frobenius_norm_on_every_backend(backend):
    device, matrix = BACKENDS[backend](), random_array((30, 150), np.complex64, 0)
    held = device.asarray(matrix)
    there = ls.aslinearoperator(lambda x: held @ x, shape=(30, 150), dtype=np.complex64, backend=device)
    for products in (20, 150):
        assert ls.frobenius_norm(there, num_matvecs=products).value == pytest.approx(
            ls.frobenius_norm(matrix, num_matvecs=products).value, rel=1e-5
        )


def test_frobenius_norm_of_a_product_that_fails():
    calls = []

    def product(x):
        calls.append(1)
        if len(calls) > 20:
            raise ZeroDivisionError("no data")
        return 2 * x

    operator = ls.aslinearoperator(product, shape=(150, 150), dtype=float)
    with pytest.raises(EstimationInterrupted, match="no data") as caught:
        ls.frobenius_norm(operator, num_matvecs=50)
    assert caught.value.partial.num_matvecs == 16 and caught.value.partial.value == pytest.approx(2 * math.sqrt(150))
    calls.clear()
    with pytest.raises(ZeroDivisionError):
        ls.frobenius_norm(operator, num_matvecs=150)  # half of an exact norm is no norm


@pytest.mark.parametrize("p", [0.5, 1, 1.5, 2, 3, 8, INF])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("shape", [(24, 24), (40, 16), (16, 40)])
def test_schatten_norms_of_small_matrices(shape, dtype, p):
    matrix = random_array(shape, dtype, 2)
    estimate = schatten_norm(matrix, p)
    assert estimate.value == pytest.approx(schatten(matrix, p), rel=1e-5)
    symmetric = rotated(np.linspace(-1, 2, 24), 0, dtype)
    hermitian = schatten_norm(ls.aslinearoperator(symmetric, hermitian=True), p)
    assert hermitian.value == pytest.approx(schatten(symmetric, p), rel=1e-6)


@pytest.mark.parametrize("p", [1, 3])
@pytest.mark.parametrize("kind", ["hermitian", "rectangular"])
def test_coverage_of_schatten_norms(kind, p):
    matrix = rotated(np.linspace(-1, 3, 200)) if kind == "hermitian" else random_array((260, 180), np.float64, 0)
    operator = ls.aslinearoperator(matrix, hermitian=kind == "hermitian")
    true, hits, runs = schatten(matrix, p), 0, 40
    for seed in range(runs):
        before = operator.num_matvecs
        estimate = schatten_norm(operator, p, num_steps=24, num_probes=2, seed=seed)
        low, high = estimate.confidence_interval(0.95)
        hits += low <= true <= high
        assert kind == "rectangular" or estimate.num_matvecs == operator.num_matvecs - before
    assert hits >= least_hits(runs, 0.95)


def test_schatten_norm_to_a_tolerance():
    operator = ls.aslinearoperator(rotated(np.linspace(-1, 3, 200)), hermitian=True)
    estimate = nuclear_norm(operator, tol=0.02)
    low, high = estimate.confidence_interval(0.95)
    assert estimate.converged and (high - low) / 2 <= 0.02 * estimate.value * (1 + 1e-9)
    assert not nuclear_norm(operator, tol=1e-6, num_steps=10, num_probes=2).converged


def test_large_powers_do_not_overflow():
    entries = np.array([3e60, -4e60, 1e60])
    assert schatten_norm(ls.diagonal_operator(entries), 4).value == pytest.approx(np.linalg.norm(entries / 1e60, 4) * 1e60)


@pytest.mark.parametrize("p", [0, -1, math.nan, True])
def test_powers_that_are_no_norm(p):
    with pytest.raises(ValueError, match="argument p must be positive"):
        schatten_norm(np.eye(3), p)


def test_errors():
    with pytest.raises(FloatingPointError, match="NaN"):
        ls.frobenius_norm(np.full((3, 3), np.nan))
    with pytest.raises(ValueError, match="argument num_matvecs"):
        ls.frobenius_norm(np.eye(3), num_matvecs=0)
    with pytest.raises(ValueError, match="argument tol"):
        ls.spectral_norm(np.eye(3), tol=2.0)
    with pytest.raises(ValueError, match="argument tol"):
        ls.frobenius_norm(np.eye(3), tol=-2.0)
    one_way = ls.aslinearoperator(lambda x: x[::-1].cumsum(), shape=(5, 5), dtype=float)
    for norm in (ls.spectral_norm, nuclear_norm):
        with pytest.raises(TypeError, match="no product with its adjoint"):
            norm(one_way)


@pytest.mark.parametrize("scale", [1e-200, 1e-25, 1e200])
def test_spectral_norm_of_a_general_matrix_is_not_squared(scale):
    matrix = np.triu(np.full((5, 5), scale))
    assert ls.spectral_norm(matrix).value == pytest.approx(scale * np.linalg.norm(np.triu(np.ones((5, 5))), 2), rel=1e-6)
