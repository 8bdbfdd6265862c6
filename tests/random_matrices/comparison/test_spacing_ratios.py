"""Spacing ratios against closed forms, quadrature, small matrices, and the values of Atas et al. (2013)."""

import numpy as np
import pytest
from helpers import CHANCE
from scipy import integrate, stats

import linop_spectra as ls
from linop_spectra.random_matrices.comparison.spacing_ratios import MEAN_RATIOS, SpacingRatios, ratio_density, spacing_ratios


def eigenvalues(ensemble, n, seed):
    return np.linalg.eigvalsh(ls.random_matrices.wigner(n, ensemble=ensemble, seed=seed).to_dense())


def middle(values):
    """Without the edges, where the statistics differ."""
    return values[len(values) // 10 : -len(values) // 10]


@pytest.mark.parametrize(
    "ensemble, mean", [("poisson", 2 * np.log(2) - 1), ("goe", 4 - 2 * np.sqrt(3)), ("gue", 2 * np.sqrt(3) / np.pi - 0.5)]
)
def test_density_has_mass_one_and_the_published_mean(ensemble, mean):
    assert integrate.quad(ratio_density, 0, 1, args=(ensemble,))[0] == pytest.approx(1, abs=1e-10)
    assert integrate.quad(lambda r: r * ratio_density(r, ensemble), 0, 1)[0] == pytest.approx(mean, abs=1e-10)
    assert MEAN_RATIOS[ensemble] == pytest.approx(mean, abs=0.006)
    assert ratio_density(-0.1, ensemble) == ratio_density(1.1, ensemble) == 0 and np.isnan(ratio_density(np.nan, ensemble))


def test_quaternion_density():
    assert integrate.quad(ratio_density, 0, 1, args=("gse",))[0] == pytest.approx(1, abs=1e-10)
    assert integrate.quad(lambda r: r * ratio_density(r, "gse"), 0, 1)[0] == pytest.approx(32 * np.sqrt(3) / (15 * np.pi) - 0.5, abs=1e-9)


@pytest.mark.parametrize("ensemble", ["goe", "gue"])
def test_density_is_exact_for_three_eigenvalues(ensemble):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 3, 3)) + (1j * rng.standard_normal((4000, 3, 3)) if ensemble == "gue" else 0)
    gaps = np.diff(np.linalg.eigvalsh(x + x.conj().transpose(0, 2, 1)), axis=1)
    ratios = gaps.min(axis=1) / gaps.max(axis=1)
    grid = np.linspace(0, 1, 2001)
    cdf = integrate.cumulative_trapezoid(ratio_density(grid, ensemble), grid, initial=0)
    assert stats.kstest(ratios, lambda r: np.interp(r, grid, cdf)).pvalue > CHANCE


@pytest.mark.parametrize("ensemble", ["goe", "gue"])
def test_gaussian_ensembles(ensemble):
    parts = [spacing_ratios(middle(eigenvalues(ensemble, 500, seed))) for seed in range(12)]
    mean = np.mean([part.mean.value for part in parts])
    error = np.sqrt(np.mean([part.mean.standard_error**2 for part in parts]) / len(parts))
    assert error < 0.0045 and abs(mean - MEAN_RATIOS[ensemble]) < 3.3 * error
    pooled = {name: abs(mean - value) / error for name, value in MEAN_RATIOS.items()}
    assert min(pooled, key=pooled.get) == ensemble and all(z > 8 for name, z in pooled.items() if name != ensemble)


def test_independent_eigenvalues_and_the_standard_error():
    rng = np.random.default_rng(1)
    parts = [spacing_ratios(rng.exponential(size=800)) for _ in range(300)]
    means = np.array([part.mean.value for part in parts])
    error = float(np.mean([part.mean.standard_error for part in parts]))
    assert abs(means.mean() - MEAN_RATIOS["poisson"]) < 4 * error / np.sqrt(300)
    assert means.std() / error == pytest.approx(1, abs=4 / np.sqrt(600) + 0.02)
    p_values = [part.p_values["poisson"] for part in parts]
    assert stats.kstest(p_values, "uniform").pvalue > CHANCE


def test_order_shift_and_scale_do_not_matter():
    values = eigenvalues("goe", 60, 0)
    own = spacing_ratios(values)
    assert own.ratios.shape == (58,) and own.num_matvecs == 0
    np.testing.assert_allclose(spacing_ratios(3 * values[::-1] + 7).ratios, own.ratios, rtol=1e-9)
    np.testing.assert_allclose(spacing_ratios([1, 2, 4, 5]).ratios, [0.5, 0.5])


def test_repeated_eigenvalues_are_dropped_and_said():
    values = eigenvalues("goe", 60, 0)
    own = spacing_ratios(values)
    found = spacing_ratios(np.concatenate([values, values[:7] + 1e-15, np.full(3, values[-1])]))
    assert found.num_degenerate == 10 and "10 repeated eigenvalues were dropped" in str(found)
    np.testing.assert_allclose(found.ratios, own.ratios, atol=1e-11)
    assert spacing_ratios([0.0, 0.1, 1.0, 2.0, 3.5], tolerance=0.2).num_degenerate == 1


def test_save_and_print(tmp_path):
    found = spacing_ratios(middle(eigenvalues("goe", 400, 3)))
    found.save(tmp_path / "ratios.npz")
    again = ls.load(tmp_path / "ratios.npz")
    assert isinstance(again, SpacingRatios) and str(again) == str(found) and again.p_values == found.p_values
    np.testing.assert_array_equal(again.ratios, found.ratios)
    assert "real random matrices (GOE)" in str(found) and "mean ratio" in found._repr_html_()


@pytest.mark.parametrize(
    "bad, message",
    [
        ([1.0, 2.0], "has 2 different values among 2"),
        ([], "has 0 different values"),
        (np.ones(50), "has 1 different values among 50"),
        ([1.0, np.nan, 2.0], "holds NaN or infinity"),
        (np.eye(3), "must be a 1-D array of real numbers"),
        (np.arange(5) * 1j, "must be a 1-D array of real numbers"),
    ],
)
def test_bad_eigenvalues_are_named(bad, message):
    with pytest.raises(ValueError, match=message):
        spacing_ratios(bad)


def test_a_density_is_refused():
    density = ls.spectral_density(ls.diagonal_operator(np.linspace(0, 1, 50)), num_steps=10)
    with pytest.raises(TypeError, match="nodes are not eigenvalues"):
        spacing_ratios(density)
    with pytest.raises(ValueError, match="argument ensemble is 'gxe'"):
        ratio_density(0.5, "gxe")
    with pytest.raises(ValueError, match="argument tolerance"):
        spacing_ratios([1.0, 2.0, 3.0], tolerance=-1.0)
