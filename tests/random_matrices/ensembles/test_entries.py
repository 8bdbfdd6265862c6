"""Entries of an ensemble depend on the seed, the domain and the position, and on nothing else."""

import numpy as np
import pytest
from helpers import same_law
from scipy import stats

from linop_spectra.backends import random_vector
from linop_spectra.random_matrices.ensembles import entries
from linop_spectra.random_matrices.ensembles.entries import normal_entries, num_threads


def stream(start, stop, dtype=np.float64, scale=1.0, seed=3, domain="ensemble/test"):
    return normal_entries(start, stop, scale=scale, seed=seed, domain=domain, dtype=np.dtype(dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_they_are_the_published_stream_however_it_is_cut(dtype, monkeypatch):
    wide = np.complex128 if np.dtype(dtype).kind == "c" else np.float64
    published = random_vector(3000, kind="normal", seed=3, domain="ensemble/test", index=0, dtype=np.dtype(wide))
    expected = (0.3 * published).astype(dtype)
    for chunk, threads in ((1 << 15, "1"), (7, "1"), (100, "3"), (999, "2")):
        monkeypatch.setattr(entries, "_CHUNK", chunk)
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        np.testing.assert_array_equal(stream(0, 3000, dtype, 0.3), expected)
        np.testing.assert_array_equal(stream(1234, 2345, dtype, 0.3), expected[1234:2345])
    assert stream(5, 5, dtype).shape == (0,)


def test_far_away_entries_cost_nothing_and_are_normal():
    far = 10**17
    sample = stream(far, far + 20_000)
    assert same_law(sample, stats.norm())
    np.testing.assert_array_equal(stream(far + 500, far + 510), sample[500:510])
    parts = stream(far, far + 20_000, np.complex128, scale=2.0)
    for part in (parts.real, parts.imag):
        assert same_law(part, stats.norm(0, np.sqrt(2)))
    assert abs(np.corrcoef(parts.real, parts.imag)[0, 1]) < 4 / np.sqrt(20_000)


def test_seeds_and_domains_are_apart():
    samples = [stream(0, 5000), stream(0, 5000, seed=4), stream(0, 5000, domain="probe")]
    correlations = np.corrcoef(samples)[np.triu_indices(3, 1)]
    assert np.abs(correlations).max() < 4 / np.sqrt(5000)


def test_number_of_threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert num_threads() == 3
    for value in ("", "0", "all"):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert num_threads() >= 1
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert num_threads() >= 1
