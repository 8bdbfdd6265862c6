"""Adjacency matrices of random graphs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...backends import Backend
from ...operators import LinearOperator, aslinearoperator, identity, low_rank
from ..laws.law import check_positive, check_whole
from .ensemble_arguments import budget_in_bytes, check_real, check_seed
from .sparse_entries import bernoulli_places, check_sparse, hermitian_csr, lower_triangle


def erdos_renyi(
    n: int,
    *,
    probability: float | None = None,
    degree: float | None = None,
    normalized: bool = True,
    centered: bool = False,
    seed: int = 0,
    dtype: Any = np.float64,
    memory_budget: int | float | str | None = None,
    backend: str | Backend | None = None,
) -> LinearOperator:
    """The adjacency matrix of a random graph G(n, q): every pair of vertices is joined with probability q, none with itself.

    Divided by ``sqrt(n q (1 - q))``, its spectrum follows the `Semicircle` law of variance one as ``n q`` grows, with one outlier at
    ``theta + 1 / theta`` for ``theta = sqrt(n q / (1 - q))``, which belongs to the mean. Centring takes it away.

    Parameters
    ----------
    n : int
        Vertices.
    probability : float, optional
        q, above zero and at most one (below one when normalised). Either this or `degree`.
    degree : float, optional
        ``n q``, the mean number of neighbours up to a factor ``(n - 1) / n``.
    normalized : bool
        Whether to divide by ``sqrt(n q (1 - q))``. Otherwise entries are zero and one.
    centered : bool
        Whether to subtract the mean: q off the diagonal, by a term of rank one and a multiple of the identity.
    seed : int
        The graph is a function of seed, n and q, the same on every backend.
    dtype : dtype
        float32 or float64.
    memory_budget : int, float, str or None
        What making and holding the entries may take: bytes or text such as ``"4GB"``; by default 40 % of the memory.
    backend : str, Backend or None
        Where the vectors live, one that has sparse matrices: NumPy (the default), CuPy or torch.

    Returns
    -------
    LinearOperator
        Shape (n, n), Hermitian; a stored sparse matrix, or the sum of one with the mean.

    Raises
    ------
    ValueError
        When an argument is out of range, or not exactly one of `probability` and `degree` is given.
    MemoryError
        When the entries do not fit the budget.

    References
    ----------
    L. Erdos, A. Knowles, H.-T. Yau and J. Yin, *Spectral statistics of Erdos-Renyi graphs*, Ann. Probab. 41 (2013).

    Examples
    --------
    >>> import linop_spectra as ls
    >>> from linop_spectra.random_matrices.ensembles.erdos_renyi import erdos_renyi
    >>> a = erdos_renyi(2000, degree=50, seed=0)
    >>> theta = (50 / (1 - 50 / 2000)) ** 0.5
    >>> bool(abs(ls.eigsh(a, k=1, which="LA").eigenvalues[0] - (theta + 1 / theta)) < 0.1)
    True
    """
    n, seed = check_whole("n", n, 1), check_seed(seed)
    if (probability is None) == (degree is None):
        raise ValueError("Exactly one of the arguments probability and degree must be given: degree is n times the probability of an edge.")
    if probability is not None:
        chance = check_positive("probability", probability, "that of an edge")
    else:
        chance = check_positive("degree", degree, "n times the probability of an edge") / n
    if chance > 1:
        name, most = ("probability", 1) if degree is None else ("degree", n)
        raise ValueError(f"The argument {name} is {probability if degree is None else degree!r}, but must be at most {most}.")
    if normalized and chance == 1:
        raise ValueError("The complete graph has no randomness to normalise; pass normalized=False, or a smaller probability or degree.")
    real = check_real(dtype, "the adjacency matrix is real, and a real matrix multiplies complex vectors too")
    what = f"An adjacency matrix of order {n} with {n * chance:g} neighbours of a vertex"
    check_sparse(what, n * n * chance, n, real.itemsize, budget_in_bytes(memory_budget, backend), "fewer edges")
    places = bernoulli_places(n * (n - 1) // 2, chance, seed=seed, domain="ensemble/erdos_renyi") if n > 1 else np.empty(0, np.int64)
    rows, columns = lower_triangle(places, diagonal=False)
    scale = 1 / math.sqrt(n * chance * (1 - chance)) if normalized else 1.0
    adjacency = hermitian_csr(n, rows, columns, np.full(len(places), scale, real))
    graph = aslinearoperator(adjacency, hermitian=True, backend=backend)
    if not centered:
        return graph
    mean = chance * scale
    ones = np.ones((n, 1), real)
    return graph + low_rank(ones, [-mean], backend=graph.backend) + mean * identity(n, dtype=real, backend=graph.backend)
