"""Budgets before a run: published values, the guarantee on a hard case, and the noise of a trace."""

import numpy as np
import pytest
from helpers import rotated

import linop_spectra as ls
from linop_spectra.spectra import probe_snr, slq_budget, wasserstein_distance


def test_published_values():
    assert slq_budget(10**6, 0.05).num_steps == 241 and slq_budget(10**6, 0.01).num_steps == 1201
    assert slq_budget(800_000, 0.01, 0.01) == (1201, 1) and slq_budget(700_000, 0.01, 0.01).num_probes == 2
    assert slq_budget(30_000, 0.05, 0.01).num_probes == 1 and slq_budget(1000, 0.05, 0.01).num_probes == 20
    assert slq_budget(100, 0.05).num_steps == 100  # then the rule is exact


def test_the_budget_keeps_its_promise():
    """Distance below the tolerance in every run, with room to spare: it is a worst case."""
    eigenvalues = np.r_[np.zeros(100), np.linspace(0, 1, 200) ** 3]
    for tolerance in (0.5, 0.2):
        steps, probes = slq_budget(300, tolerance)
        for seed in range(10):
            S = ls.spectral_density(ls.diagonal_operator(eigenvalues), num_steps=steps, num_probes=probes, seed=seed, deflate=False)
            assert wasserstein_distance(S, eigenvalues) <= tolerance


@pytest.mark.parametrize(
    "arguments, name",
    [((0, 0.1), "n"), ((2.5, 0.1), "n"), ((10, 0.0), "tolerance"), ((10, 1.0), "tolerance"), ((10, np.nan), "tolerance"),
     ((10, "small"), "tolerance"), ((10, 0.1, 0.0), "failure_probability"), ((10, 0.1, 1.5), "failure_probability")],
)  # fmt: skip
def test_bad_arguments_are_named(arguments, name):
    with pytest.raises(ValueError, match=f"argument {name} must"):
        slq_budget(*arguments)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_one_product_tells_the_noise_of_the_trace(dtype):
    """On average over probes it is |tr| / (sqrt 2 |A|_F), and one over it the relative deviation of the trace over seeds."""
    n, eigenvalues = 120, np.r_[np.full(60, -1.0), np.full(60, 2.0)]
    operator = ls.aslinearoperator(rotated(eigenvalues, 0, dtype), hermitian=True)
    root = 1.0 if dtype == np.complex128 else np.sqrt(2)
    exact = eigenvalues.sum() / (root * np.linalg.norm(eigenvalues))
    ratios = [probe_snr(operator, seed=seed) for seed in range(60)]
    assert np.mean([ratio.value for ratio in ratios]) == pytest.approx(exact, abs=5 / np.sqrt(60))
    deviation = np.std([ratio.value for ratio in ratios])
    assert deviation == pytest.approx(ratios[0].standard_error, rel=0.35)
    assert ratios[0].num_matvecs == 1
    traces = [ls.spectral_density(operator, num_steps=2, num_probes=1, seed=seed, deflate=False).trace().value for seed in range(60)]
    # The sphere takes the mean out: the deviation is that of the traceless part, a little below the one foretold.
    foretold = abs(eigenvalues.sum()) / exact
    traceless = root * np.linalg.norm(eigenvalues - eigenvalues.mean()) * np.sqrt(n / (n + 2))
    assert np.std(traces) == pytest.approx(traceless, rel=0.35) and traceless < foretold


def test_the_plan_says_the_same():
    operator = ls.diagonal_operator(np.linspace(-1, 2, 400))
    plan = ls.plan(operator, num_steps=10, num_probes=4)
    assert plan.probe_snr == pytest.approx(probe_snr(operator).value, rel=1e-9)
    assert plan.relative_trace_error == pytest.approx(1 / (2 * plan.probe_snr), rel=1e-12)
    assert f"signal to noise {plan.probe_snr:.2g}" in str(plan)
    assert np.isnan(ls.plan(operator, measure=False).probe_snr)


@pytest.mark.parametrize("budget, storage", [("1GB", "full"), ("25kB", "compressed"), ("7kB", "none")])
def test_the_plan_says_where_the_vectors_go(budget, storage):
    operator = ls.diagonal_operator(np.linspace(-1, 2, 400))
    plan = ls.plan(operator, num_steps=10, num_probes=1, memory_budget=budget)
    assert plan.reorthogonalize == storage
    if storage == "none":
        with pytest.warns(UserWarning, match="running without reorthogonalisation"):
            S = ls.spectral_density(operator, num_steps=10, num_probes=1, memory_budget=budget)
    else:
        S = ls.spectral_density(operator, num_steps=10, num_probes=1, memory_budget=budget)
    assert S.run.reorthogonalize == storage and plan.bytes <= max(plan.memory_budget, 2 * 8 * 400)
    words = {"full": ", 11 products in all.", "compressed": f"vectors were kept in {S.run.basis_dtype}", "none": "vectors were not kept"}
    assert words[storage] in S.explain().splitlines()[0]


def test_traces_without_signal_and_without_noise():
    assert probe_snr(ls.diagonal_operator(np.zeros(20))).value == np.inf
    assert probe_snr(ls.diagonal_operator(np.r_[np.full(50, -1.0), np.full(50, 1.0)])).value < 4
    with pytest.raises(ValueError, match="needs a Hermitian"):
        probe_snr(np.triu(np.ones((5, 5))))
    with pytest.raises(ValueError, match="NaN or infinity"):
        probe_snr(ls.aslinearoperator(lambda x: np.nan * x, shape=(5, 5), dtype=float, hermitian=True))
