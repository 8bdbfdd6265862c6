"""Functions of a Hermitian operator times vectors, by Lanczos."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable
from typing import Any, Literal, cast, get_args

import numpy as np

from .._memory import format_bytes, parse_budget
from .._progress import Progress
from ..backends import Array
from ..operators import LinearOperator, aslinearoperator, require_hermitian
from ..results import PathLike, html_table, register, save_result
from .errors import LanczosInterrupted
from .lanczos import RunOptions, check_count, check_time_budget, run_lanczos
from .recurrence import Recurrence
from .result import LanczosResult, on_host
from .split import combined_norms, complex_columns, joined, split_columns, with_imaginary_part
from .storage import basis_bytes, plan_basis
from .tridiagonal_function import MatrixFunction, vector_norm

FunctionReorthogonalize = Literal["auto", "full", "none"]
_STEPS_BETWEEN_LOOKS = 4


@register("function product")
@dataclasses.dataclass(frozen=True, eq=False)
class FunctionProduct:
    """``f(A) b``; ``numpy.asarray`` of it is the value on the host.

    Attributes
    ----------
    value : array
        ``f(A) b`` in the shape of b, (n,) or (n, j), on the operator's backend; complex where f, A or b is.
    error_estimate : numpy.ndarray
        Estimated norm of the error of each column, shape (j,): what the last steps changed, extrapolated, and rounding. No bound: the first
        few steps may not yet see what matters, nor any number of them a jump of f at a single eigenvalue.
    converged : numpy.ndarray
        Whether the estimate is at most the tolerance times the norm of the value, shape (j,); without a tolerance, whether it is at most
        ``1e-6`` times the norm (the square root of rounding in single precision).
    num_steps : int
        Lanczos steps taken: the dimension of the Krylov space.
    num_matvecs : int
        Products with single vectors.
    seconds : float
        Wall-clock time.
    method : {"stored basis", "two passes"}
        Whether the Krylov vectors were kept or computed twice.
    status : {"complete", "interrupted", "time budget"}
        Why the run ended.
    """

    value: Array
    error_estimate: np.ndarray
    converged: np.ndarray
    num_steps: int
    num_matvecs: int
    seconds: float
    method: str
    status: str

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(on_host(self.value), dtype=dtype, copy=copy)

    def save(self, path: PathLike) -> None:
        """Write the product to `path` (``.npz``); `linop_spectra.load` reads it back."""
        scalars = {name: getattr(self, name) for name in ("num_steps", "num_matvecs", "seconds", "method", "status")}
        arrays = {"value": on_host(self.value), "error_estimate": self.error_estimate, "converged": self.converged}
        save_result(path, "function product", scalars, arrays)

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> FunctionProduct:
        fields: dict[str, Any] = {**scalars, **arrays}
        return cls(**fields)

    def _repr_html_(self) -> str:
        return html_table(
            [
                ("f(A) b", " x ".join(str(size) for size in self.value.shape) + f", {self.method}, {self.status}"),
                ("largest error estimate", f"{np.max(self.error_estimate, initial=0.0):.3g}"),
                ("steps", f"{self.num_steps:,}"),
                ("products", f"{self.num_matvecs:,} in {self.seconds:.3g} s"),
            ]
        )


def funm_multiply(
    A: Any,
    f: Callable[[np.ndarray], Any],
    b: Any,
    *,
    num_steps: int = 64,
    tol: float | None = None,
    reorthogonalize: FunctionReorthogonalize = "auto",
    memory_budget: int | float | str | None = None,
    time_budget: float | None = None,
    progress: Progress = None,
) -> FunctionProduct:
    """``f(A) b`` for a Hermitian operator: ``|b| V f(T) e_1`` with the basis V and the Jacobi matrix T of a Lanczos run from b.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Hermitian operator of shape (n, n).
    f : callable
        Function of an array of eigenvalues, real or complex; finite between the extreme eigenvalues.
    b : array
        Shape (n,), or (n, j): j runs in lockstep. A complex b of a real operator is taken as two real ones.
    num_steps : int
        Lanczos steps, at most n; polynomials of lower degree are exact.
    tol : float, optional
        Stop as soon as the estimated error is at most `tol` times the norm of the value; the run is then as short as it can be.
    reorthogonalize : {"auto", "full", "none"}
        ``"full"`` keeps all Krylov vectors. ``"none"`` keeps a handful and runs twice, first for T and then for the vectors: twice the
        products, and more steps for the same accuracy where Ritz values repeat. ``"auto"`` is full where the basis fits the memory
        budget, else none, with a warning.
    memory_budget : int, float, str or None
        For the basis, in bytes or as text such as ``"4GB"``; by default 40 % of the memory of the device.
    time_budget : float, optional
        Seconds after which the steps end; the value is what they give, marked in ``.status``. Ctrl-C does the same while steps are taken.
    progress : bool or callable, optional
        True shows a bar of steps.

    Returns
    -------
    FunctionProduct
        The value with an error estimate.

    Raises
    ------
    ValueError
        When an argument is wrong, the operator is not Hermitian, or f is not finite at a Ritz value.
    MemoryError
        When ``"full"`` was asked for and is over a stated budget.
    LanczosInterrupted
        When a product raises after the first step; it carries the partial result.
    NonFiniteProductError
        When a product holds NaN or infinity; likewise.

    References
    ----------
    Y. Saad, *Analysis of some Krylov subspace approximations to the matrix exponential operator*, SIAM J. Numer. Anal. 29 (1992).
    V. Druskin and L. Knizhnerman, *Error bounds in the simple Lanczos procedure for computing functions of symmetric matrices and
    eigenvalues*, Comput. Math. Math. Phys. 31 (1991), for the runs without reorthogonalisation.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> d = np.linspace(0.0, 1.0, 100)
    >>> result = funm_multiply(ls.diagonal_operator(d), np.exp, np.ones(100), tol=1e-10)
    >>> bool(np.allclose(np.asarray(result), np.exp(d))), result.num_steps < 20
    (True, True)
    """
    began = time.perf_counter()
    operator = aslinearoperator(A)
    require_hermitian(operator, "funm_multiply")
    if tol is not None and not 0 <= tol < 1:
        raise ValueError(f"The argument tol must lie between 0 and 1, but is {tol!r}.")
    check_time_budget(time_budget)
    n = operator.shape[0]
    num_steps = min(check_count("num_steps", num_steps), n)
    complex_valued = complex_columns(operator, b)
    B, one_dimensional = split_columns(operator, b, "b", complex_valued)
    norms = np.real(operator.backend.fetch([operator.backend.norm(B[i, :]) for i in range(B.shape[0])])).astype(np.float64)
    if not np.all(np.isfinite(norms)):
        raise ValueError("The argument b holds NaN or infinity; it must be finite.")
    columns = [int(i) for i in np.flatnonzero(norms)]  # f(A) 0 = 0
    function = MatrixFunction(f, operator)
    product = _Product(operator, function, B, norms, columns, tol, complex_valued, one_dimensional, began)
    if not columns:
        return product.result(None, "stored basis", 0)
    full = _keeps_basis(operator, num_steps, len(columns), reorthogonalize, memory_budget)
    options = RunOptions(
        # Half of the time where the vectors are computed again.
        time_budget=time_budget if full or time_budget is None else time_budget / 2,
        progress=progress, stop=product.reached, description="f(A) b",
    )  # fmt: skip
    method = "stored basis" if full else "two passes"
    start = _rows(operator, B, columns)
    try:
        run = run_lanczos(
            operator, num_steps, num_probes=len(columns), start=start.T, reorthogonalize="full" if full else "none",
            memory_budget=memory_budget if full else None, options=options,
        )  # fmt: skip
    except LanczosInterrupted as error:
        if full and error.partial.num_steps:
            error.partial = cast(Any, product.result(error.partial, method, error.partial.num_matvecs))
        raise
    return product.result(run, method, run.num_matvecs)


def _keeps_basis(
    operator: LinearOperator, num_steps: int, count: int, reorthogonalize: str, memory_budget: int | float | str | None
) -> bool:
    if reorthogonalize not in get_args(FunctionReorthogonalize):
        raise ValueError(f"The argument reorthogonalize is {reorthogonalize!r}, but must be 'auto', 'full' or 'none'.")
    needed, budget = basis_bytes(operator, num_steps, count), parse_budget(memory_budget, total=operator.backend.total_memory())
    if reorthogonalize == "auto" and needed > budget:
        warnings.warn(
            f"The Lanczos basis of {count} x {num_steps + 1} vectors takes {format_bytes(needed)}, over the memory budget of "
            f"{format_bytes(budget)}: the vectors are computed twice instead of being kept, at twice the products. Take fewer steps or "
            "columns at a time, or pass memory_budget=.",
            stacklevel=3,
        )
        return False
    return reorthogonalize != "none"


def _rows(operator: LinearOperator, rows: Array, chosen: list[int]) -> Array:
    out = operator.backend.empty((len(chosen), operator.shape[0]), operator.dtype)
    for position, index in enumerate(chosen):
        out[position, :] = rows[index, :]
    return out


class _Product:
    """From Lanczos coefficients to values and error estimates."""

    def __init__(
        self, operator: LinearOperator, function: MatrixFunction, B: Array, norms: np.ndarray, columns: list[int], tol: float | None,
        complex_valued: bool, one_dimensional: bool, began: float,
    ) -> None:  # fmt: skip
        self.operator, self.function, self.B, self.norms, self.columns, self.tol = operator, function, B, norms, columns, tol
        self.complex_valued, self.one_dimensional, self.began = complex_valued, one_dimensional, began

    def reached(self, state: Recurrence) -> bool:
        """Whether every column of a run has reached the tolerance."""
        steps = len(state.alphas)
        if self.tol is None or steps < 3 or steps % _STEPS_BETWEEN_LOOKS:
            return False
        alphas, betas = np.array(state.alphas).T, np.array(state.betas).T
        for probe in range(state.num_probes):
            taken = int(state.taken[probe])
            y, error = self.function.apply(alphas[probe, :taken], betas[probe, :taken], strict=False)
            if not error <= self.tol * vector_norm(y):
                return False
        return True

    def result(self, run: LanczosResult | None, method: str, num_matvecs: int) -> FunctionProduct:
        """The value of every column, from the vectors that the run kept or by a second pass."""
        backend, j = self.operator.backend, len(self.norms)
        errors, sizes = np.zeros(j), np.zeros(j)
        coefficients: list[np.ndarray] = []
        if run is not None:
            for probe, column in enumerate(self.columns):
                y, error = self.function.apply(*run.jacobi(probe), strict=True)
                coefficients.append(y * self.norms[column])
                errors[column], sizes[column] = error * self.norms[column], vector_norm(y) * self.norms[column]
        real, imaginary = self._empty(), None
        complex_function = any(np.iscomplexobj(y) for y in coefficients) and self.operator.dtype.kind != "c"
        if complex_function:
            imaginary = self._empty()
        if run is not None and run.vectors is not None and run.vectors.bases:
            for probe, column in enumerate(self.columns):
                y, basis = coefficients[probe][None, :], run.vectors.bases[probe]
                real[column, :] = basis.combine(np.real(y) if complex_function else y)[0, :]
                if imaginary is not None:
                    imaginary[column, :] = basis.combine(np.imag(y))[0, :]
        elif run is not None:
            num_matvecs += self._second_pass(run, coefficients, real, imaginary)
        rows = real if imaginary is None else with_imaginary_part(backend, real, imaginary)
        if self.complex_valued:
            half = j // 2
            if imaginary is not None:
                rows, half_errors = rows[:half, :] + 1j * rows[half:, :], combined_norms(errors, True)
                value = joined(backend, rows, self.one_dimensional, False)
            else:
                value, half_errors = joined(backend, rows, self.one_dimensional, True), combined_norms(errors, True)
            errors, sizes = half_errors, combined_norms(sizes, True)
        else:
            value = joined(backend, rows, self.one_dimensional, False)
        limit = max(1e-6, float(np.sqrt(np.finfo(self.operator.dtype).eps))) if self.tol is None else self.tol
        return FunctionProduct(
            value, errors, errors <= limit * sizes, 0 if run is None else run.num_steps, num_matvecs, time.perf_counter() - self.began,
            method, "complete" if run is None else run.status,
        )  # fmt: skip

    def _empty(self) -> Array:
        rows = self.operator.backend.empty((len(self.norms), self.operator.shape[0]), self.operator.dtype)
        rows[...] = 0.0
        return rows

    def _second_pass(self, run: LanczosResult, coefficients: list[np.ndarray], real: Array, imaginary: Array | None) -> int:
        """Take the same steps again, which give the same vectors to the last bit, and add them up.

        Raises
        ------
        ValueError
            When the products do not repeat.
        """
        operator, backend = self.operator, self.operator.backend
        rows = _rows(operator, self.B, self.columns)
        for i, column in enumerate(self.columns):
            backend.scale_into(rows[i, :], 1.0 / float(self.norms[column]), rows[i, :])
        state = Recurrence(operator, rows, plan=plan_basis(operator, run.num_steps, len(self.columns), "none", None))
        for step in range(run.num_steps):
            for probe, column in enumerate(self.columns):
                if step < run.num_steps_taken[probe]:
                    y, vector = coefficients[probe][step].item(), state._vector(probe, step)
                    backend.axpy(y.real if imaginary is not None else y, vector, real[column, :])
                    if imaginary is not None:
                        backend.axpy(complex(y).imag, vector, imaginary[column, :])
            if step + 1 < run.num_steps:
                state.step()
        state.fetch()
        again = np.array(state.alphas).T
        scale = float(np.max(np.abs(run.alphas), initial=0.0) + np.max(run.betas, initial=0.0))
        difference = float(np.max(np.abs(again - run.alphas[:, : again.shape[1]]), initial=0.0)) if again.size else 0.0
        if difference > np.sqrt(operator.unit_rounding) * scale:
            raise ValueError(
                f"The products of the operator do not repeat: the second of two equal runs differs by {difference / scale:.1e} of |A|. "
                "Pass reorthogonalize='full', with fewer steps or a larger memory_budget, or look at check_operator(A)."
            )
        return state.num_matvecs
