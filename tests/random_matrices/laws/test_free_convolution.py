"""Free convolutions against closed forms, free cumulants, polynomials and sampled matrices."""

import time

import numpy as np
import pytest
from law_checks import check_consistency, rigidity
from scipy import stats

from linop_spectra.random_matrices import MarchenkoPastur, Semicircle
from linop_spectra.random_matrices.laws.affine_law import AffineLaw
from linop_spectra.random_matrices.laws.discrete_law import DiscreteLaw
from linop_spectra.random_matrices.laws.free_convolution import (
    FreeProduct,
    FreeSum,
    free_additive_convolution,
    free_multiplicative_convolution,
)
from linop_spectra.random_matrices.laws.generalized_marchenko_pastur import GeneralizedMarchenkoPastur
from linop_spectra.random_matrices.laws.transforms import free_cumulants

SIGN = DiscreteLaw([-1.0, 1.0])


def rotation(rng, n):
    q, r = np.linalg.qr(rng.standard_normal((n, n)))
    return q * np.sign(np.diag(r))


def test_two_signs_give_the_arcsine_law():
    law = free_additive_convolution(SIGN, SIGN)
    assert law.support == [(-2.0, 2.0)] and law.atoms == []
    x = np.linspace(-1.999, 1.999, 401)
    np.testing.assert_allclose(law.pdf(x), 1 / (np.pi * np.sqrt(4 - x**2)), rtol=1e-10)
    np.testing.assert_allclose(law.cdf(x), 0.5 + np.arcsin(x / 2) / np.pi, atol=1e-10)
    assert law.pdf(2.0) == np.inf
    check_consistency(law)


def test_semicircles_add_in_closed_form_and_numerically():
    exact = Semicircle(variance=1.5)
    assert free_additive_convolution(Semicircle(1.0), Semicircle(0.5)) == exact
    law = FreeSum(Semicircle(1.0), Semicircle(0.5))
    np.testing.assert_allclose(law.support, exact.support, atol=1e-10)
    x = exact.quantile(np.linspace(0.001, 0.999, 201))
    np.testing.assert_allclose(law.pdf(x), exact.pdf(x), rtol=1e-11)
    np.testing.assert_allclose(law.cdf(x), exact.cdf(x), atol=1e-12)
    off = np.r_[-3.0, 2.45, 5.0, -1e3]
    np.testing.assert_allclose(law.stieltjes(off), exact.stieltjes(off), rtol=1e-9)
    assert np.all(law.pdf(off) == 0)


@pytest.mark.parametrize(
    "first, second",
    [
        (Semicircle(0.3), MarchenkoPastur(0.5)),
        (MarchenkoPastur(0.5), MarchenkoPastur(4.0)),
        (Semicircle(0.04), DiscreteLaw([0.0, 1.0], [0.9, 0.1])),
        (DiscreteLaw([0.0, 1.0], [0.6, 0.4]), DiscreteLaw([-1.0, 2.0, 3.0], [0.5, 0.3, 0.2])),
        (MarchenkoPastur(4.0), DiscreteLaw([0.0, 1.0], [0.9, 0.1])),
    ],
)
def test_free_cumulants_add(first, second):
    law = free_additive_convolution(first, second)
    total = free_cumulants(first.moments(8)) + free_cumulants(second.moments(8))
    np.testing.assert_allclose(free_cumulants(law.moments(8)), total, rtol=1e-8, atol=1e-8 * np.abs(total).max())
    low, high = law.support[0][0], law.support[-1][1]
    w = np.array([0.2 / (high - low), -0.1 / (high - low), (0.1 - 0.2j) / (high - low)])
    np.testing.assert_allclose(law.r_transform(w), first.r_transform(w) + second.r_transform(w), rtol=1e-8, atol=1e-9)
    check_consistency(law)


def test_semicircle_and_atoms_solve_their_cubic():
    law = free_additive_convolution(DiscreteLaw([0.0, 1.0], [0.9, 0.1]), Semicircle(0.04))
    assert len(law.support) == 2 and law.cdf(0.6) == pytest.approx(0.9, abs=1e-12)
    x = np.linspace(-0.5, 1.3, 401)
    # With u = z - 0.04 G: (z - u) u (u - 1) = 0.04 (0.9 (u - 1) + 0.1 u).
    roots = [np.roots(np.polysub(np.polymul([-1, z], [1, -1, 0]), [0, 0, 0.04, -0.036])).imag.max() for z in x]
    np.testing.assert_allclose(law.pdf(x), np.array(roots) / 0.04 / np.pi, atol=1e-6)
    # The ends: x(u) = u + 0.04 (0.9 / u + 0.1 / (u - 1)) where its derivative vanishes.
    turning = np.roots(np.polysub(np.polymul([1, 0, 0], [1, -2, 1]), np.polyadd([0.036, -0.072, 0.036], [0.004, 0, 0])))
    turning = np.sort(turning[np.abs(turning.imag) < 1e-9].real)
    np.testing.assert_allclose(np.ravel(law.support), turning + 0.04 * (0.9 / turning + 0.1 / (turning - 1)), atol=1e-10)


def test_narrow_parts_of_the_support_are_found():
    law = free_additive_convolution(DiscreteLaw([0.0, 1.0, 5.0], [0.98, 0.01, 0.01]), Semicircle(1e-8))
    assert len(law.support) == 3
    np.testing.assert_allclose(law.cdf([0.5, 3.0]), [0.98, 0.99], atol=1e-10)
    assert law.support[1][1] - law.support[1][0] == pytest.approx(4 * np.sqrt(1e-8 * 0.01), rel=1e-3)


def test_atoms_of_a_sum():
    """An atom at a + b of the mass by which the two exceed one (Bercovici and Voiculescu)."""
    law = free_additive_convolution(DiscreteLaw([0.0, 1.0], [0.8, 0.2]), DiscreteLaw([0.0, 2.0], [0.7, 0.3]))
    np.testing.assert_allclose(law.atoms, [(0.0, 0.5), (2.0, 0.1)], atol=1e-14)
    check_consistency(law)
    more = free_additive_convolution(DiscreteLaw([0.0, 1.0], [0.9, 0.1]), DiscreteLaw([0.0, 3.0], [0.5, 0.5]))
    np.testing.assert_allclose(more.atoms, [(0.0, 0.4), (3.0, 0.4)], atol=1e-14)
    check_consistency(more)


def test_one_atom_shifts_and_stretches():
    law = free_additive_convolution(Semicircle(2.0), DiscreteLaw([3.0]))
    assert law == AffineLaw(Semicircle(2.0), shift=3.0) and law.mean() == 3 and law.var() == 2
    np.testing.assert_allclose(law.pdf([3.0, 1.0]), Semicircle(2.0).pdf([0.0, -2.0]))
    check_consistency(law)
    assert free_additive_convolution(DiscreteLaw([1.0]), DiscreteLaw([2.0, 3.0])) == DiscreteLaw([3.0, 4.0])
    assert free_multiplicative_convolution(MarchenkoPastur(0.5), DiscreteLaw([3.0])) == MarchenkoPastur(0.5, 3.0)
    assert free_multiplicative_convolution(DiscreteLaw([0.0]), MarchenkoPastur(0.5)) == DiscreteLaw([0.0])


def test_it_is_commutative_and_associative():
    a, b, c = MarchenkoPastur(0.5), DiscreteLaw([0.0, 4.0], [0.7, 0.3]), Semicircle(0.2)
    one = free_additive_convolution(a, free_additive_convolution(b, c))
    other = free_additive_convolution(free_additive_convolution(b, a), c)
    np.testing.assert_allclose(one.support, other.support, atol=1e-7)
    x = np.linspace(-1, 9, 60)
    np.testing.assert_allclose(one.cdf(x), other.cdf(x), atol=1e-8)


def test_products_of_square_wisharts_are_fuss_catalan():
    law = free_multiplicative_convolution(MarchenkoPastur(1.0), MarchenkoPastur(1.0))
    np.testing.assert_allclose(law.moments(6), [1, 1, 3, 12, 55, 273], rtol=1e-9)
    np.testing.assert_allclose(law.support, [(0, 27 / 4)], atol=1e-9)
    t = np.linspace(0.01, 0.99, 99) * np.pi / 3
    x = np.sin(3 * t) ** 3 / (np.sin(t) * np.sin(2 * t) ** 2)
    np.testing.assert_allclose(law.pdf(x), np.sin(t) ** 2 * np.sin(2 * t) / (np.pi * np.sin(3 * t) ** 2), rtol=1e-9)
    # The density grows like x^(-2/3): near zero F = 3 sqrt(3) / (2 pi) x^(1/3).
    near = 10.0 ** np.arange(-15, -8)
    np.testing.assert_allclose(law.cdf(near), 3 * np.sqrt(3) / (2 * np.pi) * np.cbrt(near), rtol=1e-3, atol=1e-8)
    check_consistency(law)


@pytest.mark.parametrize("ratio", [0.1, 1.25, 4.0])
@pytest.mark.parametrize("atoms, weights", [([1.0, 5.0], [0.5, 0.5]), ([0.0, 1.0, 5.0], [0.2, 0.4, 0.4])])
def test_a_product_with_marchenko_pastur_is_the_generalised_law(atoms, weights, ratio):
    exact = free_multiplicative_convolution(MarchenkoPastur(ratio, 2.0), DiscreteLaw(atoms, weights))
    assert exact == GeneralizedMarchenkoPastur(atoms, weights, ratio=ratio, variance=2.0)
    law = FreeProduct(DiscreteLaw(atoms, weights), MarchenkoPastur(ratio, 2.0))
    np.testing.assert_allclose(law.support, exact.support, atol=1e-9)
    np.testing.assert_allclose(np.ravel(law.atoms), np.ravel(exact.atoms), atol=1e-14)
    x = np.linspace(0.01, exact.support[-1][1], 101)
    np.testing.assert_allclose(law.cdf(x), exact.cdf(x), atol=1e-9)


@pytest.mark.parametrize(
    "first, second",
    [(MarchenkoPastur(2.0, 3.0), MarchenkoPastur(0.5)), (MarchenkoPastur(0.5), AffineLaw(Semicircle(0.2), shift=1.0))],
)
def test_s_transforms_multiply(first, second):
    law = free_multiplicative_convolution(first, second)
    w = np.array([-0.3, -0.05, 1e-4, 0.02, 0.1, -0.1 + 0.05j])
    np.testing.assert_allclose(law.s_transform(w), first.s_transform(w) * second.s_transform(w), rtol=1e-8)
    m1, v1, m2, v2 = first.mean(), first.var(), second.mean(), second.var()
    np.testing.assert_allclose([law.moment(1), law.moment(2)], [m1 * m2, m1**2 * m2**2 + m1**2 * v2 + m2**2 * v1], rtol=1e-9)
    assert sum(mass for _, mass in law.atoms) == pytest.approx(max([0, *(m for _, m in first.atoms), *(m for _, m in second.atoms)]))
    check_consistency(law)


def test_two_projections():
    """Eigenvalues of the product of free projections of rank a and b (Voiculescu): atoms at zero and one, and a density between."""
    a, b = 0.8, 0.6
    law = free_multiplicative_convolution(DiscreteLaw([0.0, 1.0], [1 - a, a]), DiscreteLaw([0.0, 1.0], [1 - b, b]))
    np.testing.assert_allclose(law.atoms, [(0.0, 1 - min(a, b)), (1.0, a + b - 1)], atol=1e-14)
    middle, reach = a + b - 2 * a * b, np.sqrt(4 * a * b * (1 - a) * (1 - b))
    np.testing.assert_allclose(law.support, [(middle - reach, middle + reach)], atol=1e-9)
    ((low, high),) = law.support
    x = np.linspace(low, high, 50)[1:-1]
    np.testing.assert_allclose(law.pdf(x), np.sqrt((high - x) * (x - low)) / (2 * np.pi * x * (1 - x)), rtol=1e-6)


def test_samples_follow_and_controls_do_not():
    rng = np.random.default_rng(5)
    n = 400
    wigner = rng.standard_normal((n, n))
    wigner = np.sqrt(0.3 / (2 * n)) * (wigner + wigner.T)
    x = rng.standard_normal((n, 2 * n))
    total = np.linalg.eigvalsh(wigner + x @ x.T / (2 * n))
    assert rigidity(free_additive_convolution(Semicircle(0.3), MarchenkoPastur(0.5)), total) < 6
    assert rigidity(free_additive_convolution(Semicircle(0.3 * 1.05**2), MarchenkoPastur(0.5, 1.05**2)), total) > 6
    assert rigidity(free_additive_convolution(Semicircle(0.3), MarchenkoPastur(2.0)), total) > 6

    q = rotation(rng, n)
    one, other = np.repeat([0.5, 2.0], n // 2), np.linspace(0.5, 2.5, n)
    root = np.sqrt(one)
    product = np.linalg.eigvalsh(root[:, None] * ((q * other) @ q.T) * root)
    law = free_multiplicative_convolution(DiscreteLaw(one), DiscreteLaw(other))
    assert rigidity(law, product) < 6
    assert rigidity(AffineLaw(law, factor=1.05), product) > 6


def test_deformed_wigner_with_many_atoms_is_fast():
    places = stats.norm.ppf((np.arange(200) + 0.5) / 200)
    start = time.perf_counter()
    law = free_additive_convolution(DiscreteLaw(places), Semicircle(1.0))
    x = np.linspace(-4, 4, 400)
    law.pdf(x), law.cdf(x), law.quantile(np.linspace(0, 1, 400))
    assert time.perf_counter() - start < 5
    assert law.var() == pytest.approx(1 + np.var(places), rel=1e-9)


@pytest.mark.parametrize("convolve", [free_additive_convolution, free_multiplicative_convolution])
def test_bad_arguments_are_named(convolve):
    with pytest.raises(ValueError, match="The argument first must be a spectral law, but is a list; pass eigenvalues as a DiscreteLaw"):
        convolve([1.0], Semicircle())
    with pytest.raises(ValueError, match="The argument second must be a spectral law"):
        convolve(MarchenkoPastur(0.5), None)


def test_products_need_non_negative_laws():
    with pytest.raises(ValueError, match="The argument second must be a law on the non-negative numbers, but its lowest place is -2"):
        free_multiplicative_convolution(MarchenkoPastur(0.5), Semicircle())
