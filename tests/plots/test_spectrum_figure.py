"""Properties of the figures: what is drawn, on which scales, and that nothing global is touched."""
import sys

import numpy as np
import pytest
from fakes import FakeSpectrum
from matplotlib.figure import Figure

import linop_spectra as ls
from linop_spectra import plots
from linop_spectra.plots.view import View

RNG = np.random.default_rng(0)
BULK = RNG.normal(0.0, 0.5, 2000)
NEAR = FakeSpectrum(BULK, (3.0, 3.5, 4.5))
FAR = FakeSpectrum(BULK, (5.0, 40.0, 120.0, 300.0))
PLAIN = FakeSpectrum(BULK)


def by_gid(ax, gid):
    found = [artist for axes in ax.figure.axes for artist in axes.findobj(lambda a: a.get_gid() == gid)]
    assert len(found) <= 1
    return found[0] if found else None


def errorbars(ax):
    (container,) = [c for axes in ax.figure.axes for c in axes.containers]
    return container


@pytest.mark.parametrize("result", [NEAR, FAR], ids=["near", "far"])
def test_each_outlier_is_a_stick_as_high_as_its_weight(result):
    ax = plots.spectrum(result)
    sticks = by_gid(ax, "outliers").get_segments()
    assert [stick[0, 0] for stick in sticks] == list(result.spikes)
    np.testing.assert_allclose([stick[1, 1] for stick in sticks], 1 / result.dimension)


def test_residuals_are_horizontal_error_bars():
    container = errorbars(plots.spectrum(NEAR))
    assert container.has_xerr and not container.has_yerr
    bars = container.lines[2][0].get_segments()
    expected = [outlier.residual_norm + NEAR.noise_floor for outlier in NEAR.outliers()]
    np.testing.assert_allclose([np.ptp(bar[:, 0]) / 2 for bar in bars], expected)


def test_band_holds_the_bulk():
    ax = plots.spectrum(NEAR)
    x, y = by_gid(ax, "bulk").get_data()
    band = by_gid(ax, "band").get_paths()[0]
    drawn = np.isfinite(y)
    assert drawn.sum() > 500
    low, high = NEAR.density_band(x)
    assert band.vertices[:, 1].max() == pytest.approx(high.max())
    assert np.all((low[drawn] <= y[drawn]) & (y[drawn] <= high[drawn]))


def test_density_is_drawn_at_every_node():
    x, _ = by_gid(plots.spectrum(NEAR), "bulk").get_data()
    assert set(NEAR.nodes) <= set(x)


def test_scales_follow_the_reach_of_the_outliers():
    near, far = plots.spectrum(NEAR), plots.spectrum(FAR)
    assert near.get_yscale() == far.get_yscale() == "log"
    assert near.get_xscale() == "linear" and far.get_xscale() == "asinh"
    for ax, result in ((near, NEAR), (far, FAR)):
        low, high = ax.get_xlim()
        assert low < min(result.bulk.min(), *result.spikes) and high > max(result.spikes)


def test_bulk_stays_legible_beside_far_outliers():
    ax = plots.spectrum(FAR)
    left, right = (ax.transData.transform((x, 1.0))[0] for x in FAR.bulk_edges())
    assert (right - left) / ax.bbox.width > 0.3


def test_unresolved_zone_is_shaded_to_the_noise_floor():
    zone = by_gid(plots.spectrum(FakeSpectrum(BULK, noise_floor=0.1)), "unresolved")
    assert zone.get_x() == -0.1 and zone.get_width() == pytest.approx(0.2)
    assert by_gid(plots.spectrum(FakeSpectrum(BULK + 10.0, noise_floor=0.1)), "unresolved") is None


def test_title_says_how_the_numbers_were_made():
    title = plots.spectrum(NEAR).get_title(loc="left")
    low, high = NEAR.negative_mass()
    for part in ("n = 2,003", "64 steps", "2 probes", f"{100 * low:.3g} %", f"{100 * high:.3g} %"):
        assert part in title
    assert "1 probe," not in title and "complete" not in title
    assert "interrupted" in plots.spectrum(FakeSpectrum(BULK, status="interrupted")).get_title(loc="left")
    assert "time budget" in plots.spectrum(FakeSpectrum(BULK, status="time budget", num_probes=1)).get_title(loc="left")


def test_without_outliers_there_is_no_second_axis():
    ax = plots.spectrum(PLAIN)
    assert len(ax.figure.axes) == 1 and by_gid(ax, "outliers") is None


def test_given_axes_are_used():
    figure = Figure()
    ax = figure.add_subplot()
    assert plots.spectrum(NEAR, ax) is ax and ax.figure is figure


def test_a_single_point_spectrum_can_be_drawn(tmp_path):
    for value in (0.0, 1.0, -3.0):
        result = FakeSpectrum(np.full(50, value), noise_floor=0.0)
        plots.spectrum(result).figure.savefig(tmp_path / "point.png")


@pytest.mark.parametrize("xscale", ["log", "", None])
def test_unknown_scale_is_said(xscale):
    with pytest.raises(ValueError, match="xscale"):
        plots.spectrum(NEAR, xscale=xscale)


def test_small_multiples_share_their_scales(tmp_path):
    axes = plots.spectra({"before": NEAR, "after": FAR, "plain": PLAIN})
    assert axes.shape == (3,) and len({ax.get_xlim() for ax in axes}) == 1 and len({ax.get_ylim() for ax in axes}) == 1
    assert {ax.get_xscale() for ax in axes} == {"asinh"}
    texts = [text.get_text() for text in axes[0].texts]
    assert texts == ["before"]
    axes[0].figure.savefig(tmp_path / "grid.png")


def test_small_multiples_check_their_axes():
    figure = Figure()
    with pytest.raises(ValueError, match="axes"):
        plots.spectra({"a": NEAR, "b": FAR}, axes=[figure.add_subplot()])
    with pytest.raises(ValueError, match="results"):
        plots.spectra({})


def test_union_of_views_holds_both():
    one, other = View.of(NEAR), View.of(FAR)
    both = one.union(other)
    assert both.low == min(one.low, other.low) and both.top == max(one.top, other.top)
    assert both.linear_width == other.linear_width


@pytest.mark.parametrize("low, high", [(-1e-3, 1e5), (-50.0, 2.0), (3.0, 4000.0)])
def test_ticks_are_few_and_inside(low, high):
    view = View(low, high, 1e-4, 1e-6, 1.0)
    (left, right), ticks = view.limits, view.ticks()
    assert left < low < high < right
    assert 2 <= len(ticks) <= 12 and all(left <= tick <= right for tick in ticks) and ticks == sorted(ticks)


def test_missing_matplotlib_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install linop-spectra\[plot\]"):
        plots.spectrum(NEAR)


def test_a_real_result_is_drawn(tmp_path):
    spikes = [20.0, 30.0, 50.0]
    result = ls.spectral_density(ls.diagonal_operator(np.concatenate([np.linspace(-1.0, 1.0, 500), spikes])), num_steps=40)
    ax = plots.spectrum(result)
    np.testing.assert_allclose(sorted(stick[0, 0] for stick in by_gid(ax, "outliers").get_segments()), spikes, rtol=1e-6)
    result.plot(tmp_path / "real.png")
    assert (tmp_path / "real.png").read_bytes().startswith(b"\x89PNG")
