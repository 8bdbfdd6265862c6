"""Eigenpairs of small stored matrices, by LAPACK."""

import numpy as np
import pytest
from helpers import DTYPES, eps, rotated
from scipy import sparse

import linop_spectra as ls

SPECTRUM = np.r_[-5.0, np.linspace(-1, 2, 60), 3.0, 3.0, 4.0]
WANTED = {"LM": [-5, 4, 3, 3], "LA": [4, 3, 3, 2], "SA": [-5, -1, SPECTRUM[2], SPECTRUM[3]], "BE": [4, 3, -5, -1]}


@pytest.mark.parametrize("which", WANTED)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stored", [np.asarray, sparse.csr_array])
def test_the_wanted_pairs_of_a_stored_matrix(stored, dtype, which):
    matrix = rotated(SPECTRUM, 4, dtype)
    result = ls.eigsh(ls.aslinearoperator(stored(matrix), hermitian=True), 4, which=which)
    assert result.method == "dense eigenvalue problem" and result.verified and result.status == "complete" and result.num_matvecs == 4
    np.testing.assert_allclose(result.eigenvalues, np.sort(WANTED[which]), atol=100 * eps(dtype))
    assert result.norm_estimate == pytest.approx(5, rel=100 * eps(dtype)) and result.eigenvectors.dtype == matrix.dtype
    residuals = np.linalg.norm(matrix @ result.eigenvectors - result.eigenvectors * result.eigenvalues.astype(dtype), axis=0)
    assert residuals.max() < 200 * eps(dtype)
    np.testing.assert_allclose(result.residual_norms, residuals, atol=100 * eps(dtype))


@pytest.mark.parametrize("option", [{"block_size": 2}, {"max_basis": 40}, {"max_matvecs": 500}, {"start": np.ones(64)}])
def test_what_asks_for_the_iteration_gets_it(option):
    matrix = rotated(SPECTRUM, 4)
    assert ls.eigsh(matrix, 2, which="LM", **option).method == "thick-restart Lanczos"
    assert ls.eigsh(ls.aslinearoperator(lambda x: matrix @ x, shape=(64, 64), dtype=float, hermitian=True), 2).num_matvecs > 10
    assert ls.eigsh(ls.diagonal_operator(np.arange(201.0)), 2).method == "thick-restart Lanczos"


def test_bad_matrices():
    matrix = rotated(SPECTRUM, 4)
    matrix[3, 5] += 1
    with pytest.raises(ValueError, match="not symmetric"):
        ls.eigsh(ls.aslinearoperator(matrix, hermitian=True), 2)
    matrix[3, 5] = matrix[5, 3] = np.nan
    with pytest.raises(FloatingPointError, match="product 1"):
        ls.eigsh(ls.aslinearoperator(matrix, hermitian=True), 2)
    assert ls.eigsh(np.zeros((3, 3)), 3).eigenvalues.tolist() == [0, 0, 0] and ls.eigsh(np.full((1, 1), 7.0), 1).eigenvalues[0] == 7
