"""The law of a Wigner matrix seen through a rectangular one, against sampled matrices and free cumulants."""

import numpy as np
import pytest

from linop_spectra.random_matrices.laws.wigner_product_law import WignerProduct


@pytest.mark.parametrize("ratio", [5.0, 2.0, 1.0, 0.3])
def test_sampled_matrices(ratio):
    n = 600
    r, rng = round(n / ratio), np.random.default_rng(2)
    x, w = rng.standard_normal((n, r)) / np.sqrt(r), rng.standard_normal((r, r))
    eigenvalues = np.linalg.eigvalsh(x @ (w + w.T) @ x.T)  # a Wigner matrix of variance 2 r
    eigenvalues *= np.sqrt(0.7 / (2 * r))
    law = WignerProduct(ratio=ratio, variance=0.7)
    seen = np.abs(eigenvalues) > 1e-9
    levels = (np.arange(n) + 0.5) / n
    assert sum(mass for _, mass in law.atoms) == pytest.approx(1 - seen.mean())
    assert np.abs(law.cdf(eigenvalues) - levels)[seen].max() < 8 / n
    assert law.moment(2) == pytest.approx(0.7 * ratio) == law.var()
    assert law.moment(4) == pytest.approx(2 * 0.7**2 * ratio**2 * (1 + ratio))


@pytest.mark.parametrize("ratio", [5.0, 1.0, 0.3])
def test_density_transform_and_rule(ratio):
    law = WignerProduct(ratio=ratio, variance=2.0)
    ((low, high),) = law.support
    assert low == -high and law.moment(3) == 0 and law.mean() == 0
    x = np.linspace(0.03, 0.97, 25) * high
    np.testing.assert_allclose(law.pdf(-x), law.pdf(x), rtol=1e-12)
    h = 1e-5 * high
    np.testing.assert_allclose((law.cdf(x + h) - law.cdf(x - h)) / (2 * h), law.pdf(x), rtol=1e-4)
    np.testing.assert_allclose(law.cdf(-x), 1 - law.cdf(x), atol=1e-13)
    both = np.concatenate([-x, x])
    np.testing.assert_allclose(law.stieltjes(both).imag / np.pi, law.pdf(both), rtol=1e-9)
    nodes, weights = law.gauss_rule(60)
    z = np.array([1 + 1j, 0.3 - 2j, -1 + 1.5j, 1.5 * high, -1.5 * high]) * high
    np.testing.assert_allclose(law.stieltjes(z), [(weights / (nodes - at)).sum() for at in z], rtol=1e-9)
    assert weights @ nodes**6 == pytest.approx(law.moment(6), rel=1e-10)
    # Free cumulants of even order 2 k: Catalan number times variance^k ratio^(2 k - 1), from the Cauchy transform far away.
    far = np.array([4.0, 6.0]) * high
    g = law.cauchy(far)
    inner = 2.0 * (ratio * g) ** 2
    catalan = (1 - np.sqrt(1 - 4 * inner)) / (2 * inner)
    np.testing.assert_allclose(1 / g + (catalan - 1) / (ratio * g), far, rtol=1e-12)
    q = np.linspace(0, 1, 41)
    places = law.quantile(q)
    np.testing.assert_allclose(law.cdf(places)[np.abs(places) > 0], q[np.abs(places) > 0], atol=1e-10)
    assert np.all(np.diff(places) >= 0) and places[20] == 0


def test_at_zero():
    assert WignerProduct(ratio=1.0).pdf(0.0) == np.inf
    for ratio in (0.4, 3.0):
        law = WignerProduct(ratio=ratio)
        assert law.pdf(0.0) == pytest.approx(law.pdf(1e-5), rel=1e-4) and law.pdf(0.0) > 0
    law = WignerProduct(ratio=4.0)
    assert law.atoms == [(0.0, 0.75)] and law.cdf(0.0) == pytest.approx(0.875) and law.cdf(-1e-12) == pytest.approx(0.125)
    assert law.quantile(0.5) == 0 and isinstance(law.cdf(1.0), float) and np.isnan(law.cdf(np.nan))


@pytest.mark.parametrize("arguments, name", [({"ratio": 0.0}, "ratio"), ({"ratio": 1.0, "variance": -1.0}, "variance")])
def test_bad_parameters_are_named(arguments, name):
    with pytest.raises(ValueError, match=rf"The argument {name}, .* must be a positive finite number"):
        WignerProduct(**arguments)
