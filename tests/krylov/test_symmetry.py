"""Whatever is wrongly called symmetric is found out by the run itself, without further products."""

import numpy as np
import pytest
from helpers import rotated

import linop_spectra as ls

N = np.random.default_rng(0).standard_normal((100, 100))
H = rotated(np.linspace(-1, 1, 100), 0, np.complex128)


def called_hermitian(matrix):
    return ls.aslinearoperator(lambda v: matrix @ v, shape=matrix.shape, dtype=matrix.dtype, hermitian=True)


CASES = {
    "skew": N - N.T, "shifted skew": 3 * np.eye(100) + N - N.T, "general": N, "symmetric plus a little skew": N + N.T + 1e-4 * (N - N.T),
    "i times Hermitian": 1j * H, "Hermitian plus a little": H + 1e-4j * H, "single precision": (N - N.T).astype(np.float32),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("reorthogonalize", ["full", "none"])
@pytest.mark.parametrize("steps", [2, 20])
def test_wrongly_called_symmetric(case, reorthogonalize, steps):
    with pytest.raises(ValueError, match="not symmetric"):
        ls.lanczos(called_hermitian(CASES[case]), steps, reorthogonalize=reorthogonalize)


@pytest.mark.parametrize("reorthogonalize", ["full", "none"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_symmetric_operators_pass_for_all_steps(reorthogonalize, dtype):
    for eigenvalues in (np.linspace(0, 1, 120), np.r_[np.zeros(110), np.arange(1.0, 11) ** 4], 10.0 ** np.linspace(-8, 0, 120)):
        for seed in range(5):
            run = ls.lanczos(called_hermitian(rotated(eigenvalues, seed, dtype)), 100, reorthogonalize=reorthogonalize, seed=seed)
            rounding = 1e3 * np.finfo(dtype).eps * eigenvalues.max()
            assert np.nanmax(run.ritz_values) <= eigenvalues.max() + rounding
            assert np.nanmin(run.ritz_values) >= eigenvalues.min() - rounding


def test_noise_is_called_noise():
    rng = np.random.default_rng(0)

    def noisy(v):
        product = N @ v + N.T @ v
        return product + 1e-3 * np.linalg.norm(product) * rng.standard_normal(100) / 10

    operator = ls.aslinearoperator(noisy, shape=(100, 100), dtype=float, hermitian=True)
    with pytest.raises(ValueError, match="too noisy for float64"):
        ls.lanczos(operator, 20)


@pytest.mark.parametrize("values", [[0.0, 1.0, 1.0], [0.0] * 1000 + [1.0, 2.0, 3.0], [1.0] * 1999 + [5.0]], ids=["3", "1003", "2000"])
def test_a_space_that_is_nearly_invariant_says_nothing_of_symmetry(values):
    """What rounding leaves where the space ends is scaled up to a vector, and that one is orthogonal to nothing."""
    operator = ls.diagonal_operator(np.array(values))
    for seed in range(100):
        run = ls.lanczos(operator, min(len(values), 20), seed=seed, reorthogonalize="none")
        assert np.nanmin(run.ritz_values) > min(values) - 1e-9 and np.nanmax(run.ritz_values) < max(values) + 1e-9
