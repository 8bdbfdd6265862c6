"""Sparse Gaussian Wigner matrices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...backends import Backend
from ...operators import LinearOperator, aslinearoperator
from ..laws.law import check_positive, check_whole
from .ensemble_arguments import Ensemble, budget_in_bytes, check_seed, ensemble_dtype
from .entries import normal_entries
from .sparse_entries import bernoulli_places, check_sparse, hermitian_csr, lower_triangle


def thinned_wigner(
    n: int,
    degree: float,
    *,
    variance: float = 1.0,
    seed: int = 0,
    ensemble: Ensemble = "goe",
    dtype: Any = None,
    memory_budget: int | float | str | None = None,
    backend: str | Backend | None = None,
) -> LinearOperator:
    """A Gaussian Wigner matrix of which every entry is kept with probability ``degree / n`` (percolated), in O(n degree) memory.

    Kept entries have ``E |a_ij|^2 = variance / degree``, twice that on the diagonal for ``"goe"``: second moments are those of
    `wigner`, and for ``degree = n`` the whole law is. At a fixed degree d the fourth moment tends to ``variance^2 (2 + 3 / d)``
    (``2 + 2 / d`` for ``"gue"``), the spectrum is unbounded and has an atom at zero; as d grows it follows the `Semicircle` law.

    Parameters
    ----------
    n : int
        Order. An order of a million and degree 10 take seconds to make.
    degree : float
        Mean number of entries in a row, above zero and at most n.
    variance : float
        Of the spectrum.
    seed : int
        The matrix is a function of seed, n, degree, variance, ensemble and dtype, the same on every backend.
    ensemble : {"goe", "gue"}
        Real symmetric or complex Hermitian.
    dtype : dtype, optional
        Real for ``"goe"`` (float64 by default), complex for ``"gue"`` (complex128).
    memory_budget : int, float, str or None
        What making and holding the entries may take: bytes or text such as ``"4GB"``; by default 40 % of the memory.
    backend : str, Backend or None
        Where the vectors live, one that has sparse matrices: NumPy (the default), CuPy or torch.

    Returns
    -------
    LinearOperator
        Shape (n, n), Hermitian, a stored sparse matrix.

    Raises
    ------
    ValueError
        When an argument is out of range.
    MemoryError
        When the entries do not fit the budget.

    References
    ----------
    C. Bordenave, M. Lelarge and J. Salez, *The rank of diluted random graphs*, Ann. Probab. 39 (2011), for the atom.

    Examples
    --------
    >>> import linop_spectra as ls
    >>> from linop_spectra.random_matrices.ensembles.thinned_wigner import thinned_wigner
    >>> a = thinned_wigner(100_000, 8, seed=0)
    >>> round(ls.frobenius_norm(a, num_matvecs=10).value ** 2 / 100_000, 1)
    1.0
    """
    n, seed = check_whole("n", n, 1), check_seed(seed)
    degree = check_positive("degree", degree, "the mean number of entries in a row")
    variance = check_positive("variance", variance, "that of the spectrum")
    resolved = ensemble_dtype(ensemble, dtype)
    if degree > n:
        raise ValueError(
            f"The argument degree is {degree:g}, but a row of a matrix of order {n} has at most {n} entries; a full matrix is wigner({n})."
        )
    what = f"A sparse matrix of order {n} with {degree:g} entries in a row"
    check_sparse(what, n * degree, n, resolved.itemsize, budget_in_bytes(memory_budget, backend), "a smaller degree")
    domain = f"ensemble/thinned_wigner/{ensemble}"
    places = bernoulli_places(n * (n + 1) // 2, degree / n, seed=seed, domain=f"{domain}/places")
    rows, columns = lower_triangle(places, diagonal=True)
    # In double precision, so that entries on the diagonal are rounded once.
    wide = np.dtype(np.complex128 if resolved.kind == "c" else np.float64)
    values = normal_entries(0, len(places), scale=math.sqrt(variance / degree), seed=seed, domain=domain, dtype=wide)
    on = rows == columns
    # The real part of a complex entry has half of the variance: the factor is the same in both ensembles.
    values[on] = values[on].real * math.sqrt(2)
    values = values.astype(resolved, copy=False)
    return aslinearoperator(hermitian_csr(n, rows, columns, values), hermitian=True, backend=backend)
