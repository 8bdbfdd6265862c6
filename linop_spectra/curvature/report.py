"""One report of an objective's curvature: every metric that a shared Lanczos run and one pass over the batches give."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from .._progress import Progress
from ..krylov import LanczosResult
from ..krylov.lanczos import check_count
from ..results import PathLike, html_table, write_atomically
from ..spectra import SpectralDensity
from .matrices import HessianOperator
from .meter import Meter
from .metrics.batch_statistics import DIRECTIONS, BatchStatistics, Slopes, effects_of, measure_batches
from .metrics.batches import BatchSet, in_parts
from .metrics.catalogue import EXTRA, NOT_SAMPLED, OWN_PRODUCTS, SHARED, Context, Measure, simple_noise_scale, slopes_of
from .metrics.influence import KNOWN, BatchInfluence, standard_error
from .metrics.layers import LayerRow, layer_table, layers_of, print_layers, trace_of
from .metrics.metric import Metric, plain
from .metrics.shared_run import SharedRun
from .metrics.source import positive, require_objective
from .objective import Objective


@dataclasses.dataclass(frozen=True, eq=False)
class CurvatureReport(Mapping[str, Metric]):
    """Metrics of a curvature matrix by name, each an `Estimate` with its unit.

    Attributes
    ----------
    metrics : dict of str to Metric
        What was measured.
    omitted : dict of str to str
        What was not, and why; ``"sampling of NAME"`` for a metric whose interval lacks the sampling of the data that was asked for.
    layers : tuple of LayerRow
        The table of layers; empty where the run kept no vectors.
    batches : BatchStatistics or None
        Variances over batches, and eigenvalues by batch size.
    density : SpectralDensity
        The spectrum that the metrics were read from.
    details : dict
        Name of the matrix, sizes, steps, probes, seed.
    num_matvecs : int
        Products with the matrix of all data; those of single batches count as their share.
    seconds : float
        Wall-clock time.
    along_gradient : LanczosResult or None
        The run that was started at the gradient, from which `linop_spectra.critique` takes Newton steps.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature.report import curvature_report
    >>> _ = torch.manual_seed(0)
    >>> objective = ls.objective(torch.nn.Linear(4, 3), "cross_entropy", (torch.randn(30, 4), torch.randint(0, 3, (30,))), batch_size=10)
    >>> report = curvature_report(objective)
    >>> report["trace"].value > report["largest_eigenvalue"].value > 0
    True
    >>> report["hessian_variance"].unit
    '(loss/parameter^2)^2'
    """

    metrics: dict[str, Metric]
    omitted: dict[str, str]
    layers: tuple[LayerRow, ...]
    batches: BatchStatistics | None
    density: SpectralDensity
    details: dict[str, Any]
    num_matvecs: int
    seconds: float
    along_gradient: LanczosResult | None = dataclasses.field(default=None, repr=False)

    def __getitem__(self, name: str) -> Metric:
        if name in self.metrics:
            return self.metrics[name]
        if name in self.omitted:
            raise KeyError(f"The metric {name!r} was left out: {self.omitted[name]}")
        raise KeyError(f"There is no metric {name!r}; there are {', '.join(self.metrics)}.")

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain objects: ``metrics``, ``omitted``, ``layers``, ``batches``, ``details``."""
        return {
            "metrics": {name: metric.to_json() for name, metric in self.metrics.items()}, "omitted": dict(self.omitted),
            "layers": [row.to_json() for row in self.layers], "batches": None if self.batches is None else self.batches.to_json(),
            "details": plain(self.details), "num_matvecs": self.num_matvecs, "seconds": self.seconds,
        }  # fmt: skip

    def save(self, path: PathLike) -> None:
        """Write the report to `path` as JSON, in one step."""
        content = json.dumps(self.to_json(), indent=1, allow_nan=False).encode()
        write_atomically(path, lambda stream: stream.write(content))

    def rows(self) -> list[tuple[str, str, str, str, str, str]]:
        """Name, value, 95 % interval, unit, products and note of each metric as text."""
        out = []
        for name, metric in self.metrics.items():
            low, high = metric.confidence_interval()
            products = f"{metric.num_matvecs:,}" if metric.num_matvecs else "-"
            out.append((name, f"{metric.value:.5g}", f"{low:.5g} .. {high:.5g}", metric.unit, products, metric.note))
        return out

    def __str__(self) -> str:
        head = ("metric", "value", "95 % interval", "unit", "products", "definition")
        rows = self.rows()
        widths = [max(len(row[column]) for row in [head, *rows]) for column in range(5)]
        lines = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]).rstrip() for row in [head, *rows]
        ]
        lines += ["", *(f"left out: {name}: {why}" for name, why in self.omitted.items())]
        if self.layers:
            lines += ["", print_layers(self.layers)]
        if self.batches is not None:
            lines += ["", str(self.batches)]
        lines.append(
            f"\n{self.num_matvecs:,} products in {self.seconds:.3g} s; products are shared: each line counts those that it rests on"
        )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"CurvatureReport({len(self)} metrics, num_matvecs={self.num_matvecs})"

    def _repr_html_(self) -> str:
        from html import escape

        rows = [(name, f"{value} ({interval}) {unit if unit != '1' else ''}".strip()) for name, value, interval, unit, *_ in self.rows()]
        rows += [(name, f"left out: {why}") for name, why in self.omitted.items()]
        tables = [print_layers(self.layers)] * bool(self.layers) + [str(self.batches)] * (self.batches is not None)
        return html_table(rows) + "".join(f"<pre>{escape(table)}</pre>" for table in tables)


def curvature_report(
    obj: Objective,
    *,
    matrix: Literal["hessian", "ggn", "fisher"] = "hessian",
    num_steps: int | None = None,
    num_probes: int | Literal["auto"] = "auto",
    seed: int = 0,
    extra: Sequence[str] | Literal["all"] = (),
    sampling: bool = False,
    batches: bool = True,
    radius: float = 0.05,
    prior_precision: float = 1.0,
    memory_budget: int | float | str | None = None,
    time_budget: float | None = None,
    progress: Progress = None,
) -> CurvatureReport:
    r"""All metrics of an objective's curvature that one Lanczos run gives, started at random probes and at the gradient in lockstep.

    Parameters
    ----------
    obj : Objective
        Model, loss, parameters and data.
    matrix : {"hessian", "ggn", "fisher"}
        Which matrix.
    num_steps : int, optional
        Lanczos steps, 48 by default, or the number of parameters where that is smaller.
    num_probes : int or "auto"
        Random probes: 4 below 100,000 parameters, 1 above. The run costs ``(num_probes + 1) * num_steps`` products.
    seed : int
        Of all random numbers.
    extra : sequence of str or "all"
        What costs more: ``"residual_ratio"`` (16 products), ``"adaptive_sharpness"`` (a run of its own), ``"curvature_noise_scale"`` (5),
        ``"fisher_rao_norm"`` (1), ``"trace_ratio"`` (64), ``"laplace"`` (a run with the Gauss-Newton matrix), ``"logits"`` (a kernel of
        some examples), ``"goldilocks_planes"`` (40), ``"negative_mass"`` (nothing, but with `sampling` nine more spectra). What does not
        apply to the objective is in ``.omitted``, with the reason.
    sampling : bool
        Whether intervals also hold what the choice of the data would change, from the scatter of the batches; see the notes.
    batches : bool
        Whether to measure the variances over batches, which costs ``num_probes + 3`` products, at least 7. Data in a single batch are cut
        into 16 random parts, for this and for `sampling`.
    radius : float
        Of the balls and of the noise for the sharpness measures, in units of the parameters.
    prior_precision : float
        Of each parameter, for the effective dimension; its damping is this over the number of terms of the loss.
    memory_budget : int, float, str or None
        For the vectors; by default 40 % of the memory.
    time_budget : float, optional
        Seconds for the Lanczos run; it is then cut short, and every interval is wider.
    progress : bool or callable, optional
        True shows a bar of products.

    Returns
    -------
    CurvatureReport
        A mapping from names to estimates; it prints as a table and is saved as JSON.

    Raises
    ------
    TypeError
        When the loss has no Gauss-Newton or Fisher matrix, and that was asked for.
    ValueError
        When an argument is wrong.

    Notes
    -----
    ``kappa_largest`` and ``kappa_smallest`` compare the variance of the Hessian of a batch along an extreme eigenvector with its mean over
    all directions, which is the squared Frobenius norm of the fluctuation over the number of parameters P. They lie between 0 and P, and
    in large networks in the thousands: batches differ in about as few directions as there are large eigenvalues, so that the mean over
    all P directions is next to nothing. P / kappa is about the number of directions that the noise lives in. The model of isotropic
    noise, for which kappa is one, does not hold there; the table by batch size therefore takes the variances along the eigenvectors.

    With ``sampling=True`` every metric and the trace of every layer carries ``sampling_error``, ``bias`` and ``num_examples``, from the
    influence of each batch, to first order and with Student's t over the batches: 8 to 32 products more, and as many as there are
    eigenvalues above the gap of ``gradient_overlap``. Those of `extra` are measured again without groups of the batches, nine times the
    products on top, but ``fisher_rao_norm`` and ``laplace``, which are cheap. Exceptions are ``negative_mass``, unless it is among
    `extra`, and ``laplace_prior_precision``, the best of a list. Variances over batches, ``shrinkage``, ``kappa``, noise scales and the
    clustering of logits have standard errors by a jackknife, which are the sampling already. Where few data meet a ratio far from linear
    in the Hessian, intervals to first order are too short: see `linop_spectra.curvature.metrics.sums`.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature.report import curvature_report
    >>> objective = ls.objective(torch.nn.Linear(2, 1, bias=False).double(), "mse", (torch.eye(2).double(), torch.ones(2, 1).double()))
    >>> report = curvature_report(objective)
    >>> round(report["trace"].value, 6), round(report["largest_eigenvalue"].value, 6)
    (2.0, 1.0)
    """
    began = time.perf_counter()
    objective = require_objective(obj, "curvature report")
    names = tuple(EXTRA) if extra == "all" else tuple(extra)
    unknown = [name for name in names if name not in EXTRA]
    if unknown or (isinstance(extra, str) and extra != "all"):
        raise ValueError(f"The argument extra is {extra!r}, but must hold some of {', '.join(map(repr, EXTRA))}, or be 'all'.")
    radius, prior_precision = positive("radius", radius), positive("prior_precision", prior_precision)
    n = objective.num_parameters
    probes = (4 if n < 100_000 else 1) if num_probes == "auto" else check_count("num_probes", num_probes)
    steps = min(48, n) if num_steps is None else min(check_count("num_steps", num_steps), n)
    own_batches = batches and matrix == "hessian"
    along = (max(probes, DIRECTIONS) + 3) * own_batches + (KNOWN + (not own_batches) * (probes + 3)) * sampling
    plan = [(probes + 1) * steps, along, *(EXTRA[name][1] + EXTRA[name][2] * sampling for name in names)]
    with Meter(progress, plan, "curvature report") as meter:
        shared = SharedRun.of(
            objective,
            matrix=matrix,
            num_steps=num_steps,
            num_probes=num_probes,
            seed=seed,
            memory_budget=memory_budget,
            time_budget=time_budget,
            progress=meter.part(0),
        )
        found: dict[str, Metric] = {}
        omitted: dict[str, str] = {}
        parts = _parts(objective, seed, omitted, batches=batches, sampling=sampling)
        context = Context(
            shared, seed, radius, prior_precision, memory_budget, parts if batches else None, parts.whole if parts and sampling else None
        )
        for name, measure in SHARED.items():
            _measure(name, measure, context, found, omitted)
        slopes = _slopes(context) if context.sampled is not None else {}
        statistics = _statistics(context, slopes, omitted, meter.part(1))
        if statistics is not None:
            found.update(statistics.metrics())
        if batches:
            _measure("gradient_noise_scale", simple_noise_scale, context, found, omitted)
        effects, spent = _effects(context, slopes, statistics, parts, found, omitted, meter.part(1))
        meter.finish(1)
        for index, name in enumerate(names, start=2):
            _measure(name, EXTRA[name][0], context, found, omitted)
            meter.finish(index)
        try:
            layers = layer_table(shared)
        except ValueError as error:
            layers, omitted["layers"] = (), str(error)
    if parts is not None and effects:
        carried = {name: _carry(metric, effects, parts) for name, metric in found.items()}
        found, layers = carried, tuple(dataclasses.replace(row, trace=_carry(row.trace, effects, parts)) for row in layers)
        omitted |= {f"sampling of {name}": why for name, why in NOT_SAMPLED.items() if name in found and not found[name].num_examples}
    spent += shared.num_matvecs + sum(metric.num_matvecs for name, metric in found.items() if name in OWN_PRODUCTS)
    spent += found["negative_mass"].num_matvecs - shared.density.num_matvecs if "negative_mass" in found else 0
    details = {
        "matrix": matrix, "num_parameters": n, "num_examples": objective.num_examples, "num_steps": shared.density.num_steps,
        "num_probes": shared.density.num_probes, "seed": seed, "dtype": str(objective.dtype), "status": shared.density.status,
        "reorthogonalize": shared.density.run.reorthogonalize, "notes": list(shared.density.notes), "sampling": sampling,
    }  # fmt: skip
    return CurvatureReport(
        found, omitted, layers, statistics, shared.density, details, spent, time.perf_counter() - began, shared.along_gradient
    )


def _measure(name: str, measure: Measure, context: Context, found: dict[str, Metric], omitted: dict[str, str]) -> None:
    """Add what a measure gives, or why it gives nothing."""
    try:
        own = measure(context)
    except (ValueError, TypeError, MemoryError, ArithmeticError, RuntimeError) as error:
        # One measure that fails does not take the others, which are paid for, with it.
        if context.sampled is None:
            omitted[name] = str(error)
            return
        # Where only its sampling fails, the metric is there all the same.
        _measure(name, measure, dataclasses.replace(context, sampled=None), found, omitted)
        if name not in omitted:
            omitted[f"sampling of {name}"] = str(error)
        return
    found.update(own if isinstance(own, Mapping) else {name: own.with_changes(name=name)})


def _parts(objective: Objective, seed: int, omitted: dict[str, str], *, batches: bool, sampling: bool) -> BatchSet | None:
    """The batches that variances and sampling are by; None where there are none, and why."""
    if not batches and not sampling:
        return None
    try:
        return BatchSet.of(in_parts(objective, seed), "Hessian variance" if batches else "sampling of the data")
    except ValueError as error:
        omitted |= {name: str(error) for name, asked in (("hessian_variance", batches), ("sampling", sampling)) if asked}
        return None


def _slopes(context: Context) -> Slopes:
    """What the choice of the data does to metrics and to the traces of layers, by name."""
    layers = layers_of(context.objective)
    return {**slopes_of(context), **{trace_of(name): lambda data, own=own: data.block(own) for name, own in layers.items()}}  # type: ignore[misc]


def _statistics(context: Context, slopes: Slopes, omitted: dict[str, str], progress: Progress) -> BatchStatistics | None:
    if context.batches is None:
        return None
    if not isinstance(context.shared.operator, HessianOperator):
        omitted["hessian_variance"] = "Variances over batches are those of the Hessian; ask for matrix='hessian'."
        return None
    try:
        return measure_batches(context.shared, context.batches, slopes=slopes, memory_budget=context.memory_budget, progress=progress)
    except (ValueError, TypeError, MemoryError) as error:
        omitted["hessian_variance"] = str(error)
        return None


def _effects(
    context: Context, slopes: Slopes, statistics: BatchStatistics | None, parts: BatchSet | None, found: dict[str, Metric],
    omitted: dict[str, str], progress: Progress,
) -> tuple[dict[str, tuple[float, float]], int]:  # fmt: skip
    """Standard error and bias of metrics by the choice of the data, and the products with all data that statistics and these took."""
    spent = 0 if statistics is None else round(statistics.num_matvecs / statistics.num_batches)
    if parts is None or context.sampled is None:
        return {}, spent
    if statistics is not None:
        effects, refused = statistics.sampling, statistics.not_sampled
    else:
        try:
            influence = BatchInfluence(context.shared, parts, memory_budget=context.memory_budget, progress=progress)
        except (ValueError, TypeError, MemoryError) as error:
            omitted["sampling"] = str(error)
            return {}, spent
        effects, refused = effects_of(influence, slopes)
        spent = influence.num_matvecs
    omitted |= {f"sampling of {name}": why for name, why in refused.items() if name in found}
    return {**effects, "loss": (standard_error(parts.sizes / parts.sizes.sum(), parts.losses), 0.0)}, spent


def _carry(metric: Metric, effects: dict[str, tuple[float, float]], parts: BatchSet) -> Metric:
    """A metric with the sampling of the data where that is among the effects."""
    if metric.name not in effects:
        return metric
    error, bias = effects[metric.name]
    return metric.with_changes(
        sampling_error=error, bias=bias, sampling_degrees=float(len(parts.parts) - 1), num_examples=float(parts.examples.sum())
    )
