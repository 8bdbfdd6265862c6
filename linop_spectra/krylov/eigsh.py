"""Some eigenpairs of a Hermitian operator, with true residuals, and a search for those that were missed."""

from __future__ import annotations

import contextlib
import time
import warnings
from typing import Any, Literal, get_args

import numpy as np

from .._progress import Progress
from ..operators import aslinearoperator, require_hermitian
from .dense import SMALL_DENSE, is_stored_matrix
from .eigen_result import EigenResult
from .extreme import extreme
from .lanczos import check_count, check_time_budget
from .search import Search, from_dense
from .smallest import smallest
from .thick_restart import Which as Extreme

Which = Literal["LM", "LA", "SA", "SM", "BE"]


def eigsh(
    A: Any,
    k: int = 6,
    *,
    which: Which = "LM",
    tol: float = 1e-6,
    start: Any = None,
    block_size: int = 1,
    max_basis: int | None = None,
    max_matvecs: int | None = None,
    verify: bool = True,
    seed: int = 0,
    time_budget: float | None = None,
    progress: Progress = None,
) -> EigenResult:
    """Some eigenpairs of a Hermitian operator.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Hermitian operator of shape (n, n).
    k : int
        Number of pairs, at most n. Of a stored matrix of order 200 at most on the host they come from LAPACK, unless one of
        `start`, `block_size`, `max_basis` and `max_matvecs` asks for the iteration.
    which : {"LM", "LA", "SA", "SM", "BE"}
        Largest in modulus, largest, smallest, smallest in modulus, or both ends (one more at the top when k is odd). ``"SM"``
        factorises an explicit sparse matrix, takes the whole matrix up to order 1,500 (where neither a time budget nor
        fewer products are asked for), and else runs a subspace iteration with a Chebyshev filter, whose products grow with the
        norm over the modulus.
    tol : float
        A pair has converged when its residual is at most `tol` times the norm estimate; never below four units of rounding.
    start : array, optional
        Starting vector of shape (n,), or several as columns of (n, j), for example eigenvectors of a similar operator. More
        than `block_size` of them are added up in turn: a Krylov space takes a sum apart in a few steps.
    block_size : int
        Vectors multiplied at a time. An eigenvalue of multiplicity up to the block size is found completely.
    max_basis : int, optional
        Vectors kept; by default ``2 k`` plus 16 blocks, at least 32, and half as many again after every ten restarts, up to 500.
    max_matvecs : int, optional
        Products after which unconverged pairs are returned, marked; by default 100 times the basis, at least 10,000.
    verify : bool
        Whether to look for missed copies of multiple eigenvalues and members of clusters, in a short run orthogonal to the pairs
        that were found. It ends when the rest of the spectrum has been seen to lie inside, after as many products again at most;
        what it finds makes the block wider. ``verified`` says whether it came to an end.
    seed : int
        Seed of the random vectors.
    time_budget : float, optional
        Seconds after which unconverged pairs are returned, marked; Ctrl-C does the same, with estimated residuals.
    progress : bool or callable, optional
        True shows a bar of converged pairs.

    Returns
    -------
    EigenResult
        Pairs in ascending order, with true residuals.

    Raises
    ------
    ValueError
        When an argument is wrong or the operator is not Hermitian.
    NonFiniteProductError
        When a product holds NaN or infinity (also a FloatingPointError).
    LanczosInterrupted
        When a product raises after k steps; the pairs so far are in ``.partial``.

    References
    ----------
    K. Wu and H. Simon, *Thick-restart Lanczos method for large symmetric eigenvalue problems*, SIAM J. Matrix Anal. Appl. 22 (2000).

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> result = ls.eigsh(ls.diagonal_operator(np.arange(1000.0)), k=2, which="LA", tol=1e-10)
    >>> result.eigenvalues.round(6)
    array([998., 999.])
    """
    operator = aslinearoperator(A)
    require_hermitian(operator, "eigsh", seed=seed)
    n = operator.shape[0]
    k, block_size = check_count("k", k), check_count("block_size", block_size)
    if k > n:
        raise ValueError(f"The argument k is {k}, but an operator of order {n} has only {n} eigenvalues.")
    if which not in get_args(Which):
        raise ValueError(f"The argument which is {which!r}, but must be one of {', '.join(get_args(Which))}.")
    if not 0 <= tol < 1:
        raise ValueError(f"The argument tol must lie between 0 and 1, but is {tol!r}.")
    check_time_budget(time_budget)
    for name, value in (("max_basis", max_basis), ("max_matvecs", max_matvecs)):
        if value is not None:
            check_count(name, value)
    tol = max(tol, 4 * float(np.finfo(operator.dtype).eps))
    end: Extreme = "LM" if which == "SM" else which
    search = Search(
        operator, k, end, tol, start, block_size, max_basis, max_matvecs, verify, seed, time_budget, progress, time.perf_counter()
    )
    result = None
    if which == "SM":
        result = smallest(search)
    elif search.free and n <= SMALL_DENSE and is_stored_matrix(operator):
        with contextlib.suppress(FloatingPointError):  # the iteration says which product it was
            result = from_dense(search, which)
    if result is None:
        result = extreme(search)
    if result.status == "unconverged":
        warnings.warn(
            f"Of {k} eigenpairs {int(result.converged.sum())} converged within {result.num_matvecs} products; the others are returned, "
            "marked in .converged. Allow more by max_matvecs or max_basis, or a larger tol.",
            stacklevel=2,
        )
    return result
