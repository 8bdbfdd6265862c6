"""The multiplicity guard: simple eigenvalues are pinned, multiple ones never when two probes look."""

import functools

import numpy as np
import pytest
from helpers import rotated

import linop_spectra as ls

BULK = np.linspace(-1, 1, 190)


@functools.cache
def operator(eigenvalues, dtype, basis):
    """One operator for all seeds: the uniform basis takes longer to make than a run."""
    if basis == "diagonal":
        return ls.diagonal_operator(np.array(eigenvalues, dtype))
    return ls.aslinearoperator(rotated(eigenvalues, 0, dtype), hermitian=True)


def density(eigenvalues, seed, dtype=np.float64, probes=2, basis="diagonal", steps=40, **options):
    A = operator(tuple(map(float, eigenvalues)), dtype, basis)
    return ls.spectral_density(A, num_steps=steps, num_probes=probes, seed=seed, **options)


def pinned_at(S, value):
    return int(np.sum(np.abs(S.deflation.pinned - value) < 1e-3))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("steps", [30, 50])
def test_two_probes_see_every_multiplicity(steps, dtype):
    """In the longer run rounding brings further copies of the eigenvalue in, of no weight at all: they are no simple eigenvalues either."""
    multiple = {5.0: 2, 6.0: 3, 7.5: 9}
    eigenvalues = np.r_[BULK, np.repeat(list(multiple), list(multiple.values())), 9.0]
    for seed in range(100):
        S = density(eigenvalues, seed, dtype, basis="diagonal" if dtype != np.complex128 else "rotated", steps=steps)
        assert [pinned_at(S, value) for value in multiple] == [0, 0, 0], seed
        assert all(np.abs(S.nodes - value).min() < 1e-3 for value in multiple), seed  # all have converged, and could have been


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("basis", ["diagonal", "rotated"])
def test_two_probes_pin_simple_eigenvalues(basis, dtype):
    """All ten, for every seed, in single precision too, which is what trained networks come in."""
    outliers = np.linspace(5, 20, 10)
    for seed in range(25):
        S = density(np.r_[BULK, outliers], seed, dtype, basis="rotated" if dtype == np.complex128 else basis)
        for value in outliers:
            assert pinned_at(S, value) == 1, (seed, value)
        assert S.deflation.verified and not S.deflation.objections


@pytest.mark.parametrize("probes", [2, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_outliers_do_not_vanish_with_more_steps(dtype, probes):
    """Once converged, an outlier stays found, however many steps follow; a fresh rounding error is no reason to lose it."""
    found = {
        steps: len(density(np.r_[BULK, np.linspace(5, 20, 10)], 0, dtype, probes, "rotated", steps).outliers())
        for steps in (30, 40, 50, 64)
    }
    assert set(found.values()) == {10}, found


def test_one_probe_documented_behaviour():
    """One probe judges by chance: it pins simple outliers in nearly all cases, and cannot see a double eigenvalue."""
    simple = [pinned_at(density(np.r_[BULK, 6.0], seed, probes=1), 6.0) for seed in range(100)]
    assert sum(simple) >= 97
    many = [pinned_at(density(np.r_[BULK, [6.0] * 60], seed, probes=1), 6.0) for seed in range(50)]
    assert sum(many) == 0  # weight 60 / n is no chance, and the copies that rounding adds are no eigenvalues
    assert not density(np.r_[BULK, 6.0], 0, probes=1).deflation.verified
    assert "no second probe has tested" in density(np.r_[BULK, 6.0], 0, probes=1).explain()


def test_the_measure_is_right_for_multiple_eigenvalues():
    """Left as measured, they carry their mass on average; the simple one beside them is exact."""
    n, eigenvalues = 200, np.r_[BULK, [6.0] * 9, 9.0]
    weights = []
    for seed in range(100):
        S = density(eigenvalues, seed)
        weights.append(S.weights[np.abs(S.nodes - 6) < 1e-6].sum())
        assert S.weights[np.abs(S.nodes - 9) < 1e-6].sum() == pytest.approx(1 / n, rel=1e-9)
    # Mean of chi^2_9 / n over two probes and a hundred seeds.
    assert np.mean(weights) == pytest.approx(9 / n, abs=5 * np.sqrt(18 / 200) / n)


@pytest.mark.parametrize("steps", [20, 40, 80])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_copies_that_rounding_makes_are_one_node_with_the_mass_of_all(dtype, steps):
    """A multiple eigenvalue comes again once it has converged, and the copies share its mass as rounding has it."""
    values = np.r_[np.zeros(120), np.random.default_rng(0).uniform(3, 5, 60), [9.0] * 20]
    S = ls.spectral_density(ls.diagonal_operator(values.astype(dtype)), num_steps=steps, num_probes=3)
    for probe, rule in enumerate(S.deflation.rules):
        start = ls.to_numpy(S.run.vectors.bases[probe].row(0)).astype(float)
        for place in (0.0, 9.0):
            (near,) = np.flatnonzero(np.abs(rule.nodes - place) < 1e-3)
            assert rule.weights[near] == pytest.approx(np.sum(start[values == place] ** 2), rel=1e3 * float(np.finfo(dtype).eps))
            assert S.deflation.sharp[probe][near]
        assert np.all(np.diff(rule.nodes) > 0) and rule.weights.sum() == pytest.approx(1, abs=1e-12)
        np.testing.assert_allclose(np.linalg.norm(rule.vectors, axis=0), 1, atol=1e-12)
    places = [atom.value for atom in S.deflation.atoms if not atom.simple]
    assert min(np.abs(places)) < 1e-4 and np.abs(np.array(places) - 9).min() < 1e-4


def test_outliers_report_multiplicity_and_residual():
    S = density(np.r_[BULK, [6.0] * 9, 9.0], 1, probes=6)
    six, nine = S.outliers()[-2:]
    assert (six.simple, nine.simple) == (False, True)
    assert six.multiplicity == pytest.approx(9, abs=5 * np.sqrt(18 / 6)) and nine.weight == pytest.approx(1 / 200, rel=1e-12)
    assert six.residual_norm < 1e-6 and nine.value == pytest.approx(9, abs=1e-6)
    assert "look there for multiplicity" in S.explain()


@pytest.mark.parametrize("gap, simple", [(1e-1, True), (1e-12, False)])
def test_nearly_equal_eigenvalues(gap, simple):
    """What the run resolves is pinned one by one; what it cannot resolve counts as multiple."""
    for seed in range(20):
        S = density(np.r_[BULK, 6.0, 6.0 + gap], seed)
        assert len(S.deflation.pinned[S.deflation.pinned > 5]) == (2 if simple else 0)


@pytest.mark.parametrize("flag, pins", [(True, True), (False, False), ("auto", True)])
def test_deflate_flag(flag, pins):
    S = density(np.r_[BULK, 6.0], 0, deflate=flag)
    assert S.pin is pins and (len(S.deflation.pinned) > 0) is pins
    assert S.weights.sum() == pytest.approx(1, abs=1e-12)


def test_without_a_basis_nothing_is_pinned():
    S = density(np.r_[BULK, 6.0], 0, reorthogonalize="none")
    assert not S.pin and len(S.deflation.pinned) == 0 and "without reorthogonalisation" in S.notes[0]
    with pytest.raises(ValueError, match="deflate=True needs the whole basis"):
        density(np.r_[BULK, 6.0], 0, reorthogonalize="none", deflate=True)
    with pytest.raises(ValueError, match="argument deflate must be True, False or 'auto'"):
        density(np.r_[BULK, 6.0], 0, deflate="yes")
