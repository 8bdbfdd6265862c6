"""Block Lanczos: its recurrence, multiple eigenvalues, quadrature of twice the steps, and what breaks it."""

import numpy as np
import pytest
from helpers import BACKENDS, DTYPES, eps, random_array, rotated

import linop_spectra as ls

VALUES = np.r_[np.linspace(-1, 1, 150), [3.0, 3.0, 3.0, 5.0, 5.0]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block_size", [1, 2, 5])
def test_the_recurrence(dtype, block_size):
    """``A V = V T + V_next C E^H`` and ``V`` orthonormal: the residuals of the Ritz pairs are what the coupling says."""
    matrix = rotated(VALUES, 1, dtype)
    run = ls.block_lanczos(matrix, 8, block_size=block_size)
    m = 8 * block_size
    V = np.asarray(run.basis)
    tolerance = 500 * eps(dtype)
    assert V.shape == (m, 155) and run.projection.shape == (m, m) and run.num_matvecs == m
    np.testing.assert_allclose(V.conj() @ V.T, np.eye(m), atol=tolerance)
    np.testing.assert_allclose(V.conj() @ matrix @ V.T, run.projection, atol=tolerance)
    band = np.abs(np.subtract.outer(np.arange(m), np.arange(m))) > block_size
    assert np.abs(run.projection[band]).max(initial=0.0) == 0.0
    vectors = np.asarray(run.ritz_vectors())
    residuals = np.linalg.norm(matrix @ vectors - vectors * run.ritz_values, axis=0)
    np.testing.assert_allclose(run.residual_norms, residuals, atol=tolerance)
    assert run.weights.sum() == pytest.approx(1, abs=1e-12) and run.converged


def test_multiple_eigenvalues_come_as_often_as_the_block_allows():
    operator = ls.diagonal_operator(VALUES)
    for block_size, copies in ((1, 1), (2, 2), (3, 3), (4, 3)):
        values = ls.block_lanczos(operator, 30, block_size=block_size).ritz_values
        assert (np.abs(values - 3) < 1e-8).sum() == copies


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_moments_are_exact_to_twice_the_steps(dtype):
    matrix, steps, b = rotated(VALUES / 5, 2, dtype), 5, 3
    start = random_array((155, b), dtype, 0)
    run = ls.block_lanczos(matrix, steps, block_size=b, start=start)
    q = np.linalg.qr(start)[0]
    for p in range(2 * steps):
        exact = np.trace(q.conj().T @ np.linalg.matrix_power(matrix, p) @ q).real / b
        assert run.weights @ run.ritz_values**p == pytest.approx(exact, rel=1e-11, abs=1e-13)
    exact = np.trace(q.conj().T @ np.linalg.matrix_power(matrix, 2 * steps) @ q).real / b
    assert abs(run.weights @ run.ritz_values ** (2 * steps) - exact) > 1e-9 * exact


@pytest.mark.parametrize("block_size", [2, 3, 5])
def test_the_whole_space(block_size):
    matrix = rotated(VALUES[120:], 3)
    run = ls.block_lanczos(matrix, 100, block_size=block_size)
    np.testing.assert_allclose(run.ritz_values, VALUES[120:], atol=1e-12)
    assert run.coupling.shape[0] == 0 and run.residual_norms.max() == 0.0


@pytest.mark.parametrize(
    "operator, values",
    [(ls.identity(12), {1.0}), (ls.diagonal_operator(np.zeros(12)), {0.0}), (ls.low_rank(np.ones((12, 1)), [1.0]), {0.0, 12.0})],
)
def test_dependent_blocks(operator, values):
    run = ls.block_lanczos(operator, 4, block_size=3)
    assert {round(float(value), 9) + 0.0 for value in run.ritz_values} == values
    assert run.residual_norms.max() < 1e-12 and run.weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_gives_the_same_numbers(name):
    matrix = rotated(VALUES, 4)
    expected = ls.block_lanczos(matrix, 6, block_size=2, seed=3)
    run = ls.block_lanczos(ls.aslinearoperator(matrix, hermitian=True, backend=BACKENDS[name]()), 6, block_size=2, seed=3)
    np.testing.assert_allclose(run.ritz_values, expected.ritz_values, atol=1e-12)
    np.testing.assert_allclose(run.weights, expected.weights, atol=1e-12)
    if name != "strict":  # whose arrays do not say where they belong
        vectors = ls.to_numpy(run.ritz_vectors()) if "torch" in name else np.asarray(run.ritz_vectors())
        np.testing.assert_allclose(np.abs(vectors[:, -1]), np.abs(np.asarray(expected.ritz_vectors())[:, -1]), atol=1e-9)


def test_save_and_load(tmp_path):
    run = ls.block_lanczos(rotated(VALUES), 5)
    run.save(tmp_path / "run.npz")
    again = ls.load(tmp_path / "run.npz")
    np.testing.assert_array_equal(again.ritz_vectors(), run.ritz_vectors())
    assert again.block_size == 2 and again._repr_html_().startswith("<table>")


def test_ends_that_are_marked():
    calls = []

    def product(x):
        calls.append(1)
        if len(calls) > 9:
            raise failure
        return VALUES * x

    operator = ls.aslinearoperator(product, shape=(155, 155), dtype=float, hermitian=True)
    failure: BaseException = RuntimeError("gone")
    with pytest.raises(ls.LanczosInterrupted, match=r"at block step 5 \(RuntimeError: gone\)") as caught:
        ls.block_lanczos(operator, 20)
    assert caught.value.step == 4 and caught.value.partial.projection.shape == (8, 8)
    calls.clear()
    failure = KeyboardInterrupt()
    assert ls.block_lanczos(operator, 20).status == "interrupted"
    calls.clear()
    failure = AssertionError()
    assert ls.block_lanczos(ls.diagonal_operator(VALUES), 20, time_budget=1e-9).status == "time budget"
    with pytest.raises(FloatingPointError, match="NaN"):
        ls.block_lanczos(ls.aslinearoperator(lambda x: np.nan * x, shape=(9, 9), dtype=float, hermitian=True), 2)


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"num_steps": 0}, ValueError, "argument num_steps "),
        ({"block_size": 0}, ValueError, "argument block_size "),
        ({"block_size": 200}, ValueError, "argument block_size is 200, but an operator of order 155 has room for 155"),
        ({"start": np.ones((155, 3))}, ValueError, r"argument start must have shape \(155, 2\)"),
        ({"memory_budget": 1000}, MemoryError, "over the memory budget of 1 kB"),
        ({"time_budget": 0}, ValueError, "argument time_budget "),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        ls.block_lanczos(ls.diagonal_operator(VALUES), **{"num_steps": 4, **options})
    with pytest.raises(ValueError, match="Hermitian"):
        ls.block_lanczos(np.triu(np.ones((5, 5))), 2)
