"""The parts of the error of a mean: each is the one it is called, and together they are the interval."""

import dataclasses

import numpy as np
import pytest
from helpers import DTYPES, eps, rotated

import linop_spectra as ls
from linop_spectra.spectra import truncation
from linop_spectra.spectra.quadrature import gauss_rule

EIGENVALUES = np.linspace(0.5, 3, 120)


def density(steps, dtype=np.float64, probes=2, **options):
    operator = ls.aslinearoperator(rotated(EIGENVALUES, 0, dtype), hermitian=True)
    return ls.spectral_density(operator, num_steps=steps, num_probes=probes, **options)


@pytest.mark.parametrize("f", [np.log, np.abs, np.exp, lambda x: x])
def test_the_sources_add_up_to_the_interval(f):
    from scipy import stats

    for estimate in (density(12).expectation(f), density(12).trace(f)):
        low, high = estimate.confidence_interval(0.9)
        probe = stats.t.ppf(0.95, estimate.degrees_of_freedom) * estimate.standard_error
        assert (high - low) / 2 == pytest.approx(probe + estimate.quadrature_error + estimate.rounding_error, rel=1e-12)
        assert estimate.sources == {
            "probe": estimate.standard_error, "quadrature": estimate.quadrature_error, "rounding": estimate.rounding_error
        }  # fmt: skip


def test_a_trace_is_n_times_the_mean_in_every_part():
    S = density(12)
    mean, trace = S.expectation(np.log), S.trace(np.log)
    for part in ("value", "standard_error", "quadrature_error", "rounding_error"):
        assert getattr(trace, part) == pytest.approx(120 * getattr(mean, part), rel=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rounding_is_that_of_the_type_and_steps_are_no_part_of_it(dtype):
    """It scales with the unit of rounding, hardly with the steps; truncation does the opposite."""
    few, many = (density(k, dtype).trace(np.log) for k in (4, 30))
    for estimate in (few, many):
        assert 0.01 * eps(dtype) < estimate.rounding_error / 120 < 100 * eps(dtype)
    assert few.quadrature_error > 100 * many.quadrature_error
    double = density(4, np.result_type(dtype, np.float64)).trace(np.log)
    assert few.quadrature_error == pytest.approx(double.quadrature_error, rel=0.01)


def test_truncation_bounds_what_more_steps_change():
    for f in (np.log, np.sqrt, lambda x: np.abs(x - 1)):
        short, long = density(6, deflate=False).expectation(f), density(100, deflate=False).expectation(f)
        assert abs(short.value - long.value) <= short.quadrature_error + short.rounding_error


def test_residuals_of_pinned_eigenvalues_are_truncation():
    """Before an outlier has converged to rounding its residual is what more steps would reduce."""
    values = np.r_[np.linspace(-1, 1, 500), 3.0]
    for steps in (12, 60):
        S = ls.spectral_density(ls.diagonal_operator(values), num_steps=steps, num_probes=2)
        pinned = [atom for atom in S.deflation.atoms if atom.value in S.deflation.pinned]
        expected = sum(2 * abs(atom.value) * atom.shift for atom in pinned)
        estimate = S.trace(lambda x: x**2)
        assert estimate.quadrature_error >= 0.9 * expected
        assert estimate.rounding_error < 1e-9


def test_the_sentence_about_the_trace_names_the_largest_part():
    assert "comes from sampling" in density(20).explain()
    noisy = ls.spectral_density(ls.diagonal_operator(np.r_[np.ones(50), -np.ones(50)]), num_steps=2, num_probes=2)
    assert "trace is" in noisy.explain()
    assert "up to rounding" in ls.spectral_density(ls.identity(30)).explain()


def test_further_functions_find_no_rules_again(monkeypatch):
    """The rules that judge the truncation do not depend on the function; found once, they give what fresh ones give."""
    S, found = density(12), []
    S.trace()
    monkeypatch.setattr(truncation, "gauss_rule", lambda *args: found.append(1) or gauss_rule(*args))
    again = [S.trace(f) for f in (np.exp, np.square)]
    assert not found
    fresh = [density(12).trace(f) for f in (np.exp, np.square)]
    assert len(found) == 2 * 2 * 5 and min(e.quadrature_error for e in fresh) > 0
    for one, other in zip(again, fresh, strict=True):
        assert dataclasses.replace(one, seconds=0) == dataclasses.replace(other, seconds=0)
