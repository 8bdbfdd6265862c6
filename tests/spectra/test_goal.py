"""Runs that stop by themselves: what they promise is true, and what they cannot reach they say."""

import numpy as np
import pytest
from helpers import least_hits
from scipy import stats

import linop_spectra as ls
from linop_spectra.spectra.goal import Gap

N = 600
SPECTRA = {
    "flat": np.linspace(0, 1, N),
    "negative": -np.linspace(1, 2, N),
    "outliers": np.r_[np.linspace(-1, 1, N - 10), np.linspace(20, 40, 10)],
    "low rank": np.r_[np.zeros(N - 30), np.linspace(1, 2, 30)],
}


def diagonal(values, **options):
    return ls.spectral_density(ls.diagonal_operator(np.asarray(values, dtype=float)), **options)


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("tol", [0.2, 0.05])
def test_a_wasserstein_tolerance_that_was_met_is_kept(name, tol):
    values = SPECTRA[name]
    met = 0
    for seed in range(5):
        S = diagonal(values, tol=tol, seed=seed)
        met += S.tolerance_met
        assert S.converged == S.tolerance_met and S.tolerance_met == (S.wasserstein_bound <= tol * np.ptp(S.nodes))
        if S.tolerance_met:
            assert stats.wasserstein_distance(S.nodes, values, S.weights) <= tol * np.ptp(values)
    assert met == 5


@pytest.mark.parametrize("target, f", [("trace", lambda x: x), (np.exp, np.exp)], ids=["trace", "exp"])
@pytest.mark.parametrize("name", SPECTRA)
def test_a_trace_tolerance_that_was_met_covers(name, target, f):
    """Stopping at a width that was wished for costs the interval no coverage, also for negative traces."""
    values, tol, seeds = SPECTRA[name], 0.03, 12
    hits = 0
    for seed in range(seeds):
        S = diagonal(values, num_steps=24, num_probes=16, tol=tol, target=target, seed=seed)
        estimate = S.trace(None if target == "trace" else target)
        low, high = estimate.confidence_interval()
        assert S.tolerance_met == ((high - low) / 2 <= tol * abs(estimate.value)) == estimate.converged
        hits += low - 1e-9 <= f(values).sum() <= high + 1e-9
    assert hits >= least_hits(seeds, 0.95)


def test_steps_come_first_and_then_probes():
    loose, tight = (diagonal(SPECTRA["flat"], tol=tol) for tol in (0.2, 0.04))
    assert loose.num_steps < 64 and loose.num_probes == 4 and tight.num_steps >= 64
    probes = diagonal(SPECTRA["flat"], tol=0.02, target="trace")
    assert probes.tolerance_met and probes.num_probes > 4 and probes.num_steps == 64
    # A looser tolerance is never dearer.
    assert loose.num_matvecs < tight.num_matvecs


def test_added_probes_are_those_of_a_run_that_had_them_from_the_start():
    S = diagonal(SPECTRA["outliers"], num_steps=20, num_probes=9, tol=1e-4, target="trace")
    assert not S.tolerance_met and S.num_probes == 9
    whole = diagonal(SPECTRA["outliers"], num_steps=20, num_probes=9)
    np.testing.assert_allclose(S.run.alphas, whole.run.alphas, atol=1e-9)
    np.testing.assert_allclose(S.nodes, whole.nodes, atol=1e-8)
    assert S.num_matvecs == whole.num_matvecs and len(S.run.ritz_vectors(8)) == N


@pytest.mark.parametrize("target", ["wasserstein", "trace"])
def test_what_cannot_be_reached_is_said_without_wasting_products(target):
    S = diagonal(SPECTRA["flat"], tol=1e-6, target=target, num_steps=80)
    assert not S.tolerance_met and not S.converged and S.num_probes == 4 and S.num_steps <= 80
    (note,) = S.notes
    assert "the tolerance 1e-06 was not met" in note and note in str(S)
    assert ("more steps are needed" if target == "wasserstein" else "probes would do") in note
    again = diagonal(SPECTRA["flat"], tol=1e-6, target=target, num_steps=8, num_probes=6)
    assert (again.num_steps, again.num_probes) == (8, 4 if target == "wasserstein" else 6)


def test_the_memory_budget_limits_steps_and_probes():
    operator = ls.diagonal_operator(SPECTRA["flat"])
    room = 8 * N * 65 * 6  # six probes of 64 steps
    S = ls.spectral_density(operator, tol=1e-3, target="trace", num_probes=50, num_steps=64, memory_budget=room)
    assert S.num_probes == 6 and S.run.reorthogonalize == "full"
    few = ls.spectral_density(operator, tol=1e-4, memory_budget=8 * N * 4 * 101)
    assert 64 <= few.num_steps <= 100 and few.run.reorthogonalize == "full"


@pytest.mark.parametrize("values", [np.ones(50), np.zeros(50), [3.0], [1.0, 2.0]])
@pytest.mark.parametrize("target", ["wasserstein", "trace"])
def test_small_cases_meet_any_tolerance_above_rounding(values, target):
    S = diagonal(values, tol=1e-9, target=target, num_probes=4)
    assert S.tolerance_met and S.converged and S.notes == ()


def test_without_a_basis():
    S = diagonal(SPECTRA["flat"], tol=0.02, target="trace", reorthogonalize="none", num_steps=12, num_probes=40)
    assert S.tolerance_met and S.num_probes > 4 and S.run.reorthogonalize == "none"


def interrupting(values, at, error):
    """An operator that fails at its product number `at`."""
    count = [0]

    def product(x):
        count[0] += 1
        if count[0] == at:
            raise error
        return values[:, None] * x if x.ndim == 2 else values * x

    return ls.aslinearoperator(product, shape=(len(values),) * 2, dtype=float, hermitian=True)


def products_of_the_first_run():
    operator = ls.diagonal_operator(SPECTRA["flat"])
    count = [0]
    counting = ls.aslinearoperator(
        lambda x: (count.__setitem__(0, count[0] + 1), operator.matmat(x) if x.ndim == 2 else operator.matvec(x))[1],
        shape=(N, N), dtype=float, hermitian=True,
    )  # fmt: skip
    ls.spectral_density(counting, num_steps=12, num_probes=4)
    return count[0]


@pytest.mark.parametrize("steps_of_the_second_run", [0, 5])
def test_ctrl_c_while_probes_are_added_keeps_everything(steps_of_the_second_run):
    first = products_of_the_first_run()
    per_step = first / 12
    at = first + 1 + int(steps_of_the_second_run * per_step)
    operator = interrupting(SPECTRA["flat"], at, KeyboardInterrupt())
    S = ls.spectral_density(operator, num_steps=12, num_probes=8, tol=1e-3, target="trace")
    assert S.status == "interrupted" and not S.converged and not S.tolerance_met
    assert S.num_probes == (8 if steps_of_the_second_run else 4) and np.isfinite(S.trace().value)


def test_a_product_that_fails_while_probes_are_added_keeps_the_first_run():
    operator = interrupting(SPECTRA["flat"], products_of_the_first_run() + 8, RuntimeError("no memory"))
    with pytest.raises(ls.LanczosInterrupted, match="no memory") as caught:
        ls.spectral_density(operator, num_steps=12, num_probes=8, tol=1e-3, target="trace")
    assert caught.value.partial.num_probes >= 4 and caught.value.partial.num_steps == 12
    assert np.isfinite(ls.SpectralDensity(caught.value.partial).trace().value)


def test_the_arithmetic_of_a_gap():
    assert Gap(allowed=1.0, steps=0.5, probes=0.5).met and not Gap(1.0, 0.6, 0.5).met
    # Errors of 0.2 and 1.6: 0.8 is left for the probes, which is half, so four times as many, and a little more.
    assert Gap(1.0, 0.2, 1.6).needed_probes(4) == 17 and Gap(1.0, 1.0, 0.1).needed_probes(4) == np.inf
    assert not Gap(1.0, 0.5, 2.0).needs_steps(4, 64) and Gap(1.0, 0.6, 2.0).needs_steps(4, 64)
    assert Gap(1.0, 0.3, 0.8).needs_steps(4, 4) and not Gap(1.0, 0.19, 0.8).needs_steps(4, 4)
    assert not Gap(1.0, 0.09, 5.0).needs_steps(4, 4)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"tol": 0.0}, "argument tol must be positive"),
        ({"tol": np.nan}, "argument tol must be positive"),
        ({"tol": True}, "argument tol must be positive"),
        ({"tol": "small"}, "argument tol must be positive"),
        ({"tol": 0.1, "target": "moments"}, "argument target must be 'wasserstein', 'trace' or a function"),
        ({"target": "trace"}, "argument target says what the argument tol is for"),
        ({"tol": 0.1, "target": np.log}, "not finite at the Ritz value"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        diagonal(np.linspace(-1, 1, 40), **options)
