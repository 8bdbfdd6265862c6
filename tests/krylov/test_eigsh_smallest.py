"""Eigenvalues in the middle of the spectrum: the whole matrix, a factorisation, a filter."""

import numpy as np
import pytest
import scipy.sparse as sparse
from helpers import device_of_numpy, rotated

import linop_spectra as ls

N = 1600
TWO_SIDED = np.r_[np.linspace(-3, -0.5, N // 2), np.linspace(0.4, 4, N - N // 2 - 6), [-0.2, -0.1, 0.05, 0.12, 0.25, 0.3]]


def smallest(values, k):
    return np.sort(values[np.argsort(np.abs(values), kind="stable")[:k]])


def check(result, product, values, k, tol):
    norm = np.abs(values).max()
    np.testing.assert_allclose(result.eigenvalues, smallest(values, k), atol=tol * norm)
    x = np.asarray(result.eigenvectors)
    residuals = np.linalg.norm(product(x) - x * result.eigenvalues, axis=0)
    np.testing.assert_allclose(result.residual_norms, residuals, atol=1e-12 * norm)
    assert residuals.max() <= 2 * tol * norm and result.converged.all() and result.status == "complete"
    assert np.abs(x.conj().T @ x - np.eye(k)).max() < 1e-6


def function(values, **options):
    return ls.aslinearoperator(lambda x: values * x, shape=(len(values),) * 2, dtype=options.pop("dtype", float), hermitian=True, **options)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("k", [1, 6, 30])
def test_small_orders_take_the_whole_matrix(dtype, k):
    values = np.linspace(-1, 1.3, 30)
    matrix = rotated(values, 1, dtype)
    result = ls.eigsh(ls.aslinearoperator(matrix), k, which="SM")
    check(result, lambda x: matrix @ x, values, k, 1e-12)
    assert "dense" in result.method


@pytest.mark.parametrize("backend", [None, device_of_numpy()], ids=["numpy", "device"])
def test_a_filter_finds_what_is_only_a_product(backend):
    result = ls.eigsh(function(TWO_SIDED, backend=backend), 5, which="SM", tol=1e-9)
    check(result, lambda x: TWO_SIDED[:, None] * x, TWO_SIDED, 5, 1e-9)
    assert "filter" in result.method and result.num_matvecs < 100 * N


@pytest.mark.parametrize(
    "inner", [[0.0, 0.0, 0.0, 0.1], [0.1, -0.1, 0.2, -0.2], [1e-8, -1e-3, 1e-2, 0.1]], ids=["null space", "pairs", "graded"]
)
def test_null_spaces_and_pairs_of_opposite_sign(inner):
    values = np.r_[np.linspace(0.6, 2, N - 304), np.linspace(-2, -0.7, 300), inner]
    result = ls.eigsh(function(values), 4, which="SM", tol=1e-9)
    check(result, lambda x: values[:, None] * x, values, 4, 1e-9)


def test_a_sparse_matrix_is_factorised():
    n = 2000
    laplacian = sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n, n))
    values = 2 - 2 * np.cos(np.pi * np.arange(1, n + 1) / (n + 1))
    result = ls.eigsh(laplacian, 5, which="SM", tol=1e-10)
    check(result, lambda x: laplacian @ x, values, 5, 1e-10)
    # Far below the tolerance: a factorisation resolves them relative to themselves.
    np.testing.assert_allclose(result.eigenvalues, values[:5], rtol=1e-6)
    assert "factorisation" in result.method
    shifted = laplacian - 1.0 * sparse.eye_array(n)
    check(ls.eigsh(shifted, 4, which="SM", tol=1e-9), lambda x: shifted @ x, values - 1, 4, 1e-9)


def test_a_singular_sparse_matrix():
    """The Laplacian of two separate cycles: eigenvalue zero, twice."""
    m = 1000
    cycle = sparse.diags_array([-1.0, -1.0, 2.0, -1.0, -1.0], offsets=[1 - m, -1, 0, 1, m - 1], shape=(m, m))
    both = sparse.block_diag([cycle, cycle], format="csr")
    values = np.repeat(2 - 2 * np.cos(2 * np.pi * np.arange(m) / m), 2)
    result = ls.eigsh(both, 2, which="SM", tol=1e-10)
    np.testing.assert_allclose(result.eigenvalues, smallest(values, 2), atol=1e-8)
    assert result.residual_norms.max() < 1e-8


@pytest.mark.parametrize("parts", [1, 2])
def test_the_laplacian_of_a_grid_and_what_lies_beside_its_null_space(parts):
    """A factorisation of a singular matrix need not fail; its inverse is ruled by the null space, once for each part."""
    path = [2 - 2 * np.cos(np.pi * np.arange(m) / m) for m in (60, 50)]
    line = []
    for m in (60, 50):
        diagonal = np.r_[1.0, np.full(m - 2, 2.0), 1.0]
        line.append(sparse.diags_array([diagonal, -np.ones(m - 1), -np.ones(m - 1)], offsets=[0, 1, -1]))
    grid = sparse.kron(line[0], sparse.eye_array(50)) + sparse.kron(sparse.eye_array(60), line[1])
    matrix = sparse.block_diag([grid] * parts, format="csr")
    values = np.repeat(np.add.outer(*path).ravel(), parts)
    for k in (1, 3, 6):
        if parts == 2 and k % 2:
            continue
        result = ls.eigsh(matrix, k, which="SM", tol=1e-10)
        np.testing.assert_allclose(result.eigenvalues, smallest(values, k), atol=1e-10)
        assert result.converged.all() and result.residual_norms.max() < 1e-8


def test_what_does_not_converge_is_marked():
    with pytest.warns(UserWarning, match="converged within"):
        result = ls.eigsh(function(np.linspace(-1, 1, 3001)), 3, which="SM", tol=1e-12, max_matvecs=500)
    assert not result.converged.all() and result.status == "unconverged"
    assert ls.eigsh(function(TWO_SIDED), 3, which="SM", time_budget=1e-6).status == "time budget"


def test_a_sparse_matrix_of_zeros():
    result = ls.eigsh(sparse.csr_array((1600, 1600)), 2, which="SM")
    np.testing.assert_array_equal(result.eigenvalues, [0.0, 0.0])
    assert result.converged.all()
