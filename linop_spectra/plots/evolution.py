"""Spectra through training: a heat map, ridges, the edge of stability, and overlaps beside loss and gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .style import BULK, LARGE, NORMAL, OUTLIER, SMALL, TEXT, UNRESOLVED, dress, new_axes, new_figure, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROWS = 400
_DECADES = 4.0
_MOST_RIDGES = 12
_WIDE = 10.0
"""Ratio of what is shown of the edge of stability from which its axis is logarithmic."""
_GREEN = "#009E73"


def spectrum_heat_map(result: Any, ax: Axes | None = None, *, title: str | None = None, colorbar: bool = True) -> Axes:
    """Draw the density of the eigenvalues over the moments of a training, as colour on a logarithmic scale.

    The eigenvalue axis is linear within the bulk and logarithmic beyond it, and the density is the share of eigenvalues for each unit of
    that axis. Dots are the largest eigenvalues.

    Parameters
    ----------
    result : Evolution
        What to draw; only ``steps``, ``spectra`` and ``eigenvalues`` are used.
    ax : matplotlib.axes.Axes, optional
        Where to draw; axes of a new figure by default.
    title : str, optional
        Title.
    colorbar : bool
        Whether to add the scale of the colours.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.

    Raises
    ------
    ImportError
        When matplotlib is not installed.
    """
    if ax is None:
        ax = new_axes()
    dress(ax)
    ax.grid(False)
    width, low, high = _scale(result)
    edges = np.linspace(np.arcsinh(low / width), np.arcsinh(high / width), _ROWS + 1)
    columns = []
    for density in result.spectra:
        # Mass of each cell over its height: outliers, which are narrower than a cell, keep their mass.
        share = np.asarray(density.cdf(width * np.sinh(edges), method="gaussian"), dtype=float)
        columns.append(np.maximum(np.diff(share), 0) / np.diff(edges))
    values = np.array(columns).T
    top = float(values.max()) or 1.0
    from matplotlib.colors import LogNorm

    x = _borders(np.asarray(result.steps, dtype=float))
    y = width * np.sinh(edges)
    mesh = ax.pcolormesh(
        x, y, np.maximum(values, top * 10.0**-_DECADES), norm=LogNorm(top * 10.0**-_DECADES, top), cmap="cividis", rasterized=True,
        gid="density",
    )  # fmt: skip
    steps = np.repeat(np.asarray(result.steps, dtype=float), result.eigenvalues.shape[1])
    ax.plot(steps, result.eigenvalues.ravel(), ".", color=OUTLIER, markersize=3.5, gid="eigenvalues")
    ax.set_yscale("asinh", linear_width=width)
    ax.set_ylim(float(y[0]), float(y[-1]))
    ax.set_xlim(float(x[0]), float(x[-1]))
    _asinh_ticks(ax, width, float(y[0]), float(y[-1]))
    ax.set_xlabel("step", fontsize=NORMAL, color=TEXT)
    ax.set_ylabel("eigenvalue λ", fontsize=NORMAL, color=TEXT)
    if title is not None:
        ax.set_title(title, fontsize=LARGE, color=TEXT, loc="left")
    if colorbar:
        figure: Any = ax.figure
        bar = figure.colorbar(mesh, ax=ax, pad=0.01)
        bar.set_label("share per unit of the axis", fontsize=SMALL, color=TEXT)
        bar.ax.tick_params(labelsize=SMALL, colors=TEXT)
    return ax


def spectrum_ridge(result: Any, ax: Axes | None = None, *, title: str | None = None) -> Axes:
    """Draw the densities of the moments above each other, the first at the bottom; at most twelve, evenly chosen.

    The height is the logarithm of the share of eigenvalues for each unit of the axis, over four decades; orange ticks are the largest
    eigenvalues.

    Parameters
    ----------
    result : Evolution
        What to draw; only ``steps``, ``spectra`` and ``eigenvalues`` are used.
    ax : matplotlib.axes.Axes, optional
        Where to draw; axes of a new figure by default.
    title : str, optional
        Title.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.

    Raises
    ------
    ImportError
        When matplotlib is not installed.
    """
    count = len(result.spectra)
    chosen = np.unique(np.linspace(0, count - 1, min(count, _MOST_RIDGES)).round().astype(int))
    if ax is None:
        ax = new_axes(7.2, 1.6 + 0.5 * len(chosen))
    dress(ax)
    width, low, high = _scale(result)
    edges = np.linspace(np.arcsinh(low / width), np.arcsinh(high / width), _ROWS + 1)
    x = width * np.sinh((edges[:-1] + edges[1:]) / 2)
    heights = []
    for index in chosen:
        share = np.asarray(result.spectra[index].cdf(width * np.sinh(edges), method="gaussian"), dtype=float)
        heights.append(np.maximum(np.diff(share), 0) / np.diff(edges))
    top = max(float(height.max()) for height in heights) or 1.0
    for place in reversed(range(len(chosen))):
        ridge = np.log10(np.maximum(heights[place] / top, 10.0**-_DECADES)) / _DECADES + 1
        # White below the colour, so that a ridge hides the feet of those behind it.
        for color, alpha in (("white", 1.0), (BULK, 0.35)):
            ax.fill_between(x, place, place + 1.6 * ridge, color=color, alpha=alpha, linewidth=0, zorder=2 * (len(chosen) - place))
        ax.plot(x, place + 1.6 * ridge, color=BULK, linewidth=1.0, zorder=2 * (len(chosen) - place) + 1, gid=f"ridge {place}")
        values = result.eigenvalues[chosen[place]]
        ax.plot(values, np.full(len(values), place + 0.08), "|", color=OUTLIER, markersize=7, zorder=2 * (len(chosen) - place) + 1,
                label="largest eigenvalues" if place == 0 else None)  # fmt: skip
    ax.set_xscale("asinh", linear_width=width)
    ax.set_xlim(low, high)
    _asinh_ticks(ax, width, low, high, vertical=False)
    ax.set_ylim(-0.1, len(chosen) + 0.9)
    ax.set_yticks(np.arange(len(chosen)), [number(float(result.steps[i])) for i in chosen])
    ax.set_xlabel("eigenvalue λ", fontsize=NORMAL, color=TEXT)
    ax.set_ylabel("step; heights are logarithms over four decades", fontsize=NORMAL, color=TEXT)
    ax.legend(fontsize=SMALL, loc="upper right", framealpha=0.9, edgecolor="none")
    if title is not None:
        ax.set_title(title, fontsize=LARGE, color=TEXT, loc="left")
    return ax


def edge_of_stability(result: Any, ax: Axes | None = None, *, title: str | None = None, legend: bool = True) -> Axes:
    """Draw the largest eigenvalues over the moments, beside the largest that the learning rate is stable at.

    Parameters
    ----------
    result : Evolution
        What to draw; only ``steps``, ``eigenvalues``, ``thresholds``, ``method``, ``momentum`` and ``matrix`` are used.
    ax : matplotlib.axes.Axes, optional
        Where to draw; axes of a new figure by default.
    title : str, optional
        Title.
    legend : bool
        Whether to add a legend.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.

    Raises
    ------
    ImportError
        When matplotlib is not installed.
    """
    if ax is None:
        ax = new_axes()
    dress(ax)
    values = np.asarray(result.eigenvalues, dtype=float)
    for place in range(1, values.shape[1]):
        ax.plot(result.steps, values[:, place], color=BULK, linewidth=0.8, alpha=0.45, label="further ones" if place == 1 else None)
    ax.plot(result.steps, values[:, 0], "o-", color=BULK, markersize=3, linewidth=1.6, label="largest eigenvalue", gid="largest")
    thresholds = np.asarray(result.thresholds, dtype=float)
    if np.isfinite(thresholds).any():
        ax.plot(result.steps, thresholds, color=OUTLIER, linestyle="--", linewidth=1.4, label=_threshold(result), gid="threshold")
    shown = np.concatenate([values.ravel(), thresholds[np.isfinite(thresholds)]])
    if np.all(shown > 0) and float(shown.max()) > _WIDE * float(values[:, 0].min()):
        ax.set_yscale("log")
    ax.set_xlabel("step", fontsize=NORMAL, color=TEXT)
    ax.set_ylabel(f"eigenvalue of the {_matrix(result)}", fontsize=NORMAL, color=TEXT)
    if title is not None:
        ax.set_title(title, fontsize=LARGE, color=TEXT, loc="left")
    if legend:
        ax.legend(fontsize=SMALL, framealpha=0.9, edgecolor="none")
    return ax


def evolution_overview(result: Any, axes: Any = None) -> np.ndarray:
    """Draw a training in four panels: heat map, edge of stability, overlaps with their chance level, loss and gradient norm.

    Parameters
    ----------
    result : Evolution
        What to draw.
    axes : array of four matplotlib.axes.Axes, optional
        Where to draw; axes of a new figure by default.

    Returns
    -------
    numpy.ndarray
        The four axes.

    Raises
    ------
    ImportError
        When matplotlib is not installed.
    ValueError
        When the number of axes is not four.
    """
    if axes is None:
        panels = new_figure(11.0, 7.0).subplots(2, 2).ravel()
    else:
        panels = np.array(axes, dtype=object).ravel()
        if len(panels) != 4:
            raise ValueError(f"The argument axes holds {len(panels)} axes, but the figure of an evolution has four panels.")
    spectrum_heat_map(result, panels[0], title=f"spectrum of the {_matrix(result)}")
    edge_of_stability(result, panels[1], title="largest eigenvalues")
    _draw_overlaps(panels[2], result)
    _draw_loss(panels[3], result)
    return panels


def _draw_overlaps(ax: Axes, result: Any) -> None:
    dress(ax)
    k = np.asarray(result.eigenvalues).shape[1]
    ax.plot(result.steps, result.overlaps, "o-", color=BULK, markersize=3, linewidth=1.4, label=f"top {k} with those before", gid="overlap")
    ax.plot(result.steps, result.gradient_overlaps, "s--", color=_GREEN, markersize=3, linewidth=1.2, label=f"gradient in the top {k}",
            gid="gradient overlap")  # fmt: skip
    ax.axhline(result.null_overlap, color=UNRESOLVED, linewidth=1.2, linestyle=":", label=f"by chance: {number(result.null_overlap, 2)}")
    ax.set_ylim(-0.04, 1.5)  # room for the legend above the curves, which go anywhere
    ax.set_yticks(np.linspace(0, 1, 6))
    ax.set_xlabel("step", fontsize=NORMAL, color=TEXT)
    ax.set_ylabel("squared cosine", fontsize=NORMAL, color=TEXT)
    ax.set_title("overlaps", fontsize=LARGE, color=TEXT, loc="left")
    ax.legend(fontsize=SMALL, loc="upper left", framealpha=0.9, edgecolor="none")


def _draw_loss(ax: Axes, result: Any) -> None:
    dress(ax)
    loss, norms = np.asarray(result.loss, dtype=float), np.asarray(result.gradient_norms, dtype=float)
    ax.plot(result.steps, loss, "o-", color=BULK, markersize=3, linewidth=1.4, label="loss", gid="loss")
    ax.plot(result.steps, norms, "s--", color=OUTLIER, markersize=3, linewidth=1.2, label="norm of the gradient", gid="gradient norm")
    if np.all(loss > 0) and np.all(norms > 0):
        ax.set_yscale("log")
    ax.set_xlabel("step", fontsize=NORMAL, color=TEXT)
    ax.set_title("loss and gradient", fontsize=LARGE, color=TEXT, loc="left")
    ax.legend(fontsize=SMALL, framealpha=0.9, edgecolor="none")


def _threshold(result: Any) -> str:
    beta = f"{result.momentum:g}"
    return {
        "gd": "2 / learning rate", "heavy_ball": f"2 (1 + {beta}) / learning rate",
        "nesterov": f"(2 + 2·{beta}) / (1 + 2·{beta}) / learning rate", "adam": f"(2 + 2·{beta}) / (1 − {beta}) / learning rate",
    }[result.method]  # fmt: skip


def _matrix(result: Any) -> str:
    names = {"hessian": "Hessian", "ggn": "Gauss-Newton matrix", "fisher": "Fisher matrix", "residual": "residual H − G",
             "gradient_covariance": "gradient covariance"}  # fmt: skip
    before, _, last = str(result.matrix).rpartition(" ")
    return f"{before} {names.get(last, last)}".strip()


def _scale(result: Any) -> tuple[float, float, float]:
    """Width of the linear part of the axis, and its ends."""
    edges = np.array([density.bulk_edges() for density in result.spectra], dtype=float)
    ends = np.array([density.interval for density in result.spectra], dtype=float)
    low = min(float(ends[:, 0].min()), float(np.min(result.eigenvalues)), 0.0)
    high = max(float(ends[:, 1].max()), float(np.max(result.eigenvalues)), 0.0)
    if not high > low:
        low, high = low - 1.0, high + 1.0
    widths = np.ptp(edges, axis=1)
    bulk = float(np.median(widths[widths > 0])) if np.any(widths > 0) else high - low
    width = max(bulk / 6, 1e-9 * (high - low))
    margin = 0.03 * (np.arcsinh(high / width) - np.arcsinh(low / width))
    return width, float(width * np.sinh(np.arcsinh(low / width) - margin)), float(width * np.sinh(np.arcsinh(high / width) + margin))


def _borders(steps: np.ndarray) -> np.ndarray:
    """Borders of the columns, half-way between the moments."""
    if len(steps) == 1:
        return np.array([steps[0] - 0.5, steps[0] + 0.5])
    middles = (steps[:-1] + steps[1:]) / 2
    return np.concatenate([[2 * steps[0] - middles[0]], middles, [2 * steps[-1] - middles[-1]]])


def _asinh_ticks(ax: Axes, width: float, low: float, high: float, *, vertical: bool = True) -> None:
    """Zero and powers of ten of either sign beyond the linear part."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    first = int(np.ceil(np.log10(width)))
    last = int(np.floor(np.log10(max(abs(low), abs(high)))))
    powers = [10.0**exponent for exponent in range(first, last + 1)]
    powers = powers[:: max(1, -(-len(powers) // 5))] or [10.0**last]
    ticks = [tick for tick in sorted({0.0, *powers, *(-power for power in powers)}) if low <= tick <= high]
    if len(ticks) < 3:
        ticks = sorted({0.0, *(tick for tick in (high / 2, low / 2) if abs(tick) > 0.2 * max(abs(low), abs(high)))})
    axis = ax.yaxis if vertical else ax.xaxis
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(float(value), 2)))
