"""Eigenpairs at the ends of a spectrum: the thick-restart iteration, and the search for what it missed."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from .._progress import ProgressBar
from .eigen_result import EigenResult
from .errors import LanczosInterrupted, NonFiniteProductError
from .recurrence import ProductError
from .search import Search
from .thick_restart import ThickRestart, true_residuals
from .verification import find_missed

_PRODUCTS_BETWEEN_LOOKS = 10
_LONG, _FEW = 50_000, 4
_RESTARTS_BETWEEN_GROWTHS = 10


def extreme(search: Search) -> EigenResult:
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
                again = extreme(dataclasses.replace(search, block_size=2 * solver.b, start=vectors.T, max_matvecs=left))
                return dataclasses.replace(again, num_matvecs=again.num_matvecs + spent)
            solver.widen()
    # A space that is everything leaves nothing out.
    return _finish(search, solver, status, spent_on_search, verified=verified or (status == "complete" and solver.complete))


def _iterate(
    search: Search, solver: ThickRestart, budget: int, bar: Any, wrong: np.ndarray | None = None, margin: float = 0.0
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
    search: Search, solver: ThickRestart, status: str, further_products: int = 0, *, verified: bool = False, failed: bool = False
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


def _raise_with_partial(search: Search, solver: ThickRestart, error: Exception) -> None:
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
