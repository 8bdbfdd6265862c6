"""Eigenpairs, alone and on top of a diagonal, against dense decompositions."""

import numpy as np
import pytest
from helpers import BACKENDS, DTYPES, eps, rotated
from test_diagonal_approximations import check_inverse, hidden

import linop_spectra as ls
from linop_spectra.approximations import approximate

SPECTRUM = np.r_[-6.0, 5.0, 4.0, -3.0, np.linspace(-0.5, 1.0, 36)]


def truncated(matrix, rank):
    values, vectors = np.linalg.eigh(matrix)
    order = np.argsort(-abs(values))[:rank]
    return (vectors[:, order] * values[order]) @ vectors[:, order].conj().T


@pytest.mark.parametrize("dtype", DTYPES)
def test_low_rank_is_the_best_of_its_rank(dtype):
    matrix = rotated(SPECTRUM, dtype=dtype)
    approximation = approximate(hidden(matrix), "low_rank", rank=4)
    best = truncated(matrix.astype(np.complex128), 4)
    np.testing.assert_allclose(approximation.to_dense(), best, atol=1e-4 if eps(dtype) > 1e-10 else 1e-6)
    assert approximation.source_matvecs > 4 and approximation.dtype == dtype
    np.testing.assert_allclose(approximation.eigenvalues(), np.sort(np.r_[-6, 5, 4, -3, np.zeros(36)]), atol=1e-4)
    check_inverse(approximation, damping=8.0)


@pytest.mark.parametrize("form", ["dense", "products"])
@pytest.mark.parametrize("remainder", ["diagonal", "scalar"])
def test_plus_what_is_left(remainder, form):
    matrix = rotated(SPECTRUM)
    source = matrix if form == "dense" else hidden(matrix)
    approximation = approximate(source, "low_rank_plus_diagonal", rank=4, remainder=remainder, tol=1e-10)
    best = truncated(matrix, 4)
    if remainder == "diagonal":
        expected = best + np.diag(np.diag(matrix - best))
        np.testing.assert_allclose(approximation.diagonal, np.diag(matrix), atol=1e-8)
    else:
        values, vectors = np.linalg.eigh(best)
        top = vectors[:, abs(values) > 1e-8]
        expected = best + np.trace(matrix - best) / 36 * (np.eye(40) - top @ top.T)
        np.testing.assert_allclose(approximation.eigenvalues(), np.linalg.eigvalsh(expected), atol=1e-8)
    np.testing.assert_allclose(approximation.to_dense(), expected, atol=1e-8)
    assert np.trace(approximation.to_dense()) == pytest.approx(np.trace(matrix), abs=1e-8)
    for damping in (0.0, 7.0):
        check_inverse(approximation, damping=damping)


def test_estimated_remainder_is_quieter_than_the_diagonal():
    """The pairs hold the long rows, so that random signs see short ones: the error falls by the share of the norm that is left."""
    matrix = rotated(np.r_[np.full(5, 20.0), np.linspace(0, 1, 195)])
    exact = np.diag(matrix)
    plain = [approximate(hidden(matrix), "diagonal", method="hutchinson", num_matvecs=30, seed=s).diagonal for s in range(10)]
    split = [
        approximate(hidden(matrix), "low_rank_plus_diagonal", rank=5, method="hutchinson", num_matvecs=30, seed=s).diagonal
        for s in range(10)
    ]
    ratio = np.mean((np.array(split) - exact) ** 2) / np.mean((np.array(plain) - exact) ** 2)
    off = [np.sum((a - np.diag(np.diag(a))) ** 2) for a in (matrix - truncated(matrix, 5), matrix)]
    assert off[0] < 0.01 * off[1]
    assert ratio == pytest.approx(off[0] / off[1], rel=0.3)


@pytest.mark.parametrize("name", BACKENDS)
def test_on_every_backend(name):
    backend, matrix = BACKENDS[name](), rotated(SPECTRUM)
    for kind in ("low_rank", "low_rank_plus_diagonal"):
        approximation = approximate(hidden(matrix, backend), kind, rank=3)
        assert approximation.backend is backend
        check_inverse(approximation, damping=8.0)


def test_rows_that_the_pairs_explain_completely():
    """The remaining diagonal is zero where a pair is a unit vector: D alone has no inverse, the sum does."""
    approximation = approximate(np.diag([5.0, 3.0, 1.0, 0.5]), "low_rank_plus_diagonal", rank=2)
    np.testing.assert_allclose(approximation.rest, [0, 0, 1, 0.5], atol=1e-12)
    np.testing.assert_allclose(approximation.solve(np.ones(4)), [0.2, 1 / 3, 1, 2], atol=1e-12)
    np.testing.assert_allclose(approximation.solve(np.eye(4), damping=1.0), np.diag([1 / 6, 1 / 4, 1 / 2, 1 / 1.5]), atol=1e-12)


def test_all_pairs():
    matrix = rotated(np.array([1.0, -2.0, 4.0]))
    for kind in ("low_rank", "low_rank_plus_diagonal"):
        for remainder in ({}, {"remainder": "scalar"}) if kind != "low_rank" else ({},):
            approximation = approximate(matrix, kind, rank=3, **remainder)
            np.testing.assert_allclose(approximation.to_dense(), matrix, atol=1e-12)
            check_inverse(approximation, damping=0.0)


def test_zero_and_identity():
    zero = approximate(np.zeros((5, 5)), "low_rank_plus_diagonal", rank=2)
    np.testing.assert_array_equal(zero.to_dense(), np.zeros((5, 5)))
    np.testing.assert_allclose(zero.solve(np.ones(5), damping=2.0), np.full(5, 0.5))
    with pytest.raises(ValueError, match="has no inverse"):
        zero.solve(np.ones(5))
    same = approximate(ls.identity(5), "low_rank_plus_diagonal", rank=2, remainder="scalar")
    np.testing.assert_allclose(same.to_dense(), np.eye(5), atol=1e-12)
    np.testing.assert_allclose(same.solve(np.ones(5)), np.ones(5))


def test_low_rank_has_no_inverse_of_its_own():
    approximation = approximate(rotated(SPECTRUM), "low_rank", rank=4)
    with pytest.raises(ValueError, match="The low_rank approximation plus damping 0 has no inverse"):
        approximation.solve(np.ones(40))


def test_leading_vectors():
    approximation = approximate(rotated(SPECTRUM), "low_rank", rank=4)
    assert approximation.top_vectors(4).shape == (40, 4) and approximation.top_vectors(5) is None
    np.testing.assert_allclose(rotated(SPECTRUM) @ approximation.top_vectors(1)[:, 0], -6 * approximation.top_vectors(1)[:, 0], atol=1e-6)


@pytest.mark.parametrize("rank", [0, 41, 2.0, True])
def test_wrong_rank(rank):
    with pytest.raises(ValueError, match="The argument rank must be a whole number from 1 to the order 40"):
        approximate(rotated(SPECTRUM), "low_rank", rank=rank)


def test_wrong_remainder():
    with pytest.raises(ValueError, match="must be 'diagonal' or 'scalar'"):
        approximate(rotated(SPECTRUM), "low_rank_plus_diagonal", remainder="block")
