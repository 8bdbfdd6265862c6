"""Metrics of a spectrum against the eigenvalues themselves, and against limits of random matrices."""

import dataclasses

import numpy as np
import pytest
from helpers import goe, rotated
from scipy import stats

import linop_spectra as ls
from linop_spectra.curvature import metrics

INDEFINITE = np.r_[np.linspace(-1.0, 1.0, 60), 3.0, 4.5, -2.0]
FUNCTIONS = {
    "trace": np.sum,
    "frobenius_norm": np.linalg.norm,
    "nuclear_norm": lambda w: np.abs(w).sum(),
    "largest_eigenvalue": np.max,
    "smallest_eigenvalue": np.min,
    "spectral_norm": lambda w: np.abs(w).max(),
    "stable_rank": lambda w: (w**2).sum() / np.abs(w).max() ** 2,
    "intrinsic_dimension": lambda w: w.sum() / np.abs(w).max(),
    "participation_ratio": lambda w: w.sum() ** 2 / (w**2).sum(),
    "spectral_entropy": lambda w: stats.entropy(np.abs(w)),
    "effective_rank": lambda w: np.exp(stats.entropy(np.abs(w))),
    "negative_mass": lambda w: np.mean(w < -1e-9),
    "negative_energy": lambda w: -w[w < 0].sum() / np.abs(w).sum(),
    "negative_ratio": lambda w: max(-w.min(), 0.0) / w.max(),
    "goldilocks_ratio": lambda w: w.sum() / np.linalg.norm(w),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_intervals_hold_the_value_and_full_runs_are_exact(name):
    truth = float(FUNCTIONS[name](INDEFINITE))
    operator = ls.aslinearoperator(rotated(INDEFINITE), hermitian=True)
    full = getattr(metrics, name)(ls.spectral_density(operator, num_steps=len(INDEFINITE)))
    assert full.value == pytest.approx(truth, abs=1e-9) and full.name == name and full.note
    for seed in range(5):
        low, high = getattr(metrics, name)(ls.spectral_density(operator, num_steps=20, num_probes=3, seed=seed)).confidence_interval(0.999)
        assert low <= truth <= high


@pytest.mark.parametrize("name", ["trace", "frobenius_norm", "nuclear_norm", "effective_rank", "largest_eigenvalue"])
def test_an_operator_serves_like_a_density(name):
    operator = ls.aslinearoperator(rotated(INDEFINITE), hermitian=True)
    low, high = getattr(metrics, name)(operator).confidence_interval(0.999)
    assert low <= FUNCTIONS[name](INDEFINITE) <= high


def test_options_do_not_go_with_a_density():
    S = ls.spectral_density(ls.identity(20))
    with pytest.raises(TypeError, match="num_steps"):
        metrics.largest_eigenvalue(S, num_steps=3)


@pytest.mark.parametrize("upper", [True, False])
def test_an_eigenvalue_beyond_the_interval_is_rare(upper):
    """After a few steps the Ritz value is far from the edge of 200 random matrices; the bound holds nevertheless."""
    rng, misses, far = np.random.default_rng(3), 0, 0
    for seed in range(200):
        matrix = goe(80, rng)
        matrix[0, 0] += 3.0 if upper else -3.0
        w = np.linalg.eigvalsh(matrix)
        S = ls.spectral_density(ls.aslinearoperator(matrix, hermitian=True), num_steps=4, num_probes=1, seed=seed)
        found = metrics.largest_eigenvalue(S) if upper else metrics.smallest_eigenvalue(S)
        truth = w[-1] if upper else w[0]
        low, high = found.confidence_interval()
        misses += not low <= truth <= high
        far += abs(truth - found.value) > 0.1
        assert found.value <= truth + 1e-12 if upper else found.value >= truth - 1e-12
    assert misses == 0 and far > 100


def test_a_residual_norm_alone_would_miss_the_largest_eigenvalue():
    """An eigenvalue that the probe hardly meets: the Ritz pair below it has converged, and the bound still reaches up to it."""
    n = 60
    w = np.r_[np.linspace(0.0, 1.0, n - 2), 1.5, 2.0]
    S = ls.spectral_density(ls.diagonal_operator(w), num_steps=7, num_probes=1)
    alphas, betas = _coefficients_from(w, np.r_[np.ones(n - 1), 1e-3], 7)
    run = dataclasses.replace(S.run, alphas=alphas[None, :], betas=betas[None, :])
    found = metrics.largest_eigenvalue(dataclasses.replace(S, run=run))
    assert found.value + run.residual_norms[0, -1] < 1.9
    assert found.confidence_interval()[1] > 2.0


def _coefficients_from(w, start, steps):
    run = ls.lanczos(ls.diagonal_operator(w), steps, start=start)
    return run.jacobi(0)


def test_condition_numbers_by_their_definitions():
    w = np.r_[0.0, 0.5, 1.0, 2.0, 8.0]
    S = ls.spectral_density(ls.diagonal_operator(w))
    assert metrics.condition_number(S, damping=1.0).value == pytest.approx(9.0)
    assert metrics.condition_number(S, rank=3).value == pytest.approx(8.0)
    assert metrics.condition_number(S, rank=3).note == "largest / number 3 from the top"
    with pytest.raises(ValueError, match="damping"):
        metrics.condition_number(S)
    with pytest.raises(ValueError, match="rank"):
        metrics.condition_number(S, rank=6)
    with pytest.raises(ValueError, match="has not converged"):
        metrics.condition_number(ls.spectral_density(ls.aslinearoperator(goe(300, np.random.default_rng(0))), num_steps=5), rank=4)


def test_effective_dimension_of_a_wishart_matrix():
    """The law of Marchenko and Pastur: c = 0.5 and a damping of 0.1 leave 0.85167 of the order, c = 2 leaves 0.45779."""
    for ratio, share in ((0.5, 0.85167), (2.0, 0.45779)):
        p = 400
        A = ls.random_matrices.wishart(p, round(p / ratio), seed=0)
        assert metrics.effective_dimension(A, damping=0.1, num_steps=60).value / p == pytest.approx(share, abs=0.01)


def test_goldilocks_ratios_of_random_matrices():
    p, ratio = 400, 0.25
    A = ls.random_matrices.wishart(p, round(p / ratio), seed=1)
    found = metrics.goldilocks_ratio(A)
    assert found.value == pytest.approx(np.sqrt(p / (1 + ratio)), rel=0.02)
    # In a plane of dimension d the matrix is a Wishart matrix again, of ratio d / n.
    d, n = 20, round(p / ratio)
    plane = metrics.goldilocks_ratio(A, plane_dimension=d, num_planes=6, seed=2)
    assert abs(plane.value - np.sqrt(d / (1 + d / n))) < 5 * plane.standard_error + 0.01
    assert plane.num_matvecs == 6 * d
    values = [metrics.goldilocks_ratio(goe(40, np.random.default_rng(s)), num_steps=40).value for s in range(60)]
    assert abs(np.mean(values)) < 4 * np.sqrt(2 / 40 / 60)
    assert np.var(values) == pytest.approx(2 / 40, rel=4 * np.sqrt(2 / 60))


def test_planes_of_full_dimension_see_the_matrix_itself():
    matrix = rotated(INDEFINITE)
    n = len(INDEFINITE)
    plane = metrics.goldilocks_ratio(matrix, plane_dimension=n, num_planes=1)
    assert plane.value == pytest.approx(INDEFINITE.sum() / np.linalg.norm(INDEFINITE), rel=1e-6)
    assert metrics.positive_share(matrix, plane_dimension=n, num_planes=1).value == pytest.approx(np.mean(INDEFINITE > 0))
    with pytest.raises(ValueError, match="plane_dimension"):
        metrics.goldilocks_ratio(matrix, plane_dimension=n + 1)


def test_positive_semidefinite_matrices_have_no_negative_part():
    w = np.r_[np.zeros(40), np.linspace(0.5, 1.0, 40)]
    S = ls.spectral_density(ls.aslinearoperator(rotated(w), hermitian=True), num_steps=30)
    mass = metrics.negative_mass(S)
    assert mass.confidence_interval()[0] == 0.0 and mass.value < 0.3
    assert metrics.negative_energy(S).value < 1e-9 and metrics.negative_ratio(S).value < 1e-9


def test_negative_mass_with_a_bulk_at_zero_is_bracketed():
    w = np.r_[np.linspace(-1.0, -0.2, 30), np.zeros(40), np.linspace(0.2, 1.0, 30)]
    for seed in range(10):
        operator = ls.aslinearoperator(rotated(w, seed), hermitian=True)
        low, high = metrics.negative_mass(ls.spectral_density(operator, num_steps=20, seed=seed)).confidence_interval(0.999)
        assert low <= 0.3 <= high


@pytest.mark.parametrize("name", ["stable_rank", "participation_ratio", "spectral_entropy", "goldilocks_ratio", "negative_energy"])
def test_the_zero_operator_is_refused(name):
    with pytest.raises(ValueError, match="is zero"):
        getattr(metrics, name)(ls.diagonal_operator(np.zeros(5)))


def test_logdet_of_an_indefinite_density_is_refused():
    S = ls.spectral_density(ls.diagonal_operator(np.array([-1.0, 2.0])))
    assert metrics.logdet(S, damping=2.0).value == pytest.approx(np.log(4.0))
    with pytest.raises(ValueError, match="not positive definite"):
        metrics.logdet(S, damping=0.5)
    with pytest.raises(ValueError, match="damping"):
        metrics.effective_dimension(S, damping=0.0)
