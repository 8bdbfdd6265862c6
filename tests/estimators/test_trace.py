"""Hutchinson's trace: unbiased, with the variance of theory and honest intervals."""

import time

import numpy as np
import pytest
from helpers import DTYPES, eps, least_hits, random_array, rotated

import linop_spectra as ls

N, SEEDS = 120, 300


@pytest.mark.parametrize("kind", ["symmetric", "general", "hermitian"])
def test_unbiased_with_the_exact_variance(kind):
    """Var z^T A z = 2 (|S|_F^2 - |diag S|^2), S the symmetric part; complex signs halve it: |A|_F^2 - |diag A|^2 for Hermitian A."""
    matrix = {
        "symmetric": rotated(np.linspace(-1, 3, N)),
        "general": random_array((N, N), np.float64, 1),
        "hermitian": rotated(np.linspace(-1, 3, N), 0, np.complex128),
    }[kind]
    part = (matrix + matrix.conj().T) / 2
    variance = (1 if kind == "hermitian" else 2) * (np.linalg.norm(part) ** 2 - np.linalg.norm(np.diag(part)) ** 2)
    products = 10
    values = np.array([ls.trace(matrix, method="hutchinson", num_matvecs=products, seed=seed).value for seed in range(SEEDS)])
    deviation = np.sqrt(variance / products)
    assert abs(values.mean() - np.trace(matrix).real) < 5 * deviation / np.sqrt(SEEDS)
    assert values.std(ddof=1) == pytest.approx(deviation, rel=4 / np.sqrt(2 * SEEDS))


@pytest.mark.parametrize("products", [3, 10, 40])
def test_intervals_cover(products):
    matrix = rotated(np.linspace(-1, 3, N))
    hits = 0
    for seed in range(SEEDS):
        low, high = ls.trace(matrix, method="hutchinson", num_matvecs=products, seed=seed).confidence_interval(0.95)
        hits += low <= np.trace(matrix) <= high
    assert hits >= least_hits(SEEDS, 0.95)


def test_signs_are_exact_on_diagonal_matrices():
    estimate = ls.trace(ls.diagonal_operator(np.arange(1000.0)), method="hutchinson", num_matvecs=5)
    assert estimate.value == pytest.approx(499_500, rel=1e-12) and estimate.standard_error < 1e-6


@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_where_the_products_allow_it(dtype):
    matrix = random_array((40, 40), dtype, 0)
    if np.dtype(dtype).kind == "c":  # a trace is a real number only then
        matrix = matrix + matrix.conj().T
    for options in ({}, {"method": "exact"}, {"num_matvecs": 40}):
        estimate = ls.trace(matrix, **options)
        assert estimate.method == "exact" and estimate.num_matvecs == 40 and estimate.standard_error == 0
        assert estimate.value == pytest.approx(np.trace(matrix).real, abs=100 * eps(dtype))
    assert ls.trace(matrix, num_matvecs=39).method == "hutchinson"


def test_one_product_knows_that_it_knows_nothing():
    estimate = ls.trace(rotated(np.linspace(-1, 3, N)), method="hutchinson", num_matvecs=1)
    assert estimate.standard_error == np.inf and estimate.confidence_interval() == (-np.inf, np.inf)


def test_tolerance_and_time_budget():
    matrix = rotated(np.linspace(2, 3, N))
    met = ls.trace(matrix, method="hutchinson", num_matvecs=5000, tol=0.01)
    assert met.converged and 10 <= met.num_matvecs < 5000 and met.value == pytest.approx(2.5 * N, rel=0.02)
    assert not ls.trace(matrix, method="hutchinson", num_matvecs=10, tol=1e-6).converged

    def slow(x):
        time.sleep(0.01)
        return matrix @ x

    operator = ls.aslinearoperator(slow, shape=(N, N), dtype=float)
    short = ls.trace(operator, method="hutchinson", num_matvecs=500, time_budget=0.05)
    assert not short.converged and 1 <= short.num_matvecs < 100
    with pytest.raises(TimeoutError, match="use method='hutchinson'"):
        ls.trace(operator, method="exact", time_budget=0.05)


def test_same_seed_same_numbers():
    matrix = rotated(np.linspace(-1, 3, N))
    one, two, three = (ls.trace(matrix, num_matvecs=20, seed=seed).value for seed in (0, 0, 1))
    assert one == two != three


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"method": "guess"}, ValueError, "argument method is 'guess'"),
        ({"num_matvecs": 0}, ValueError, "argument num_matvecs"),
        ({"tol": 0}, ValueError, "argument tol"),
        ({"time_budget": -1}, ValueError, "argument time_budget"),
        ({"method": "exact", "num_matvecs": 5}, ValueError, "use method='hutchinson'"),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        ls.trace(np.eye(20), **options)


def test_bad_operators():
    with pytest.raises(ValueError, match="square"):
        ls.trace(np.ones((2, 3)))
    with pytest.raises(FloatingPointError, match="NaN"):
        ls.trace(np.full((3, 3), np.nan))


def test_interrupted_estimates_are_returned_and_marked():
    calls = []

    def product(v):
        calls.append(1)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return 2 * v

    estimate = ls.trace(ls.aslinearoperator(product, shape=(300, 300), dtype=float), num_matvecs=50)
    assert estimate.value == pytest.approx(600) and estimate.num_matvecs == 16 and not estimate.converged


def test_a_trace_that_is_no_real_number_is_refused():
    with pytest.raises(ValueError, match="no real number"):
        ls.trace(np.diag(1 + 1j * np.arange(5.0)))
    with pytest.raises(TypeError, match="real and its imaginary part"):
        ls.trace_function(ls.identity(5), lambda x: np.exp(1j * x))


def test_one_sample_says_nothing_of_its_error():
    estimate = ls.trace(ls.identity(300), method="hutchinson", num_matvecs=1)
    assert estimate.standard_error == np.inf and not estimate.converged
