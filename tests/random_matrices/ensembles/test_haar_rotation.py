"""Random rotations: exactly orthogonal, and as random as a uniform one in what is seen of them."""

import numpy as np
import pytest
from helpers import DTYPES, eps, random_array, same_law
from scipy import stats

from linop_spectra.random_matrices.ensembles.haar_rotation import haar_rotation


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["fast", "exact"])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 17, 60])
def test_they_are_unitary(n, method, dtype):
    q = haar_rotation(n, method=method, seed=1, dtype=dtype)
    dense = q.to_dense()
    np.testing.assert_allclose(dense.conj().T @ dense, np.eye(n), atol=20 * eps(dtype))
    np.testing.assert_allclose(q.H.to_dense(), dense.conj().T, atol=20 * eps(dtype))
    assert q.hermitian is not True


@pytest.mark.parametrize("n", [99_991, 2**17, 100_000])
def test_large_ones_keep_inner_products(n):
    """A prime, a power of two, a round number."""
    q, x = haar_rotation(n, seed=2), random_array((n, 2), float, 0)
    rotated = q @ x
    np.testing.assert_allclose(rotated.T @ rotated, x.T @ x, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(q.H @ rotated, x, atol=1e-13)


@pytest.mark.parametrize("options", [{"method": "fast"}, {"method": "exact"}, {"method": "fast", "rounds": 5}])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_weights_of_fixed_vectors_have_the_beta_law(options, dtype):
    """The share of a rotated unit vector in n / 4 coordinates, as that of a uniform vector on the sphere."""
    n, draws, double = 64, 300, 1 if dtype is np.float64 else 2
    first, smooth = np.eye(n)[0], np.full(n, n**-0.5)
    for x in (first, smooth):
        shares = [np.linalg.norm((haar_rotation(n, seed=s, dtype=dtype, **options).rmatvec(x))[: n // 4]) ** 2 for s in range(draws)]
        assert same_law(shares, stats.beta(double * n / 8, double * 3 * n / 8))


def test_entries_look_normal_from_three_rounds_on():
    n = 256
    third, first = (haar_rotation(n, rounds=r, seed=3).to_dense().ravel() * np.sqrt(n) for r in (3, 1))
    assert abs(np.mean(third**4) - 3) < 6 * np.sqrt(96) / n
    assert abs(np.mean(first**4) - 3) > 6 * np.sqrt(96) / n


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_exact_ones_are_uniform(dtype):
    """Entries: |q_11|^2 is Beta; the law does not change when another rotation is multiplied on; E |tr Q|^2 = 1."""
    n, draws, double = 5, 500, 1 if dtype is np.float64 else 2
    matrices = [haar_rotation(n, method="exact", seed=s, dtype=dtype).to_dense() for s in range(draws)]
    fixed = haar_rotation(n, method="exact", seed=10**6, dtype=dtype).to_dense()
    for sample in (matrices, [fixed @ m for m in matrices]):
        assert same_law([abs(m[0, 0]) ** 2 for m in sample], stats.beta(double / 2, double * (n - 1) / 2))
        assert same_law([abs(m[3, 4]) ** 2 for m in sample], stats.beta(double / 2, double * (n - 1) / 2))
        traces = np.array([abs(np.trace(m)) ** 2 for m in sample])
        assert traces.mean() == pytest.approx(1, abs=4 * traces.std() / np.sqrt(draws))


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ({"n": 0}, ValueError, "The argument n must be"),
        ({"n": 5, "rounds": 0}, ValueError, "The argument rounds must be a whole number of at least 1"),
        ({"n": 5, "method": "slow"}, ValueError, "The argument method is 'slow', but must be 'fast' .* or 'exact'"),
        ({"n": 10**5, "method": "exact", "memory_budget": "1GB"}, MemoryError, "takes 240 GB, over the budget .* or method='fast'"),
    ],
)
def test_bad_arguments_are_named(arguments, error, words):
    with pytest.raises(error, match=words):
        haar_rotation(**arguments)
