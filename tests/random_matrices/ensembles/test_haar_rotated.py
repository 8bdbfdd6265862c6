"""Given spectra in a random basis, power laws among them."""

import numpy as np
import pytest

import linop_spectra as ls
from linop_spectra.random_matrices import MarchenkoPastur, Semicircle
from linop_spectra.random_matrices.ensembles.haar_rotated import haar_rotated
from linop_spectra.random_matrices.ensembles.haar_rotation import haar_rotation
from linop_spectra.random_matrices.ensembles.power_law_matrix import power_law_matrix


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.complex128, 1e-12), (np.float32, 1e-4)])
@pytest.mark.parametrize("method", ["fast", "exact"])
def test_eigenvalues_are_the_given_ones(method, dtype, tolerance):
    given = np.r_[[30.0, 30.0, -7.0], np.zeros(20), np.linspace(-1, 1, 78)]
    operator = haar_rotated(given, method=method, seed=1, dtype=dtype)
    np.testing.assert_allclose(np.linalg.eigvalsh(operator.to_dense()), np.sort(given), atol=tolerance)
    np.testing.assert_array_equal(operator.eigenvalues, given)
    assert operator.hermitian is True and operator.positive_semidefinite is not True
    vector = operator.rotation @ np.eye(101, dtype=dtype)[2]
    np.testing.assert_allclose(operator @ vector, -7 * vector, atol=tolerance)


def test_the_basis_is_the_rotation_of_the_seed():
    operator = haar_rotated(Semicircle(), n=30, seed=5, rounds=4)
    np.testing.assert_array_equal(operator.rotation.to_dense(), haar_rotation(30, seed=5, rounds=4).to_dense())
    np.testing.assert_allclose(Semicircle().cdf(operator.eigenvalues), (np.arange(30) + 0.5) / 30, atol=1e-9)


@pytest.mark.parametrize("options", [{"method": "fast"}, {"method": "exact"}])
def test_the_diagonal_is_that_of_a_uniform_basis(options):
    """E a_ii^2 = (2 tr A^2 + (tr A)^2) / (n (n + 2)): what a diagonal keeps of a matrix without a preferred basis."""
    n, draws = 64, 200
    given = np.arange(1, n + 1.0) ** -1
    squares = []
    for seed in range(draws):
        dense = haar_rotated(given, seed=seed, **options).to_dense()
        squares.append(np.mean(np.diag(dense) ** 2))
    exact = (2 * (given**2).sum() + given.sum() ** 2) / (n * (n + 2))
    assert np.mean(squares) == pytest.approx(exact, abs=4 * np.std(squares) / np.sqrt(draws))


def test_power_law():
    operator = power_law_matrix(2000, 0.7, largest=3.0, seed=2)
    np.testing.assert_allclose(operator.eigenvalues, 3 * np.arange(1, 2001) ** -0.7, rtol=1e-14)
    assert operator.positive_semidefinite is True
    top = ls.eigsh(operator, k=5, which="LA", tol=1e-9)
    np.testing.assert_allclose(top.eigenvalues[::-1], operator.eigenvalues[:5], rtol=1e-8)
    # Density x^-(1 + 1 / s): the count above x falls off like x^(-1 / s).
    counts = [np.sum(operator.eigenvalues >= x) for x in (0.03, 0.3)]
    assert np.log(counts[0] / counts[1]) / np.log(10) == pytest.approx(1 / 0.7, rel=0.02)


def test_the_density_of_a_large_one():
    n = 50_000
    law = MarchenkoPastur(ratio=0.5)
    density = ls.spectral_density(haar_rotated(law, n=n, seed=3), num_steps=30, num_probes=1)
    x = np.linspace(-0.1, 3.1, 20_001)
    assert np.trapezoid(np.abs(density.cdf(x) - law.cdf(x)), x) <= density.wasserstein_bound + 1 / n


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: haar_rotated([]), "The argument eigenvalues must be real numbers"),
        (lambda: haar_rotated([1j]), "The argument eigenvalues must be real numbers, .* dtype complex128"),
        (lambda: haar_rotated([np.nan, 1]), "The argument eigenvalues must be finite, but entry 0 is not"),
        (lambda: haar_rotated(Semicircle()), "The argument eigenvalues is a law, .* pass n= too"),
        (lambda: haar_rotated([1.0], n=2), "The argument n is 2, but eigenvalues has 1 entries"),
        (lambda: haar_rotated([1.0], method=None), "The argument method is None"),
        (lambda: power_law_matrix(0), "The argument n must be"),
        (lambda: power_law_matrix(5, 0.0), "The argument exponent, .*, must be a positive finite number"),
        (lambda: power_law_matrix(5, largest=-1.0), "The argument largest, the first eigenvalue, must be"),
    ],
)
def test_bad_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_smallest_orders():
    assert haar_rotated([2.0]).to_dense() == pytest.approx(2.0)
    np.testing.assert_allclose(np.linalg.eigvalsh(haar_rotated([2.0, -1.0]).to_dense()), [-1, 2], atol=1e-14)
