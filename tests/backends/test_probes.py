"""Random vectors: the same numbers everywhere, independent streams, and the laws that the error bars rely on."""

import itertools

import numpy as np
import pytest
from helpers import BACKENDS, CHANCE, DTYPES, eps, same_law
from scipy import stats

import linop_spectra as ls
from linop_spectra.backends import random_vector

KINDS = ("sphere", "normal", "sign")


def vector(n, kind="normal", seed=0, domain="probe", index=0, dtype=np.float64, **piece):
    return random_vector(n, kind=kind, seed=seed, domain=domain, index=index, dtype=np.dtype(dtype), **piece)


def test_numbers_do_not_change_between_releases():
    """Results are reproducible by seed only as long as these numbers stay."""
    np.testing.assert_allclose(vector(3), [-0.05970354145248367, -2.0966255402041356, -1.1307534537175918], rtol=1e-13)
    np.testing.assert_array_equal(vector(5, "sign"), [-1, -1, -1, -1, 1])
    np.testing.assert_allclose(vector(2, "sphere"), vector(2) / np.linalg.norm(vector(2)), rtol=1e-15)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_pieces_are_the_whole(kind, dtype):
    """Any split of a vector over processes gives the same numbers.

    The cuts cross the block sizes of the generator (4 words) and of the signs (64 bits).
    """
    n = 1000
    whole = vector(n, kind, dtype=dtype)
    assert whole.dtype == dtype and whole.shape == (n,)
    for cuts in ((0, n), (0, 1, 2, 3, 5, 8, 13, 64, 65, 127, 129, 700, n), (0, 333, 666, n)):
        pieces = [vector(n, kind, dtype=dtype, start=a, stop=b) for a, b in itertools.pairwise(cuts)]
        if kind == "sphere":  # the norm of the whole is summed in another order
            np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=4 * eps(dtype))
        else:
            np.testing.assert_array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize("kind", ["normal", "sign"])
def test_a_longer_vector_begins_with_the_shorter_one(kind):
    np.testing.assert_array_equal(vector(10_000, kind)[:777], vector(777, kind))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_has_the_same_numbers(name, dtype):
    for kind in KINDS:
        backend = BACKENDS[name]()
        rows = backend.to_numpy(backend.probes(130, (4, 0, 9), kind=kind, seed=3, domain="trace", dtype=dtype))
        expected = [vector(130, kind, seed=3, domain="trace", index=i, dtype=dtype) for i in (4, 0, 9)]
        np.testing.assert_array_equal(rows, expected)


def test_single_precision_is_double_precision_rounded_once():
    np.testing.assert_array_equal(vector(500, dtype=np.float32), vector(500).astype(np.float32))
    np.testing.assert_array_equal(vector(500, dtype=np.complex64), vector(500, dtype=np.complex128).astype(np.complex64))


def test_streams_are_independent():
    """Correlations of vectors that differ in seed, domain or index are N(0, 1 / n); none of 190 pairs leaves 5 sigma."""
    n = 20_000
    keys = [(seed, domain, index) for seed in (0, 1) for domain in ("probe", "ensemble") for index in range(4)]
    keys += [(7, "probe", 0), (2**63, "probe", 0), (10, "probe", 1), (1, "probe", 10)]
    x = np.array([vector(n, seed=seed, domain=domain, index=index) for seed, domain, index in keys])
    correlations = (x @ x.T / n)[np.triu_indices(len(keys), 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(n)
    assert same_law(correlations * np.sqrt(n), stats.norm())


def test_entries_of_one_vector_are_independent_normals():
    n = 100_000
    x = vector(n)
    assert same_law(x, stats.norm())
    lags = np.array([x[:-lag] @ x[lag:] for lag in range(1, 33)]) / np.sqrt(n)
    assert same_law(lags, stats.norm())


@pytest.mark.parametrize("dtype, half", [(np.float64, 0.5), (np.complex128, 1.0)])
def test_sphere_law(dtype, half):
    """The mass of j of n coordinates is Beta(j / 2, (n - j) / 2); complex: Beta(j, n - j)."""
    n, draws = 12, 2000
    x = np.array([vector(n, "sphere", index=i, dtype=dtype) for i in range(draws)])
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, rtol=1e-14)
    for j in (1, 4, 11):
        assert same_law((np.abs(x[:, :j]) ** 2).sum(axis=1), stats.beta(half * j, half * (n - j)))
    # A rotation changes nothing: the mean over coordinates follows the law of one.
    assert same_law(np.abs(x.sum(axis=1)) ** 2 / n, stats.beta(half, half * (n - 1)))


def test_complex_normals_are_circular():
    x = vector(50_000, dtype=np.complex128)
    assert same_law(np.abs(x) ** 2, stats.expon())
    assert same_law(np.angle(x), stats.uniform(-np.pi, 2 * np.pi))


@pytest.mark.parametrize("dtype, values", [(np.float64, (1, -1)), (np.complex128, (1, 1j, -1, -1j))])
def test_signs_are_uniform_roots_of_unity(dtype, values):
    x = vector(40_003, "sign", dtype=dtype)
    counts = [int((x == value).sum()) for value in values]
    assert sum(counts) == len(x)
    assert stats.chisquare(counts).pvalue > CHANCE
    pairs = [int(((x[:-1] == a) & (x[1:] == b)).sum()) for a in values for b in values]
    assert stats.chisquare(pairs).pvalue > CHANCE


def test_a_vector_of_length_one():
    assert abs(vector(1, "sphere")[0]) == 1 and abs(vector(1, "sign")[0]) == 1
    assert abs(vector(1, "sphere", dtype=np.complex128)[0]) == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("seed", [-1, 1.5, None, True, "0"])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(ValueError, match="argument seed must be a whole number"):
        ls.lanczos(ls.identity(5), 1, seed=seed)
    with pytest.raises(ValueError, match="argument seed must be a whole number"):
        ls.trace(ls.identity(500), seed=seed)
