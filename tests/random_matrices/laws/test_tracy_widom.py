"""The Tracy-Widom laws against published numbers, Painleve's equation and the largest eigenvalues of random matrices."""

import functools

import numpy as np
import pytest
from helpers import CHANCE, same_law
from scipy import integrate, special, stats

import linop_spectra as ls
from linop_spectra.random_matrices import TracyWidom
from linop_spectra.random_matrices.laws.tracy_widom import fredholm_determinants

BETAS = (1, 2, 4)
# Mean, variance, skewness, excess kurtosis: Bornemann, "On the numerical evaluation of distributions in random matrix theory" (2010).
PUBLISHED = {
    1: (-1.206533574582, 1.607781034581, 0.29346452408, 0.1652429384),
    2: (-1.771086807411, 0.8131947928329, 0.224084203610, 0.0934480876),
    4: (-2.306884893241, 0.5177237207726, 0.16550949435, 0.0491951565),
}


@pytest.mark.parametrize("beta", BETAS)
def test_published_mean_variance_skewness_and_kurtosis(beta):
    law = TracyWidom(beta=beta)
    raw = [law.moment(k) for k in range(5)]
    mean, variance = law.mean(), law.var()
    third = raw[3] - 3 * mean * raw[2] + 2 * mean**3
    fourth = raw[4] - 4 * mean * raw[3] + 6 * mean**2 * raw[2] - 3 * mean**4
    values = (mean, variance, third / variance**1.5, fourth / variance**2 - 3)
    np.testing.assert_allclose(values, PUBLISHED[beta], rtol=1e-8)
    np.testing.assert_allclose(values[:2], PUBLISHED[beta][:2], rtol=2e-12)


def test_published_quantiles():
    """Percentage points of the tables in use for the largest eigenvalue of a covariance matrix."""
    levels = [0.01, 0.05, 0.10, 0.30, 0.50, 0.70, 0.90, 0.95, 0.99]
    # Johnstone, "On the distribution of the largest eigenvalue in principal components analysis" (2001).
    places = [-3.90, -3.18, -2.78, -1.91, -1.27, -0.59, 0.45, 0.98, 2.02]
    assert np.abs(TracyWidom(beta=1).cdf(places) - levels).max() < 0.002
    np.testing.assert_allclose(TracyWidom(beta=1).quantile([0.9, 0.95, 0.99]), [0.4501, 0.9793, 2.0234], atol=5.1e-5)
    np.testing.assert_allclose(TracyWidom(beta=2).quantile([0.05, 0.5, 0.95]), [-3.1942, -1.8049, -0.2325], atol=5.1e-5)


@functools.cache
def painleve():
    """F1 and F2 from the Hastings-McLeod solution of q'' = s q + 2 q^3, integrated from the right: unstable, so not far to the left."""
    start, places = 6.0, np.arange(5.0, -5.1, -0.5)
    value, slope = special.airy(start)[:2]

    def right_hand_side(s, y):
        q, dq, _, total, _ = y
        return [dq, s * q + 2 * q**3, q, q**2, total]  # the integrals of q and of q^2, and of the latter again

    tail = integrate.quad(lambda s: special.airy(s)[0], start, 30, epsabs=1e-20)[0]
    square = slope**2 - start * value**2  # the integral of Ai^2 beyond the start
    double = integrate.quad(lambda s: (s - start) * special.airy(s)[0] ** 2, start, 30, epsabs=1e-20)[0]
    solution = integrate.solve_ivp(
        right_hand_side, (start, places[-1]), [value, slope, -tail, -square, double], t_eval=places, rtol=1e-13, atol=1e-16, method="DOP853"
    )
    _, _, integral, _, twice = solution.y
    # y[2] and y[3] run downwards: their values are minus the integrals from s to infinity; y[4] is the double integral.
    second = np.exp(-twice)
    return places, np.sqrt(second) * np.exp(integral / 2), second, np.sqrt(second) * np.cosh(integral / 2)


def test_painleve_representation():
    """F2 = exp(-int (x - s) q^2), F1 = sqrt(F2) exp(-int q / 2), F4(s / sqrt 2) = sqrt(F2) cosh(int q / 2) (Tracy and Widom, 1996)."""
    places, first, second, fourth = painleve()
    for beta, expected, scale in ((1, first, 1.0), (2, second, 1.0), (4, fourth, np.sqrt(2))):
        np.testing.assert_allclose(TracyWidom(beta=beta).cdf(places / scale), expected, atol=1e-8)


@pytest.mark.parametrize("beta", BETAS)
def test_interpolation_is_accurate_between_its_points(beta):
    law, scale = TracyWidom(beta=beta), np.sqrt(2) if beta == 4 else 1.0
    s = np.random.default_rng(0).uniform(-10, 10, 25)
    minus, plus = np.array([fredholm_determinants(x, 150) for x in s]).T
    expected = {1: minus, 2: minus * plus, 4: (minus + plus) / 2}[beta]
    np.testing.assert_allclose(law.cdf(s / scale), expected, atol=5e-13)


def test_second_law_is_the_determinant_of_the_airy_kernel():
    """F2 = det(1 - K) on (s, infinity), with K = (Ai(x) Ai'(y) - Ai'(x) Ai(y)) / (x - y): not the kernel that the code uses."""
    nodes, weights = np.polynomial.legendre.leggauss(50)
    for s in (-4.0, -1.77, 0.5):
        x, root = s + 8 * (nodes + 1), np.sqrt(8 * weights)
        value, slope = special.airy(x)[:2]
        with np.errstate(divide="ignore", invalid="ignore"):
            kernel = (np.outer(value, slope) - np.outer(slope, value)) / (x[:, None] - x)
        np.fill_diagonal(kernel, slope**2 - x * value**2)
        assert TracyWidom(beta=2).cdf(s) == pytest.approx(np.linalg.det(np.eye(50) - root[:, None] * kernel * root), abs=1e-12)


@pytest.mark.parametrize("beta", BETAS)
def test_density_quantile_and_limits(beta):
    law = TracyWidom(beta=beta)
    x = np.linspace(-8, 8, 4001)
    density = law.pdf(x)
    assert np.all(density >= 0) and np.all(np.diff(law.cdf(x)) >= -1e-12)
    np.testing.assert_allclose(integrate.cumulative_simpson(density, x=x, initial=0), law.cdf(x), atol=1e-7)
    assert integrate.simpson(x * density, x=x) == pytest.approx(law.mean(), abs=1e-6)
    q = np.r_[1e-8, np.linspace(0.001, 0.999, 99), 1 - 1e-8]
    np.testing.assert_allclose(law.cdf(law.quantile(q)), q, atol=1e-12)
    np.testing.assert_array_equal(law.quantile([0, 1]), [-np.inf, np.inf])
    assert law.cdf(-20) == law.pdf(-20) == law.pdf(20) == 0 and law.cdf(20) == 1 and law.cdf(np.inf) == 1
    assert np.isnan(law.cdf(np.nan)) and np.isnan(law.pdf(np.nan))
    assert isinstance(law.cdf(0), float) and law.cdf(np.zeros((2, 3))).shape == law.pdf(np.zeros((2, 3))).shape == (2, 3)
    assert law.support == [(-np.inf, np.inf)] and law.atoms == [] and law.moment(0) == 1


@pytest.mark.parametrize("ensemble, beta, wrong", [("goe", 1, 2), ("gue", 2, 1)])
def test_largest_eigenvalue_follows_the_law_and_not_the_other(ensemble, beta, wrong):
    """At finite n the law is off by O(n^(-2/3)) when the edge is put at 2 sqrt(1 - 1 / (2 n)), here 0.03, below what 250 draws see.

    With the edge at 2 itself it is off by O(n^(-1/3)) for real matrices (Johnstone and Ma, 2012): n^(-1/3) / 2, here a shift of
    0.09. Complex ones need no correction to that order.
    """
    n, draws = 200, 250
    largest = np.array(
        [ls.eigsh(ls.random_matrices.wigner(n, ensemble=ensemble, seed=s), k=1, which="LA", tol=1e-6).eigenvalues[0] for s in range(draws)]
    )
    edge = 2 * np.sqrt(1 - 1 / (2 * n)) if beta == 1 else 2.0
    scaled = n ** (2 / 3) * (largest - edge)
    assert same_law(scaled, TracyWidom(beta=beta))
    assert stats.kstest(scaled, TracyWidom(beta=wrong).cdf).pvalue < CHANCE
    law = TracyWidom(beta=beta)
    assert scaled.mean() == pytest.approx(law.mean(), abs=4 * np.sqrt(law.var() / draws) + n ** (-2 / 3))


@pytest.mark.parametrize("beta", [0, 3, -1, "1", 1.5, True, None, [1], np.array([1])])
def test_bad_beta_is_named(beta):
    with pytest.raises(ValueError, match=r"The argument beta must be 1 \(real\), 2 \(complex\) or 4 .*, but is .*\."):
        TracyWidom(beta=beta)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="The argument q must lie between 0 and 1"):
        TracyWidom(beta=1).quantile(-0.1)
    with pytest.raises(ValueError, match="The argument k must be a whole number of at least 0"):
        TracyWidom(beta=1).moment(-1)
