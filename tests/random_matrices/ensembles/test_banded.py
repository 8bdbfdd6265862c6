"""Band matrices by their diagonals against dense ones, whatever the pieces."""

import numpy as np
import pytest
from helpers import DTYPES, eps, random_array

from linop_spectra.random_matrices.ensembles import banded
from linop_spectra.random_matrices.ensembles.banded import BandedOperator


def dense(diagonals, periodic):
    bandwidth, n = diagonals.shape[0] - 1, diagonals.shape[1]
    lower = np.zeros((n, n), diagonals.dtype)
    for k in range(1, bandwidth + 1):
        for j in range(n if periodic else n - k):
            lower[(j + k) % n, j] = diagonals[k, j]
    return lower + lower.conj().T + np.diag(diagonals[0])


@pytest.mark.parametrize("chunk", [1, 1 << 14])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "n, bandwidth, periodic", [(1, 0, True), (7, 3, True), (8, 3, True), (7, 6, False), (900, 2, True), (900, 40, False)]
)
def test_products(n, bandwidth, periodic, dtype, chunk, monkeypatch):
    monkeypatch.setattr(banded, "_CHUNK", chunk)  # at least 256 columns: two borders inside the larger matrices
    diagonals = random_array((bandwidth + 1, n), dtype, 0)
    diagonals[0] = diagonals[0].real
    operator, matrix = BandedOperator(diagonals, periodic=periodic), dense(diagonals, periodic)
    for k in (1, 3):
        x = random_array((n, k), dtype, 1)
        np.testing.assert_allclose(operator @ x, matrix @ x, atol=50 * eps(dtype) * (bandwidth + 1))
    assert operator.hermitian and operator.bandwidth == bandwidth


def test_entries_beyond_the_last_row_are_ignored():
    diagonals = np.ones((3, 5))
    diagonals[1, 4:] = diagonals[2, 3:] = np.nan
    assert np.all(np.isfinite(BandedOperator(diagonals) @ np.ones(5)))
