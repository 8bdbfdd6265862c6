"""Sections of the report on what a diagonal loses, and on the loss along the leading eigenvectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._progress import Progress
from ..backends import to_numpy
from ..plots.style import new_axes
from .report_about import uses_density
from .report_page import Section
from .report_work import Work, portion

_CONVERGED = 1e-2
"""Residual over eigenvalue up to which a Ritz vector is direction enough."""
_LEAST_LOSS = 1e-2
CRITIQUE_PRODUCTS = 40
"""About what a critique takes that has a spectrum and a run along the gradient already."""


def critique_section(work: Work, section: Section, progress: Progress) -> None:
    """The diagonal as an approximation of the matrix."""
    from ..approximations import approximate, critique
    from ..approximations.critique_rows import half_width

    source: Any = work.objective if work.objective is not None else work.operator
    matrix = work.target.matrix
    cut = work.diagonal_products / (work.diagonal_products + CRITIQUE_PRODUCTS)
    diagonal = approximate(
        source, "diagonal", matrix=matrix, num_matvecs=work.diagonal_products, seed=work.seed, progress=portion(progress, 0, cut)  # type: ignore[arg-type]
    )
    work.go_on()
    found = critique(
        source, {"diagonal": diagonal}, matrix=matrix, num_steps=work.extent.steps,  # type: ignore[arg-type]
        truth=(work.curvature or work.density) if uses_density(work) else None, seed=work.seed, progress=portion(progress, cut, 1),
    )  # fmt: skip
    section.num_matvecs = found.num_matvecs + getattr(diagonal, "source_matvecs", 0)
    how = f"estimated by {diagonal.method}" if getattr(diagonal, "standard_error", None) is not None else "exact"  # type: ignore[attr-defined]
    section.text(
        f"What the matrix loses when only its diagonal is kept; the diagonal is {how}. The column \"random basis\" is what "
        "the diagonal would show if the eigenvectors were random: it carries information only where it is nearer to the matrix than that."
    )
    section.table(
        "critique", ("property", "matrix", "± 95 %", "diagonal", "diagonal ± 95 %", "relative error", "verdict", "random basis", "note"),
        [
            (row.property.replace("_", " "), row.truth.value, half_width(row.truth), row.approximation, half_width(row.estimate),
             row.relative_error, row.verdict, row.null, row.note)
            for row in found.rows
        ],
    )  # fmt: skip
    for note in found.notes:
        section.text(f"{note[:1].upper()}{note[1:]}.", "note")


def landscape_section(work: Work, section: Section, progress: Progress) -> None:
    """The loss along and across the leading eigenvectors, with the quadratic model."""
    from ..landscape import line, plane

    objective = work.objective
    assert objective is not None
    found = _leading(work, section)
    assert found.eigenvalues is not None
    span = _span(objective, float(found.eigenvalues[0]))
    points, across = work.extent.line_points, work.plane_points**2 * work.extent.plane
    cut = 2 * points / (2 * points + across)
    along = line(objective, found, np.linspace(-span, span, points), progress=portion(progress, 0, cut))
    section.data["line"] = {
        "distances": along.distances, "loss": along.loss, "quadratic": along.quadratic(), "eigenvalues": found.eigenvalues,
    }  # fmt: skip
    rows = []
    slopes, curvatures = (np.atleast_1d(np.asarray(values)) for values in (along.slope, along.curvature))
    for index, label in enumerate(along.labels):
        loss, model = np.atleast_2d(along.loss)[index], np.atleast_2d(along.quadratic())[index]
        rows.append(
            (label, float(slopes[index]), float(curvatures[index]), float(np.nanmin(loss)),
             float(np.nanmax(loss)), float(np.nanmax(np.abs(loss - model))))
        )  # fmt: skip
    section.table(
        "directions", ("direction", "slope", "curvature", "smallest loss", "largest loss", "largest distance to the quadratic model"), rows,
        f"Along unit eigenvectors, up to {span:.3g} from the model on either side",
    )  # fmt: skip
    work.attempt(
        section, "the figure of the lines",
        lambda: section.picture(
            lambda: along.plot(ax=new_axes(5.4, 3.8)), "Loss along the leading eigenvectors beside the quadratic model",
            "Loss along the leading eigenvectors, and its quadratic model.",
        ),
    )  # fmt: skip
    if not work.extent.plane or len(found) < 2:
        section.leave_out("the plane", "It is measured without --quick." if len(found) > 1 else "There is a single direction.")
        return
    work.go_on()
    t = np.linspace(-span, span, work.plane_points)
    second = min(span * math.sqrt(abs(found.eigenvalues[0] / found.eigenvalues[1])), 4 * span) if found.eigenvalues[1] else span
    surface = plane(objective, found, xs=t, ys=t * second / span, progress=portion(progress, cut, 1))
    section.data["plane"] = {"xs": surface.xs, "ys": surface.ys, "loss": surface.loss}
    work.attempt(
        section, "the figure of the plane",
        lambda: section.picture(
            lambda: surface.plot(ax=new_axes(5.4, 4.2)), "Level lines of the loss over the plane of the two leading eigenvectors",
            "Loss over the plane of the two leading eigenvectors; dashed is the quadratic model.",
        ),
    )  # fmt: skip


def _leading(work: Work, section: Section) -> Any:
    """The two leading eigenvectors: Ritz vectors of the run where they have converged, else from a search."""
    from ..landscape.directions import Directions, directions

    assert work.objective is not None
    count = min(2, work.order)
    run = None if work.density is None else work.density.run
    if run is not None and run.counts_eigenvalues and run.vectors is not None and run.vectors.bases:
        from ..krylov.tridiagonal import ritz

        values, small = ritz(*run.jacobi(0))
        residuals = np.asarray(run.residual_norms[0])[: len(values)]
        places = [len(values) - 1 - index for index in range(min(count, len(values)))]
        good = len(places) == count and all(residuals[place] <= _CONVERGED * abs(values[place]) for place in places)
        if good:
            columns = np.asarray(to_numpy(run.vectors.bases[0].combine(small.T[places]))).T
            vectors = np.ascontiguousarray(columns / np.linalg.norm(columns, axis=0), dtype=work.objective.dtype)
            labels = tuple(f"λ = {values[place]:.4g}" for place in places)
            return Directions(vectors, labels, "eigenvectors", np.asarray(values[places], dtype=np.float64))
    found = directions(work.objective, "top", count, operator=work.operator, seed=work.seed, tol=1e-4)
    section.num_matvecs += found.num_matvecs
    return found


def _span(objective: Any, curvature: float) -> float:
    """Twice the distance at which the quadratic model adds as much as the loss is, at most the length of the parameters."""
    length = float(np.linalg.norm(to_numpy(objective.parameters())))
    loss = abs(objective.value())
    reach = 2 * math.sqrt(2 * max(loss, _LEAST_LOSS) / curvature) if curvature > 0 else math.inf
    return min(reach, max(length, 1.0)) if math.isfinite(reach) else max(0.1 * length, 0.1)
