"""Rank correlation of flatness with the generalisation gap, over checkpoints."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ... import estimators
from ..._progress import Progress, ProgressBar
from ...backends import to_numpy
from ...results import PathLike, html_table, register, save_result
from ..objective import Objective
from . import extremes, sharpness, signs, sums
from .flatness import fisher_rao_norm
from .shared_run import SharedRun
from .source import require_objective

PERMUTATIONS = 9_999


@dataclasses.dataclass(frozen=True)
class CorrelationRow:
    """One measure over all checkpoints.

    Attributes
    ----------
    measure : str
        Name; ``"... of the diagonal"`` is the same function of the diagonal of the Hessian.
    correlation : float
        Spearman's rank correlation with the gaps.
    p_value : float
        Chance of one at least as large in modulus if the gaps were in any order, by permutations.
    values : tuple of float
        The measure at each checkpoint.
    """

    measure: str
    correlation: float
    p_value: float
    values: tuple[float, ...]


@register("flatness correlation")
@dataclasses.dataclass(frozen=True, eq=False)
class FlatnessCorrelation:
    """Rank correlations of flatness measures with the generalisation gap; prints as a table.

    Attributes
    ----------
    rows : tuple of CorrelationRow
        By falling modulus of the correlation.
    gaps : tuple of float
        Generalisation gap of each checkpoint.
    omitted : dict of str to str
        Measures that could not be computed at some checkpoint, and why.
    num_matvecs : int
        Products.
    seconds : float
        Wall-clock time.
    """

    rows: tuple[CorrelationRow, ...]
    gaps: tuple[float, ...]
    omitted: dict[str, str]
    num_matvecs: int
    seconds: float

    def __getitem__(self, measure: str) -> CorrelationRow:
        for row in self.rows:
            if row.measure == measure:
                return row
        raise KeyError(f"There is no measure {measure!r}; there are {', '.join(row.measure for row in self.rows)}.")

    def __str__(self) -> str:
        width = max([7, *(len(row.measure) for row in self.rows)])
        lines = [f"{'measure':{width}s} {'correlation':>11s} {'p':>8s}"]
        lines += [f"{row.measure:{width}s} {row.correlation:11.3f} {row.p_value:8.2g}" for row in self.rows]
        return "\n".join(lines + [f"left out: {name}: {why}" for name, why in self.omitted.items()])

    def _repr_html_(self) -> str:
        return html_table([(row.measure, f"{row.correlation:.3f} (p = {row.p_value:.2g})") for row in self.rows])

    def save(self, path: PathLike) -> None:
        """Write the table to `path` (``.npz``); `linop_spectra.load` reads it back."""
        rows = [dataclasses.asdict(row) for row in self.rows]
        scalars = {"gaps": list(self.gaps), "omitted": self.omitted, "num_matvecs": self.num_matvecs, "seconds": self.seconds}
        save_result(path, "flatness correlation", {"rows": rows, **scalars}, {})

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> FlatnessCorrelation:
        rows = tuple(CorrelationRow(**{**row, "values": tuple(row["values"])}) for row in scalars["rows"])
        return cls(rows, tuple(scalars["gaps"]), scalars["omitted"], scalars["num_matvecs"], scalars["seconds"])


def flatness_correlation(
    checkpoints: Sequence[Objective],
    gaps: Any,
    *,
    radius: float = 0.05,
    num_steps: int = 32,
    diagonal_matvecs: int = 100,
    seed: int = 0,
    progress: Progress = None,
) -> FlatnessCorrelation:
    """Rank correlation of each flatness measure, and of its proxy by the diagonal of the Hessian, with the generalisation gap.

    Pitfall: a few checkpoints of one run are ordered by time, and whatever changes with time correlates with the gap. Vary what should
    matter. Its p-values are about the checkpoints and not about the examples of the data, whose sampling is in none of the numbers.

    Parameters
    ----------
    checkpoints : sequence of Objective
        At least three, such as ``objective.with_parameters(...)``.
    gaps : array
        Generalisation gap of each, or any other number, shape (checkpoints,).
    radius : float
        Of the sharpness measures, in units of the parameters.
    num_steps : int
        Lanczos steps of each run.
    diagonal_matvecs : int
        Products for each diagonal, which is exact for so few parameters.
    seed : int
        Of the probes, the same at every checkpoint, and of the permutations.
    progress : bool or callable, optional
        True shows a bar of checkpoints.

    Returns
    -------
    FlatnessCorrelation
        A row for each measure.

    Raises
    ------
    ValueError
        When there are fewer than three checkpoints, another number of gaps, or gaps that are all equal or not finite.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature import metrics
    >>> objectives = [ls.objective(torch.nn.Linear(2, 1), "mse", (s * torch.eye(2), torch.ones(2, 1))) for s in (1.0, 2.0, 3.0, 4.0)]
    >>> found = metrics.flatness_correlation(objectives, [1, 2, 3, 4])  # sharper objectives have larger gaps
    >>> round(found["trace"].correlation, 6), round(found["trace of the diagonal"].correlation, 6)
    (1.0, 1.0)
    """
    began = time.perf_counter()
    given = np.asarray(gaps, dtype=np.float64)
    objectives = [require_objective(one, "flatness correlation") for one in checkpoints]
    if len(objectives) < 3 or given.shape != (len(objectives),) or not np.isfinite(given).all():
        raise ValueError(
            f"The argument gaps must be one finite number for each of at least three checkpoints, but there are {len(objectives)} "
            "checkpoints and gaps of "
            f"shape {given.shape}."
        )
    if np.ptp(given) == 0:
        raise ValueError("All gaps are equal, so that there is no order to correlate with.")
    table: dict[str, list[float]] = {}
    omitted: dict[str, str] = {}
    spent = 0
    with ProgressBar(progress, len(objectives), "flatness", unit="checkpoint") as bar:
        for objective in objectives:
            products, measured = _measures(objective, radius, num_steps, diagonal_matvecs, seed, omitted)
            spent += products
            for name, value in measured.items():
                table.setdefault(name, []).append(value)
            bar.advance()
    rows = [
        _row(name, np.array(values), given, seed)
        for name, values in table.items()
        if len(values) == len(objectives) and name not in omitted
    ]
    rows.sort(key=lambda row: -abs(row.correlation) if math.isfinite(row.correlation) else 1.0)
    return FlatnessCorrelation(tuple(rows), tuple(given.tolist()), omitted, spent, time.perf_counter() - began)


def _measures(
    objective: Objective, radius: float, num_steps: int, diagonal_matvecs: int, seed: int, omitted: dict[str, str]
) -> tuple[int, dict[str, float]]:
    n = objective.num_parameters
    shared = SharedRun.of(objective, num_steps=min(num_steps, n), seed=seed)
    S, damping = shared.density, 1 / objective.num_examples
    adaptive = sharpness.adaptive_hessian(objective)
    diagonal = estimators.diagonal(objective.hessian(), num_matvecs=diagonal_matvecs, seed=seed)
    entries = np.asarray(to_numpy(diagonal.value), dtype=np.float64)
    squares = np.asarray(to_numpy(objective.parameters()), dtype=np.float64) ** 2
    positive = np.maximum(entries, 0.0)
    spent = [shared.num_matvecs, diagonal.num_matvecs]

    def counted(metric: Any) -> float:
        spent.append(metric.num_matvecs)
        return float(metric.value)

    measures: dict[str, Callable[[], float]] = {
        "trace": lambda: sums.trace(S).value,
        "largest_eigenvalue": lambda: extremes.largest_eigenvalue(S).value,
        "frobenius_norm": lambda: sums.frobenius_norm(S).value,
        "effective_dimension": lambda: sums.effective_dimension(S, damping=damping).value,
        "negative_energy": lambda: signs.negative_energy(S).value,
        "gradient_norm": lambda: shared.gradient_norm,
        "worst_case_sharpness": lambda: sharpness.worst_case_sharpness(shared, radius).value,
        "sam_sharpness": lambda: sharpness.sam_sharpness(objective, radius).value,
        "adaptive_sharpness_worst": lambda: counted(
            extremes.largest_eigenvalue(adaptive, num_steps=min(num_steps, n), num_probes=1, seed=seed)
        ),
        "fisher_rao_norm": lambda: counted(fisher_rao_norm(objective)),
        "parameter_norm": lambda: math.sqrt(float(squares.sum())),
        "trace of the diagonal": lambda: float(entries.sum()),
        "largest_eigenvalue of the diagonal": lambda: float(entries.max()),
        "frobenius_norm of the diagonal": lambda: float(np.linalg.norm(entries)),
        "effective_dimension of the diagonal": lambda: float((positive / (positive + damping)).sum()),
        "negative_energy of the diagonal": lambda: float(np.maximum(-entries, 0).sum() / np.abs(entries).sum()),
        "adaptive_sharpness_worst of the diagonal": lambda: float((squares * entries).max()),
        "adaptive_sharpness_average": lambda: float((squares * entries).sum()),
    }
    found = {}
    for name, measure in measures.items():
        try:
            value = measure()
        except (ValueError, TypeError) as error:
            omitted[name] = str(error)
            continue
        if math.isfinite(value):
            found[name] = value
        else:
            omitted[name] = f"It is {value} at a checkpoint."
    return sum(spent), found


def _row(name: str, values: np.ndarray, gaps: np.ndarray, seed: int) -> CorrelationRow:
    from scipy import stats

    if np.ptp(values) == 0:
        return CorrelationRow(name, float("nan"), 1.0, tuple(values.tolist()))
    first, second = stats.rankdata(values), stats.rankdata(gaps)

    def correlation(order: np.ndarray) -> float:
        return float(np.corrcoef(order, second)[0, 1])

    found = stats.permutation_test(
        (first,),
        correlation,
        permutation_type="pairings",
        n_resamples=PERMUTATIONS,
        alternative="two-sided",
        rng=np.random.default_rng(seed),
    )
    return CorrelationRow(name, float(found.statistic), float(found.pvalue), tuple(values.tolist()))


__all__ = ["CorrelationRow", "FlatnessCorrelation", "flatness_correlation"]
