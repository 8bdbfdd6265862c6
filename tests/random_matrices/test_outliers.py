"""Outliers against published formulas, each other, and sampled matrices."""

import numpy as np
import pytest

import linop_spectra as ls
from linop_spectra.backends import random_vector
from linop_spectra.random_matrices import MarchenkoPastur, Semicircle, TracyWidom, wigner, wishart
from linop_spectra.random_matrices.laws.discrete_law import DiscreteLaw
from linop_spectra.random_matrices.outliers import (
    additive_outlier,
    deformed_wigner_outlier,
    generalized_spiked_outlier,
    multiplicative_outlier,
    spiked_wigner_outlier,
    spiked_wishart_outlier,
)


def unit_vector(n, seed):
    return random_vector(n, kind="sphere", seed=seed, domain="test", index=0, dtype=np.dtype(float))


# -- published numbers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spike, place, deviation, overlap", [(1.5, 2.167, 0.027, 0.556), (2, 2.5, 0.032, 0.75), (4, 4.25, 0.035, 0.9375)])
def test_spiked_wigner_numbers(spike, place, deviation, overlap):
    for sign in (1, -1):
        found = spiked_wigner_outlier(sign * spike, n=1500)
        assert found.separated and found.threshold == sign
        assert found.location == pytest.approx(sign * place, abs=6e-4) and found.overlap == pytest.approx(overlap, abs=6e-4)
        assert found.fluctuation == pytest.approx(deviation, abs=6e-4)
    scaled = spiked_wigner_outlier(3 * spike, variance=9.0, n=1500)
    assert scaled.location == pytest.approx(3 * found.location * -1) and scaled.overlap == pytest.approx(found.overlap)
    assert scaled.fluctuation == pytest.approx(3 * found.fluctuation) and scaled.threshold == 3
    assert spiked_wigner_outlier(spike, n=1500, beta=2).fluctuation == pytest.approx(found.fluctuation / np.sqrt(2))


@pytest.mark.parametrize(
    "spike, c, place, deviation, overlap",
    [(3, 0.25, 3.375, 0.065, 0.833), (6, 0.25, 6.30, 0.1335, 0.943), (6, 2, 8.40, 0.364, 0.657)],
)
def test_spiked_wishart_numbers(spike, c, place, deviation, overlap):
    n = {0.25: 4000, 2: 500}[c]
    found = spiked_wishart_outlier(spike, ratio=c, n=n)
    assert found.separated and found.location == pytest.approx(place, abs=1e-9)
    assert found.overlap == pytest.approx(overlap, abs=6e-4) and found.fluctuation == pytest.approx(deviation, rel=0.01)
    assert found.threshold == pytest.approx(1 + np.sqrt(c))
    scaled = spiked_wishart_outlier(7 * spike, ratio=c, variance=7.0, n=n)
    assert scaled.location == pytest.approx(7 * place) and scaled.fluctuation == pytest.approx(7 * found.fluctuation)


def test_spikes_below_the_threshold_stick_to_the_edge():
    assert spiked_wishart_outlier(1.2, ratio=0.25).location == 2.25
    assert spiked_wishart_outlier(0.7, ratio=0.25).location == 0.25 and spiked_wishart_outlier(0.7, ratio=0.25).threshold == 0.5
    below = spiked_wishart_outlier(0.3, ratio=0.25)
    assert below.separated and below.location < 0.25 and below.location == pytest.approx(0.3 * (1 - 0.25 / 0.7))
    for spike in (0.0, 0.1, 0.9):  # as many variables as samples or more: no lower outlier
        for c in (1.0, 2.0):
            found = spiked_wishart_outlier(spike, ratio=c)
            assert not found.separated and found.threshold == 0 and found.location == pytest.approx((1 - np.sqrt(c)) ** 2)
    assert spiked_wishart_outlier(0.0, ratio=0.25).location == 0 and spiked_wishart_outlier(0.0, ratio=0.25).overlap == 1
    for spike, beta in ((0.0, 1), (0.5, 2), (1.0, 1), (-1.0, 2)):
        found = spiked_wigner_outlier(spike, n=8, beta=beta)
        assert not found.separated and found.overlap == 0 and found.location == (-2 if spike < 0 else 2)
        assert found.fluctuation == pytest.approx(np.sqrt(TracyWidom(beta=beta).var()) / 4, rel=1e-6)
    assert spiked_wigner_outlier(2.0).fluctuation is None


def test_generalized_spikes_numbers():
    population = ([1.0, 5.0], [0.5, 0.5])
    inside, above = (generalized_spiked_outlier(population, spike, ratio=0.1, n=10_000) for spike in (2.2, 12.0))
    assert inside.location == pytest.approx(2.095, abs=5e-4) and inside.overlap == pytest.approx(0.846, abs=5e-4)
    assert above.location == pytest.approx(12.48, abs=5e-3) and above.overlap == pytest.approx(0.936, abs=5e-4)
    # Below the thresholds: the four edges of the population's own sample law, 0.55711, 1.41576, 3.08129, 7.54584.
    edges = [generalized_spiked_outlier(population, spike, ratio=0.1) for spike in (0.9, 1.1, 4.0, 6.0)]
    assert [edge.location for edge in edges] == pytest.approx([0.55711, 1.41576, 3.08129, 7.54584], abs=1e-5)
    assert not any(edge.separated for edge in edges)
    assert generalized_spiked_outlier(population, 0.5, ratio=0.1).location < 0.55711
    closed = generalized_spiked_outlier(population, 2.2, ratio=2.0)
    assert not closed.separated and np.isnan(closed.location) and np.isnan(closed.threshold)


def test_deformed_wigner_numbers():
    law = ([0.0, 1.0], [0.9, 0.1])
    found = deformed_wigner_outlier(law, 1.6, variance=0.04)
    assert (round(found.location, 5), round(found.overlap, 5)) == (1.62917, 0.97483)
    low = deformed_wigner_outlier(law, -0.5, variance=0.04)
    assert low.separated and low.location < -0.5
    assert not deformed_wigner_outlier(law, 0.1, variance=0.04).separated
    gap = deformed_wigner_outlier(law, 0.5, variance=0.04)
    assert gap.separated and gap.location == pytest.approx(0.5 + 0.04 * (0.9 / 0.5 - 0.1 / 0.5))
    assert np.isnan(deformed_wigner_outlier(law, 0.5, variance=4.0).location)


def test_additive_numbers():
    law = MarchenkoPastur(ratio=0.5)
    found = additive_outlier(law, 2.0), additive_outlier(law, 4.0)
    assert [round(f.location, 3) for f in found] == [3.333, 5.143]
    assert [round(f.overlap, 4) for f in found] == [0.7778, 0.9592]
    assert found[0].threshold == pytest.approx(np.sqrt(0.5) * (1 + np.sqrt(0.5)))
    assert not additive_outlier(law, 1.2).separated and additive_outlier(law, 1.21).separated
    assert found[0].location == pytest.approx(2.0 + law.r_transform(0.5))


# -- the general formulas contain the special ones ---------------------------------------------------------------------


@pytest.mark.parametrize("spike", [1.0001, 1.5, 4, 100, 0.5, -0.5, -1.5, -30])
@pytest.mark.parametrize("variance", [1.0, 1e-6])
def test_one_spiked_wigner_matrix_in_three_ways(spike, variance):
    theta = spike * np.sqrt(variance)
    expected = spiked_wigner_outlier(theta, variance=variance, n=1000)
    ways = [additive_outlier(Semicircle(variance=variance), theta, n=1000)]
    ways.append(deformed_wigner_outlier(([0.0], [1.0]), theta, variance=variance, n=1000))
    for found in ways:
        assert found.separated == expected.separated
        assert found.location == pytest.approx(expected.location, rel=1e-9)
        assert found.overlap == pytest.approx(expected.overlap, rel=1e-6, abs=1e-12)
        assert found.threshold == pytest.approx(expected.threshold, rel=1e-7)
        if found.separated:
            assert found.fluctuation == pytest.approx(expected.fluctuation, rel=1e-6)


@pytest.mark.parametrize("spike, c", [(3.0, 0.25), (1.2, 0.25), (0.3, 0.25), (0.7, 0.25), (6.0, 2.0), (1.01, 1e-5), (0.5, 4.0)])
def test_one_spiked_wishart_matrix_in_three_ways(spike, c):
    n, p = 100_000, round(100_000 * c)
    expected = spiked_wishart_outlier(spike, ratio=c, n=n)
    ways = [generalized_spiked_outlier(DiscreteLaw([1.0]), spike, ratio=c, n=n)]
    if c < 1 or spike > 1:
        ways.append(multiplicative_outlier(MarchenkoPastur(ratio=c), spike - 1, n=p))
        assert ways[-1].threshold == pytest.approx(expected.threshold - 1)
    for found in ways:
        assert found.separated == expected.separated
        assert found.location == pytest.approx(expected.location, rel=1e-9)
        assert found.overlap == pytest.approx(expected.overlap, rel=1e-6, abs=1e-12)
        if found.separated:
            assert found.fluctuation == pytest.approx(expected.fluctuation, rel=1e-6)


def test_continuous_populations_are_limits_of_discrete_ones():
    law = Semicircle(variance=0.1)
    atoms = law.quantile((np.arange(4000) + 0.5) / 4000)
    exact = deformed_wigner_outlier(law, 1.2, variance=0.3)
    assert deformed_wigner_outlier((atoms, np.full(4000, 1 / 4000)), 1.2, variance=0.3).location == pytest.approx(exact.location, rel=1e-5)
    assert exact.location == pytest.approx(spiked_wigner_outlier(additive_inverse(1.2), variance=0.4).location, rel=1e-9)


def additive_inverse(place, variance=0.1):
    """The spike that gives a semicircle an outlier at `place`."""
    return (place + np.sqrt(place**2 - 4 * variance)) / 2


# -- sampled matrices --------------------------------------------------------------------------------------------------


def check_sample(matrix, spike_vector, expected, end):
    values, vectors = np.linalg.eigh(matrix)
    place, vector = values[end], vectors[:, end]
    assert place == pytest.approx(expected.location, abs=4 * expected.fluctuation)
    # The overlap is 1 / (1 + a quadratic form) and fluctuates like the place, relative to its distance to the edge.
    assert (vector @ spike_vector) ** 2 == pytest.approx(expected.overlap, abs=0.06)


@pytest.mark.parametrize("law, matrix", [
    (Semicircle(variance=1.0), lambda n: wigner(n, seed=11).to_dense()),
    (MarchenkoPastur(ratio=0.5), lambda n: wishart(n, 2 * n, seed=12).to_dense()),
    (MarchenkoPastur(ratio=4.0), lambda n: wishart(n, n // 4, seed=13).to_dense()),
])  # fmt: skip
def test_additive_spikes_of_sampled_matrices(law, matrix):
    n = 600
    u, noise = unit_vector(n, 1), matrix(600)
    for spike, end in ((8.0, -1), (-1.6, 0)):
        expected = additive_outlier(law, spike, n=n)
        assert expected.separated
        check_sample(noise + spike * np.outer(u, u), u, expected, end)


def test_multiplicative_spikes_of_a_sampled_matrix():
    """A bulk of two levels in a random basis, where the symmetric and the asymmetric forms differ in their overlaps."""
    n, law = 800, DiscreteLaw([1.0, 3.0])
    u = unit_vector(n, 5)
    x = np.diag(np.repeat([1.0, 3.0], n // 2))
    for spike, end in ((2.0, -1), (-0.7, 0)):
        root = np.eye(n) + (np.sqrt(1 + spike) - 1) * np.outer(u, u)
        expected = multiplicative_outlier(law, spike, n=n)
        check_sample(root @ x @ root, u, expected, end)
        other = -1 / (spike**2 * expected.location * _slope_of_t(expected.location) + spike)
        assert abs(other - expected.overlap) > 0.03
        values, vectors = np.linalg.eig(x @ (np.eye(n) + spike * np.outer(u, u)))
        vector = vectors[:, np.argmax(values.real) if end else np.argmin(values.real)].real
        assert (vector @ u) ** 2 / (vector @ vector) == pytest.approx(other, abs=0.02)


def _slope_of_t(z):
    return -(1 / (z - 1) ** 2 + 3 / (z - 3) ** 2) / 2


@pytest.mark.parametrize("spike", [2.2, 12.0])
def test_generalized_spike_of_a_sampled_matrix(spike):
    p, n = 600, 6000
    population = np.r_[spike, np.repeat([1.0, 5.0], p // 2)[: p - 1]]
    matrix = wishart(p, n, population=population, seed=3).to_dense()
    expected = generalized_spiked_outlier(([1.0, 5.0], [0.5, 0.5]), spike, ratio=p / n, n=n)
    values = np.linalg.eigvalsh(matrix)
    end = int(np.argmin(np.abs(values - expected.location)))
    assert (end == p - 1) if spike > 5 else (values[end - 1] < 1.6 and values[end + 1] > 2.9)
    check_sample(matrix, np.eye(p)[0], expected, end)


def test_deformed_wigner_spike_of_a_sampled_matrix():
    n = 800
    diagonal = np.r_[1.6, np.repeat([0.0, 1.0], [n * 9 // 10 - 1, n // 10])]
    matrix = np.diag(diagonal) + wigner(n, variance=0.04, seed=4).to_dense()
    expected = deformed_wigner_outlier(([0.0, 1.0], [0.9, 0.1]), 1.6, variance=0.04, n=n)
    check_sample(matrix, np.eye(n)[0], expected, -1)


def test_fluctuations_have_the_stated_size():
    n, draws, spike = 100, 400, 2.0
    u = unit_vector(n, 2)[:, None]
    operators = (wigner(n, seed=s) + ls.low_rank(u, [spike]) for s in range(draws))
    tops = np.array([np.linalg.eigvalsh(operator.to_dense())[-1] for operator in operators])
    expected = spiked_wigner_outlier(spike, n=n)
    # A sample standard deviation of 400 normals is known to 3.5 %, and the limit is reached up to 1 / n.
    assert tops.std() == pytest.approx(expected.fluctuation, rel=0.15)
    assert tops.mean() == pytest.approx(expected.location, abs=4 * expected.fluctuation / np.sqrt(draws) + 2 / n)


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_bad_input():
    law = MarchenkoPastur(ratio=0.5)
    for call, message in [
        (lambda: spiked_wigner_outlier(np.nan), "spike must be a finite number"),
        (lambda: spiked_wigner_outlier(2.0, variance=-1.0), "variance"),
        (lambda: spiked_wigner_outlier(2.0, n=0), "n must be a whole number"),
        (lambda: spiked_wigner_outlier(2.0, beta=4), "beta is 4"),
        (lambda: spiked_wishart_outlier(2.0, ratio=0.0), "ratio"),
        (lambda: spiked_wishart_outlier(-2.0, ratio=0.5), "no negative eigenvalues"),
        (lambda: multiplicative_outlier(Semicircle(), 1.0), "additive_outlier"),
        (lambda: multiplicative_outlier(law, -1.0), "above -1"),
        (lambda: generalized_spiked_outlier(([1.0, 5.0], [0.5, 0.6]), 9.0, ratio=0.1), "sum to one"),
        (lambda: generalized_spiked_outlier(([-1.0, 5.0], [0.5, 0.5]), 9.0, ratio=0.1), "no negative eigenvalues"),
        (lambda: generalized_spiked_outlier(([1.0, 5.0], [0.5, 0.5]), 5.0, ratio=0.1), "among the other eigenvalues"),
        (lambda: deformed_wigner_outlier(Semicircle(), 1.0), "among the other eigenvalues"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="a law or a pair of arrays"):
        additive_outlier(3.0, 1.0)
