"""Singular triplets against dense LAPACK and SciPy, small ones included, and what cannot converge."""

import time
import warnings

import numpy as np
import pytest
import scipy.sparse
from helpers import BACKENDS, DTYPES, eps, haar, random_array
from scipy.sparse import linalg as sparse_linalg

import linop_spectra as ls
from linop_spectra.krylov.svds import svds

OUTLIERS = np.r_[6.0, 5.0, 4.0, 3.0, 2.0, np.linspace(1, 0, 75)]
SHAPES = [(120, 80), (80, 120), (80, 80)]


def with_singular_values(shape, values, seed=0, dtype=np.float64):
    m, n = shape
    complex_valued = np.dtype(dtype).kind == "c"
    r = len(values)
    return ((haar(m, seed, complex_valued)[:, :r] * values) @ haar(n, seed + 1, complex_valued)[:, :r].conj().T).astype(dtype)


def check(result, matrix, expected, tol):
    """Everything that a result claims, against the matrix itself."""
    norm = max(np.linalg.norm(matrix, 2), np.finfo(float).tiny)
    rounding = 200 * eps(matrix.dtype) * norm
    k = len(expected)
    values, left, right = result.singular_values, np.asarray(result.left_vectors), np.asarray(result.right_vectors)
    np.testing.assert_allclose(values, expected, atol=tol * norm + rounding)
    assert values.dtype == np.float64 and np.all(np.diff(values) <= 0) and np.all(values >= 0)
    assert left.shape == (matrix.shape[0], k) and right.shape == (matrix.shape[1], k) and left.dtype == right.dtype == matrix.dtype
    for vectors in (left, right):
        assert np.abs(vectors.conj().T @ vectors - np.eye(k)).max() < 500 * eps(matrix.dtype)
    forward = np.linalg.norm(matrix @ right - left * values.astype(matrix.dtype), axis=0)
    backward = np.linalg.norm(matrix.conj().T @ left - right * values.astype(matrix.dtype), axis=0)
    np.testing.assert_allclose(result.residual_norms, np.hypot(forward, backward), atol=rounding)
    assert result.converged.all() and np.all(result.residual_norms <= tol * norm + rounding)
    assert result.norm_estimate <= norm * (1 + 100 * eps(matrix.dtype)) and result.status == "complete"


@pytest.mark.parametrize("which", ["LM", "SM"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_against_dense(dtype, shape, which):
    tol = 1e-10 if eps(dtype) < 1e-10 else 1e-5
    matrix = with_singular_values(shape, OUTLIERS, 1, dtype)
    for k in (1, 4):
        expected = OUTLIERS[:k] if which == "LM" else OUTLIERS[-k:]
        check(svds(matrix, k, which=which, tol=tol), matrix, expected, tol)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_every_backend(name, dtype):
    backend = BACKENDS[name]()
    for shape in ((90, 50), (50, 90)):
        matrix = with_singular_values(shape, OUTLIERS[:50], 2, dtype)
        start = random_array((shape[1], 2), dtype, 3)
        result = svds(ls.aslinearoperator(matrix, backend=backend), 3, tol=1e-9, start=start)
        np.testing.assert_allclose(result.singular_values, OUTLIERS[:3], atol=1e-8)
        left, right = backend.to_numpy(result.left_vectors), backend.to_numpy(result.right_vectors)
        np.testing.assert_allclose(matrix @ right, left * OUTLIERS[:3], atol=1e-7)


def test_small_singular_values_are_not_squared():
    """By the Gram matrix a singular value of 1e-10 would drown in rounding of the square root of 1e-16."""
    values = np.geomspace(1, 1e-12, 40)
    matrix = with_singular_values((70, 40), values, 4)
    result = svds(matrix, 40, tol=1e-14)
    np.testing.assert_allclose(result.singular_values, values, atol=5e-15)
    assert np.abs(np.sqrt(np.abs(np.linalg.eigvalsh(matrix.T @ matrix)[::-1])) - values).max() > 1e-10  # what squaring would give
    # Also where the space is restarted many times.
    values = np.r_[np.linspace(1, 0.9, 60), np.geomspace(1e-8, 1e-11, 4)]
    result = svds(with_singular_values((200, 64), values, 5), 4, which="SM", tol=1e-13, max_basis=30)
    np.testing.assert_allclose(result.singular_values, values[-4:], atol=5e-15)


def test_as_scipy_does():
    matrix = scipy.sparse.random(1500, 200, 0.02, random_state=np.random.default_rng(6)).tocsr()
    ours = svds(matrix, 6, tol=1e-10)
    theirs = sparse_linalg.svds(matrix, 6, random_state=0)[1]
    np.testing.assert_allclose(ours.singular_values, np.sort(theirs)[::-1], atol=1e-9)
    np.testing.assert_allclose(svds(matrix.T, 6, tol=1e-10).singular_values, ours.singular_values, atol=1e-9)


@pytest.mark.parametrize("which", ["LM", "SM"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 2), (3, 2), (31, 31), (64, 50), (50, 64)], ids=str)
def test_all_of_them(shape, which):
    matrix = random_array(shape, float, 7)
    check(svds(matrix, min(shape), which=which, tol=1e-10), matrix, np.linalg.svd(matrix)[1], 1e-10)


@pytest.mark.parametrize("seed", range(4))
def test_no_copy_of_a_multiple_singular_value_is_missed(seed):
    """The products of a diagonal matrix mix nothing: a Krylov space of one vector holds one copy of each."""
    diagonal = np.r_[np.linspace(0, 1, 200), 2.0, 2.0, 2.0, 3.0, 3.0, 3.0]
    for k, expected in ((4, [3, 3, 3, 2]), (6, [3, 3, 3, 2, 2, 2]), (7, [3, 3, 3, 2, 2, 2, 1])):
        result = svds(ls.diagonal_operator(diagonal), k, tol=1e-9, seed=seed)
        np.testing.assert_allclose(result.singular_values, expected, atol=1e-8)
    diagonal = np.r_[np.linspace(1, 2, 100), 0.1, 0.1, 0.0, 0.0]
    result = svds(ls.diagonal_operator(diagonal), 4, which="SM", tol=1e-9, seed=seed)
    np.testing.assert_allclose(result.singular_values, [0.1, 0.1, 0, 0], atol=1e-8)


@pytest.mark.parametrize(
    "matrix, expected",
    [
        (np.eye(60), [1, 1, 1]),
        (np.eye(500)[:, :80], [1, 1, 1]),
        (np.zeros((60, 50)), [0, 0, 0]),
        (np.zeros((2, 3)), [0, 0]),
        (np.ones((50, 72)), [60, 0, 0]),
        (np.diag(np.r_[np.ones(45), np.zeros(15)]), [1, 1, 1]),
        (np.outer(np.arange(50.0), np.ones(60)) + np.outer(np.ones(50), np.arange(60.0)), None),
    ],
    ids=["identity", "orthonormal columns", "zero", "small zero", "rank one", "projector", "rank two"],
)
def test_invariant_subspaces(matrix, expected):
    expected = np.linalg.svd(matrix)[1][:3] if expected is None else expected
    check(svds(matrix, len(expected), tol=1e-10), matrix, expected, 1e-10)
    if min(matrix.shape) >= 50:
        check(svds(matrix, 3, tol=1e-10, which="SM", max_basis=20), matrix, np.linalg.svd(matrix)[1][-3:], 1e-10)


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e200])
def test_extreme_scales(scale):
    result = svds(with_singular_values((120, 80), OUTLIERS) * scale, 4, tol=1e-9)
    np.testing.assert_allclose(result.singular_values / scale, [6, 5, 4, 3], atol=1e-7)
    assert result.converged.all()


@pytest.mark.parametrize("shape", [(250, 200), (200, 250)], ids=str)
def test_a_good_start_saves_products(shape):
    matrix = with_singular_values(shape, np.linspace(2, 1, 200), 8)
    cold = svds(matrix, 3, tol=1e-9)
    start = np.asarray(cold.right_vectors) + 1e-10 * random_array((shape[1], 3), float, 9)
    kept = start.copy()
    warm = svds(matrix, 3, tol=1e-7, start=start)
    np.testing.assert_array_equal(start, kept)
    assert warm.num_matvecs < svds(matrix, 3, tol=1e-7).num_matvecs / 1.5
    for bad in (np.asarray(cold.right_vectors), np.repeat(start[:, :1], 3, axis=1), np.zeros(shape[1]), start[:, 0], start[:, 1:]):
        np.testing.assert_allclose(svds(matrix, 3, tol=1e-9, start=bad).singular_values, cold.singular_values, atol=1e-8)


def test_vectors_that_never_fit_are_restarted():
    """Many restarts with a basis hardly larger than k keep the residual relations exact."""
    matrix = with_singular_values((300, 150), np.linspace(1, 0, 150) ** 2 * 5, 10)
    check(svds(matrix, 5, tol=1e-10, max_basis=9, max_matvecs=20000), matrix, np.linalg.svd(matrix)[1][:5], 1e-10)


def test_what_has_not_converged_is_marked_and_its_residual_is_true():
    values = np.linspace(2, 1, 150)
    matrix = with_singular_values((300, 150), values, 11)
    for which in ("LM", "SM"):
        with pytest.warns(UserWarning, match=r"Of 4 singular triplets \d converged within .*marked in \.converged"):
            result = svds(matrix, 4, which=which, tol=1e-12, max_matvecs=60)
        assert not result.converged.all() and result.num_matvecs < 90 and result.status == "max matvecs"
        left, right = np.asarray(result.left_vectors), np.asarray(result.right_vectors)
        forward = np.linalg.norm(matrix @ right - left * result.singular_values, axis=0)
        backward = np.linalg.norm(matrix.T @ left - right * result.singular_values, axis=0)
        np.testing.assert_allclose(result.residual_norms, np.hypot(forward, backward), atol=1e-12)
        for value, residual in zip(result.singular_values, result.residual_norms, strict=True):
            assert np.abs(np.r_[values, 0] - value).min() <= residual


def test_num_matvecs_counts_both_products():
    operator = ls.aslinearoperator(with_singular_values((120, 80), OUTLIERS))
    result = svds(operator, 3)
    assert result.num_matvecs == operator.num_matvecs


def test_wrong_arguments():
    matrix = random_array((8, 5), float, 12)
    with pytest.raises(ValueError, match=r"argument k is 6, but an operator of shape .* has only 5"):
        svds(matrix, 6)
    with pytest.raises(ValueError, match="argument which is 'LA'"):
        svds(matrix, 2, which="LA")
    with pytest.raises(ValueError, match="argument tol"):
        svds(matrix, 2, tol=-1.0)
    with pytest.raises(ValueError, match=r"argument start must have shape \(5,\)"):
        svds(matrix, 2, start=np.ones(8))
    with pytest.raises(ValueError, match="argument max_basis"):
        svds(random_array((80, 50), float, 0), 2, max_basis=0)
    with pytest.raises(TypeError, match="no product with its adjoint"):
        svds(ls.aslinearoperator(lambda x: 2 * x, shape=(9, 9), dtype=float), 2)


class Matrix(ls.LinearOperator):
    """A matrix whose product number `at` does something else, and whose adjoint may be wrong."""

    def __init__(self, matrix, at=0, action=None, adjoint=None):
        super().__init__(matrix.shape, matrix.dtype)
        self.matrix, self.left, self.action = matrix, at, action
        self.other = matrix.T if adjoint is None else adjoint

    def _apply(self, matrix, x):
        self.left -= 1
        return self.action(matrix.shape[0]) if self.left == 0 else matrix @ x

    def _matmat(self, x):
        return self._apply(self.matrix, x)

    def _rmatmat(self, x):
        return self._apply(self.other, x)


def _raise(kind):
    raise kind("the device is gone")


def test_a_wrong_adjoint_is_found():
    matrix = random_array((60, 50), float, 13)
    with pytest.raises(ValueError, match="not that of the operator's adjoint"):
        svds(Matrix(matrix, adjoint=matrix.T * 1.001), 2)
    with pytest.raises(ValueError, match="not that of the operator's adjoint"):
        svds(Matrix(matrix, adjoint=random_array((50, 60), float, 14)), 2)


def test_interruptions_keep_what_there_is():
    matrix = with_singular_values((300, 150), np.linspace(2, 1, 150), 15)
    result = svds(Matrix(matrix, 40, lambda m: _raise(KeyboardInterrupt)), 3)
    assert result.status == "interrupted" and result.num_matvecs == 39 and not result.converged.all()
    left, right = result.left_vectors, result.right_vectors
    true = np.linalg.norm(matrix.T @ left - right * result.singular_values, axis=0)
    np.testing.assert_allclose(result.residual_norms, true, rtol=1e-6)
    with pytest.raises(KeyboardInterrupt):
        svds(Matrix(matrix, 3, lambda m: _raise(KeyboardInterrupt)), 3)
    with pytest.raises(ls.LanczosInterrupted, match=r"after 39 others .*the device is gone.*\.partial") as caught:
        svds(Matrix(matrix, 40, lambda m: _raise(OSError)), 3)
    assert caught.value.partial.singular_values.shape == (3,)
    with pytest.raises(ls.NonFiniteProductError, match=r"NaN or infinity.*\.partial"):
        svds(Matrix(matrix, 41, lambda m: np.full((m, 1), np.nan)), 3)
    with pytest.raises(FloatingPointError, match="NaN or infinity"):
        svds(Matrix(matrix, 1, lambda m: np.full((m, 1), np.inf)), 3)
    with pytest.raises(OSError, match="the device is gone"):
        svds(Matrix(matrix, 2, lambda m: _raise(OSError)), 3)


def test_time_budget_and_progress():
    matrix = with_singular_values((300, 150), np.linspace(2, 1, 150), 16)

    def slow(x):
        time.sleep(0.001)
        return x

    operator = ls.aslinearoperator(slow, shape=(300, 300), dtype=float, hermitian=True) @ ls.aslinearoperator(matrix)
    began = time.perf_counter()
    result = svds(operator, 5, tol=1e-13, time_budget=0.1)
    assert time.perf_counter() - began < 1.0 and result.status == "time budget" and not result.converged.all()
    calls = []
    svds(matrix, 3, tol=1e-6, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (3, 3)


def test_saved_and_loaded(tmp_path):
    result = svds(with_singular_values((120, 80), OUTLIERS), 3)
    result.save(tmp_path / "s.npz")
    again = ls.load(tmp_path / "s.npz")
    for name in ("singular_values", "left_vectors", "right_vectors", "residual_norms", "converged"):
        np.testing.assert_array_equal(getattr(again, name), getattr(result, name))
    assert "6" in str(result) and "residual" in result._repr_html_() and again.num_matvecs == result.num_matvecs


def test_copies_in_spectra_of_many_multiple_values():
    """Whole numbers, each about seven times: up to eight verifications in a row have to find every copy among the first eight."""
    for seed in range(12):
        diagonal = np.random.default_rng(seed).integers(0, 50, 350).astype(float)
        result = svds(ls.diagonal_operator(diagonal), 8, seed=seed)
        np.testing.assert_allclose(result.singular_values, np.sort(diagonal)[::-1][:8], atol=1e-4)


@pytest.mark.parametrize(
    "values, k",
    [
        (np.r_[1.5, 1.5, np.arange(2.0, 320)], 2),
        (np.r_[0.0, 0.0, np.arange(1.0, 319)], 2),
        (np.r_[np.arange(1.0, 21), np.zeros(20)], 3),
    ],
)
def test_copies_of_the_smallest(values, k):
    for options in ({}, {"max_basis": 6}):
        result = ls.svds(np.diag(values), k, which="SM", **options)
        np.testing.assert_allclose(result.singular_values, np.sort(values)[:k][::-1], atol=1e-10)
        assert result.verified and result.converged.all()


def test_what_is_not_verified_is_said():
    """A large operator whose smallest values lie close together: the search may end open, but not in silence."""
    values = np.r_[1.5, 1.5, np.linspace(2.0, 2000.0, 1800)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = ls.svds(ls.diagonal_operator(values), 2, which="SM", tol=1e-4, max_matvecs=4000)
    right = np.allclose(result.singular_values, [1.5, 1.5], atol=1e-2)
    assert right or not (result.verified and result.converged.all())
    assert ls.svds(ls.diagonal_operator(values), 2).verified
