"""A law over a measurement: densities with the band of the null, and Lanczos coefficients in its standard deviations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .style import BULK, LARGE, NORMAL, OUTLIER, SMALL, TEXT, UNRESOLVED, dress, new_figure, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def law_comparison(result: Any, axes: Sequence[Axes] | None = None, *, title: str | None = None, legend: bool = True) -> np.ndarray:
    """Draw a law (black line) over what was measured (blue), both inside the band that the law would give (grey).

    The left panel is the density. The band and the measurement are smoothed alike, the law is exact: the measurement follows the law
    where it stays in the band. Atoms are sticks on the axis at the right, with the 95 % interval of the null; outliers are marked on the
    axis. The right panel shows the Lanczos coefficients, less those of the null, in its standard deviations; for a complete list of
    eigenvalues, which has none, it shows how many lie below each, less what the law has.

    Parameters
    ----------
    result : Comparison
        What to draw; only ``law``, ``fitted``, ``p_value``, ``num_bootstrap`` and the arrays of ``curves`` are used.
    axes : sequence of two matplotlib.axes.Axes, optional
        Where to draw; axes of a new figure by default.
    title : str, optional
        Title; by default the law and the p-value.
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
    for panel in panels:
        dress(panel)
    curves: Mapping[str, np.ndarray] = result.curves
    left, right = panels
    if "eigenvalues" in curves:
        _draw_histogram(left, curves)
    else:
        _draw_densities(left, curves)
        _draw_coefficients(right, curves)
    left.set_xlabel("eigenvalue λ", fontsize=NORMAL, color=TEXT)
    left.set_ylabel("density", fontsize=NORMAL, color=TEXT)
    left.set_title(title if title is not None else _title(result), fontsize=LARGE, color=TEXT, loc="left")
    if "eigenvalues" in curves:
        _draw_counts(right, curves)
    if legend:
        left.legend(fontsize=SMALL, loc="upper right", framealpha=0.9, edgecolor="none")
        if right.get_legend_handles_labels()[0]:
            right.legend(fontsize=SMALL, loc="upper left", framealpha=0.9, edgecolor="none", ncols=2)
    return panels


def _title(result: Any) -> str:
    if np.isnan(result.p_value):
        return f"{result.law}, no p-value"
    floor = 1 / (result.num_bootstrap + 1)
    fitted = ", fitted" if result.fitted else ""
    return f"{result.law}{fitted}\np {'≤' if result.p_value <= floor else '='} {number(max(result.p_value, floor), 2)}"


def _draw_densities(ax: Axes, curves: Mapping[str, np.ndarray]) -> None:
    x = curves["x"]
    ax.fill_between(
        x, curves["band_low"], curves["band_high"], color=UNRESOLVED, alpha=0.35, linewidth=0, label="95 % band under the law", gid="band"
    )
    ax.plot(x, curves["measured_density"], color=BULK, linewidth=1.5, label="measured", gid="measured")
    _draw_law(ax, curves)
    ax.set_xlim(float(x[0]), float(x[-1]))
    outliers = curves["outliers"]
    inside = outliers[(outliers >= x[0]) & (outliers <= x[-1])]
    if len(outliers):
        beyond = len(outliers) - len(inside)
        label = f"{len(outliers)} outlier{'s' if len(outliers) != 1 else ''}" + (f", {beyond} beyond the axis" if beyond else "")
        ax.plot(inside, np.zeros(len(inside)), "^", color=OUTLIER, markersize=5, clip_on=len(inside) == 0, label=label, gid="outliers")
    if len(curves["atom_places"]):
        _draw_atoms(ax, curves)


def _draw_law(ax: Axes, curves: Mapping[str, np.ndarray]) -> None:
    density = curves["law_density"]
    ax.plot(curves["x"], np.where(np.isfinite(density), density, np.nan), color=TEXT, linewidth=1.0, linestyle="--", label="law", gid="law")
    shown = [density[np.isfinite(density)], curves.get("measured_density", np.zeros(1)), curves.get("band_high", np.zeros(1))]
    # A density that is infinite at a hard edge would flatten everything else.
    top = max(float(np.max(shown[1])), float(np.max(shown[2])), float(np.quantile(shown[0], 0.99)) if shown[0].size else 0.0)
    ax.set_ylim(0, 1.35 * top if top > 0 else 1)


def _draw_atoms(ax: Axes, curves: Mapping[str, np.ndarray]) -> None:
    places, masses, measured = curves["atom_places"], curves["atom_masses"], curves["atom_measured"]
    twin = ax.twinx()
    for side in ("top", "left", "bottom"):
        twin.spines[side].set_visible(False)
    twin.spines["right"].set_color(OUTLIER)
    twin.tick_params(labelsize=SMALL, colors=OUTLIER)
    twin.set_ylabel("mass of an atom", fontsize=NORMAL, color=OUTLIER)
    twin.set_ylim(0, 1.35 * max(float(np.max(masses)), float(np.max(measured)), 1e-12))
    twin.vlines(places, 0, masses, color=OUTLIER, linewidth=1.2, linestyle="--", gid="atoms")
    errors = np.abs(np.stack([masses - curves["atom_low"], curves["atom_high"] - masses]))
    twin.errorbar(places, masses, yerr=errors, fmt="none", ecolor=OUTLIER, elinewidth=1.0, capsize=4)
    twin.plot(places, measured, "o", color=BULK, markersize=4, gid="measured atoms")
    ax.plot([], [], color=OUTLIER, linestyle="--", label="atom of the law, 95 %")
    ax.plot([], [], "o", color=BULK, markersize=4, label="mass measured there")
    ax.set_xlim(min(ax.get_xlim()[0], float(places.min()) - 0.03 * float(np.ptp(curves["x"]))), ax.get_xlim()[1])


def _draw_coefficients(ax: Axes, curves: Mapping[str, np.ndarray]) -> None:
    ax.axhspan(-1.96, 1.96, color=UNRESOLVED, alpha=0.35, linewidth=0, label="95 % of one")
    for name, color, marker, label in (("z_alphas", BULK, "o", "diagonal α"), ("z_betas", OUTLIER, "s", "off-diagonal β")):
        z = curves[name]
        ax.plot(np.arange(1, len(z) + 1), z, marker, color=color, markersize=3.5, label=label, gid=name)
    largest = max(float(np.max(np.abs(curves[name]), initial=0.0)) for name in ("z_alphas", "z_betas"))
    if largest > 50:
        from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

        ax.set_yscale("symlog", linthresh=2)
        ax.set_ylim(-2 * largest, 20 * largest)
        powers = [10.0**exponent for exponent in range(1, int(np.log10(2 * largest)) + 1)]
        stride = -(-len(powers) // 4)
        powers = powers[stride - 1 :: stride]
        ax.yaxis.set_major_locator(FixedLocator([-power for power in powers[::-1]] + [-2, 0, 2] + powers))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda z, _: f"{z:,.0f}".replace("-", "−") if abs(z) < 1e5 else number(z, 2)))
        ax.yaxis.set_minor_locator(NullLocator())
    else:
        ax.set_ylim(-1.2 * max(largest, 3.5), 1.7 * max(largest, 3.5))
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("Lanczos step", fontsize=NORMAL, color=TEXT)
    ax.set_ylabel("coefficient − law, standard deviations", fontsize=NORMAL, color=TEXT)


def _draw_histogram(ax: Axes, curves: Mapping[str, np.ndarray]) -> None:
    values = curves["eigenvalues"]
    bins = int(np.clip(2 * len(values) ** (1 / 3), 8, 80))
    heights, _, _ = ax.hist(values, bins=bins, density=True, color=BULK, alpha=0.45, label="eigenvalues")
    _draw_law(ax, curves)
    ax.set_ylim(0, 1.35 * float(max(ax.get_ylim()[1] / 1.35, np.max(heights))))


def _draw_counts(ax: Axes, curves: Mapping[str, np.ndarray]) -> None:
    values = curves["eigenvalues"]
    n = len(values)
    ax.axhspan(-8, 8, color=UNRESOLVED, alpha=0.25, linewidth=0, label="usual rigidity")
    ax.plot(values, np.arange(n) + 0.5 - n * curves["law_cdf"], color=BULK, linewidth=1.0, label="number − law", gid="counts")
    ax.set_xlabel("eigenvalue λ", fontsize=NORMAL, color=TEXT)
    ax.set_ylabel("eigenvalues below λ, less the law", fontsize=NORMAL, color=TEXT)


def ratio_histogram(
    ratios: np.ndarray, curves: Mapping[str, tuple[np.ndarray, np.ndarray]], ax: Axes | None = None, *, title: str | None = None
) -> Axes:
    """Draw the histogram of spacing ratios under the densities of several classes.

    Parameters
    ----------
    ratios : numpy.ndarray
        Ratios between 0 and 1, 1-D.
    curves : mapping of str to tuple of numpy.ndarray
        Places and densities, by the name of the class.
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
    if ax is None:
        ax = new_figure(6.0, 4.0).add_subplot()
    dress(ax)
    bins = int(np.clip(len(ratios) ** 0.5 / 2, 5, 40))
    ax.hist(ratios, bins=bins, range=(0, 1), density=True, color=BULK, alpha=0.45, label=f"{len(ratios):,} ratios")
    for (name, (x, density)), style in zip(curves.items(), ("--", "-", ":", "-."), strict=False):
        label = name if name == "poisson" else name.upper()
        ax.plot(x, density, color=TEXT, linewidth=1.2, linestyle=style, label=label, gid=name)
    ax.set_xlim(0, 1)
    ax.set_xlabel("smaller over larger of neighbouring spacings", fontsize=NORMAL, color=TEXT)
    ax.set_ylabel("density", fontsize=NORMAL, color=TEXT)
    if title is not None:
        ax.set_title(title, fontsize=LARGE, color=TEXT, loc="left")
    ax.legend(fontsize=SMALL, framealpha=0.9, edgecolor="none")
    return ax
