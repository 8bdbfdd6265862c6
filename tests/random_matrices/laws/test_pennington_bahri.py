"""The law of Pennington and Bahri against published numbers, sampled matrices and free convolution."""

import numpy as np
import pytest

from linop_spectra.random_matrices import MarchenkoPastur, Semicircle
from linop_spectra.random_matrices.laws.pennington_bahri import PenningtonBahri, pennington_bahri_critical_energy

CASES = [(0.25, 0.1), (1.0, 0.01), (2.0, 0.01), (2.0, 0.2), (5.0, 1e-4), (1e-3, 0.1), (0.25, 1e-8), (0.1, 0.03), (0.5, 30.0)]


@pytest.mark.parametrize("ratio, multiple, index", [(0.25, 2, 0.0415), (0.25, 4, 0.1104), (0.5, 4, 0.0570), (0.1, 2, 0.0652)])
def test_published_index(ratio, multiple, index):
    law = PenningtonBahri(ratio=ratio, energy=multiple * pennington_bahri_critical_energy(ratio))
    assert law.index == pytest.approx(index, abs=6e-5)


def test_critical_energy():
    ratios = np.array([0.05, 0.1, 0.25, 0.5, 0.75])
    np.testing.assert_allclose(pennington_bahri_critical_energy(ratios), [0.102281, 0.083435, 0.043510, 0.011271, 0.001266], atol=6e-7)
    published = (1 - 20 * ratios - 8 * ratios**2 + (1 + 8 * ratios) ** 1.5) / 16
    np.testing.assert_allclose(pennington_bahri_critical_energy(ratios), published, rtol=1e-11)
    assert pennington_bahri_critical_energy(1.0) == pennington_bahri_critical_energy(3.0) == 0
    assert PenningtonBahri(ratio=0.25, energy=1.0).critical_energy == pytest.approx(0.04351, abs=1e-6)
    # Near one the published form is all rounding: the cube of the distance shows.
    assert pennington_bahri_critical_energy(1 - 1e-8) == pytest.approx((4 * 1e-8 / 3) ** 3 * 4 / 128, rel=1e-6)


@pytest.mark.parametrize("ratio", [0.05, 0.25, 0.75])
def test_negative_eigenvalues_begin_at_the_critical_energy(ratio):
    critical = pennington_bahri_critical_energy(ratio)
    assert PenningtonBahri(ratio=ratio, energy=critical).support[0][0] == pytest.approx(0, abs=1e-7)
    assert PenningtonBahri(ratio=ratio, energy=0.999 * critical).index == 0
    assert PenningtonBahri(ratio=ratio, energy=0.999 * critical).support[0][0] > 0
    low, high = (PenningtonBahri(ratio=ratio, energy=(1 + d) * critical).index for d in (5e-4, 1e-3))
    assert 0 < low < high and np.log(high / low) / np.log(2) == pytest.approx(1.5, abs=0.02)


@pytest.mark.parametrize("ratio, energy", CASES)
def test_quadrature_of_the_density_gives_mass_moments_and_transform(ratio, energy):
    """The density comes from the roots of the cubic, the moments from the R-transform."""
    law = PenningtonBahri(ratio=ratio, energy=energy)
    nodes, weights = [], []
    for a, b in law.support:
        t = np.pi * (np.arange(4000) + 0.5) / 4000
        x = (a + b) / 2 - (b - a) / 2 * np.cos(t)
        nodes.append(x)
        weights.append(law.pdf(x) * (b - a) / 2 * np.sin(t) * np.pi / 4000)
    x, w = np.concatenate(nodes), np.concatenate(weights)
    assert w.sum() == pytest.approx(1, abs=1e-7)
    for k in (1, 2, 3, 4):
        assert w @ x**k == pytest.approx(law.moment(k), rel=1e-6)
    assert law.moment(1) == pytest.approx(1) and law.var() == pytest.approx(ratio + 2 * energy)
    third = 1 + 3 * (ratio + 2 * energy) + ratio**2  # free cumulants 1, ratio + 2 energy, ratio^2
    assert law.moment(3) == pytest.approx(third)
    top = law.support[-1][1]
    for z in (0.3 + 0.5j, -1 - 2j, top + 1, law.support[0][0] - 0.5):
        assert law.stieltjes(z) == pytest.approx((w / (x - z)).sum(), rel=1e-6)
    inner = law.support[0][0] + (law.support[0][1] - law.support[0][0]) * np.linspace(0.02, 0.98, 25)
    np.testing.assert_allclose(law.stieltjes(inner).imag / np.pi, law.pdf(inner), rtol=1e-9)
    assert law.stieltjes(1e8j) == pytest.approx(-1 / 1e8j, rel=1e-7)


@pytest.mark.parametrize("ratio, energy", CASES)
def test_transform_solves_the_cubic_equation(ratio, energy):
    law = PenningtonBahri(ratio=ratio, energy=energy)
    z = np.array([0.1 + 0.01j, 1 + 1j, -2 + 0.3j, 5 + 1e-3j])
    g = law.cauchy(z)
    assert np.all(g.imag < 0)
    np.testing.assert_allclose(1 / (1 - ratio * g) + 2 * energy * g + 1 / g, z, rtol=1e-9)
    assert law.r_transform(0.1) == pytest.approx(1 / (1 - 0.1 * ratio) + 0.2 * energy)


def test_two_intervals_for_more_parameters_than_data():
    (_, first), (second, _) = PenningtonBahri(ratio=2.0, energy=0.01).support
    law = PenningtonBahri(ratio=2.0, energy=0.01)
    assert first < second and law.cdf((first + second) / 2) == pytest.approx(0.5, abs=1e-12)
    assert law.pdf((first + second) / 2) == 0 and law.quantile(0.25) == pytest.approx(0, abs=0.02)
    assert len(PenningtonBahri(ratio=2.0, energy=0.02).support) == 1


@pytest.mark.parametrize("ratio, energy", [(0.25, 0.087), (0.5, 0.2), (2.0, 0.005)])
def test_sampled_matrices(ratio, energy):
    n = 600
    rng = np.random.default_rng(3)
    j, h = rng.standard_normal((n, round(n / ratio))), rng.standard_normal((n, n))
    eigenvalues = np.linalg.eigvalsh(j @ j.T / j.shape[1] + np.sqrt(2 * energy / (2 * n)) * (h + h.T))
    levels = (np.arange(n) + 0.5) / n

    def distance(law):
        return np.abs(law.cdf(eigenvalues) - levels).max()

    assert distance(PenningtonBahri(ratio=ratio, energy=energy)) < 8 / n
    assert distance(PenningtonBahri(ratio=1 / ratio, energy=energy)) > 0.05
    assert distance(PenningtonBahri(ratio=ratio, energy=2 * energy)) > 0.01


def test_limits_and_free_convolution():
    x = np.linspace(0.3, 2.2, 20)
    np.testing.assert_allclose(PenningtonBahri(ratio=0.25, energy=1e-10).cdf(x), MarchenkoPastur(ratio=0.25).cdf(x), atol=1e-8)
    np.testing.assert_allclose(PenningtonBahri(ratio=1e-9, energy=0.5).cdf(x), Semicircle(variance=1.0).cdf(x - 1), atol=1e-8)
    free = pytest.importorskip("linop_spectra.random_matrices.laws.free_convolution")
    total = free.free_additive_convolution(MarchenkoPastur(ratio=0.5), Semicircle(variance=0.2))
    law = PenningtonBahri(ratio=0.5, energy=0.1)
    np.testing.assert_allclose(total.pdf(x), law.pdf(x), atol=1e-7)
    np.testing.assert_allclose(total.support, law.support, atol=1e-6)


@pytest.mark.parametrize(
    "arguments, name",
    [
        ({"ratio": -1.0, "energy": 1.0}, "ratio"),
        ({"ratio": np.nan, "energy": 1.0}, "ratio"),
        ({"ratio": 1.0, "energy": 0.0}, "energy"),
        ({"ratio": 1.0, "energy": -1.0}, "energy"),
        ({"ratio": 1.0, "energy": "1"}, "energy"),
    ],
)
def test_bad_parameters_are_named(arguments, name):
    with pytest.raises(ValueError, match=rf"The argument {name}, .* must be a positive finite number, but is .*\."):
        PenningtonBahri(**arguments)
    with pytest.raises(ValueError, match=r"The argument ratio, .* must be positive"):
        pennington_bahri_critical_energy([0.5, -0.5])
