"""Trace of an operator from products with random vectors."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import numpy as np

from .._memory import parse_budget
from .._progress import Progress
from ..krylov.lanczos import check_count
from ..operators import LinearOperator, aslinearoperator
from ..results import Estimate
from .hutchinson import Exact, Hutchinson, HutchPlusPlus, TraceSampler
from .low_rank_trace import XNysTrace, XTrace
from .pilot import AfterPilot
from .sampling import BLOCK, sample, share_outside

TraceMethod = Literal["auto", "hutchinson", "hutch++", "xtrace", "xnystrace", "exact"]
DEFAULT_MATVECS, DEFAULT_MATVECS_TO_TOLERANCE = 100, 1000
PILOT = BLOCK
"""Products after which "auto" decides."""
_FEWEST_FOR_PILOT = 20
_DECAYS, _MANY, _DECAYS_FOR_MANY = 0.5, 40, 0.75
"""A spectrum decays when the pilot's space leaves out less than this share of the squared Frobenius norm; from 40 products on, less
than three quarters, because the final space is then at least twice as large."""


def trace(
    A: Any,
    *,
    method: TraceMethod = "auto",
    num_matvecs: int | None = None,
    tol: float | None = None,
    seed: int = 0,
    time_budget: float | None = None,
    progress: Progress = None,
) -> Estimate:
    """Trace of a square operator.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Square operator of shape (n, n); a real one need not be Hermitian, a complex one must be, so that the trace is real.
    method : {"auto", "hutchinson", "hutch++", "xtrace", "xnystrace", "exact"}
        ``"hutchinson"`` averages ``z^H A z`` over vectors of random signs: the error falls as one over the root of the products,
        and nothing is stored. ``"hutch++"``, ``"xtrace"`` (any square operator) and ``"xnystrace"`` (positive semidefinite ones)
        split off the large part of the spectrum; where it decays they are far better, and they store one to two vectors for each
        product. ``"exact"`` takes n products with unit vectors. ``"auto"``: see the notes.
    num_matvecs : int, optional
        Products allowed, never exceeded: 100 by default, 1000 with `tol`.
    tol : float, optional
        Stop when half the 95 % interval is within `tol` times the modulus of the estimate. Hutchinson looks after every eight
        products from ten on, the others whenever they have doubled; all products stay in use.
    seed : int
        Seed of the random vectors.
    time_budget : float, optional
        Seconds after which the estimate so far is returned, with ``converged`` False; Ctrl-C does the same.
    progress : bool or callable, optional
        True shows a bar.

    Returns
    -------
    Estimate
        With standard error, degrees of freedom and rounding error; ``converged`` is False where `tol` was not met, the run was cut
        short, or a single sample says nothing of its error.

    Raises
    ------
    ValueError
        When an argument is wrong, the operator is not square, its trace is no real number, or XNysTrace sees that it is not
        positive semidefinite.
    NonFiniteEstimateError, EstimationInterrupted
        When a product fails; the estimate from those before is in ``.partial``.

    Notes
    -----
    ``"auto"`` is exact where n products are allowed (with `tol` alone: up to n = 100). Otherwise eight products with random
    signs span a space, and from the parts of them that the others do not span follows, without bias, what share of the squared
    Frobenius norm is outside of it. If less than half (three quarters from 40 products on), the spectrum decays: it goes on with
    XNysTrace, where the operator says that it is positive semidefinite, or with XTrace, and the space stays in use. Else, and for
    fewer than 20 products, or where the vectors do not fit into 40 % of the memory, it goes on with Hutchinson, and those samples
    stay in use.

    The error of Hutchinson and Hutch++ is the spread of independent samples, with degrees of freedom that fall where the
    samples have heavy tails. The leave-one-out estimates of XTrace and XNysTrace are correlated, and their spread is too small
    an error by up to a factor of three; here the correlation is measured by leaving out pairs, which is unbiased.

    References
    ----------
    M. F. Hutchinson, *A stochastic estimator of the trace of the influence matrix*, Commun. Stat. Simul. Comput. 18 (1989).
    R. A. Meyer, C. Musco, C. Musco and D. P. Woodruff, *Hutch++: optimal stochastic trace estimation*, SOSA (2021).
    E. N. Epperly, J. A. Tropp and R. J. Webber, *XTrace: making the most of every sample in stochastic trace estimation*,
    SIAM J. Matrix Anal. Appl. 45 (2024).

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> ls.trace(ls.diagonal_operator(np.arange(10.0))).value
    45.0
    >>> decaying = ls.diagonal_operator(0.8 ** np.arange(1000.0))
    >>> estimate = ls.trace(decaying, method="xtrace", num_matvecs=60)
    >>> bool(abs(estimate.value - 5.0) < 0.05)
    True
    """
    operator = aslinearoperator(A)
    check_real_trace(operator)
    n = operator.shape[0]
    allowed, exact = checked_method("trace", method, get_args(TraceMethod), n, num_matvecs, tol)
    sampler: TraceSampler
    if exact:
        sampler, allowed, tol = Exact(operator), n, None
    elif method == "hutchinson":
        sampler = Hutchinson(operator, seed)
    elif method == "hutch++":
        sampler = HutchPlusPlus(operator, seed)
    elif method == "xtrace":
        sampler = XTrace(operator, seed)
    elif method == "xnystrace":
        sampler = XNysTrace(operator, seed, allowed)
    else:
        sampler = _Auto(operator, seed, allowed)

    def finish(seconds: float, converged: bool) -> Estimate:
        if exact:
            require_all_products("trace", sampler.spent, n)
        found, unit = sampler.found(), 1.0 / sampler.unit
        return Estimate(
            found.value * unit, standard_error=found.error * unit, rounding_error=found.rounding * unit, num_matvecs=sampler.spent,
            degrees_of_freedom=found.dof, seconds=seconds, method=sampler.method, converged=converged and bool(np.isfinite(found.error)),
        )  # fmt: skip

    result: Estimate = sample(
        sampler, allowed, tol=tol, time_budget=time_budget, progress=progress, description="trace", finish=finish
    )
    return result


def check_real_trace(operator: LinearOperator) -> None:
    """Raise unless the operator is square, and Hermitian where it is complex."""
    if operator.shape[1] != operator.shape[0]:
        raise ValueError(f"A trace needs a square operator, but this one has shape {operator.shape}.")
    if operator.dtype.kind == "c" and operator.hermitian is not True:
        raise ValueError(
            "The trace of a complex operator that is not Hermitian is no real number; take those of (A + A.H) / 2 and of "
            "(A - A.H) / 2j, or pass hermitian=True to aslinearoperator if it is."
        )


def budget_of(n: int, num_matvecs: int | None, tol: float | None) -> tuple[int, bool]:
    """Products allowed, and whether n products for an exact answer are among them without asking; checks both arguments."""
    if tol is not None and not 0 < tol < math.inf:
        raise ValueError(f"The argument tol must be positive, but is {tol!r}.")
    if num_matvecs is not None:
        allowed = check_count("num_matvecs", num_matvecs)
        return allowed, n <= allowed
    return (DEFAULT_MATVECS if tol is None else DEFAULT_MATVECS_TO_TOLERANCE), n <= DEFAULT_MATVECS


def checked_method(
    what: str, method: str, methods: tuple[str, ...], n: int, num_matvecs: int | None, tol: float | None
) -> tuple[int, bool]:
    """Products allowed, and whether the answer is to be exact; checks the three arguments."""
    if method not in methods:
        raise ValueError(f"The argument method is {method!r}, but must be one of {', '.join(methods)}.")
    allowed, exact = budget_of(n, num_matvecs, tol)
    if method == "exact" and num_matvecs is not None and allowed < n:
        raise ValueError(f"The exact {what} takes {n} products, but num_matvecs allows {allowed}; use method='hutchinson'.")
    return allowed, method == "exact" or (method == "auto" and exact)


def require_all_products(what: str, spent: int, n: int) -> None:
    """Raise when an exact answer was ended before its last product."""
    if spent < n:
        raise TimeoutError(f"The exact {what} took {spent} of {n} products before it was ended; use method='hutchinson'.")


def decays(operator: LinearOperator, products: Any, allowed: int) -> bool:
    """Whether the spectrum decays so fast, by the products with a few random signs, that splitting off its large part pays."""
    return share_outside(operator, products) < (_DECAYS_FOR_MANY if allowed >= _MANY else _DECAYS)


class _Auto(AfterPilot, TraceSampler):  # type: ignore[override]
    """Hutchinson for a pilot, then what suits the spectrum; the pilot's products stay in use either way."""

    def __init__(self, operator: LinearOperator, seed: int, allowed: int) -> None:
        super().__init__(operator, seed)
        vectors = (1.5 if not operator.positive_semidefinite else 3.0) * allowed
        fits = vectors * self.n * operator.dtype.itemsize <= parse_budget(None, total=operator.backend.total_memory())
        self._undecided = allowed >= _FEWEST_FOR_PILOT and fits
        self._allowed = allowed
        self._current: TraceSampler = Hutchinson(operator, seed, keep=PILOT if self._undecided else 0)

    def _better(self) -> TraceSampler | None:
        if not (self._undecided and self.spent):
            return None
        assert isinstance(self._current, Hutchinson) and self._current.first is not None
        self._undecided = False
        pilot, self._current.first = self._current.first, None
        if not decays(self.operator, pilot[1], self._allowed):
            return None
        if self.operator.positive_semidefinite:
            return XNysTrace(self.operator, self.seed, self._allowed, pilot)
        return XTrace(self.operator, self.seed, pilot)
