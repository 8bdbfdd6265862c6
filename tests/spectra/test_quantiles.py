"""Quantiles: against those of the matrix, on laws, and with their band."""

import numpy as np
import pytest
from helpers import least_hits

import linop_spectra as ls
from linop_spectra.random_matrices import MarchenkoPastur

Q = np.linspace(0.02, 0.98, 49)


@pytest.mark.parametrize("steps", [8, 20])
def test_the_interpolated_quantile_is_closer_on_a_smooth_bulk(steps):
    law = MarchenkoPastur(ratio=0.4)
    eigenvalues = law.quantile((np.arange(50_000) + 0.5) / 50_000)
    S = ls.spectral_density(ls.diagonal_operator(eigenvalues), num_steps=steps, num_probes=2)
    true = law.quantile(Q)
    step, smooth = np.abs(S.quantile(Q) - true).mean(), np.abs(S.quantile(Q, interpolate=True) - true).mean()
    assert smooth < step / 4
    np.testing.assert_allclose(S.cdf(S.quantile(Q, interpolate=True), method="pchip"), Q, atol=1e-3)


def test_points_of_mass_stay_steps():
    values = np.r_[np.zeros(500), np.linspace(1, 2, 490), np.arange(10.0, 20.0)]
    S = ls.spectral_density(ls.diagonal_operator(values), num_steps=40, num_probes=4)
    quantiles = S.quantile([0.05, 0.2, 0.4, 0.75, 0.9905, 0.9945, 0.9995], interpolate=True)
    np.testing.assert_allclose(quantiles, [0, 0, 0, 1.5, 10, 14, 19], atol=0.08)
    np.testing.assert_allclose(quantiles[[0, 1, 2, 4, 5, 6]], [0, 0, 0, 10, 14, 19], atol=1e-6)
    everything = S.quantile(np.linspace(0, 1, 1001), interpolate=True)
    assert np.all(np.diff(everything) >= 0) and everything[-1] == pytest.approx(19)


@pytest.mark.parametrize("values", [np.ones(40), [2.0], [1.0, 2.0], np.zeros(9), np.arange(30.0)])
def test_small_cases(values):
    S = ls.spectral_density(ls.diagonal_operator(np.asarray(values, dtype=float)), num_probes=2)
    for interpolate in (False, True):
        quantiles = S.quantile(Q, interpolate=interpolate)
        assert np.all(np.diff(quantiles) >= 0) and np.all(np.isfinite(quantiles))
        assert isinstance(S.quantile(0.5, interpolate=interpolate), float)
    low, high = S.quantile_band(Q)
    assert np.all(low <= high) and np.all(low <= S.quantile(Q)) and np.all(S.quantile(Q) <= high)


@pytest.mark.parametrize("name", ["flat", "zeros", "outliers"])
def test_the_band_covers(name):
    n, seeds = 200, 150
    eigenvalues = np.sort(
        {
            "flat": np.random.default_rng(0).uniform(-1, 1, n),
            "zeros": np.r_[np.zeros(120), np.random.default_rng(0).uniform(1, 2, 80)],
            "outliers": np.r_[np.random.default_rng(0).normal(size=190), np.arange(8.0, 18.0)],
        }[name]
    )
    # Not on a step of the true distribution: there two quantiles are right.
    q = np.array([0.0975, 0.3025, 0.5025, 0.6975, 0.9025, 0.9775])
    true = np.quantile(eigenvalues, q, method="inverted_cdf")
    operator, hits, widths = ls.diagonal_operator(eigenvalues), np.zeros(len(q)), []
    for seed in range(seeds):
        S = ls.spectral_density(operator, num_steps=20, num_probes=2, seed=seed)
        low, high = S.quantile_band(q)
        hits += (low <= true) & (true <= high)
        widths.append(high - low)
    assert hits.min() >= least_hits(seeds, 0.95), hits
    assert np.median(widths, axis=0).max() < 0.8 * np.ptp(eigenvalues)  # a band, and not everything


def test_more_confidence_and_fewer_steps_widen_the_band():
    operator = ls.diagonal_operator(np.random.default_rng(0).uniform(-1, 1, 3000))
    S, short = (ls.spectral_density(operator, num_steps=k, num_probes=2) for k in (40, 8))
    narrow, wide = S.quantile_band(Q, 0.5), S.quantile_band(Q, 0.999)
    assert np.all(wide[0] <= narrow[0]) and np.all(narrow[1] <= wide[1])
    assert np.mean(short.quantile_band(Q)[1] - short.quantile_band(Q)[0]) > 2 * np.mean(narrow[1] - narrow[0])
    at_ends = S.quantile_band([0.0, 1.0])
    assert at_ends[0][0] <= S.nodes[0] and at_ends[1][1] >= S.nodes[-1]


def test_bad_arguments_are_named():
    S = ls.spectral_density(ls.diagonal_operator(np.arange(30.0)), num_steps=5)
    for call, name in (
        (lambda: S.quantile(1.5, interpolate=True), "q"),
        (lambda: S.quantile(np.nan, interpolate=True), "q"),
        (lambda: S.quantile_band(-0.1), "q"),
        (lambda: S.quantile_band(0.5, confidence=95), "confidence"),
    ):
        with pytest.raises(ValueError, match=f"argument {name} "):
            call()
