"""The variance of operators over batches: exact means, coverage of its intervals, and populations of finite size."""

import numpy as np
import pytest

import linop_spectra as ls
from linop_spectra.estimators import NonFiniteEstimateError
from linop_spectra.estimators.field_variance import field_variance, variance_from_squares


def matrices(count, n=6, seed=0):
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((count, n, n))
    return [np.diag(np.arange(n, dtype=float)) + (x + x.T) / 2 for x in noise]


def test_it_is_the_unbiased_variance_of_products():
    given = matrices(5)
    deviations = np.array(given) - np.mean(given, axis=0)
    u = np.array([1.0, 2.0, 0.0, 0.0, -1.0, 3.0])
    along = field_variance(given, u)
    assert along.value == pytest.approx(((deviations @ u) ** 2).sum() / 4 / (u @ u), rel=1e-13)
    assert along.num_matvecs == 5
    average = field_variance(given, num_probes=6)
    assert average.value == pytest.approx((deviations**2).sum() / 4 / 6, rel=1e-13) and average.num_matvecs == 30
    assert field_variance(given, u, share=0.2).value == pytest.approx(0.8 * along.value, rel=1e-13)
    assert field_variance(given, u, share=0.2).standard_error == pytest.approx(0.8 * along.standard_error, rel=1e-13)


def test_the_jackknife_is_that_of_leaving_operators_out():
    given, u = matrices(6), np.ones(6)
    whole = field_variance(given, u)
    without = np.array([field_variance(given[:k] + given[k + 1 :], u).value for k in range(6)])
    assert whole.standard_error == pytest.approx(np.sqrt(5 / 6 * ((without - without.mean()) ** 2).sum()), rel=1e-10)


@pytest.mark.parametrize("isotropic", [True, False])
def test_intervals_cover(isotropic):
    """Wigner noise of variance v: the mean of |noise z|^2 is v (n + 1) / n in every direction."""
    n, count, draws, covered, values = 40, 8, 150, 0, []
    u = None if isotropic else np.eye(n)[3]
    for draw in range(draws):
        batches = [ls.random_matrices.wigner(n, variance=0.5, seed=count * draw + k) for k in range(count)]
        found = field_variance(batches, u, seed=draw, num_probes=4)
        low, high = found.confidence_interval(0.9)
        covered += low < 0.5 * (n + 1) / n < high
        values.append(found.value)
    assert covered / draws > 0.9 - 3 * np.sqrt(0.09 / draws)
    assert np.mean(values) == pytest.approx(0.5 * (n + 1) / n, abs=4 * np.std(values) / np.sqrt(draws))


def test_intervals_of_random_directions_know_what_directions_miss():
    """Noise in one direction out of many: most of what differs between estimates is the choice of directions."""
    n, rng = 50, np.random.default_rng(0)
    direction = rng.standard_normal((n, 1)) / np.sqrt(n)
    batches = [ls.low_rank(direction, [strength]) for strength in rng.standard_normal(40)]
    exact = field_variance(batches, num_probes=n).value
    inside = 0
    for seed in range(60):
        low, high = field_variance(batches, num_probes=12, seed=seed).confidence_interval(0.95)
        inside += low < exact < high
    assert inside >= 54


def test_batches_without_replacement():
    """Over all partitions of a finite population the estimate is unbiased for what a batch of it differs by."""
    population = np.array(matrices(12, n=3, seed=4))
    u, mean = np.array([1.0, -2.0, 0.5]), population.mean(axis=0)
    u /= np.linalg.norm(u)
    rng = np.random.default_rng(0)
    estimates, true = [], []
    for _ in range(1200):
        batches = [group.mean(axis=0) for group in np.split(population[rng.permutation(12)], 3)]
        estimates.append(field_variance(batches, u, share=4 / 12).value)
        true.append(np.sum(((batches[0] - mean) @ u) ** 2))
    error = np.hypot(np.std(estimates), np.std(true)) / np.sqrt(1200)
    assert np.mean(estimates) == pytest.approx(np.mean(true), abs=4 * error)
    assert np.mean(estimates) / (1 - 4 / 12) > np.mean(true) + 4 * error


def test_what_two_batches_and_equal_batches_say():
    two = field_variance(matrices(2), np.ones(6))
    assert two.standard_error == np.inf and np.isfinite(two.value)
    equal = field_variance([np.eye(4)] * 5)
    assert equal.value == 0 and equal.confidence_interval()[1] < 1e-20
    single = field_variance(matrices(4), num_probes=1)
    assert single.standard_error == np.inf


def test_a_small_budget_gives_the_same_and_products_stay_few():
    given = matrices(4, n=30)
    few = field_variance(given, num_probes=9, memory_budget=3000)
    assert few.value == pytest.approx(field_variance(given, num_probes=9).value, rel=1e-12)
    with pytest.raises(MemoryError, match="memory_budget"):
        field_variance(given, memory_budget=100)


@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
def test_types(dtype):
    given = [m.astype(dtype) for m in matrices(4)]
    if dtype == np.complex128:
        given = [m + 1j * np.triu(m, 1) - 1j * np.triu(m, 1).T for m in given]
    u = np.arange(1, 7) / np.linalg.norm(np.arange(1, 7))
    expected = np.linalg.norm((np.array(given) - np.mean(given, axis=0)) @ u.astype(dtype), axis=1) ** 2
    found = field_variance(given, u)
    assert found.value == pytest.approx(expected.sum() / 3, rel=1e-5 if dtype == np.float32 else 1e-12)
    assert abs(found.value - expected.astype(float).sum() / 3) <= 10 * found.rounding_error


def test_rounding_is_in_the_interval_where_the_mean_is_large():
    rng = np.random.default_rng(0)
    noise = [np.diag(1e-3 * rng.standard_normal(20)) for _ in range(5)]
    exact = field_variance(noise, np.ones(20))
    rough = field_variance([(1e3 * np.eye(20) + x).astype(np.float32) for x in noise], np.ones(20))
    assert abs(rough.value - exact.value) <= rough.rounding_error < 100 * exact.value


def test_bad_input():
    given = matrices(3)
    for call, kind, message in [
        (lambda: field_variance(given[:1]), ValueError, "at least two"),
        (lambda: field_variance(given[0]), TypeError, "list of operators"),
        (lambda: field_variance(ls.aslinearoperator(given[0])), TypeError, "list of operators"),
        (lambda: field_variance([given[0], np.eye(5)]), ValueError, "one shape"),
        (lambda: field_variance([given[0], given[1].astype(np.float32)]), ValueError, "one dtype"),
        (lambda: field_variance(given, np.ones(5)), ValueError, r"shape \(6,\)"),
        (lambda: field_variance(given, np.zeros(6)), ValueError, "other than zero"),
        (lambda: field_variance(given, np.full(6, np.nan)), ValueError, "finite"),
        (lambda: field_variance(given, share=1.0), ValueError, "share"),
        (lambda: field_variance(given, num_probes=0), ValueError, "num_probes"),
        (lambda: field_variance([given[0], np.full((6, 6), np.nan)]), NonFiniteEstimateError, "NaN"),
    ]:
        with pytest.raises(kind, match=message):
            call()


def test_weights_are_the_sizes_of_batches():
    """Without bias for batches of any sizes, and the standard error is that of leaving each one out by hand."""
    rng, sizes = np.random.default_rng(0), np.array([1.0, 1.0, 0.75, 0.5, 0.25])

    def of(values, own):
        centre = np.average(values, axis=0, weights=own)
        return variance_from_squares(((values - centre) ** 2).sum(axis=1)[:, None], vary=False, weights=own)

    draws = [rng.standard_normal((5, 3)) / np.sqrt(sizes)[:, None] for _ in range(400)]
    found = np.array([of(values, sizes).value for values in draws])
    assert found.mean() == pytest.approx(3.0, abs=4 * found.std() / 20)
    values = draws[0]
    without = np.array([of(np.delete(values, k, axis=0), np.delete(sizes, k)).value for k in range(5)])
    pseudo = 5 * found[0] - 4 * without
    assert of(values, sizes).standard_error == pytest.approx(np.std(pseudo, ddof=1) / np.sqrt(5), rel=1e-12)
    equal = variance_from_squares(np.ones((4, 2)), vary=False)
    assert equal == variance_from_squares(np.ones((4, 2)), vary=False, weights=np.ones(4))
