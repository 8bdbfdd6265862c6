"""The figure of a decomposition: a multiple zero is a line, and a bulk beside it stays to be seen."""

from types import SimpleNamespace

import numpy as np

import linop_spectra as ls
from linop_spectra.plots.decomposition import decomposition


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
