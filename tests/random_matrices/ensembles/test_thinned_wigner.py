"""Thinned Wigner matrices: exact moments, the atom at zero, the dense limit."""

import numpy as np
import pytest
from helpers import same_law
from scipy import optimize, stats
from scipy.sparse.csgraph import structural_rank

from linop_spectra.random_matrices import Semicircle
from linop_spectra.random_matrices.ensembles.thinned_wigner import thinned_wigner


@pytest.mark.parametrize("ensemble", ["goe", "gue"])
@pytest.mark.parametrize("n, degree", [(12, 3.0), (12, 12.0), (5, 0.5)])
def test_exact_moments(n, degree, ensemble):
    """E tr A^4 of independent entries is 2 sum_i (sum_j s_ij)^2 - 2 sum s_ij^2 + sum E |a_ij|^4."""
    draws, variance, real = 1000, 2.0, ensemble == "goe"
    squares = [s @ s for s in (thinned_wigner(n, degree, variance=variance, seed=d, ensemble=ensemble).to_dense() for d in range(draws))]
    values = np.array([(np.trace(s).real, np.linalg.norm(s) ** 2) for s in squares]) / n
    second = np.full((n, n), variance / n) + np.eye(n) * (variance / n if real else 0)
    fourth = np.full((n, n), (3 if real else 2) * variance**2 / (n * degree))
    np.fill_diagonal(fourth, (12 if real else 3) * variance**2 / (n * degree))
    exact = [second.sum() / n, (2 * (second.sum(axis=1) ** 2).sum() - 2 * (second**2).sum() + fourth.sum()) / n]
    assert np.all(np.abs(values.mean(axis=0) - exact) < 4 * values.std(axis=0) / np.sqrt(draws))


@pytest.mark.parametrize("degree", [2, 8])
def test_fourth_moment_of_large_ones(degree):
    """2 + 3 / d, where a full matrix has 2."""
    n = 20_000
    matrices = [thinned_wigner(n, degree, seed=seed).matrix for seed in range(4)]
    fourth = [float(abs(m @ m).power(2).sum()) / n for m in matrices]
    assert np.mean(fourth) == pytest.approx(2 + 3 / degree, abs=5 * np.std(fourth) + 20 / n)
    assert matrices[0].nnz == pytest.approx(n * degree, abs=6 * np.sqrt(2 * n * degree))


@pytest.mark.parametrize("degree", [1, 2, 5])
def test_atom_at_zero(degree):
    """Bordenave, Lelarge and Salez (2011): x + e + d x e - 1, e = exp(-d x), at the smallest root of x = exp(-d exp(-d x))."""
    n = 60_000
    grid = np.linspace(0, 1, 20_001)
    gap = grid - np.exp(-degree * np.exp(-degree * grid))
    first = int(np.argmax(gap >= 0))
    x = (
        optimize.brentq(lambda t: t - np.exp(-degree * np.exp(-degree * t)), grid[first - 1], grid[first])
        if gap[first] > 0
        else grid[first]
    )
    atom = x + np.exp(-degree * x) * (1 + degree * x) - 1
    # Entries are in general position, so that the pattern decides on the rank.
    assert 1 - structural_rank(thinned_wigner(n, degree, seed=1).matrix) / n == pytest.approx(atom, abs=4 / np.sqrt(n))
    small = np.linalg.eigvalsh(thinned_wigner(300, degree, seed=2).to_dense())
    pattern = structural_rank(thinned_wigner(300, degree, seed=2).matrix)
    assert np.sum(np.abs(small) < 1e-9) == 300 - pattern


def test_kept_entries_are_normal_and_all_are_kept_at_full_degree():
    matrix = thinned_wigner(3000, 6, variance=0.5, seed=3).matrix.tocoo()
    below, on = matrix.row > matrix.col, matrix.row == matrix.col
    assert same_law(matrix.data[below] * np.sqrt(6 / 0.5), stats.norm()) and 0 <= on.sum() < 25
    full = thinned_wigner(400, 400, seed=3)
    assert full.matrix.nnz == 400**2
    values = np.linalg.eigvalsh(full.to_dense())
    assert np.abs(Semicircle().cdf(values) - (np.arange(400) + 0.5) / 400).max() < 8 / 400


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ({"n": 0, "degree": 1}, ValueError, "The argument n must be"),
        ({"n": 5, "degree": 0}, ValueError, "The argument degree, the mean number of entries in a row, must be a positive finite number"),
        ({"n": 5, "degree": 6}, ValueError, r"The argument degree is 6, but a row of a matrix of order 5 has at most 5 .* wigner\(5\)"),
        ({"n": 5, "degree": 2, "variance": -1}, ValueError, "The argument variance"),
        ({"n": 5, "degree": 2, "ensemble": "x"}, ValueError, "The argument ensemble"),
        ({"n": 10**6, "degree": 10**4}, MemoryError, "A sparse matrix of order 1000000 .* over the budget"),
        ({"n": 10**4, "degree": 10, "memory_budget": "1MB"}, MemoryError, "over the budget of 1 MB; pass memory_budget="),
    ],
)
def test_bad_arguments_are_named(arguments, error, words):
    with pytest.raises(error, match=words):
        thinned_wigner(**arguments)


def test_smallest_orders():
    ones = [thinned_wigner(1, 1, seed=s).to_dense()[0, 0] for s in range(300)]
    assert same_law(ones, stats.norm(0, np.sqrt(2)))
    assert np.all(thinned_wigner(2, 1e-12).to_dense() == 0)
