"""Some eigenpairs of a Hermitian operator, with true residuals, and a search for those that were missed."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import warnings
from typing import Any, Literal, get_args

import numpy as np

from .._memory import parse_budget
from .._progress import Progress, ProgressBar
from ..backends import Array
from ..operators import LinearOperator, aslinearoperator, require_hermitian
from .dense import DENSE, SMALL_DENSE, dense_pairs, is_stored_matrix
from .eigen_result import EigenResult
from .errors import LanczosInterrupted, NonFiniteProductError
from .lanczos import check_count, check_time_budget
from .recurrence import ProductError
from .smallest import Beside, InverseOperator, filtered_iteration, is_sparse_matrix
from .thick_restart import ThickRestart, true_residuals
from .thick_restart import Which as Extreme
from .verification import find_missed

Which = Literal["LM", "LA", "SA", "SM", "BE"]
_PRODUCTS_BETWEEN_LOOKS = 10
_LONG, _FEW = 50_000, 4
_RESTARTS_BETWEEN_GROWTHS = 10
_NULL = 1e10  # eigenvalues of the inverse beyond this, times the norm, belong to the null space


@dataclasses.dataclass
class _Search:
    """What is asked for, and how much may be spent on it."""

    operator: LinearOperator
    k: int
    which: Extreme
    tol: float
    start: Any
    block_size: int
    max_basis: int | None
    max_matvecs: int | None
    verify: bool
    seed: int
    time_budget: float | None
    progress: Progress
    began: float

    @property
    def free(self) -> bool:
        """Whether the caller has left the way to us."""
        return self.start is None and self.max_basis is None and self.max_matvecs is None and self.block_size == 1

    @property
    def late(self) -> bool:
        """Whether the time budget is spent."""
        return self.time_budget is not None and time.perf_counter() - self.began > self.time_budget


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
    extreme: Extreme = "LM" if which == "SM" else which
    search = _Search(
        operator, k, extreme, tol, start, block_size, max_basis, max_matvecs, verify, seed, time_budget, progress, time.perf_counter()
    )
    result = None
    if which == "SM":
        result = _smallest(search)
    elif search.free and n <= SMALL_DENSE and is_stored_matrix(operator):
        with contextlib.suppress(FloatingPointError):  # the iteration says which product it was
            result = _from_dense(search, which)
    if result is None:
        result = _extreme(search)
    if result.status == "unconverged":
        warnings.warn(
            f"Of {k} eigenpairs {int(result.converged.sum())} converged within {result.num_matvecs} products; the others are returned, "
            "marked in .converged. Allow more by max_matvecs or max_basis, or a larger tol.",
            stacklevel=2,
        )
    return result


def _extreme(search: _Search) -> EigenResult:
    """Pairs at the ends of the spectrum."""
    solver = ThickRestart(
        search.operator, search.k, search.which, search.block_size, search.max_basis, search.start, search.seed
    )
    budget = search.max_matvecs or max(100 * solver.max_basis, 10_000)
    spent_on_search, verified = 0, False
    wrong, margin = None, 0.0
    with ProgressBar(search.progress, search.k, "eigsh", unit="pair") as bar:
        while True:
            status = _iterate(search, solver, budget, bar, wrong, margin)
            wanted, residuals, norm = solver.wanted()
            if status != "complete" or not search.verify or solver.complete:
                break
            values, vectors = solver.vectors(wanted)
            margin = float(np.max(residuals)) + 10 * search.operator.unit_rounding * norm
            try:
                verdict, products = find_missed(
                    search.operator, values, vectors, search.which, norm=norm, margin=margin, most=solver.num_matvecs, seed=search.seed
                )
            except KeyboardInterrupt:
                status = "interrupted"
                break
            except Exception as error:
                _raise_with_partial(search, solver, error)
            spent_on_search += products
            if verdict != "missed":
                verified = verdict == "complete"
                break
            # A wider block holds one more copy, from a vector of its own. These values are not the wanted ones: go on until they change.
            wrong = values
            solver.restart()
            if not solver.can_widen:
                spent = solver.num_matvecs + spent_on_search
                left = max(budget - spent, 4 * solver.b)
                again = _extreme(dataclasses.replace(search, block_size=2 * solver.b, start=vectors.T, max_matvecs=left))
                return dataclasses.replace(again, num_matvecs=again.num_matvecs + spent)
            solver.widen()
    # A space that is everything leaves nothing out.
    return _finish(search, solver, status, spent_on_search, verified=verified or (status == "complete" and solver.complete))


def _iterate(
    search: _Search, solver: ThickRestart, budget: int, bar: Any, wrong: np.ndarray | None = None, margin: float = 0.0
) -> str:
    """Grow and restart until the pairs have converged, to other values than `wrong`, or something ends it; returns the status."""
    shown = restarts = 0
    # For long vectors a look costs nothing beside a product.
    often = search.operator.shape[0] >= _LONG
    look = search.k + _FEW if often else max(_PRODUCTS_BETWEEN_LOOKS, 2 * search.k + 8)
    while True:
        try:
            full = solver.fill(min(look, budget - solver.num_matvecs), lambda: search.late)
        except KeyboardInterrupt:
            if solver.m < search.k:
                raise
            return "interrupted"
        except Exception as error:
            _raise_with_partial(search, solver, error)
        # Before the first restart easy problems may be done; after it the space is looked at when it is full.
        look = _FEW if often else max(_PRODUCTS_BETWEEN_LOOKS, solver.m // 3) if restarts == 0 else solver.max_basis
        chosen, residuals, norm = solver.wanted()
        good = int(np.sum(residuals <= search.tol * norm))
        bar.advance(max(0, good - shown))
        shown = max(shown, good)
        changed = wrong is None or bool(np.max(np.abs(solver.theta[chosen] - wrong)) > margin)
        if (good == search.k and changed) or solver.complete:
            return "complete"
        if search.late:
            return "time budget"
        if solver.num_matvecs >= budget:
            return "unconverged"
        if full:
            solver.restart()
            restarts += 1
            look = _FEW if often else solver.max_basis
            if search.max_basis is None and restarts % _RESTARTS_BETWEEN_GROWTHS == 0:
                solver.enlarge()


def _finish(
    search: _Search, solver: ThickRestart, status: str, further_products: int = 0, *, verified: bool = False, failed: bool = False
) -> EigenResult:
    wanted, residuals, norm = solver.wanted()
    values, vectors = solver.vectors(wanted)
    if status != "interrupted" and not failed:  # else nobody waits for k more products: the estimates have to do
        try:
            residuals = true_residuals(search.operator, values, vectors)
        except KeyboardInterrupt:
            status = "interrupted"
        except Exception as error:
            _raise_with_partial(search, solver, error)
        solver.num_matvecs += search.k
    eps = float(np.finfo(search.operator.dtype).eps)
    converged = residuals <= search.tol * norm + 8 * eps * norm
    if status == "complete" and not converged.all():
        status = "unconverged"
    return EigenResult(
        values, vectors.T, residuals, converged, norm, solver.num_matvecs + further_products,
        time.perf_counter() - search.began, status, verified=verified and status == "complete",
    )  # fmt: skip


def _raise_with_partial(search: _Search, solver: ThickRestart, error: Exception) -> None:
    """Raise again, with the pairs so far where there are any."""
    not_hermitian = isinstance(error, ValueError) and "not symmetric" in str(error)
    steps = solver.num_matvecs
    nothing = not_hermitian or isinstance(error, (MemoryError, TypeError)) or solver.m < search.k
    if nothing and not isinstance(error, ProductError):
        raise error
    partial: Any = _finish(search, solver, "interrupted", failed=True) if solver.m >= search.k else None
    if isinstance(error, (FloatingPointError, ProductError)):
        message = f"{error}; the pairs of the {steps} products before it are kept in .partial."
        raise NonFiniteProductError(message, partial, steps) from error
    raise LanczosInterrupted(
        f"The product with the operator failed after {solver.num_matvecs} products ({type(error).__name__}: {error}); the pairs so far "
        "are kept in .partial.",
        partial,
        steps,
    ) from error


def _smallest(search: _Search) -> EigenResult:
    """Pairs of smallest modulus."""
    operator, n = search.operator, search.operator.shape[0]
    dense_bytes = n * n * operator.dtype.itemsize
    fits = dense_bytes <= parse_budget(None, total=operator.backend.total_memory())
    explicit = hasattr(operator, "matrix") and not is_sparse_matrix(operator) and fits
    limited = search.time_budget is not None or (search.max_matvecs is not None and n > search.max_matvecs)
    if explicit or (n <= DENSE and not limited):
        return _from_dense(search, "SM")
    if is_sparse_matrix(operator):
        return _from_factors(search)
    start = None
    if search.start is not None:
        given = operator.backend.asarray(search.start, dtype=operator.dtype)
        start = operator.backend.contiguous((given if len(given.shape) == 2 else given[:, None]).T)
    values, vectors, residuals, norm, spent = filtered_iteration(
        operator, search.k, tol=search.tol, seed=search.seed, start=start, budget=search.max_matvecs or 200 * n,
        stopped=lambda: search.late,
    )  # fmt: skip
    converged = residuals <= search.tol * norm + 8 * float(np.finfo(operator.dtype).eps) * norm
    status = "complete" if converged.all() else "time budget" if search.late else "unconverged"
    return EigenResult(
        values, vectors.T, residuals, converged, norm, spent, time.perf_counter() - search.began, status,
        "subspace iteration with a Chebyshev filter", verified=False,
    )  # fmt: skip


def _from_dense(search: _Search, which: Which) -> EigenResult:
    """Pairs of the whole matrix, by LAPACK."""
    values, vectors, norm, products = dense_pairs(search.operator, search.k, which)
    return _with_true_residuals(search, values, vectors, norm, products, "dense eigenvalue problem", verified=True)


def _from_factors(search: _Search) -> EigenResult:
    """The largest eigenvalues of the inverse, which a sparse factorisation applies."""
    operator, k = search.operator, search.k
    scale = float(np.max(np.abs(operator.matrix).sum(axis=0)))  # type: ignore[attr-defined]
    if scale == 0.0:
        return _extreme(search)
    for sigma in (0.0, 1e-14 * scale, 1e-12 * scale):
        try:
            inverse: LinearOperator = InverseOperator(operator, sigma)  # type: ignore[arg-type]
        except RuntimeError:  # exactly singular: factorise beside zero
            continue
        rows, solves, tol = operator.backend.empty((0, operator.shape[0]), inverse.dtype), 0, 1e-2 * search.tol
        while True:
            # The null space, if any, rules the inverse; what else is wanted is looked for beside it.
            beside = Beside(inverse, rows) if rows.shape[0] else inverse
            wanted = k - rows.shape[0]
            inner = dataclasses.replace(search, operator=beside, k=wanted, which="LM", tol=max(tol, 1e-14), start=None, progress=None)
            pairs = _extreme(inner)
            solves += pairs.num_matvecs
            null = np.abs(pairs.eigenvalues) * scale > _NULL
            vectors = np.concatenate([rows, pairs.eigenvectors.T])
            if null.any() and not null.all():
                rows = np.ascontiguousarray(np.concatenate([rows, pairs.eigenvectors.T[null]]))
                continue
            result = _by_rayleigh_ritz(search, vectors, scale, solves, pairs.verified)
            # A residual of the inverse counts for more in A the further the wanted eigenvalues lie apart: tighten where needed.
            if result.converged.all() or search.late or tol < 1e-14:
                return result
            tol *= 1e-2
    raise ValueError("The sparse matrix could not be factorised, even beside zero; pass its product as a callable instead.")


def _by_rayleigh_ritz(search: _Search, vectors: np.ndarray, scale: float, solves: int, verified: bool) -> EigenResult:
    """Eigenpairs of the operator itself in the span of rows: more accurate than reciprocals of the inverse's."""
    operator = search.operator
    basis = np.linalg.qr(vectors.T)[0]
    projected = basis.conj().T @ operator.matmat(basis)
    values, S = np.linalg.eigh((projected + projected.conj().T) / 2)
    rows = operator.backend.contiguous((basis @ S).T, operator.dtype)
    method = f"thick-restart Lanczos on the inverse (sparse LU factorisation), {solves} solves"
    return _with_true_residuals(search, values.astype(np.float64), rows, scale, search.k, method, verified=verified)


def _with_true_residuals(
    search: _Search, values: np.ndarray, vectors: Array, norm: float, products: int, method: str, *, verified: bool
) -> EigenResult:
    residuals = true_residuals(search.operator, values, vectors)
    converged = residuals <= search.tol * norm + 8 * float(np.finfo(search.operator.dtype).eps) * norm
    return EigenResult(
        values, vectors.T, residuals, converged, norm, products + search.k, time.perf_counter() - search.began,
        "complete" if converged.all() else "unconverged", method, verified,
    )  # fmt: skip
