"""Norms, log-determinants and traces of functions, against dense algebra."""

import numpy as np
import pytest
from helpers import DTYPES, eps, least_hits, random_array, rotated

import linop_spectra as ls


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
    assert (
        ls.spectral_norm(ls.diagonal_operator(np.zeros(30))).value == 0
        and ls.frobenius_norm(ls.diagonal_operator(np.zeros(300))).value == 0
    )
    assert ls.spectral_norm(ls.identity(30)).value == pytest.approx(1) and ls.frobenius_norm(ls.identity(400)).value == pytest.approx(20)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(70, 70), (50, 90), (90, 50)])
def test_frobenius_norm(shape, dtype):
    matrix = random_array(shape, dtype, 1)
    true = np.linalg.norm(matrix)
    assert ls.frobenius_norm(matrix).value == pytest.approx(true, rel=1e3 * eps(dtype))
    assert ls.frobenius_norm(matrix).method == "exact"
    hits = 0
    for seed in range(200):
        low, high = ls.frobenius_norm(matrix, num_matvecs=12, seed=seed).confidence_interval(0.95)
        hits += low <= true <= high
    assert hits >= least_hits(200, 0.95)


@pytest.mark.parametrize("shift", [0.0, 0.1, 5.0])
def test_log_determinant(shift):
    matrix = rotated(np.linspace(0.5, 4.0, 300))
    true = np.linalg.slogdet(matrix + shift * np.eye(300))[1]
    hits = 0
    for seed in range(60):
        estimate = ls.logdet(matrix, shift=shift, num_steps=20, seed=seed)
        low, high = estimate.confidence_interval(0.95)
        hits += low <= true <= high
        assert estimate.value == pytest.approx(true, rel=0.3, abs=20)
    assert hits >= least_hits(60, 0.95)


def test_exact_functions_of_small_matrices():
    """As many steps as the order leave nothing to chance: every eigenvalue is found, and pinned where it is simple."""
    matrix = rotated(np.linspace(1.0, 3.0, 30))
    assert ls.logdet(matrix).value == pytest.approx(np.linalg.slogdet(matrix)[1], rel=1e-10)
    assert ls.trace_function(matrix, np.sqrt).value == pytest.approx(np.sqrt(np.linspace(1, 3, 30)).sum(), rel=1e-10)
    assert ls.trace_function(matrix, lambda x: 1.0).value == pytest.approx(30, rel=1e-12)  # a constant is a function


def test_what_has_no_log_determinant():
    with pytest.raises(ValueError, match=r"not positive definite.*raise the argument shift"):
        ls.logdet(ls.diagonal_operator(np.linspace(-1, 1, 50)))
    with pytest.raises(ValueError, match="not positive definite"):
        ls.logdet(ls.diagonal_operator(np.zeros(5)))
    with pytest.raises(ValueError, match="not finite at the Ritz value"):
        ls.trace_function(ls.diagonal_operator(np.linspace(-1, 1, 50)), np.log)


def test_errors():
    with pytest.raises(FloatingPointError, match="NaN"):
        ls.frobenius_norm(np.full((3, 3), np.nan))
    with pytest.raises(ValueError, match="argument num_matvecs"):
        ls.frobenius_norm(np.eye(3), num_matvecs=0)
    with pytest.raises(ValueError, match="argument tol"):
        ls.spectral_norm(np.eye(3), tol=2.0)
    one_way = ls.aslinearoperator(lambda x: x[::-1].cumsum(), shape=(5, 5), dtype=float)
    with pytest.raises(TypeError, match="no product with its adjoint"):
        ls.spectral_norm(one_way)
