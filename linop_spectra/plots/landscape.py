"""The loss along lines and over planes, with its quadratic model, and curvatures of random slices."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .style import BULK, LARGE, NORMAL, OUTLIER, SMALL, TEXT, dress, new_axes, new_figure, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette without its yellow, which paper swallows.
_COLORS = (BULK, OUTLIER, "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#222222")
_MAP = "cividis"  # lightness grows evenly, for every kind of colour vision
# From this ratio of the largest to the smallest loss on, "auto" takes a logarithmic scale.
_LOG_FROM = 50.0


def loss_line(
    result: Any,
    ax: Axes | None = None,
    *,
    quantity: str = "loss",
    scale: str = "auto",
    title: str | None = None,
    legend: bool = True,
) -> Axes:
    """Draw the loss, or a metric, along one line or several.

    What was measured is a solid line with a dot at each point, the held-out data are dotted, the quadratic model is dashed. Places where
    the loss is not finite are crosses on the upper border. The limits are those of the measurements: a model may leave the picture.

    Parameters
    ----------
    result : Line
        What to draw; only its public attributes are used.
    ax : matplotlib.axes.Axes, optional
        Where to draw; axes of a new figure by default.
    quantity : str
        ``"loss"`` or the name of a metric.
    scale : str
        ``"linear"``, ``"log"``, or ``"auto"``, which is logarithmic where a positive loss spans much more than a decade.
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
    ValueError
        When there is no such quantity or scale, or nothing finite to draw.
    """
    values, held_out = _quantity(result, quantity)
    rows = np.atleast_2d(values)
    others = None if held_out is None else np.atleast_2d(held_out)
    everything = rows if others is None else np.concatenate([rows, others])
    logarithmic = _logarithmic(everything, scale)
    if ax is None:
        ax = new_axes()
    dress(ax)
    order = np.argsort(result.distances)
    t = result.distances[order]
    model = quantity == "loss" and result.value is not None
    fine = np.linspace(t[0], t[-1], 201)
    curves = np.atleast_2d(result.quadratic(fine)) if model else None
    ax.set_yscale("log" if logarithmic else "linear")
    several = values.ndim > 1
    for index, row in enumerate(rows):
        color = _COLORS[index % len(_COLORS)]
        label = result.labels[index] if several else quantity
        ax.plot(t, row[order], "-o", color=color, markersize=2.8, linewidth=1.4, label=label, gid=f"measured {index}")
        if others is not None:
            ax.plot(
                t, others[index][order], ":", color=color, linewidth=1.6, gid=f"held out {index}",
                label=None if several else f"held-out {quantity}",
            )
    finite = everything[np.isfinite(everything)]
    low, high = _with_margin(float(finite.min()), float(finite.max()), logarithmic)
    for index, curve in enumerate(curves if curves is not None else ()):
        shown = np.where(curve > 0, curve, np.nan) if logarithmic else curve
        ax.plot(
            fine, shown, "--", color=_COLORS[index % len(_COLORS)] if several else TEXT, linewidth=1.0, gid=f"quadratic {index}",
            label=None if several else "quadratic model",
        )
    ax.set_ylim(low, high)
    lost = result.distances[np.atleast_2d(result.evaluated & ~np.isfinite(result.loss)).any(axis=0)]
    if lost.size:
        ax.plot(
            lost, np.full(lost.size, high), "x", color=OUTLIER, markersize=6, clip_on=False, gid="not finite", label="loss not finite",
        )
    if several and (curves is not None or others is not None):
        keys = [(":", f"held-out {quantity}")] if others is not None else []
        for style, label in keys + ([("--", "quadratic model")] if curves is not None else []):
            ax.plot([], [], style, color=TEXT, linewidth=1.2, label=label)
    interpolation = result.kind == "interpolation"
    ax.set_xlabel("share of the way" if interpolation else "distance (multiples of the direction)", fontsize=NORMAL, color=TEXT)
    ax.set_ylabel(quantity, fontsize=NORMAL, color=TEXT)
    _write_title(ax, result, title, "" if several or interpolation else result.labels[0])
    if legend and ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=SMALL, loc="best", framealpha=0.9, edgecolor="none")
    return ax


def loss_contour(
    result: Any,
    ax: Axes | None = None,
    *,
    quantity: str = "loss",
    scale: str = "auto",
    num_levels: int = 14,
    trajectory: Any = None,
    quadratic: bool | None = None,
    title: str | None = None,
    legend: bool = True,
) -> Axes:
    """Draw level lines of the loss, or of a metric, over a plane; light is high.

    The levels of the quadratic model are dashed, at the same heights. A cross marks the centre. Where nothing finite is known the plane is
    grey.

    Parameters
    ----------
    result : Plane
        What to draw; only its public attributes are used.
    ax : matplotlib.axes.Axes, optional
        Where to draw; axes of a new figure by default.
    quantity : str
        ``"loss"`` or the name of a metric.
    scale : str
        ``"linear"``, ``"log"``, or ``"auto"``, which is logarithmic where a positive loss spans much more than a decade.
    num_levels : int
        Levels.
    trajectory : Trajectory or array, optional
        A path to draw over it: coordinates of shape (T, 2) in this plane.
    quadratic : bool, optional
        Whether to draw the quadratic model; by default where there is one.
    title : str, optional
        Title.
    legend : bool
        Whether to add a legend where there is more than the loss.

    Returns
    -------
    matplotlib.axes.Axes
        The axes; ``ax.figure.savefig(path)`` writes the picture.

    Raises
    ------
    ImportError
        When matplotlib is not installed.
    ValueError
        When there is no such quantity or scale, nothing finite to draw, or the trajectory lies in another plane.
    """
    values, _ = _quantity(result, quantity)
    if min(values.shape) < 2:
        raise ValueError(f"Level lines need two points or more along each direction, but the plane has shape {values.shape}.")
    path = None if trajectory is None else _path(trajectory, result)
    logarithmic = _logarithmic(values, scale)
    ax = new_axes(6.2, 4.8) if ax is None else ax
    dress(ax)
    ax.grid(False)
    ax.set_facecolor("#D0D0D0")
    x, y, z = _sorted(result, values)
    levels = _levels(z, num_levels, logarithmic)
    z = np.ma.masked_invalid(z)
    norm: Any = None
    if logarithmic:
        from matplotlib.colors import LogNorm

        norm = LogNorm(levels[0], levels[-1])
    filled = ax.contourf(x, y, z, levels=levels, cmap=_MAP, norm=norm, extend="neither")
    ax.contour(x, y, z, levels=levels, colors="white", linewidths=0.5, alpha=0.7)
    bar = ax.figure.colorbar(filled, ax=ax)
    bar.set_label(quantity, fontsize=NORMAL, color=TEXT)
    ticks = levels[:: max(1, len(levels) // 7)].tolist()
    bar.set_ticks(ticks, labels=[number(level) for level in ticks])
    bar.ax.tick_params(labelsize=SMALL, colors=TEXT)
    bar.ax.minorticks_off()
    if quadratic is None:
        quadratic = result.value is not None
    if quadratic and quantity == "loss":
        fine_x, fine_y = np.linspace(x[0], x[-1], 121), np.linspace(y[0], y[-1], 121)
        ax.contour(fine_x, fine_y, result.quadratic(fine_x, fine_y), levels=levels, colors=OUTLIER, linewidths=0.9, linestyles="dashed")
        ax.plot([], [], "--", color=OUTLIER, linewidth=1.0, label="quadratic model")
    if x[0] <= 0 <= x[-1] and y[0] <= 0 <= y[-1]:
        ax.plot(0, 0, "+", color="black", markersize=9, markeredgewidth=1.4, gid="centre", label="centre")
    if path is not None:
        ax.plot(path[:, 0], path[:, 1], "-o", color="white", markersize=3.6, linewidth=2.6, gid="trajectory outline")
        ax.plot(path[:, 0], path[:, 1], "-o", color="black", markersize=2.2, linewidth=1.1, gid="trajectory", label="trajectory")
        ax.set_xlim(x[0], x[-1])
        ax.set_ylim(y[0], y[-1])
    ax.set_xlabel(result.labels[0], fontsize=NORMAL, color=TEXT)
    ax.set_ylabel(result.labels[1], fontsize=NORMAL, color=TEXT)
    _write_title(ax, result, title, "")
    if legend and (path is not None or quadratic):
        ax.legend(fontsize=SMALL, loc="upper right", framealpha=0.9, edgecolor="none")
    return ax


def loss_surface(
    result: Any, ax: Axes | None = None, *, quantity: str = "loss", scale: str = "auto", quadratic: bool | None = None,
    title: str | None = None,
) -> Axes:  # fmt: skip
    """Draw the loss, or a metric, over a plane as a surface in space; a logarithmic scale shows its decimal logarithm.

    Parameters
    ----------
    result : Plane
        What to draw; only its public attributes are used.
    ax : mpl_toolkits.mplot3d.Axes3D, optional
        Where to draw, made with ``projection="3d"``; axes of a new figure by default.
    quantity : str
        ``"loss"`` or the name of a metric.
    scale : str
        ``"linear"``, ``"log"``, or ``"auto"``, which is logarithmic where a positive loss spans much more than a decade.
    quadratic : bool, optional
        Whether to draw the quadratic model as a net of lines; by default where there is one.
    title : str, optional
        Title.

    Returns
    -------
    mpl_toolkits.mplot3d.Axes3D
        The axes; ``ax.figure.savefig(path)`` writes the picture.

    Raises
    ------
    ImportError
        When matplotlib is not installed.
    ValueError
        When the axes are flat, there is no such quantity or scale, or nothing finite to draw.
    """
    values, _ = _quantity(result, quantity)
    if min(values.shape) < 2:
        raise ValueError(f"A surface needs two points or more along each direction, but the plane has shape {values.shape}.")
    logarithmic = _logarithmic(values, scale)
    axes: Any = new_figure(6.4, 5.0).add_subplot(projection="3d") if ax is None else ax
    if not hasattr(axes, "plot_surface"):
        raise ValueError("The argument ax holds flat axes, but a surface needs axes made with projection='3d'.")
    x, y, z = _sorted(result, values)
    grid_x, grid_y = np.meshgrid(x, y)
    shown = np.log10(np.where(z > 0, z, np.nan)) if logarithmic else z
    floor, top = float(np.nanmin(shown)), float(np.nanmax(shown))
    # Faces with a corner that is not finite are left out.
    axes.plot_surface(
        grid_x, grid_y, np.ma.masked_invalid(shown), cmap=_MAP, vmin=floor, vmax=top, rstride=1, cstride=1, linewidth=0.2,
        edgecolor="white", alpha=0.95, antialiased=True,
    )  # fmt: skip
    if (result.value is not None if quadratic is None else quadratic) and quantity == "loss":
        model = result.quadratic(x, y)
        model = np.log10(np.where(model > 0, model, np.nan)) if logarithmic else model
        model = np.where((model >= floor) & (model <= top), model, np.nan)
        stride = max(1, len(x) // 12), max(1, len(y) // 12)
        axes.plot_wireframe(
            grid_x, grid_y, model, color=OUTLIER, linewidth=0.7, rstride=stride[1], cstride=stride[0],
            label="quadratic model",
        )  # fmt: skip
        axes.legend(fontsize=SMALL, loc="upper right", framealpha=0.9, edgecolor="none")
    axes.set_zlim(floor, top if top > floor else floor + 1)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_major_locator(_few_ticks())
    axes.set_xlabel(result.labels[0], fontsize=NORMAL, color=TEXT, labelpad=6)
    axes.set_ylabel(result.labels[1], fontsize=NORMAL, color=TEXT, labelpad=8)
    axes.set_zlabel(f"log₁₀ {quantity}" if logarithmic else quantity, fontsize=NORMAL, color=TEXT)
    axes.tick_params(labelsize=SMALL, colors=TEXT)
    axes.set_box_aspect(None, zoom=0.88)
    _write_title(axes, result, title, "")
    drawn: Axes = axes
    return drawn


def slices(result: Any, ax: Axes | None = None, *, title: str | None = None, legend: bool = True) -> Axes:
    """Draw the curvatures of slices (blue bars) beside the law of random ones (black line).

    Parameters
    ----------
    result : Slices
        What to draw; only its public attributes are used.
    ax : matplotlib.axes.Axes, optional
        Where to draw; axes of a new figure by default.
    title : str, optional
        Title; by default the p-value, and the chance of meeting half of the largest eigenvalue.
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
    ax = new_axes() if ax is None else ax
    dress(ax)
    q = result.curvatures
    mean, deviation = result.predicted_mean, result.predicted_deviation
    grid = np.linspace(mean - 4.5 * deviation, mean + 4.5 * deviation, 181)
    survival = np.array([result.law.survival(x) for x in grid]) if deviation > 0 else np.zeros(len(grid))
    shown = (survival > 1e-3) & (survival < 1 - 1e-4) if deviation > 0 else np.ones(len(grid), dtype=bool)
    low, high = min(q.min(), grid[shown].min(initial=np.inf)), max(q.max(), grid[shown].max(initial=-np.inf))
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, 1 + max(8, min(40, 2 * len(q)))).tolist()
    ax.hist(q, bins=edges, density=True, color=BULK, alpha=0.55, label=f"{len(q)} slices")
    if deviation > 0:
        grid, survival = grid[shown], survival[shown]
        middle, density = (grid[1:] + grid[:-1]) / 2, -np.diff(survival) / np.diff(grid)
        ax.plot(middle, density, color=TEXT, linewidth=1.4, gid="law", label="random directions")
    ax.plot(q, np.zeros(len(q)), "|", color=BULK, markersize=9, clip_on=False)
    ax.set_xlabel("curvature along the slice", fontsize=NORMAL, color=TEXT)
    ax.set_ylabel("density", fontsize=NORMAL, color=TEXT)
    if title is None:
        title = f"mean {number(mean)} ± {number(deviation, 2)} predicted"
        title += "" if np.isnan(result.p_value) else f", p = {number(result.p_value, 2)}"
        if result.largest_eigenvalue > 0:
            exponent = result.log10_chance(0.5)
            power = str(round(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
            chance = number(10.0**exponent, 2) if exponent > -4 else f"10{power}"
            title += f"\nchance that {len(q)} of them meet half of the largest eigenvalue, {number(result.largest_eigenvalue)}: {chance}"
    ax.set_title(title, fontsize=NORMAL, color=TEXT, loc="left")
    if legend:
        ax.legend(fontsize=SMALL, loc="upper right", framealpha=0.9, edgecolor="none")
    return ax


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(5)


def _quantity(result: Any, quantity: str) -> tuple[np.ndarray, np.ndarray | None]:
    if quantity == "loss":
        values, held_out = result.loss, result.held_out_loss
    elif quantity in result.metrics:
        values, held_out = result.metrics[quantity], result.held_out_metrics.get(quantity)
    else:
        known = ", ".join(repr(name) for name in ("loss", *result.metrics))
        raise ValueError(f"The argument quantity is {quantity!r}, but there is only {known}.")
    if not np.isfinite(values).any():
        raise ValueError(f"There is nothing to draw: no value of {quantity!r} is finite.")
    return values, held_out


def _logarithmic(values: np.ndarray, scale: str) -> bool:
    if scale not in ("auto", "linear", "log"):
        raise ValueError(f"The argument scale is {scale!r}; pass 'auto', 'linear' or 'log'.")
    finite = values[np.isfinite(values)]
    positive = bool((finite > 0).all())
    if scale == "log" and not positive:
        raise ValueError("The argument scale is 'log', but there are values that are not positive; pass 'linear'.")
    return scale == "log" or (scale == "auto" and positive and float(finite.max()) > _LOG_FROM * float(finite.min()))


def _with_margin(low: float, high: float, logarithmic: bool) -> tuple[float, float]:
    if logarithmic:
        factor = (high / low) ** 0.06 if high > low else 2.0
        return low / factor, high * factor
    margin = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    return low - margin, high + margin


def _levels(z: np.ndarray, count: int, logarithmic: bool) -> np.ndarray:
    finite = z[np.isfinite(z)]
    low, high = float(finite.min()), float(finite.max())
    if not high > low:
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
        logarithmic = False
    count = max(2, count)
    if logarithmic:
        levels = np.geomspace(low, high, count + 1)
        levels[[0, -1]] = low, high
        return levels
    return np.linspace(low, high, count + 1)


def _sorted(result: Any, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    i, j = np.argsort(result.xs), np.argsort(result.ys)
    return result.xs[i], result.ys[j], values[np.ix_(j, i)]


def _path(trajectory: Any, plane: Any) -> np.ndarray:
    own = getattr(trajectory, "directions", None)
    if own is not None and (own.shape[1] < 2 or not np.allclose(own[:, :2], plane.directions, atol=1e-5 * np.abs(own).max())):
        raise ValueError("The argument trajectory lies in another plane; make the plane with the first two directions of the trajectory.")
    path = np.asarray(getattr(trajectory, "coordinates", trajectory), dtype=float)
    if path.ndim != 2 or path.shape[1] < 2:
        raise ValueError(f"The argument trajectory has shape {path.shape}, but a path in the plane has shape (T, 2).")
    return path[:, :2]


def _write_title(ax: Any, result: Any, title: str | None, default: str) -> None:
    lines = [default if title is None else title]
    if result.status != "complete":
        share = math.floor(100 * float(np.mean(result.evaluated)))
        lines.append(f"{'time budget spent' if result.status == 'time budget' else result.status}: {share} % of the points")
    text = "\n".join(line for line in lines if line)
    if text:
        ax.set_title(text, fontsize=LARGE if title is not None else NORMAL, color=TEXT, loc="left")


__all__ = ["loss_contour", "loss_line", "loss_surface", "slices"]
