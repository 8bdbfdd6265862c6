"""Checks shared by the tests of laws."""

import numpy as np


def rigidity(law, eigenvalues):
    """Wasserstein-1 distance of the eigenvalues of one sample from the quantiles of a law, in units of sd / n."""
    n = len(eigenvalues)
    places = law.quantile((np.arange(n) + 0.5) / n)
    return np.abs(np.sort(eigenvalues) - places).mean() * n / np.sqrt(law.var())


def check_consistency(law):
    """Density, distribution function, quantiles, moments, transform and Gauss rule of a law agree with each other."""
    masses = []
    share, weight = np.polynomial.legendre.leggauss(24)
    share, weight = ((np.arange(100)[:, None] + (share + 1) / 2) / 100).ravel(), np.tile(weight / 200, 100)
    for a, b in law.support:
        for angle in (0.4, 1.7, np.pi):
            # The fourth power makes a density that grows like x^(-2/3) at the lower end smooth.
            t = angle * share**4
            x = a + (b - a) * np.sin(t / 2) ** 2
            inner = (a < x) & (x < b)
            density = np.zeros(len(x))
            density[inner] = law.pdf(x[inner])
            mass = (weight * density * (b - a) * np.sin(t) / 2 * 4 * angle * share**3).sum()
            x = a + (b - a) * np.sin(angle / 2) ** 2
            inside = sum(m for place, m in law.atoms if a < place <= x)
            below = sum(m for place, m in law.atoms if place == a)
            np.testing.assert_allclose(law.cdf(x) - law.cdf(np.nextafter(a, -np.inf)) - inside, mass + below, atol=1e-8)
        masses.append(mass)
    np.testing.assert_allclose(sum(masses) + sum(mass for _, mass in law.atoms), 1, atol=3e-8)
    low = min([a for a, _ in law.support] + [place for place, _ in law.atoms])
    high = max([b for _, b in law.support] + [place for place, _ in law.atoms])
    assert law.cdf(np.nextafter(low, -np.inf) - 1e-9) == 0 and law.cdf(high) == 1
    q = np.linspace(0, 1, 101)
    places = law.quantile(q)
    assert np.all(np.diff(places) >= 0) and places[0] == low and places[-1] == high
    assert np.all(law.cdf(places) >= q - 1e-12)
    continuous = np.array([all(place != other for other, _ in law.atoms) for place in places])
    np.testing.assert_allclose(law.cdf(places)[continuous], q[continuous], atol=1e-10)
    moments = law.moments(7)
    assert moments[0] == 1 and moments[1] == law.moment(1)
    nodes, weights = law.gauss_rule(4)
    size = max(abs(low), abs(high))
    scaled = size ** np.arange(7.0)
    np.testing.assert_allclose(np.array([weights @ nodes**k for k in range(7)]) / scaled, moments / scaled, atol=1e-10)
    np.testing.assert_allclose([law.mean(), law.var()], [moments[1], moments[2] - moments[1] ** 2], rtol=1e-8, atol=1e-12 * size)
    z = np.array([low - 1 - 0j, high + 2j, (low + high) / 2 + 0.5j * (high - low), 1000j * size])
    nodes, weights = law.gauss_rule(40) if law.support else np.array(law.atoms).T
    np.testing.assert_allclose(law.stieltjes(z), [(weights / (nodes - point)).sum() for point in z], rtol=1e-8)
    np.testing.assert_allclose(law.cauchy(z), -law.stieltjes(z))
    np.testing.assert_allclose(law.stieltjes(z.conj()), np.conj(law.stieltjes(z)), rtol=1e-12)
    assert isinstance(law.pdf(low), float) and isinstance(law.cdf(1), float) and isinstance(law.quantile(0.5), float)
    assert law.pdf(np.full((2, 3), high + 1)).shape == law.cdf(np.ones((2, 3))).shape == (2, 3)
    assert np.isnan(law.pdf(np.nan)) and np.isnan(law.cdf(np.nan)) and law.pdf(high + 1) == 0
