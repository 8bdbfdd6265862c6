"""Size and power of the tests against laws, what they say, and what they refuse."""

import numpy as np
import pytest
from helpers import least_hits, most_hits
from scipy import stats

import linop_spectra as ls
from linop_spectra.random_matrices import MarchenkoPastur, Semicircle
from linop_spectra.random_matrices.comparison import comparison_statistics as statistics
from linop_spectra.random_matrices.comparison.comparison import Comparison, compare
from linop_spectra.random_matrices.comparison.dirichlet_bootstrap import draw_coefficients
from linop_spectra.random_matrices.laws.discrete_law import DiscreteLaw

rm = ls.random_matrices


def wishart_density(ratio, p=600, seed=1, **options):
    return ls.spectral_density(rm.wishart(p, round(p / ratio), seed=seed), num_steps=40, num_probes=4, seed=seed, **options)


@pytest.fixture(scope="module")
def quarter():
    return wishart_density(0.25)


# -- statistics ------------------------------------------------------------------------------------------------------------------


def test_rules_and_distances_against_scipy_and_the_distribution_functions():
    rng = np.random.default_rng(0)
    alphas, betas = draw_coefficients(Semicircle(), 300, 7, 3, 4, rng)
    nodes, weights = statistics.gauss_rules(alphas, betas)
    other = Semicircle().gauss_rule(7)
    wasserstein, kolmogorov = statistics.distances(nodes, weights, other[0][None], other[1][None])
    for row in range(4):
        assert weights[row].sum() == pytest.approx(1)
        assert weights[row] @ nodes[row] ** 2 == pytest.approx(np.mean(alphas[row, :, 0] ** 2 + betas[row, :, 0] ** 2))
        assert wasserstein[row] == pytest.approx(stats.wasserstein_distance(nodes[row], other[0], weights[row], other[1]))
        between = (other[0][1:] + other[0][:-1]) / 2
        expected = [abs(weights[row][nodes[row] <= x].sum() - other[1][other[0] <= x].sum()) for x in between]
        assert kolmogorov[row] >= max(expected) - 1e-12
        assert kolmogorov[row] <= ls.kolmogorov_distance((nodes[row], weights[row]), other) + 1e-12


def test_combined_p_value_is_exact_for_exchangeable_rows():
    rng = np.random.default_rng(1)
    found = []
    for _ in range(400):
        common = rng.normal(size=40)
        rows = np.stack([common, common + 0.3 * rng.normal(size=40), rng.normal(size=40)])
        found.append(statistics.combined_p_value(np.array([statistics.rank_p_values(row) for row in rows])))
    assert np.mean(np.array(found) <= 0.1) <= most_hits(400, 0.1) / 400
    assert np.mean(np.array(found) <= 0.5) >= least_hits(400, 0.4) / 400


def test_mahalanobis_ranks_the_odd_one_first_and_ignores_what_is_constant():
    rng = np.random.default_rng(2)
    rows = np.concatenate([rng.normal(size=(100, 30)), np.full((100, 2), 7.0)], axis=1)
    rows[0] += 0.8
    assert np.argmax(statistics.mahalanobis(rows)) == 0
    assert np.all(statistics.mahalanobis(np.ones((10, 3))) == 0)
    assert statistics.deviations(np.ones((10, 3))).max() == 0


# -- size and power --------------------------------------------------------------------------------------------------------------


SAMPLES = 70
CASES = {
    "semicircle": (lambda s: rm.wigner(200, seed=s), Semicircle()),
    "complex": (lambda s: rm.wigner(150, seed=s, ensemble="gue"), Semicircle()),
    "marchenko-pastur": (lambda s: rm.wishart(200, 800, seed=s), MarchenkoPastur(ratio=0.25)),
    "atom": (lambda s: rm.wishart(300, 75, seed=s), MarchenkoPastur(ratio=4.0)),
    "fitted": (lambda s: rm.wishart(200, 800, seed=s), "marchenko_pastur"),
}


@pytest.mark.parametrize("name", CASES)
def test_size(name):
    """p-values over true samples: uniform, or larger by what the null's fluctuations overstate."""
    make, law = CASES[name]
    p_values = []
    for seed in range(SAMPLES):
        density = ls.spectral_density(make(seed), num_steps=8, num_probes=2, seed=1000 + seed)
        p_values.append(compare(density, law, num_bootstrap=99, seed=2000 + seed).p_value)
    p_values = np.array(p_values)
    for level in (0.05, 0.1, 0.3):
        assert np.sum(p_values <= level) <= most_hits(SAMPLES, level)
    # Not so conservative either that the test would say nothing.
    assert np.sum(p_values <= 0.3) >= least_hits(SAMPLES, 0.15) and np.sum(p_values <= 0.7) >= least_hits(SAMPLES, 0.55)
    assert stats.kstest(p_values, "uniform", alternative="greater").pvalue > 1e-4


def test_the_law_of_the_matrix_is_accepted_and_half_of_the_samples_is_not(quarter):
    assert compare(quarter, MarchenkoPastur(ratio=0.25)).p_value > 5e-3
    assert compare(quarter, MarchenkoPastur(ratio=0.5)).p_value < 5e-3


def test_negative_control_of_a_scale_five_percent_off(quarter):
    assert compare(quarter, MarchenkoPastur(ratio=0.25, variance=1.05**2)).p_value < 5e-3
    wigner = ls.spectral_density(rm.wigner(1000, seed=4), num_steps=40, num_probes=4)
    assert compare(wigner, Semicircle()).p_value > 5e-3
    for factor in (0.95, 1.05):
        found = compare(wigner, Semicircle(variance=factor**2))
        assert found.p_value < 5e-3 and found.jacobi > 2


def test_negative_control_of_swapped_ratio(quarter):
    wide = wishart_density(4.0)
    assert compare(wide, MarchenkoPastur(ratio=4.0)).p_value > 5e-3
    assert compare(wide, MarchenkoPastur(ratio=0.25)).p_value < 5e-3
    assert compare(quarter, MarchenkoPastur(ratio=4.0)).p_value < 5e-3
    # With the scale swapped too, only the atom at zero and the shape tell them apart.
    assert compare(wide, MarchenkoPastur(ratio=0.25, variance=4.0)).p_value < 5e-3


def test_p_values_do_not_depend_on_unit():
    one = ls.spectral_density(rm.wigner(300, seed=1), num_steps=20)
    for factor in (1e-12, 1e9):
        other = ls.spectral_density(factor * rm.wigner(300, seed=1), num_steps=20)
        a, b = compare(one, Semicircle(), num_bootstrap=99), compare(other, Semicircle(variance=factor**2), num_bootstrap=99)
        assert a.p_values == b.p_values and b.wasserstein == pytest.approx(factor * a.wasserstein, rel=1e-6)


def test_a_law_of_atoms_and_matrices_of_few_eigenvalues():
    places, weights = [1.0, 2.0, 5.0], [0.5, 0.3, 0.2]
    operator = ls.diagonal_operator(np.repeat(places, [500, 300, 200]))
    density = ls.spectral_density(operator, num_steps=20, num_probes=3)
    assert int(density.run.num_steps_taken.max()) == 3
    assert compare(density, DiscreteLaw(places, weights)).p_value > 5e-3
    assert compare(density, DiscreteLaw(places, [0.4, 0.4, 0.2])).p_value < 5e-3
    assert compare(density, Semicircle()).p_value < 5e-3
    identity = ls.spectral_density(ls.identity(200), num_steps=5)
    assert compare(identity, MarchenkoPastur(ratio=0.25)).p_value < 5e-3


# -- families, operators, outliers -----------------------------------------------------------------------------------------------


def spiked(n=800, spikes=(3.0, 5.0), seed=0):
    directions = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, len(spikes))))[0]
    return rm.wigner(n, seed=seed) + ls.low_rank(directions, np.array(spikes))


def test_outliers_are_left_out_on_request():
    density = ls.spectral_density(spiked(), num_steps=40)
    whole, bulk = compare(density, Semicircle()), compare(density, Semicircle(), exclude_outliers=True)
    assert whole.p_value < 5e-3 and whole.excluded == () and "has 2 outliers beside the law" in str(whole)
    assert bulk.p_value > 5e-3 and len(bulk.excluded) == 2 and bulk.dimension == 798
    assert compare(density, Semicircle(variance=1.1), exclude_outliers=True).p_value < 5e-3


def test_an_operator_and_a_family_in_one_call():
    operator = spiked(400)
    found = compare(operator, "semicircle", exclude_outliers=True, num_steps=30, num_probes=2, num_bootstrap=199)
    assert found.p_value > 5e-3 and found.num_matvecs >= 60 and found.num_probes == 2
    assert found.fitted["variance"] == pytest.approx(1, abs=0.1)
    assert "does not" not in str(found) and "p-value is that of the family" in str(found)
    law_itself = compare(operator, Semicircle, exclude_outliers=True, num_steps=30, num_probes=2, num_bootstrap=199)
    assert law_itself.p_values == found.p_values
    assert compare(rm.wishart(400, 800, seed=0), "semicircle").p_value < 5e-3


def test_curvature_of_a_model_is_no_semicircle():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(600, 200)) * np.arange(1, 201) ** -0.5
    gauss_newton = ls.aslinearoperator(features.T @ features / 600)
    found = compare(gauss_newton, "semicircle")
    assert found.p_value < 5e-3 and str(found).startswith("The spectrum does not follow the family of Semicircle")


# -- eigenvalues -----------------------------------------------------------------------------------------------------------------


def test_all_eigenvalues_at_the_scale_of_rigidity():
    values = np.linalg.eigvalsh(rm.wigner(300, seed=0).to_dense())
    assert compare(values, Semicircle(), num_bootstrap=119).p_value > 0.02
    assert compare(values, Semicircle(variance=1.05**2), num_bootstrap=119).p_value < 0.018
    assert compare(3 * values, "semicircle", num_bootstrap=119).p_value > 0.02
    # Independent draws of the law are not rigid.
    independent = Semicircle().quantile(np.random.default_rng(1).random(300))
    assert compare(independent, Semicircle(), num_bootstrap=119).p_value < 0.018
    wide = np.linalg.eigvalsh(rm.wishart(300, 75, seed=0).to_dense())
    assert compare(wide, MarchenkoPastur(ratio=4.0), num_bootstrap=119).p_value > 0.02
    assert compare(wide, MarchenkoPastur(ratio=0.25), num_bootstrap=119).p_value < 0.018
    assert compare(wide, "marchenko_pastur", num_bootstrap=119).p_value > 0.02


def test_size_for_eigenvalues():
    hits = 0
    for seed in range(50):
        values = np.linalg.eigvalsh(rm.wigner(60, seed=seed).to_dense())
        hits += compare(values, Semicircle(), num_bootstrap=59, seed=seed).p_value <= 0.1
    assert least_hits(50, 0.1, 1e-3) <= hits <= most_hits(50, 0.1)


def test_no_null_is_said():
    values = np.linspace(0, 1, 50)
    found = compare(values, DiscreteLaw(values))
    assert np.isnan(found.p_value) and found.p_values == {} and found.wasserstein < 1e-12
    assert "No p-value is known" in str(found) and found.num_bootstrap == 0


# -- results and errors ----------------------------------------------------------------------------------------------------------


def test_save_load_and_print(quarter, tmp_path):
    found = compare(quarter, MarchenkoPastur(ratio=0.25), num_bootstrap=99, tests=["jacobi", "wasserstein"])
    found.save(tmp_path / "comparison.npz")
    again = ls.load(tmp_path / "comparison.npz")
    assert isinstance(again, Comparison) and str(again) == str(found) and again.p_values == found.p_values
    for name, curve in found.curves.items():
        np.testing.assert_array_equal(again.curves[name], curve)
    assert set(found.p_values) == {"jacobi", "wasserstein"} and found.num_matvecs == 0 and found.num_steps == 12
    assert str(found).startswith("The spectrum is consistent with MarchenkoPastur(ratio=0.25, variance=1): p = ")
    assert "p-value" in found._repr_html_()
    assert str(compare(quarter, MarchenkoPastur(ratio=0.25), num_bootstrap=99, tests=["jacobi", "wasserstein"])) == str(found)


def test_num_steps_shortens(quarter):
    found = compare(quarter, MarchenkoPastur(ratio=0.25), num_bootstrap=19, num_steps=5)
    assert found.num_steps == 5 and len(found.curves["z_alphas"]) == 5
    assert "The first 5 of 40 steps were used" in str(found)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_bootstrap": 5}, "argument num_bootstrap must be a whole number of at least 19"),
        ({"seed": -1}, "argument seed"),
        ({"tests": "moments"}, "argument tests is .*must name one or more of 'jacobi'"),
        ({"tests": ()}, "argument tests"),
        ({"beta": 4}, "argument beta must be 1"),
        ({"num_steps": 1}, "argument num_steps"),
    ],
)
def test_bad_options_are_named(quarter, options, message):
    with pytest.raises(ValueError, match=message):
        compare(quarter, Semicircle(), **options)


def test_what_has_no_measure_or_is_no_law(quarter):
    grid = np.linspace(-2, 2, 50)
    with pytest.raises(ValueError, match=r"must hold all eigenvalues of a matrix.*A smoothed curve cannot be tested"):
        compare(np.stack([grid, Semicircle().pdf(grid)]), Semicircle())
    with pytest.raises(TypeError, match=r"has no Lanczos coefficients.*Pass the result of linop_spectra\.spectral_density"):
        compare((grid, Semicircle().pdf(grid)), Semicircle())
    with pytest.raises(TypeError, match="argument density is a KernelPolynomial"):
        compare(ls.KernelPolynomial.__new__(ls.KernelPolynomial), Semicircle())
    with pytest.raises(TypeError, match="argument law is 3; pass a law such as"):
        compare(quarter, 3)
    with pytest.raises(ValueError, match="only 'semicircle'"):
        compare(quarter, "gaussian")
    with pytest.raises(ValueError, match="is 'jacobi' alone"):
        compare(grid, Semicircle(), tests="jacobi")


def test_a_run_that_lost_orthogonality_is_refused():
    operator = ls.diagonal_operator(np.r_[np.linspace(0, 1, 400), 10.0, 20.0])
    density = ls.spectral_density(operator, num_steps=80, reorthogonalize="none")
    with pytest.raises(ValueError, match=r"lost orthogonality.*reorthogonalize='full'"):
        compare(density, Semicircle())
