"""Closed forms of the Marchenko-Pastur law, against quadrature, published numbers and sampled matrices."""

import numpy as np
import pytest
from scipy import integrate

import linop_spectra as ls
from linop_spectra.random_matrices import MarchenkoPastur

RATIOS = (1e-6, 0.01, 0.25, 0.9, 1.0, 1.1, 4.0, 100.0)
VARIANCES = (1.0, 0.3, 1e-8)


def average(law, f):
    """Mean of f over the law by the midpoint rule in the angle, where the integrand is periodic and the rule spectrally accurate."""
    ((a, b),) = law.support
    points = 20_000
    t = np.pi * (np.arange(points) + 0.5) / points
    x = a + (b - a) * np.sin(t / 2) ** 2
    weights = ((b - a) * np.sin(t)) ** 2 / (4 * x) / (2 * law.ratio * law.variance * points)
    return (weights * f(x)).sum() + sum(mass * f(np.float64(place)) for place, mass in law.atoms)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("variance", VARIANCES)
def test_moments_agree_with_quadrature(ratio, variance):
    law = MarchenkoPastur(ratio=ratio, variance=variance)
    for k in range(7):
        assert law.moment(k) == pytest.approx(average(law, lambda x, k=k: x**k), rel=1e-9)
    assert law.mean() == pytest.approx(law.moment(1), rel=1e-14)
    # The variance is a difference of nearly equal numbers when the ratio is small: absolute at the scale of the squares.
    assert law.var() == pytest.approx(law.moment(2) - law.moment(1) ** 2, abs=1e-14 * law.moment(2))


def test_first_moments_are_the_published_polynomials():
    for c in RATIOS:
        law = MarchenkoPastur(ratio=c)
        expected = [1, 1, 1 + c, 1 + 3 * c + c**2, 1 + 6 * c + 6 * c**2 + c**3]
        assert [law.moment(k) for k in range(5)] == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("ratio", RATIOS)
def test_distribution_function_is_the_integral_of_the_density(ratio):
    law = MarchenkoPastur(ratio=ratio, variance=0.7)
    ((a, b),) = law.support
    atom = dict(law.atoms).get(0.0, 0.0)

    def mass(t):
        x = a + (b - a) * np.sin(t / 2) ** 2
        jacobian = (b - a) * np.sin(t) / 2
        return float(law.pdf(x)) * jacobian if jacobian > 0 else 0.0

    for angle in (0.01, 0.3, 1.0, 2.0, 3.1):
        expected, _ = integrate.quad(mass, 0, angle, epsabs=1e-13, epsrel=1e-12, limit=500)
        assert law.cdf(a + (b - a) * np.sin(angle / 2) ** 2) == pytest.approx(atom + expected, abs=1e-10)
    assert law.cdf(b) == 1 and law.cdf(2 * b) == 1 and law.cdf(-1e-300) == 0
    assert law.cdf(0.0) == pytest.approx(atom, abs=1e-15)


@pytest.mark.parametrize("ratio", RATIOS)
def test_distribution_function_is_monotone_and_the_quantile_inverts_it(ratio):
    law = MarchenkoPastur(ratio=ratio, variance=3.0)
    ((a, b),) = law.support
    x = np.concatenate([np.linspace(-0.1, 0, 5), a + (b - a) * np.linspace(0, 1, 20001), [b + 1]])
    assert np.all(np.diff(law.cdf(x)) >= 0)
    atom = dict(law.atoms).get(0.0, 0.0)
    q = atom + (1 - atom) * np.concatenate([[1e-6], np.linspace(0.001, 0.999, 101)])
    np.testing.assert_allclose(law.cdf(law.quantile(q)), q, atol=1e-10)
    assert np.all(np.diff(law.quantile(q)) >= 0)
    assert law.quantile(1.0) == b
    assert law.quantile(0.0) == (0.0 if atom else a) and (not atom or law.quantile(0.9 * atom) == 0.0)


@pytest.mark.parametrize("ratio, edges", [(0.25, (0.25, 2.25)), (4.0, (1.0, 9.0)), (1.0, (0.0, 4.0))])
def test_edges_and_atom(ratio, edges):
    law = MarchenkoPastur(ratio=ratio)
    np.testing.assert_allclose(law.support, [edges], atol=1e-14)
    assert law.atoms == ([(0.0, 0.75)] if ratio == 4 else [])
    assert law.pdf(edges[1] + 1e-9) == 0 and law.pdf(edges[0] - 1e-9) == 0


def test_published_functionals():
    """Mean logarithm, mean inverse, and effective dimensions."""
    for c in (0.1, 0.25, 0.5, 0.9):
        law = MarchenkoPastur(ratio=c, variance=2.0)
        assert average(law, np.log) == pytest.approx(-1 - (1 - c) / c * np.log(1 - c) + np.log(2), rel=1e-9)
        assert average(law, lambda x: 1 / x) == pytest.approx(1 / (2 * (1 - c)), rel=1e-9)
    for c, alpha, expected in ((0.5, 0.1, 0.85167), (2.0, 0.1, 0.45779), (0.25, 1.0, 0.46887)):
        law = MarchenkoPastur(ratio=c)
        resolvent = law.stieltjes(complex(-alpha)).real
        assert 1 - alpha * resolvent == pytest.approx(expected, abs=5e-6)


@pytest.mark.parametrize("ratio", RATIOS)
def test_stieltjes_transform(ratio):
    law = MarchenkoPastur(ratio=ratio, variance=1.5)
    ((a, b),) = law.support
    for z in (-0.5 + 0j, 1 + 1j, 0.3 - 2j, b + 1 + 0j, a + (b - a) / 2 + 0.2j):
        assert law.stieltjes(z) == pytest.approx(average(law, lambda x, z=z: 1 / (x - z)), rel=1e-9)
    inside = a + (b - a) * np.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(law.stieltjes(inside).imag / np.pi, law.pdf(inside), rtol=1e-7)
    far = 1e9j
    assert law.stieltjes(far) == pytest.approx(-1 / far, rel=1e-6)


@pytest.mark.parametrize("ratio", RATIOS)
def test_gauss_rule_has_the_moments(ratio):
    law = MarchenkoPastur(ratio=ratio, variance=0.5)
    for k in (1, 2, 5, 9):
        nodes, weights = law.gauss_rule(k)
        assert nodes.shape == weights.shape == (k,) and weights.sum() == pytest.approx(1, abs=1e-13)
        for p in range(2 * k):
            assert weights @ nodes**p == pytest.approx(law.moment(p), rel=1e-10)
        assert abs(weights @ nodes ** (2 * k) - law.moment(2 * k)) > 1e-8 * law.var() ** k  # but no further


def test_lanczos_on_a_large_sample_gives_the_jacobi_coefficients():
    """Coefficients of p = 600 fluctuate like 1 / sqrt(p); five of these are allowed."""
    p, n, k = 600, 1200, 6
    x = np.random.default_rng(5).standard_normal((p, n))
    run = ls.lanczos(x @ x.T / n, k, seed=0)
    alphas, betas = MarchenkoPastur(ratio=p / n).jacobi_coefficients(k)
    np.testing.assert_allclose(run.alphas[0], alphas, atol=5 * np.sqrt(2 / p))
    np.testing.assert_allclose(run.betas[0], betas, atol=5 * np.sqrt(2 / p))


@pytest.mark.parametrize("p, n", [(250, 1000), (1000, 250)])
def test_ratio_is_variables_over_samples(p, n):
    """The eigenvalues of one sample are rigid: their distance from the law is a few units over p, and the swapped ratio fails."""
    x = np.random.default_rng(1).standard_normal((p, n))
    eigenvalues = np.linalg.eigvalsh(x @ x.T / n)
    zeros = max(0, p - n)
    eigenvalues[:zeros] = 0.0
    levels = (np.arange(p) + 0.5) / p

    def distance(law):
        return np.abs(law.cdf(eigenvalues[zeros:]) - levels[zeros:]).max()

    assert distance(MarchenkoPastur(ratio=p / n)) < 8 / p
    assert distance(MarchenkoPastur(ratio=n / p)) > 0.1


def test_shapes_and_not_a_number():
    law = MarchenkoPastur(ratio=0.5)
    assert isinstance(law.pdf(1.0), float) and isinstance(law.cdf(1), float) and isinstance(law.quantile(0.5), float)
    assert law.pdf(np.ones((2, 3))).shape == law.cdf(np.ones((2, 3))).shape == (2, 3)
    assert np.isnan(law.cdf(np.nan)) and np.isnan(law.pdf(np.nan))
    assert MarchenkoPastur(ratio=1.0).pdf(0.0) == np.inf
    assert isinstance(law.stieltjes(1j), complex)


@pytest.mark.parametrize(
    "arguments, name",
    [
        ({"ratio": 0.0}, "ratio"),
        ({"ratio": -1.0}, "ratio"),
        ({"ratio": np.nan}, "ratio"),
        ({"ratio": np.inf}, "ratio"),
        ({"ratio": "1"}, "ratio"),
        ({"ratio": 1.0, "variance": 0.0}, "variance"),
        ({"ratio": 1.0, "variance": -2.0}, "variance"),
        ({"ratio": 1.0, "variance": np.nan}, "variance"),
    ],
)
def test_bad_parameters_are_named(arguments, name):
    with pytest.raises(ValueError, match=rf"The argument {name}, .* must be a positive finite number, but is .*\."):
        MarchenkoPastur(**arguments)


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
        call(MarchenkoPastur(ratio=0.5))
