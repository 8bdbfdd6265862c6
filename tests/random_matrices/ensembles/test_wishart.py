"""Wishart matrices against the Marchenko-Pastur law, exact moments and the edge law."""

import numpy as np
import pytest
from helpers import same_law
from scipy import integrate, stats

import linop_spectra as ls
from linop_spectra.backends import random_vector
from linop_spectra.random_matrices import MarchenkoPastur, TracyWidom, wishart


def test_it_is_the_covariance_of_the_published_stream_sample_by_sample():
    p, n = 7, 11
    population = np.linspace(0.5, 3, p)
    stream = random_vector(p * n, kind="normal", seed=5, domain="ensemble/wishart", index=0, dtype=np.dtype(float))
    x = stream.reshape(n, p).T * np.sqrt(population)[:, None]
    np.testing.assert_allclose(wishart(p, n, seed=5, population=population).to_dense(), x @ x.T / n, rtol=1e-12)


@pytest.mark.parametrize("dtype, beta", [(np.float64, 1), (np.complex128, 2)])
def test_exact_law_of_the_trace(dtype, beta):
    """beta n tr S is chi-square with beta n p degrees of freedom."""
    p, n = 4, 6
    traces = [np.trace(wishart(p, n, seed=s, dtype=dtype).to_dense()).real for s in range(400)]
    assert same_law(beta * n * np.array(traces), stats.chi2(beta * n * p))


@pytest.mark.parametrize("p, n", [(300, 1200), (1000, 250)])
def test_all_eigenvalues_follow_marchenko_pastur(p, n):
    eigenvalues = np.linalg.eigvalsh(wishart(p, n, seed=1).to_dense())
    zeros = max(0, p - n)
    assert np.abs(eigenvalues[:zeros]).max(initial=0.0) < 1e-12 and eigenvalues[zeros] > 1e-3
    levels = (np.arange(p) + 0.5) / p
    assert np.abs(MarchenkoPastur(ratio=p / n).cdf(eigenvalues[zeros:]) - levels[zeros:]).max() < 8 / p
    assert np.abs(MarchenkoPastur(ratio=n / p).cdf(eigenvalues[zeros:]) - levels[zeros:]).max() > 0.1


@pytest.mark.parametrize("p, n, budget", [(600, 2400, None), (600, 2400, "8MB"), (900, 300, None)])
def test_spectral_density_is_within_its_own_bound_of_the_law(p, n, budget):
    """W1(measured, law) <= W1(measured, spectrum) + W1(spectrum, law); rigidity bounds the latter by 6 / p in units of the edge."""
    operator, law = wishart(p, n, seed=1, memory_budget=budget), MarchenkoPastur(ratio=p / n)
    density = ls.spectral_density(operator, num_steps=60, num_probes=4, seed=0)
    edge = law.support[0][1]
    x = np.linspace(-0.2, 1.5 * edge, 40_001)

    def distance(other):
        return integrate.trapezoid(np.abs(density.cdf(x) - other.cdf(x)), x)

    assert distance(law) <= density.wasserstein_bound + 6 * edge / p < distance(MarchenkoPastur(ratio=p / n, variance=1.5))
    assert operator.positive_semidefinite is True


def test_largest_eigenvalue_follows_tracy_widom():
    """Centring and scaling of Johnstone (2001)."""
    p, n, draws = 100, 200, 200
    largest = [ls.eigsh(wishart(p, n, seed=s), k=1, which="LA", tol=1e-6).eigenvalues[0] for s in range(draws)]
    centre = (np.sqrt(n - 1) + np.sqrt(p)) ** 2
    scale = (np.sqrt(n - 1) + np.sqrt(p)) * (1 / np.sqrt(n - 1) + 1 / np.sqrt(p)) ** (1 / 3)
    scaled = (n * np.array(largest) - centre) / scale
    assert same_law(scaled, TracyWidom(beta=1))
    assert not same_law(scaled, TracyWidom(beta=2))


def test_a_spike_in_the_population():
    """Spike l > 1 + sqrt(c): an eigenvalue at l (1 + c / (l - 1)), with standard deviation sqrt(2 l^2 (1 - c / (l - 1)^2) / n)."""
    p, n, spike = 400, 1600, 4.0
    c = p / n
    top = ls.eigsh(wishart(p, n, seed=2, population=np.r_[spike, np.ones(p - 1)]), k=1, which="LA", tol=1e-8).eigenvalues[0]
    deviation = np.sqrt(2 * spike**2 * (1 - c / (spike - 1) ** 2) / n)
    assert top == pytest.approx(spike * (1 + c / (spike - 1)), abs=4 * deviation)


def test_smallest_sizes():
    ones = [wishart(1, 3, seed=s).to_dense()[0, 0] for s in range(400)]
    assert same_law(3 * np.array(ones), stats.chi2(3))
    for p, n in ((1, 1), (3, 1), (1, 3)):
        assert np.linalg.matrix_rank(wishart(p, n, seed=1).to_dense()) == 1
    assert np.all(wishart(3, 2, population=np.zeros(3)).to_dense() == 0)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"p": 0, "n": 3}, "The argument p must be a whole number of at least 1, but is 0"),
        ({"p": 3, "n": 0}, "The argument n must be a whole number of at least 1, but is 0"),
        ({"p": 2.5, "n": 3}, "The argument p must be a whole number of at least 1, but is 2.5"),
        ({"p": 3, "n": "x"}, "The argument n must be a whole number of at least 1, but is 'x'"),
        ({"p": 3, "n": 3, "population": [1.0, 2.0]}, r"The argument population must be 3 finite numbers .* has shape \(2,\)"),
        ({"p": 2, "n": 3, "population": [1.0, -2.0]}, "The argument population must be 2 finite numbers .* smallest entry"),
        ({"p": 2, "n": 3, "population": [1.0, np.nan]}, "The argument population must be 2 finite numbers"),
        ({"p": 2, "n": 3, "population": ["a", "b"]}, "The argument population must be 2 finite numbers"),
        ({"p": 2, "n": 3, "population": 2.0}, "The argument population must be 2 finite numbers"),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        wishart(**arguments)
