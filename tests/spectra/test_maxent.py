"""Maximum entropy against densities of its own family, which it must find, and the semicircle, whose errors are known."""

import numpy as np
import pytest
from scipy import integrate

from linop_spectra.spectra import maximum_entropy


def moments_of(density, count, low=-1.0, high=1.0):
    """Chebyshev moments by adaptive quadrature."""

    def moment(degree):
        polynomial = np.polynomial.Chebyshev.basis(degree, domain=[low, high])
        return integrate.quad(lambda x: density(x) * polynomial(x), low, high, epsabs=1e-13, epsrel=1e-13)[0]

    return np.array([moment(degree) for degree in range(count)])


def test_the_uniform_law_from_two_moments():
    model = maximum_entropy([1.0, 0.0, -1 / 3])
    np.testing.assert_allclose(model.density(np.linspace(-1, 1, 101)), 0.5, rtol=1e-12)
    np.testing.assert_allclose(model.cdf(np.linspace(-2, 2, 9)), np.clip(np.linspace(-0.5, 1.5, 9), 0, 1), atol=1e-6)
    assert model.converged


@pytest.mark.parametrize(
    "exponent",
    [lambda x: 3 * x, lambda x: -8 * x**2, lambda x: -20 * (x**2 - 0.4) ** 2 + x, lambda x: 5 * x**3 - 4 * x**4],
    ids=["exponential", "normal", "two wells", "skew"],
)
@pytest.mark.parametrize("low, high, mass", [(-1.0, 1.0, 1.0), (-1.0, 1.0, 0.37)])
def test_densities_of_the_family_are_found(exponent, low, high, mass):
    """The exponential of a polynomial of degree four is its own answer, from four moments."""
    total = integrate.quad(lambda x: np.exp(exponent(x)), low, high)[0]
    density = lambda x: mass * np.exp(exponent(x)) / total  # noqa: E731
    model = maximum_entropy(moments_of(density, 5), (low, high))
    x = np.linspace(low, high, 201)
    assert model.converged and model.iterations > 1
    np.testing.assert_allclose(model.density(x), density(x), rtol=1e-8, atol=1e-10)
    assert model.cdf(high) == pytest.approx(mass, rel=1e-9)


def test_other_intervals():
    density = lambda x: np.exp(-x) / (np.exp(-2) - np.exp(-7))  # noqa: E731
    model = maximum_entropy(moments_of(density, 3, 2.0, 7.0), (2.0, 7.0))
    x = np.linspace(2, 7, 50)
    np.testing.assert_allclose(model.density(x), density(x), rtol=1e-8)
    exact = (np.exp(-2) - np.exp(-x)) / (np.exp(-2) - np.exp(-7))
    np.testing.assert_allclose(model.cdf(x), exact, atol=1e-5)
    assert model.density(1.99) == 0 and model.density(7.01) == 0


@pytest.mark.parametrize("count, error", [(2, 1.1e-2), (4, 3.7e-3), (8, 8.5e-4), (16, 1.5e-4), (32, 2.3e-5)])
def test_the_semicircle_is_approached_at_the_known_rate(count, error):
    moments = np.zeros(count + 1)
    moments[[0, 2]] = 1.0, -0.5
    model = maximum_entropy(moments)
    t = np.linspace(-1, 1, 40_001)
    exact = 0.5 + (t * np.sqrt(1 - t * t) + np.arcsin(t)) / np.pi
    assert model.converged and model.iterations < 15
    assert np.trapezoid(np.abs(model.cdf(t) - exact), t) == pytest.approx(error, rel=0.05)
    assert np.all(model.density(t) >= 0)


@pytest.mark.parametrize(
    "moments",
    [np.cos(np.arange(9) * 0.7), (np.cos(np.arange(9) * 0.7) + np.cos(np.arange(9) * 2)) / 2, [1.0, 0.9, -0.9]],
    ids=["a point", "two points", "no measure"],
)
def test_moments_that_no_density_has_are_said(moments):
    model = maximum_entropy(moments)
    assert not model.converged and model.gradient_norm > 1e-10 and np.all(np.isfinite(model.multipliers))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([],), "argument moments must be a 1-D array of at least one number"),
        (([1.0, np.inf],), "argument moments holds inf"),
        (([-1.0],), "mass and must be positive"),
        (([1.0, 2.0],), "never exceed the mass"),
        (([1.0], (2.0, 2.0)), "argument interval"),
        ((np.r_[1.0, np.zeros(300)],), "at most 200 can be used"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        maximum_entropy(*arguments)
