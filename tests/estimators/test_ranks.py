"""Effective dimensions and ranks, against their definitions."""

import numpy as np
import pytest
from helpers import DTYPES, least_hits, random_array, rotated

import linop_spectra as ls
from linop_spectra.estimators import effective_dimension, effective_rank, participation_ratio, spectral_entropy, stable_rank


def entropy(values):
    p = np.abs(values) / np.abs(values).sum()
    p = p[p > 0]
    return -(p * np.log(p)).sum()


QUANTITIES = {
    "effective dimension": (lambda a, **o: effective_dimension(a, 0.2, **o), lambda x: (x / (x + 0.2)).sum()),
    "stable rank": (stable_rank, lambda x: (x**2).sum() / np.abs(x).max() ** 2),
    "participation ratio": (participation_ratio, lambda x: x.sum() ** 2 / (x**2).sum()),
    "spectral entropy": (spectral_entropy, entropy),
    "effective rank": (effective_rank, lambda x: np.exp(entropy(x))),
}
POSITIVE_ONLY = ("effective dimension", "participation ratio")


@pytest.mark.parametrize("name", QUANTITIES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_definitions_on_small_matrices(dtype, name):
    estimate, define = QUANTITIES[name]
    for eigenvalues in (np.linspace(0.3, 2.0, 30), np.linspace(-1, 2.0, 30)):
        if eigenvalues[0] > 0 or name not in POSITIVE_ONLY:
            found = estimate(ls.aslinearoperator(rotated(eigenvalues, 0, dtype), hermitian=True))
            assert found.value == pytest.approx(define(eigenvalues), rel=1e-4)
            assert found.converged and found.num_matvecs >= 30


@pytest.mark.parametrize("spectrum", ["flat", "power law", "outliers"])
@pytest.mark.parametrize("name", QUANTITIES)
def test_intervals_cover(name, spectrum):
    """One run gives all sums, whose errors are correlated: as if they were independent, the interval would be far too wide or narrow."""
    i = np.arange(200.0)
    eigenvalues = {
        "flat": np.linspace(1, 3, 200), "power law": (1 + i) ** -0.5, "outliers": np.r_[np.arange(5.0, 15), np.linspace(0.1, 1, 190)],
    }[spectrum]  # fmt: skip
    (estimate, define), operator = QUANTITIES[name], ls.aslinearoperator(rotated(eigenvalues), hermitian=True)
    true, hits, runs, errors, widths = define(eigenvalues), 0, 30, [], []
    for seed in range(runs):
        found = estimate(operator, num_steps=20, num_probes=2, seed=seed)
        low, high = found.confidence_interval(0.95)
        hits += low <= true <= high
        errors.append(found.value - true)
        widths.append((high - low) / 2)
    assert hits >= least_hits(runs, 0.95)
    # Honest, not merely wide: the half-width is about two standard deviations.
    assert np.mean(widths) <= 4.5 * np.sqrt(np.mean(np.square(errors))) + 1e-6 * true


@pytest.mark.parametrize("name", ["stable rank", "spectral entropy", "effective rank"])
@pytest.mark.parametrize("shape", [(40, 25), (25, 40), (25, 25)])
def test_rectangular_matrices_by_singular_values(shape, name):
    matrix = random_array(shape, np.float64, 3)
    singular = np.linalg.svd(matrix, compute_uv=False)
    estimate, define = QUANTITIES[name]
    assert estimate(matrix).value == pytest.approx(define(singular), rel=1e-5)


@pytest.mark.parametrize("name", QUANTITIES)
def test_scale_does_not_matter(name):
    estimate, define = QUANTITIES[name]
    eigenvalues = np.linspace(0.3, 2.0, 30)
    for scale in (1e-140, 1e140):
        if name != "effective dimension":
            assert estimate(ls.diagonal_operator(scale * eigenvalues)).value == pytest.approx(define(eigenvalues), rel=1e-8)
    found = effective_dimension(ls.diagonal_operator(1e140 * eigenvalues), 0.2e140)
    assert found.value == pytest.approx((eigenvalues / (eigenvalues + 0.2)).sum(), rel=1e-8)


@pytest.mark.parametrize("name", POSITIVE_ONLY)
def test_negative_eigenvalues_are_named(name):
    estimate, _ = QUANTITIES[name]
    with pytest.raises(ValueError, match=f"The {name} is for positive semidefinite operators, but this one certainly has negative"):
        estimate(ls.aslinearoperator(rotated(np.linspace(-1, 2, 100)), hermitian=True))
    # Rounding below zero is not a negative eigenvalue.
    low_rank = random_array((100, 5), np.float64, 0)
    estimate(ls.aslinearoperator(low_rank @ low_rank.T, hermitian=True))


def test_identity_and_zero():
    one, zero = ls.identity(120), ls.diagonal_operator(np.zeros(20))
    assert effective_dimension(one, 1.0).value == pytest.approx(60) and effective_dimension(zero, 1.0).value == 0
    assert all(f(one).value == pytest.approx(120) for f in (stable_rank, participation_ratio, effective_rank))
    for f in (stable_rank, participation_ratio, spectral_entropy, effective_rank):
        with pytest.raises(ValueError, match="operator is zero"):
            f(zero)
        assert f(ls.diagonal_operator(np.array([3.0]))).value == pytest.approx(0 if f is spectral_entropy else 1)


def test_effective_dimension_to_a_tolerance():
    operator = ls.aslinearoperator(rotated(np.linspace(0, 3, 300)), hermitian=True)
    estimate = effective_dimension(operator, 0.5, tol=0.02)
    low, high = estimate.confidence_interval(0.95)
    assert estimate.converged and (high - low) / 2 <= 0.02 * estimate.value


def test_bad_arguments():
    for damping in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="argument damping"):
            effective_dimension(np.eye(3), damping)
    with pytest.raises(ValueError, match="argument tol is for sums"):
        stable_rank(np.eye(3), tol=0.1)
