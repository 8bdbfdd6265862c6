"""Laws of point masses."""

import numpy as np
import pytest

import linop_spectra as ls
from linop_spectra.random_matrices.laws.discrete_law import DiscreteLaw


def test_it_is_what_it_was_given():
    law = DiscreteLaw([5.0, 1.0, 3.0, 3.0], [0.25, 0.5, 0.125, 0.125])
    assert law.atoms == [(1.0, 0.5), (3.0, 0.25), (5.0, 0.25)] and law.support == []
    assert law == DiscreteLaw([1.0, 3.0, 5.0], [0.5, 0.25, 0.25]) and hash(law) == hash(DiscreteLaw([1.0, 3.0, 5.0], [0.5, 0.25, 0.25]))
    np.testing.assert_array_equal(law.cdf([0.9, 1.0, 2.0, 3.0, 4.9, 5.0, 6.0]), [0, 0.5, 0.5, 0.75, 0.75, 1, 1])
    np.testing.assert_array_equal(law.quantile([0.0, 0.5, 0.500001, 0.75, 0.76, 1.0]), [1, 1, 3, 3, 5, 5])
    assert law.moments(4).tolist() == [1, 2.5, 9, 38.5] and law.mean() == 2.5 and law.var() == 2.75
    assert law.pdf(1.0) == 0 and np.isnan(law.pdf(np.nan)) and np.isnan(law.cdf(np.nan)) and law.pdf(np.ones((2, 3))).shape == (2, 3)
    assert DiscreteLaw([2.0, 1.0], [1.0, 0.0]).atoms == [(2.0, 1.0)]


def test_transforms_in_closed_form():
    law = DiscreteLaw([-1.0, 1.0])
    z = np.array([0.3 + 0.1j, 2.0, -3.0, 1j, 0.2 - 0.4j])
    np.testing.assert_allclose(law.cauchy(z), z / (z**2 - 1), rtol=1e-13)
    # Its R-transform is (sqrt(1 + 4 w^2) - 1) / (2 w) (Voiculescu).
    w = np.array([-5.0, -0.4, 1e-3, 0.02, 3.0, 200.0])
    np.testing.assert_allclose(law.r_transform(w), (np.sqrt(1 + 4 * w**2) - 1) / (2 * w), rtol=1e-9)
    assert law.r_transform(0.0) == 0
    # For masses 1 - p at zero and p at one the S-transform is (1 + w) / (p + w).
    projection = DiscreteLaw([0.0, 1.0], [0.7, 0.3])
    w = np.array([-0.29, -0.1, -1e-4, 0.0, 1e-3, 2.0, 0.1 - 0.2j])
    np.testing.assert_allclose(projection.s_transform(w), (1 + w) / (0.3 + w), rtol=1e-10)


def test_lanczos_coefficients_are_those_of_a_run():
    values = np.random.default_rng(0).normal(size=12)
    alphas, betas = DiscreteLaw(values).jacobi_coefficients(12)
    run = ls.lanczos(np.diag(values), 11, start=np.ones(12))
    np.testing.assert_allclose(np.ravel(run.alphas), alphas[:11], atol=1e-10)
    np.testing.assert_allclose(np.ravel(run.betas), betas[:11], atol=1e-10)
    assert betas[11] == 0
    nodes, weights = DiscreteLaw(values).gauss_rule(12)
    np.testing.assert_allclose(nodes, np.sort(values), atol=1e-9)
    np.testing.assert_allclose(weights, 1 / 12, atol=1e-9)


def test_a_large_list_of_eigenvalues():
    values = np.random.default_rng(1).normal(size=100_000)
    law = DiscreteLaw(values)
    assert law.mean() == pytest.approx(values.mean(), rel=1e-12, abs=1e-14)
    z = np.linspace(-3, 3, 50) + 0.1j
    np.testing.assert_allclose(law.stieltjes(z[[0, 30]]), [(1 / (values - point)).mean() for point in z[[0, 30]]], rtol=1e-10)
    assert law.stieltjes(z).shape == (50,)


@pytest.mark.parametrize(
    "places, weights, message",
    [
        ([], None, "The argument places must be a 1-D array of at least one finite number"),
        ([[1.0]], None, "The argument places must be a 1-D array"),
        ([1.0, np.nan], None, "The argument places must be a 1-D array"),
        (["x"], None, "must be arrays of real numbers"),
        ([1.0, 2.0], [0.5, 0.6], r"The argument weights must sum to one, but sums to 1.1; divide it by its sum\."),
        ([1.0, 2.0], [1.5, -0.5], "The argument weights must hold finite numbers that are not negative"),
        ([1.0, 2.0], [1.0], r"The argument weights must have the shape of places, \(2,\), but has shape \(1,\)\."),
        ([1.0], [np.nan], "The argument weights"),
    ],
)
def test_bad_measures_are_named(places, weights, message):
    with pytest.raises(ValueError, match=message):
        DiscreteLaw(places, weights)


def test_bad_arguments_are_named():
    law = DiscreteLaw([1.0, 2.0])
    with pytest.raises(ValueError, match="The argument k is 3, but a law of 2 places"):
        law.jacobi_coefficients(3)
    with pytest.raises(ValueError, match="The argument q"):
        law.quantile(1.5)
    with pytest.raises(ValueError, match="The argument count"):
        law.moments(0)
    with pytest.raises(ValueError, match="The S-transform is defined here for laws on the non-negative numbers"):
        DiscreteLaw([-1.0, 2.0]).s_transform(0.1)
    with pytest.raises(ValueError, match="positive finite mean"):
        DiscreteLaw([0.0]).s_transform(0.1)
