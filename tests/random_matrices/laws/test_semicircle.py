"""The semicircle law against quadrature, published numbers, other libraries and sampled matrices."""

import numpy as np
import pytest
from scipy import integrate, stats

import linop_spectra as ls
from linop_spectra.random_matrices import Semicircle, SpectralLaw

VARIANCES = (1.0, 0.3, 1e-8, 1e6)


def average(law, f, points=400):
    """Mean of f over the law by the Gauss rule of the second kind, exact for polynomials."""
    t = np.pi * np.arange(1, points + 1) / (points + 1)
    return 2 / (points + 1) * (np.sin(t) ** 2 * f(law.support[0][1] * np.cos(t))).sum()


@pytest.mark.parametrize("variance", VARIANCES)
def test_it_is_a_beta_law(variance):
    """On [0, 1] the semicircle is Beta(3/2, 3/2): an independent implementation of all three functions."""
    law, b = Semicircle(variance=variance), 2 * np.sqrt(variance)
    reference = stats.beta(1.5, 1.5, loc=-b, scale=2 * b)
    x = b * np.linspace(-1.2, 1.2, 241)
    np.testing.assert_allclose(law.pdf(x), reference.pdf(x), atol=1e-14 / b)
    np.testing.assert_allclose(law.cdf(x), reference.cdf(x), atol=1e-14)
    q = np.r_[0, 1e-12, 1e-6, np.linspace(0.001, 0.999, 301), 1 - 1e-6, 1]
    np.testing.assert_allclose(law.quantile(q), reference.ppf(q), atol=1e-12 * b)
    # The mass near the lower edge keeps its relative accuracy.
    near = -b + b * 10.0 ** np.arange(-12, 0)
    np.testing.assert_allclose(law.cdf(near), reference.cdf(near), rtol=1e-3)
    np.testing.assert_allclose(law.cdf(near[6:]), reference.cdf(near[6:]), rtol=1e-9)


@pytest.mark.parametrize("variance", VARIANCES)
def test_moments_are_catalan_numbers(variance):
    law = Semicircle(variance=variance)
    for k, catalan in enumerate([1, 1, 2, 5, 14, 42]):
        assert law.moment(2 * k) == pytest.approx(variance**k * catalan, rel=1e-14)
        assert law.moment(2 * k) == pytest.approx(average(law, lambda x, k=k: x ** (2 * k)), rel=1e-12)
        assert law.moment(2 * k + 1) == 0.0
    assert law.mean() == 0 and law.var() == law.moment(2) == variance


def test_distribution_function_is_the_integral_of_the_density():
    law = Semicircle(variance=0.7)
    for x in (-1.6, -0.4, 0.0, 1.1, 1.67):
        expected, _ = integrate.quad(law.pdf, law.support[0][0], x, epsabs=1e-12)
        assert law.cdf(x) == pytest.approx(expected, abs=1e-9)
    assert law.cdf(-9) == 0 and law.cdf(9) == 1 and law.cdf(0.0) == 0.5 and law.pdf(9.0) == 0


def test_quantile_inverts_and_is_monotone():
    law = Semicircle(variance=2.0)
    q = np.linspace(0, 1, 20_001)
    places = law.quantile(q)
    np.testing.assert_allclose(law.cdf(places), q, atol=1e-14)
    assert np.all(np.diff(places) > 0) and np.all(np.diff(law.cdf(places)) > 0)
    np.testing.assert_array_equal(law.quantile([0, 0.5, 1]), [-law.support[0][1], 0, law.support[0][1]])
    np.testing.assert_allclose(places, -places[::-1], atol=1e-15)


def test_stieltjes_transform():
    law = Semicircle(variance=1.5)
    for z in (-0.5 + 0.4j, 1 + 1j, 0.3 - 2j, 3.5 + 0j, -3.5 + 0j):
        assert law.stieltjes(z) == pytest.approx(average(law, lambda x, z=z: 1 / (x - z)), rel=1e-9)
        # It solves variance m^2 + z m + 1 = 0.
        assert abs(1.5 * law.stieltjes(z) ** 2 + z * law.stieltjes(z) + 1) < 1e-12
    inside = np.linspace(-2, 2, 9)
    np.testing.assert_allclose(law.stieltjes(inside).imag / np.pi, law.pdf(inside), rtol=1e-12)
    assert law.stieltjes(1e9j) == pytest.approx(-1 / 1e9j, rel=1e-12)


def test_gauss_rule_has_the_published_nodes_and_the_moments():
    law = Semicircle(variance=0.5)
    for k in (1, 2, 5, 9):
        nodes, weights = law.gauss_rule(k)
        t = np.pi * np.arange(k, 0, -1) / (k + 1)
        np.testing.assert_allclose(nodes, np.sqrt(2) * np.cos(t), atol=1e-14)
        np.testing.assert_allclose(weights, 2 / (k + 1) * np.sin(t) ** 2, atol=1e-14)
        assert abs(weights @ nodes ** (2 * k) - law.moment(2 * k)) > 1e-3 * law.var() ** k  # exactness ends there


def test_shapes_and_not_a_number():
    law = Semicircle()
    assert isinstance(law, SpectralLaw) and law.atoms == [] and law.support == [(-2.0, 2.0)]
    assert isinstance(law.pdf(1), float) and isinstance(law.cdf(1), float) and isinstance(law.quantile(0.5), float)
    assert law.pdf(np.ones((2, 3))).shape == law.cdf(np.ones((2, 3))).shape == law.quantile(np.full((2, 3), 0.1)).shape == (2, 3)
    assert np.isnan(law.cdf(np.nan)) and np.isnan(law.pdf(np.nan))
    assert isinstance(law.stieltjes(1j), complex)


@pytest.mark.parametrize("variance", [0.0, -1.0, np.nan, np.inf, "1", True, None])
def test_bad_variance_is_named(variance):
    with pytest.raises(ValueError, match=r"The argument variance, .* must be a positive finite number, but is .*\."):
        Semicircle(variance=variance)


@pytest.mark.parametrize(
    "call, name",
    [
        (lambda law: law.moment(-1), "k"),
        (lambda law: law.moment(1.5), "k"),
        (lambda law: law.jacobi_coefficients(0), "k"),
        (lambda law: law.gauss_rule(True), "k"),
        (lambda law: law.quantile(1.1), "q"),
        (lambda law: law.quantile([0.5, np.nan]), "q"),
    ],
)
def test_bad_arguments_are_named(call, name):
    with pytest.raises(ValueError, match=rf"The argument {name} "):
        call(Semicircle())


def test_lanczos_on_a_large_matrix_gives_the_jacobi_coefficients():
    n, k = 800, 6
    run = ls.lanczos(ls.random_matrices.wigner(n, variance=4.0, seed=5), k, seed=0)
    alphas, betas = Semicircle(variance=4.0).jacobi_coefficients(k)
    # Standard deviations: 2 sqrt(2 / n) of the alphas, half of it of the betas, and a shift of order 1 / n.
    np.testing.assert_allclose(run.alphas[0], alphas, atol=10 * np.sqrt(2 / n))
    np.testing.assert_allclose(run.betas[0], betas, atol=5 * np.sqrt(2 / n) + 2 * k / n)
