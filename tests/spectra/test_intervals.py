"""Coverage: an interval at 95 % holds in 95 % of cases, and a bound always, on spectra that are meant to break them."""

import dataclasses
import functools

import numpy as np
import pytest
from helpers import least_hits
from scipy import stats

import linop_spectra as ls

N, SEEDS = 200, 200


@functools.cache
def spectra():
    rng = np.random.default_rng(0)
    return {
        "flat": 1 + 1e-3 * rng.standard_normal(N),
        "linear": np.linspace(1, 3, N),
        "outliers": np.r_[np.linspace(0.01, 1, N - 10), np.linspace(5, 20, 10)],
        "power law": 1 / np.arange(1.0, N + 1),
        "degenerate": np.r_[np.linspace(0.01, 1, N - 11), [5.0] * 2, [9.0] * 9],
        "low rank": np.r_[np.zeros(N - 20), np.linspace(1, 10, 20)],
        "two signs": rng.standard_normal(N),
        "nearly degenerate": np.r_[np.linspace(0.01, 1, N - 6), 5, 5 + 1e-9, 7, 7 + 1e-5, 9, 9.01],
    }


FUNCTIONS = {"trace": None, "modulus": np.abs, "exponential": lambda x: np.exp(-x), "logarithm": lambda x: np.log(np.abs(x) + 0.1)}
POSITIVE = ("flat", "linear", "outliers", "degenerate", "nearly degenerate")
"""Far enough above zero that the modulus of every node is the node."""


def functions(name):
    return {function: f for function, f in FUNCTIONS.items() if function != "modulus" or name not in POSITIVE}


def densities(name, steps, probes, dtype=np.float64, seeds=SEEDS):
    operator = ls.diagonal_operator(spectra()[name].astype(dtype))
    return [ls.spectral_density(operator, num_steps=steps, num_probes=probes, seed=seed) for seed in range(seeds)]


def coverage(name, runs, f, level=0.95):
    eigenvalues = spectra()[name].astype(runs[0].run.dtype).astype(float)
    values = eigenvalues if f is None else f(eigenvalues)
    # An exact rule has no interval but rounding: of the coefficients, times the order.
    rounding = 100 * np.finfo(runs[0].run.dtype).eps * np.sum(np.abs(values)) + 1e-8 * (f is not None)
    hits = 0
    for S in runs:
        low, high = S.trace(f).confidence_interval(level)
        hits += low - rounding <= values.sum() <= high + rounding
    return hits


@pytest.mark.slow
@pytest.mark.parametrize("steps, probes", [(8, 2), (24, 3)])
@pytest.mark.parametrize("name", spectra())
def test_traces_are_covered(name, steps, probes):
    runs = densities(name, steps, probes)
    hits = {function: coverage(name, runs, f) for function, f in functions(name).items()}
    assert min(hits.values()) >= least_hits(SEEDS, 0.95), hits


@pytest.mark.slow
@pytest.mark.parametrize("steps", [6, 20])
def test_one_probe_says_that_it_takes_eigenvalues_as_simple(steps):
    """The guard of a single probe lets small multiplicities pass. The interval then rests on an assumption, which is named;
    without pinning, and with a second probe, it rests on none and is covered."""
    for S in densities("degenerate", steps, 1)[:20]:
        assert ("taken as simple" in S.trace().method) == (len(S.deflation.pinned) > 0)
        assert ("no second probe has tested" in S.explain()) == (len(S.deflation.pinned) > 0)
    unpinned = [dataclasses.replace(S, pin=False) for S in densities("degenerate", steps, 1)]
    for runs in (unpinned, densities("degenerate", steps, 2)):
        assert coverage("degenerate", runs, None) >= least_hits(SEEDS, 0.95)
        assert not any("taken as simple" in S.trace().method for S in runs[:20])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["outliers", "low rank", "degenerate"])
def test_single_precision_is_covered(name):
    runs = densities(name, 30, 2, np.float32, 100)
    hits = {function: coverage(name, runs, f) for function, f in functions(name).items()}
    assert min(hits.values()) >= least_hits(100, 0.95), hits


@pytest.mark.parametrize("steps, probes", [(6, 8), (12, 16)])
def test_a_logarithm_that_few_steps_cannot_see(steps, probes):
    """Six decades of eigenvalues: many probes leave no statistical error, so all depends on the quadrature error being honest."""
    eigenvalues = 10.0 ** np.random.default_rng(0).uniform(-6, 0, N)
    truth, hits = np.log(eigenvalues + 1e-8).sum(), 0
    for seed in range(40):
        S = ls.spectral_density(ls.diagonal_operator(eigenvalues), num_steps=steps, num_probes=probes, seed=seed)
        low, high = S.trace(lambda x: np.log(x + 1e-8)).confidence_interval(0.95)
        hits += low <= truth <= high
    assert hits >= least_hits(40, 0.95)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.99])
def test_other_levels(level):
    """Neither too narrow nor, where quadrature is exact, too wide."""
    runs = densities("linear", 12, 2)
    hits = coverage("linear", runs, None, level)
    assert least_hits(SEEDS, level) <= hits <= stats.binom.isf(1e-4, SEEDS, level)


# -- runs that several tests look at -------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["flat", "linear", "outliers", "power law", "two signs", "low rank"])
def one_probe(request):
    return request.param, densities(request.param, 20, 1)


@pytest.fixture(scope="module", params=spectra())
def two_probes(request):
    return request.param, densities(request.param, 15, 2)


@pytest.mark.slow
def test_traces_from_one_probe_are_covered(one_probe):
    name, runs = one_probe
    hits = {function: coverage(name, runs, f) for function, f in functions(name).items()}
    assert min(hits.values()) >= least_hits(SEEDS, 0.95), hits


def bands_cover(name, runs):
    """Point by point, at 95 %, against the exact spectrum; also between the nodes and far outside."""
    eigenvalues = np.sort(spectra()[name])
    span = np.ptp(eigenvalues)
    x = np.concatenate(
        [
            np.quantile(eigenvalues, [0.02, 0.25, 0.5, 0.75, 0.9]) + 1e-4 * span,
            [eigenvalues[0] - span, eigenvalues[-1] + span, eigenvalues[-1] - 0.3 * span],
        ]
    )
    true = np.searchsorted(eigenvalues, x, side="right") / N
    hits = np.zeros(len(x))
    for S in runs:
        low, high = S.cdf_band(x)
        assert np.all((low >= 0) & (high <= 1) & (low <= high + 1e-15))
        hits += (low <= true + 1e-12) & (true <= high + 1e-12)
    assert hits.min() >= least_hits(SEEDS, 0.95), hits


@pytest.mark.slow
def test_distribution_bands_of_one_probe_cover(one_probe):
    bands_cover(*one_probe)


@pytest.mark.slow
def test_distribution_bands_of_two_probes_cover(two_probes):
    bands_cover(*two_probes)


@pytest.mark.slow
def test_distance_bounds_hold(two_probes):
    """Each is allowed to fail in 5 % of runs, by its sampling part."""
    name, runs = two_probes
    eigenvalues = np.sort(spectra()[name])
    hits_kolmogorov = hits_wasserstein = 0
    ratios = []
    for S in runs:
        scale = 1e-10 * np.abs(eigenvalues).max()
        # Away from the jumps by more than rounding.
        x = np.concatenate([eigenvalues + scale, eigenvalues - scale, S.nodes + 2 * scale, S.nodes - 2 * scale])
        near = np.abs(x[:, None] - S.nodes).min(axis=1) < 0.5 * scale
        true = np.searchsorted(eigenvalues, x, side="right") / N
        hits_kolmogorov += np.abs(S.cdf(x) - true)[~near].max() <= S.kolmogorov_bound + 1e-9
        distance = stats.wasserstein_distance(eigenvalues, S.nodes, None, S.weights)
        hits_wasserstein += distance <= S.wasserstein_bound + scale
        ratios.append(S.wasserstein_bound / max(distance, scale))
    assert hits_kolmogorov >= least_hits(SEEDS, 0.95) and hits_wasserstein >= least_hits(SEEDS, 0.95)
    if name in ("linear", "power law", "two signs", "outliers"):
        assert np.median(ratios) < 20  # a bound, and not a platitude
