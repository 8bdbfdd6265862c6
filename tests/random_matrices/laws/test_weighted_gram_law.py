"""Laws of weighted Gram matrices against Marchenko-Pastur, their dual, free cumulants and sampled matrices."""

import numpy as np
import pytest
from law_checks import check_consistency, rigidity

from linop_spectra.random_matrices import MarchenkoPastur, Semicircle
from linop_spectra.random_matrices.laws.generalized_marchenko_pastur import GeneralizedMarchenkoPastur
from linop_spectra.random_matrices.laws.transforms import free_cumulants
from linop_spectra.random_matrices.laws.weighted_gram_law import WeightedGramLaw


@pytest.mark.parametrize("ratio", [1e-3, 0.1, 0.99, 1.0, 1.01, 4.0])
def test_equal_weights_give_marchenko_pastur(ratio):
    law, exact = WeightedGramLaw([2.0], ratio=ratio, variance=3.0), MarchenkoPastur(ratio, 6.0)
    np.testing.assert_allclose(law.support, exact.support, atol=1e-13)
    assert law.atoms == exact.atoms
    x = exact.quantile(np.linspace(max(0, 1 - 1 / ratio) + 0.001, 0.999, 101))
    np.testing.assert_allclose(law.pdf(x), exact.pdf(x), rtol=1e-9)
    np.testing.assert_allclose(law.cdf(x), exact.cdf(x), atol=1e-12)


@pytest.mark.parametrize("ratio", [0.2, 1.0, 5.0])
def test_duality(ratio):
    """The N x N matrix with the same nonzero eigenvalues is a sample covariance of population a, ratio 1 / c and variance c."""
    weights, shares = [0.0, 0.5, 3.0], [0.2, 0.5, 0.3]
    law = WeightedGramLaw(weights, shares, ratio=ratio)
    dual = GeneralizedMarchenkoPastur(weights, shares, ratio=1 / ratio, variance=ratio)
    np.testing.assert_allclose(law.support, dual.support, rtol=1e-12)
    x = np.linspace(0.01, law.support[-1][1], 50)
    np.testing.assert_allclose(law.pdf(x) * ratio, dual.pdf(x), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose((1 - law.cdf(x)) * ratio, 1 - dual.cdf(x), atol=1e-11)
    assert sum(mass for _, mass in law.atoms) == pytest.approx(max(0, 1 - 0.8 / ratio), abs=1e-14)
    check_consistency(law)


@pytest.mark.parametrize("weights, shares", [([0.5, 3.0], [0.5, 0.5]), ([-1.0, 2.0], [0.3, 0.7]), ([-1.0, -0.2], [0.5, 0.5])])
def test_it_is_compound_free_poisson(weights, shares):
    """Its free cumulants are ``c^(k - 1)`` times the moments of the weights; negative weights included."""
    ratio = 0.4
    law = WeightedGramLaw(weights, shares, ratio=ratio)
    expected = [ratio ** (k - 1) * np.dot(shares, np.power(weights, k)) for k in range(1, 7)]
    np.testing.assert_allclose(free_cumulants(law.moments(7)), expected, rtol=1e-8)
    w = np.array([-0.1, 0.05, 0.12 - 0.1j])
    exact = [sum(s * a / (1 - ratio * a * point) for a, s in zip(weights, shares, strict=True)) for point in w]
    np.testing.assert_allclose(law.r_transform(w), exact, rtol=1e-9)
    check_consistency(law)


def test_a_law_of_weights():
    population = MarchenkoPastur(0.25)
    law = WeightedGramLaw(population=population, ratio=0.5)
    equal = WeightedGramLaw(population.quantile((np.arange(400) + 0.5) / 400), ratio=0.5)
    np.testing.assert_allclose(law.support, equal.support, atol=1e-3)
    np.testing.assert_allclose(law.moments(4)[1:3], [1, 1 + 0.5 * 1.25 - 0.0], rtol=1e-9)
    check_consistency(law)
    # Signed weights with a density: the mean and the variance of the compound free Poisson law.
    signed = WeightedGramLaw(population=Semicircle(), ratio=0.5)
    assert signed.mean() == pytest.approx(0, abs=1e-10) and signed.var() == pytest.approx(0.5, rel=1e-9)


@pytest.mark.parametrize("dimension, count", [(400, 800), (400, 100)])
def test_a_sample_follows_it_and_the_controls_do_not(dimension, count):
    rng = np.random.default_rng(4)
    weights = np.repeat([-0.5, 1.0, 4.0], [count // 4, count // 4, count // 2])
    x = rng.standard_normal((dimension, count))
    eigenvalues = np.linalg.eigvalsh((x * weights) @ x.T / count)

    def distance(**changed):
        arguments = {"ratio": dimension / count, **changed}
        return rigidity(WeightedGramLaw([-0.5, 1.0, 4.0], [0.25, 0.25, 0.5], **arguments), eigenvalues)

    assert distance() < 6
    assert distance(variance=1.05**2) > 6
    assert distance(ratio=count / dimension) > 6


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"weights": [1.0, 2.0], "probabilities": [0.5, 0.6], "ratio": 1.0}, "The argument probabilities must sum to one"),
        ({"weights": [1.0], "ratio": -1.0}, "The argument ratio"),
        ({"weights": [1.0], "ratio": 1.0, "variance": 0.0}, "The argument variance"),
        ({"weights": [0.0], "ratio": 1.0}, "All weights are zero"),
        ({"weights": [np.inf], "ratio": 1.0}, "The argument weights"),
        ({"ratio": 1.0}, "Give the population as weights and probabilities"),
    ],
)
def test_bad_parameters_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        WeightedGramLaw(**arguments)
