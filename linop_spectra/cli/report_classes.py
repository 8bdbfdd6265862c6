"""Section of the report on a classifier: the spectra of H, G and G's parts by classes, and the means of the classes."""

from __future__ import annotations

import functools
import math
import types
from typing import Any

import numpy as np

from .._progress import Progress
from ..plots.style import new_axes, new_figure
from .report_page import Section
from .report_work import Work, portion

MOST_CLASSES = 20
"""Classes up to which the means of all pairs are measured: each pair is a product with the transposed Jacobian."""
_TOP = 12
_RUNS = 0.97
"""Share of the section that the spectra take."""


def classes_section(work: Work, section: Section, progress: Progress) -> None:
    """Decomposition of the spectra by classes; for other objectives a sentence that says why it is not there."""
    objective = work.objective
    assert objective is not None
    try:
        structure = objective.class_structure()
    except (TypeError, ValueError) as error:
        why = objective.functions.gauss_newton_refusal or work.sentence(error)
        section.leave_out("the class structure", f"It is that of a classifier with softmax cross-entropy. {why}")
        return
    classes = structure.num_classes
    _class_table(work, section, structure)
    if not work.extent.classes:
        section.num_matvecs += classes
        section.leave_out("the decomposition of the spectra and the map of the class means", "They are measured without --quick.")
        return
    pairs = classes <= MOST_CLASSES
    found = work.attempt(section, "the decomposition of the spectra", lambda: _decompose(work, structure, pairs, progress))
    if found is None:
        return
    section.num_matvecs += found.num_matvecs + found.num_marker_products
    _show(work, section, found, structure)
    if not pairs:
        why = f"There are {classes**2:,} pairs of {classes} classes; linop_spectra.plots.class_means measures them."
        section.leave_out("the map of the class means", why)
        return
    _draw_means(work, section, structure)
    if callable(progress):
        progress(1000, 1000)


def _decompose(work: Work, structure: Any, pairs: bool, progress: Progress) -> Any:
    """All spectra; what the sections before have measured is taken over."""
    from ..curvature.decomposition import decomposition

    measured = ((work.target.matrix or "", work.density), ("ggn", work.gauss_newton))
    known = {name: density for name, density in measured if density is not None}
    return decomposition(
        structure.objective, num_steps=work.more_steps, num_probes=work.probes, cross_class_means=pairs, known=known, structure=structure,
        low_rank_parts="gram", seed=work.seed, progress=portion(progress, 0, _RUNS),
    )  # fmt: skip


def _class_table(work: Work, section: Section, structure: Any) -> None:
    weights = structure.cross_class_weights
    energies = np.diag(structure.gram("A1"))
    rows = []
    for c in range(structure.num_classes):
        others = np.where(np.arange(structure.num_classes) == c, -1.0, weights[c])
        total, w = float(weights[c].sum()), float(structure.class_weights[c])
        rows.append(
            (c, int(structure.counts[c]), float(weights[c, c]) / total if total else None, int(np.argmax(others)) if total else None, w,
             float(np.sqrt(max(energies[c], 0.0) / w)) if w > 0 else None, float(energies[c]))
        )  # fmt: skip
    section.table(
        "classes", ("class", "examples", "mean probability of the class", "most confused with", "weight w", "norm of the mean g", "w |g|²"),
        rows, "Classes: the part A₁ of the Gauss-Newton matrix is the sum of w g gᵀ over them",
    )  # fmt: skip


def _show(work: Work, section: Section, found: Any, structure: Any) -> None:
    earlier = [name for name in ("hessian", "ggn") if found[name] in (work.density, work.gauss_newton)]
    total = found["ggn"].trace().value
    rows = []
    exact = ("A1", "A2", "B1") if "A1+A2+B1" in found.markers else ("A1", "A2")
    for name, density in found.items():
        if name in exact:
            values = structure.spectrum(name)
            own, ends, how = (math.fsum(values),) * 3, (0.0, float(values[-1])), "inner products, exact"
        else:
            trace = density.trace()
            own, ends = (trace.value, *trace.confidence_interval(0.95)), (float(density.nodes[0]), float(density.nodes[-1]))
            how = "from above" if name in earlier else f"{density.num_steps} steps"
        rows.append((found.titles[name], *own, own[0] / total if total else None, *ends, how))
    section.text(
        "For softmax cross-entropy the Hessian is H = G + (H − G), and the Gauss-Newton matrix G the sum of four parts: A₁, the means of "
        "the classes; A₂, the means towards the right class; B₁, the spread of the means of pairs of classes; B₂, the spread of the "
        "examples around these (Papyan, 2020). Where an outlier of G stands above a marker, the class means account for it. "
        f"All parts are measured on all {structure.objective.num_examples:,} examples."
    )
    section.table(
        "decomposition", ("matrix", "trace", "low", "high", "share of the trace of G", "smallest", "largest", "how"), rows,
        f"Spectra of H and its parts: {found.num_matvecs:,} products, and {found.num_marker_products:,} with the transposed Jacobian for "
        "the inner products of the means",
    )  # fmt: skip
    columns = {found.titles.get(name, name): found[name].nodes[::-1] for name in ("hessian", "ggn")}
    columns |= {f"{name}, inner products": values[::-1] for name, values in found.markers.items()}
    count = min(_TOP, *(len(values) for name, values in columns.items() if "A1+A2+B1" not in name))
    section.table(
        "largest_eigenvalues", ("place", *columns),
        [(place + 1, *(float(values[place]) if place < len(values) else None for values in columns.values())) for place in range(count)],
        "Largest eigenvalues: those of H and G by Lanczos, those of the parts from inner products of the class means",
    )  # fmt: skip
    for note in found.notes:
        section.text(note, "note")

    def draw() -> None:
        for name in found:
            section.picture(
                functools.partial(_panels, found, name), f"Spectrum of the {found.titles[name]}, linear and logarithmic, with markers",
                found.titles[name],
            )  # fmt: skip

    work.attempt(section, "the figures of the decomposition", draw)


def _panels(found: Any, name: str) -> Any:
    """One matrix: the linear axis above, the logarithmic one below, so that letters stay legible on a telephone."""
    from ..plots.decomposition import decomposition as draw

    one = types.SimpleNamespace(densities={name: found[name]}, titles=found.titles, markers=found.markers)
    figure = new_figure(5.4, 6.4)
    figure.set_layout_engine(None)  # fitting the margins takes as long as drawing, and these axes are all alike
    figure.subplots_adjust(left=0.15, right=0.86, top=0.95, bottom=0.08, hspace=0.28)
    axes = np.array(figure.subplots(2, 1), dtype=object).reshape(1, 2)
    draw(one, axes)
    for panel in figure.axes:
        panel.minorticks_off()
    return axes[0, 0]


def _draw_means(work: Work, section: Section, structure: Any) -> None:
    from ..plots import class_means

    try:
        import sklearn.manifold  # noqa: F401
    except ImportError:
        section.text("The map is one by classical scaling; with scikit-learn (pip install scikit-learn) it is one by t-SNE.", "note")
    work.attempt(
        section, "the map of the class means",
        lambda: section.picture(
            lambda: class_means(structure, new_axes(5.4, 4.8), seed=work.seed),
            "Map of the class means as circles with their cross-class means around them",
            "Means of the gradients by class (circles) and by pair of classes (the number of the second class), placed by their distances.",
        ),
    )  # fmt: skip
