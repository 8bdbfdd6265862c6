"""Curvature and trainability over the scale of the parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .style import BULK, OUTLIER, SMALL, dress, new_figure

if TYPE_CHECKING:
    import os

    from matplotlib.axes import Axes

_MARKERS = "osD^vP*X"


def curvature_over_radius(result: Any, ax: Axes) -> Axes:
    """Draw trace over Frobenius norm, and the share of positive eigenvalues in planes, over the radius.

    Parameters
    ----------
    result : GoldilocksScan
        What to draw.
    ax : matplotlib.axes.Axes
        Where to; the share has an axis of its own on the right.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    dress(ax)
    ax.set_xscale("log")
    ax.errorbar(result.radii, result.ratios, yerr=_bars(result.ratio_errors), color=BULK, marker="o", capsize=2, label="all parameters")
    label = f"planes, d = {result.plane_dimension}"
    ax.errorbar(result.radii, result.plane_ratios, yerr=_bars(result.plane_errors), color=BULK, marker="s", mfc="white", ls="--", capsize=2,
                label=label)  # fmt: skip
    ax.set_xlabel("radius (factor of the parameters)")
    ax.set_ylabel("trace / Frobenius norm", color=BULK)
    other = ax.twinx()
    other.errorbar(result.radii, result.positive_shares, yerr=_bars(result.positive_errors), color=OUTLIER, marker="^", capsize=2)
    other.set_ylabel("share of positive eigenvalues in planes", color=OUTLIER)
    other.set_ylim(0, 1)
    other.tick_params(labelsize=SMALL)
    ax.legend(fontsize=SMALL, frameon=False)
    return ax


def reached_over_radius(result: Any, ax: Axes, name: str | None = None) -> Axes:
    """Draw what training in planes reached over the radius, a line for each dimension.

    Parameters
    ----------
    result : GoldilocksScan
        What to draw.
    ax : matplotlib.axes.Axes
        Where to.
    name : str, optional
        A metric; by default the loss, on a logarithmic scale.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    from matplotlib import colormaps

    dress(ax)
    ax.set_xscale("log")
    values = result.losses if name is None else result.metrics[name]
    shades = colormaps["cividis"](np.linspace(0.05, 0.85, len(result.dimensions)))
    for j, dimension in enumerate(result.dimensions):
        shown = np.where(np.isfinite(values[:, j]), values[:, j], np.nan)
        ax.plot(result.radii, shown, color=shades[j], marker=_MARKERS[j % len(_MARKERS)], label=f"d = {dimension}")
    if name is None:
        ax.plot(result.radii, result.start_losses, color="#8C8C8C", ls=":", label="before")
        ax.set_yscale("log")
    ax.set_xlabel("radius (factor of the parameters)")
    ax.set_ylabel(f"{name or 'loss'} after {result.num_steps} steps")
    ax.legend(fontsize=SMALL, frameon=False)
    return ax


def goldilocks(result: Any, path: str | os.PathLike[str] | None = None) -> np.ndarray:
    """Draw a scan: curvature beside what training in planes reached.

    Parameters
    ----------
    result : GoldilocksScan
        What to draw.
    path : str or path, optional
        File to write to.

    Returns
    -------
    numpy.ndarray
        The axes: curvature, loss, and one for each metric.
    """
    names: list[str | None] = [None, *result.metrics]
    axes: np.ndarray = new_figure(4.6 * (1 + len(names)), 3.6).subplots(1, 1 + len(names))
    curvature_over_radius(result, axes[0])
    for ax, name in zip(axes[1:], names, strict=True):
        reached_over_radius(result, ax, name)
    if path is not None:
        axes[0].figure.savefig(path)
    return axes


def _bars(errors: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(errors), errors, 0.0)
