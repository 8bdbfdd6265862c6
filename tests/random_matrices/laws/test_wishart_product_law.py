"""Products of Wishart matrices and the Fuss-Catalan law: one against the other, Marchenko-Pastur and sampled matrices."""

import numpy as np
import pytest

from linop_spectra.random_matrices import MarchenkoPastur
from linop_spectra.random_matrices.laws.fuss_catalan import FussCatalan
from linop_spectra.random_matrices.laws.wishart_product_law import WishartProduct

RATIOS = [[1.0, 1.0], [0.5, 2.0], [0.1, 0.1], [2.0, 2.0], [3.0, 0.2, 1.0], [1e-3, 1e3], [0.3, 0.7, 0.9, 4.0], [2.0, 2.01]]


@pytest.mark.parametrize("ratio", [1e-6, 0.01, 0.25, 0.9, 1.0, 1.1, 4.0, 100.0])
def test_one_factor_is_marchenko_pastur(ratio):
    law, expected = WishartProduct([ratio]), MarchenkoPastur(ratio=ratio)
    ((a, b),) = expected.support
    np.testing.assert_allclose(law.support, expected.support, atol=1e-13 * b)
    assert dict(law.atoms) == pytest.approx(dict(expected.atoms))
    x = np.concatenate([[-1.0, 0.0], a + (b - a) * np.sin(np.linspace(0.01, np.pi - 0.01, 200) / 2) ** 2, [b + 1]])
    np.testing.assert_allclose(law.cdf(x), expected.cdf(x), atol=1e-11)
    np.testing.assert_allclose(law.pdf(x), expected.pdf(x), rtol=1e-8)
    q = np.linspace(0, 1, 101)
    np.testing.assert_allclose(law.quantile(q), expected.quantile(q), atol=1e-9 * b)
    z = np.array([-0.5 + 0j, 1 + 1j, 0.3 - 2j, b + 1, (a + b) / 2 + 0.2j, 1e9j, -1e-3, (a + b) / 2])
    np.testing.assert_allclose(law.stieltjes(z), expected.stieltjes(z), rtol=1e-10)
    assert [law.moment(k) for k in range(7)] == pytest.approx([expected.moment(k) for k in range(7)], rel=1e-13)
    np.testing.assert_allclose(law.jacobi_coefficients(6), expected.jacobi_coefficients(6), rtol=1e-10)
    assert law.s_transform(-0.3) == pytest.approx(1 / (1 - 0.3 * ratio))


@pytest.mark.parametrize("ratios", RATIOS)
def test_density_transform_and_moments_agree(ratios):
    """The mass over the angle is the derivative of the distribution function; the moments are a power series."""
    law = WishartProduct(ratios)
    nodes, weights = law._nodes(40)
    raw = np.polynomial.legendre.leggauss(400)
    mass = np.pi / 2 * raw[1] @ law._mass_rate(np.pi / 2 * (1 + raw[0]))
    assert mass == pytest.approx(min(1.0, 1 / max(ratios)), abs=1e-11)
    for k in (1, 2, 4):
        assert weights @ nodes**k == pytest.approx(law.moment(k), rel=1e-10)
    ((a, b),) = law.support
    z = np.array([-0.5 * b, (1 + 1j) * b, b * 1.5, 1e8j * b, (0.4 - 0.9j) * b])
    np.testing.assert_allclose(law.stieltjes(z), [(weights / (nodes - at)).sum() for at in z], rtol=1e-9)
    x = a + (b - a) * np.linspace(0.02, 0.98, 30)
    np.testing.assert_allclose(law.stieltjes(x).imag / np.pi, law.pdf(x), rtol=1e-9)
    h = 1e-5 * (b - a)
    np.testing.assert_allclose((law.cdf(x + h) - law.cdf(x - h)) / (2 * h), law.pdf(x), rtol=1e-4)
    # The polynomial equation in w = z G - 1.
    z = z[np.abs(z) < 1e3 * b]  # far away the one cancels
    w = z * law.cauchy(z) - 1
    np.testing.assert_allclose(w * z, (1 + w) * np.prod([1 + c * w for c in ratios], axis=0), rtol=1e-8)
    gauss = law.gauss_rule(5)
    assert gauss[1] @ gauss[0] ** 9 == pytest.approx(law.moment(9), rel=1e-9)


def test_order_does_not_matter_and_second_moment():
    law = WishartProduct([0.3, 2.0, 0.7])
    x = np.linspace(0.01, 9, 20)
    np.testing.assert_allclose(law.cdf(x), WishartProduct([2.0, 0.7, 0.3]).cdf(x), atol=1e-13)
    assert law.moment(1) == pytest.approx(1) and law.moment(2) == pytest.approx(1 + 3.0)  # variances of free factors add at first order


@pytest.mark.parametrize("factors", [1, 2, 3, 7])
def test_fuss_catalan_is_the_product_of_square_factors(factors):
    law, product = FussCatalan(factors=factors), WishartProduct([1.0] * factors)
    b = (factors + 1) ** (factors + 1) / factors**factors
    np.testing.assert_allclose([law.support, product.support], [[(0.0, b)]] * 2, rtol=1e-12)
    x = np.concatenate([[-1.0], np.geomspace(1e-9, 1, 40), np.linspace(1, b - 1e-3, 40), [b + 1]])
    np.testing.assert_allclose(law.pdf(x), product.pdf(x), rtol=1e-8)
    np.testing.assert_allclose(law.cdf(x), product.cdf(x), atol=1e-12)
    assert [law.moment(k) for k in range(6)] == pytest.approx([product.moment(k) for k in range(6)], rel=1e-12)
    np.testing.assert_allclose(law.jacobi_coefficients(5), product.jacobi_coefficients(5), rtol=1e-9)
    nodes, weights = law.gauss_rule(4)
    assert weights @ nodes**7 == pytest.approx(law.moment(7), rel=1e-10)
    assert law.pdf(0.0) == np.inf and law.cdf(0.0) == 0 and law.cdf(b) == 1


def test_fuss_catalan_closed_forms():
    assert [FussCatalan(factors=2).moment(k) for k in range(5)] == [1, 1, 3, 12, 55]
    assert FussCatalan(factors=2).support == [(0.0, 6.75)]
    x = np.geomspace(1e-8, 3.9, 60)
    np.testing.assert_allclose(FussCatalan(factors=1).pdf(x), np.sqrt((4 - x) / x) / (2 * np.pi), rtol=1e-8)
    # Penson and Zyczkowski (2011): the density for two factors.
    inner = 27 + 3 * np.sqrt(81 - 12 * x)
    published = 2 ** (1 / 3) * inner ** (2 / 3) - 6 * x ** (1 / 3)
    published *= 2 ** (1 / 3) * np.sqrt(3) / (12 * np.pi) / (x ** (2 / 3) * inner ** (1 / 3))
    np.testing.assert_allclose(FussCatalan(factors=2).pdf(x), published, rtol=1e-7)
    # The mass below a small x, from the leading term of the density at the hard edge.
    small = 1e-12
    for k in (1, 2, 5):
        expected = np.sin(np.pi / (k + 1)) / np.pi * (k + 1) * small ** (1 / (k + 1))
        assert FussCatalan(factors=k).cdf(small) == pytest.approx(expected, rel=0.05)


def test_sampled_product_of_square_matrices():
    n, rng = 1000, np.random.default_rng(0)
    y = rng.standard_normal((n, n)) @ rng.standard_normal((n, n)) / n
    eigenvalues = np.linalg.eigvalsh(y @ y.T)
    law = FussCatalan(factors=2)
    for k, expected in ((1, 1), (2, 3), (3, 12), (4, 55)):
        assert law.moment(k) == expected and np.mean(eigenvalues**k) == pytest.approx(expected, rel=0.02)
    assert np.abs(law.cdf(eigenvalues) - (np.arange(n) + 0.5) / n).max() < 8 / n
    assert np.abs(FussCatalan(factors=3).cdf(eigenvalues) - (np.arange(n) + 0.5) / n).max() > 0.05


@pytest.mark.parametrize("p, columns", [(400, (800, 500)), (600, (300, 900)), (500, (500, 250, 400))])
def test_sampled_rectangular_products(p, columns):
    rng = np.random.default_rng(1)
    y, rows = np.eye(p), p
    for n in columns:
        y, rows = y @ rng.standard_normal((rows, n)) / np.sqrt(n), n
    eigenvalues = np.linalg.eigvalsh(y @ y.T)
    zeros = p - min(p, *columns)
    law = WishartProduct([p / n for n in columns])
    levels = (np.arange(p) + 0.5) / p
    assert sum(mass for _, mass in law.atoms) == pytest.approx(zeros / p)
    assert np.abs(law.cdf(eigenvalues) - levels)[zeros:].max() < 8 / p
    swapped = WishartProduct([n / p for n in columns])
    assert np.abs(swapped.cdf(eigenvalues) - levels)[zeros:].max() > 0.05


def test_places_next_to_a_hard_edge():
    """Down to numbers that are zero but for rounding."""
    for law in (WishartProduct([1.0, 1.0]), WishartProduct([5.0, 5.0]), FussCatalan(factors=4)):
        atom = sum(mass for _, mass in law.atoms)
        x = np.geomspace(1e-300, 1e-3, 200)
        share = law.cdf(x)
        assert np.all(np.diff(share) >= -1e-9) and np.all(share >= atom) and abs(share[0] - atom) < 1e-7
        assert np.all(law.pdf(x) > 0)


def test_shapes():
    law = FussCatalan(factors=2)
    assert isinstance(law.pdf(1.0), float) and isinstance(law.cdf(1), float) and isinstance(law.quantile(0.5), float)
    assert law.pdf(np.ones((2, 3))).shape == law.cdf(np.ones((2, 3))).shape == law.quantile(np.full((2, 3), 0.5)).shape == (2, 3)
    assert law.stieltjes(np.full((2, 2), 1j)).shape == (2, 2) and isinstance(law.stieltjes(1j), complex)
    assert np.isnan(law.cdf(np.nan)) and np.isnan(law.pdf(np.nan))
    assert WishartProduct([0.5]) == WishartProduct((0.5,)) and hash(WishartProduct([0.5])) == hash(WishartProduct((0.5,)))
    with pytest.raises(ValueError, match="The argument q "):
        law.quantile(1.5)


@pytest.mark.parametrize("factors", [0, -1, 1.5, True, "2"])
def test_bad_factors(factors):
    with pytest.raises(ValueError, match="The argument factors must be a whole number of at least 1"):
        FussCatalan(factors=factors)


@pytest.mark.parametrize("ratios", [[], 1.0, "12", [1.0, 0.0], [-1.0], [np.nan], [[1.0]]])
def test_bad_ratios(ratios):
    with pytest.raises(ValueError, match="The argument ratios"):
        WishartProduct(ratios)
