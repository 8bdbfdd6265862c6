"""What part of the plane a spectrum needs: scale and limits of both axes, computed before anything is drawn."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The axis is linear unless the whole spectrum is this many times wider than its bulk.
LINEAR_UP_TO = 12.0
# On the compressed axis the bulk takes about log10(2 * this) decades on each side.
LINEAR_SHARE = 30.0
# Decades of density that are worth drawing.
MOST_DECADES = 9.0
# Above the peak, for the legend.
HEADROOM = 40.0
# On either side of the spectrum, as a share of its width on the axis.
MARGIN = 0.04


@dataclasses.dataclass(frozen=True)
class View:
    """Scales and limits of one figure.

    Attributes
    ----------
    low, high : float
        Ends of the spectrum; the axis reaches a little further, see `limits`.
    linear_width : float or None
        Width around zero that an inverse hyperbolic sine axis leaves linear; None for a linear axis.
    bottom, top : float
        Ends of the logarithmic density axis.
    """

    low: float
    high: float
    linear_width: float | None
    bottom: float
    top: float

    @classmethod
    def of(cls, result: Any, xscale: str = "auto") -> View:
        """The view that shows all of `result`.

        Parameters
        ----------
        result : SpectralDensity
            Anything with its attributes.
        xscale : str
            ``"linear"``, ``"asinh"``, or ``"auto"``, which takes the second where the outliers lie far outside the bulk.
        """
        if xscale not in ("auto", "linear", "asinh"):
            raise ValueError(f"The argument xscale is {xscale!r}; pass 'auto', 'linear' or 'asinh'.")
        edges = np.asarray(result.bulk_edges(), dtype=float)
        points = np.concatenate([edges, np.asarray(result.nodes, dtype=float)])
        points = points[np.isfinite(points)]
        low, high = float(points.min()), float(points.max())
        span = high - low
        bulk = float(np.ptp(edges)) if np.all(np.isfinite(edges)) else span
        if span == 0:  # a multiple of the identity
            span = abs(high) or 1.0
        bulk = bulk if bulk > 0 else span
        wide = span > LINEAR_UP_TO * bulk if xscale == "auto" else xscale == "asinh"
        width = max(float(result.noise_floor), bulk / LINEAR_SHARE) if wide else None
        return cls(low, high, width, 0.0, 1.0)._with_heights(result, bulk)

    @property
    def limits(self) -> tuple[float, float]:
        """Ends of the eigenvalue axis: those of the spectrum and a margin."""
        t = self.forward(np.array([self.low, self.high]))
        margin = MARGIN * (float(np.ptp(t)) or float(np.abs(t[0])) or 1.0)
        left, right = self.backward(t + np.array([-margin, margin]))
        return float(left), float(right)

    def _with_heights(self, result: Any, bulk: float) -> View:
        n = int(result.dimension)
        weights = [outlier.weight for outlier in result.outliers() if outlier.weight > 0]
        density = np.asarray(result.density(self.grid(result), outliers=False), dtype=float)
        density = density[np.isfinite(density) & (density > 0)]
        peak = float(density.max()) if density.size else max(weights, default=1.0)
        # Below one eigenvalue over the whole width of the bulk a density says nothing.
        top = HEADROOM * max([peak, *weights])
        bottom = max(0.4 * min(1.0 / (n * bulk), peak / 10), top * 10.0**-MOST_DECADES)
        bottom = min([bottom, *(0.4 * weight for weight in weights)])
        return dataclasses.replace(self, bottom=bottom, top=top)

    def union(self, other: View) -> View:
        """The view that holds both."""
        widths = [width for width in (self.linear_width, other.linear_width) if width is not None]
        return View(
            min(self.low, other.low), max(self.high, other.high), min(widths) if widths else None,
            min(self.bottom, other.bottom), max(self.top, other.top),
        )

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Eigenvalues to places on the axis."""
        return x if self.linear_width is None else np.arcsinh(x / self.linear_width)

    def backward(self, t: np.ndarray) -> np.ndarray:
        """Places on the axis to eigenvalues."""
        return t if self.linear_width is None else self.linear_width * np.sinh(t)

    def grid(self, result: Any, points: int = 1200) -> np.ndarray:
        """Places to evaluate the density at: evenly over the axis, and at every node, so that no narrow peak is missed."""
        first, last = self.forward(np.array(self.limits))
        t = np.linspace(first, last, points)
        nodes = np.asarray(result.nodes, dtype=float)
        return np.unique(np.concatenate([self.backward(t), nodes[(nodes >= self.low) & (nodes <= self.high)]]))

    def apply(self, ax: Axes) -> None:
        """Set scales, limits and ticks of `ax`."""
        ax.set_yscale("log")
        ax.set_ylim(self.bottom, self.top)
        if self.linear_width is not None:
            from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

            ax.set_xscale("asinh", linear_width=self.linear_width)
            ax.xaxis.set_major_locator(FixedLocator(self.ticks()))
            ax.xaxis.set_minor_locator(NullLocator())
            ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}".replace("-", "−")))
        ax.set_xlim(*self.limits)

    def ticks(self) -> list[float]:
        """Zero and signed powers of ten, thinned out until their labels fit."""
        assert self.linear_width is not None
        left, right = self.limits
        nearest = 0.0 if left <= 0 <= right else min(abs(left), abs(right))
        first = math.ceil(math.log10(max(self.linear_width, nearest)))
        last = math.floor(math.log10(max(abs(left), abs(right), 10.0**first)))
        stride = max(1, math.ceil((last - first + 1) / 5))
        powers = [10.0**exponent for exponent in range(last, first - 1, -stride)]
        candidates = {0.0, *powers, *(-power for power in powers)}
        return sorted(tick for tick in candidates if left <= tick <= right)
