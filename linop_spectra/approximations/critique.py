"""What an approximation of a matrix loses, property by property."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from .._progress import Progress, ProgressBar
from ..backends import Array
from ..curvature.matrices import HessianOperator
from ..curvature.non_finite import NonFiniteLossError
from ..curvature.objective import Objective
from ..curvature.report import CurvatureReport
from ..krylov.lanczos import check_count
from ..operators import LinearOperator, aslinearoperator, require_hermitian
from ..results import Estimate, PathLike, register, save_result
from ..spectra import SpectralDensity
from .approximate import OF_AN_OBJECTIVE, Matrix, approximate, matrix_of
from .approximation import check_damping
from .critique_comparison import Loss, Steps, noise_of, rows_of
from .critique_rows import TOLERANCES, CritiqueRow, half_width
from .critique_truth import Truth, measure, probe_products

_DAMPINGS = 1e-3, 1e-2, 1e-1
_ERROR_PROBES = 16
_OF_GAUSS_NEWTON = "ggn_mc", "kfac", "ekfac"


@register("critique")
@dataclasses.dataclass(frozen=True, eq=False)
class Critique:
    """What one or several approximations lose of a matrix.

    Attributes
    ----------
    rows : tuple of CritiqueRow
        Property by property, all of one approximation after those of the one before.
    order : int
        Rows of the matrix.
    num_matvecs : int
        Products with the matrix. What products with an approximation cost comes on top: blocks that were too large to be formed take one
        with the matrix each.
    seconds : float
        Wall-clock time.
    notes : tuple of str
        What a reader should know: where the right side of the Newton steps comes from, what did not converge.
    """

    rows: tuple[CritiqueRow, ...]
    order: int
    num_matvecs: int
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The approximations."""
        return tuple(dict.fromkeys(row.name for row in self.rows))

    @property
    def properties(self) -> tuple[str, ...]:
        """What is compared."""
        return tuple(dict.fromkeys(row.property for row in self.rows))

    def of(self, name: str) -> Critique:
        """The critique of one of several approximations.

        Raises
        ------
        KeyError
            When there is none of that name.
        """
        chosen = tuple(row for row in self.rows if row.name == name)
        if not chosen:
            raise KeyError(f"There is no approximation {name!r}; there are {', '.join(map(repr, self.names))}.")
        return dataclasses.replace(self, rows=chosen)

    def __getitem__(self, property: str) -> CritiqueRow:
        found = [row for row in self.rows if row.property == property]
        if len(found) != 1:
            why = f"has {len(found)} rows for {property!r}; choose an approximation by .of(name)" if found else f"has no {property!r}"
            raise KeyError(f"The critique {why}. Its properties are {', '.join(self.properties)}.")
        return found[0]

    @property
    def beats_null(self) -> dict[str, tuple[str, ...]]:
        """For each approximation the properties in which it is nearer to the truth than in a random basis, by a tenth of the error."""
        return {
            name: tuple(row.property for row in self.rows if row.name == name and row.null is not None and _beats(row))
            for name in self.names
        }

    def __str__(self) -> str:
        names = self.names
        head = ["property", "matrix", *(names if len(names) > 1 else ("approximation", "rel. error", "verdict")), "random basis"]
        table = [head]
        for property in self.properties:
            found = {row.name: row for row in self.rows if row.property == property}
            first = next(iter(found.values()))
            truth = _number(first.truth.value) + (f" ± {half_width(first.truth):.2g}" if half_width(first.truth) > 0 else "")
            if any(row.truth != first.truth for row in found.values()):
                truth = ""  # it depends on the approximation, whose cells show the relative error
            nulls = [row.null for row in found.values() if row.null is not None]
            if len(names) > 1:
                cells = [_cell(found[name]) if name in found else "" for name in names]
            else:
                spread = f" ± {half_width(first.estimate):.2g}" if half_width(first.estimate) > 0 else ""
                cells = [_number(first.approximation) + spread, _number(first.relative_error), first.verdict]
            table.append([property, truth, *cells, _number(nulls[0]) if nulls else ""])
        widths = [max(len(line[column]) for line in table) for column in range(len(head))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([*lines, *(f"Note: {note}." for note in self.notes)])

    def __repr__(self) -> str:
        return f"Critique({', '.join(self.names)}; {len(self.properties)} properties, num_matvecs={self.num_matvecs})"

    def _repr_html_(self) -> str:
        from html import escape

        lines = str(self).split("\n")
        return f"<pre>{escape(chr(10).join(lines))}</pre>"

    def plot(self, path: PathLike | None = None, ax: Any = None) -> Any:
        """Draw the table as a picture, verdicts in colour and in words; needs matplotlib.

        Parameters
        ----------
        path : str or path, optional
            File to write.
        ax : matplotlib.axes.Axes, optional
            Axes to draw on.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.
        """
        from ..plots.critique import critique as draw

        axes = draw(self, ax=ax)
        if path is not None:
            figure: Any = axes.figure
            figure.savefig(path)
        return axes

    def save(self, path: PathLike) -> None:
        """Write the rows to `path` (``.npz``); `linop_spectra.load` reads them back."""
        rows = [{**dataclasses.asdict(row)} for row in self.rows]
        header = {name: getattr(self, name) for name in ("order", "num_matvecs", "seconds")}
        save_result(path, "critique", {**header, "notes": list(self.notes), "rows": rows}, {})

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> Critique:
        rows = tuple(
            CritiqueRow(**{**row, "truth": Estimate(**row["truth"]), "estimate": Estimate(**row["estimate"])}) for row in scalars["rows"]
        )
        return cls(rows, scalars["order"], scalars["num_matvecs"], scalars["seconds"], tuple(scalars["notes"]))


def _beats(row: CritiqueRow) -> bool:
    error, null = abs(row.approximation - row.truth.value), abs((row.null or 0.0) - row.truth.value)
    return error < 0.9 * null


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"


def _cell(row: CritiqueRow) -> str:
    return f"{_number(row.approximation)} {row.verdict}" + (f" ({row.relative_error:.2g})" if row.verdict != "ok" else "")


def critique(
    A: Any,
    approximation: str | LinearOperator | Mapping[str, Any] | Sequence[Any] | Any,
    *,
    matrix: Matrix | None = None,
    num_steps: int = 64,
    num_probes: int | Literal["auto"] = "auto",
    num_pairs: int = 5,
    dampings: Sequence[float] | None = None,
    gradient: Any = None,
    loss: Callable[[Any], float] | None = None,
    truth: SpectralDensity | CurvatureReport | None = None,
    tolerances: tuple[float, float] = TOLERANCES,
    seed: int = 0,
    progress: Progress = None,
) -> Critique:
    r"""What approximations of a matrix lose: a table of its properties beside theirs, with verdicts.

    Parameters
    ----------
    A : Objective, LinearOperator or what `aslinearoperator` takes
        The Hermitian matrix, or an objective, whose gradient and loss are then used as well.
    approximation : str, operator, mapping or sequence of these
        A kind of `approximate`, such as ``"diagonal"``, what it returned, or any other operator of that order; several by name, or in
        a list.
    matrix : {"hessian", "ggn", "fisher"}, optional
        Of an objective: the Hessian by default.
    num_steps, num_probes
        Of the spectral densities, of the matrix and of approximations whose eigenvalues are not in closed form. A matrix is formed
        and taken apart where that takes no more products than its spectral density; an explicit one up to order 1,500.
    num_pairs : int
        Leading eigenvectors (of largest modulus) whose span is compared.
    dampings : sequence of float, optional
        At which Newton steps are compared; by default 0.001, 0.01 and 0.1 times the spectral norm, plus twice the
        modulus of the most negative eigenvalue. The one in the middle is that of the effective dimension and of the loss decrease.
    gradient : array, optional
        Right side of the Newton steps, shape (n,); by default that of the objective, or a random vector without one.
    loss : callable, optional
        Loss at a displacement of shape (n,) from the point; by default that of the objective, else there are no rows on it.
    truth : SpectralDensity or CurvatureReport, optional
        Of the matrix, from an earlier run, which saves its products; leading eigenvectors too are taken from it where they have
        converged, and Newton steps from the run along the gradient that a report holds.
    tolerances : tuple of float
        Relative errors up to which a property is "ok", and beyond which it is "meaningless"; in between it is "biased".
    seed : int
        Of all random vectors.
    progress : bool or callable, optional
        True shows a bar.

    Returns
    -------
    Critique
        With the rows

        - ``trace``, ``frobenius_norm``, ``spectral_norm``, ``smallest_eigenvalue``, in units of an eigenvalue;
        - ``frobenius_error``: the Frobenius norm of the difference, from products with random signs, over that of the matrix;
        - ``negative_mass``: share of eigenvalues below the noise floor, ``effective_dimension``: the sum of ``x / (x + damping)`` over
          the positive ones, ``num_outliers``: isolated eigenvalues, and of the approximation what lies half-way out to
          those of the matrix, or further;
        - ``wasserstein`` and ``kolmogorov``: distances of the spectra, ``top_subspace_overlap``: mean squared cosine of the leading
          subspaces;
        - ``newton_step_cosine[damping]``: cosine between ``(A + damping)^{-1} g`` of both; the last column is that of the plain gradient;
        - ``predicted_decrease``: of the loss by the approximation's own quadratic model, beside the actual one of its step;
        - ``loss_decrease``: of its step, beside that of the matrix's step; the last column is a gradient step of the best length.

        Both may be negative. Where the gradient lies in few leading eigenvectors, which are spread over many parameters, the entries
        of a diagonal are far below the curvature along the gradient, and below any damping that suits the matrix: the step is about
        the gradient over the damping, too long by the ratio of that curvature to the damping, and from a ratio of two on the loss
        rises. That is so for the exact diagonal as well; the note of the row says which of curvature and third-order terms it is.

        The entries of an estimated diagonal have a sampling error, for random signs as large as the row of the matrix over the root of
        the number of products. Its Frobenius norm is without that noise; the intervals of the other rows hold it.

        The last column is what a diagonal (or blocks) would show if the eigenvectors were random (Haar): see
        `linop_spectra.approximations.haar_null`. An approximation carries information where it beats that.

    Raises
    ------
    ValueError
        When an argument is wrong, an order does not fit, or a matrix is not Hermitian.

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.approximations import approximate, critique
    >>> q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((200, 200)))
    >>> A = (q / np.arange(1, 201)) @ q.T
    >>> table = critique((A + A.T) / 2, approximate((A + A.T) / 2, "diagonal"))
    >>> [(row.property, row.verdict) for row in table.rows[:4]]
    [('trace', 'ok'), ('frobenius_norm', 'meaningless'), ('frobenius_error', 'meaningless'), ('spectral_norm', 'meaningless')]
    """
    began = time.perf_counter()
    objective = A if isinstance(A, Objective) else getattr(A, "objective", None)
    operator = matrix_of(A, matrix, "critique")
    n, before = operator.shape[0], operator.num_matvecs
    approximations = _named(approximation, n, lambda kind: approximate(A, kind, matrix=None if kind in OF_AN_OBJECTIVE else matrix))
    check_count("num_steps", num_steps)
    check_count("num_pairs", num_pairs)
    if num_probes != "auto":
        check_count("num_probes", num_probes)
    along_gradient = truth.along_gradient if isinstance(truth, CurvatureReport) else None
    density = truth.density if isinstance(truth, CurvatureReport) else truth
    if density is not None and density.dimension != n:
        raise ValueError(
            f"The argument truth is the spectral density of a matrix of order {density.dimension}, but this one has order {n}."
        )
    if not (len(tolerances) == 2 and 0 <= tolerances[0] <= tolerances[1]):
        raise ValueError(f"The argument tolerances must be two relative errors in ascending order, but is {tolerances!r}.")
    given = None if dampings is None else tuple(check_damping(damping) for damping in dampings)
    if given == ():
        raise ValueError("The argument dampings is empty; pass at least one, or leave it out.")
    with ProgressBar(progress, 2 + len(approximations), "critique", unit="stage") as bar:
        measured = measure(
            operator, num_steps=num_steps, num_probes=num_probes, num_pairs=num_pairs, resolution=tolerances[0], seed=seed,
            density=density, along_gradient=along_gradient,
        )  # fmt: skip
        bar.advance()
        steps, notes = _steps(measured, objective, gradient, loss, given, seed)
        others = [name for name, own in approximations.items() if getattr(own, "kind", "") in _OF_GAUSS_NEWTON]
        if others and isinstance(operator, HessianOperator):
            verb = "stands" if len(others) == 1 else "stand"
            notes = (*notes, f"{', '.join(others)} {verb} for the Gauss-Newton matrix, but the matrix is the Hessian; see matrix='ggn'")
        for name, own in approximations.items():
            if (noise := noise_of(own)) is not None:
                notes = (*notes, f"{name} {noise.sentence()}")
        probes = probe_products(measured.operator, n if measured.exact is not None else _ERROR_PROBES, seed)
        bar.advance()
        rows: list[CritiqueRow] = []
        for name, own in approximations.items():
            rows += rows_of(
                measured, name, own, steps, probes, num_steps=num_steps, num_probes=num_probes, seed=seed, tolerances=tolerances
            )
            bar.advance()
    return Critique(
        tuple(rows), n, operator.num_matvecs - before, time.perf_counter() - began, (*measured.notes, *notes)
    )


def _named(approximation: Any, n: int, make: Callable[[Any], LinearOperator]) -> dict[str, LinearOperator]:
    """Approximations by name; `make` makes those that are given by their kind."""
    if isinstance(approximation, Mapping):
        named = {str(name): value for name, value in approximation.items()}
    elif isinstance(approximation, list | tuple) and np.ndim(approximation[:1]) != 2:
        named = {}
        for value in approximation:
            kind = value if isinstance(value, str) else getattr(value, "kind", type(value).__name__)
            named[kind if kind not in named else f"{kind} {len(named) + 1}"] = value
    else:
        named = {approximation if isinstance(approximation, str) else getattr(approximation, "kind", "approximation"): approximation}
    if not named:
        raise ValueError("The argument approximation is empty; pass at least one operator.")
    operators = {}
    for name, value in named.items():
        own = make(value) if isinstance(value, str) else aslinearoperator(value)
        if own.shape != (n, n):
            raise ValueError(f"The approximation {name!r} has shape {own.shape}, but the matrix has shape {(n, n)}.")
        require_hermitian(own, f"critique of {name!r}")
        operators[name] = own
    return operators


def _steps(
    truth: Truth, objective: Objective | None, gradient: Any, loss: Loss | None, given: tuple[float, ...] | None, seed: int
) -> tuple[Steps, tuple[str, ...]]:
    operator, notes = truth.operator, []
    backend = operator.backend
    if gradient is not None:
        right = backend.asarray(gradient, dtype=operator.dtype)
        if tuple(right.shape) != (truth.order,):
            raise ValueError(f"The argument gradient must have shape ({truth.order},), but has shape {tuple(right.shape)}.")
    elif objective is not None:
        right = backend.asarray(objective.gradient(), dtype=operator.dtype)
    else:
        right = backend.probes(truth.order, (0,), kind="normal", seed=seed, domain="critique gradient", dtype=operator.dtype)[0, :]
        notes.append("Newton steps are for a random right side, because there is no gradient")
    if not float(np.real(backend.fetch([backend.norm(right)])[0])) > 0:
        right = backend.probes(truth.order, (0,), kind="normal", seed=seed, domain="critique gradient", dtype=operator.dtype)[0, :]
        notes.append("Newton steps are for a random right side, because the gradient is zero")
        loss = objective = None
    positive = truth.operator.positive_semidefinite
    lift = 0.0 if positive else 2 * max(0.0, -(truth.smallest.value - truth.smallest.quadrature_error))
    scale = truth.spectral_norm.value or 1.0
    dampings = given if given is not None else tuple(lift + share * scale for share in _DAMPINGS)
    if given is None and lift > truth.floor:
        notes.append(f"dampings hold {lift:.3g}, twice the most negative curvature, beside their share of the norm")
    found = tuple(truth.newton_step(right, damping) for damping in dampings)
    if loss is None and objective is not None:
        loss = _loss_of(objective)
    curvature = float(np.real(backend.fetch([backend.dot(right, operator @ right)])[0]))
    return Steps(right, dampings, found, loss, curvature), tuple(notes)


def _loss_of(objective: Objective) -> Loss:
    theta = objective.parameters()

    def loss(step: Array) -> float:
        try:
            return objective.with_parameters(theta + step).value()
        except NonFiniteLossError:
            return math.nan

    return loss
