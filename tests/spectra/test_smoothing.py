"""Smooth views, whatever the method: mass one, no negative values, points of mass apart, and near the truth."""

import functools

import numpy as np
import pytest

import linop_spectra as ls
from linop_spectra.random_matrices import MarchenkoPastur
from linop_spectra.spectra.pchip import MidstepCurve

METHODS = ("gaussian", "pchip", "kpm", "terminator", "maxent")
SPECTRA = {
    "flat": np.linspace(0, 1, 400),
    "wide": 10.0 ** np.linspace(0, 5, 400),
    "both signs": np.r_[-(10.0 ** np.linspace(-2, 3, 200)), 10.0 ** np.linspace(-2, 5, 200)],
    "outliers": np.r_[np.linspace(-1, 1, 390), np.linspace(5, 9, 10)],
    "outlier far out": np.r_[np.linspace(-1, 1, 399), 1e5],
    "zeros": np.r_[np.zeros(300), np.linspace(1, 1e4, 100)],
    "shifted": 1e5 + np.linspace(0, 1, 400),
    "two intervals": np.r_[np.linspace(0, 1, 300), np.linspace(5, 6, 300)],
    "huge": 1e100 * np.arange(1.0, 40),
}


@functools.cache
def measured(name, steps, probes):
    return ls.spectral_density(ls.diagonal_operator(SPECTRA[name]), num_steps=min(steps, len(SPECTRA[name])), num_probes=probes)


def fine_grid(S, count):
    """Dense around each node, and each end of the interval, at many widths."""
    nodes = np.unique(np.r_[S.nodes, S.interval, S.bulk_edges()])
    span = np.ptp(nodes)
    widths = 10.0 ** np.linspace(-14, 0.5, count) * span
    even = np.linspace(nodes[0] - span, nodes[-1] + span, 2001)
    return np.unique(np.r_[(nodes[:, None] + np.r_[-widths[::-1], 0, widths]).ravel(), even])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("steps, probes", [(10, 1), (48, 2)])
@pytest.mark.parametrize("name", SPECTRA)
def test_mass_one_no_negative_values_and_one_distribution(name, steps, probes, method):
    S = measured(name, steps, probes)
    x = fine_grid(S, 150 if method == "pchip" else 70)  # its slope has many kinks
    density, cdf = S.density(x, method=method), S.cdf(x, method=method)
    assert np.all(density >= 0) and np.all(np.isfinite(density))
    assert np.all(np.diff(cdf) >= -1e-9) and cdf[0] == pytest.approx(0, abs=1e-6) and cdf[-1] == pytest.approx(1, abs=1e-9)
    share = 1 - sum(outlier.weight for outlier in S.outliers())
    slack = 0.02 if method == "kpm" else 0.01
    assert integral(lambda t: S.density(t, method=method), x) == pytest.approx(1, abs=slack)
    without = functools.partial(S.density, outliers=False, method=method)
    assert integral(without, x) == pytest.approx(share, abs=slack) and np.all(without(x) <= density * (1 + 1e-12))


def integral(f, x):
    """Two points of Gauss in each cell of a grid."""
    width, middle = np.diff(x) / 2, (x[1:] + x[:-1]) / 2
    return sum((f(middle + side * width / np.sqrt(3)) * width).sum() for side in (-1, 1))


@functools.cache
def marchenko_pastur(steps, seed):
    """n = 200,000, one probe: what more steps would resolve from about 50 on is the probe."""
    n = 200_000
    law = MarchenkoPastur(ratio=0.5)
    operator = ls.diagonal_operator(law.quantile((np.arange(n) + 0.5) / n))
    run = ls.lanczos(operator, steps, reorthogonalize="none", seed=seed)
    return law, ls.SpectralDensity(run, pin=False)


@pytest.mark.parametrize(
    "method, steps, error",
    [
        ("gaussian", 20, 0.040), ("pchip", 20, 0.017), ("kpm", 20, 0.023), ("terminator", 20, 0.018), ("maxent", 20, 0.021),
        ("gaussian", 50, 0.017), ("pchip", 50, 0.017), ("kpm", 50, 0.017), ("terminator", 50, 0.027), ("maxent", 50, 0.022),
    ],
)  # fmt: skip
def test_error_against_the_exact_density(method, steps, error):
    """Of the size that independent implementations of the same methods reach; the usual fixed width is ten times worse at few steps."""
    law, S = marchenko_pastur(steps, 0)
    ((a, b),) = law.support
    x = np.linspace(a - 0.5, b + 0.5, 20_001)
    distance = np.trapezoid(np.abs(S.density(x, method=method) - law.pdf(x)), x)
    assert distance < error
    if steps == 20:
        fixed = np.trapezoid(np.abs(S.density(x, broadening=0.01 * (b - a)) - law.pdf(x)), x)
        assert fixed > 0.5 > 10 * distance


@pytest.mark.parametrize("method", METHODS)
def test_points_of_mass_stay_points(method):
    """Zeros of a matrix of low rank, a simple and a multiple outlier: the mass is where it is, whatever happens to the rest."""
    values = np.r_[np.zeros(600), np.random.default_rng(0).uniform(3, 5, 370), [9.0] * 20, [14.0] * 10]
    S = ls.spectral_density(ls.diagonal_operator(values), num_steps=40, num_probes=4)
    for place in (0.0, 9.0, 14.0):
        width = 0.4
        mass = S.cdf(place + width, method=method) - S.cdf(place - width, method=method)
        share = np.mean(values == place)
        assert mass == pytest.approx(share, abs=6 * np.sqrt(2 * share * (1 - share) / (4 * 1002)))
    middle = S.cdf(2.0, method=method)
    assert S.cdf(1.0, method=method) == pytest.approx(middle, abs=0.02 if method == "gaussian" else 1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_shifting_and_scaling_the_operator_shifts_and_scales_the_view(method):
    values = np.r_[np.random.default_rng(1).normal(size=300), 8.0]
    one = ls.spectral_density(ls.diagonal_operator(values), num_steps=24, num_probes=2)
    other = ls.spectral_density(ls.diagonal_operator(-3 * values + 10), num_steps=24, num_probes=2)
    x = np.linspace(-3, 9, 200)
    np.testing.assert_allclose(3 * other.density(-3 * x + 10, method=method), one.density(x, method=method), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("values", [np.ones(50), np.zeros(50), [-3.0], [1.0, 2.0], np.arange(1.0, 8), 1e-200 * np.arange(1.0, 40)])
def test_every_method_has_an_answer_in_the_smallest_cases(method, values):
    values = np.asarray(values, dtype=float)
    for steps in (1, 2, len(values)):
        S = ls.spectral_density(ls.diagonal_operator(values), num_steps=min(steps, len(values)), num_probes=2)
        x = (np.abs(values).max() or 1.0) * np.linspace(-4, 4, 60)
        density, cdf = S.density(x, method=method), S.cdf(x, method=method)
        assert np.all(np.isfinite(density)) and np.all(density >= 0)
        assert np.all(np.isfinite(cdf)) and np.all(np.diff(cdf) >= -1e-12) and np.all((cdf >= 0) & (cdf <= 1))
        assert isinstance(S.density(0.5, method=method), float) and isinstance(S.cdf(0.5, method=method), float)


def test_options_of_kpm_and_maxent():
    S = measured("flat", 10, 1)
    x = np.linspace(0.1, 0.9, 81)
    coarse, fine = (S.density(x, method="kpm", num_moments=count) for count in (4, 18))
    assert np.abs(coarse - 1).max() > np.abs(fine - 1).max() / 2
    assert not np.allclose(S.density(x, method="kpm", kernel="lorentz"), S.density(x, method="kpm", kernel="jackson"))
    np.testing.assert_array_equal(S.density(x, method="kpm", kernel="jackson"), S.density(x, method="kpm"))
    # Two moments of a flat spectrum: flat, and what differs is the probe's own mean and variance.
    np.testing.assert_allclose(S.density(x, method="maxent", num_moments=2), 1, atol=0.5)
    # Gibbs: without damping a series with a jump in the middle overshoots below zero, and says so in its documentation.
    jump = measured("two intervals", 48, 2)
    assert jump.density(np.linspace(0, 6, 999), method="kpm", kernel="none").min() < 0


@pytest.mark.parametrize(
    "options, message",
    [
        ({"method": "kde"}, "argument method is 'kde', but must be one of 'gaussian', 'pchip'"),
        ({"method": "kpm", "broadening": 0.1}, "argument broadening belongs to method='gaussian', not to 'kpm'"),
        ({"method": "pchip", "num_moments": 4}, "argument num_moments belongs to method='kpm' or 'maxent', not to 'pchip'"),
        ({"num_moments": 4}, "argument num_moments belongs to"),
        ({"method": "maxent", "kernel": "jackson"}, "argument kernel belongs to method='kpm'"),
        ({"method": "kpm", "kernel": "fejer"}, "argument kernel is 'fejer'"),
        ({"method": "kpm", "num_moments": 0}, "argument num_moments must be a whole number of at least 1"),
        ({"method": "kpm", "num_moments": True}, "argument num_moments must be a whole number"),
        ({"method": "kpm", "num_moments": 20}, "argument num_moments is 20, but what is not an isolated eigenvalue has 10 nodes"),
        ({"broadening": True}, "argument broadening must be 'adaptive' or a positive width"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        measured("flat", 10, 1).density(0.5, **options)


def test_bad_options_of_the_distribution_are_named():
    S = measured("flat", 10, 1)
    for options, message in (
        ({"method": "smooth"}, "must be one of 'step', 'gaussian'"),
        ({"num_moments": 4}, "argument num_moments belongs to method='kpm' or 'maxent', not to 'step'"),
        ({"kernel": "jackson"}, "argument kernel belongs to method='kpm', not to 'step'"),
    ):
        with pytest.raises(ValueError, match=message):
            S.cdf(0.5, **options)


def test_moments_that_no_density_has_are_refused_where_they_were_asked_for():
    """Without a wish the method takes fewer moments instead."""
    S = ls.spectral_density(ls.diagonal_operator(np.r_[np.linspace(0, 1e-3, 200), np.linspace(1, 1.001, 200)]), num_steps=12, num_probes=1)
    assert np.all(S.density(np.linspace(-1, 2, 50), method="maxent") >= 0)
    with pytest.raises(ValueError, match="No density that can be computed has these 22 moments"):
        S.density(0.5, method="maxent", num_moments=22)


def test_the_midstep_curve_of_a_rule():
    nodes, weights = np.polynomial.legendre.leggauss(20)
    curve = MidstepCurve(nodes, weights / 2, 1e-12)
    np.testing.assert_allclose(curve.cdf(nodes), np.cumsum(weights / 2) - weights / 4, atol=1e-14)
    x = np.linspace(-0.95, 0.95, 500)
    np.testing.assert_allclose(curve.density(x), 0.5, atol=0.01)
    np.testing.assert_allclose(curve.cdf(x), (1 + x) / 2, atol=1e-3)
    single = MidstepCurve(np.array([2.0]), np.array([1.0]), 0.5)
    assert single.support == (1.5, 2.5) and single.cdf(2.0) == pytest.approx(0.5)
    # Nodes that rounding has split are one.
    split = MidstepCurve(np.array([0.0, 1.0, 1.0 + 1e-15, 2.0]), np.full(4, 0.25), 1e-12)
    assert split.density(np.linspace(-1, 3, 9)).max() < 2 and split.cdf(1.0) == pytest.approx(0.5)
