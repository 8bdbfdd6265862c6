"""Sections of the report on spectra, metrics and blocks."""

from __future__ import annotations

import functools
from typing import Any

from .._progress import Progress
from ..curvature.blocks import layer_of
from ..plots.style import new_axes
from ..plots.view import View
from .report_page import Section
from .report_work import LARGE, Work, portion
from .summary import summarise

_PANELS = 12
_SIZE = 5.4, 3.8
"""Inches of a figure: its letters stay legible on a telephone."""


def spectra_section(work: Work, section: Section, progress: Progress) -> None:
    """Spectrum of the matrix, and of the Gauss-Newton matrix of an objective."""
    name = work.target.matrix or "matrix"
    objective = work.objective
    follows = objective is not None and name == "hessian" and objective.functions.gauss_newton_refusal is None
    own = (work.probes + 1) * work.extent.steps + 11
    cut = own / (own + work.probes * work.more_steps) if follows else 1.0
    density = _measure(work, section, portion(progress, 0, cut))
    work.density = density
    _show(work, section, density, "Hessian" if name == "hessian" else "GGN" if name == "ggn" else "matrix", name)
    if objective is None or name != "hessian":
        return
    if objective.functions.gauss_newton_refusal is not None:
        section.leave_out("the spectrum of the Gauss-Newton matrix", objective.functions.gauss_newton_refusal)
        return
    from ..spectra import spectral_density

    ggn = work.attempt(
        section, "the spectrum of the Gauss-Newton matrix",
        lambda: spectral_density(
            objective.ggn(), num_steps=work.more_steps, num_probes=work.probes, seed=work.seed, progress=portion(progress, cut, 1)
        ),
    )  # fmt: skip
    if ggn is not None:
        work.gauss_newton = ggn
        section.num_matvecs += ggn.num_matvecs
        _show(work, section, ggn, "GGN", "ggn")


def _measure(work: Work, section: Section, progress: Progress) -> Any:
    """The spectral density: of an objective from the run that all metrics share."""
    from ..spectra import spectral_density

    steps = min(work.extent.steps, work.order)
    objective, matrix = work.objective, work.target.matrix or "hessian"
    if objective is not None:
        from ..curvature.report import curvature_report

        def report() -> Any:
            return curvature_report(
                objective, matrix=matrix, num_steps=steps, seed=work.seed, extra=work.extent.extras, progress=progress  # type: ignore[arg-type]
            )

        work.curvature = work.attempt(section, "the run that all metrics share", report)
        if work.curvature is not None:
            section.num_matvecs += work.curvature.num_matvecs
            return work.curvature.density
    density = spectral_density(work.operator, num_steps=steps, seed=work.seed, progress=progress)
    section.num_matvecs += density.num_matvecs
    return density


def _show(work: Work, section: Section, density: Any, title: str, key: str) -> None:
    """Figures and numbers of one spectrum."""
    from ..plots import log_spectrum, spectrum

    numbers = summarise(density)
    section.data[f"spectrum_{key}"] = numbers
    work.attempt(
        section, f"the figure of the {title}",
        lambda: section.picture(
            lambda: spectrum(density, new_axes(*_SIZE), title=title), f"Density of the eigenvalues of the {title} with outliers as sticks",
            f"{title}: density of the bulk with its 95 % band, outliers as sticks with error bars.",
        ),
    )  # fmt: skip
    work.attempt(
        section, f"the logarithmic figure of the {title}",
        lambda: section.picture(
            lambda: log_spectrum(density.log(), new_axes(*_SIZE), title=f"{title}, logarithmic"),
            f"Density of the moduli of the eigenvalues of the {title}, by sign",
            f"{title}, both signs on a logarithmic axis; grey is what this run does not resolve.",
        ),
    )  # fmt: skip
    for sentence in numbers["explanation"].split("\n"):
        section.text(sentence)
    trace, mass = numbers["trace"], numbers["negative_mass"]
    rows: list[tuple[str, Any, Any, Any]] = [
        ("largest eigenvalue", *_with_error(numbers["largest_eigenvalue"])),
        ("smallest eigenvalue", *_with_error(numbers["smallest_eigenvalue"])),
        ("trace", trace["value"], trace["low"], trace["high"]), ("negative mass", None, mass["low"], mass["high"]),
        ("bulk", None, *numbers["bulk_edges"]), ("noise floor", numbers["noise_floor"], None, None),
        ("Wasserstein bound", numbers["wasserstein_bound"], None, None), ("Kolmogorov bound", numbers["kolmogorov_bound"], None, None),
    ]  # fmt: skip
    section.table(f"{key}_numbers", ("quantity", "value", "low", "high"), rows, f"{title}: numbers with 95 % intervals or error bounds")
    outliers = [(one["value"], one["error"], one["weight"]) for one in numbers["outliers"]]
    if outliers:
        columns = ("eigenvalue", "error", "share of all eigenvalues")
        section.table(f"{key}_outliers", columns, outliers, f"{title}: eigenvalues outside of the bulk")


def _with_error(entry: dict[str, float]) -> tuple[float, float, float]:
    return entry["value"], entry["value"] - entry["error"], entry["value"] + entry["error"]


def metrics_section(work: Work, section: Section, progress: Progress) -> None:
    """All metrics with intervals and units."""
    if work.curvature is not None:
        found, omitted = dict(work.curvature), work.curvature.omitted
    elif work.density is not None:
        found, omitted = _of_density(work)
    else:
        raise ValueError("There is no spectrum to read metrics from.")
    section.table(
        "metrics", ("metric", "value", "low", "high", "unit", "products", "definition"),
        [(name, m.value, *m.confidence_interval(0.95), m.unit, m.num_matvecs, m.note) for name, m in found.items()],
        "95 % intervals; products are shared, each line counts those that it rests on",
    )  # fmt: skip
    for name, why in omitted.items():
        section.leave_out(name.replace("_", " "), why)
    statistics = getattr(work.curvature, "batches", None)
    if statistics is not None:
        names = (
            "batch_size", "variance", "smallest", "largest", "largest_low", "largest_high", "learning_rate_cap",
            "learning_rate_cap_momentum",
        )  # fmt: skip
        heads = (
            "batch size", "variance V_z", "smallest eigenvalue", "largest eigenvalue", "low", "high", "learning-rate cap",
            "cap at momentum 0.9",
        )  # fmt: skip
        section.table(
            "batches", heads, [[row[name] for name in names] for row in statistics.table()],
            "Hessians of single batches, predicted from the variances over the batches of the data, with the 95 % interval that these have",
        )  # fmt: skip
        _explain_kappa(work, section, found)


def _explain_kappa(work: Work, section: Section, found: dict[str, Any]) -> None:
    """What a large ratio of variances says, which looks like a mistake."""
    kappa = found["kappa_largest"].value if "kappa_largest" in found else 0.0
    if kappa > 10:
        section.text(
            f"Along the leading eigenvector the Hessian of a batch varies {kappa:,.3g} times as much as in the mean over all "
            f"{work.order:,} directions (kappa lies between 0 and that number): the noise lives in about {work.order / kappa:,.2g} "
            "directions, so that a model of isotropic noise would be far off. The table takes the variances along the eigenvectors."
        )


def _of_density(work: Work) -> tuple[dict[str, Any], dict[str, str]]:
    """The metrics of a matrix without a model, all from its spectral density."""
    from ..curvature import metrics

    found: dict[str, Any] = {}
    omitted: dict[str, str] = {}
    names = (
        "largest_eigenvalue", "smallest_eigenvalue", "spectral_norm", "trace", "frobenius_norm", "nuclear_norm", "stable_rank",
        "participation_ratio", "effective_rank", "spectral_entropy", "negative_mass", "negative_energy", "negative_ratio",
        "goldilocks_ratio",
    )  # fmt: skip
    for name in names:
        try:
            found[name] = getattr(metrics, name)(work.density)
        except (ValueError, TypeError) as error:
            omitted[name] = work.sentence(error)
    return found, omitted


def blocks_section(work: Work, section: Section, progress: Progress) -> None:
    """Layers: the table from the shared run, and the spectra of their blocks."""
    objective = work.objective
    assert objective is not None
    if work.curvature is not None and work.curvature.layers:
        section.table(
            "layers", ("layer", "parameters", "norm", "gradient norm", "trace", "low", "high", "energy", "top eigenvector"),
            [
                (row.name, row.num_parameters, row.parameter_norm, row.gradient_norm, row.trace.value, *row.trace.confidence_interval(0.95),
                 row.energy, row.top_eigenvector)
                for row in work.curvature.layers
            ],
            "Layers, without further products; energy is the share of the squared Frobenius norm, the last column that of the "
            "leading eigenvector",
        )  # fmt: skip
    if not work.extent.blocks:
        section.leave_out("the spectra of the blocks", "They are measured without --quick.")
        return
    layers = dict.fromkeys(layer_of(name) for name in objective.blocks)
    if len(layers) > work.extent.most_blocks:
        section.leave_out(
            "the spectra of the blocks",
            f"There are {len(layers)} layers, and each step would take a product for each; linop_spectra.blockwise_spectra measures them.",
        )
        return
    from ..curvature import blockwise_spectra

    blocks = blockwise_spectra(
        objective, work.target.matrix or "hessian", by="layer", num_steps=work.more_steps,  # type: ignore[arg-type]
        num_probes=1 if work.order >= LARGE else "auto", seed=work.seed, progress=progress,
    )  # fmt: skip
    section.num_matvecs += blocks.num_matvecs
    rows = []
    for name, density in blocks.items():
        (low, _), (high, _) = density.extreme_eigenvalues()
        trace = density.trace()
        rows.append((name, density.dimension, trace.value, *trace.confidence_interval(0.95), low, high, len(density.outliers())))
    section.table(
        "blocks", ("block", "order", "trace", "low", "high", "smallest eigenvalue", "largest eigenvalue", "outliers"), rows,
        f"Spectra of the diagonal blocks, {work.more_steps} steps each",
    )  # fmt: skip
    _draw_blocks(work, section, dict(list(blocks.items())[:_PANELS]))
    if len(blocks) > _PANELS:
        section.text(f"The figures show the first {_PANELS} of {len(blocks)} blocks.")


def _draw_blocks(work: Work, section: Section, shown: dict[str, Any]) -> None:
    """A figure for each block, all with the same scales and limits."""
    from ..plots import spectrum

    def draw() -> None:
        view = functools.reduce(View.union, (View.of(density) for density in shown.values()))
        for name, density in shown.items():
            section.picture(
                functools.partial(spectrum, density, new_axes(*_SIZE), title=name, view=view),
                f"Density of the eigenvalues of the block {name}", f"Block {name}; the same axes for all blocks.",
            )  # fmt: skip

    work.attempt(section, "the figures of the blocks", draw)
