"""Sample covariance matrices of sparse data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse as sparse

from ...backends import Backend
from ...operators import LinearOperator, aslinearoperator
from ..laws.law import check_positive, check_whole
from .ensemble_arguments import budget_in_bytes, check_seed
from .entries import normal_entries
from .sparse_entries import bernoulli_places, check_sparse, row_starts


def thinned_wishart(
    p: int,
    n: int,
    degree: float,
    *,
    seed: int = 0,
    dtype: Any = np.float64,
    memory_budget: int | float | str | None = None,
    backend: str | Backend | None = None,
) -> LinearOperator:
    """The matrix ``Y Y^H`` of a p x n Gaussian matrix of which every entry is kept with probability ``degree / n``.

    Kept entries have the variance ``1 / degree``, so that the mean of the matrix is the identity, and for ``degree = n`` it has the law
    of `wishart`. With ``c = p / n`` the second moment of the spectrum tends to ``1 + c + 3 / degree`` (complex: ``1 + c + 2 / degree``);
    as the degree grows the spectrum follows `MarchenkoPastur` of the ratio c. Empty rows make an atom at zero of at least
    ``exp(-degree)``.

    Parameters
    ----------
    p, n : int
        Variables and samples.
    degree : float
        Mean number of samples in which a variable is not zero, above zero and at most n.
    seed : int
        The matrix is a function of seed, p, n, degree and dtype, the same on every backend up to the rounding of products.
    dtype : dtype
        A complex type gives complex data.
    memory_budget : int, float, str or None
        What making and holding the entries may take: bytes or text such as ``"4GB"``; by default 40 % of the memory.
    backend : str, Backend or None
        Where the vectors live, one that has sparse matrices: NumPy (the default), CuPy or torch.

    Returns
    -------
    LinearOperator
        Shape (p, p), Hermitian and positive semidefinite, the product of a stored sparse matrix with its adjoint.

    Raises
    ------
    ValueError
        When an argument is out of range.
    MemoryError
        When the entries do not fit the budget.

    Examples
    --------
    >>> import linop_spectra as ls
    >>> from linop_spectra.random_matrices.ensembles.thinned_wishart import thinned_wishart
    >>> a = thinned_wishart(20_000, 40_000, 6, seed=0)
    >>> round(ls.frobenius_norm(a, num_matvecs=20).value ** 2 / 20_000, 1)
    2.0
    """
    p, n, seed = check_whole("p", p, 1), check_whole("n", n, 1), check_seed(seed)
    degree = check_positive("degree", degree, "the mean number of samples in which a variable is not zero")
    resolved = np.dtype(dtype)
    if resolved.char not in "fdFD":
        raise TypeError(f"The argument dtype is {resolved}; pass float32, float64, complex64 or complex128.")
    if degree > n:
        raise ValueError(f"The argument degree is {degree:g}, but there are only {n} samples; full data are those of wishart({p}, {n}).")
    what = f"A sparse {p} x {n} matrix with {degree:g} entries in a row"
    check_sparse(what, p * degree / 2, p, resolved.itemsize, budget_in_bytes(memory_budget, backend), "a smaller degree")
    places = bernoulli_places(p * n, degree / n, seed=seed, domain="ensemble/thinned_wishart/places")
    values = normal_entries(0, len(places), scale=math.sqrt(1 / degree), seed=seed, domain="ensemble/thinned_wishart", dtype=resolved)
    rows, columns = np.divmod(places, n)
    index = np.int32 if max(len(places), p, n) < 2**31 else np.int64
    matrix = sparse.csr_array((values, columns.astype(index), row_starts(rows, p, index)), shape=(p, n))
    data = aslinearoperator(matrix, hermitian=False, backend=backend)
    return data @ data.H
