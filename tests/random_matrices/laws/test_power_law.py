"""The power law against SciPy, and its fit against samples from it and from other laws."""

import numpy as np
import pytest
from scipy import stats

import linop_spectra as ls
from linop_spectra.random_matrices.comparison.power_law_fit import fit_power_law
from linop_spectra.random_matrices.laws.power_law import PowerLaw


@pytest.mark.parametrize("exponent, lower", [(1.5, 1.0), (2.5, 0.3), (4.2, 20.0)])
def test_without_end_against_scipy(exponent, lower):
    law, other = PowerLaw(exponent=exponent, lower=lower), stats.pareto(exponent - 1, scale=lower)
    x = lower * np.array([0.5, 1.0, 1.001, 2.0, 10.0, 1e6])
    np.testing.assert_allclose(law.pdf(x[1:]), other.pdf(x[1:]), rtol=1e-12)
    np.testing.assert_allclose(law.cdf(x), other.cdf(x), rtol=1e-12)
    np.testing.assert_allclose(law.quantile([0.0, 0.1, 0.9, 1.0]), other.ppf([0.0, 0.1, 0.9, 1.0]), rtol=1e-12)
    assert law.pdf(0.5 * lower) == 0 and law.support == [(lower, np.inf)]
    for k in (1, 2, 3):
        assert law.moment(k) == (pytest.approx(other.moment(k)) if k < exponent - 1 else np.inf)
    assert law.var() == pytest.approx(other.var()) if exponent > 3 else law.var() == np.inf


@pytest.mark.parametrize("exponent", [1.2, 2.0, 3.0, 3.7])
def test_with_end_against_quadrature(exponent):
    from scipy import integrate

    law = PowerLaw(exponent=exponent, lower=0.5, upper=30.0)
    for k in range(4):
        assert law.moment(k) == pytest.approx(integrate.quad(lambda x, k=k: x**k * law.pdf(x), 0.5, 30)[0], rel=1e-8)
    for x in (0.6, 2.0, 29.0):
        assert law.cdf(x) == pytest.approx(integrate.quad(law.pdf, 0.5, x)[0], rel=1e-8)
        assert law.quantile(law.cdf(x)) == pytest.approx(x)
    assert law.cdf(30.0) == 1 and law.quantile(1.0) == 30 and law.pdf(31.0) == 0 and np.isnan(law.pdf(np.nan))


@pytest.mark.parametrize("s", [0.5, 1.0, 2.0])
def test_rank_law(s):
    """Eigenvalues i^-s have the density exponent 1 + 1 / s."""
    n = 5000
    eigenvalues = np.arange(1, n + 1, dtype=float) ** -s
    law = PowerLaw(exponent=1 + 1 / s, lower=n**-s)
    assert law.rank_exponent == pytest.approx(s)
    assert np.abs(law.cdf(eigenvalues[::-1]) - np.arange(n) / n).max() < 1 / n
    fit = fit_power_law(eigenvalues, num_samples=20)
    assert fit.exponent == pytest.approx(1 + 1 / s, rel=0.01) and fit.rank_exponent == pytest.approx(s, rel=0.02)
    assert fit.p_value == 1 and fit.kolmogorov < 2 / fit.num_tail + 1e-3


@pytest.mark.parametrize("exponent", [1.5, 2.5, 4.0])
def test_fit_of_a_sample_with_a_known_end(exponent):
    sample = PowerLaw(exponent=exponent, lower=2.0).quantile(np.random.default_rng(0).random(4000))
    fit = fit_power_law(np.concatenate([sample, np.linspace(-1, 1.9, 300)]), lower=2.0, num_samples=100)
    assert fit.num_tail == 4000 and fit.lower == 2.0
    assert fit.exponent == pytest.approx(1 + 4000 / np.log(sample / 2.0).sum())
    assert abs(fit.exponent - exponent) < 4 * fit.standard_error == pytest.approx(4 * (fit.exponent - 1) / np.sqrt(4000))
    assert fit.kolmogorov == pytest.approx(stats.kstest(sample, fit.law.cdf).statistic)
    assert fit.p_value > 0.01
    assert fit.likelihood_ratio("exponential").statistic > 3 and fit.likelihood_ratio("exponential").p_value < 1e-3
    assert fit.likelihood_ratio("lognormal").log_ratio < 1  # it has the power law as a limit


def test_fit_finds_where_the_tail_begins():
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.uniform(0, 1, 1000), PowerLaw(exponent=2.5, lower=1.0).quantile(rng.random(1000))])
    fit = fit_power_law(x, num_samples=50)
    assert 0.8 < fit.lower < 2 and abs(fit.exponent - 2.5) < 4 * fit.standard_error and fit.p_value > 0.1
    again = fit_power_law(x, num_samples=50)
    assert again == fit
    scaled = fit_power_law(1e-9 * x, num_samples=0)
    assert scaled.exponent == pytest.approx(fit.exponent) and scaled.lower == pytest.approx(1e-9 * fit.lower) and scaled.p_value is None


@pytest.mark.parametrize("kind", ["exponential", "lognormal"])
def test_other_laws_are_ruled_out(kind):
    x = getattr(np.random.default_rng(2), kind)(size=2000)
    fit = fit_power_law(x, lower=0.5, num_samples=50)
    assert fit.p_value < 0.05
    ratio = fit.likelihood_ratio(kind)
    assert ratio.alternative == kind and ratio.statistic < -3 and ratio.p_value < 1e-3


def test_lognormal_likelihood_is_that_of_scipy():
    x = np.random.default_rng(3).lognormal(1.0, 0.5, size=3000)
    lower = 2.0
    fit = fit_power_law(x, lower=lower, num_samples=0)
    own = np.sum(np.log(fit.law.pdf(fit.tail)))
    other = stats.lognorm(0.5, scale=np.e)
    truth = np.sum(other.logpdf(fit.tail) - other.logsf(lower))
    best = own - fit.likelihood_ratio("lognormal").log_ratio
    assert truth <= best + 1e-6 and best - truth < 6  # the best parameters are no worse than the true ones, and little better


def test_size_of_the_bootstrap_test():
    """Of 60 samples of power laws, about a tenth have a p-value below 0.1: at most five standard errors more."""
    rng = np.random.default_rng(5)
    law = PowerLaw(exponent=2.2, lower=1.0)
    p = np.array([fit_power_law(law.quantile(rng.random(150)), lower=1.0, num_samples=60).p_value for _ in range(60)])
    assert np.mean(p < 0.1) < 0.1 + 5 * np.sqrt(0.09 / 60) and 0.3 < np.mean(p) < 0.7


@pytest.mark.parametrize(
    "arguments, name",
    [
        ({"exponent": 1.0, "lower": 1.0}, "exponent"),
        ({"exponent": -2.0, "lower": 1.0}, "exponent"),
        ({"exponent": 2.0, "lower": 0.0}, "lower"),
        ({"exponent": 2.0, "lower": 1.0, "upper": 0.5}, "upper"),
        ({"exponent": 2.0, "lower": 1.0, "upper": np.nan}, "upper"),
    ],
)
def test_bad_parameters_are_named(arguments, name):
    with pytest.raises(ValueError, match=rf"The argument {name}"):
        PowerLaw(**arguments)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: fit_power_law(np.arange(1.0, 6.0)), "has 5 values above zero, but a power law needs at least 10"),
        (lambda: fit_power_law(-np.arange(1.0, 60.0)), "has 0 values above zero"),
        (lambda: fit_power_law(np.arange(1.0, 60.0), lower=55.0), "has 5 values at or above lower = 55"),
        (lambda: fit_power_law(np.ones(50)), "tail of equal values"),
        (lambda: fit_power_law(np.r_[np.ones(50), np.nan]), "finite real numbers"),
        (lambda: fit_power_law(np.ones((5, 10))), "one-dimensional"),
        (lambda: fit_power_law(np.ones(50) * 1j), "finite real numbers"),
        (lambda: fit_power_law(np.arange(1.0, 60.0), lower=-1.0), "The argument lower"),
        (lambda: fit_power_law(np.arange(1.0, 60.0), num_samples=-1), "The argument num_samples"),
        (lambda: fit_power_law(np.arange(1.0, 60.0), num_samples=0).likelihood_ratio("normal"), "The argument alternative"),
    ],
)
def test_bad_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_measured_density_is_no_sample():
    density = ls.spectral_density(ls.diagonal_operator(np.arange(1, 201) ** -1.0), num_steps=20, num_probes=1)
    with pytest.raises(ValueError, match="nodes are those of a quadrature and no sample of eigenvalues"):
        fit_power_law(density)
