"""Spectra of a Hessian and of its parts, one row for each: linear on the left, logarithmic on the right."""

from __future__ import annotations

from typing import Any

import numpy as np

from .log_spectrum import log_spectrum
from .spectrum import spectrum
from .style import BULK, LARGE, NORMAL, SMALL, TEXT, new_figure, percent

_MARKS = {"A1": ("o", "#CC79A7"), "A1+A2": ("D", "#009E73"), "A1+A2+B1": ("|", "#000000")}
_LEGEND_EDGE, _LEGEND_LINE = 0.06, 0.075
"""Height of a legend, as shares of the height of a panel."""
_ISOLATED = 0.99
"""Share of what is not zero that isolated eigenvalues hold where there is no bulk."""
_ON = {"hessian": ("A1+A2", "A1+A2+B1"), "ggn": ("A1+A2", "A1+A2+B1"), "A1": ("A1",)}


def decomposition(result: Any, axes: Any = None, *, legend: bool = True) -> np.ndarray:
    """Draw the spectra of a decomposition under each other, with eigenvalues of the parts as markers.

    On the rows of H and G the eigenvalues of A1 + A2 (green diamonds) and of A1 + A2 + B1 (black ticks) stand at the foot, on the row
    of A1 its own (purple circles): where an outlier stands above a diamond, the class means account for it.

    Parameters
    ----------
    result : CurvatureDecomposition
        What to draw; only ``densities``, ``titles`` and ``markers`` are used.
    axes : array of matplotlib.axes.Axes, optional
        Shape (number of matrices, 2); axes of a new figure by default.
    legend : bool
        Whether to add legends.

    Returns
    -------
    numpy.ndarray
        The axes, shape (number of matrices, 2).

    Raises
    ------
    ImportError
        When matplotlib is not installed.
    ValueError
        When the number of axes does not fit.
    """
    count = len(result.densities)
    if axes is None:
        panels = new_figure(11.0, 2.9 * count + 0.3).subplots(count, 2, width_ratios=[3, 2], squeeze=False)
    else:
        panels = np.array(axes, dtype=object)
        if panels.shape != (count, 2):
            raise ValueError(f"The argument axes has shape {panels.shape}, but {count} spectra need axes of shape ({count}, 2).")
    for (left, right), (name, density) in zip(panels, result.densities.items(), strict=True):
        logarithmic = density.log()
        # Zero, and isolated eigenvalues: where there are others too, they are a bulk that has to be seen.
        rest = 1 - logarithmic.unresolved_mass
        low_rank = rest < 0.5 and sum(outlier.weight for outlier in density.outliers()) >= _ISOLATED * rest
        spectrum(density, left, legend=False, xscale="linear" if low_rank else "auto")
        if low_rank:
            _draw_zero(left, logarithmic.unresolved_mass)
        left.set_title("")
        left.set_title(result.titles[name], fontsize=LARGE, color=TEXT, loc="left")
        log_spectrum(logarithmic, right, legend=False)
        if legend:
            _make_room(right)
        for mark in _ON.get(name, ()):
            if mark in result.markers:
                _draw_markers(left, right, result.markers[mark], mark)
        if legend:
            for panel in (left, right):
                handles, labels = panel.get_legend_handles_labels()
                twins = [other for other in panel.figure.axes if other is not panel and other.bbox.bounds == panel.bbox.bounds]
                for twin in twins:
                    more = twin.get_legend_handles_labels()
                    handles, labels = handles + more[0], labels + more[1]
                # What the colours are is on the axes; the numbers differ from row to row.
                kept = [(handle, label) for handle, label in zip(handles, labels, strict=True) if _tells(label, panel is left)]
                handles, labels = [handle for handle, _ in kept], [label for _, label in kept]
                if handles:
                    place = "upper right" if panel is left else "upper left"
                    (twins[-1] if twins else panel).legend(handles, labels, fontsize=SMALL, loc=place, framealpha=0.9, edgecolor="none")
    for row in panels[:-1]:
        for panel in row:
            panel.set_xlabel("")
    for panel in panels[-1]:
        panel.xaxis.label.set_size(NORMAL)
    return panels


def _draw_zero(ax: Any, mass: float) -> None:
    """A multiple eigenvalue zero as a line of its own: smoothed, it would look like a bulk."""
    for artist in [*ax.lines, *ax.collections, *ax.patches]:
        if artist.get_gid() in ("bulk", "band", "unresolved"):
            artist.remove()
    ax.axvline(0.0, color=BULK, linewidth=2.0, gid="zero")
    ax.annotate(f"zero: {percent(mass)}", (0.0, 0.5), xycoords=("data", "axes fraction"), xytext=(6, 0), textcoords="offset points",
                fontsize=SMALL, color=BULK)  # fmt: skip


def _tells(label: str, left: bool) -> bool:
    """Whether a legend needs it: the markers are the same on both sides, and named on the left."""
    return (left and label[:1].isdigit() and "band" not in label) or label.startswith(("positive", "negative", "below", "shape"))


def _make_room(ax: Any) -> None:
    """Raise the upper end of a logarithmic panel until its legend stands above the curves."""
    lines = sum(_tells(label, False) for label in ax.get_legend_handles_labels()[1])
    peaks = [np.nanmax(line.get_ydata()) for line in ax.lines if line.get_gid() in ("positive", "negative")]
    if lines and peaks:
        low, high = ax.get_ylim()
        share = _LEGEND_EDGE + _LEGEND_LINE * lines
        ax.set_ylim(low, max(high, low * (max(peaks) / low) ** (1 / (1 - share))))


def _draw_markers(left: Any, right: Any, values: np.ndarray, name: str) -> None:
    symbol, color = _MARKS[name]
    values = np.asarray(values, dtype=float)
    shown = values[values > 1e-12 * max(float(np.max(np.abs(values))), 1e-300)]
    label = f"{len(shown)} eigenvalues of {name}"
    for axis, size in ((left, 4.5), (right, 4.5)):
        low, high = axis.get_ylim()
        height = low * (high / low) ** (0.045 if name != "A1+A2+B1" else 0.12)
        start, stop = axis.get_xlim()
        inside = shown[(shown >= start) & (shown <= stop)]
        axis.plot(inside, np.full(len(inside), height), symbol, color=color, markersize=size, linestyle="none", label=label,
                  markerfacecolor="none" if symbol != "|" else color, gid=f"markers {name}", zorder=4)  # fmt: skip
