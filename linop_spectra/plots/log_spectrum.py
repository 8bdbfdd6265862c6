"""The spectrum on a logarithmic scale: both signs, and what is too small to be resolved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .style import BULK, LARGE, NORMAL, OUTLIER, SMALL, TEXT, UNRESOLVED, dress, new_axes, number, percent, thin_log_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Decades of density that are worth drawing, and of the axis below the noise floor.
_DECADES, _BELOW_FLOOR = 6.0, 1.0
_POINTS = 1500


def log_spectrum(result: Any, ax: Axes | None = None, *, title: str | None = None, legend: bool = True) -> Axes:
    """Draw the density of ``log10 |lambda|``, positive nodes blue and negative ones orange.

    The dark grey zone lies below the noise floor: nothing there has a sign, and the legend says how much mass it holds. In the
    light grey zone the steps of the run resolve masses, and no shape.

    Parameters
    ----------
    result : LogSpectrum
        What to draw; only its public attributes are used.
    ax : matplotlib.axes.Axes, optional
        Where to draw; axes of a new figure by default.
    title : str, optional
        Title.
    legend : bool
        Whether to add a legend.

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
    dress(ax)
    left, right = _reach(result)
    grid = np.unique(np.concatenate([np.linspace(left, right, _POINTS), result.positive, result.negative]))
    curves = [(sign, np.asarray(result.density(grid, sign)), color) for sign, color in (("positive", BULK), ("negative", OUTLIER))]
    peak = max(float(density.max()) for _, density, _ in curves) or 1.0
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(10.0**left, 10.0**right)
    ax.set_ylim(peak * 10.0**-_DECADES, 40 * peak)
    thin_log_ticks(ax)
    _shade(ax, result, 10.0**left, 10.0**right)
    for sign, density, color in curves:
        weights = getattr(result, f"{sign}_weights")
        if len(weights):
            shown = np.where(density >= peak * 10.0**-_DECADES, density, np.nan)
            share = percent(float(np.sum(weights)))
            ax.plot(10.0**grid, shown, color=color, linewidth=1.4, gid=sign, label=f"{sign} nodes: {share}")
    ax.set_xlabel("modulus of the eigenvalue |λ|", fontsize=NORMAL, color=TEXT)
    ax.set_ylabel("share of eigenvalues per decade", fontsize=NORMAL, color=TEXT)
    if title is not None:
        ax.set_title(title, fontsize=LARGE, color=TEXT, loc="left")
    if legend and ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=SMALL, loc="upper left", framealpha=0.9, edgecolor="none")
    return ax


def _reach(result: Any) -> tuple[float, float]:
    """Decades that the axis shows."""
    places = np.concatenate([result.positive, result.negative])
    if len(places) == 0:  # nothing above the floor
        center = float(np.log10(result.floor)) if result.floor > 0 else 0.0
        return center - _BELOW_FLOOR, center + 3
    lowest, highest = float(places.min()), float(places.max())
    # A floor at rounding would leave the picture empty on the left: a few decades of the zone are enough.
    floor = float(np.log10(result.floor)) if result.floor > 0 else lowest
    return min(max(floor, lowest - 3), lowest) - _BELOW_FLOOR, highest + 0.5


def _shade(ax: Axes, result: Any, left: float, right: float) -> None:
    floor, resolution = float(result.floor), float(result.resolution)
    if resolution > max(floor, left):
        ax.axvspan(
            max(floor, left), min(resolution, right), facecolor=UNRESOLVED, alpha=0.18, linewidth=0, gid="unresolved shape",
            label=f"shape unresolved: |λ| < {number(resolution, 2)}",
        )
    if floor > left:
        ax.axvspan(
            left, min(floor, right), facecolor=UNRESOLVED, alpha=0.45, linewidth=0, gid="unresolved",
            label=f"sign unresolved: |λ| < {number(floor, 2)}, {percent(float(result.unresolved_mass))}",
        )
    elif result.unresolved_mass > 0:
        ax.plot([], [], " ", label=f"below {number(floor, 2)}, without a sign: {percent(float(result.unresolved_mass))}")
