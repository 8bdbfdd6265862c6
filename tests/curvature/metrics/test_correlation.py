"""Rank correlation with a gap over checkpoints."""

import numpy as np
import pytest
from metric_networks import in_torch, regression

import linop_spectra as ls
from linop_spectra.curvature import metrics


def _checkpoints(scales):
    x = np.random.default_rng(0).standard_normal((12, 3))
    return [regression(scale * x, np.ones(12), np.full(3, 0.1)) for scale in scales]


def test_measures_that_follow_the_gap_and_one_that_does_not(tmp_path):
    scales = np.array([1.0, 3.0, 2.0, 5.0, 4.0, 6.0])
    found = metrics.flatness_correlation(_checkpoints(scales), scales, num_steps=3)
    for name in ("trace", "largest_eigenvalue", "frobenius_norm", "trace of the diagonal", "largest_eigenvalue of the diagonal"):
        assert found[name].correlation == pytest.approx(1.0)
        # Of the 720 orders two have a correlation of one in modulus.
        assert found[name].p_value == pytest.approx(2 / 720, rel=0.5)
    assert np.isnan(found["parameter_norm"].correlation) and found["parameter_norm"].p_value == 1.0
    opposite = metrics.flatness_correlation(_checkpoints(scales), -scales, num_steps=3)
    assert opposite["trace"].correlation == pytest.approx(-1.0)
    assert [row.measure for row in found.rows][-1] in str(found)
    found.save(tmp_path / "table.npz")
    again = ls.load(tmp_path / "table.npz")
    assert again.gaps == found.gaps and again["trace"] == found["trace"]


def test_values_are_those_of_the_metrics():
    objectives = [in_torch().with_parameters(scale * np.asarray(in_torch().parameters())) for scale in (0.5, 1.0, 1.5)]
    found = metrics.flatness_correlation(objectives, [0.1, 0.3, 0.2], num_steps=43)
    H = [np.asarray(one.hessian().to_dense()) for one in objectives]
    assert found["largest_eigenvalue"].values == pytest.approx([np.linalg.eigvalsh(one)[-1] for one in H], rel=1e-6)
    assert found["largest_eigenvalue of the diagonal"].values == pytest.approx([np.diag(one).max() for one in H], rel=1e-9)
    theta = [np.asarray(one.parameters()) for one in objectives]
    adaptive = [t**2 @ np.diag(one) for t, one in zip(theta, H, strict=True)]
    assert found["adaptive_sharpness_average"].values == pytest.approx(adaptive, rel=1e-9)


def test_too_few_checkpoints_and_equal_gaps_are_refused():
    objectives = _checkpoints([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="at least three"):
        metrics.flatness_correlation(objectives[:2], [1, 2])
    with pytest.raises(ValueError, match="gaps"):
        metrics.flatness_correlation(objectives, [1, 2])
    with pytest.raises(ValueError, match="equal"):
        metrics.flatness_correlation(objectives, [1, 1, 1])
    with pytest.raises(TypeError, match="objective"):
        metrics.flatness_correlation([np.eye(2)] * 3, [1, 2, 3])
