"""Generalised Marchenko-Pastur laws against the classical one, published edges, free cumulants and sampled matrices."""

import time

import numpy as np
import pytest
from law_checks import check_consistency, rigidity

from linop_spectra.random_matrices import MarchenkoPastur, SpectralLaw
from linop_spectra.random_matrices.laws.discrete_law import DiscreteLaw
from linop_spectra.random_matrices.laws.generalized_marchenko_pastur import GeneralizedMarchenkoPastur


@pytest.mark.parametrize("variance", [1.0, 1e-3, 1e6])
@pytest.mark.parametrize("ratio", [1e-3, 0.1, 0.99, 1.0, 1.01, 4.0])
def test_one_atom_is_the_classical_law(ratio, variance):
    law, exact = GeneralizedMarchenkoPastur([2.0], [1.0], ratio=ratio, variance=variance), MarchenkoPastur(ratio, 2 * variance)
    np.testing.assert_allclose(law.support, exact.support, atol=1e-13 * variance)
    assert [mass for _, mass in law.atoms] == [mass for _, mass in exact.atoms]
    q = np.linspace(max(0, 1 - 1 / ratio) + 0.001, 0.999, 101)
    x = exact.quantile(q)
    np.testing.assert_allclose(law.pdf(x), exact.pdf(x), rtol=1e-10)
    np.testing.assert_allclose(law.cdf(x), exact.cdf(x), atol=1e-12)
    np.testing.assert_allclose(law.quantile(q), x, rtol=1e-10)
    np.testing.assert_allclose(law.moments(7), exact.moments(7), rtol=1e-12)
    a, b = exact.support[0]
    z = np.array([-0.3 + 0j, 1e-3 + 1e-4j, (a + b) / 2 / variance + 0.1j, 2 * b / variance + 0j, 1 - 2j]) * variance
    np.testing.assert_allclose(law.stieltjes(z), exact.stieltjes(z), rtol=1e-11)
    for one, other in zip(law.jacobi_coefficients(20), exact.jacobi_coefficients(20), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)


def test_published_edges_and_exact_separation():
    law = GeneralizedMarchenkoPastur([1.0, 5.0], [0.5, 0.5], ratio=0.1)
    np.testing.assert_allclose(law.support, [(0.55711, 1.41576), (3.08129, 7.54584)], atol=6e-6)
    assert law.cdf(2.0) == pytest.approx(0.5, abs=1e-12) and law.atoms == []
    assert isinstance(law, SpectralLaw)


def test_edges_are_where_the_density_ends():
    law = GeneralizedMarchenkoPastur([1.0, 5.0, 20.0], [0.4, 0.4, 0.2], ratio=0.05)
    assert len(law.support) == 3
    for a, b in law.support:
        step = 1e-8 * (b - a)
        assert law.stieltjes(a - step).imag < 1e-9 < law.stieltjes(a + step).imag
        assert law.stieltjes(b + step).imag < 1e-9 < law.stieltjes(b - step).imag


def population_moments(atoms, weights, count):
    return [float(np.dot(weights, np.power(atoms, k))) for k in range(count)]


@pytest.mark.parametrize("ratio", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("atoms, weights", [([1.0, 5.0], [0.5, 0.5]), ([0.0, 1.0, 3.0], [0.3, 0.4, 0.3])])
def test_moments_are_the_published_polynomials(atoms, weights, ratio):
    """By the moments h_k of the population: h1; h2 + c h1^2; h3 + 3 c h1 h2 + c^2 h1^3; and the fourth (Yin, 1986)."""
    _, h1, h2, h3, h4 = population_moments(atoms, weights, 5)
    c, law = ratio, GeneralizedMarchenkoPastur(atoms, weights, ratio=ratio)
    fourth = h4 + c * (4 * h1 * h3 + 2 * h2**2) + 6 * c**2 * h1**2 * h2 + c**3 * h1**4
    np.testing.assert_allclose(law.moments(5), [1, h1, h2 + c * h1**2, h3 + 3 * c * h1 * h2 + c**2 * h1**3, fourth], rtol=1e-11)


@pytest.mark.parametrize(
    "atoms, weights, ratio, mass",
    [
        ([0.0, 1.0], [0.25, 0.75], 0.5, 0.25),  # the population's own zeros
        ([0.0, 1.0], [0.25, 0.75], 1.25, 0.25),  # fewer samples than variables, but enough for those that vary
        ([0.0, 1.0], [0.25, 0.75], 4 / 3, 0.25),  # exactly enough: a hard edge beside the atom
        ([0.0, 1.0], [0.25, 0.75], 4.0, 0.75),
        ([1.0, 2.0], [0.5, 0.5], 2.0, 0.5),
        ([1.0, 2.0], [0.5, 0.5], 1.0, 0.0),
    ],
)
def test_atom_at_zero(atoms, weights, ratio, mass):
    law = GeneralizedMarchenkoPastur(atoms, weights, ratio=ratio)
    assert sum(m for _, m in law.atoms) == pytest.approx(mass, abs=1e-15) and law.cdf(0.0) == pytest.approx(mass, abs=1e-12)
    hard = abs(ratio * sum(w for a, w in zip(atoms, weights, strict=True) if a) - 1) < 1e-12
    assert (law.support[0][0] == 0) == hard
    if hard:
        assert law.pdf(0.0) == np.inf
        near = 10.0 ** -np.arange(6.0, 15.0)  # it grows like one over the square root down to there
        np.testing.assert_allclose(law.pdf(near) * np.sqrt(near), law.pdf(1e-6) * 1e-3, rtol=1e-4)
    check_consistency(law)


def test_consistency_with_many_atoms_and_a_density():
    check_consistency(GeneralizedMarchenkoPastur([1.0, 5.0], [0.5, 0.5], ratio=0.1))
    check_consistency(GeneralizedMarchenkoPastur(population=MarchenkoPastur(0.3), ratio=0.5, variance=2.0))


def test_a_density_as_population_is_the_limit_of_its_quadratures():
    """400 equal shares at the quantiles: the edges move by the order of one over their number, the masses by less."""
    population = MarchenkoPastur(0.3)
    law = GeneralizedMarchenkoPastur(population=population, ratio=0.5)
    fine = GeneralizedMarchenkoPastur(population.quantile((np.arange(400) + 0.5) / 400), np.full(400, 1 / 400), ratio=0.5)
    np.testing.assert_allclose(law.support, fine.support, atol=1e-3)
    x = np.linspace(0.1, 3.5, 30)
    np.testing.assert_allclose(law.cdf(x), fine.cdf(x), atol=1e-4)
    # Free product of Marchenko-Pastur laws: second and third moment from the polynomials above.
    h1, h2, h3 = population.moments(4)[1:]
    np.testing.assert_allclose(law.moments(4)[1:], [h1, h2 + 0.5 * h1**2, h3 + 1.5 * h1 * h2 + 0.25 * h1**3], rtol=1e-10)


@pytest.mark.parametrize("p, n", [(400, 2000), (400, 200)])
def test_a_sample_follows_it_and_the_controls_do_not(p, n):
    rng = np.random.default_rng(3)
    x = np.sqrt(np.repeat([1.0, 5.0], p // 2))[:, None] * rng.standard_normal((p, n))
    eigenvalues = np.linalg.eigvalsh(x @ x.T / n)
    eigenvalues[: max(0, p - n)] = 0.0

    def distance(**changed):
        return rigidity(GeneralizedMarchenkoPastur([1.0, 5.0], [0.5, 0.5], **{"ratio": p / n, **changed}), eigenvalues)

    assert distance() < 6
    assert distance(variance=1.05**2) > 6
    assert distance(ratio=n / p) > 6


def test_it_is_fast():
    start = time.perf_counter()
    law = GeneralizedMarchenkoPastur(np.geomspace(1e-3, 10, 30), np.full(30, 1 / 30), ratio=0.3)
    a, b = law.support[0][0], law.support[-1][1]
    law.pdf(np.linspace(a, b, 400)), law.cdf(np.linspace(a, b, 400)), law.quantile(np.linspace(0, 1, 400))
    assert time.perf_counter() - start < 3


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"atoms": [1.0], "weights": [0.5], "ratio": 0.5}, "The argument weights must sum to one"),
        ({"atoms": [1.0, 2.0], "weights": [1.5, -0.5], "ratio": 0.5}, "The argument weights must hold .* not negative"),
        ({"atoms": [1.0, 2.0], "weights": [1.0], "ratio": 0.5}, "The argument weights must have the shape"),
        ({"atoms": [-1.0, 2.0], "weights": [0.5, 0.5], "ratio": 0.5}, "The argument atoms .* negative"),
        ({"atoms": [np.nan], "weights": [1.0], "ratio": 0.5}, "The argument atoms must be a 1-D array"),
        ({"atoms": [], "weights": [], "ratio": 0.5}, "The argument atoms must be a 1-D array"),
        ({"atoms": ["a"], "weights": [1.0], "ratio": 0.5}, "The arguments atoms and weights must be arrays of real numbers"),
        ({"atoms": [0.0], "weights": [1.0], "ratio": 0.5}, "The population covariance is zero"),
        ({"atoms": [1.0], "weights": [1.0], "ratio": 0.0}, "The argument ratio"),
        ({"atoms": [1.0], "weights": [1.0], "ratio": -1.0}, "The argument ratio"),
        ({"atoms": [1.0], "weights": [1.0], "ratio": 0.5, "variance": -1.0}, "The argument variance"),
        ({"ratio": 0.5}, "Give the population as atoms and weights"),
        ({"atoms": [1.0], "ratio": 0.5, "population": DiscreteLaw([1.0])}, "not both"),
        ({"ratio": 0.5, "population": [1.0]}, "The argument population must be a spectral law"),
        ({"ratio": 0.5, "population": DiscreteLaw([-1.0, 1.0])}, "The argument population .* negative"),
    ],
)
def test_bad_parameters_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        GeneralizedMarchenkoPastur(**arguments)
