"""Closed forms of the arcsine law, against SciPy and a spectrum."""

import numpy as np
import pytest
from scipy import stats

from linop_spectra.random_matrices.laws.arcsine import Arcsine


@pytest.mark.parametrize("variance", [2.0, 0.3])
def test_against_scipy(variance):
    law, b = Arcsine(variance=variance), np.sqrt(2 * variance)
    other = stats.arcsine(loc=-b, scale=2 * b)
    x = np.linspace(-0.99, 0.99, 31) * b
    np.testing.assert_allclose(law.pdf(x), other.pdf(x), rtol=1e-12)
    np.testing.assert_allclose(law.cdf(x), other.cdf(x), atol=1e-14)
    q = np.linspace(0, 1, 21)
    np.testing.assert_allclose(law.quantile(q), other.ppf(q), atol=1e-12)
    assert [law.moment(k) for k in range(5)] == pytest.approx([other.moment(k) if k else 1.0 for k in range(5)], abs=1e-12)
    assert law.cdf(-2 * b) == 0 and law.cdf(2 * b) == 1 and law.pdf(2 * b) == 0 and law.pdf(b) == np.inf
    nodes, weights = law.gauss_rule(8)
    np.testing.assert_allclose(weights, 1 / 8, atol=1e-12)
    assert weights @ nodes**14 == pytest.approx(law.moment(14))
    np.testing.assert_allclose(law.stieltjes(x).imag / np.pi, law.pdf(x), rtol=1e-12)
    nodes, weights = law.gauss_rule(60)
    for z in (1 + 1j, -2 * b, 0.5 - 1j):
        assert law.stieltjes(z) == pytest.approx((weights / (nodes - z)).sum(), rel=1e-9)


def test_path_graph():
    n = 2000
    eigenvalues = np.sort(2 * np.cos(np.pi * np.arange(1, n + 1) / (n + 1)))
    assert np.abs(Arcsine(variance=2.0).cdf(eigenvalues) - (np.arange(n) + 0.5) / n).max() < 1 / n


def test_bad_variance():
    with pytest.raises(ValueError, match="The argument variance, that of the law, must be a positive finite number"):
        Arcsine(variance=0.0)
