"""Matrices of structures, power networks, graphs and a Hamiltonian, against dense LAPACK."""

import numpy as np
import pytest
from helpers import data_file
from scipy import io

import linop_spectra as ls


def read(name):
    return io.mmread(data_file("matrices", f"{name}.mtx.gz")).tocsr()


# The largest eigenvalue as the collection publishes it.
PUBLISHED = {"LFAT5": 2.14522e7, "lund_a": 2.23854e8, "lund_b": 7432.30, "494_bus": 30005.14, "Si2-banner": 41.38131, "G51": 24.4972}


@pytest.mark.parametrize("name", PUBLISHED)
def test_extreme_eigenvalues(name):
    matrix = read(name)
    exact = np.linalg.eigvalsh(matrix.toarray())
    norm = np.abs(exact).max()
    assert exact[-1] == pytest.approx(PUBLISHED[name], rel=1e-5)
    operator = ls.aslinearoperator(matrix)
    assert operator.hermitian is True
    k = min(4, matrix.shape[0])
    np.testing.assert_allclose(ls.eigsh(operator, k, which="LA", tol=1e-9).eigenvalues, exact[-k:], atol=1e-8 * norm)


@pytest.mark.parametrize("name", PUBLISHED)
def test_spectral_density_bounds_hold(name):
    matrix = read(name)
    exact = np.linalg.eigvalsh(matrix.toarray())
    S = ls.spectral_density(ls.aslinearoperator(matrix), num_steps=min(40, len(exact)), num_probes=3, seed=0)
    grid = np.concatenate([exact, S.nodes, np.linspace(exact[0], exact[-1], 301)])
    # At the jumps, both sides count: two distribution functions are compared just before and just after, beyond rounding.
    for side in (1e-9, -1e-9):
        at = grid + side * np.abs(exact).max()
        assert np.abs(S.cdf(at) - np.searchsorted(exact, at, side="right") / len(exact)).max() <= S.kolmogorov_bound + 1e-9
    low, high = S.trace().confidence_interval(0.999)
    assert low <= exact.sum() <= high
    (smallest, _), (largest, _) = S.extreme_eigenvalues()
    rounding = 1e-10 * np.abs(exact).max()
    assert exact[0] - rounding <= smallest and largest <= exact[-1] + rounding


def test_complex_hermitian_matrix():
    matrix = read("mhd1280b")
    assert matrix.dtype.kind == "c"
    operator = ls.aslinearoperator(matrix, hermitian=True)
    exact = np.linalg.eigvalsh(matrix.toarray())
    np.testing.assert_allclose(ls.eigsh(operator, 3, which="LA", tol=1e-9).eigenvalues, exact[-3:], atol=1e-7)
    S = ls.spectral_density(operator, num_steps=60, num_probes=2)
    assert S.negative_mass()[0] == 0
    low, high = S.trace().confidence_interval(0.999)
    assert low <= exact.sum() <= high
