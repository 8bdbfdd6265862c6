"""Log-determinants and traces of functions, against dense algebra."""

import numpy as np
import pytest
from helpers import least_hits, rotated

import linop_spectra as ls


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


def test_the_sign_of_a_negative_log_determinant():
    """A peer returns its modulus."""
    eigenvalues = np.linspace(0.05, 0.5, 60)
    assert ls.logdet(rotated(eigenvalues)).value == pytest.approx(np.log(eigenvalues).sum(), rel=1e-8) and np.log(eigenvalues).sum() < -80


def test_exact_functions_of_small_matrices():
    """As many steps as the order leave nothing to chance: every eigenvalue is found, and pinned where it is simple."""
    matrix = rotated(np.linspace(1.0, 3.0, 30))
    assert ls.logdet(matrix).value == pytest.approx(np.linalg.slogdet(matrix)[1], rel=1e-10)
    assert ls.trace_function(matrix, np.sqrt).value == pytest.approx(np.sqrt(np.linspace(1, 3, 30)).sum(), rel=1e-10)
    assert ls.trace_function(matrix, lambda x: 1.0).value == pytest.approx(30, rel=1e-12)  # a constant is a function


@pytest.mark.parametrize("sign", [1, -1])
def test_a_tolerance_is_the_half_width_of_this_estimate(sign):
    """It is met for negative traces as well as for positive ones, with the same products."""
    matrix = rotated(np.linspace(0.5, 4.0, 300))
    estimate = ls.trace_function(matrix, lambda x: sign * np.exp(x), tol=0.03)
    low, high = estimate.confidence_interval(0.95)
    true = sign * np.exp(np.linspace(0.5, 4.0, 300)).sum()
    assert estimate.converged and (high - low) / 2 <= 0.03 * abs(estimate.value) and low <= true <= high
    assert estimate.num_matvecs == ls.trace_function(matrix, np.exp, tol=0.03).num_matvecs
    missed = ls.trace_function(matrix, lambda x: sign * np.exp(x), tol=1e-7, num_steps=10, num_probes=3)
    assert not missed.converged and missed.num_matvecs <= 40


def test_log_determinant_to_a_tolerance():
    matrix = rotated(np.linspace(0.5, 4.0, 300))
    estimate = ls.logdet(matrix, shift=0.3, tol=0.05)
    low, high = estimate.confidence_interval(0.95)
    assert estimate.converged and (high - low) / 2 <= 0.05 * abs(estimate.value)
    assert low <= np.log(np.linspace(0.8, 4.3, 300)).sum() <= high
    with pytest.raises(ValueError, match=r"not positive definite.*raise the argument shift"):
        ls.logdet(rotated(np.linspace(-1, 1, 300)), tol=0.05)


def test_what_has_no_log_determinant():
    with pytest.raises(ValueError, match=r"not positive definite.*raise the argument shift"):
        ls.logdet(ls.diagonal_operator(np.linspace(-1, 1, 50)))
    with pytest.raises(ValueError, match="not positive definite"):
        ls.logdet(ls.diagonal_operator(np.zeros(5)))


@pytest.mark.parametrize("tol", [None, 0.01])
def test_functions_that_are_not_defined_on_the_spectrum(tol):
    operator = ls.diagonal_operator(np.linspace(-1, 1, 300))
    with pytest.raises(ValueError, match="not finite at the Ritz value"):
        ls.trace_function(operator, np.log, tol=tol)
    with pytest.raises(TypeError, match="complex on the eigenvalues"):
        ls.trace_function(operator, lambda x: np.exp(1j * x), tol=tol)


def test_a_time_budget_gives_what_there_is():
    estimate = ls.trace_function(rotated(np.linspace(1, 2, 300)), np.log, tol=1e-12, time_budget=1e-9)
    assert not estimate.converged and np.isfinite(estimate.value) and estimate.num_matvecs < 30
