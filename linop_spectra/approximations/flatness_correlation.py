"""Whether measures of flatness, and the same measures of a cheap approximation, rank checkpoints as their generalisation gaps do."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from .._progress import Progress, ProgressBar
from ..backends import random_vector
from ..curvature.objective import Objective
from ..krylov.lanczos import check_count
from ..operators import LinearOperator
from ..results import PathLike, register, save_result
from .approximate import Kind, Matrix, approximate, matrix_of
from .critique_comparison import Compared
from .critique_rows import TOLERANCES, half_width
from .critique_truth import measure

MEASURES = "trace", "frobenius_norm", "spectral_norm"


@dataclasses.dataclass(frozen=True)
class RankCorrelation:
    """How one measure of flatness ranks checkpoints.

    Attributes
    ----------
    measure : str
        ``"trace"``, ``"frobenius_norm"`` or ``"spectral_norm"``; larger is sharper.
    matrix, approximation : float
        Kendall's tau between the measure and the gaps, of the matrix and of its approximation.
    matrix_p_value, approximation_p_value : float
        Probability of so large a modulus if ranks had nothing to do with each other.
    interval : tuple of float
        Of the matrix's tau: the middle 95 % of what the errors of the measured values allow.
    agreement : float
        Tau between the measures of the matrix and of the approximation: one where both rank alike, negative where the ranking inverts.
    """

    measure: str
    matrix: float
    matrix_p_value: float
    interval: tuple[float, float]
    approximation: float
    approximation_p_value: float
    agreement: float


@register("flatness correlation")
@dataclasses.dataclass(frozen=True, eq=False)
class FlatnessCorrelation:
    """Rank correlation of measures of flatness with generalisation gaps over checkpoints.

    Attributes
    ----------
    rows : tuple of RankCorrelation
        One for each measure.
    values, errors : numpy.ndarray
        Measures of the matrix, and half of their 95 % intervals, shape (number of measures, number of checkpoints).
    proxies : numpy.ndarray
        Measures of the approximation, in the same shape.
    gaps : numpy.ndarray
        Shape (number of checkpoints,).
    num_matvecs : int
        Products with the matrices, those for the approximations included.
    seconds : float
        Wall-clock time.
    """

    rows: tuple[RankCorrelation, ...]
    values: np.ndarray
    errors: np.ndarray
    proxies: np.ndarray
    gaps: np.ndarray
    num_matvecs: int
    seconds: float

    def __getitem__(self, measure: str) -> RankCorrelation:
        for row in self.rows:
            if row.measure == measure:
                return row
        raise KeyError(f"There is no measure {measure!r}; there are {', '.join(row.measure for row in self.rows)}.")

    def __str__(self) -> str:
        lines = [f"{'measure':16s} {'tau':>6s} {'95 % interval':>16s} {'p':>8s} {'approximation':>14s} {'p':>8s} {'agreement':>10s}"]
        for row in self.rows:
            low, high = row.interval
            lines.append(
                f"{row.measure:16s} {row.matrix:6.2f} {f'{low:.2f} to {high:.2f}':>16s} {row.matrix_p_value:8.3g} "
                f"{row.approximation:14.2f} {row.approximation_p_value:8.3g} {row.agreement:10.2f}"
            )
        return "\n".join(lines)

    def save(self, path: PathLike) -> None:
        """Write the numbers to `path` (``.npz``); `linop_spectra.load` reads them back."""
        arrays = {name: getattr(self, name) for name in ("values", "errors", "proxies", "gaps")}
        rows = [dataclasses.asdict(row) for row in self.rows]
        save_result(path, "flatness correlation", {"rows": rows, "num_matvecs": self.num_matvecs, "seconds": self.seconds}, arrays)

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> FlatnessCorrelation:
        rows = tuple(RankCorrelation(**{**row, "interval": tuple(row["interval"])}) for row in scalars["rows"])
        return cls(rows, num_matvecs=scalars["num_matvecs"], seconds=scalars["seconds"], **arrays)


def flatness_correlation(
    checkpoints: Sequence[Any],
    gaps: Any = None,
    *,
    held_out: Any = None,
    approximation: Kind | Callable[[Any], LinearOperator] = "diagonal",
    matrix: Matrix | None = None,
    num_steps: int = 64,
    num_probes: int | Literal["auto"] = "auto",
    num_resamples: int = 999,
    seed: int = 0,
    progress: Progress = None,
    **options: Any,
) -> FlatnessCorrelation:
    """Whether flat checkpoints generalise better, by the matrix and by a cheap approximation of it.

    Parameters
    ----------
    checkpoints : sequence of Objective or of operators
        At least five, such as ``[objective.with_parameters(path) for path in paths]``.
    gaps : array, optional
        Generalisation gap of each, shape (number of checkpoints,); larger is worse.
    held_out : data, optional
        In place of `gaps`: held-out data of objectives, whose loss minus that of the objective is the gap.
    approximation : str or callable
        A kind of `approximate`, or a function from a checkpoint to an operator.
    matrix : {"hessian", "ggn", "fisher"}, optional
        Of objectives: the Hessian by default.
    num_steps, num_probes, seed
        As for `critique`.
    num_resamples : int
        Draws of the measured values within their errors, for the intervals.
    progress : bool or callable, optional
        True shows a bar of checkpoints.
    **options
        Of `approximate`.

    Returns
    -------
    FlatnessCorrelation
        Kendall's tau (1938) for the trace, the Frobenius and the spectral norm, with exact p-values for few checkpoints. None of these
        measures is invariant under a change of parameters that leaves the function as it is (Dinh et al., 2017).

    Raises
    ------
    ValueError
        When there are fewer than five checkpoints, or the gaps do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.approximations.flatness_correlation import flatness_correlation
    >>> print(flatness_correlation([np.diag([s, 0.1]) for s in (1.0, 2.0, 3.0, 4.0, 5.0)], [0.1, 0.2, 0.3, 0.5, 0.4]))
    measure             tau    95 % interval        p  approximation        p  agreement
    trace              0.80     0.80 to 0.80   0.0833           0.80   0.0833       1.00
    frobenius_norm     0.80     0.80 to 0.80   0.0833           0.80   0.0833       1.00
    spectral_norm      0.80     0.80 to 0.80   0.0833           0.80   0.0833       1.00
    """
    began = time.perf_counter()
    sources = list(checkpoints)
    wanted = _gaps(sources, gaps, held_out)
    check_count("num_resamples", num_resamples)
    values, errors, proxies = (np.zeros((len(MEASURES), len(sources))) for _ in range(3))
    spent = 0
    with ProgressBar(progress, len(sources), "flatness", unit="checkpoint") as bar:
        for place, source in enumerate(sources):
            operator = matrix_of(source, matrix, "flatness_correlation")
            before = operator.num_matvecs
            truth = measure(
                operator, num_steps=num_steps, num_probes=num_probes, num_pairs=1, resolution=TOLERANCES[0], seed=seed, density=None
            )
            if callable(approximation):
                own = approximation(source)
            else:
                given = source if isinstance(source, Objective) else operator
                own = approximate(given, approximation, **_with(source, matrix, approximation), **options)
            other = Compared(truth, own, num_steps=num_steps, num_probes=num_probes, seed=seed)
            for line, name in enumerate(MEASURES):
                found = getattr(truth, name)
                values[line, place], errors[line, place] = found.value, half_width(found)
                proxies[line, place] = getattr(other, name)().value
            spent += operator.num_matvecs - before
            spent += getattr(own, "source_matvecs", 0) if isinstance(source, Objective) else 0
            bar.advance()
    rows = tuple(_row(name, values[i], errors[i], proxies[i], wanted, num_resamples, seed) for i, name in enumerate(MEASURES))
    return FlatnessCorrelation(rows, values, errors, proxies, wanted, spent, time.perf_counter() - began)


def _with(source: Any, matrix: str | None, kind: str) -> dict[str, Any]:
    """The choice of the matrix, for kinds that leave it open."""
    leaves = kind in ("diagonal", "scalar", "block", "low_rank", "low_rank_plus_diagonal")
    return {"matrix": matrix} if isinstance(source, Objective) and leaves else {}


def _gaps(sources: list[Any], gaps: Any, held_out: Any) -> np.ndarray:
    if len(sources) < 5:
        raise ValueError(f"The argument checkpoints holds {len(sources)}, but ranks of fewer than five say nothing; pass more.")
    if (gaps is None) == (held_out is None):
        raise ValueError("Pass either gaps=, one number for each checkpoint, or held_out=, data on which the gap is measured.")
    if gaps is None:
        if not all(isinstance(source, Objective) for source in sources):
            raise ValueError("The argument held_out needs objectives as checkpoints; pass gaps= for operators.")
        return np.array([source.with_data(held_out).value() - source.value() for source in sources])
    found = np.asarray(gaps, dtype=np.float64)
    if found.shape != (len(sources),) or not np.isfinite(found).all():
        raise ValueError(f"The argument gaps must be {len(sources)} finite numbers, one for each checkpoint, but has shape {found.shape}.")
    return found


def _tau(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Kendall's tau and its p-value; zero and one where all values of one side are equal."""
    from scipy import stats

    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0, 1.0
    found = stats.kendalltau(x, y)
    return float(found.statistic), float(found.pvalue)


def _row(
    name: str, values: np.ndarray, errors: np.ndarray, proxies: np.ndarray, gaps: np.ndarray, num_resamples: int, seed: int
) -> RankCorrelation:
    tau, p = _tau(values, gaps)
    other, other_p = _tau(proxies, gaps)
    draws = random_vector(
        num_resamples * len(values), kind="normal", seed=seed, domain=f"flatness {name}", index=0, dtype=np.dtype(float)
    ).reshape(num_resamples, -1)
    taus = [_tau(values + errors / 1.96 * draw, gaps)[0] for draw in draws] if np.any(errors > 0) else [tau]
    low, high = (float(end) for end in np.quantile(taus, [0.025, 0.975]))
    return RankCorrelation(name, tau, p, (low, high), other, other_p, _tau(values, proxies)[0])
