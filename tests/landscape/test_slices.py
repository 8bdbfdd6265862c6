"""Curvature along random directions, beside the law of a known spectrum."""

import dataclasses

import numpy as np
import pytest
from landscape_networks import MAKERS, classifier

import linop_spectra as ls
import linop_spectra.landscape as landscape

VALUES = np.r_[np.linspace(-1, 1, 480), np.full(4, 30.0)]
A = ls.diagonal_operator(VALUES)


@pytest.fixture(scope="module")
def spectrum():
    return ls.spectral_density(A, num_steps=64, num_probes=8)


def test_predictions_of_a_known_spectrum(spectrum):
    found = landscape.slices(A, 40, spectrum=spectrum)
    n = len(VALUES)
    deviation = np.sqrt(2 * VALUES.var() / (n + 2))
    assert abs(found.predicted_mean - VALUES.mean()) < 4 * spectrum.expectation(lambda x: x).standard_error + 1e-12
    assert found.predicted_deviation == pytest.approx(deviation, rel=0.35)
    assert found.largest_eigenvalue == pytest.approx(30.0)
    assert abs(found.curvatures.mean() - VALUES.mean()) < 5 * deviation / np.sqrt(40)
    assert 0.5 < found.curvatures.std(ddof=1) / deviation < 1.7
    assert found.squared_norms.mean() == pytest.approx(np.mean(VALUES**2), rel=0.5)
    low, high = found.trace.confidence_interval(0.999)
    assert low < VALUES.sum() < high
    assert found.num_matvecs == 40 and found.converged


def test_curvatures_are_quadratic_forms():
    found = landscape.slices(A, directions=np.eye(len(VALUES))[:, [3, 480]] * 7.0)
    np.testing.assert_allclose(found.curvatures, VALUES[[3, 480]], rtol=1e-14)
    np.testing.assert_allclose(found.squared_norms, VALUES[[3, 480]] ** 2, rtol=1e-14)
    assert found.kind == "given" and found.num_matvecs > 2


def test_random_slices_agree_and_others_do_not(spectrum):
    """p-values of random slices are at most as small as they say; those of directions that favour a part of the spectrum are tiny."""
    values = [landscape.slices(A, 12, spectrum=spectrum, seed=seed).p_value for seed in range(40)]
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(values) <= level) <= level + 4 * np.sqrt(level * (1 - level) / 40)
    assert np.mean(np.array(values) < 0.7) > 0.1  # the test is not blind
    rng = np.random.default_rng(0)
    favoured = rng.standard_normal((len(VALUES), 12)) * np.where(VALUES > 2, 4.0, 1.0)[:, None]
    assert landscape.slices(A, spectrum=spectrum, directions=favoured).p_value < 0.01
    equal = np.sign(rng.standard_normal((len(VALUES), 12)))  # for a diagonal matrix sign vectors all have the same curvature
    assert landscape.slices(A, spectrum=spectrum, directions=equal).p_value < 0.01
    assert np.isnan(landscape.slices(A, 1, spectrum=spectrum).p_value)


def test_chance_to_meet_the_largest_eigenvalue(spectrum):
    found = dataclasses.replace(landscape.slices(A, 10, spectrum=spectrum), nodes=VALUES, multiplicities=np.ones(len(VALUES)))
    z = np.random.default_rng(0).standard_normal((20_000, len(VALUES))) ** 2
    hits = np.mean(z @ VALUES / z.sum(axis=1) >= 0.02 * 30)
    small = found.chance(0.02, 1)
    assert small == pytest.approx(hits, rel=0.02 + 4 / np.sqrt(20_000 * hits))
    assert found.chance(0.02, 5) == pytest.approx(1 - (1 - small) ** 5, rel=1e-12)
    assert found.chance(0.02) == found.chance(0.02, 10)
    assert found.log10_chance(0.02, 5) == pytest.approx(np.log10(found.chance(0.02, 5)))
    assert found.log10_chance(0.9999999, 10) < -300 and found.chance(1.0) == 0
    with pytest.raises(ValueError, match="between 0 and 1"):
        found.chance(1.5)
    negative = landscape.slices(ls.diagonal_operator(-np.abs(VALUES) - 0.1), 3)
    with pytest.raises(ValueError, match="no positive curvature"):
        negative.chance(0.5)
    assert "chance" not in str(negative) and "chance" in str(found)


@pytest.mark.parametrize("framework", MAKERS)
def test_slices_of_an_objective(framework):
    objective = classifier(framework)
    h = np.asarray(objective.hessian().to_dense())
    found = landscape.slices(objective, 8)
    n = len(h)
    assert found.predicted_mean == pytest.approx(np.trace(h) / n, abs=0.5 * found.predicted_deviation)
    named = landscape.slices(objective, directions=landscape.directions(objective, "filter_normalized", 3))
    d = landscape.directions(objective, "filter_normalized", 3).vectors
    np.testing.assert_allclose(named.curvatures, np.einsum("ik,ij,jk->k", d, h, d) / np.sum(d**2, axis=0), rtol=1e-10)
    assert named.kind == "filter_normalized"


def test_saved_and_cut_short(tmp_path, spectrum):
    found = landscape.slices(A, 30, spectrum=spectrum, time_budget=1e-9)
    assert found.status == "time budget" and len(found.curvatures) == 8
    np.testing.assert_array_equal(found.curvatures, landscape.slices(A, 30, spectrum=spectrum).curvatures[:8])
    found.save(tmp_path / "s.npz")
    again = ls.load(tmp_path / "s.npz")
    assert str(again) == str(found) and again.kind == "random"
    assert again.chance(0.02) == found.chance(0.02)


def test_bad_arguments_are_named(spectrum):
    for arguments, text in [
        ({"num_slices": 0}, "num_slices"),
        ({"spectrum": ls.spectral_density(ls.identity(5))}, "order 484"),
        ({"directions": np.zeros(484)}, "not zero"),
        ({"directions": np.ones((3, 2))}, r"shape \(484, N\)"),
        ({"directions": np.full((484, 1), np.inf)}, "finite"),
        ({"time_budget": 0}, "time_budget"),
    ]:
        with pytest.raises(ValueError, match=text):
            landscape.slices(A, **{"spectrum": spectrum} | arguments)
    with pytest.raises(ValueError, match="complex"):
        landscape.slices(np.array([[1.0, 1j], [-1j, 2.0]]))
    with pytest.raises(ValueError, match="Hermitian"):
        landscape.slices(np.triu(np.ones((9, 9))))
