"""The growing orthonormal basis: Q R gives the vectors back, whatever they are."""

import numpy as np
import pytest
from helpers import BACKENDS, DTYPES, eps, random_array

from linop_spectra.krylov.orthonormal import OrthonormalRows


def taken_in(vectors, backend, pieces=2):
    rows = OrthonormalRows(backend, vectors.shape[1], vectors.dtype)
    independent = []
    for piece in np.array_split(vectors, pieces):
        independent += rows.append(backend.asarray(piece.copy()))
    return rows, rows.basis.to_numpy(rows.rank) if rows.rank else np.zeros((0, vectors.shape[1])), independent


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_product_gives_the_vectors_back(backend, dtype):
    vectors = random_array((21, 60), dtype, 0)
    vectors[5] = vectors[2] - 2 * vectors[3]
    rows, Q, independent = taken_in(vectors, BACKENDS[backend]())
    assert independent == [i != 5 for i in range(21)] and rows.rank == 20 and rows.count == 21
    np.testing.assert_allclose(Q @ Q.conj().T, np.eye(20), atol=30 * eps(dtype))
    np.testing.assert_allclose(rows.coefficients.T @ Q, vectors, atol=100 * eps(dtype))
    assert rows.coefficients.dtype in (np.float64, np.complex128)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nearly_dependent_vectors(dtype):
    """Hilbert's vectors lose all digits in one pass of Gram-Schmidt."""
    vectors = (1 / (1.0 + np.add.outer(np.arange(12), np.arange(40)))).astype(dtype)
    rows, Q, _ = taken_in(vectors, BACKENDS["numpy"]())
    assert 3 < rows.rank <= 12
    np.testing.assert_allclose(Q @ Q.T, np.eye(rows.rank), atol=30 * eps(dtype))
    np.testing.assert_allclose(rows.coefficients.T @ Q, vectors, atol=100 * eps(dtype))


def test_zero_vectors_and_more_vectors_than_entries():
    rows, Q, independent = taken_in(np.zeros((3, 5)), BACKENDS["numpy"](), pieces=1)
    assert rows.rank == 0 and not any(independent) and rows.coefficients.shape == (0, 3)
    rows, Q, independent = taken_in(random_array((9, 4), np.float64, 0), BACKENDS["numpy"]())
    assert rows.rank == 4 and independent == [True] * 4 + [False] * 5
    np.testing.assert_allclose(rows.coefficients.T @ Q, random_array((9, 4), np.float64, 0), atol=1e-13)


def test_vectors_given_are_left_alone():
    vectors = random_array((3, 8), np.float64, 0)
    before = vectors.copy()
    OrthonormalRows(BACKENDS["numpy"](), 8, np.float64).append(vectors)
    np.testing.assert_array_equal(vectors, before)
