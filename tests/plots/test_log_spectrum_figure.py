"""The logarithmic figure: both signs, and the zones where sign and shape are not resolved."""

import dataclasses

import numpy as np
import pytest
from matplotlib.figure import Figure

import linop_spectra as ls
from linop_spectra import plots

VALUES = np.r_[-(10.0 ** np.linspace(-3, 0, 300)), np.zeros(700), 10.0 ** np.linspace(-2, 2, 1000)].astype(np.float32)


def by_gid(ax, gid):
    return next((artist for artist in ax.findobj(lambda a: a.get_gid() == gid)), None)


@pytest.fixture(scope="module")
def log():
    return ls.spectral_density(ls.diagonal_operator(VALUES), num_probes=2).log()


def test_both_signs_are_drawn_per_decade(log):
    ax = plots.log_spectrum(log)
    assert ax.get_xscale() == ax.get_yscale() == "log"
    for sign in ("positive", "negative"):
        x, y = by_gid(ax, sign).get_data()
        shown = np.isfinite(y)
        np.testing.assert_allclose(y[shown], log.density(np.log10(x), sign)[shown])
        places = 10.0 ** getattr(log, sign)
        assert np.all(places < ax.get_xlim()[1])
        assert np.trapezoid(log.density(np.linspace(-12, 6, 20_001), sign), np.linspace(-12, 6, 20_001)) == pytest.approx(
            getattr(log, f"{sign}_weights").sum(), abs=1e-3
        )


def test_what_is_not_resolved_is_shaded_and_said(log):
    ax = plots.log_spectrum(log)
    sign, shape = by_gid(ax, "unresolved"), by_gid(ax, "unresolved shape")
    assert sign.get_x() + sign.get_width() == pytest.approx(log.floor) and sign.get_x() == pytest.approx(ax.get_xlim()[0])
    assert shape.get_x() == pytest.approx(log.floor) and shape.get_x() + shape.get_width() == pytest.approx(log.resolution)
    text = " ".join(label.get_text() for label in ax.get_legend().get_texts())
    assert "sign unresolved" in text and "shape unresolved" in text and "positive nodes" in text and "negative nodes" in text


def test_a_floor_far_below_the_spectrum_is_not_drawn_but_said():
    log = ls.spectral_density(ls.diagonal_operator(np.r_[np.zeros(50), np.linspace(1, 2, 400)])).log()
    ax = plots.log_spectrum(log)
    assert by_gid(ax, "unresolved") is None or log.floor > ax.get_xlim()[0]
    assert "without a sign" in " ".join(label.get_text() for label in ax.get_legend().get_texts())
    assert ax.get_xlim()[0] > 1e-6


def test_the_resolution_is_the_spacing_next_to_zero():
    """On an even grid of eigenvalues the nodes of k steps are about pi / k of the half-width apart; more steps resolve more."""
    operator = ls.diagonal_operator(np.linspace(-1, 1, 5000))
    for k in (16, 64):
        assert ls.spectral_density(operator, num_steps=k, num_probes=2).log().resolution == pytest.approx(np.pi / k, rel=0.1)


@pytest.mark.parametrize("values", [np.zeros(40), np.ones(40), -np.ones(40), [0.0], np.arange(-3.0, 4)])
def test_small_cases_can_be_drawn(values, tmp_path):
    S = ls.spectral_density(ls.diagonal_operator(np.asarray(values, dtype=float)))
    S.log().plot(tmp_path / "log.png")
    assert (tmp_path / "log.png").read_bytes().startswith(b"\x89PNG")


def test_given_axes_and_titles_are_used(log):
    ax = Figure().add_subplot()
    assert log.plot(ax=ax) is ax
    assert plots.log_spectrum(log, title="after training").get_title(loc="left") == "after training"
    assert plots.log_spectrum(log, legend=False).get_legend() is None


def test_only_public_attributes_are_read(log):
    """A copy with other numbers is drawn with them."""
    ax = plots.log_spectrum(dataclasses.replace(log, floor=1e-2, resolution=1e-1))
    assert by_gid(ax, "unresolved").get_width() < 1e-2 and by_gid(ax, "unresolved shape").get_width() == pytest.approx(0.09)


def test_missing_matplotlib_is_said(monkeypatch, log):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install linop-spectra\[plot\]"):
        log.plot()
