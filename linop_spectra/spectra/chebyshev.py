"""Moments of a discrete measure: Chebyshev moments on an interval, and powers without overflow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Interval = tuple[float, float]


def check_interval(interval: Any) -> Interval:
    """An interval (low, high) of finite numbers with low < high, or a ValueError that names the argument."""
    try:
        low, high = (float(end) for end in interval)
    except (TypeError, ValueError):
        raise ValueError(f"The argument interval must be a pair (low, high) of numbers, but is {interval!r}.") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"The argument interval must be a pair (low, high) of finite numbers with low < high, but is {interval!r}.")
    return low, high


def check_moments(moments: Any) -> np.ndarray:
    """Chebyshev moments that a measure of positive mass can have, or a ValueError that says what is wrong."""
    moments = np.asarray(moments, dtype=np.float64)
    if moments.ndim != 1 or len(moments) == 0:
        raise ValueError(f"The argument moments must be a 1-D array of at least one number, but has shape {moments.shape}.")
    if not np.all(np.isfinite(moments)):
        raise ValueError(f"The argument moments holds {moments[~np.isfinite(moments)][0]}; pass finite numbers.")
    if not moments[0] > 0:
        raise ValueError(f"The first of the moments is the mass and must be positive, but is {moments[0]:.6g}.")
    if np.max(np.abs(moments)) > moments[0] * (1 + 1e-9):
        raise ValueError(
            f"The argument moments holds {moments[np.argmax(np.abs(moments))]:.6g}, but Chebyshev moments never exceed the mass, here "
            f"{moments[0]:.6g}, in modulus; does the interval hold the whole measure?"
        )
    return moments


def to_angle(x: np.ndarray, interval: Interval) -> np.ndarray:
    """Angle in [0, pi] whose cosine is the place of `x` in the interval; what lies outside goes to its end."""
    low, high = interval
    # The half-angle form keeps its digits at both ends of the interval.
    return np.asarray(2 * np.arctan2(np.sqrt(np.clip(high - x, 0, None)), np.sqrt(np.clip(x - low, 0, None))))


def chebyshev_moments(nodes: np.ndarray, weights: np.ndarray, count: int, interval: Interval) -> np.ndarray:
    """Chebyshev moments ``mu_i = sum_j w_j T_i(t_j)`` of a discrete measure, with the interval mapped to [-1, 1].

    For the Gauss rule of a Lanczos run this is ``e_1^T T_i(T_k) e_1``, the moment of the probe's measure for ``i <= 2 k - 1``.

    Parameters
    ----------
    nodes, weights : numpy.ndarray
        Places and masses, shape (k,); every node within the interval.
    count : int
        Number of moments, the mass (i = 0) included.
    interval : tuple of float
        Ends.

    Returns
    -------
    numpy.ndarray
        Moments 0 to ``count - 1``, shape (count,).

    Examples
    --------
    >>> chebyshev_moments(np.array([-1.0, 1.0]), np.array([0.5, 0.5]), 4, (-1.0, 1.0))
    array([1., 0., 1., 0.])
    """
    angle = to_angle(nodes, interval)
    return np.array([weights @ np.cos(degree * angle) for degree in range(count)])


def power_moment(nodes: np.ndarray, weights: np.ndarray, p: int) -> float:
    """Mean of the p-th powers, which overflows only where the moment itself is no number of double precision.

    Raises
    ------
    ValueError
        When `p` is not a whole number of at least 0.
    OverflowError
        When the moment is larger than any number of double precision.
    """
    if isinstance(p, (bool, np.bool_)) or not isinstance(p, (int, np.integer)) or p < 0:
        raise ValueError(f"The argument p must be a whole number of at least 0, but is {p!r}.")
    largest = float(np.max(np.abs(nodes)))
    if largest == 0.0:
        return 1.0 if p == 0 else 0.0
    _, exponent = math.frexp(largest)
    # Scaling by a power of two rounds nothing.
    scaled = float(np.sum(weights * np.ldexp(nodes, -exponent) ** int(p)))
    try:
        return math.ldexp(scaled, exponent * int(p))
    except OverflowError:
        raise OverflowError(
            f"The moment of order {p} is beyond the range of double precision (the largest node is {largest:.3g}); "
            "divide the operator by its norm first."
        ) from None
