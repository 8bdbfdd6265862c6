"""Extreme eigenpairs against dense LAPACK, in every mode, and what cannot converge."""

import time

import numpy as np
import pytest
from helpers import DTYPES, eps, random_array, rotated

import linop_spectra as ls

SPECTRA = {
    "outliers": np.r_[np.linspace(-1, 1, 180), np.linspace(3, 12, 10), np.linspace(-9, -2.5, 10)],
    "uniform": np.linspace(-3, 2, 150),
    "power law": 1 / np.arange(1.0, 121.0) ** 2,
    "both signs equal": np.r_[np.linspace(-1, 1, 100), 5.0, -5.0, 4.0, -4.0],
    "graded": -(10.0 ** np.linspace(-8, 2, 100)),
}


def wanted(eigenvalues, k, which):
    w = np.sort(eigenvalues)
    if which == "LM":
        return np.sort(w[np.argsort(-np.abs(w), kind="stable")[:k]])
    return {"LA": w[len(w) - k :], "SA": w[:k], "BE": np.sort(np.r_[w[: k // 2], w[len(w) - (k + 1) // 2 :]])}[which]


def check(result, matrix, expected, tol):
    """Everything that a result claims, against the matrix itself."""
    norm = max(np.abs(np.linalg.eigvalsh(matrix)).max(), np.finfo(float).tiny)
    rounding = 200 * eps(matrix.dtype) * norm
    np.testing.assert_allclose(result.eigenvalues, expected, atol=tol * norm + rounding)
    assert np.all(np.diff(result.eigenvalues) >= 0)
    assert result.eigenvalues.dtype == np.float64
    x = np.asarray(result.eigenvectors)
    k = len(expected)
    assert x.shape == (len(matrix), k) and x.dtype == matrix.dtype
    assert np.abs(x.conj().T @ x - np.eye(k)).max() < 500 * eps(matrix.dtype)
    residuals = np.linalg.norm(matrix @ x - x * result.eigenvalues.astype(matrix.dtype), axis=0)
    np.testing.assert_allclose(result.residual_norms, residuals, atol=rounding)
    assert np.all(result.converged) and np.all(residuals <= tol * norm + rounding)
    assert result.norm_estimate <= norm * (1 + 100 * eps(matrix.dtype))


@pytest.mark.parametrize("which", ["LM", "LA", "SA", "BE"])
@pytest.mark.parametrize("k", [1, 2, 7])
@pytest.mark.parametrize("name", SPECTRA)
def test_against_dense(name, k, which):
    if name == "both signs equal" and which == "LM" and k % 2:
        pytest.skip("two eigenvalues of opposite sign tie for the last place")
    if name == "graded" and which in ("LA", "BE"):
        pytest.skip("eigenvalues a thousandth of the tolerance apart")
    matrix = rotated(SPECTRA[name], 1)
    check(ls.eigsh(matrix, k, which=which, tol=1e-10), matrix, wanted(SPECTRA[name], k, which), 1e-10)


@pytest.mark.parametrize("which", ["LA", "SA", "LM", "BE"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_precision(dtype, which):
    tol = 1e-10 if eps(dtype) < 1e-10 else 1e-5
    matrix = rotated(SPECTRA["outliers"], 2, dtype)
    check(ls.eigsh(matrix, 5, which=which, tol=tol), matrix, wanted(SPECTRA["outliers"], 5, which), tol)


@pytest.mark.parametrize("which", ["LM", "LA", "SA", "BE"])
@pytest.mark.parametrize("n", [1, 2, 3, 10, 31])
def test_all_eigenvalues(n, which):
    matrix = rotated(np.linspace(-1, 3, n) if n > 1 else np.array([-2.0]), 3)
    check(ls.eigsh(matrix, n, which=which, tol=1e-10), matrix, np.linalg.eigvalsh(matrix), 1e-10)


@pytest.mark.parametrize("multiplicities", [(2, 3), (1, 1, 4), (9,)], ids=str)
def test_degenerate_eigenvalues(multiplicities):
    """A block as large as the multiplicity finds every copy."""
    top = np.repeat(2.0 + np.arange(len(multiplicities)), multiplicities)
    matrix = rotated(np.r_[np.linspace(0, 1, 200), top], 4)
    result = ls.eigsh(matrix, len(top), which="LA", tol=1e-9, block_size=max(multiplicities))
    check(result, matrix, top, 1e-9)


def test_a_block_as_large_as_the_multiplicity_cannot_miss_a_copy():
    """Diagonal matrices have no rounding that mixes: only the block finds every copy for certain."""
    top = np.repeat([2.0, 3.0], 3)
    operator = ls.diagonal_operator(np.r_[np.linspace(0, 1, 100), top])
    for seed in range(10):
        np.testing.assert_allclose(ls.eigsh(operator, 6, which="LA", block_size=3, seed=seed, tol=1e-9).eigenvalues, top, atol=1e-8)


@pytest.mark.parametrize(
    "operator, n, expected",
    [
        (ls.identity(40), 40, [1, 1, 1]),
        (ls.diagonal_operator(np.zeros(40)), 40, [0, 0, 0]),
        (ls.low_rank(np.ones((40, 1)), [1.0]), 40, [0, 0, 40]),
        (ls.diagonal_operator(np.r_[np.ones(20), np.zeros(20)]), 40, [1, 1, 1]),
    ],
    ids=["identity", "zero", "rank one", "projector"],
)
@pytest.mark.parametrize("block_size", [1, 2, 5])
def test_invariant_subspaces(operator, n, expected, block_size):
    result = ls.eigsh(operator, 3, which="LA", block_size=block_size)
    np.testing.assert_allclose(result.eigenvalues, expected, atol=1e-8)
    assert np.all(result.converged)
    x = result.eigenvectors
    assert np.abs(x.T @ x - np.eye(3)).max() < 1e-12


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e200])
def test_extreme_scales(scale):
    matrix = rotated(SPECTRA["outliers"]) * scale
    result = ls.eigsh(matrix, 4, which="LA", tol=1e-9)
    np.testing.assert_allclose(result.eigenvalues / scale, [9, 10, 11, 12], atol=1e-7)
    assert np.all(result.converged)


def test_a_good_start_saves_products():
    matrix = rotated(SPECTRA["uniform"], 5)
    cold = ls.eigsh(matrix, 3, which="LA", tol=1e-9)
    start = cold.eigenvectors + 1e-6 * random_array((150, 3), np.float64, 0)
    kept = start.copy()
    warm = ls.eigsh(matrix, 3, which="LA", tol=1e-9, start=start)
    np.testing.assert_array_equal(start, kept)
    assert warm.num_matvecs < cold.num_matvecs
    np.testing.assert_allclose(warm.eigenvalues, cold.eigenvalues, atol=1e-8)
    # Exact eigenvectors, linearly dependent ones and the zero vector are no trap.
    for bad in (cold.eigenvectors, np.repeat(start[:, :1], 3, axis=1), np.zeros(150)):
        np.testing.assert_allclose(ls.eigsh(matrix, 3, which="LA", tol=1e-9, start=bad).eigenvalues, cold.eigenvalues, atol=1e-8)


@pytest.mark.parametrize("block_size", [1, 2, 4, 20])
@pytest.mark.parametrize("k", [1, 4, 15, 20])
def test_block_sizes_and_small_orders(block_size, k):
    matrix = rotated(np.linspace(-1, 2, 20), 6)
    check(ls.eigsh(matrix, k, which="LA", block_size=block_size, tol=1e-10), matrix, wanted(np.linspace(-1, 2, 20), k, "LA"), 1e-10)


def test_what_has_not_converged_is_marked_and_its_residual_is_true():
    eigenvalues = np.linspace(-1, 1, 400)
    matrix = rotated(eigenvalues, 7)
    with pytest.warns(UserWarning, match=r"Of 4 eigenpairs \d converged within .*marked in \.converged"):
        result = ls.eigsh(matrix, 4, which="LA", tol=1e-12, max_matvecs=45)
    assert not result.converged.all() and result.num_matvecs < 60
    residuals = np.linalg.norm(matrix @ result.eigenvectors - result.eigenvectors * result.eigenvalues, axis=0)
    np.testing.assert_allclose(result.residual_norms, residuals, atol=1e-12)
    for value, residual in zip(result.eigenvalues, residuals, strict=True):
        assert np.abs(eigenvalues - value).min() <= residual + 1e-12


def test_time_budget():
    def slow(x):
        time.sleep(0.001)
        return np.linspace(-1, 1, 500) * x

    result = ls.eigsh(ls.aslinearoperator(slow, shape=(500, 500), dtype=float, hermitian=True), 4, tol=1e-12, time_budget=0.1)
    assert not result.converged.all() and result.seconds < 5


def test_same_seed_same_numbers_and_other_seeds_the_same_eigenvalues():
    matrix = rotated(SPECTRA["outliers"], 8)
    one, two, other = (ls.eigsh(matrix, 3, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.eigenvectors, two.eigenvectors)
    np.testing.assert_allclose(other.eigenvalues, one.eigenvalues, atol=1e-4)


def test_the_operator_counts_the_products():
    operator = ls.diagonal_operator(SPECTRA["uniform"])
    assert ls.eigsh(operator, 2).num_matvecs == operator.num_matvecs


def test_save_and_load(tmp_path):
    result = ls.eigsh(rotated(SPECTRA["outliers"], 0, np.complex128), 3)
    result.save(tmp_path / "pairs.npz")
    again = ls.load(tmp_path / "pairs.npz")
    for name in ("eigenvalues", "eigenvectors", "residual_norms", "converged"):
        np.testing.assert_array_equal(getattr(again, name), getattr(result, name))
    assert (again.norm_estimate, again.num_matvecs, again.seconds) == (result.norm_estimate, result.num_matvecs, result.seconds)
    assert str(again) == str(result) and "residual" in str(result) and result._repr_html_().startswith("<table>")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"k": 0}, "argument k "),
        ({"k": 21}, "argument k is 21, but an operator of order 20 has only 20"),
        ({"which": "XX"}, "argument which is 'XX'"),
        ({"tol": -1.0}, "argument tol "),
        ({"tol": np.nan}, "argument tol "),
        ({"block_size": 0}, "argument block_size "),
        ({"max_matvecs": 0}, "argument max_matvecs "),
        ({"max_basis": 0}, "argument max_basis "),
        ({"time_budget": -1}, "argument time_budget "),
        ({"start": np.ones(3)}, r"argument start must have shape \(20,\)"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ls.eigsh(np.diag(np.arange(20.0)), **options)


def test_bad_operators():
    with pytest.raises(ValueError, match="square Hermitian"):
        ls.eigsh(np.ones((3, 4)))
    with pytest.raises(ValueError, match="not symmetric"):
        ls.eigsh(ls.aslinearoperator(np.random.default_rng(0).standard_normal((50, 50)), hermitian=True))
    with pytest.raises(FloatingPointError, match="NaN"):
        ls.eigsh(ls.aslinearoperator(lambda x: x * np.nan, shape=(30, 30), dtype=float, hermitian=True))


def test_interrupted_pairs_are_returned_and_marked():
    calls = []
    matrix = rotated(SPECTRA["uniform"], 5)

    def product(v):
        calls.append(1)
        if len(calls) == 25:
            raise KeyboardInterrupt
        return matrix @ v

    operator = ls.aslinearoperator(product, shape=matrix.shape, dtype=float, hermitian=True)
    result = ls.eigsh(operator, 3, which="LA", tol=1e-12)
    assert not result.converged.all() and result.num_matvecs == 24 and len(calls) == 25
    true = np.linalg.norm(matrix @ result.eigenvectors - result.eigenvectors * result.eigenvalues, axis=0)
    np.testing.assert_allclose(result.residual_norms, true, rtol=1e-6)


def test_starting_vectors_that_depend_on_each_other():
    operator, start = ls.diagonal_operator(np.arange(50.0)), np.ones((50, 3))
    result = ls.eigsh(operator, 3, which="LA", block_size=3, start=start, tol=1e-10)
    np.testing.assert_allclose(result.eigenvalues, [47, 48, 49], atol=1e-8)
    assert ls.block_lanczos(operator, 4, block_size=3, start=start).ritz_values.max() < 49 + 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_many_pairs_of_a_small_matrix_with_little_room(seed):
    values = np.sort(np.random.default_rng(seed).uniform(-900, 900, 80))
    result = ls.eigsh(rotated(values, seed).astype(np.float32), 65, which="SA", block_size=2, max_basis=30, tol=1e-4, seed=seed)
    np.testing.assert_allclose(result.eigenvalues, values[:65], atol=0.05)
    assert result.verified
