"""The spectrum of one operator: bulk as a density with its band, outliers as sticks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .style import BULK, LARGE, NORMAL, OUTLIER, SMALL, TEXT, UNRESOLVED, dress, new_axes, number, percent, thin_log_ticks
from .view import View

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def spectrum(
    result: Any,
    ax: Axes | None = None,
    *,
    title: str | None = None,
    confidence: float = 0.95,
    xscale: str = "auto",
    legend: bool = True,
    view: View | None = None,
) -> Axes:
    """Draw a spectrum with its error bars.

    The bulk is a density (blue, logarithmic axis on the left) inside its confidence band. Each outlier is a stick (orange) at
    its eigenvalue, as high as its share of the eigenvalues (axis on the right); its residual and the noise floor, which rounding
    adds, are a horizontal error bar. Converged isolated eigenvalues within the bulk are open circles.
    Eigenvalues smaller than the noise floor have no known sign: that zone is grey. The density axis ends where less than one
    eigenvalue would lie in the whole bulk.

    Parameters
    ----------
    result : SpectralDensity
        What to draw; only its public attributes are used.
    ax : matplotlib.axes.Axes, optional
        Where to draw; axes of a new figure by default.
    title : str, optional
        First line of the title; by default dimension, steps and probes.
    confidence : float
        Level of the band.
    xscale : str
        ``"linear"``; ``"asinh"``, which is linear near zero and logarithmic far out; ``"auto"`` takes the second where the
        outliers lie far outside the bulk.
    legend : bool
        Whether to add a legend.
    view : View, optional
        Scales and limits, to draw several spectra alike; by default those that fit `result`.

    Returns
    -------
    matplotlib.axes.Axes
        The axes; ``ax.figure.savefig(path)`` writes the picture.

    Raises
    ------
    ImportError
        When matplotlib is not installed.
    """
    if ax is None:
        ax = new_axes()
    if view is None:
        view = View.of(result, xscale)
    dress(ax)
    view.apply(ax)
    _draw_unresolved(ax, result, view)
    _draw_bulk(ax, result, view, confidence)
    right = _draw_outliers(ax, result, view)
    thin_log_ticks(ax, *([] if right is None else [right]))
    ax.set_xlabel("eigenvalue λ", fontsize=NORMAL, color=TEXT)
    ax.set_ylabel("density of the bulk", fontsize=NORMAL, color=BULK)
    if right is not None:
        right.set_ylabel("share of one outlier", fontsize=NORMAL, color=OUTLIER)
    _write_title(ax, result, title)
    if legend:
        handles, labels = ax.get_legend_handles_labels()
        if right is not None:
            more = right.get_legend_handles_labels()
            handles, labels = handles + more[0], labels + more[1]
        # The twin axes lie on top, so the legend belongs to them to stay above the sticks.
        (right or ax).legend(handles, labels, fontsize=SMALL, loc="upper right", framealpha=0.9, edgecolor="none")
    return ax


def _draw_bulk(ax: Axes, result: Any, view: View, confidence: float) -> None:
    x = view.grid(result)
    density = np.asarray(result.density(x, outliers=False), dtype=float)
    low, high = (np.asarray(side, dtype=float) for side in result.density_band(x, confidence=confidence))
    floor = view.bottom
    ax.fill_between(
        x, np.maximum(low, floor), np.maximum(high, floor), color=BULK, alpha=0.25, linewidth=0,
        label=f"{100 * confidence:g} % band", gid="band",
    )
    ax.plot(x, np.where(density >= floor, density, np.nan), color=BULK, linewidth=1.4, label="bulk", gid="bulk")


def _draw_outliers(ax: Axes, result: Any, view: View) -> Axes | None:
    outliers = result.outliers()
    if not outliers:
        return None
    right = ax.twinx()
    right.set_yscale("log")
    right.set_ylim(view.bottom, view.top)
    for side in ("top", "left", "bottom"):
        right.spines[side].set_visible(False)
    right.spines["right"].set_color(OUTLIER)
    right.tick_params(labelsize=SMALL, colors=OUTLIER, which="both")
    values = np.array([outlier.value for outlier in outliers])
    weights = np.array([outlier.weight for outlier in outliers])
    errors = np.array([outlier.residual_norm for outlier in outliers]) + float(result.noise_floor)
    right.vlines(values, view.bottom, weights, color=OUTLIER, linewidth=1.2, gid="outliers")
    right.errorbar(
        values, weights, xerr=errors, fmt="o", markersize=3.5, color=OUTLIER, ecolor=OUTLIER, elinewidth=1.0, capsize=2.5,
        label=f"{len(values)} outlier{'s' if len(values) != 1 else ''} ± error", gid="errors",
    )
    return right


def _draw_unresolved(ax: Axes, result: Any, view: View) -> None:
    floor = float(result.noise_floor)
    if floor > 0 and view.limits[0] < floor and view.limits[1] > -floor:
        ax.axvspan(
            -floor, floor, facecolor=UNRESOLVED, edgecolor=UNRESOLVED, alpha=0.4, linewidth=0.8, gid="unresolved",
            label=f"sign unresolved: |λ| < {number(floor, 2)}",
        )


def _write_title(ax: Axes, result: Any, title: str | None) -> None:
    probes = f"{result.num_probes} probe{'s' if result.num_probes != 1 else ''}"
    run = f"n = {result.dimension:,}, {result.num_steps} steps, {probes}"
    if result.status != "complete":
        run += f" ({'time budget spent' if result.status == 'time budget' else result.status})"
    low, high = result.negative_mass()
    mass = f"negative mass {percent(low)} to {percent(high)}"
    if title is None:
        ax.set_title(f"{run}\n{mass}", fontsize=NORMAL, color=TEXT, loc="left")
    else:
        ax.set_title(f"{run}; {mass}", fontsize=SMALL, color=TEXT, loc="left")
        ax.annotate(
            title, (0, 1), xytext=(0, 18), xycoords="axes fraction", textcoords="offset points",
            fontsize=LARGE, color=TEXT, annotation_clip=False,
        )
