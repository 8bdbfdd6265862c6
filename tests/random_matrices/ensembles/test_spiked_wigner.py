"""Spiked Wigner matrices: outliers, overlaps and the threshold (Baik, Ben Arous and Peche)."""

import numpy as np
import pytest
from helpers import same_law
from scipy import stats

import linop_spectra as ls
from linop_spectra.random_matrices import wigner
from linop_spectra.random_matrices.ensembles.spiked_wigner import spiked_wigner


@pytest.mark.parametrize("ensemble", ["goe", "gue"])
@pytest.mark.parametrize("variance", [1.0, 0.25])
def test_outliers_and_overlaps(ensemble, variance):
    """To theta + s / theta with standard deviation sqrt(2 s (1 - s / theta^2) / (beta n)), overlap 1 - s / theta^2."""
    n, spikes = 500, np.array([3.0, 1.5, -2.0]) * np.sqrt(variance)
    operator = spiked_wigner(n, spikes, variance=variance, ensemble=ensemble, seed=1)
    values, vectors = np.linalg.eigh(operator.to_dense())
    for j, index in enumerate((-1, -2, 0)):
        theta, rest = spikes[j], 1 - variance / spikes[j] ** 2
        assert values[index] == pytest.approx(theta + variance / theta, abs=4 * np.sqrt(2 * variance * rest / n))
        assert np.abs(operator.directions[:, j].conj() @ vectors[:, index]) ** 2 == pytest.approx(rest, abs=6 / np.sqrt(n))
    assert np.abs(values[1:-2]).max() < np.sqrt(variance) * (2 + 6 * n ** (-2 / 3))


def test_weak_spikes_leave_no_trace():
    n = 500
    operator = spiked_wigner(n, [0.7, -0.5], seed=1)
    values, vectors = np.linalg.eigh(operator.to_dense())
    assert np.abs(values).max() < 2 + 6 * n ** (-2 / 3)
    assert np.abs(operator.directions.T @ vectors[:, [0, -1]]).max() ** 2 < 2 * n ** (-1 / 3)


def test_the_noise_is_the_wigner_matrix_of_the_seed_and_directions_are_uniform():
    options = {"variance": 2.0, "seed": 7, "ensemble": "gue", "dtype": np.complex64}
    operator = spiked_wigner(30, 3.0, **options)
    np.testing.assert_array_equal(operator.noise.to_dense(), wigner(30, **options).to_dense())
    assert operator.directions.shape == (30, 1) and operator.directions.dtype == np.complex64 and operator.spikes.tolist() == [3.0]
    frames = [spiked_wigner(12, [3.0, 2.0, 1.0], seed=s).directions for s in range(300)]
    for frame in frames[:3]:
        np.testing.assert_allclose(frame.T @ frame, np.eye(3), atol=1e-14)
    for column in range(3):
        for row in (0, 5):
            entries = np.array([frame[row, column] for frame in frames])
            assert same_law(entries**2, stats.beta(0.5, 11 / 2)) and abs(np.mean(np.sign(entries))) < 4 / np.sqrt(300)


def test_given_directions():
    u = np.eye(20)[:, [3, 7]]
    operator = spiked_wigner(20, [5.0, -4.0], directions=u, seed=2)
    np.testing.assert_allclose(operator.to_dense() - operator.noise.to_dense(), (u * [5.0, -4.0]) @ u.T, atol=1e-14)
    one = spiked_wigner(20, 5.0, directions=np.full(20, 20**-0.5), seed=2)
    assert one.directions.shape == (20, 1)


def test_smallest_orders():
    np.testing.assert_allclose(spiked_wigner(1, 3.0, seed=1).to_dense(), wigner(1, seed=1).to_dense() + 3)
    assert spiked_wigner(2, [3.0, 1.0], seed=1).shape == (2, 2)


def test_a_large_one_is_an_object_of_its_directions():
    """Noise of 160 GB, of which the object holds nothing."""
    operator = spiked_wigner(200_000, [3.0], seed=0, memory_budget="1MB")
    assert "regenerated" in repr(operator) and np.linalg.norm(operator.directions) == pytest.approx(1)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"spikes": []}, r"The argument spikes must be real numbers, shape \(n,\), but has shape \(0,\)"),
        ({"spikes": [np.nan]}, "The argument spikes must be finite, but entry 0 is not"),
        ({"spikes": ["a"]}, "The argument spikes must be real numbers"),
        ({"spikes": [1j]}, "The argument spikes must be real numbers"),
        ({"spikes": np.ones(6)}, "The argument spikes has 6 entries, but a matrix of order 5 has at most 5 directions"),
        ({"spikes": 2.0, "directions": np.ones(5)}, "The columns of the argument directions must be orthonormal.*off by 4"),
        ({"spikes": 2.0, "directions": np.full(5, np.nan)}, "must be orthonormal"),
        ({"spikes": 2.0, "directions": np.ones(4) / 2}, r"The argument directions must be real numbers of shape \(5, 1\)"),
        ({"spikes": 2.0, "directions": np.ones(5) * 1j / np.sqrt(5)}, "The argument directions must be real numbers"),
        ({"spikes": 2.0, "variance": -1}, "The argument variance"),
        ({"spikes": 2.0, "ensemble": "gse"}, "The argument ensemble is 'gse'"),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        spiked_wigner(5, **arguments)


def test_it_works_with_lanczos():
    operator = spiked_wigner(400, [4.0], seed=3)
    np.testing.assert_allclose(
        ls.eigsh(operator, k=1, which="LA", tol=1e-10).eigenvalues[0], np.linalg.eigvalsh(operator.to_dense())[-1], rtol=1e-9
    )
