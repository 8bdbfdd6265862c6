"""Two measured spectra: how often one matrix is called two, what a difference is found by, and exact distances."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

import linop_spectra as ls
from linop_spectra.spectra import two_sample
from linop_spectra.spectra.compare import Distance, compare

UNIFORM = np.linspace(0.0, 1.0, 500)
SPIKED = np.r_[np.linspace(-1.0, 1.0, 590), np.arange(5.0, 15.0)]


def measured(eigenvalues, seed, steps=30, probes=2, **kwargs):
    return ls.spectral_density(ls.diagonal_operator(eigenvalues), num_steps=steps, num_probes=probes, seed=seed, **kwargs)


@pytest.mark.parametrize("eigenvalues, steps, probes", [
    (UNIFORM, 12, 1), (SPIKED, 24, 2), (1 / np.arange(1.0, 601.0), 20, 1),
], ids=["uniform", "spiked", "power law"])  # fmt: skip
def test_one_spectrum_is_called_two_as_often_as_the_level_says(eigenvalues, steps, probes):
    """Rejections of a true null are binomial: of 120 pairs at 5 %, more than 14 have probability 0.001; and p-values fill (0, 1)."""
    moments, together = [], []
    for trial in range(120):
        a, b = (measured(eigenvalues, 2 * trial + i, steps, probes) for i in (0, 1))
        first, second, _ = two_sample.samples(a, b)
        moments.append(two_sample.smooth_test(first, second, 199, np.random.default_rng(trial))[0])
        together.append(min(1.0, 2 * min(moments[-1], two_sample.eigenvalue_test(a, b)[0])))
    limit = stats.binom.ppf(0.999, 120, 0.05)
    assert np.sum(np.array(moments) <= 0.05) <= limit and np.sum(np.array(together) <= 0.05) <= limit
    assert 0.3 < np.median(moments) < 0.75 and min(moments) < 0.2


def test_scale_and_shape_are_found():
    a = measured(UNIFORM, 0, probes=4)
    assert compare(a, measured(1.08 * UNIFORM, 1, probes=4)).distinguishable
    assert compare(a, measured(np.linspace(0, 1, 500) ** 1.3, 1, probes=4)).distinguishable
    assert not compare(a, measured(UNIFORM, 1, probes=4)).distinguishable


def test_an_eigenvalue_that_only_one_has_is_named():
    moved = SPIKED.copy()
    moved[-1] += 0.01
    result = compare(measured(SPIKED, 0), measured(moved, 1))
    assert result.distinguishable and result.num_common == 9
    assert min(abs(result.missing["value"] - 14.0), abs(result.missing["value"] - 14.01)) < 1e-6
    assert f"{result.missing['value']:.6g}" in result.verdict and "no room" in result.verdict
    assert result.largest_eigenvalue.value == pytest.approx(0.01, abs=1e-9)


def test_equal_eigenvalues_are_set_aside():
    """Ten pinned eigenvalues are common, and what is left is the bulk of 590."""
    a, b = measured(SPIKED, 0), measured(SPIKED, 1)
    first, second, common = two_sample.samples(a, b)
    np.testing.assert_allclose(common, np.arange(5.0, 15.0), atol=1e-9)
    assert first.n == second.n == 590 and first.pooled[0].max() < 1.0 + 1e-9
    result = compare(a, b)
    assert not result.distinguishable and result.num_common == 10


# Isolated eigenvalues at every distance from the bulk: some converge only where the probe has much of them.
SCATTERED = np.r_[np.linspace(-1.0, 1.0, 380), 1.15, 1.3, 1.5, 1.8, 2.2, 2.7, 3.4, 4.2, 5.3, 7.0]


def test_an_eigenvalue_that_both_have_found_speaks_for_nothing():
    """Of 120 pairs of runs at 5 %, more than 14 false calls have probability 0.001; none ever names what both runs have pinned."""
    p_values = []
    for trial in range(120):
        a, b = (measured(SCATTERED, 2 * trial + i, 26) for i in (0, 1))
        p_value, missing = two_sample.eigenvalue_test(a, b)
        common = two_sample.samples(a, b)[2]
        assert len(common) >= 6
        assert missing is None or np.min(np.abs(common - missing.value)) > 1e-6
        p_values.append(p_value)
    assert np.sum(np.array(p_values) <= 0.05) <= stats.binom.ppf(0.999, 120, 0.05)


def test_an_eigenvalue_with_little_weight_is_found_all_the_same():
    """A start vector that barely meets the largest eigenvalue, which yet converges: there is room for it, as it is there."""
    start = np.random.default_rng(0).standard_normal(len(SPIKED))
    start[-1] = 1e-6
    a, b = measured(SPIKED, 0), ls.SpectralDensity(ls.lanczos(ls.diagonal_operator(SPIKED), 40, start=start))
    assert b.deflation.atoms[-1].value == pytest.approx(14.0, abs=1e-9) and b.deflation.atoms[-1].weight < 1e-14
    assert two_sample.eigenvalue_test(a, b)[0] > 0.05


def test_a_moved_eigenvalue_is_always_found():
    moved = SCATTERED.copy()
    moved[-5] += 0.05
    for trial in range(8):
        a, b = measured(SCATTERED, 2 * trial, 40), measured(moved, 2 * trial + 1, 40)
        p_value, missing = two_sample.eigenvalue_test(a, b)
        assert p_value < 0.005 and min(abs(missing.value - moved[-5]), abs(missing.value - SCATTERED[-5])) < 1e-6


def test_a_density_equals_itself():
    a = measured(SPIKED, 0)
    result = compare(a, a)
    assert result.p_value > 0.5 and float(result.wasserstein) == 0.0 and float(result.kolmogorov) == 0.0
    assert float(result.jensen_shannon) == pytest.approx(0.0, abs=1e-12) and result.trace.value == 0.0


def test_distance_and_its_interval_hold_the_truth():
    """Of uniform spectra on [0, 1] and [0, 1.5]: the Wasserstein distance is the difference of the means, 0.25; the Kolmogorov one 1/3."""
    result = compare(measured(UNIFORM, 0, probes=4), measured(1.5 * UNIFORM, 1, probes=4))
    error = np.hypot(1, 1.5) * np.sqrt(2 / (4 * 502) / 12)  # of the difference of the means
    assert result.wasserstein.low <= 0.25 <= result.wasserstein.high and result.wasserstein.value == pytest.approx(0.25, abs=4 * error)
    assert result.kolmogorov.low <= 1 / 3 <= result.kolmogorov.high
    assert result.wasserstein.beyond_chance and result.kolmogorov.beyond_chance and result.jensen_shannon.beyond_chance
    low, high = result.trace.confidence_interval(0.999)
    assert low <= 125.0 <= high


def test_null_distances_are_those_of_runs_on_one_spectrum():
    """Mean over 40 true pairs of runs against the null that a single pair predicts."""
    runs = [measured(UNIFORM, seed, 16, 1) for seed in range(80)]
    truth = np.array([ls.wasserstein_distance(a, b) for a, b in zip(runs[::2], runs[1::2], strict=True)])
    nulls = [compare(a, b, num_bootstrap=99).wasserstein.null for a, b in zip(runs[:10:2], runs[1:10:2], strict=True)]
    assert np.mean(nulls) == pytest.approx(truth.mean(), abs=5 * truth.std() / np.sqrt(40))


def test_jensen_shannon_of_smoothed_points_is_known():
    """Two points far apart share nothing: log 2. Two at a distance of one bandwidth: by quadrature."""
    far = two_sample.Smoother(np.array([0.0, 100.0]), 1.0)
    one, other = (far.masses(np.array([x]), np.ones(1)) for x in (0.0, 100.0))
    assert float(two_sample.jensen_shannon(one, other)) == pytest.approx(np.log(2), abs=1e-12)
    near = two_sample.Smoother(np.array([0.0, 1.0]), 1.0)
    x = np.linspace(-12, 13, 20001)
    p, q = stats.norm.pdf(x), stats.norm.pdf(x, 1.0)
    exact = np.trapezoid(0.5 * p * np.log(2 * p / (p + q)) + 0.5 * q * np.log(2 * q / (p + q)), x)
    found = two_sample.jensen_shannon(*(near.masses(np.array([place]), np.ones(1)) for place in (0.0, 1.0)))
    assert float(found) == pytest.approx(exact, rel=0.01)


def test_moments_have_unit_variance():
    """The differences of orthonormal moments are standard normal when both runs see one spectrum."""
    z = []
    for trial in range(150):
        a, b = (measured(UNIFORM, 2 * trial + i, 10, 1) for i in (0, 1))
        first, second, _ = two_sample.samples(a, b)
        z.append(two_sample.smooth_test(first, second, 19, np.random.default_rng(0))[1][:5])
    z = np.array(z)
    assert np.all(np.abs(z.mean(axis=0)) < 4 / np.sqrt(150))
    assert np.all(np.abs(z.var(axis=0) - 1) < 4.5 * np.sqrt(2 / 150))


def test_complex_operators():
    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.standard_normal((150, 150)) + 1j * rng.standard_normal((150, 150)))[0]
    a, b = ((q * np.linspace(0, top, 150)) @ q.conj().T for top in (1.0, 1.4))
    a, b = (ls.aslinearoperator((x + x.conj().T) / 2, hermitian=True) for x in (a, b))
    assert not compare(a, a, num_steps=15, num_probes=3).distinguishable
    assert compare(a, b, num_steps=15, num_probes=3).distinguishable
    first = two_sample.samples(*(ls.spectral_density(a, num_steps=5, num_probes=3, seed=s) for s in (0, 1)))[0]
    assert first.variance == pytest.approx(1 / (3 * 151))


def test_operators_of_other_orders_and_whole_spectra():
    result = compare(ls.diagonal_operator(UNIFORM), ls.diagonal_operator(np.linspace(0, 1, 800)), num_steps=20)
    assert not result.distinguishable and result.num_matvecs > 0 and any("orders differ" in note for note in result.notes)
    small = np.array([1.0, 2.0, 3.0, 5.0])
    assert not compare(ls.diagonal_operator(small), ls.diagonal_operator(small), num_steps=4).distinguishable
    changed = compare(ls.diagonal_operator(small), ls.diagonal_operator(small + np.array([0, 0, 0, 1e-3])), num_steps=4)
    assert changed.distinguishable and changed.p_values["eigenvalues"] < 1e-4
    identity = compare(ls.identity(30), ls.identity(30), num_steps=3)
    assert not identity.distinguishable and float(identity.wasserstein) < 1e-12


def test_one_eigenvalue_and_multiples_of_the_identity():
    assert compare(ls.identity(30), 2 * ls.identity(30), num_steps=3).distinguishable
    assert compare(ls.diagonal_operator(np.ones(1)), ls.diagonal_operator(np.array([2.0])), num_steps=1).distinguishable
    assert not compare(ls.diagonal_operator(np.zeros(5)), ls.diagonal_operator(np.zeros(5)), num_steps=1).distinguishable


def test_same_probes_are_said():
    a = measured(UNIFORM, 0)
    assert any("same probes (seed 0)" in note for note in compare(a, measured(UNIFORM * 1.001, 0)).notes)
    assert not compare(a, measured(UNIFORM, 3)).notes


def test_without_reorthogonalisation_copies_speak_for_nothing():
    values = np.r_[np.linspace(-1, 1, 400), 40.0, 50.0]
    a, b = (measured(values, seed, 60, reorthogonalize="none") for seed in (0, 1))
    result = compare(a, b)
    assert not result.distinguishable and result.num_common == 0 and result.p_values["eigenvalues"] == 1.0


def test_probabilities_are_said_as_far_as_they_are_known():
    """A product of bounds may underflow, and 999 draws know nothing below 0.001: neither is a probability to print."""
    draws = compare(measured(UNIFORM, 0, probes=4), measured(1.08 * UNIFORM, 1, probes=4))
    assert draws.p_value == pytest.approx(0.002) and "(p <= 0.002)" in draws.verdict
    bounds = compare(measured(SPIKED, 0), measured(1.1 * SPIKED, 1))
    assert bounds.p_value < 1e-20 and "(p < 1e-4)" in bounds.verdict and "p = 0" not in str(bounds)
    assert "(p = 0.000123)" in dataclasses.replace(bounds, p_value=0.000123).verdict
    same = measured(SPIKED, 0)
    assert "(p = 1, level" in compare(same, same).verdict


def test_save_and_words(tmp_path):
    result = compare(measured(SPIKED, 0), measured(1.1 * SPIKED, 1))
    result.save(tmp_path / "c.npz")
    again = ls.load(tmp_path / "c.npz")
    assert str(again) == str(result) and again.p_value == result.p_value and again.wasserstein == result.wasserstein
    np.testing.assert_array_equal(again.curves["cdf_a"], result.curves["cdf_a"])
    assert "different" in str(result) and "Wasserstein" in str(result) and "verdict" in result._repr_html_()
    assert isinstance(again.kolmogorov, Distance)


@pytest.mark.parametrize("options, words", [
    ({"level": 0.0}, "level"), ({"num_bootstrap": 5}, "at least 19"), ({"bandwidth": -1.0}, "bandwidth"), ({"confidence": 2}, "confidence"),
])  # fmt: skip
def test_wrong_options_are_named(options, words):
    a = measured(UNIFORM, 0)
    with pytest.raises(ValueError, match=words):
        compare(a, a, **options)


def test_a_law_is_sent_to_the_test_for_laws():
    with pytest.raises(TypeError, match=r"random_matrices\.compare"):
        compare(measured(UNIFORM, 0), ls.random_matrices.Semicircle())
