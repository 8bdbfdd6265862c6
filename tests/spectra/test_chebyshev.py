"""Moments against explicit polynomials of the matrix, closed forms, and the ends of the range of numbers."""

import numpy as np
import pytest
from helpers import DTYPES, rotated

import linop_spectra as ls
from linop_spectra.spectra.chebyshev import chebyshev_moments

EIGENVALUES = np.linspace(-1, 3, 80)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("interval", [None, (-2.0, 5.0)])
def test_moments_are_those_of_the_probe_up_to_degree_2k_minus_1(interval, dtype):
    """``v^* T_i(A) v`` by the three-term recurrence on the dense matrix, which knows nothing of Lanczos."""
    matrix, k = rotated(EIGENVALUES, 1, dtype), 9
    S = ls.spectral_density(ls.aslinearoperator(matrix, hermitian=True), num_steps=k, num_probes=3, deflate=False)
    low, high = interval or S.interval
    mapped = (2 * matrix - (high + low) * np.eye(80)) / (high - low)
    probes = np.stack([ls.to_numpy(S.run.vectors.bases[probe].row(0)) for probe in range(3)], axis=1)
    before, current, expected = probes, mapped @ probes, []
    for degree in range(2 * k):
        polynomial = before if degree == 0 else current
        if degree > 1:
            before, current = current, 2 * mapped @ current - before
            polynomial = current
        expected.append(np.mean(np.real(np.sum(probes.conj() * polynomial, axis=0))))
    np.testing.assert_allclose(S.chebyshev_moments(2 * k, interval), expected, atol=1e-11)


def test_default_interval_is_the_range_widened_by_the_residuals():
    S = ls.spectral_density(ls.diagonal_operator(EIGENVALUES), num_steps=9, num_probes=2)
    values, residuals = S.run.ritz_values, S.run.residual_norms
    assert S.interval == pytest.approx(((values[:, 0] - residuals[:, 0]).min(), (values[:, -1] + residuals[:, -1]).max()))
    np.testing.assert_array_equal(S.chebyshev_moments(5), S.chebyshev_moments(5, S.interval))


def test_moments_follow_the_pinned_weights():
    S = ls.spectral_density(ls.diagonal_operator(np.r_[np.linspace(-1, 1, 190), 5.0, 9.0]), num_steps=40, num_probes=2)
    assert len(S.deflation.pinned) >= 2
    t = (2 * S.nodes - 10) / 12
    for degree, moment in enumerate(S.chebyshev_moments(6, (-1.0, 11.0))):
        assert moment == pytest.approx(np.sum(S.weights * np.polynomial.Chebyshev.basis(degree)(t)), abs=1e-12)


def test_moments_of_the_uniform_law_and_at_the_ends():
    nodes, weights = np.polynomial.legendre.leggauss(30)
    expected = [0 if degree % 2 else -1 / (degree**2 - 1) for degree in range(40)]
    np.testing.assert_allclose(chebyshev_moments(nodes, weights / 2, 40, (-1.0, 1.0)), expected, atol=1e-13)
    np.testing.assert_array_equal(chebyshev_moments(np.array([2.0]), np.ones(1), 50, (1.0, 2.0)), np.ones(50))


def test_an_exact_rule_has_every_moment():
    S = ls.spectral_density(ls.diagonal_operator(np.array([1.0, 2.0])), num_steps=2, deflate=False)
    assert len(S.chebyshev_moments(100)) == 100
    identity = ls.spectral_density(3 * ls.identity(20))
    np.testing.assert_allclose(identity.chebyshev_moments(4), [1, 0, -1, 0], atol=1e-12)  # all mass at the middle


@pytest.mark.parametrize("scale", [1e-100, 1.0, 1e100])
def test_powers_do_not_overflow_before_the_moment_does(scale):
    S = ls.spectral_density(ls.diagonal_operator(scale * EIGENVALUES), num_steps=10)
    for p in range(4):
        expected = np.sum(S.weights * (S.nodes / scale) ** p)
        assert S.moment(p) / scale**p == pytest.approx(expected, rel=1e-12)
    np.testing.assert_array_equal(S.moments(4), [S.moment(p) for p in range(4)])
    if scale == 1e100:
        with pytest.raises(OverflowError, match="moment of order 4 is beyond the range"):
            S.moment(4)
    if scale == 1e-100:
        assert S.moment(4) == 0.0  # underflow is zero


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_of_vectors_has_moments_in_double_precision(dtype):
    S = ls.spectral_density(ls.aslinearoperator(rotated(EIGENVALUES, 0, dtype), hermitian=True), num_steps=12, num_probes=2)
    mu = S.chebyshev_moments(24)
    assert mu.dtype == np.float64 and mu[0] == pytest.approx(1, abs=1e-12) and np.all(np.abs(mu) <= 1 + 1e-12)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda S: S.chebyshev_moments(0), "argument count must be a whole number of at least 1"),
        (lambda S: S.chebyshev_moments(2.5), "argument count must be a whole number"),
        (lambda S: S.chebyshev_moments(19), "argument count is 19, but 9 Lanczos steps determine the moments of degree 0 to 17"),
        (lambda S: S.chebyshev_moments(3, (1.0, -1.0)), "low < high"),
        (lambda S: S.chebyshev_moments(3, (np.nan, 1.0)), "finite"),
        (lambda S: S.chebyshev_moments(3, 2.0), "argument interval must be a pair"),
        (lambda S: S.chebyshev_moments(3, (0.0, 1.0)), "pass an interval that holds the spectrum"),
        (lambda S: S.moment(-1), "argument p must be a whole number of at least 0"),
        (lambda S: S.moment(1.5), "argument p must be a whole number of at least 0"),
        (lambda S: S.moments(0), "argument count must be a whole number"),
    ],
)
def test_bad_arguments_are_named(call, message):
    S = ls.spectral_density(ls.diagonal_operator(EIGENVALUES), num_steps=9, num_probes=2)
    with pytest.raises(ValueError, match=message):
        call(S)
