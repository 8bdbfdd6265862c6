"""Terminated continued fractions against laws with constant coefficients, whose atoms and densities are known."""

import numpy as np
import pytest
from scipy import integrate

import linop_spectra as ls
from linop_spectra.random_matrices import MarchenkoPastur
from linop_spectra.spectra import TerminatedFraction
from linop_spectra.spectra.quadrature import gauss_rule
from linop_spectra.spectra.terminator import jacobi_from_rule


@pytest.mark.parametrize("ratio", [0.1, 0.5, 2.0, 4.0])
@pytest.mark.parametrize("variance", [1e-150, 1.0, 1e150])
def test_the_law_of_marchenko_and_pastur_is_exact_with_its_atom(ratio, variance):
    """Its coefficients are constant from the second one on; above ratio one an atom of mass 1 - 1 / ratio sits at zero."""
    law = MarchenkoPastur(ratio=ratio, variance=variance)
    fraction = TerminatedFraction(*law.jacobi_coefficients(4))
    ((low, high),) = law.support
    assert fraction.edges == pytest.approx((low, high), abs=1e-13 * high)
    x = np.linspace(low, high, 100)[1:-1]
    np.testing.assert_allclose(fraction.density(x), law.pdf(x), rtol=1e-9)
    z = (x + 0.1j * variance) if variance == 1.0 else x[:0] + 0j
    np.testing.assert_allclose(fraction.stieltjes(z), law.stieltjes(z), rtol=1e-10)
    if ratio > 1:
        ((place, mass),) = fraction.atoms
        assert abs(place) < 1e-13 * high and mass == pytest.approx(1 - 1 / ratio, rel=1e-10)
    else:
        assert fraction.atoms == ()
    at = np.linspace(low - 0.1 * high, high + 0.1 * high, 301)
    at = at[np.abs(at) > 1e-9 * high]
    np.testing.assert_allclose(fraction.cdf(at), law.cdf(at), atol=1e-6)


def integrand(angle, fraction, p):
    low, high = fraction.edges
    x = (low + high) / 2 - (high - low) / 2 * np.cos(angle)
    return float(fraction.density(x)) * x**p * (high - low) / 2 * np.sin(angle)


@pytest.mark.parametrize("k", [1, 2, 5, 12])
def test_mass_and_moments_are_those_of_the_coefficients(k):
    """Random coefficients, with atoms on both sides: 2 k moments of the Gauss rule, by quadrature over band and atoms."""
    atoms = 0
    for seed in range(24 // k + 1):
        rng = np.random.default_rng(seed)
        alphas, betas = rng.normal(0, 1.5, k), rng.uniform(0.3, 2.0, k)
        fraction = TerminatedFraction(alphas, betas, 0.1, 0.8)
        atoms += len(fraction.atoms)
        low, high = fraction.edges
        assert all(place < low or place > high for place, _ in fraction.atoms) and all(mass > 0 for _, mass in fraction.atoms)
        assert fraction.cdf(1e3) == pytest.approx(1, abs=1e-12)
        rule = gauss_rule(alphas, betas)
        center, half = (low + high) / 2, (high - low) / 2
        for p in range(min(2 * k, 6)):
            peaks = np.arccos(np.clip((center - rule.nodes) / half, -1, 1))
            band = integrate.quad(integrand, 0, np.pi, args=(fraction, p), points=np.unique(peaks), limit=500)[0]
            total = band + sum(mass * place**p for place, mass in fraction.atoms)
            scale = np.sum(rule.weights * np.abs(rule.nodes) ** p)
            assert total == pytest.approx(rule.weights @ rule.nodes**p, abs=2e-6 * max(scale, 1))
    assert atoms > 1


def test_an_atom_of_a_single_perturbed_coefficient():
    """A semicircle with first coefficient theta > 1 has an atom at theta + 1 / theta of mass 1 - 1 / theta^2."""
    for theta in (1.2, 2.0, -3.0):
        fraction = TerminatedFraction(np.array([theta, 0, 0]), np.ones(3), 0.0, 1.0)
        ((place, mass),) = fraction.atoms
        assert place == pytest.approx(theta + 1 / theta, rel=1e-12) and mass == pytest.approx(1 - theta**-2, rel=1e-9)
    assert TerminatedFraction(np.array([0.9, 0, 0]), np.ones(3), 0.0, 1.0).atoms == ()


def test_a_resonance_narrower_than_rounding_keeps_the_mass():
    fraction = TerminatedFraction(np.array([0.3, 0.0, 0.0]), np.array([1e-9, 1.0, 1.0]))
    assert fraction.cdf(2.5) == pytest.approx(1, abs=1e-12)
    assert fraction.cdf(0.2) < 0.01 and fraction.cdf(0.4) > 0.99


@pytest.mark.parametrize("shift, scale", [(0.0, 1.0), (1e6, 1.0), (0.0, 1e-200), (0.0, 1e200)])
def test_coefficients_of_a_rule_are_found_again(shift, scale):
    rng = np.random.default_rng(0)
    alphas, betas = rng.normal(size=20), rng.uniform(0.5, 1.0, 20)
    rule = gauss_rule(alphas, betas)
    again = jacobi_from_rule(shift + scale * rule.nodes, rule.weights)
    error = 1e-11 * scale + 1e-13 * shift
    np.testing.assert_allclose(again[0], shift + scale * alphas, atol=10 * error)
    np.testing.assert_allclose(again[1], scale * betas[:-1], atol=10 * error)


def test_edges_of_a_measured_wishart_matrix():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 2000))
    run = ls.lanczos(ls.aslinearoperator(x @ x.T / 2000, hermitian=True), 20)
    ((a, b),) = MarchenkoPastur(ratio=0.25).support
    assert TerminatedFraction(*run.jacobi()).edges == pytest.approx((a, b), abs=0.06 * (b - a))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([], []), "1-D arrays of one length of at least 1"),
        (([1.0], [1.0, 2.0]), "1-D arrays of one length"),
        (([1.0, 2.0], [1.0, 0.0]), "every beta positive; a run that ended with beta = 0 is exact"),
        (([np.nan], [1.0]), "finite"),
        (([1.0], [1.0], 0.0, -1.0), "argument limit_beta must be positive"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        TerminatedFraction(*arguments)
