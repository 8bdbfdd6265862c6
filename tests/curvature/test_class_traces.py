"""Traces of the parts of B2, exact and estimated."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from classifiers import assert_close, explicit, objective_of  # noqa: E402

import linop_spectra as ls  # noqa: E402


def test_parts_of_B2_and_their_traces():
    expected, parts = explicit("cnn"), objective_of("cnn").class_structure()
    traces = np.einsum("cdnn->cd", expected.B2_pairs)
    for c in range(4):
        assert_close(parts.B2_class(c).to_dense(), expected.B2_pairs[c].sum(axis=0))
        assert_close(parts.B2_class(c, 1).to_dense(), expected.B2_pairs[c, 1])
        assert float(ls.trace(parts.B2_class(c), method="exact")) == pytest.approx(traces[c].sum(), rel=1e-12)
    for exact in (parts.B2_traces(None), parts.B2_traces(10**6, seed=3)):
        assert exact.exact
        assert_close(exact.values, traces)
        assert_close(exact.per_class, traces.sum(axis=1))
        assert exact.standard_errors.max() == exact.per_class_standard_errors.max() == 0
    assert exact.estimate().value == pytest.approx(np.trace(expected.B2), rel=1e-12)


def test_estimated_traces_are_within_their_errors():
    expected, parts = explicit("mlp"), objective_of("mlp").class_structure()
    traces = np.einsum("cdnn->cd", expected.B2_pairs)
    found = parts.B2_traces(40, seed=1)
    assert not found.exact
    assert found.num_matvecs == 40
    deviations = (found.values - traces) / found.standard_errors
    assert np.abs(deviations).max() < 4  # nine numbers
    assert np.abs(deviations).mean() > 0.05
    assert (np.abs(found.per_class - traces.sum(axis=1)) < 4 * found.per_class_standard_errors).all()
    estimate = found.estimate(2, 0)
    assert (estimate.value, estimate.standard_error) == pytest.approx((found.values[2, 0], found.standard_errors[2, 0]))
    low, high = found.estimate().confidence_interval(0.999)
    assert low < np.trace(expected.B2) < high
    # Errors fall as the root of the number of vectors, and seeds matter.
    more = parts.B2_traces(42, seed=2)
    assert not np.allclose(more.values, found.values)
    assert np.array_equal(parts.B2_traces(40, seed=1).samples, found.samples)
    assert parts.B2_traces(1).standard_errors.min() == np.inf


def test_traces_are_saved_and_printed(tmp_path):
    found = objective_of("mlp").class_structure().B2_traces(5)
    found.save(tmp_path / "traces.npz")
    again = ls.load(tmp_path / "traces.npz")
    assert np.array_equal(again.samples, found.samples)
    assert (again.exact, again.num_matvecs, again.seconds) == (found.exact, found.num_matvecs, found.seconds)
    assert "class 2" in str(found)
