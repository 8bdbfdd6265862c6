"""Some singular triplets of an operator, with true residuals."""

from __future__ import annotations

import dataclasses
import time
import warnings
from typing import Any, Literal, cast, get_args

import numpy as np
from scipy import linalg

from .._memory import parse_budget
from .._progress import Progress, ProgressBar
from ..backends import Array
from ..operators import LinearOperator, aslinearoperator
from ..results import PathLike, html_table, register, save_result
from .dense import DENSE
from .errors import LanczosInterrupted, NonFiniteProductError
from .golub_kahan import GolubKahan
from .lanczos import check_count, check_time_budget
from .linear_system import FailedProductError
from .result import on_host

SingularWhich = Literal["LM", "SM"]
_STEPS_BETWEEN_LOOKS = 5
_SPARE = 10  # vectors beyond the wanted ones that a restart needs to get anywhere
_SMALL = {"LM": 40, "SM": 300}
"""Smaller side up to which the whole space is used: a restart would only forget, most of all for the smallest."""
_FEWEST, _MOST = 10, 60
"""Steps of a search for missed triplets."""
_RESOLVED = 1e-3
"""Residual, relative to the distance from the wanted ones, at which the best of the others is known to be no mixture with one of them."""


@register("singular triplets")
@dataclasses.dataclass(frozen=True, eq=False)
class SingularResult:
    """Singular triplets of an operator.

    Attributes
    ----------
    singular_values : numpy.ndarray
        In descending order, shape (k,), float64.
    left_vectors : array
        Orthonormal columns, shape (m, k), on the operator's backend.
    right_vectors : array
        Orthonormal columns, shape (n, k), on the operator's backend.
    residual_norms : numpy.ndarray
        True residuals ``(|A v - s u|^2 + |A^H u - s v|^2)^(1/2)``, recomputed by two products each, shape (k,); a singular value (or, for a
        rectangular operator, zero) lies within this distance. After Ctrl-C those of the recurrence.
    converged : numpy.ndarray
        Whether each residual is below the tolerance times the norm estimate, shape (k,). Unconverged triplets are returned too.
    norm_estimate : float
        Largest singular value that was seen.
    num_matvecs : int
        Products with single vectors, of the operator and of its adjoint.
    seconds : float
        Wall-clock time.
    status : {"complete", "max matvecs", "time budget", "interrupted"}
        Why the run ended.
    verified : bool
        Whether a search in what is left of the space has shown that no wanted singular value, and no copy of a multiple one, is missing.
    """

    singular_values: np.ndarray
    left_vectors: Array
    right_vectors: Array
    residual_norms: np.ndarray
    converged: np.ndarray
    norm_estimate: float
    num_matvecs: int
    seconds: float
    status: str
    verified: bool = False

    def save(self, path: PathLike) -> None:
        """Write the triplets to `path` (``.npz``); `linop_spectra.load` reads them back."""
        arrays = {name: getattr(self, name) for name in ("singular_values", "residual_norms", "converged")}
        arrays |= {name: on_host(getattr(self, name)) for name in ("left_vectors", "right_vectors")}
        scalars = {name: getattr(self, name) for name in ("norm_estimate", "num_matvecs", "seconds", "status", "verified")}
        save_result(path, "singular triplets", scalars, arrays)

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> SingularResult:
        fields: dict[str, Any] = {**scalars, **arrays}
        return cls(**fields)

    def __str__(self) -> str:
        lines = [f"{'singular value':>16s} {'residual':>10s}"]
        for value, residual, good in zip(self.singular_values, self.residual_norms, self.converged, strict=True):
            lines.append(f"{value:16.8g} {residual:10.1e}" + ("" if good else "  not converged"))
        if not self.verified:
            lines.append("not verified: a copy of a multiple singular value may be missing")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return html_table(
            [(f"{value:.8g}", f"residual {residual:.1e}" + ("" if good else ", not converged"))
             for value, residual, good in zip(self.singular_values, self.residual_norms, self.converged, strict=True)]
        )  # fmt: skip


def svds(
    A: Any,
    k: int = 6,
    *,
    which: SingularWhich = "LM",
    tol: float = 1e-6,
    start: Any = None,
    max_basis: int | None = None,
    max_matvecs: int | None = None,
    seed: int = 0,
    time_budget: float | None = None,
    progress: Progress = None,
) -> SingularResult:
    """Some singular triplets of an operator, real or complex, of any shape.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Operator of shape (m, n) with a product with its adjoint.
    k : int
        Number of triplets, at most min(m, n).
    which : {"LM", "SM"}
        Largest or smallest singular values. The smallest come from the whole matrix where its smaller side is up to 1,500 and neither a
        time budget nor fewer products are asked for; of a larger ill-conditioned operator they take many products: one that can be
        inverted is better given as its inverse.
    tol : float
        A triplet has converged when its residual is at most `tol` times the norm estimate; never below four units of rounding.
    start : array, optional
        Starting vectors of length n, shape (n,) or (n, j), for example right singular vectors of a similar operator.
    max_basis : int, optional
        Vectors kept on each side, at least k + 10; by default ``2 k + 20``, at least 40.
    max_matvecs : int, optional
        Products after which unconverged triplets are returned, marked; by default 200 times the basis.
    seed : int
        Seed of the random vectors.
    time_budget : float, optional
        Seconds after which unconverged triplets are returned, marked; Ctrl-C does the same, with estimated residuals.
    progress : bool or callable, optional
        True shows a bar of converged triplets.

    Returns
    -------
    SingularResult
        Triplets in descending order, with true residuals.

    Raises
    ------
    ValueError
        When an argument is wrong, or the product with the adjoint is another matrix's.
    TypeError
        When the operator has no product with its adjoint.
    LanczosInterrupted
        When a product raises; it carries the partial result where there is one.
    NonFiniteProductError
        When a product holds NaN or infinity; likewise.

    Notes
    -----
    After convergence the space is extended by a random vector, orthogonal to all that was found, to look for further copies of multiple
    singular values; ``verified`` says whether that came to an end.

    References
    ----------
    J. Baglama and L. Reichel, *Augmented implicitly restarted Lanczos bidiagonalization methods*, SIAM J. Sci. Comput. 27 (2005).

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> result = svds(np.diag([5.0, 1.0, 3.0, 0.5])[:, :3], k=2)
    >>> result.singular_values.round(6)
    array([5., 3.])
    """
    began = time.perf_counter()
    operator = aslinearoperator(A)
    smaller = min(operator.shape)
    k = check_count("k", k)
    if k > smaller:
        raise ValueError(f"The argument k is {k}, but an operator of shape {operator.shape} has only {smaller} singular values.")
    if which not in get_args(SingularWhich):
        raise ValueError(f"The argument which is {which!r}, but must be one of {', '.join(get_args(SingularWhich))}.")
    if not 0 <= tol < 1:
        raise ValueError(f"The argument tol must lie between 0 and 1, but is {tol!r}.")
    check_time_budget(time_budget)
    default = smaller if smaller <= _SMALL[which] else max(2 * k + 20, 40)
    asked = default if max_basis is None else check_count("max_basis", max_basis)
    if max_matvecs is not None:
        check_count("max_matvecs", max_matvecs)
    fits = np.prod(operator.shape, dtype=float) * operator.dtype.itemsize <= 0.1 * parse_budget(None, total=operator.backend.total_memory())
    limited = time_budget is not None or (max_matvecs is not None and smaller + 2 * k > max_matvecs)
    if which == "SM" and smaller <= DENSE and fits and not limited:
        return _from_dense(operator, k, max(float(tol), 4 * float(np.finfo(operator.dtype).eps)), began)
    room = max(asked, k + _SPARE)
    # Where the least that a restart needs is half of everything, it would only forget.
    room = smaller if smaller <= max(_SMALL[which], 2 * (k + _SPARE)) and room >= smaller / 2 else min(room, smaller)
    solver = GolubKahan(operator, room, smallest=which == "SM", seed=seed)
    limit = check_count("max_matvecs", max_matvecs) if max_matvecs is not None else 200 * solver.capacity
    search = _Search(solver, k, max(float(tol), 4 * float(np.finfo(operator.dtype).eps)), limit, time_budget, began)
    try:
        _add_start(solver, start)
        with ProgressBar(progress, k, "svds", unit="triplet") as bar:
            search.run(bar)
    except KeyboardInterrupt:
        if solver.m < k:
            raise
        search.status = "interrupted"
    except FailedProductError as error:
        cause = cast(Exception, error.__cause__)
        if solver.m < k:
            raise cause from None
        search.status = "interrupted"
        kind = NonFiniteProductError if isinstance(cause, FloatingPointError) else LanczosInterrupted
        raise kind(
            f"The product failed after {solver.num_matvecs} others ({type(cause).__name__}: {cause}); "
            "the triplets so far are kept in .partial.",
            cast(Any, search.result()), solver.num_matvecs,
        ) from cause  # fmt: skip
    result = search.result()
    if not result.converged.all() and search.status in ("complete", "max matvecs"):
        warnings.warn(
            f"Of {k} singular triplets {int(result.converged.sum())} converged within {solver.num_matvecs} products; the others are "
            "returned, marked in .converged. Allow more by max_matvecs or max_basis, or a larger tol.",
            stacklevel=2,
        )
    return result


def _from_dense(operator: LinearOperator, k: int, tol: float, began: float) -> SingularResult:
    """The smallest triplets from the whole matrix, by products with the unit vectors of its smaller side."""
    backend = operator.backend
    tall = operator.shape[0] >= operator.shape[1]
    dense = backend.to_numpy((operator if tall else operator.H).to_dense())
    if not np.all(np.isfinite(dense)):
        raise FloatingPointError("A product with the operator holds NaN or infinity.")
    U, values, Vh = linalg.svd(dense, full_matrices=False)
    left, right = (U.T, Vh.conj()) if tall else (Vh.conj(), U.T)
    chosen = np.arange(len(values) - k, len(values))
    left, right = (
        backend.contiguous(backend.asarray(np.ascontiguousarray(rows[chosen])), operator.dtype) for rows in (left, right)
    )
    kept = values[chosen].astype(np.float64)
    forward, backward = operator.matmat(right.T), operator.rmatmat(left.T)
    norms = []
    for i, value in enumerate(kept.tolist()):
        one, other = forward[:, i] - left[i, :] * value, backward[:, i] - right[i, :] * value
        norms += [backend.norm(one), backend.norm(other)]
    residuals = np.hypot(*np.real(backend.fetch(norms)).reshape(-1, 2).T).astype(np.float64)
    norm = float(values[0])
    converged = residuals <= tol * norm + 8 * float(np.finfo(operator.dtype).eps) * norm
    products = min(operator.shape) + 2 * k
    seconds = time.perf_counter() - began
    return SingularResult(kept, left.T, right.T, residuals, converged, norm, products, seconds, "complete", True)


def _add_start(solver: GolubKahan, start: Any) -> None:
    if start is None:
        return
    backend, n = solver.backend, solver.operator.shape[1]
    given = backend.asarray(start, dtype=solver.operator.dtype)
    shape = tuple(given.shape)
    if len(shape) not in (1, 2) or shape[0] != n:
        raise ValueError(f"The argument start must have shape ({n},) or ({n}, j), but has shape {shape}.")
    columns = given if len(shape) == 2 else given[:, None]
    # Wide operators grow from the left: there the images of the vectors are what the vectors are here.
    rows = backend.contiguous(columns.T)
    images = backend.contiguous(solver.product(rows, adjoint=True).T) if solver.adjoint else rows
    for i in range(rows.shape[0]):
        solver.add_pending(images[i : i + 1, :])
    # All of them are taken in before any is followed: what waits is not seen.
    while solver.chain < len(solver.pending) and not solver.full:
        waiting = len(solver.pending)
        solver.grow()
        solver.chain += len(solver.pending) == waiting


class _Search:
    """The outer loop: growing, restarts, limits, and the search for what was missed."""

    def __init__(self, solver: GolubKahan, k: int, tol: float, limit: int, time_budget: float | None, began: float) -> None:
        self.solver, self.k, self.tol, self.limit, self.time_budget, self.began = solver, k, tol, limit, time_budget, began
        self.status, self.verified = "complete", False
        self._shown = 0

    def run(self, bar: ProgressBar) -> None:
        """Grow and restart until the wanted triplets have converged and nothing was missed, or a limit is reached."""
        solver = self.solver
        while True:
            self._grow(max(_STEPS_BETWEEN_LOOKS, self.k - solver.m))
            values, residuals = self._wanted()
            good = int(np.sum(residuals <= self.tol * solver.norm))
            bar.advance(max(0, good - self._shown))
            self._shown = max(self._shown, good)
            self.verified = solver.complete
            if solver.complete or self._over() or (good == self.k and self._nothing_missed(values)):
                return
            # The chain that the worst triplet hangs on is the one to follow.
            solver.chain = self._worst_coupling(self._chosen())
            if solver.full:
                self._restart()

    def _over(self) -> bool:
        if self.time_budget is not None and time.perf_counter() - self.began > self.time_budget:
            self.status = "time budget"
        elif self.solver.num_matvecs >= self.limit:
            self.status = "max matvecs"
        return self.status != "complete"

    def _grow(self, steps: int) -> None:
        for _ in range(steps):
            if self.solver.full:
                return
            self.solver.grow()

    def _restart(self) -> None:
        m = self.solver.m
        self.solver.restart(min(max(self.k + 2, (3 * m) // 5), m - 1))

    def _chosen(self) -> np.ndarray:
        m = self.solver.m
        return np.arange(m - self.k, m) if self.solver.smallest else np.arange(self.k)

    def _wanted(self) -> tuple[np.ndarray, np.ndarray]:
        values, residuals = self.solver.decompose()
        chosen = self._chosen()
        return values[chosen], residuals[chosen]

    def _worst_coupling(self, chosen: np.ndarray) -> int:
        """The pending vector that the residuals of some triplets hang on most."""
        couplings = self.solver.couplings(chosen)
        return int(np.argmax(couplings.max(axis=1))) if couplings.size else 0

    def _nothing_missed(self, before: np.ndarray) -> bool:
        """Grow by a fresh random vector, and see whether a Ritz value comes up that belongs among the wanted ones.

        The Krylov space of one vector holds one singular vector of each singular value, whatever its multiplicity. The search ends when the
        best of the others is resolved as lying outside, or after some steps: the more an omission would change, the fewer show it.
        """
        solver, k = self.solver, self.k
        margin = self.tol * solver.norm
        # Nothing but what was wanted stays: the best of the others then comes from the fresh vector.
        solver.restart(k)
        solver.set_aside()
        solver.add_pending()
        try:
            return self._look_beyond(before, margin)
        finally:
            solver.take_back()

    def _look_beyond(self, before: np.ndarray, margin: float) -> bool:
        solver = self.solver
        for step in range(1, max(_MOST, solver.num_matvecs // 2) + 1):
            if solver.complete:
                break
            if solver.full:
                solver.decompose()
                self._restart()
            solver.grow()
            if step >= _FEWEST and step % _STEPS_BETWEEN_LOOKS == 0:
                values, residuals = solver.decompose()
                now, _ = self._wanted()
                if np.any(np.abs(now - before) > margin):
                    break
                if self._resolved(values, residuals, before, margin):
                    self.verified = True
                    break
                if self._over():
                    return True
        now, residuals = self._wanted()
        return bool(np.all(np.abs(now - before) <= margin) and np.all(residuals <= self.tol * solver.norm))

    def _resolved(self, values: np.ndarray, residuals: np.ndarray, before: np.ndarray, margin: float) -> bool:
        """Whether the best of the other Ritz triplets are known to be no mixtures with a wanted one."""
        count = len(values) - self.k
        for index in range(count - 1, -1, -1) if self.solver.smallest else range(self.k, len(values)):
            outside = values[index] - before[0] if self.solver.smallest else before[-1] - values[index]
            if residuals[index] > max(_RESOLVED * outside, margin):
                return False
            if outside > margin:  # ties with the last wanted one say nothing of what lies beyond them
                return True
        return False

    def result(self) -> SingularResult:
        """What there is now."""
        solver = self.solver
        _, residuals = self._wanted()
        values, left, right = solver.triplets(self._chosen())
        if self.status != "interrupted":  # after Ctrl-C nobody waits for more products
            residuals = solver.true_residuals(values, left, right)
        norm, unit = solver.norm, solver.unit
        converged = residuals <= self.tol * norm + 8 * float(np.finfo(solver.operator.dtype).eps) * norm
        return SingularResult(
            values / unit, left.T, right.T, residuals / unit, converged, float(solver.values[0]) / unit, solver.num_matvecs,
            time.perf_counter() - self.began, self.status, self.verified and self.status == "complete",
        )  # fmt: skip
