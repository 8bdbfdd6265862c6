"""Wigner matrices of low rank: the atom, exact moments, symmetry."""

import numpy as np
import pytest

from linop_spectra.random_matrices.ensembles.wigner_product import wigner_product


@pytest.mark.parametrize("ensemble", ["goe", "gue"])
@pytest.mark.parametrize("n, rank", [(100, 20), (101, 100), (30, 60), (9, 1)])
def test_the_atom_is_exact(n, rank, ensemble):
    values = np.linalg.eigvalsh(wigner_product(n, rank, seed=1, ensemble=ensemble).to_dense())
    assert np.sum(np.abs(values) < 1e-10) == max(0, n - rank)


@pytest.mark.parametrize("n, rank", [(6, 3), (3, 6), (2, 1)])
def test_second_moment_at_finite_size(n, rank):
    """E tr (X W X^T)^2 / n = s ((E (tr S)^2 + E tr S^2) / (n r)) for S = X^T X, whose moments Wishart's law gives."""
    draws, variance = 2500, 2.0
    squares = [np.linalg.norm(wigner_product(n, rank, variance=variance, seed=s).to_dense()) ** 2 / n for s in range(draws)]
    trace_squared, square = n**2 + 2 * n / rank, n * (n + rank + 1) / rank
    assert np.mean(squares) == pytest.approx(variance * (trace_squared + square) / (n * rank), abs=4 * np.std(squares) / np.sqrt(draws))


def test_limiting_moments_and_symmetry():
    """m_2 = s c, m_4 = 2 s^2 c^2 (1 + c) with c = n / r; half of the eigenvalues that are not zero are negative."""
    n, rank, variance, draws = 600, 300, 0.5, 4
    c = n / rank
    values = np.array([np.linalg.eigvalsh(wigner_product(n, rank, variance=variance, seed=s).to_dense()) for s in range(draws)])
    assert np.mean(values**2) == pytest.approx(variance * c, rel=0.03)
    assert np.mean(values**4) == pytest.approx(2 * variance**2 * c**2 * (1 + c), rel=0.05)
    assert np.mean(values < -1e-10) == pytest.approx(rank / n / 2, abs=0.01)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"n": 0, "rank": 1}, "The argument n must be"),
        ({"n": 5, "rank": 0}, "The argument rank must be a whole number of at least 1, but is 0"),
        ({"n": 5, "rank": 2, "variance": -1}, "The argument variance"),
        ({"n": 5, "rank": 2, "ensemble": "x"}, "The argument ensemble is 'x'"),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        wigner_product(**arguments)
