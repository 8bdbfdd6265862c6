"""Gaussian band matrices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...backends import Backend
from ...operators import LinearOperator
from ..laws.law import check_positive, check_whole
from .banded import BandedOperator
from .ensemble_arguments import budget_in_bytes, check_fits, check_seed
from .entries import normal_entries


def band_wigner(
    n: int,
    bandwidth: int,
    *,
    variance: float = 1.0,
    periodic: bool = True,
    seed: int = 0,
    dtype: Any = np.float64,
    memory_budget: int | float | str | None = None,
    backend: str | Backend | None = None,
) -> LinearOperator:
    """A Gaussian band matrix, whose spectrum follows the `Semicircle` law as the bandwidth grows.

    Entries at most `bandwidth` places off the diagonal are independent with ``E |a_ij|^2 = variance / (2 bandwidth + 1)``, the
    diagonal among them; the others are zero. With ``periodic=True`` the variances of every row sum to `variance`, and in the mean the
    second moment of the spectrum is `variance`, the fourth ``variance^2 (2 + 1 / N)`` (complex: ``2 + 1 / N^2``), with
    ``N = 2 bandwidth + 1``, exactly at any order above ``2 bandwidth``.

    Parameters
    ----------
    n : int
        Order.
    bandwidth : int
        Diagonals on either side of the main one; at most (n - 1) / 2 when periodic, else n - 1.
    variance : float
        Of the limiting law.
    periodic : bool
        Whether the band closes round the corners. Otherwise the first and last rows have fewer entries of the same variance, and
        the spectrum follows the law up to a share ``bandwidth / n`` of it.
    seed : int
        The matrix is a function of seed, n, bandwidth, variance and dtype, the same on every backend. Apart from the corners it
        does not depend on `periodic`.
    dtype : dtype
        A complex type gives a complex Hermitian matrix.
    memory_budget : int, float, str or None
        The matrix is held by its ``n (bandwidth + 1)`` entries, which must not take more: bytes or text such as ``"4GB"``; by
        default 40 % of the memory.
    backend : str, Backend or None
        Where the vectors live; NumPy by default.

    Returns
    -------
    LinearOperator
        Shape (n, n), Hermitian.

    Raises
    ------
    ValueError
        When an argument is out of range.
    MemoryError
        When the matrix does not fit the budget.

    References
    ----------
    L. Bogachev, S. Molchanov and L. Pastur, *On the level density of random band matrices*, Math. Notes 50 (1991).

    Examples
    --------
    >>> import linop_spectra as ls
    >>> from linop_spectra.random_matrices.ensembles.band_wigner import band_wigner
    >>> a = band_wigner(20_000, 30, seed=0)
    >>> round(ls.frobenius_norm(a, num_matvecs=10).value ** 2 / 20_000, 1)
    1.0
    """
    n, bandwidth, seed = check_whole("n", n, 1), check_whole("bandwidth", bandwidth, 0), check_seed(seed)
    variance = check_positive("variance", variance, "that of the limiting law")
    most = (n - 1) // 2 if periodic else n - 1
    if bandwidth > most:
        kind = "a periodic band of order" if periodic else "a band matrix of order"
        raise ValueError(
            f"The argument bandwidth is {bandwidth}, but {kind} {n} has at most {most} diagonals on either side; "
            f"a full matrix is wigner({n})."
        )
    resolved = np.dtype(dtype)
    if resolved.char not in "fdFD":
        raise TypeError(f"The argument dtype is {resolved}; pass float32, float64, complex64 or complex128.")
    check_fits(
        f"A band matrix of order {n} and bandwidth {bandwidth}",
        n * (bandwidth + 1) * resolved.itemsize,
        budget_in_bytes(memory_budget, backend),
        "a smaller bandwidth",
    )
    scale = math.sqrt(variance / (2 * bandwidth + 1))
    entries = normal_entries(0, n * (bandwidth + 1), scale=scale, seed=seed, domain="ensemble/band_wigner", dtype=resolved)
    diagonals = entries.reshape(bandwidth + 1, n)
    if resolved.kind == "c":
        # The real part has half of the variance; in double precision, so that it is rounded once.
        diagonal = normal_entries(0, n, scale=scale, seed=seed, domain="ensemble/band_wigner", dtype=np.dtype(np.complex128))
        diagonals[0] = diagonal.real * math.sqrt(2)
    return BandedOperator(diagonals, periodic=bool(periodic), details=f"Gaussian, seed {seed}", backend=backend)
