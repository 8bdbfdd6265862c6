"""Distances between spectra against SciPy, closed forms, and the rules that a distance obeys."""

import numpy as np
import pytest
from scipy import stats

import linop_spectra as ls
from linop_spectra.random_matrices import MarchenkoPastur
from linop_spectra.spectra import kolmogorov_distance, wasserstein_distance

DISTANCES = (wasserstein_distance, kolmogorov_distance)


class Shifted:
    """A law moved and stretched: ``scale x + shift``."""

    def __init__(self, law, shift=0.0, scale=1.0):
        self.law, self.move, self.stretch = law, shift, scale

    def cdf(self, x):
        return self.law.cdf((np.asarray(x) - self.move) / self.stretch)

    def quantile(self, q):
        return np.asarray(self.law.quantile(q)) * self.stretch + self.move


def measures(seed, count):
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        size = int(rng.integers(1, 30))
        places = rng.choice([rng.normal(), 0.0, 1.0, 2.5], size)  # some of them several times
        out.append((places + (rng.random() < 0.7) * rng.normal(size=size), rng.exponential(size=size)))
    return out


@pytest.mark.parametrize("seed", range(40))
def test_discrete_measures_against_scipy_and_the_largest_step(seed):
    a, b = measures(seed, 2)
    assert wasserstein_distance(a, b) == pytest.approx(stats.wasserstein_distance(a[0], b[0], a[1], b[1]), rel=1e-12, abs=1e-14)
    points = np.concatenate([a[0], b[0]])
    at, before = (
        [np.array([m[1][compare(m[0], x)].sum() / m[1].sum() for x in points]) for m in (a, b)] for compare in (np.less_equal, np.less)
    )
    expected = max(np.abs(at[0] - at[1]).max(), np.abs(before[0] - before[1]).max())
    assert kolmogorov_distance(a, b) == pytest.approx(expected, abs=1e-13)
    equal = kolmogorov_distance(a[0], b[0])
    assert equal == pytest.approx(stats.ks_2samp(a[0], b[0]).statistic, abs=1e-12)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("seed", range(20))
def test_rules_of_a_distance(distance, seed):
    a, b, c = measures(seed, 3)
    assert distance(a, b) == pytest.approx(distance(b, a), abs=1e-13) and distance(a, a) == 0
    assert distance(a, c) <= distance(a, b) + distance(b, c) + 1e-12
    factor = 2.5 if distance is wasserstein_distance else 1.0
    for scale in (2.5, -2.5):
        moved = [(scale * x + 7, w) for x, w in (a, b)]
        assert distance(*moved) == pytest.approx(factor * distance(a, b), rel=1e-9, abs=1e-12)
    shuffled = np.random.default_rng(0).permutation(len(a[0]))
    assert distance((a[0][shuffled], 3 * a[1][shuffled]), a) < 1e-12


@pytest.mark.parametrize("shift", [1e-6, 0.1, 3.0])
def test_a_shift_costs_its_size(shift):
    a = measures(0, 1)[0]
    assert wasserstein_distance(a, (a[0] + shift, a[1])) == pytest.approx(shift, rel=1e-6)
    law = MarchenkoPastur(ratio=0.5)
    assert wasserstein_distance(law, Shifted(law, shift)) == pytest.approx(shift, rel=1e-3, abs=2e-6)
    assert wasserstein_distance(stats.norm(), stats.norm(shift)) == pytest.approx(shift, rel=1e-3, abs=2e-6)
    assert kolmogorov_distance(stats.norm(), stats.norm(shift)) == pytest.approx(2 * stats.norm.cdf(shift / 2) - 1, rel=1e-4, abs=1e-8)


def test_a_law_and_points():
    assert wasserstein_distance([0.0], stats.norm()) == pytest.approx(np.sqrt(2 / np.pi), rel=1e-7)
    for n in (1, 3, 50):
        points = (np.arange(n) + 0.5) / n
        assert wasserstein_distance(points, stats.uniform()) == pytest.approx(1 / (4 * n), rel=1e-9)
        assert wasserstein_distance(stats.uniform(), points) == pytest.approx(1 / (4 * n), rel=1e-9)
        assert kolmogorov_distance(points, stats.uniform()) == pytest.approx(1 / (2 * n), rel=1e-12)
    # Points beside the whole law: the distance of the means.
    assert wasserstein_distance([7.0, 9.0], stats.uniform()) == pytest.approx(7.5, rel=1e-9)
    sample = np.random.default_rng(0).normal(size=300)
    assert kolmogorov_distance(sample, stats.norm()) == pytest.approx(stats.kstest(sample, "norm").statistic, abs=1e-12)
    assert kolmogorov_distance([5.0], stats.norm()) == pytest.approx(stats.norm.cdf(5.0))


@pytest.mark.parametrize("ratio", [0.25, 1.0, 4.0])
def test_the_gauss_rule_of_a_law_is_within_its_bounds(ratio):
    """Largest weight and the sum over the gaps bound the distances of a Gauss rule; an atom of the law is an atom for both."""
    law = MarchenkoPastur(ratio=ratio)
    for k in (2, 8, 32):
        nodes, weights = law.gauss_rule(k)
        assert 0 < kolmogorov_distance((nodes, weights), law) <= weights.max() + 1e-9
        fine = law.quantile((np.arange(40_000) + 0.5) / 40_000)
        expected = stats.wasserstein_distance(nodes, fine, weights)
        assert wasserstein_distance((nodes, weights), law) == pytest.approx(expected, rel=1e-3, abs=3e-5)


def test_spectral_densities():
    eigenvalues = np.linspace(-1, 3, 300)
    one = ls.spectral_density(ls.diagonal_operator(eigenvalues), num_steps=30)
    other = ls.spectral_density(ls.diagonal_operator(eigenvalues + 0.5), num_steps=30)
    assert wasserstein_distance(one, other) == pytest.approx(0.5, rel=1e-9)
    assert wasserstein_distance(one, eigenvalues) == pytest.approx(stats.wasserstein_distance(one.nodes, eigenvalues, one.weights))
    assert wasserstein_distance(one, eigenvalues) <= one.wasserstein_bound
    assert kolmogorov_distance(one, (one.nodes, one.weights)) == 0


def test_laws_agree_with_themselves():
    law = MarchenkoPastur(ratio=4.0)
    assert wasserstein_distance(law, law) == 0 and kolmogorov_distance(law, law) == 0
    exact = stats.wasserstein_distance(*(law.quantile((np.arange(40_000) + 0.5) / 40_000) * scale for scale in (1.0, 2.0)))
    assert wasserstein_distance(law, Shifted(law, scale=2.0)) == pytest.approx(exact, rel=1e-4)
    heavy = stats.expon()
    assert wasserstein_distance(heavy, stats.expon(scale=2.0)) == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(
    "bad, message",
    [
        ([], "argument a is empty"),
        ([1.0, np.nan], "argument a holds NaN or infinity"),
        (np.eye(2), "argument a must be a 1-D array of eigenvalues"),
        (([1.0, 2.0], [1.0]), "argument a has nodes of shape"),
        (([1.0, 2.0], [1.0, -0.5]), "weights of the argument a must not be negative"),
        (([1.0], [0.0]), "weights of the argument a must not be negative and have a positive sum"),
    ],
)
def test_bad_measures_are_named(distance, bad, message):
    with pytest.raises(ValueError, match=message):
        distance(bad, [1.0])
    with pytest.raises(ValueError, match=message.replace("argument a", "argument b")):
        distance([1.0], bad)


@pytest.mark.parametrize("distance", DISTANCES)
def test_what_is_no_spectrum_is_said(distance):
    with pytest.raises(TypeError, match="argument b is a str; pass a spectral density"):
        distance([1.0], "spectrum")
