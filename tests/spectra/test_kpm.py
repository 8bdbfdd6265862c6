"""Damped Chebyshev series against laws whose moments are known."""

import numpy as np
import pytest

from linop_spectra.spectra import KernelPolynomial
from linop_spectra.spectra.kpm import damping

GRID = np.cos(np.linspace(np.pi - 1e-3, 1e-3, 4001))


def uniform_moments(count):
    return np.array([0.0 if degree % 2 else -1 / (degree**2 - 1) for degree in range(count)])


def test_three_moments_without_damping_are_the_semicircle():
    """``2 sqrt(1 - t^2) / pi = (1 - T_2(t)) / (pi sqrt(1 - t^2))``: the series ends."""
    series = KernelPolynomial(np.array([1.0, 0.0, -0.5]), (-1.0, 1.0), "none")
    np.testing.assert_allclose(series.density(GRID), 2 / np.pi * np.sqrt(1 - GRID**2), rtol=1e-9)
    exact = 0.5 + (GRID * np.sqrt(1 - GRID**2) + np.arcsin(GRID)) / np.pi
    np.testing.assert_allclose(series.cdf(GRID), exact, atol=1e-12)


@pytest.mark.parametrize("kernel", ["jackson", "lorentz"])
def test_the_uniform_law_is_approached_at_the_rate_of_the_resolution(kernel):
    errors = []
    for count in (8, 32, 128):
        series = KernelPolynomial(uniform_moments(count), (-1.0, 1.0), kernel)
        density, inside = series.density(GRID), np.abs(GRID) < 0.9
        assert np.all(density >= 0)
        errors.append(np.abs(series.cdf(GRID) - (1 + GRID) / 2).max())
        assert errors[-1] < 0.5 * series.resolution
        if count == 128:
            np.testing.assert_allclose(density[inside], 0.5, rtol=0.02)
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


@pytest.mark.parametrize("count", [10, 40, 160])
def test_jackson_broadens_a_point_by_its_resolution(count):
    """A point at the centre becomes almost a Gaussian of standard deviation pi / N (Weisse et al., 2006)."""
    moments = np.cos(np.arange(count) * np.pi / 2)
    series = KernelPolynomial(moments, (-1.0, 1.0))
    # The variance from the damped second moment itself: mu_2 = 2 E t^2 - 1.
    variance = (damping(count)[2] * moments[2] + 1) / 2
    assert np.sqrt(variance) == pytest.approx(np.pi / count, rel=2.0 / count)
    assert series.resolution == pytest.approx(np.pi / count)
    assert np.all(series.density(GRID) >= 0)


def test_jackson_factors_are_those_of_the_optimal_kernel():
    """Its first factor is the largest one that a non-negative kernel of this degree can have (Fejer): cos(pi / (N + 1))."""
    for count in (2, 5, 50):
        factors = damping(count)
        assert factors[0] == pytest.approx(1, abs=1e-14) and factors[1] == pytest.approx(np.cos(np.pi / (count + 1)), abs=1e-14)
        angle = np.linspace(0, np.pi, 2001)
        assert np.min(factors[0] + 2 * factors[1:] @ np.cos(np.outer(np.arange(1, count), angle))) > -1e-12


def test_density_is_the_slope_of_the_distribution_on_any_interval():
    rng = np.random.default_rng(0)
    angle = np.arccos(rng.uniform(-0.9, 0.9, 30))
    moments = np.array([3 * np.mean(np.cos(degree * angle)) for degree in range(20)])
    series = KernelPolynomial(moments, (4.0, 10.0))
    x, step = np.linspace(4.5, 9.5, 200), 1e-5
    slope = (series.cdf(x + step) - series.cdf(x - step)) / (2 * step)
    np.testing.assert_allclose(series.density(x), slope, rtol=1e-6, atol=1e-8)
    assert series.cdf(4.0) == pytest.approx(0, abs=1e-14) and series.cdf(99.0) == pytest.approx(3) and series.density(3.9) == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((np.array([]), (-1, 1)), "argument moments must be a 1-D array of at least one number"),
        ((np.array([[1.0]]), (-1, 1)), "argument moments must be a 1-D array"),
        ((np.array([1.0, np.nan]), (-1, 1)), "argument moments holds nan"),
        ((np.array([0.0, 0.0]), (-1, 1)), "mass and must be positive"),
        ((np.array([1.0, 1.5]), (-1, 1)), "never exceed the mass"),
        ((np.array([1.0]), (1, -1)), "argument interval"),
        ((np.array([1.0]), (-1, 1), "gauss"), "argument kernel is 'gauss'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        KernelPolynomial(*arguments)
