"""Properties of the figure of a law over a measurement, from plain arrays."""

from types import SimpleNamespace

import numpy as np
import pytest

import linop_spectra as ls
from linop_spectra.plots.law import law_comparison, ratio_histogram
from linop_spectra.random_matrices import MarchenkoPastur, Semicircle
from linop_spectra.random_matrices.comparison.comparison import compare

X = np.linspace(-2.5, 2.5, 200)


def result(**changes):
    law = Semicircle().pdf(X)
    curves = {
        "x": X, "law_density": law, "measured_density": 1.02 * law, "band_low": 0.9 * law, "band_high": 1.1 * law,
        "atom_places": np.zeros(0), "atom_masses": np.zeros(0), "atom_measured": np.zeros(0), "atom_low": np.zeros(0),
        "atom_high": np.zeros(0), "outliers": np.zeros(0), "outlier_weights": np.zeros(0),
        "z_alphas": np.linspace(-1, 1, 8), "z_betas": np.linspace(1, -1, 7),
    } | changes  # fmt: skip
    return SimpleNamespace(law="Semicircle(variance=1)", fitted={}, p_value=0.4, num_bootstrap=99, curves=curves)


def by_gid(axes, gid):
    found = [artist for ax in axes[0].figure.axes for artist in ax.findobj(lambda a: a.get_gid() == gid)]
    assert len(found) <= 1
    return found[0] if found else None


def test_law_measurement_and_band_are_what_was_given():
    axes = law_comparison(result())
    for gid, name in (("law", "law_density"), ("measured", "measured_density")):
        x, y = by_gid(axes, gid).get_data()
        np.testing.assert_array_equal(x, X)
        np.testing.assert_array_equal(y, result().curves[name])
    band = by_gid(axes, "band").get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(1.1 / np.pi, rel=1e-3)
    assert "p = 0.4" in axes[0].get_title(loc="left") and by_gid(axes, "outliers") is None and by_gid(axes, "atoms") is None


def test_coefficients_count_from_one_and_far_ones_are_compressed():
    axes = law_comparison(result())
    steps, z = by_gid(axes, "z_alphas").get_data()
    assert list(steps) == list(range(1, 9)) and axes[1].get_yscale() == "linear"
    np.testing.assert_array_equal(z, np.linspace(-1, 1, 8))
    far = law_comparison(result(z_betas=np.full(7, 300.0)))
    assert far[1].get_yscale() == "symlog" and far[1].get_ylim()[1] > 300
    assert far[1].get_yticks().min() >= -1000 and 0 in far[1].get_yticks()


def test_atoms_are_sticks_of_their_mass():
    axes = law_comparison(
        result(atom_places=np.array([0.0]), atom_masses=np.array([0.75]), atom_measured=np.array([0.7]), atom_low=np.array([0.72]),
               atom_high=np.array([0.78]))
    )  # fmt: skip
    ((stick),) = by_gid(axes, "atoms").get_segments()
    np.testing.assert_allclose(stick, [[0, 0], [0, 0.75]])
    assert by_gid(axes, "measured atoms").get_data()[1] == [0.7]


def test_outliers_are_marked_and_those_beyond_counted():
    axes = law_comparison(result(outliers=np.array([2.3, 50.0]), outlier_weights=np.array([0.01, 0.01])))
    assert list(by_gid(axes, "outliers").get_data()[0]) == [2.3]
    labels = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert "2 outliers, 1 beyond the axis" in labels


def test_smallest_p_value_none_and_fitted():
    given = result()
    given.p_value, given.fitted = 0.01, {"variance": 1.0}
    assert law_comparison(given)[0].get_title(loc="left") == "Semicircle(variance=1), fitted\np ≤ 0.01"
    given.p_value = float("nan")
    assert "no p-value" in law_comparison(given)[0].get_title(loc="left")


def test_infinite_density_at_a_hard_edge():
    law = np.where(X > 0, 1 / np.sqrt(np.maximum(X, 1e-9)), 0.0)
    law[100] = np.inf
    axes = law_comparison(result(law_density=law))
    assert np.isfinite(axes[0].get_ylim()[1]) and axes[0].get_ylim()[1] < 50


@pytest.mark.parametrize("law", [MarchenkoPastur(ratio=4.0), Semicircle()])
def test_results_draw_themselves(law, tmp_path):
    density = ls.spectral_density(ls.random_matrices.wishart(400, 100, seed=0), num_steps=20)
    found = compare(density, law, num_bootstrap=99)
    axes = found.plot(tmp_path / "law.png")
    assert (tmp_path / "law.png").stat().st_size > 20_000 and axes.shape == (2,)
    if law.atoms:
        assert found.curves["atom_measured"][0] == pytest.approx(0.75, abs=0.1)
        assert found.curves["atom_low"][0] < found.curves["atom_measured"][0] < found.curves["atom_high"][0]
        # The density beside the atom does not hold its mass.
        inside = found.curves["x"] > 0.1
        assert np.trapezoid(found.curves["measured_density"][inside], found.curves["x"][inside]) == pytest.approx(0.25, abs=0.08)
    values = np.linalg.eigvalsh(ls.random_matrices.wishart(100, 400, seed=0).to_dense())
    axes = compare(values, MarchenkoPastur(ratio=0.25), num_bootstrap=19).plot()
    assert np.abs(by_gid(axes, "counts").get_data()[1]).max() < 8


def test_measurement_that_follows_the_law_stays_in_the_band():
    density = ls.spectral_density(ls.random_matrices.wigner(1000, seed=0), num_steps=20)
    curves = compare(density, Semicircle(), num_bootstrap=199).curves
    inside = (curves["measured_density"] >= curves["band_low"]) & (curves["measured_density"] <= curves["band_high"])
    bulk = np.abs(curves["x"]) < 1.9
    assert inside[bulk].mean() > 0.8
    other = compare(density, Semicircle(variance=1.5), num_bootstrap=199).curves
    inside = (other["measured_density"] >= other["band_low"]) & (other["measured_density"] <= other["band_high"])
    assert inside[np.abs(other["x"]) < 1.9].mean() < 0.5


def test_ratio_histogram_and_wrong_number_of_axes(tmp_path):
    ratios = np.random.default_rng(0).random(400)
    ax = ratio_histogram(ratios, {"goe": (np.array([0.0, 1.0]), np.array([1.0, 1.0]))}, title="title")
    assert ax.get_title(loc="left") == "title" and [t.get_text() for t in ax.get_legend().get_texts()] == ["400 ratios", "GOE"]
    heights = [patch.get_height() * patch.get_width() for patch in ax.patches]
    assert sum(heights) == pytest.approx(1)
    from linop_spectra.random_matrices.comparison.spacing_ratios import spacing_ratios

    spacing_ratios(ratios).plot(tmp_path / "ratios.png")
    assert (tmp_path / "ratios.png").exists()
    with pytest.raises(ValueError, match="holds 1 axes, but the figure of a comparison has two panels"):
        law_comparison(result(), [ax])
