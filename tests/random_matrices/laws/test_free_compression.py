"""Free compression against closed forms, free cumulants and blocks of sampled matrices."""

import numpy as np
import pytest
from law_checks import check_consistency, rigidity

from linop_spectra.random_matrices import MarchenkoPastur, Semicircle
from linop_spectra.random_matrices.laws.discrete_law import DiscreteLaw
from linop_spectra.random_matrices.laws.free_compression import CompressedLaw, free_compression
from linop_spectra.random_matrices.laws.transforms import free_cumulants


@pytest.mark.parametrize("ratio, fraction", [(0.5, 0.25), (4.0, 0.5), (4.0, 0.25), (4.0, 0.01), (1.0, 0.9), (2.0, 1e-5)])
def test_marchenko_pastur_keeps_its_form(ratio, fraction):
    exact = MarchenkoPastur(fraction * ratio, 3.0)
    assert free_compression(MarchenkoPastur(ratio, 3.0), fraction) == exact
    law = CompressedLaw(MarchenkoPastur(ratio, 3.0), fraction)
    ((a, b),) = exact.support
    np.testing.assert_allclose(law.support, exact.support, atol=1e-9 * (b - a) + 1e-12)
    np.testing.assert_allclose(np.ravel(law.atoms), np.ravel(exact.atoms), atol=1e-14)
    x = exact.quantile(np.linspace(max(0.0, 1 - 1 / exact.ratio) + 0.01, 0.99, 101))
    np.testing.assert_allclose(law.pdf(x), exact.pdf(x), rtol=1e-8)
    np.testing.assert_allclose(law.cdf(x), exact.cdf(x), atol=1e-9)


def test_published_edges():
    """Edges of a quarter of Marchenko-Pastur of ratio one half."""
    law = free_compression(MarchenkoPastur(0.5), 0.25)
    np.testing.assert_allclose(law.support, [(0.418, 1.832)], atol=5e-4)


def test_semicircle_and_trivial_cases():
    assert free_compression(Semicircle(2.0), 0.25) == Semicircle(0.5)
    law = DiscreteLaw([0.0, 1.0])
    assert free_compression(law, 1.0) is law and free_compression(DiscreteLaw([2.0]), 0.3) == DiscreteLaw([2.0])


@pytest.mark.parametrize("law", [DiscreteLaw([-1.0, 0.5, 4.0], [0.3, 0.4, 0.3]), CompressedLaw(DiscreteLaw([0.0, 1.0]), 0.8)])
@pytest.mark.parametrize("fraction", [0.1, 0.6, 0.95])
def test_free_cumulants_are_scaled(law, fraction):
    """The k-th one by ``fraction^(k - 1)``."""
    block = free_compression(law, fraction)
    expected = free_cumulants(law.moments(7)) * fraction ** np.arange(6.0)
    np.testing.assert_allclose(free_cumulants(block.moments(7)), expected, rtol=1e-7, atol=1e-9)
    assert block.mean() == law.mean() and block.var() == pytest.approx(fraction * law.var())
    np.testing.assert_allclose(block.r_transform(0.05), law.r_transform(0.05 * fraction), rtol=1e-12)
    check_consistency(block)


def test_half_of_a_symmetric_projection_is_the_arcsine_law():
    law = free_compression(DiscreteLaw([0.0, 1.0]), 0.5)
    assert law.support == [(0.0, 1.0)] and law.atoms == []
    x = np.linspace(0.001, 0.999, 99)
    np.testing.assert_allclose(law.pdf(x), 1 / (np.pi * np.sqrt(x * (1 - x))), rtol=1e-9)


def test_atoms():
    law = free_compression(DiscreteLaw([0.0, 1.0], [0.7, 0.3]), 0.6)
    np.testing.assert_allclose(law.atoms, [(0.0, 0.5)], atol=1e-14)
    assert free_compression(DiscreteLaw([0.0, 1.0], [0.7, 0.3]), 0.2).atoms == []
    check_consistency(law)


def test_a_block_of_a_rotated_matrix_follows_it_and_the_controls_do_not():
    rng = np.random.default_rng(6)
    n, m = 600, 200
    spectrum = np.repeat([0.0, 1.0, 4.0], [n // 2, n // 4, n // 4])
    q = np.linalg.qr(rng.standard_normal((n, n)))[0][:m]
    eigenvalues = np.linalg.eigvalsh((q * spectrum) @ q.T)

    def distance(scale=1.0, fraction=m / n):
        return rigidity(free_compression(DiscreteLaw(scale * spectrum), fraction), eigenvalues)

    assert distance() < 6
    assert distance(scale=1.05) > 6
    assert distance(fraction=m / n * 1.2) > 6


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5, np.nan, "half", None])
def test_bad_fractions_are_named(fraction):
    with pytest.raises(ValueError, match=r"The argument fraction, .* must be .*\."):
        free_compression(Semicircle(), fraction)


def test_bad_laws_are_named():
    with pytest.raises(ValueError, match="The argument law must be a spectral law"):
        free_compression([1.0, 2.0], 0.5)
