"""The table of what approximations lose, as a picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .style import GRID, LARGE, SMALL, TEXT, UNRESOLVED, new_axes, number, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Light tints of Okabe and Ito's palette; the verdict stands in each cell as a word, too.
SHADES = {"ok": "#CFE6F4", "biased": "#F9EFB5", "meaningless": "#F4CDB8", "unresolved": "#E8E8E8"}
_ROW, _FIRST, _COLUMN, _NARROW = 0.34, 2.1, 2.35, 1.3


def critique(result: Any, ax: Axes | None = None, *, title: str | None = None) -> Axes:
    """Draw a critique as a table: a row for each property, a column for the matrix and each approximation, shaded by verdict.

    Parameters
    ----------
    result : Critique
        What to draw; only ``rows``, ``names`` and ``properties`` are used, and of a row the truth, the approximation, the relative error,
        the verdict and the null.
    ax : matplotlib.axes.Axes, optional
        Where to draw; axes of a new figure by default. Their frame and ticks are taken away.
    title : str, optional
        Title; none by default.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.

    Raises
    ------
    ImportError
        When matplotlib is not installed.
    """
    names, properties = list(result.names), list(result.properties)
    columns = ["matrix", *names, "random basis"]
    # Numbers alone, of the matrix and of a random basis, need less than those with an error and a verdict.
    width = [_FIRST, _NARROW, *[_COLUMN] * len(names), _NARROW]
    if ax is None:
        ax = new_axes(sum(width), _ROW * (len(properties) + 2) + 0.3)
    edges = [sum(width[:i]) for i in range(len(width) + 1)]
    ax.set_xlim(0, edges[-1])
    ax.set_ylim(len(properties) + 0.5, -1.0)
    ax.set_axis_off()
    if title is not None:
        ax.set_title(title, fontsize=LARGE, color=TEXT)
    for column, name in enumerate(columns):
        middle = (edges[column + 1] + edges[column + 2]) / 2
        ax.text(middle, -0.4, _shortened(name), ha="center", va="center", fontsize=SMALL, color=TEXT, fontweight="bold")
    ax.plot([0, edges[-1]], [0, 0], color=TEXT, linewidth=0.8)
    for line, property in enumerate(properties):
        found = {row.name: row for row in result.rows if row.property == property}
        rows = list(found.values())
        middle = line + 0.5
        ax.plot([0, edges[-1]], [line + 1, line + 1], color=GRID, linewidth=0.5)
        ax.text(0.06, middle, property.replace("_", " "), ha="left", va="center", fontsize=SMALL, color=TEXT)
        shared = all(row.truth.value == rows[0].truth.value for row in rows)
        nulls = [row.null for row in rows if row.null is not None]
        _write(ax, edges[1], edges[2], middle, _text(rows[0].truth.value) if shared else "")
        _write(ax, edges[-2], edges[-1], middle, _text(nulls[0]) if nulls else "", color=UNRESOLVED)
        for column, name in enumerate(names):
            if name in found:
                _cell(ax, edges[column + 2], edges[column + 3], line, found[name], with_error=not shared)
    return ax


def _cell(ax: Axes, left: float, right: float, line: int, row: Any, *, with_error: bool) -> None:
    from matplotlib.patches import Rectangle

    ax.add_patch(Rectangle((left, line), right - left, 1.0, facecolor=SHADES[row.verdict], edgecolor="white", linewidth=1.5))
    error = f" (off {_share(row.relative_error)})" if with_error and math.isfinite(row.relative_error) else ""
    ax.text(left + 0.08, line + 0.5, _text(row.approximation) + error, ha="left", va="center", fontsize=SMALL, color=TEXT)
    ax.text(right - 0.08, line + 0.5, row.verdict, ha="right", va="center", fontsize=SMALL - 1, color=TEXT)


def _write(ax: Axes, left: float, right: float, middle: float, text: str, *, color: str = TEXT) -> None:
    ax.text((left + right) / 2, middle, text, ha="center", va="center", fontsize=SMALL, color=color)


def _text(value: float) -> str:
    return number(value) if math.isfinite(value) else "-"


def _share(error: float) -> str:
    return percent(float(f"{error:.2g}")) if error < 10 else "> 999 %"


def _shortened(name: str, most: int = 22) -> str:
    name = name.replace("_", " ")
    return name if len(name) <= most else f"{name[: most - 1]}…"
