"""Figures of an evolution show what they were given."""

import types

import numpy as np
import pytest

import linop_spectra as ls
from linop_spectra.plots.evolution import edge_of_stability, evolution_overview, spectrum_heat_map, spectrum_ridge

TOPS = (2.0, 4.0, 7.0)


def result(**changes):
    spectra = [ls.spectral_density(ls.diagonal_operator(np.r_[np.linspace(-0.1, 0.1, 198), top / 2, top]), num_steps=25) for top in TOPS]
    fields = {
        "steps": np.array([0.0, 10.0, 30.0]), "spectra": spectra, "eigenvalues": np.array([[t, t / 2] for t in TOPS]),
        "thresholds": np.full(3, 7.0), "method": "gd", "momentum": 0.0, "matrix": "hessian", "overlaps": np.array([np.nan, 0.5, 0.9]),
        "gradient_overlaps": np.array([0.3, 0.4, 0.5]), "null_overlap": 0.01, "loss": np.array([1.0, 0.5, 0.1]),
        "gradient_norms": np.array([1.0, 0.3, 0.2]),
    }  # fmt: skip
    return types.SimpleNamespace(**{**fields, **changes})


def artist(ax, gid):
    (found,) = ax.findobj(lambda a: a.get_gid() == gid)
    return found


def test_heat_map_holds_all_mass_at_its_place():
    ax = spectrum_heat_map(result())
    mesh = artist(ax, "density")
    values, corners = np.asarray(mesh.get_array()), mesh.get_coordinates()
    assert values.shape == (400, 3)
    x, y = corners[0, :, 0], corners[:, 0, 1]
    assert x.tolist() == [-5.0, 5.0, 20.0, 40.0]  # half-way between the moments
    t = np.arcsinh(y / ax.yaxis.get_transform().linear_width)
    masses = (values * np.diff(t)[:, None]).sum(axis=0)
    np.testing.assert_allclose(masses, 1.0, atol=0.02)
    for column, top in enumerate(TOPS):
        # The cell with most mass in the upper quarter is that of the largest eigenvalue, or next to it.
        upper = np.flatnonzero(y[:-1] > 0.75 * top)
        peak = upper[np.argmax(values[upper, column])]
        assert y[peak - 1] <= top <= y[peak + 2]
    _, places = artist(ax, "eigenvalues").get_data()
    assert sorted(places) == sorted(np.ravel([[t, t / 2] for t in TOPS]))


def test_ridges_stand_above_each_other_in_order():
    ax = spectrum_ridge(result())
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["0", "10", "30"] and [artist(ax, f"ridge {i}").get_ydata().min() for i in range(3)] == [0.0, 1.0, 2.0]
    many = result(steps=np.arange(30.0), spectra=result().spectra * 10, eigenvalues=np.tile(result().eigenvalues, (10, 1)))
    assert len(spectrum_ridge(many).get_yticks()) == 12


def test_legends_stand_beside_the_curves():
    """The legend of the overlaps covers no point, wherever the curves go."""
    for level in (0.0, 0.5, 1.0):
        panels = evolution_overview(result(overlaps=np.full(3, level), gradient_overlaps=np.full(3, level)))
        panels[0].figure.canvas.draw()
        box = panels[2].get_legend().get_window_extent()
        points = panels[2].transData.transform([(step, level) for step in (0.0, 10.0, 30.0)])
        assert not any(box.contains(*point) for point in points)
    assert [text.get_text() for text in spectrum_ridge(result()).get_legend().get_texts()] == ["largest eigenvalues"]


def test_edge_of_stability_shows_eigenvalues_and_threshold():
    ax = edge_of_stability(result())
    assert artist(ax, "largest").get_ydata().tolist() == list(TOPS) and set(artist(ax, "threshold").get_ydata()) == {7.0}
    assert any("2 / learning rate" in text.get_text() for text in ax.get_legend().get_texts())
    assert ax.get_yscale() == "linear"
    far = edge_of_stability(result(thresholds=np.full(3, 700.0)))
    low, high = far.get_ylim()
    assert far.get_yscale() == "log" and low < 1.0 and high > 700.0  # what is far below the threshold keeps its shape
    assert edge_of_stability(result(thresholds=np.full(3, 700.0), eigenvalues=-result().eigenvalues)).get_yscale() == "linear"
    without = edge_of_stability(result(thresholds=np.full(3, np.nan)))
    assert not without.findobj(lambda a: a.get_gid() == "threshold")
    adam = edge_of_stability(result(method="adam", momentum=0.9))
    assert any("0.9" in text.get_text() for text in adam.get_legend().get_texts())


def test_overview_has_four_panels(tmp_path):
    panels = evolution_overview(result())
    assert len(panels) == 4 and artist(panels[2], "overlap").get_ydata()[1:].tolist() == [0.5, 0.9]
    assert artist(panels[3], "loss").get_ydata().tolist() == [1.0, 0.5, 0.1] and panels[3].get_yscale() == "log"
    panels[0].figure.savefig(tmp_path / "o.png")
    with pytest.raises(ValueError, match="four panels"):
        evolution_overview(result(), panels[:2])


def test_one_moment_and_a_multiple_of_the_identity():
    flat = ls.spectral_density(ls.identity(20), num_steps=2)
    one = result(steps=np.zeros(1), spectra=[flat], eigenvalues=np.ones((1, 1)), thresholds=np.full(1, np.nan), overlaps=np.full(1, np.nan),
                 gradient_overlaps=np.ones(1), loss=np.zeros(1), gradient_norms=np.zeros(1))  # fmt: skip
    evolution_overview(one)[0].figure.canvas.draw()
    spectrum_ridge(one).figure.canvas.draw()
