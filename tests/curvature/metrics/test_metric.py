"""Intervals of metrics with all their sources of error."""

import json
import math

import pytest

import linop_spectra as ls
from linop_spectra.curvature.metrics import Metric


def test_intervals_combine_probes_and_data_and_reach_over_the_bias():
    probe = Metric(10.0, standard_error=3.0)
    both = probe.with_changes(sampling_error=4.0)
    assert probe.confidence_interval(0.95) == pytest.approx((10 - 1.959964 * 3, 10 + 1.959964 * 3), rel=1e-6)
    assert both.confidence_interval(0.95) == pytest.approx((10 - 1.959964 * 5, 10 + 1.959964 * 5), rel=1e-6)
    wider = both.with_changes(quadrature_error=0.5, rounding_error=0.25)
    assert wider.confidence_interval(0.95)[1] == pytest.approx(10.75 + 1.959964 * 5, rel=1e-6)
    biased = both.with_changes(bias=2.0)
    assert biased.confidence_interval(0.95) == pytest.approx((8 - 1.959964 * 5, 10 + 1.959964 * 5), rel=1e-6)
    few = both.with_changes(standard_error=0.0, sampling_degrees=3.0)
    assert few.confidence_interval(0.95)[1] == pytest.approx(10 + 3.182446 * 4, rel=1e-6)
    assert biased.sources == {"probe": 3.0, "quadrature": 0.0, "rounding": 0.0, "data": 4.0, "bias": 2.0}


def test_the_interval_stays_in_the_range():
    share = Metric(0.99, standard_error=0.2, least=0.0, most=1.0)
    low, high = share.confidence_interval(0.999)
    assert low > 0 and high == 1.0
    with pytest.raises(ValueError, match="level"):
        share.confidence_interval(1.0)


def test_a_metric_is_an_estimate_that_can_be_saved(tmp_path):
    metric = Metric.of(ls.Estimate(2.0, standard_error=0.5, num_matvecs=7), name="size", unit="loss", note="how large")
    assert isinstance(metric, ls.Estimate) and float(metric) == 2.0 and metric.num_matvecs == 7
    metric.save(tmp_path / "metric.npz")
    assert ls.load(tmp_path / "metric.npz") == metric
    endless = Metric(1.0, standard_error=math.inf).to_json()
    assert endless["interval"] == [None, None] and json.loads(json.dumps(endless, allow_nan=False)) == endless
