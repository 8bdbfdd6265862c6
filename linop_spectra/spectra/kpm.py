"""Kernel polynomial method: a density from damped Chebyshev moments.

References
----------
A. Weiße, G. Wellein, A. Alvermann and H. Fehske, *The kernel polynomial method*, Rev. Mod. Phys. 78 (2006), section II.C.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np

from .chebyshev import Interval, check_interval, check_moments, to_angle

Kernel = Literal["jackson", "lorentz", "none"]
LORENTZ_SHARPNESS = 4.0
"""Of the Lorentz kernel: its resolution is this share of the half-width over the number of moments."""


def damping(count: int, kernel: Kernel = "jackson") -> np.ndarray:
    """Factors of the Chebyshev moments 0 to ``count - 1``, shape (count,).

    Parameters
    ----------
    count : int
        Number of moments N.
    kernel : {"jackson", "lorentz", "none"}
        Jackson's is non-negative with the least width; Lorentz's approaches Lorentz curves, for Green's functions; without
        one the series overshoots at edges (Gibbs) and can be negative.

    Raises
    ------
    ValueError
        When the kernel is not known.
    """
    n = np.arange(count)
    if kernel == "jackson":
        q = np.pi / (count + 1)
        return ((count - n + 1) * np.cos(q * n) + np.sin(q * n) / np.tan(q)) / (count + 1)
    if kernel == "lorentz":
        return np.asarray(np.sinh(LORENTZ_SHARPNESS * (1 - n / count)) / np.sinh(LORENTZ_SHARPNESS))
    if kernel == "none":
        return np.ones(count)
    raise ValueError(f"The argument kernel is {kernel!r}, but must be 'jackson', 'lorentz' or 'none'.")


@dataclasses.dataclass(frozen=True, eq=False)
class KernelPolynomial:
    """Density of a damped Chebyshev series on an interval.

    Parameters
    ----------
    moments : array
        Chebyshev moments from degree 0 on, shape (N,); the first one is the mass.
    interval : tuple of float
        Ends of the interval that holds the measure.
    kernel : {"jackson", "lorentz", "none"}
        See `damping`.

    Examples
    --------
    The moments of the arcsine law are 1, 0, 0, ...

    >>> arcsine = KernelPolynomial(np.array([1.0, 0.0, 0.0]), (-1.0, 1.0))
    >>> float(arcsine.density(0.0).round(6)), float(arcsine.cdf(0.0))
    (0.31831, 0.5)
    """

    moments: np.ndarray
    interval: Interval
    kernel: Kernel = "jackson"

    def __post_init__(self) -> None:
        moments, interval = check_moments(self.moments), check_interval(self.interval)
        object.__setattr__(self, "interval", interval)
        object.__setattr__(self, "moments", moments)
        object.__setattr__(self, "_damped", moments * damping(len(moments), self.kernel))

    @property
    def resolution(self) -> float:
        """Width at the centre of the interval below which nothing is told apart: ``pi d / N`` for the half-width d (Jackson)."""
        low, high = self.interval
        share = LORENTZ_SHARPNESS if self.kernel == "lorentz" else np.pi
        return float(share * (high - low) / 2 / len(self.moments))

    def density(self, x: Any) -> np.ndarray:
        """Density at `x`, zero outside of the interval; it integrates to the mass."""
        x = np.asarray(x, dtype=np.float64)
        low, high = self.interval
        inside = (x > low) & (x < high)
        at = np.where(inside, x, (low + high) / 2)
        # At the very ends the weight of the series is infinite: stay a unit of rounding away.
        closest = np.finfo(float).eps * (high - low)
        root = np.sqrt(np.maximum(at - low, closest)) * np.sqrt(np.maximum(high - at, closest))
        angle = to_angle(at, self.interval)
        coefficients = self._damped.copy()  # type: ignore[attr-defined]
        coefficients[1:] *= 2
        series = _cosine_series(coefficients, angle)
        if self.kernel != "none":
            series = np.maximum(series, 0.0)  # kernels are positive, sums of them up to rounding
        return np.where(inside, series / (np.pi * root), 0.0)

    def cdf(self, x: Any) -> np.ndarray:
        """Mass at or below `x`, in closed form."""
        angle = to_angle(np.asarray(x, dtype=np.float64), self.interval)
        damped = self._damped  # type: ignore[attr-defined]
        out = damped[0] * (1 - angle / np.pi)
        for degree in range(1, len(damped)):
            out = out - 2 * damped[degree] * np.sin(degree * angle) / (degree * np.pi)
        return np.asarray(out)


def _cosine_series(coefficients: np.ndarray, angle: np.ndarray) -> np.ndarray:
    out = np.full(angle.shape, coefficients[0])
    for degree in range(1, len(coefficients)):
        out += coefficients[degree] * np.cos(degree * angle)
    return out
