"""Fits against the parameters of the matrices, with and without spikes, and against what moments would give."""

import numpy as np
import pytest
from helpers import CHANCE
from scipy import stats

import linop_spectra as ls
from linop_spectra.random_matrices import MarchenkoPastur, Semicircle
from linop_spectra.random_matrices.comparison.families import MarchenkoPasturFamily, SemicircleFamily
from linop_spectra.random_matrices.comparison.fit import Fit, fit

rm = ls.random_matrices
Z = stats.norm.isf(CHANCE / 2)


def within(estimate, truth, slack=0.0):
    return abs(estimate.value - truth) <= Z * estimate.standard_error + slack


def spiked_wigner(n, spikes, seed):
    directions = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, len(spikes))))[0]
    return rm.wigner(n, seed=seed) + ls.low_rank(directions, np.array(spikes))


def population(p, spikes):
    return np.concatenate([spikes, np.ones(p - len(spikes))])


def test_estimates_have_no_bias_of_order_k_over_n():
    """Exact laws of the coefficients of finite matrices (Dumitriu and Edelman), n = 100 and 20 steps."""
    rng, n, k, count = np.random.default_rng(0), 100, 20, 20_000
    alphas = rng.normal(size=(count, k)) * np.sqrt(2 / n)
    betas = np.sqrt(rng.chisquare(n - 1 - np.arange(k - 1), size=(count, k - 1)) / n)
    variance = SemicircleFamily().estimate(alphas, betas, n, 6)[:, 0]
    assert abs(variance.mean() - 1) < 4 * variance.std() / np.sqrt(count)
    for samples, many in ((400, False), (1000, False)):
        x = rng.chisquare(samples - np.arange(k), size=(count, k)) / samples
        y = rng.chisquare(n - 1 - np.arange(k - 1), size=(count, k - 1)) / samples
        alphas = x + np.concatenate([np.zeros((count, 1)), y], axis=1)
        betas = np.sqrt(x[:, :-1] * y)
        # The mean of the coefficients, as of many probes, leaves the bias alone.
        ratio, variance = MarchenkoPasturFamily(many).estimate(alphas.mean(axis=0)[None], betas.mean(axis=0)[None], n, 6)[0]
        assert ratio == pytest.approx(n / samples, rel=0.015) and variance == pytest.approx(1, rel=0.005)


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.8, 1.0, 4.0])
def test_limit_coefficients_give_the_parameters_back(ratio):
    pairs = ((MarchenkoPastur(ratio=ratio, variance=2.0), MarchenkoPasturFamily(ratio > 1)), (Semicircle(2.0), SemicircleFamily()))
    for law, family in pairs:
        alphas, betas = law.jacobi_coefficients(12)
        values = family.estimate(alphas[None], betas[None, :-1], 10**12, 4)
        assert [getattr(law, name) for name in family.parameters] == pytest.approx(list(values[0]), rel=1e-5)
        back = family.coefficients(values, 12)
        np.testing.assert_allclose(back[0][0], alphas, rtol=1e-5, atol=1e-12)
        np.testing.assert_allclose(back[1][0], betas[:-1], rtol=1e-5)
        assert family.law(values[0]).support[0] == pytest.approx(law.support[0], rel=1e-4, abs=1e-9)


def test_semicircle_with_five_spikes():
    spikes = [2.0, 3.0, 4.0, 5.0, 6.0]
    density = ls.spectral_density(spiked_wigner(2000, spikes, 0), num_steps=60, num_probes=4)
    found = fit(density, "semicircle")
    sigma = np.sqrt(found.parameters["variance"].value)
    assert within(found.parameters["variance"], 1.0) and 0 < found.parameters["variance"].standard_error < 0.03
    assert abs(sigma - 1) < 0.03  # moments say 1.02: sqrt(1 + 90 / 2000); the first beta of one probe is anything
    assert len(found.spikes) == 5 and not found.multi_cut and abs(found.drift) < 4 and abs(found.centre) < 0.03
    for spike, truth in zip(found.spikes, spikes, strict=True):
        assert within(spike.strength, truth, slack=0.01) and spike.overlap == pytest.approx(1 - 1 / truth**2, abs=0.05)
        assert spike.location == pytest.approx(truth + 1 / truth, abs=Z * spike.strength.standard_error)
    assert "Outside of the bulk: 2.4" in str(found) or "Outside of the bulk: 2.5" in str(found)


@pytest.mark.parametrize("p, n, first", [(1000, 4000, 3.0), (1200, 300, 12.0)], ids=["c=0.25", "c=4"])
def test_marchenko_pastur_with_five_spikes(p, n, first):
    spikes = first + 3.0 * np.arange(5)
    density = ls.spectral_density(rm.wishart(p, n, population=population(p, spikes), seed=2), num_steps=60, num_probes=4)
    found = fit(density, "marchenko_pastur")
    ratio, variance = found.parameters["ratio"], found.parameters["variance"]
    assert within(ratio, p / n, slack=0.01 * p / n) and within(variance, 1.0, slack=0.01)
    assert ratio.standard_error < 0.15 * p / n
    # Moments are destroyed by the spikes.
    mean = density.moment(1)
    assert abs(density.moment(2) / mean**2 - 1 - p / n) > 5 * ratio.standard_error
    assert len(found.spikes) == 5
    for spike, truth in zip(found.spikes, spikes, strict=True):
        # The shift by the other spikes and by the errors of c and of the variance is of order 1/n.
        assert within(spike.strength, truth, slack=0.05 * truth)
    assert dict(found.law.atoms).get(0.0, 0.0) == pytest.approx(max(0.0, 1 - n / p), abs=0.05)


def test_a_spike_below_the_bulk():
    spikes = np.array([0.1])
    density = ls.spectral_density(rm.wishart(800, 3200, population=population(800, spikes), seed=3), num_steps=60, num_probes=4)
    (spike,) = fit(density, MarchenkoPastur).spikes
    assert spike.location < 0.2 and within(spike.strength, 0.1, slack=0.005)


def test_standard_errors_are_those_of_repeated_matrices():
    z = []
    for seed in range(60):
        density = ls.spectral_density(rm.wigner(200, seed=seed), num_steps=20, num_probes=2, seed=seed)
        estimate = fit(density, "semicircle", num_bootstrap=60, seed=seed).parameters["variance"]
        z.append((estimate.value - 1) / estimate.standard_error)
    z = np.array(z)
    assert abs(z.mean()) < 4 / np.sqrt(60)
    assert 0.55 < z.std() < np.sqrt(stats.chi2.isf(CHANCE, 59) / 59)


def test_a_bulk_of_two_intervals_is_said():
    eigenvalues = np.concatenate([Semicircle(variance=0.1).quantile((np.arange(600) + 0.5) / 600) + shift for shift in (-2.0, 2.0)])
    density = ls.spectral_density(ls.diagonal_operator(eigenvalues), num_steps=60, num_probes=4)
    found = fit(density, "semicircle")
    assert found.multi_cut and found.oscillation_period == pytest.approx(2, abs=0.25) and "several intervals" in str(found)


def test_a_bulk_with_long_tails_drifts():
    eigenvalues = stats.laplace.ppf((np.arange(3000) + 0.5) / 3000)
    density = ls.spectral_density(ls.diagonal_operator(eigenvalues), num_steps=60, num_probes=4)
    found = fit(density, "semicircle")
    assert abs(found.drift) > 4 and "coefficients drift" in str(found)


def test_operators_classes_save_and_load(tmp_path):
    operator = rm.wishart(300, 600, seed=0)
    found = fit(operator, MarchenkoPastur, num_bootstrap=30)
    assert found.num_matvecs > 0 and isinstance(found.law, MarchenkoPastur) and "ratio" in found._repr_html_()
    found.save(tmp_path / "fit.npz")
    again = ls.load(tmp_path / "fit.npz")
    assert isinstance(again, Fit) and again == found
    assert fit(ls.spectral_density(operator), "marchenko_pastur", num_bootstrap=30).parameters == found.parameters


def test_scale_of_the_matrix():
    one = fit(spiked_wigner(500, [3.0], 5), "semicircle", num_bootstrap=30)
    other = fit(1e-9 * spiked_wigner(500, [3.0], 5), "semicircle", num_bootstrap=30)
    assert other.parameters["variance"].value == pytest.approx(1e-18 * one.parameters["variance"].value, rel=1e-6)
    assert other.spikes[0].strength.value == pytest.approx(1e-9 * one.spikes[0].strength.value, rel=1e-6)


def test_bad_input_is_named():
    density = ls.spectral_density(rm.wigner(200, seed=0), num_steps=20)
    with pytest.raises(ValueError, match=r"argument family is 'gauss', but only 'semicircle'"):
        fit(density, "gauss")
    with pytest.raises(TypeError, match=r"argument density is a ndarray, which has no Lanczos coefficients"):
        fit(np.ones(10), "semicircle")
    with pytest.raises(ValueError, match="argument num_bootstrap"):
        fit(density, "semicircle", num_bootstrap=3)
    with pytest.raises(ValueError, match="a fit needs at least 8"):
        fit(ls.spectral_density(rm.wigner(200, seed=0), num_steps=5), "semicircle")
    with pytest.raises(ValueError, match=r"1 Lanczos steps before a breakdown|0 Lanczos steps before a breakdown"):
        fit(ls.spectral_density(ls.identity(200), num_steps=20), "marchenko_pastur")


def test_a_bulk_beside_the_law_is_said():
    density = ls.spectral_density(ls.shift(rm.wigner(300, seed=0), -1.0), num_steps=20)
    found = fit(density, "semicircle", num_bootstrap=30)
    assert abs(abs(found.centre) - 1) < 0.1 and "The bulk lies" in str(found) and "that of the law" in str(found)
    assert found.parameters["variance"].value == pytest.approx(1, abs=0.15)
