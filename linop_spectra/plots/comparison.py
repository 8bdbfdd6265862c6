"""Two measured spectra over each other, and the difference of their distribution functions with what chance makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .style import BULK, LARGE, NORMAL, OUTLIER, SMALL, TEXT, UNRESOLVED, dress, new_figure, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DECADES = 5.0


def spectrum_comparison(
    result: Any, axes: Sequence[Axes] | None = None, *, names: tuple[str, str] = ("a", "b"), title: str | None = None, legend: bool = True
) -> np.ndarray:
    """Draw two spectra (the first blue, the second orange and dashed) and the difference of their distribution functions.

    The left panel shows the densities of both bulks with their bands; outliers are triangles at the foot, and those beyond the axis stand
    at its end with their number. The right panel shows how many eigenvalues more, as a share, the second has below each place, inside the
    95 % band that one spectrum would give at each place.

    Parameters
    ----------
    result : SpectrumComparison
        What to draw; only ``distinguishable``, ``p_value`` and the arrays of ``curves`` are used.
    axes : sequence of two matplotlib.axes.Axes, optional
        Where to draw; axes of a new figure by default.
    names : tuple of str
        Of the two spectra, for the legend.
    title : str, optional
        Title; by default the verdict.
    legend : bool
        Whether to add legends.

    Returns
    -------
    numpy.ndarray
        The two axes.

    Raises
    ------
    ImportError
        When matplotlib is not installed.
    ValueError
        When the number of axes is not two.
    """
    if axes is None:
        panels = new_figure(10.4, 4.2).subplots(1, 2, width_ratios=[3, 2])
    else:
        panels = np.array(axes, dtype=object).ravel()
        if len(panels) != 2:
            raise ValueError(f"The argument axes holds {len(panels)} axes, but the figure of a comparison has two panels.")
    left, right = panels
    for panel in panels:
        dress(panel)
    _draw_densities(left, result.curves, names)
    _draw_difference(right, result.curves, names)
    verdict = "different" if result.distinguishable else "not distinguishable"
    p = f"p = {number(result.p_value, 2)}" if result.p_value >= 1e-4 else "p < 10⁻⁴"
    left.set_title(title if title is not None else f"{verdict}, {p}", fontsize=LARGE, color=TEXT, loc="left")
    if legend:
        left.legend(fontsize=SMALL, loc="upper right", framealpha=0.9, edgecolor="none")
        right.legend(fontsize=SMALL, loc="upper right", framealpha=0.9, edgecolor="none")
    return panels


def _draw_densities(ax: Axes, curves: Any, names: tuple[str, str]) -> None:
    x = curves["x"]
    peak = max(float(np.max(curves[f"density_{side}"])) for side in "ab") or 1.0
    bottom = peak * 10.0**-_DECADES
    ax.set_yscale("log")
    ax.set_ylim(bottom, 30 * peak)
    ax.set_xlim(float(x[0]), float(x[-1]))
    for side, name, color, line, height in (("a", names[0], BULK, "-", 1.6), ("b", names[1], OUTLIER, "--", 6.0)):
        low, high = (np.maximum(curves[f"{end}_{side}"], bottom) for end in ("low", "high"))
        ax.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
        density = curves[f"density_{side}"]
        shown = np.where(density >= bottom, density, np.nan)
        outliers = np.asarray(curves[f"outliers_{side}"])
        label = f"{name}: {len(outliers)} outlier{'s' if len(outliers) != 1 else ''}" if len(outliers) else name
        ax.plot(x, shown, color=color, linestyle=line, linewidth=1.5, label=label, gid=f"density {side}")
        if len(outliers):
            inside = np.clip(outliers, x[0], x[-1])
            ax.plot(inside, np.full(len(inside), height * bottom), "^" if side == "a" else "v", color=color, markersize=4.5,
                    clip_on=False, gid=f"outliers {side}")  # fmt: skip
            for end, count, align in ((x[0], int(np.sum(outliers < x[0])), "left"), (x[-1], int(np.sum(outliers > x[-1])), "right")):
                if count:
                    # Above the markers, some of which may stand beside the end.
                    ax.annotate(f"{count} beyond", (end, height * bottom), xytext=(6 if align == "left" else -6, 5), ha=align, va="bottom",
                                textcoords="offset points", fontsize=SMALL, color=color,
                                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5})  # fmt: skip
    ax.set_xlabel("eigenvalue λ", fontsize=NORMAL, color=TEXT)
    ax.set_ylabel("density of the bulk", fontsize=NORMAL, color=TEXT)


def _draw_difference(ax: Axes, curves: Any, names: tuple[str, str]) -> None:
    x, band = curves["x"], curves["cdf_band"]
    difference = curves["cdf_b"] - curves["cdf_a"]
    ax.fill_between(x, -band, band, color=UNRESOLVED, alpha=0.35, linewidth=0, label="95 % of one spectrum", gid="band")
    ax.plot(x, difference, color=TEXT, linewidth=1.3, label=f"{names[1]} − {names[0]}", gid="difference")
    reach = 1.5 * max(float(np.max(np.abs(difference))), float(np.max(band)), 1e-9)
    ax.set_ylim(-reach, 1.3 * reach)
    ax.set_xlim(float(x[0]), float(x[-1]))
    ax.set_xlabel("eigenvalue λ", fontsize=NORMAL, color=TEXT)
    ax.set_ylabel("difference of the share below λ", fontsize=NORMAL, color=TEXT)
