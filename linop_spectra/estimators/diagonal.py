"""Diagonal of an operator from products with random vectors, with an interval for each entry."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any, Literal, get_args

import numpy as np

from .._memory import parse_budget
from .._progress import Progress
from ..backends import Array
from ..krylov.result import on_host
from ..operators import LinearOperator, aslinearoperator
from ..results import PathLike, html_table, register, save_result
from .pilot import AfterPilot
from .sampling import BLOCK, ScaledProducts, half_width, multiply, random_rows, sample, unit_rows
from .trace import check_real_trace, checked_method, decays, require_all_products
from .xdiag import XDiagForms

DiagonalMethod = Literal["auto", "hutchinson", "xdiag", "exact"]
_FEWEST_FOR_PILOT = 20


@register("diagonal")
@dataclasses.dataclass(frozen=True, eq=False)
class DiagonalEstimate:
    """The diagonal of an operator, each entry with its error.

    Attributes
    ----------
    value : array
        Estimates, shape (n,), double precision, on the operator's backend.
    standard_error : array
        Standard error of each, shape (n,): what other random vectors would have changed. Infinite after a single sample.
    rounding_error : float
        What exact arithmetic would have changed, at most, in each entry.
    degrees_of_freedom : float
        Of Student's t distribution for the intervals.
    num_matvecs : int
        Products with the operator, those with its adjoint included.
    seconds : float
        Wall-clock time.
    method : str
        How it was found.
    converged : bool
        False where a requested tolerance was not met, or the run was cut short.
    """

    value: Array
    standard_error: Array
    rounding_error: float = 0.0
    degrees_of_freedom: float = math.inf
    num_matvecs: int = 0
    seconds: float = 0.0
    method: str = ""
    converged: bool = True

    def confidence_interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """Two-sided interval of each entry on its own, two arrays of shape (n,) on the operator's backend.

        Student's t times the standard error, widened by the rounding error.
        """
        if not 0 < level < 1:
            raise ValueError(f"The argument level must lie strictly between 0 and 1, but is {level!r}; for 95 % pass 0.95.")
        from scipy import stats

        quantile = float(stats.t.ppf(0.5 + level / 2, self.degrees_of_freedom))
        half = self.standard_error * quantile + self.rounding_error
        return self.value - half, self.value + half

    def save(self, path: PathLike) -> None:
        """Write the estimate to `path` (``.npz``); `linop_spectra.load` reads it back as NumPy arrays."""
        names = ("rounding_error", "degrees_of_freedom", "num_matvecs", "seconds", "method", "converged")
        arrays = {"value": on_host(self.value), "standard_error": on_host(self.standard_error)}
        save_result(path, "diagonal", {name: getattr(self, name) for name in names}, arrays)

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> DiagonalEstimate:
        fields: dict[str, Any] = {**scalars, **arrays}
        return cls(**fields)

    def _summary(self) -> list[tuple[str, str]]:
        value, error = on_host(self.value), on_host(self.standard_error)
        return [
            ("diagonal", f"{len(value):,} entries from {value.min():.6g} to {value.max():.6g}, sum {value.sum():.6g}"),
            ("standard error", f"{np.median(error):.3g} (median), {error.max():.3g} (largest)"),
            ("products", f"{self.num_matvecs:,}"), ("method", self.method),
        ]  # fmt: skip

    def __str__(self) -> str:
        return "\n".join(f"{name:15s} {text}" for name, text in self._summary())

    def __repr__(self) -> str:
        n = self.value.shape[0]
        return f"DiagonalEstimate({n=}, method={self.method!r}, num_matvecs={self.num_matvecs}, converged={self.converged})"

    def _repr_html_(self) -> str:
        return html_table(self._summary())


def diagonal(
    A: Any,
    *,
    method: DiagonalMethod = "auto",
    num_matvecs: int | None = None,
    tol: float | None = None,
    seed: int = 0,
    time_budget: float | None = None,
    progress: Progress = None,
) -> DiagonalEstimate:
    """Diagonal of a square operator.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Square operator of shape (n, n); a complex one must be Hermitian, so that the diagonal is real.
    method : {"auto", "hutchinson", "xdiag", "exact"}
        ``"hutchinson"`` averages ``conj(z) * A z`` over vectors of random signs: the variance of an entry is the squared norm of the
        rest of its row. ``"xdiag"`` takes the diagonal of the large part of the spectrum exactly; it needs products with the
        adjoint where the operator is not Hermitian, and stores four vectors for every two products. ``"exact"`` takes n products with unit
        vectors. ``"auto"`` is exact where n products are allowed; else it decides between the other two as `trace` does,
        from eight products that stay in use; an operator that is not known to be Hermitian gets Hutchinson.
    num_matvecs : int, optional
        Products allowed, never exceeded: 100 by default, 1000 with `tol`.
    tol : float, optional
        Stop when half the 95 % intervals are, in the root of the mean square over the entries, within `tol` times that of the estimates.
    seed : int
        Seed of the signs.
    time_budget : float, optional
        Seconds after which the estimate so far is returned, with ``converged`` False; Ctrl-C does the same.
    progress : bool or callable, optional
        True shows a bar.

    Returns
    -------
    DiagonalEstimate
        Arrays of shape (n,) on the operator's backend.

    Raises
    ------
    ValueError
        When an argument is wrong, the operator is not square, or its diagonal is not real.
    NonFiniteEstimateError, EstimationInterrupted
        When a product fails; the estimate from those before is in ``.partial``.

    References
    ----------
    C. Bekas, E. Kokiopoulou and Y. Saad, *An estimator for the diagonal of a matrix*, Appl. Numer. Math. 57 (2007).
    E. N. Epperly, J. A. Tropp and R. J. Webber, *XTrace: making the most of every sample in stochastic trace estimation*,
    SIAM J. Matrix Anal. Appl. 45 (2024), section 4 (XDiag).

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> from linop_spectra.estimators import diagonal
    >>> diagonal(ls.diagonal_operator(np.arange(1000.0)), num_matvecs=5).value[:4]
    array([0., 1., 2., 3.])
    """
    operator = aslinearoperator(A)
    check_real_trace(operator)
    n = operator.shape[0]
    allowed, exact = checked_method("diagonal", method, get_args(DiagonalMethod), n, num_matvecs, tol)
    sampler: _DiagonalSampler
    if exact:
        sampler, allowed, tol = _Exact(operator, seed), n, None
    elif method == "hutchinson":
        sampler = _Hutchinson(operator, seed)
    elif method == "xdiag":
        sampler = _XDiag(operator, seed)
    else:
        fits = 2.0 * allowed * n * operator.dtype.itemsize <= parse_budget(None, total=operator.backend.total_memory())
        sampler = _Hutchinson(operator, seed)
        if operator.hermitian and allowed >= _FEWEST_FOR_PILOT and fits:
            sampler = _Auto(operator, seed, allowed)

    def finish(seconds: float, converged: bool) -> DiagonalEstimate:
        if exact:
            require_all_products("diagonal", sampler.spent, n)
        value, variance, dof = sampler.found()
        first = variance[:1]  # of one sample all are infinite
        known = bool(np.isfinite(np.real(operator.backend.fetch([operator.backend.dot(first, first)])[0])))
        unit = 1.0 / sampler.unit
        return DiagonalEstimate(
            value * unit, variance**0.5 * unit, sampler.rounding * unit, dof, sampler.spent, seconds, sampler.method, converged and known
        )

    result: DiagonalEstimate = sample(
        sampler, allowed, tol=tol, time_budget=time_budget, progress=progress, description="diagonal", finish=finish
    )
    return result


class _DiagonalSampler(abc.ABC):
    method = ""
    doubling = True

    def __init__(self, operator: LinearOperator, seed: int) -> None:
        self.operator, self.seed, self.n, self.spent = operator, seed, operator.shape[0], 0
        self._multiply = ScaledProducts(operator)

    @property
    def useful(self) -> bool:
        return self.spent > 0

    @abc.abstractmethod
    def advance(self, limit: int) -> int:
        """Take a block of at most `limit` products; returns how many."""

    @abc.abstractmethod
    def found(self) -> tuple[Array, Array, float]:
        """Value and variance of each entry, and degrees of freedom."""

    def met(self, tol: float) -> bool:
        value, variance, dof = self.found()
        backend = self.operator.backend
        size, error = np.real(backend.fetch([backend.norm(value), backend.norm(variance**0.5)]))
        return half_width(float(error), dof) + self.rounding * math.sqrt(self.n) <= tol * float(size)

    @property
    def rounding(self) -> float:
        """Rounding of an entry: ``4 eps |A z|`` with the largest product seen."""
        return 4 * self.operator.unit_rounding * self._multiply.largest

    @property
    def unit(self) -> float:
        """Power of two that everything here is multiplied by, so that squares of it are numbers."""
        return self._multiply.unit

    def take_over(self, other: _DiagonalSampler) -> None:
        """Go on in the unit of another sampler, whose products are used here."""
        self._multiply = ScaledProducts(self.operator, other._multiply)

    def _wide(self, x: Array) -> Array:
        """Real part in double precision."""
        return self.operator.backend.asarray(self.operator.backend.real(x), dtype=np.float64)

    def _constant(self, value: float) -> Array:
        out = self.operator.backend.empty((self.n,), np.float64)
        out[...] = value
        return out


class _Exact(_DiagonalSampler):
    method = "exact"

    def __init__(self, operator: LinearOperator, seed: int) -> None:
        super().__init__(operator, seed)
        self._value, self._largest = self._constant(0.0), 0.0

    @property
    def rounding(self) -> float:
        """Rounding of an entry."""
        return 4 * self.operator.unit_rounding * self._largest

    @property
    def useful(self) -> bool:
        return self.spent == self.n

    def advance(self, limit: int) -> int:
        indices = range(self.spent, min(self.spent + min(BLOCK, limit), self.n))
        products, norms = multiply(self.operator, unit_rows(self.operator, indices), self.spent)  # nothing is squared
        self._largest = max(self._largest, float(norms.max()))
        for position, index in enumerate(indices):
            self._value[index : index + 1] = self._wide(products[position, index : index + 1])
        self.spent += len(indices)
        return len(indices)

    def found(self) -> tuple[Array, Array, float]:
        return self._value, self._constant(0.0), math.inf


class _Hutchinson(_DiagonalSampler):
    """Mean and sum of squared deviations of each entry, updated sample by sample (Welford, 1962)."""

    method = "hutchinson"
    doubling = False

    def __init__(self, operator: LinearOperator, seed: int) -> None:
        super().__init__(operator, seed)
        self._mean, self._squares = self._constant(0.0), self._constant(0.0)
        self.last: tuple[Array, Array] | None = None

    def advance(self, limit: int) -> int:
        count, backend = min(BLOCK, limit), self.operator.backend
        rows = random_rows(self.operator, range(self.spent, self.spent + count), "sign", self.seed, "diagonal")
        products = self._multiply(rows, self.spent)
        for i in range(count):
            self.spent += 1
            change = self._wide(backend.conj(rows[i, :]) * products[i, :]) - self._mean
            self._mean += change * (1.0 / self.spent)
            self._squares += change * change * ((self.spent - 1) / self.spent)
        self.last = rows, products
        return count

    def found(self) -> tuple[Array, Array, float]:
        m = self.spent
        if m < 2:
            return self._mean, self._constant(math.inf), 1.0
        return self._mean, self._squares * (1.0 / (m * (m - 1))), m - 1.0


class _XDiag(_DiagonalSampler):
    """XDiag; the vectors are random signs, of which a few may be there already with their products."""

    method = "xdiag"

    def __init__(self, operator: LinearOperator, seed: int, first: tuple[Array, Array] | None = None) -> None:
        super().__init__(operator, seed)
        self._forms = XDiagForms(operator.backend, self.n, operator.dtype)
        self._first = first
        self._drawn = 0
        self._known: tuple[int, tuple[Array, Array, float]] | None = None

    def advance(self, limit: int) -> int:
        if self._forms.complete:
            return 0
        if self._first is not None:
            (rows, products), spent, self._first = self._first, 0, None
            count = rows.shape[0]
            if limit < count:
                return 0
        else:
            count = min(BLOCK, max(limit // 2, 1 if not self.spent else 0), self.n - self._forms.rank)
            if count < 1:
                return 0
            rows = random_rows(self.operator, range(self._drawn, self._drawn + count), "sign", self.seed, "diagonal")
            products, spent = self._multiply(rows, self.spent), count
        self._drawn += count
        if limit == 1:
            self._forms.single = self._wide(self.operator.backend.conj(rows[0, :]) * products[0, :])
            self.spent += 1
            return 1
        with self._forms.undone_by_failure():
            new = self._forms.append(rows, products)
            if new < count and not self._forms.complete and spent + new + 2 <= limit:
                # Signs may depend on one another by chance: a vector on the sphere says whether the range is complete.
                probe = random_rows(self.operator, range(self._drawn, self._drawn + 1), "sphere", self.seed, "diagonal sphere")
                new += self._forms.append_spanning(self._multiply(probe, self.spent + spent))
                spent += 1
            if new:
                images = self._multiply(self._forms.range.newest(new), self.spent + spent, adjoint=not self.operator.hermitian)
                self._forms.append_images(images)
                spent += new
        self.spent += spent
        return spent

    def found(self) -> tuple[Array, Array, float]:
        if self._known is None or self._known[0] != self.spent:
            self._known = self.spent, self._forms.estimate(self._wide, self._constant)
        return self._known[1]


class _Auto(AfterPilot, _DiagonalSampler):  # type: ignore[override]
    """Hutchinson for one block, then XDiag where the spectrum decays, with the same vectors."""

    def __init__(self, operator: LinearOperator, seed: int, allowed: int) -> None:
        super().__init__(operator, seed)
        self._current: _DiagonalSampler = _Hutchinson(operator, seed)
        self._allowed, self._undecided = allowed, True

    def _better(self) -> _DiagonalSampler | None:
        current = self._current
        if not self._undecided or not isinstance(current, _Hutchinson) or current.last is None:
            return None
        self._undecided = False
        return _XDiag(self.operator, self.seed, current.last) if decays(self.operator, current.last[1], self._allowed) else None
