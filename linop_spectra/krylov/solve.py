"""Hermitian linear systems by conjugate gradients and MINRES, with true residuals."""

from __future__ import annotations

import dataclasses
import numbers
import time
import warnings
from typing import Any, Literal, cast, get_args

import numpy as np

from .._progress import Progress, ProgressBar
from ..backends import Array
from ..operators import LinearOperator, aslinearoperator, require_hermitian
from ..operators.matrix import product_rounding
from ..results import PathLike, html_table, register, save_result
from .cg import ConjugateGradients, NegativeCurvatureError
from .errors import LanczosInterrupted, NonFiniteProductError
from .lanczos import check_count, check_time_budget
from .linear_system import FailedProductError, Iteration, LinearSystem
from .minres import MinimalResidual
from .result import on_host
from .split import combined_norms, complex_columns, joined, split_columns

Method = Literal["auto", "cg", "minres"]
SolveStatus = Literal["complete", "stagnated", "max iterations", "time budget", "interrupted"]
_ITERATIONS_BETWEEN_CHECKS = 50
_TOLERANCE, _SINGLE_TOLERANCE = 1e-8, 1e-4
_ENOUGH = 0.5
"""A restart goes on only where the one before it brought the true residual down by this factor."""


@register("solution")
@dataclasses.dataclass(frozen=True, eq=False)
class SolveResult:
    """Solution of a Hermitian system; ``numpy.asarray`` of it is the solution on the host.

    Attributes
    ----------
    x : array
        Solution in the shape of the right-hand side, (n,) or (n, j), on the operator's backend.
    residual_norms : numpy.ndarray
        True residuals ``|b - (A + shift) x|``, recomputed by products, shape (j,); after Ctrl-C those of the recurrence.
    converged : numpy.ndarray
        Whether each residual is at most the tolerance times ``|b|``, shape (j,).
    least_squares : numpy.ndarray
        Where the system has no solution, and x is one of the vectors of smallest residual, shape (j,).
    num_iterations : int
        Steps of the column that took most of them.
    num_matvecs : int
        Products with single vectors, those for the residuals included.
    seconds : float
        Wall-clock time.
    method : {"cg", "minres"}
        How it was solved; what ``"auto"`` came to.
    status : {"complete", "stagnated", "max iterations", "time budget", "interrupted"}
        Why the run ended; ``"stagnated"`` where rounding (or a system without solution) allowed no smaller residual.
    history : numpy.ndarray
        Residual norms by the recurrence after each iteration, shape (num_iterations + 1, j); NaN after a column ended.
    """

    x: Array
    residual_norms: np.ndarray
    converged: np.ndarray
    least_squares: np.ndarray
    num_iterations: int
    num_matvecs: int
    seconds: float
    method: str
    status: str
    history: np.ndarray = dataclasses.field(repr=False)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(on_host(self.x), dtype=dtype, copy=copy)

    def save(self, path: PathLike) -> None:
        """Write the solution to `path` (``.npz``); `linop_spectra.load` reads it back."""
        arrays = {name: getattr(self, name) for name in ("residual_norms", "converged", "least_squares", "history")}
        scalars = {name: getattr(self, name) for name in ("num_iterations", "num_matvecs", "seconds", "method", "status")}
        save_result(path, "solution", scalars, {**arrays, "x": on_host(self.x)})

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> SolveResult:
        fields: dict[str, Any] = {**scalars, **arrays}
        return cls(**fields)

    def _repr_html_(self) -> str:
        return html_table(
            [
                ("solution", " x ".join(str(size) for size in self.x.shape) + f", {self.method}, {self.status}"),
                ("converged", f"{int(self.converged.sum())} of {len(self.converged)}"),
                ("largest residual", f"{np.max(self.residual_norms, initial=0.0):.3g}"),
                ("iterations", f"{self.num_iterations:,}"),
                ("products", f"{self.num_matvecs:,} in {self.seconds:.3g} s"),
            ]
        )


def solve(
    A: Any,
    b: Any,
    *,
    method: Method = "auto",
    shift: float = 0.0,
    tol: float | None = None,
    max_iterations: int | None = None,
    preconditioner: Any = None,
    start: Any = None,
    time_budget: float | None = None,
    progress: Progress = None,
) -> SolveResult:
    """Solution of ``(A + shift I) x = b`` for a Hermitian operator.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Hermitian operator of shape (n, n).
    b : array
        Right-hand sides, shape (n,) or (n, j); several go in lockstep, one block product for each iteration, and drop out as they converge.
        A complex b of a real operator is solved as two real ones.
    method : {"auto", "cg", "minres"}
        Conjugate gradients for positive definite operators; MINRES also for indefinite and singular ones. ``"auto"`` takes conjugate
        gradients where the operator is known to be positive semidefinite and the shift is not negative, and goes over to MINRES when
        that turns out to be wrong or the system to have no solution.
    shift : float
        Added to every eigenvalue.
    tol : float, optional
        A column has converged when its true residual is at most `tol` times ``|b|``; never below four units of rounding. By default
        1e-8, and 1e-4 for products in single precision or a narrower type.
    max_iterations : int, optional
        Steps after which unconverged columns are returned, marked; by default ``10 n``.
    preconditioner : LinearOperator, array or callable, optional
        Hermitian positive definite approximation M of the inverse. MINRES then makes the residual small in the norm ``(r^H M r)^(1/2)``.
    start : array, optional
        Starting guess in the shape of `b`; zero by default.
    time_budget : float, optional
        Seconds after which unconverged columns are returned, marked; Ctrl-C does the same.
    progress : bool or callable, optional
        True shows a bar of iterations.

    Returns
    -------
    SolveResult
        Solution with true residuals. Where a singular system has no solution, MINRES ends at a vector of least residual, marked in
        ``.least_squares``.

    Raises
    ------
    ValueError
        When an argument is wrong, the operator is not Hermitian, the preconditioner is not positive definite, or ``method="cg"`` meets
        negative curvature.
    LanczosInterrupted
        When a product raises after the first step; it carries the partial result.
    NonFiniteProductError
        When a product holds NaN or infinity after the first step; it carries the partial result.

    References
    ----------
    M. R. Hestenes and E. Stiefel, *Methods of conjugate gradients for solving linear systems*, J. Res. Nat. Bur. Standards 49 (1952).
    C. C. Paige and M. A. Saunders, *Solution of sparse indefinite systems of linear equations*, SIAM J. Numer. Anal. 12 (1975).

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> A = ls.diagonal_operator(np.linspace(1.0, 4.0, 100))
    >>> result = solve(A, np.ones(100))
    >>> result.method, bool(result.converged.all())
    ('cg', True)
    >>> bool(np.allclose(np.asarray(result), 1 / np.linspace(1.0, 4.0, 100)))
    True
    """
    began = time.perf_counter()
    operator = aslinearoperator(A)
    require_hermitian(operator, "solve")
    n = operator.shape[0]
    if tol is None:
        tol = _TOLERANCE if product_rounding(operator) < 1e-10 else _SINGLE_TOLERANCE
    _check_arguments(method, shift, tol)
    check_time_budget(time_budget)
    limit = 10 * n if max_iterations is None else check_count("max_iterations", max_iterations)
    complex_valued = complex_columns(operator, b) or (start is not None and complex_columns(operator, start))
    B, one_dimensional = split_columns(operator, b, "b", complex_valued)
    backend, j = operator.backend, B.shape[0]
    norms = np.real(backend.fetch([backend.norm(B[i, :]) for i in range(j)])).astype(np.float64)
    if not np.all(np.isfinite(norms)):
        raise ValueError("The argument b holds NaN or infinity; a right-hand side must be finite.")
    if start is None:
        X = backend.empty((j, n), operator.dtype)
        X[...] = 0.0
    else:
        X, start_shape = split_columns(operator, start, "start", complex_valued)
        if X.shape != B.shape or start_shape != one_dimensional:
            raise ValueError(f"The arguments start and b must have the same shape, but have {np.shape(start)} and {np.shape(b)}.")
    # The two parts of a complex column are held to the norm of the whole.
    whole = np.tile(np.hypot(*norms.reshape(2, -1)), 2) if complex_valued else norms
    for i in range(j):
        inverse = 1.0 / float(whole[i]) if whole[i] > 0 else 0.0
        backend.scale_into(B[i, :], inverse, B[i, :])
        backend.scale_into(X[i, :], inverse, X[i, :])
    system = LinearSystem(operator, float(shift), _preconditioner(operator, preconditioner), B, X)
    run = _Run(system, max(float(tol), 4 * float(np.finfo(operator.dtype).eps)), limit, time_budget, began)

    def result() -> SolveResult:
        if run.status == "interrupted":
            run.finish()
        for i in range(j):
            backend.scale_into(X[i, :], float(whole[i]), X[i, :])
        return run.result(X, whole, one_dimensional, complex_valued)

    use_cg = method == "cg" or (method == "auto" and operator.positive_semidefinite is True and shift >= 0)
    try:
        with ProgressBar(progress, limit, "solve", unit="iteration") as bar:
            run.go(ConjugateGradients if use_cg else MinimalResidual, method, bar)
        run.finish()
    except KeyboardInterrupt:
        if not run.num_iterations:
            raise
        run.status = "interrupted"
    except FailedProductError as error:
        cause = cast(Exception, error.__cause__)
        if not run.num_iterations:
            raise cause from None
        run.status = "interrupted"
        kind = NonFiniteProductError if isinstance(cause, FloatingPointError) else LanczosInterrupted
        raise kind(
            f"The product failed in iteration {run.num_iterations + 1} ({type(cause).__name__}: {cause}); "
            "the solution so far is kept in .partial.",
            cast(Any, result()), run.num_iterations,
        ) from cause  # fmt: skip
    _warn(run, j)
    return result()


def _check_arguments(method: str, shift: Any, tol: float) -> None:
    if method not in get_args(Method):
        raise ValueError(f"The argument method is {method!r}, but must be one of {', '.join(get_args(Method))}.")
    if not isinstance(shift, numbers.Real) or not np.isfinite(float(shift)):
        raise ValueError(f"The argument shift must be a finite real number, but is {shift!r}; another one makes A + shift not Hermitian.")
    if not 0 <= tol < 1:
        raise ValueError(f"The argument tol must lie between 0 and 1, but is {tol!r}.")


def _preconditioner(operator: LinearOperator, given: Any) -> LinearOperator | None:
    if given is None:
        return None
    function = callable(given) and not hasattr(given, "shape")
    wrapped = aslinearoperator(
        given, backend=operator.backend, shape=operator.shape if function else None, dtype=operator.dtype if function else None
    )
    if wrapped.shape != operator.shape:
        raise ValueError(f"The argument preconditioner has shape {wrapped.shape}, but the operator has shape {operator.shape}.")
    if wrapped.dtype.kind == "c" and operator.dtype.kind != "c":
        raise ValueError(f"The argument preconditioner is complex, but the operator is {operator.dtype}; pass a real one.")
    require_hermitian(wrapped, "The preconditioner of solve")
    return wrapped


def _warn(run: _Run, j: int) -> None:
    if run.status in ("time budget", "interrupted") or run.converged.all():
        return
    if run.least_squares.any():
        warnings.warn(
            f"The system is singular, and for {int(run.least_squares.sum())} of {j} right-hand sides it has no solution: a vector of least "
            "residual is returned, marked in .least_squares.", stacklevel=3,
        )  # fmt: skip
    left = int(np.sum(~run.converged & ~run.least_squares))
    if left:
        reason = (
            "rounding allows no smaller residual; allow a larger tol, or pass an operator in a wider type or a preconditioner."
            if run.status == "stagnated"
            else "allow more by max_iterations, a larger tol, or pass a preconditioner."
        )
        warnings.warn(
            f"Of {j} right-hand sides {left} did not converge within {run.num_iterations} iterations; they are returned, marked in "
            f".converged: {reason}", stacklevel=3,
        )  # fmt: skip


class _Run:
    """The outer loop: limits, checks by true residuals, restarts, and the change of method. All norms are relative to ``|b|``."""

    def __init__(self, system: LinearSystem, tol: float, limit: int, time_budget: float | None, began: float) -> None:
        self.system, self.tol, self.limit, self.time_budget, self.began = system, tol, limit, time_budget, began
        j = system.B.shape[0]
        self.num_iterations = 0
        self.status: SolveStatus = "complete"
        self.residuals = np.zeros(j)
        self.best, self.restarted = np.full(j, np.inf), np.zeros(j)
        self.converged, self.least_squares, self.stagnated = (np.zeros(j, dtype=bool) for _ in range(3))
        self.history: list[np.ndarray] = []
        self.method = ""

    def go(self, kind: type[ConjugateGradients] | type[MinimalResidual], method: str, bar: ProgressBar) -> None:
        """Solve; `method` says whether it may change."""
        columns = list(range(len(self.residuals)))
        self.method = kind.name
        self.kept = self.system.empty(len(columns))
        guess = self.system.empty(len(columns))
        guess[...] = self.system.X
        residuals, norms = self.system.residuals(columns)
        for column, size in enumerate(self.system.norms(self.system.B, len(columns))):
            if size == 0.0:  # the solution is zero whatever the guess
                self.system.X[column, :] = 0.0
                norms[column] = 0.0
            self._remember(column, norms[column])
        self.converged = norms <= self.tol
        self.history.append(norms.copy())
        running = [column for column in columns if not self.converged[column]]
        self._iterate(kind, _rows(self.system, residuals, running), running, bar, fall_back=method == "auto")
        left = [column for column in columns if self.stagnated[column]]
        if kind is ConjugateGradients and method == "auto" and left and self.status == "complete":
            # A singular or an indefinite operator: from the start again, with the method that can do it.
            self.method = MinimalResidual.name
            self.stagnated[:] = False
            for column in left:
                self.system.X[column, :] = guess[column, :]
            residuals, self.restarted[left] = self.system.residuals(left)
            self._iterate(MinimalResidual, residuals, left, bar, fall_back=False)
        if self.status == "complete" and (self.stagnated.any() or self.least_squares.any()):
            self.status = "stagnated"

    def _iterate(
        self, kind: type[ConjugateGradients] | type[MinimalResidual], residuals: Array, columns: list[int], bar: ProgressBar,
        *, fall_back: bool,
    ) -> None:  # fmt: skip
        """Run one method on some columns until each has ended."""
        if not columns:
            return
        iteration: Iteration = kind(self.system, residuals, columns)
        self.restarted[columns] = self.residuals[columns]
        longest = 0.0
        while iteration.columns:
            step_began = time.perf_counter()
            over = self.time_budget is not None and step_began - self.began + longest > self.time_budget
            if self.num_iterations >= self.limit or over:
                self.status = "time budget" if over else "max iterations"
                break
            try:
                iteration.step()
            except NegativeCurvatureError as error:
                if fall_back:
                    self.stagnated[iteration.columns] = True
                    break
                raise ValueError(
                    f"Conjugate gradients met negative curvature in iteration {self.num_iterations + 1} (p^H (A + shift) p / p^H p = "
                    f"{error.quotient:.3g}): the operator is not positive definite. Use method='minres', or a larger shift."
                ) from None
            self.num_iterations += 1
            bar.advance()
            self.residuals[iteration.columns] = iteration.estimates
            line = np.full(len(self.residuals), np.nan)
            line[iteration.columns] = iteration.estimates
            self.history.append(line)
            self._check(iteration, fall_back=fall_back, everything=self.num_iterations % _ITERATIONS_BETWEEN_CHECKS == 0)
            longest = max(longest, time.perf_counter() - step_began)

    def finish(self) -> None:
        """True residuals of what ended without one, and the better solutions of before in the place of worse ones."""
        open_columns = [int(c) for c in np.flatnonzero(~self.converged & ~self.stagnated & ~self.least_squares)]
        if open_columns and self.status != "interrupted":
            _, norms = self.system.residuals(open_columns)
            for column, norm in zip(open_columns, norms, strict=True):
                self._remember(column, norm)
        for column in range(len(self.residuals)):
            if self.best[column] < self.residuals[column] and not self.least_squares[column]:
                self.system.X[column, :] = self.kept[column, :]
                self.residuals[column] = self.best[column]
        self.converged = self.residuals <= self.tol

    def _check(self, iteration: Iteration, *, fall_back: bool, everything: bool) -> None:
        """True residuals of the columns that claim to be done; they end, or start again from where they are."""
        suspected = iteration.suspected if isinstance(iteration, MinimalResidual) else np.zeros(len(iteration.columns), dtype=bool)
        done = (iteration.estimates <= self.tol) | iteration.stopped | suspected[: len(iteration.columns)] | everything
        positions = [int(position) for position in np.flatnonzero(done)]
        if not positions:
            return
        columns = [iteration.columns[position] for position in positions]
        rows, norms = self.system.residuals(columns)
        ended = []
        for row, (position, column) in enumerate(zip(positions, columns, strict=True)):
            true = norms[row]
            stopped, estimate = bool(iteration.stopped[position]), float(iteration.estimates[position])
            self._remember(column, true)
            if true <= self.tol:
                self.converged[column] = True
                ended.append(position)
            elif (suspected[position] or stopped) and self._is_least_squares(iteration, rows[row, :], position):
                self.least_squares[column] = True
                ended.append(position)
            elif not stopped and estimate > self.tol and abs(true - estimate) <= 0.1 * true:
                continue  # the recurrence tells the truth
            elif true > _ENOUGH * self.restarted[column] or (stopped and fall_back):
                if not self._took_candidate(iteration, position):
                    self.stagnated[column] = True
                ended.append(position)
            else:
                self.restarted[column] = true
                iteration.restart(position, rows[row, :])
        for position in sorted(ended, reverse=True):
            iteration.drop(position)

    def _took_candidate(self, iteration: Iteration, position: int) -> bool:
        """Whether an earlier iterate is a least-squares solution, which then is taken, and nothing found since has a smaller residual."""
        column = iteration.columns[position]
        if not isinstance(iteration, MinimalResidual) or column not in iteration.candidates:
            return False
        present = self.system.empty(1)
        present[0, :] = self.system.X[column, :]
        self.system.X[column, :] = iteration.candidates[column][0][0, :]
        rows, norms = self.system.residuals([column])
        # Rounding of a long solution may make its residual look smaller than the least there is.
        length = float(self.system.norms(self.kept[column : column + 1, :], 1)[0])
        noise = 16 * self.system.eps * float(iteration.norm[position]) * length
        if norms[0] <= (1 + 1e-3) * self.best[column] + noise and self._is_least_squares(iteration, rows[0, :], position):
            self._remember(column, norms[0])
            self.least_squares[column] = True
            return True
        self.system.X[column, :] = present[0, :]
        return False

    def _remember(self, column: int, true: float) -> None:
        """Keep the solution of smallest true residual: near a singular system later ones may be far worse."""
        self.residuals[column] = true
        if true < self.best[column]:
            self.best[column] = true
            self.kept[column, :] = self.system.X[column, :]

    def _is_least_squares(self, iteration: Iteration, residual: Array, position: int) -> bool:
        if not isinstance(iteration, MinimalResidual):
            return False
        iteration.suspected[position] = False
        return iteration.normal_residual(residual, position) <= max(self.tol, 8 * float(np.sqrt(self.system.eps)))

    def result(self, X: Array, norms: np.ndarray, one_dimensional: bool, complex_valued: bool) -> SolveResult:
        """What there is now, in the units of the user's b."""
        history = np.array(self.history) * norms
        residuals = self.residuals * norms
        converged, least_squares = self.converged, self.least_squares
        if complex_valued:
            residuals = combined_norms(residuals, True)
            half = len(converged) // 2
            converged = converged[:half] & converged[half:]
            least_squares = least_squares[:half] | least_squares[half:]
            history = np.hypot(*(np.nan_to_num(part) for part in (history[:, : len(residuals)], history[:, len(residuals) :])))
        return SolveResult(
            joined(self.system.backend, X, one_dimensional, complex_valued), residuals, converged, least_squares, self.num_iterations,
            self.system.num_matvecs, time.perf_counter() - self.began, self.method, self.status, history,
        )  # fmt: skip


def _rows(system: LinearSystem, rows: Array, chosen: list[int]) -> Array:
    out = system.empty(len(chosen))
    for position, column in enumerate(chosen):
        out[position, :] = rows[column, :]
    return out
