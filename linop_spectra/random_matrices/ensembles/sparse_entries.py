"""Places of the nonzero entries of a sparse random matrix, in time and memory of their number."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse as sparse

from .ensemble_arguments import check_fits
from .entries import exponential_entries

_MOST_PLACES = 1 << 57
"""Sums of gaps then stay below 2^63: what is drawn for so many places is at most some twenty times as long."""
_GAPS = 1 << 20
"""Gaps between places drawn at a time."""


def bernoulli_places(total: int, probability: float, *, seed: int, domain: str) -> np.ndarray:
    """Places among `total` where independent events of a given probability happen, ascending.

    The gaps between them are geometric, drawn one for each event: nothing is done for the places where nothing happens.

    Parameters
    ----------
    total : int
        Number of places.
    probability : float
        Above zero, at most one.
    seed, domain
        Of the random stream.

    Returns
    -------
    ndarray
        int64.

    Examples
    --------
    >>> bernoulli_places(10**15, 5e-15, seed=0, domain="ensemble/example").shape
    (7,)
    >>> bernoulli_places(4, 1.0, seed=0, domain="ensemble/example")
    array([0, 1, 2, 3])
    """
    if total > _MOST_PLACES:
        raise ValueError(f"A sparse random matrix has at most 2^57 places for entries, but this one has {total:.3g}; take a smaller order.")
    rate = -math.log1p(-probability) if probability < 1 else math.inf
    found, last, drawn = [], -1, 0
    expected = total * probability
    while last < total:
        count = min(_GAPS, int(expected + 6 * math.sqrt(expected)) + 16)
        gaps = exponential_entries(drawn, drawn + count, seed=seed, domain=domain)
        # A gap beyond the last place is as good as any other such gap.
        places = last + np.cumsum(np.minimum(gaps / rate, float(total)).astype(np.int64) + 1)
        found.append(places[places < total])
        last, drawn = int(places[-1]), drawn + count
    return np.concatenate(found)


def lower_triangle(places: np.ndarray, *, diagonal: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of places that number the lower triangle row by row, with or without its diagonal."""
    # Without the diagonal, row i + 1 has the columns that row i has with it.
    rows = ((np.sqrt(8.0 * places + 1) - 1) / 2).astype(np.int64)
    # The square root is rounded: one row off is possible for large places.
    rows -= rows * (rows + 1) // 2 > places
    rows += (rows + 1) * (rows + 2) // 2 <= places
    columns = places - rows * (rows + 1) // 2
    return (rows if diagonal else rows + 1), columns


def hermitian_csr(n: int, rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> Any:
    """A Hermitian matrix by the entries of its lower triangle, sorted by rows and columns; the diagonal must be real."""
    index = np.int32 if 2 * len(values) < 2**31 and n < 2**31 else np.int64
    lower = _csr(n, rows, columns, values, index)
    off = rows != columns
    strict = lower if off.all() else _csr(n, rows[off], columns[off], values[off], index)
    return (lower + strict.conj().T).tocsr()


def _csr(n: int, rows: np.ndarray, columns: np.ndarray, values: np.ndarray, index: Any) -> Any:
    return sparse.csr_array((values, columns.astype(index), row_starts(rows, n, index)), shape=(n, n))


def row_starts(rows: np.ndarray, count: int, index: Any) -> np.ndarray:
    """Where each of `count` rows begins in a list of entries that is sorted by rows."""
    starts = np.zeros(count + 1, index)
    np.cumsum(np.bincount(rows, minlength=count), out=starts[1:])
    return starts


def check_sparse(what: str, entries: float, order: int, itemsize: int, budget: int, instead: str) -> None:
    """MemoryError when a sparse matrix of about so many entries does not fit, with what making it takes on the way."""
    check_fits(what, 3 * entries * (itemsize + 8) + 16 * order, budget, instead)
