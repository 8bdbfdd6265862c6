"""Rules, brackets and bounds against measures that are known: none may ever be violated."""

import numpy as np
import pytest
from helpers import haar
from scipy import stats

import linop_spectra as ls
from linop_spectra.spectra import bounds
from linop_spectra.spectra.quadrature import christoffel_mass, gauss_rule, mass_bracket, radau_coefficients

ROUNDING = 1e-9


def random_measure(rng):
    """Places and masses of many kinds: clusters, atoms exactly at zero, wide ranges, tiny masses."""
    size = int(rng.integers(3, 150))
    kind = int(rng.integers(6))
    places = [
        lambda: rng.standard_normal(size),
        lambda: rng.standard_exponential(size) - 0.1,
        lambda: np.r_[np.zeros(size // 2), rng.standard_normal(size - size // 2)],
        lambda: rng.choice([-1, 1], size) * 10.0 ** rng.uniform(-8, 2, size),
        lambda: np.r_[rng.standard_normal(size - 2) * 1e-3, 5.0, -7.0],
        lambda: np.repeat(rng.standard_normal(size // 3 + 1), 3)[:size],
    ][kind]()
    masses = rng.standard_normal(size) ** 2 if rng.random() < 0.7 else rng.standard_exponential(size) ** 4
    return places, masses / masses.sum()


def coefficients(places, masses, k):
    run = ls.lanczos(ls.diagonal_operator(places), min(k, len(places)), start=np.sqrt(masses))
    return run.jacobi()


def measures(count, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        places, masses = random_measure(rng)
        yield rng, places, masses, *coefficients(places, masses, int(rng.integers(1, 40)))


def test_radau_bracket_is_never_violated():
    """A thousand random measures, at zero (where some have an atom), at an atom, at a node and between."""
    tight = 0
    for rng, places, masses, alphas, betas in measures(1000):
        nodes = gauss_rule(alphas, betas).nodes
        for z in (
            0.0,
            float(rng.choice(places)),
            float(rng.normal()),
            float(nodes[len(nodes) // 2]) * (1 + 1e-9),
            float(places.max() + 1),
            float(places.min() - 1),
        ):
            lower, upper = mass_bracket(alphas, betas, z)
            # An atom that rounding moves across z belongs to either side.
            near = np.abs(places - z) <= 1e-13 * np.abs(places).max()
            below, at_or_below = masses[(places < z) & ~near].sum(), masses[(places <= z) | near].sum()
            slack = ROUNDING if betas[-1] > 0 else 1e-7  # masses below rounding end a run
            assert lower <= at_or_below + slack and upper >= below - slack
            if betas[-1] > 0 and not near.any():
                assert lower - ROUNDING <= below <= upper + ROUNDING
            assert 0 <= lower <= upper + 1e-15 and upper <= 1 + 1e-15
            tight += upper - lower < 0.2
    assert tight > 2000  # and it says something


def test_a_smoothed_curve_invents_the_negative_mass_that_the_bracket_excludes():
    """Three quarters zeros, the rest spread over four decades; a fixed Gaussian of variance 1e-5 is a published default."""
    eigenvalues = np.r_[np.zeros(750), 10.0 ** np.linspace(-4, 0, 250)]
    # What the Gaussians put on the left of zero even if every eigenvalue were known.
    invented = np.mean(stats.norm.cdf(-eigenvalues / np.sqrt(1e-5)))
    assert invented == pytest.approx(0.42, abs=0.01)
    for seed in range(20):
        S = ls.spectral_density(ls.diagonal_operator(eigenvalues), num_steps=40, num_probes=1, seed=seed)
        grid = np.linspace(-0.1, 0, 4001)
        # Five standard deviations of the mass that one probe gives to the zeros, half of which goes to the left.
        negative = np.trapezoid(S.density(grid, broadening=np.sqrt(1e-5)), grid)
        assert negative == pytest.approx(invented, abs=2.5 * np.sqrt(0.375 / 1002) + 0.02)
        lower, upper = S.negative_mass()
        assert lower == 0
        assert upper <= S.resolution(-S.noise_floor) + 1e-12  # the whole bracket is what could sit at the threshold itself


def test_christoffel_mass_is_never_exceeded():
    for rng, places, masses, alphas, betas in measures(300, seed=1):
        unique = np.unique(places)
        at = np.concatenate([unique[rng.integers(len(unique), size=8)], [0.0]])
        # An atom that the rule has found is known to rounding only: at one number beside it there is nothing.
        distance = np.abs(at[:, None] - gauss_rule(alphas, betas).nodes).min(axis=1)
        at = at[distance > 1e-7 * np.abs(places).max()]
        true = np.array([masses[places == x].sum() for x in at])
        bound = christoffel_mass(alphas, betas, at)
        assert np.all(true <= bound * (1 + 1e-6) + ROUNDING)
        assert np.all((bound >= 0) & (bound <= 1 + 1e-15))


def test_christoffel_mass_is_attained_by_the_radau_rule():
    """The bound is sharp: the rule with a prescribed node is a measure with these moments, and has that mass there."""
    alphas, betas = coefficients(np.linspace(-1, 2, 200), np.full(200, 1 / 200), 9)
    for x in (-0.9, 0.0, 0.377, 1.5, 3.0):
        rule = gauss_rule(*radau_coefficients(alphas, betas, x))
        at = np.argmin(np.abs(rule.nodes - x))
        assert rule.nodes[at] == pytest.approx(x, abs=1e-12)
        assert rule.weights[at] == pytest.approx(christoffel_mass(alphas, betas, np.array(x)), rel=1e-9)
        for p in range(19):  # one more moment than Gauss
            exact = np.mean(np.linspace(-1, 2, 200) ** p)
            assert rule.weights @ rule.nodes**p == pytest.approx(exact, rel=1e-9, abs=1e-12)


def test_christoffel_mass_far_away_and_shapes():
    alphas, betas = coefficients(np.linspace(-1, 2, 300), np.full(300, 1 / 300), 200)
    out = christoffel_mass(alphas, betas, np.array([[1e3, -1e8], [0.0, 1e300]]))
    assert out.shape == (2, 2) and np.all(np.isfinite(out)) and out[0, 0] < 1e-300 and out[1, 0] > 1e-3
    assert christoffel_mass(alphas, betas, np.array(0.0)).shape == ()


def test_envelope_and_distances_hold_for_every_measure_with_the_rule():
    for rng, places, masses, alphas, betas in measures(300, seed=2):
        rule = gauss_rule(alphas, betas)
        x = np.sort(rng.uniform(places.min() - 0.1, places.max() + 0.1, 50))
        x = x[np.abs(x[:, None] - places).min(axis=1) > 1e-12 * np.abs(places).max()]
        order = np.argsort(places)
        steps = np.concatenate([[0.0], np.cumsum(masses[order])])
        true = steps[np.searchsorted(places[order], x, side="right")]
        low, high = bounds.envelope(rule.nodes, rule.weights, x, exact=rule.exact)
        slack = ROUNDING if not rule.exact else 1e-7  # masses below rounding end a run
        away = np.abs(x[:, None] - rule.nodes).min(axis=1) > 1e-9 * np.abs(places).max()
        assert np.all(low[away] <= true[away] + slack) and np.all(true[away] <= high[away] + slack)
        own = np.concatenate([[0.0], np.cumsum(rule.weights)])[np.searchsorted(rule.nodes, x, side="right")]
        kolmogorov = 0.0 if rule.exact else bounds.kolmogorov(rule.weights)
        assert np.all(np.abs(own - true)[away] <= kolmogorov + slack)
        distance = stats.wasserstein_distance(places, rule.nodes, masses, rule.weights)
        wasserstein = 0.0 if rule.exact else bounds.wasserstein(rule.nodes, rule.weights, places.min(), places.max())
        assert distance <= wasserstein + 1e-7 * np.abs(places).max()


def test_the_bounds_are_within_a_sensible_factor():
    """On a smooth bulk the Kolmogorov bound is about twice the distance, that of Wasserstein about four times."""
    places, masses = np.sort(1 - np.cos(np.pi * (np.arange(20_000) + 0.5) / 20_000)), np.full(20_000, 1 / 20_000)
    for k in (10, 50):
        rule = gauss_rule(*coefficients(places, masses, k))
        fine = np.concatenate([rule.nodes - 1e-12, rule.nodes])
        true = np.searchsorted(places, fine, side="right") / 20_000
        own = np.concatenate([[0.0], np.cumsum(rule.weights)])[np.searchsorted(rule.nodes, fine, side="right")]
        assert 1.0 <= bounds.kolmogorov(rule.weights) / np.abs(true - own).max() < 3
        distance = stats.wasserstein_distance(places, rule.nodes, masses, rule.weights)
        assert 1.0 <= bounds.wasserstein(rule.nodes, rule.weights, 0.0, 2.0) / distance < 6


@pytest.mark.parametrize("k", [1, 2, 17])
def test_a_rule_knows_its_residuals_and_gaps(k):
    q = haar(60, 0)
    matrix = (q * np.linspace(-1, 3, 60)) @ q.T
    run = ls.lanczos((matrix + matrix.T) / 2, k)
    rule = gauss_rule(*run.jacobi())
    np.testing.assert_array_equal(rule.nodes, run.ritz_values[0])
    np.testing.assert_allclose(rule.residuals, run.residual_norms[0], atol=1e-15)
    assert rule.weights.sum() == pytest.approx(1, abs=1e-14) and rule.norm == np.abs(rule.nodes).max()
    assert not rule.exact and (np.isinf(rule.gaps).all() if k == 1 else rule.gaps[0] == rule.nodes[1] - rule.nodes[0])


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("probes, share", [(1, 0.0), (1, 0.005), (1, 0.3), (4, 0.5), (3, 1.0)])
def test_sampling_interval_covers_under_the_exact_law(confidence, probes, share):
    """Masses drawn from the Beta law itself: coverage by its distribution function, not by simulation, for one probe."""
    n, draws = 200, 4000
    m = share * n
    rng = np.random.default_rng(0)
    masses = np.full(draws, share) if share in (0.0, 1.0) else rng.beta(m / 2, (n - m) / 2, (probes, draws)).mean(axis=0)
    low, high = bounds.sampling_interval(masses, masses, n, probes, confidence)
    hits = int(((low <= share) & (share <= high)).sum())
    assert hits >= stats.binom.ppf(1e-4, draws, confidence)
    assert np.all((low >= 0) & (low <= masses) & (masses <= high) & (high <= 1))
