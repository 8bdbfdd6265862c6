"""Diagonals and multiples of the identity as operators."""

import numpy as np
import pytest
from helpers import BACKENDS, DTYPES, eps, rotated
from scipy import sparse

import linop_spectra as ls
from linop_spectra.approximations import approximate


def hidden(matrix, backend=None):
    """A matrix that is known by its products alone."""
    held = matrix if backend is None else backend.asarray(matrix)
    return ls.aslinearoperator(lambda x: held @ x, shape=matrix.shape, dtype=matrix.dtype, hermitian=True, backend=backend)


def check_inverse(approximation, damping=0.3):
    """The inverse against a dense solve."""
    host = approximation.backend.to_numpy
    dense = host(approximation.to_dense())
    b = np.random.default_rng(5).standard_normal((len(dense), 2)).astype(dense.dtype)
    expected = np.linalg.solve(dense + damping * np.eye(len(dense)), b)
    tolerance = 1e3 * eps(dense.dtype) * np.abs(expected).max()
    right = approximation.backend.asarray(b)
    np.testing.assert_allclose(host(approximation.solve(right, damping=damping)), expected, atol=tolerance)
    np.testing.assert_allclose(host(approximation.solve(right[:, 0], damping=damping)), expected[:, 0], atol=tolerance)


@pytest.mark.parametrize("form", ["dense", "sparse", "products"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_exact(form, dtype):
    matrix = rotated(np.linspace(-1, 3, 30), dtype=dtype)
    source = {"dense": lambda: matrix, "sparse": lambda: sparse.csr_array(matrix), "products": lambda: hidden(matrix)}[form]()
    for method in ("auto", "exact"):
        approximation = approximate(source, "diagonal", method=method)
        np.testing.assert_allclose(approximation.diagonal, np.diag(matrix).real, atol=10 * eps(dtype))
        assert approximation.source_matvecs == (30 if form == "products" else 0)
        assert approximation.kind == "diagonal" and approximation.hermitian and approximation.standard_error is None
        np.testing.assert_allclose(approximation.to_dense(), np.diag(np.diag(matrix).real), atol=10 * eps(dtype))
        np.testing.assert_allclose(approximation.eigenvalues(), np.sort(np.diag(matrix).real), atol=10 * eps(dtype))
        check_inverse(approximation, damping=2.0)
        assert approximation.dtype == dtype


def test_hutchinson_has_the_error_that_it_states():
    """Bekas, Kokiopoulou and Saad (2007): variance sum over j != i of H_ij^2 / m, here over 200 seeds."""
    matrix = rotated(np.r_[np.full(3, 5.0), np.linspace(0, 1, 37)])
    found = [approximate(matrix, "diagonal", method="hutchinson", num_matvecs=20, seed=seed) for seed in range(200)]
    errors = np.array([one.diagonal - np.diag(matrix) for one in found])
    expected = (np.sum(matrix**2, axis=1) - np.diag(matrix) ** 2) / 20
    np.testing.assert_allclose(np.mean(errors**2, axis=0) / expected, 1, atol=6 * np.sqrt(2 / 200))
    stated = np.array([one.standard_error**2 for one in found])
    np.testing.assert_allclose(stated.mean(axis=0) / expected, 1, atol=0.15)
    assert found[0].source_matvecs == 20 and "hutchinson" in repr(found[0])


def test_xdiag_is_exact_for_a_low_rank():
    u = np.random.default_rng(0).standard_normal((50, 4))
    found = approximate(hidden(u @ u.T), "diagonal", method="xdiag", num_matvecs=20)
    np.testing.assert_allclose(found.diagonal, np.diag(u @ u.T), atol=1e-12)
    assert found.method == "xdiag"


def test_same_seed_same_diagonal():
    matrix = rotated(np.linspace(0, 1, 200))
    one, two, other = (approximate(hidden(matrix), "diagonal", num_matvecs=30, seed=seed).diagonal for seed in (0, 0, 1))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_scalar():
    matrix = rotated(np.linspace(-1, 3, 120))
    exact = approximate(matrix, "scalar")
    assert exact.value == pytest.approx(np.trace(matrix) / 120, rel=1e-13) and exact.source_matvecs == 0
    np.testing.assert_allclose(exact.diagonal, np.full(120, exact.value))
    check_inverse(exact)
    estimated = approximate(hidden(matrix), "scalar", num_matvecs=40, seed=3)
    assert estimated.source_matvecs == 40
    found = [approximate(hidden(matrix), "scalar", method="hutchinson", num_matvecs=40, seed=seed) for seed in range(80)]
    z = np.array([(one.value - exact.value) / one.standard_error for one in found])
    assert 0.75 < z.std() < 1.3 and abs(z.mean()) < 0.5


@pytest.mark.parametrize("name", BACKENDS)
def test_on_every_backend(name):
    backend = BACKENDS[name]()
    matrix = rotated(np.linspace(1, 3, 12))
    source = hidden(matrix, backend)
    for kind, options in [("diagonal", {}), ("scalar", {})]:
        approximation = approximate(source, kind, **options)
        assert approximation.backend is backend and backend.owns(approximation.diagonal)
        check_inverse(approximation)


def test_complex_right_side_of_a_real_diagonal():
    approximation = approximate(np.diag([1.0, 3.0]), "diagonal")
    np.testing.assert_allclose(approximation.solve(np.array([1 + 2j, 4j]), damping=1.0), [0.5 + 1j, 1j])


def test_no_inverse():
    approximation = approximate(np.diag([1.0, 0.0]), "diagonal")
    with pytest.raises(ValueError, match="has no inverse"):
        approximation.solve(np.ones(2))
    np.testing.assert_allclose(approximation.solve(np.ones(2), damping=0.5), [1 / 1.5, 2.0])
    with pytest.raises(ValueError, match="has no inverse"):
        approximate(np.zeros((3, 3)), "scalar").solve(np.ones(3))
    # Entries of very different sizes are no rounding.
    np.testing.assert_allclose(approximate(np.diag([1e20, 1e-20]), "diagonal").solve(np.ones(2)), [1e-20, 1e20])
    with pytest.raises(ValueError, match="has no inverse"):
        approximate(-np.eye(3), "diagonal").solve(np.ones(3), damping=1.0)


@pytest.mark.parametrize("damping", [-1.0, np.nan, np.inf])
def test_wrong_damping(damping):
    with pytest.raises(ValueError, match="The argument damping must be zero or positive"):
        approximate(np.eye(3), "diagonal").solve(np.ones(3), damping=damping)


@pytest.mark.parametrize("b", [np.ones(4), np.ones((2, 3)), 1.0, np.ones((3, 1, 1))])
def test_wrong_right_side(b):
    with pytest.raises(ValueError, match="The argument b must have shape"):
        approximate(np.eye(3), "diagonal").solve(b)


def test_of_order_one():
    for kind in ("diagonal", "scalar"):
        approximation = approximate([[2.0]], kind)
        assert approximation @ [3.0] == [6.0] and approximation.solve([3.0]) == [1.5]


def test_the_diagonal_is_a_copy():
    matrix = np.eye(3)
    approximation = approximate(matrix, "diagonal")
    matrix[0, 0] = 7.0
    assert approximation.diagonal[0] == 1.0
