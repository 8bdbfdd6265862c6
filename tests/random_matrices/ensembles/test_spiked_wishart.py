"""Spiked sample covariances: outliers above and below the bulk, overlaps, the threshold."""

import numpy as np
import pytest

from linop_spectra.random_matrices import wishart
from linop_spectra.random_matrices.ensembles.spiked_wishart import spiked_wishart


@pytest.mark.parametrize("p, n, spike", [(300, 1200, 3.0), (300, 1200, 6.0), (500, 250, 6.0), (300, 3000, 0.2)])
def test_outliers_and_overlaps(p, n, spike):
    """To l (1 + c / (l - 1)) with standard deviation sqrt(2 l^2 (1 - c / (l - 1)^2) / n), overlap as in Paul (2007)."""
    operator, c = spiked_wishart(p, n, spike, seed=1), p / n
    values, vectors = np.linalg.eigh(operator.to_dense())
    index = -1 if spike > 1 else 0
    rest = 1 - c / (spike - 1) ** 2
    assert values[index] == pytest.approx(spike * (1 + c / (spike - 1)), abs=4 * np.sqrt(2 * spike**2 * rest / n))
    overlap = (operator.directions[:, 0] @ vectors[:, index]) ** 2
    assert overlap == pytest.approx(rest / (1 + c / (spike - 1)), abs=4 / np.sqrt(n))
    edge = (1 + np.sqrt(c)) ** 2
    assert np.delete(values, index)[-1] < edge * (1 + 4 * p ** (-2 / 3))


def test_weak_spikes_leave_no_trace():
    values = np.linalg.eigvalsh(spiked_wishart(400, 1600, [1.2, 0.9], seed=2).to_dense())
    assert values[-1] < 2.25 * (1 + 4 * 400 ** (-2 / 3)) and values[0] > 0.25 * (1 - 6 * 400 ** (-2 / 3))


def test_the_data_are_those_of_wishart_seen_through_the_root():
    options = {"seed": 3, "dtype": np.complex128}
    operator = spiked_wishart(9, 20, [4.0, 0.0], **options)
    u = operator.directions
    root = np.eye(9) + (u * [1.0, -1.0]) @ u.conj().T
    np.testing.assert_allclose(root @ root, np.eye(9) + (u * [3.0, -1.0]) @ u.conj().T, atol=1e-13)
    np.testing.assert_allclose(operator.to_dense(), root @ wishart(9, 20, **options).to_dense() @ root, atol=1e-13)
    np.testing.assert_allclose(operator @ u[:, 1], 0, atol=1e-13)  # a direction without variance


def test_mean_is_the_population_covariance():
    u = np.eye(4)[:, :1]
    draws = np.array([spiked_wishart(4, 3, 5.0, directions=u, seed=s).to_dense() for s in range(800)])
    error = 4.5 * draws.std(axis=0) / np.sqrt(800)
    assert np.all(np.abs(draws.mean(axis=0) - np.diag([5.0, 1, 1, 1])) < error)


def test_smallest_sizes():
    np.testing.assert_allclose(spiked_wishart(1, 3, 4.0, seed=1).to_dense(), 4 * wishart(1, 3, seed=1).to_dense())
    assert np.linalg.matrix_rank(spiked_wishart(5, 1, 4.0, seed=1).to_dense()) == 1


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"spikes": -1.0}, "The argument spikes must be at least 0, but its smallest entry is -1"),
        ({"spikes": np.inf}, "The argument spikes must be finite"),
        ({"spikes": np.ones(6)}, "The argument spikes has 6 entries"),
        ({"spikes": 2.0, "directions": np.ones((5, 2))}, r"The argument directions must be real numbers of shape \(5, 1\)"),
        ({"spikes": 2.0, "n": 0}, "The argument n must be"),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        spiked_wishart(5, arguments.pop("n", 7), **arguments)
