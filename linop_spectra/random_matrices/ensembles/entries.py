"""Random entries of an ensemble, any range of them, from the counter-based generator."""

from __future__ import annotations

import concurrent.futures
import os

import numpy as np
from scipy import special

from ...backends import random_vector

_CHUNK = 1 << 15
"""Entries made at a time: their intermediate arrays then stay in the cache, which is four times as fast as all at once."""


def normal_entries(start: int, stop: int, *, scale: float, seed: int, domain: str, dtype: np.dtype) -> np.ndarray:
    """Entries `start` to `stop` of the stream of one matrix: independent normals of mean zero and variance ``scale^2``.

    The entries depend on their positions alone, not on how the stream is cut or on the number of threads. Threads are as many
    as the environment variable OMP_NUM_THREADS says, else as there are processors.

    Parameters
    ----------
    start, stop : int
        Range of positions.
    scale : float
        Standard deviation.
    seed : int
        The user's seed.
    domain : str
        What the stream is for.
    dtype : numpy.dtype
        Of the result; a complex entry has independent real and imaginary parts of variance ``scale^2 / 2`` each.

    Returns
    -------
    numpy.ndarray
        Shape (stop - start,).

    Examples
    --------
    >>> import numpy as np
    >>> options = dict(scale=1.0, seed=0, domain="ensemble/example", dtype=np.dtype(float))
    >>> bool(np.all(normal_entries(5, 9, **options) == normal_entries(0, 20, **options)[5:9]))
    True
    """
    out = np.empty(stop - start, dtype)
    wide = np.dtype(np.complex128 if dtype.kind == "c" else np.float64)

    def fill(first: int) -> None:
        last = min(first + _CHUNK, stop)
        values = random_vector(stop, kind="normal", seed=seed, domain=domain, index=0, dtype=wide, start=first, stop=last)
        np.multiply(values, scale, out=values)
        out[first - start : last - start] = values

    chunks = range(start, stop, _CHUNK)
    workers = min(num_threads(), len(chunks))
    if workers < 2:
        for first in chunks:
            fill(first)
    else:
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            list(pool.map(fill, chunks))
    return out


def exponential_entries(start: int, stop: int, *, seed: int, domain: str) -> np.ndarray:
    """Entries `start` to `stop` of a stream of independent standard exponentials, exact in both tails."""
    normals = normal_entries(start, stop, scale=1.0, seed=seed, domain=domain, dtype=np.dtype(np.float64))
    return np.negative(special.log_ndtr(normals, out=normals), out=normals)


def chi_square_entries(degrees: np.ndarray, *, seed: int, domain: str) -> np.ndarray:
    """Independent chi-squares, one for each number of degrees of freedom, by the inverse of their distribution function.

    Examples
    --------
    >>> import numpy as np
    >>> chi_square_entries(np.array([0.0, 1e12]), seed=0, domain="ensemble/example").round(-8)
    array([0.e+00, 1.e+12])
    """
    normals = normal_entries(0, len(degrees), scale=1.0, seed=seed, domain=domain, dtype=np.dtype(np.float64))
    return np.where(degrees > 0, 2 * special.gammaincinv(np.maximum(degrees, 1e-300) / 2, special.ndtr(normals)), 0.0)


def num_threads() -> int:
    """Threads that make entries: OMP_NUM_THREADS where it is a positive number, else the processors of this process."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
