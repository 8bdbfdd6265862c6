"""The figure of a decomposition: a multiple zero is a line, and a bulk beside it stays to be seen."""

from types import SimpleNamespace

import numpy as np

import linop_spectra as ls
from linop_spectra.plots.decomposition import decomposition
from linop_spectra.plots.style import thin_log_ticks


def gids(ax):
    return {artist.get_gid() for artist in [*ax.lines, *ax.collections, *ax.patches]}


def test_zero_is_a_line_and_a_bulk_beside_it_is_drawn():
    isolated, bulk = np.zeros(400), np.zeros(400)
    isolated[:5] = np.arange(1, 6)
    bulk[:80] = np.linspace(0.5, 2.0, 80)
    spectra = {name: ls.spectral_density(ls.diagonal_operator(d), num_steps=30) for name, d in (("A1", isolated), ("B1", bulk))}
    assert all(density.log().unresolved_mass > 0.5 for density in spectra.values())
    result = SimpleNamespace(densities=spectra, titles={"A1": "A", "B1": "B"}, markers={"A1": np.arange(1.0, 6.0)})
    panels = decomposition(result)
    assert "zero" in gids(panels[0, 0]) and "bulk" not in gids(panels[0, 0])
    assert "bulk" in gids(panels[1, 0]) and "zero" not in gids(panels[1, 0])


def result_of_a_network():
    """Both signs, most eigenvalues tiny, a few large: what fills the upper left of the logarithmic panel."""
    rng = np.random.default_rng(0)
    values = np.r_[1e-6 * 10 ** rng.uniform(0, 4, 900), -1e-5 * 10 ** rng.uniform(0, 2, 80), 0.1 * np.arange(1.0, 8.0)].astype(np.float32)
    density = ls.spectral_density(ls.diagonal_operator(values), num_steps=32, num_probes=2)
    marks = {"A1+A2": np.geomspace(1e-3, 0.3, 10), "A1+A2+B1": np.geomspace(1e-5, 0.4, 90)}
    return SimpleNamespace(densities={"hessian": density, "ggn": density}, titles={"hessian": "H", "ggn": "G"}, markers=marks)


def test_the_legend_stands_above_the_curves():
    panels = decomposition(result_of_a_network())
    figure = panels[0, 0].figure
    figure.canvas.draw()
    for right in panels[:, 1]:
        box = right.get_legend().get_window_extent()
        curves = [line for line in right.lines if line.get_gid() in ("positive", "negative")]
        assert len(curves) == 2 and len(right.get_legend().get_texts()) >= 3
        for curve in curves:
            points = right.transData.transform(curve.get_xydata()[np.isfinite(curve.get_ydata())])
            assert points[(points[:, 0] >= box.x0) & (points[:, 0] <= box.x1), 1].max() < box.y0
        # The markers are named on the left.
        assert not any("eigenvalues of" in text.get_text() for text in right.get_legend().get_texts())


def test_axes_of_many_decades_have_no_minor_ticks():
    panels = decomposition(result_of_a_network())
    for ax in panels[0, 0].figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = axis.get_view_interval()
            if axis.get_scale() == "log" and high / low > 1e6:
                assert len(axis.get_minorticklocs()) == 0
        assert ax.get_yscale() == "log"
    short = panels[0, 0].figure.add_subplot()
    short.set_yscale("log")
    short.set_ylim(1e-3, 1.0)
    thin_log_ticks(short)
    assert len(short.yaxis.get_minorticklocs()) > 10
