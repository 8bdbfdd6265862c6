"""Weighted Gram matrices against their generalised Marchenko-Pastur law."""

import numpy as np
import pytest
from scipy import stats

from linop_spectra.random_matrices import MarchenkoPastur
from linop_spectra.random_matrices.ensembles.weighted_gram import weighted_gram


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_resolvent_solves_the_equation_of_the_limit(dtype):
    """m = 1 / (-z + s sum_i w_i / (1 + w_i s D m)), w_i = a_i / N."""
    count, dimension, variance = 600, 300, 2.0
    weights = np.linspace(-0.5, 1.5, count)
    values = np.linalg.eigvalsh(weighted_gram(weights, dimension, variance=variance, seed=1, dtype=dtype).to_dense())
    w = weights / count
    for z in (0.5 + 0.5j, 2.0 + 0.6j, -0.5 + 0.5j):
        m = np.mean(1 / (values - z))

        def residual(s, z=z, m=m):
            return abs(m - 1 / (-z + s * np.sum(w / (1 + w * s * dimension * m))))

        assert residual(variance) < 8 / dimension < residual(1.2 * variance)


def test_equal_weights_give_marchenko_pastur():
    dimension, count = 300, 1200
    operator = weighted_gram(np.full(count, 0.5), dimension, variance=3.0, seed=2)
    values = np.linalg.eigvalsh(operator.to_dense())
    law = MarchenkoPastur(ratio=dimension / count, variance=1.5)
    assert np.abs(law.cdf(values) - (np.arange(dimension) + 0.5) / dimension).max() < 8 / dimension
    assert operator.positive_semidefinite is True


def test_exact_law_of_the_trace_and_signs():
    traces = [np.trace(weighted_gram([2.0, 2.0], 5, seed=s).to_dense()) for s in range(400)]
    assert stats.kstest(traces, stats.chi2(10).cdf).pvalue > 1e-4
    values = np.linalg.eigvalsh(weighted_gram(np.r_[np.ones(4), -np.ones(3), np.zeros(5)], 30, seed=1).to_dense())
    assert (np.sum(values > 1e-10), np.sum(values < -1e-10)) == (4, 3)
    assert weighted_gram([1, 0], 3).positive_semidefinite is True and weighted_gram([1, -1], 3).positive_semidefinite is None


def test_the_matrix_is_the_same_formed_held_or_made_anew():
    weights, x = np.linspace(-1, 1, 200), np.ones((20, 2))
    held = weighted_gram(weights, 20, seed=3)
    formed = weighted_gram(weights, 20, seed=3, memory_budget=3 * held.gram_bytes)
    anew = weighted_gram(weights, 20, seed=3, memory_budget=2000)
    assert held.stored and formed.gram_stored and not anew.stored and not anew.gram_stored
    np.testing.assert_allclose(formed @ x, held @ x, atol=1e-13)
    np.testing.assert_allclose(anew @ x, held @ x, atol=1e-13)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"weights": []}, "The argument weights must be real numbers"),
        ({"weights": [1.0, np.nan]}, "The argument weights must be finite, but entry 1 is not"),
        ({"weights": [1j]}, "The argument weights must be real numbers"),
        ({"weights": [1.0], "dimension": 0}, "The argument dimension must be a whole number of at least 1"),
        ({"weights": [1.0], "variance": 0.0}, "The argument variance"),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        weighted_gram(**{"dimension": 3, **arguments})
