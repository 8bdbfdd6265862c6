"""Colours, sizes and the making of axes, shared by all figures.

Nothing here touches matplotlib's global state: figures are made outside pyplot, so that drawing needs no display, opens no window and
changes no style of the caller. One rule holds for all of them: what draws returns what it drew on, the axes or, of several panels, an array
of them, and in a notebook either shows the picture.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette: told apart with every kind of colour vision, and in grey print by lightness.
BULK = "#0072B2"
OUTLIER = "#D55E00"
UNRESOLVED = "#8C8C8C"
TEXT = "#222222"
GRID = "#D9D9D9"

SMALL, NORMAL, LARGE = 8.0, 9.0, 10.5
DPI = 160
MOST_DECADES_WITH_MINOR_TICKS = 6.0


def require_matplotlib() -> Any:
    """Import matplotlib, or say how to get it.

    Raises
    ------
    ImportError
        When matplotlib is not installed.
    """
    try:
        import matplotlib.figure
    except ImportError as error:
        raise ImportError("Drawing needs matplotlib, which is not installed; run: pip install linop-spectra[plot]") from error
    return matplotlib


def new_figure(width: float, height: float) -> Any:
    """A figure of its own, outside pyplot, `width` by `height` inches; notebooks show it, its axes and arrays of them."""
    require_matplotlib()
    from .figure import NotebookFigure

    return NotebookFigure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")


def new_axes(width: float = 7.2, height: float = 4.2) -> Axes:
    """Axes that fill a figure of their own."""
    return new_figure(width, height).add_subplot()


def dress(ax: Axes) -> None:
    """Light frame, quiet grid behind the data, small ticks."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(UNRESOLVED)
    ax.tick_params(labelsize=SMALL, colors=TEXT, which="both")
    ax.grid(True, color=GRID, linewidth=0.5)
    ax.set_axisbelow(True)


def thin_log_ticks(*axes: Axes) -> None:
    """Take the minor ticks off logarithmic axes of many decades, once their limits are set.

    There they are a grey smear, and half of the time that a figure of several panels takes.
    """
    from matplotlib.ticker import NullLocator

    for ax in axes:
        for axis, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            if axis.get_scale() == "log" and abs(math.log10(high / low)) > MOST_DECADES_WITH_MINOR_TICKS:
                axis.set_minor_locator(NullLocator())


def number(value: float, digits: int = 3) -> str:
    """A number for a label: plain where that is short, otherwise as a power of ten.

    Examples
    --------
    >>> number(0.0123), number(12345.0), number(2.5e-7), number(0.0)
    ('0.0123', '12,300', '2.5×10⁻⁷', '0')
    """
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        text = f"{float(f'{value:.{digits}g}'):,.10g}" if abs(value) >= 1000 else f"{value:.{digits}g}"
        return text.replace("-", "−")
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    superscript = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa}×10{superscript}".replace("-", "−")


def percent(share: float) -> str:
    """A share for a label.

    Examples
    --------
    >>> percent(0.1234), percent(0.0), percent(0.00012), percent(1.0)
    ('12.3 %', '0 %', '0.012 %', '100 %')
    """
    return f"{100 * share:.3g} %"
