"""R- and S-transforms of any law, by numerical inversion of its Cauchy transform."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .law import SpectralLaw

Transform = Callable[[np.ndarray], np.ndarray]

_CUMULANTS = 12
_SMALL = 0.01
"""Below this product of w and the radius of the law the power series is exact to rounding, and the inversion would cancel."""


def points(w: Any) -> np.ndarray:
    """Real or complex points in double precision, or a ValueError."""
    w = np.asarray(w)
    try:
        w = w.astype(np.complex128 if np.iscomplexobj(w) else np.float64)
    except (TypeError, ValueError):
        raise ValueError("The argument w must hold numbers.") from None
    if not np.all(np.isfinite(w)):
        raise ValueError("The argument w must be finite.")
    return w


def ends(law: SpectralLaw) -> tuple[float, float]:
    """Lowest and highest place of a law, of its atoms too."""
    places = [place for interval in law.support for place in interval] + [place for place, _ in law.atoms]
    return min(places), max(places)


def closed_cauchy(law: SpectralLaw, z: np.ndarray) -> np.ndarray:
    """Cauchy transform at any complex point, from values in the closed upper half-plane only."""
    value = -np.asarray(law.stieltjes(np.where(z.imag < 0, z.conj(), z)), dtype=np.complex128)
    return np.where(z.imag < 0, value.conj(), value)


def free_cumulants(moments: np.ndarray) -> np.ndarray:
    """Free cumulants 1 to n of the moments 0 to n, by the recursion over non-crossing partitions.

    With ``M(z) = sum m_k z^k`` the cumulants solve ``M(z) = 1 + sum kappa_s z^s M(z)^s`` (R. Speicher, *Multiplicative functions on the
    lattice of non-crossing partitions and free convolution*, Math. Ann. 298, 1994).
    """
    n = len(moments) - 1
    powers = [np.r_[1.0, np.zeros(n)]]
    for _ in range(n):
        powers.append(np.convolve(powers[-1], moments)[: n + 1])
    cumulants = np.zeros(n + 1)
    for k in range(1, n + 1):
        cumulants[k] = moments[k] - sum(cumulants[s] * powers[s][k - s] for s in range(1, k))
    return cumulants[1:]


def centred_cumulants(law: SpectralLaw, centre: float, radius: float) -> np.ndarray:
    """Free cumulants 1 to 12 of ``(lambda - centre) / radius``, without cancellation when the radius is small."""
    if law.support:
        nodes, weights = law.gauss_rule(_CUMULANTS // 2 + 1)
    else:
        nodes, weights = np.array(law.atoms).T
    x = (nodes - centre) / radius
    return free_cumulants(np.array([weights @ x**k for k in range(_CUMULANTS + 1)]))


def r_transform(law: SpectralLaw, w: Any) -> Any:
    """``K(w) - 1 / w`` with K the inverse of the Cauchy transform; the series of free cumulants where that cancels."""
    w = points(w)
    low, high = ends(law)
    flat = w.ravel()
    out = np.empty_like(flat)
    radius = high - low
    if radius == 0:
        return _number(np.full_like(w, low))
    small = np.abs(flat) * radius <= _SMALL if math.isfinite(radius) else flat == 0
    if np.any(small):
        if math.isfinite(radius):
            mean = law.mean()
            cumulants = centred_cumulants(law, mean, radius)
            out[small] = mean + radius * np.polynomial.polynomial.polyval(flat[small] * radius, cumulants)
        else:
            out[small] = law.mean()
    rest = ~small
    if np.any(rest):
        out[rest] = inverse_cauchy(law, flat[rest]) - 1 / flat[rest]
    return _number(out.reshape(w.shape))


def inverse_cauchy(law: SpectralLaw, w: np.ndarray) -> np.ndarray:
    """Point outside the law where its Cauchy transform is `w`, or a ValueError; `w` 1-D and not zero."""
    if np.iscomplexobj(w):
        off = w.imag != 0
        out = np.empty_like(w)
        if np.any(off):
            low, high = ends(law)
            if not math.isfinite(high - low):
                raise ValueError("The argument w is complex, but a law without finite ends has its inverse on real points only.")

            def start(v: np.ndarray) -> np.ndarray:
                return 1 / v + np.asarray(r_transform(law, v))

            out[off] = _continue(lambda u: closed_cauchy(law, u), w[off], start, _SMALL / 2 / (high - low), (low, high))
        if np.any(~off):
            out[~off] = inverse_cauchy(law, w[~off].real)
        return out
    low, high = ends(law)
    out = np.empty_like(w)
    for sign, near, far in ((1.0, high, low), (-1.0, low, high)):
        side = np.sign(w) == sign
        if not np.any(side):
            continue
        if not math.isfinite(near):
            raise ValueError(f"The argument w has the value {w[side][0]:.6g}, but the law has no finite end on that side.")
        # With t the distance from the law, 1 / (t + width) <= |G| <= 1 / t.
        target = np.abs(w[side])
        reach = 1 / target

        def height(t: np.ndarray, near: float = near, sign: float = sign) -> np.ndarray:
            return sign * closed_cauchy(law, near + sign * t)

        width = abs(far - near)
        least = max(1e-13 * max(width if math.isfinite(width) else 1.0, abs(near)), 1e-300)
        lower = np.maximum(reach - width, least) if math.isfinite(width) else np.full_like(reach, least)
        top = height(np.array([least + 0j]))[0].real
        if np.any(target > top * (1 + 1e-5)):
            worst = sign * target.max()
            raise ValueError(
                f"The argument w has the value {worst:.6g}, but outside this law the Cauchy transform stays "
                f"{'below' if sign > 0 else 'above'} {sign * top:.6g}; its inverse does not exist there."
            )
        out[side] = near + sign * _falling_root(height, target, lower, np.maximum(reach, lower))
    return out


def s_transform(law: SpectralLaw, w: Any) -> Any:
    """``(1 + w) / (w u)`` where ``u G(u) - 1 = w``; by the R-transform near zero, where that cancels."""
    w = points(w)
    low, high = ends(law)
    if low < 0:
        raise ValueError(f"The S-transform is defined here for laws on the non-negative numbers, but this law begins at {low:.6g}.")
    mean = law.mean()
    if not 0 < mean < math.inf:
        raise ValueError(f"The S-transform needs a positive finite mean, but that of this law is {mean}.")
    if not math.isfinite(high):
        raise ValueError("The S-transform needs a law with a finite upper end.")
    flat = w.ravel()
    out = np.empty_like(flat)
    small = np.abs(flat) * max(1.0, high / mean) <= _SMALL / 2
    if np.any(small):
        out[small] = 1 / mean
        for _ in range(60):  # a contraction: R changes by less than its fiftieth part here
            out[small] = 1 / np.asarray(r_transform(law, flat[small] * out[small]))
    rest = ~small
    if np.any(rest):
        v = flat[rest]
        out[rest] = (1 + v) / (v * _inverse_eta(law, v, mean, high))
    return _number(out.reshape(w.shape))


def _inverse_eta(law: SpectralLaw, w: np.ndarray, mean: float, high: float) -> np.ndarray:
    """Point u outside the law where ``u G(u) - 1 = w``."""

    def eta(u: np.ndarray) -> np.ndarray:
        return u * closed_cauchy(law, u) - 1

    if np.iscomplexobj(w):
        off = w.imag != 0
        out = np.empty_like(w)
        if np.any(off):

            def start(v: np.ndarray) -> np.ndarray:
                return (1 + v) / (v * np.asarray(s_transform(law, v)))

            out[off] = _continue(eta, w[off], start, _SMALL / 4 / max(1.0, high / mean), (0.0, high))
        if np.any(~off):
            out[~off] = _inverse_eta(law, w[~off].real, mean, high)
        return out
    out = np.empty_like(w)
    up, down = w > 0, w < 0
    if np.any(up):
        least = 1e-13 * high
        top = eta(np.array([high + least + 0j]))[0].real
        if np.any(w[up] > top * (1 + 1e-5)):
            raise ValueError(
                f"The argument w has the value {w[up].max():.6g}, but outside this law the S-transform exists only below {top:.6g}."
            )
        target = w[up]
        out[up] = high + _falling_root(lambda t: eta(high + t), target, np.full_like(target, least), np.maximum(high / target, least))
    if np.any(down):
        target = -w[down]
        least = 1e-280 * mean
        zero = sum(mass for place, mass in law.atoms if place == 0)
        lower = np.full_like(target, least)
        short = target >= 1 - zero
        if np.any(short):
            raise ValueError(
                f"The argument w has the value {-target.max():.6g}, but the S-transform exists only above {zero - 1:.6g}, minus the mass "
                "that is not at zero."
            )
        out[down] = -_falling_root(lambda t: -eta(-t), target, lower, mean / target)
    return out


def _falling_root(function: Transform, target: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Root t of ``function(t) = target`` in [low, high], for a positive function that falls; safeguarded Newton steps on 1 / function.

    The function takes complex t; its derivative is the imaginary part of a step into the complex plane, which does not cancel.
    """
    low, high = low.copy(), high.copy()
    t = high.copy()
    for _ in range(300):
        step = 1e-8 * t
        value = function(t + 1j * step)
        here, slope = value.real, value.imag / step
        low = np.where(here >= target, np.maximum(low, t), low)
        high = np.where(here <= target, np.minimum(high, t), high)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            # 1 / f = 1 / target, linearised: 1 / f is nearly linear far from the law
            newton = t + here * (here - target) / target / -slope
        inside = np.isfinite(newton) & (newton > low) & (newton < high)
        geometric = np.sqrt(low) * np.sqrt(high)
        # The middle of the exponents finds the scale, the arithmetic one the digits.
        middle = np.where(high > 4 * low, geometric, (low + high) / 2)
        new = np.where(inside, newton, middle)
        done = (np.abs(new - t) <= 4e-16 * t) | (high - low <= 4e-16 * high)
        t = new
        if np.all(done):
            break
    return t


def _continue(function: Transform, w: np.ndarray, start: Transform, small: float, law: tuple[float, float]) -> np.ndarray:
    """Solution u of ``function(u) = w`` off the real line, by Newton's method along the ray from zero to `w`."""
    size = np.abs(w)
    first = np.minimum(1.0, small / size)
    u = start(w * first)
    steps = 48
    for j in range(1, steps + 1):
        share = first ** (1 - j / steps)
        # Along the ray K(w) is near 1 / w; the difference moves slowly.
        before = first ** (1 - (j - 1) / steps)
        u = u + 1 / (w * share) - 1 / (w * before)
        for _ in range(30 if j == steps else 4):
            # Distance from the interval that holds the law.
            distance = np.hypot(u.imag, u.real - np.clip(u.real, *law))
            step = 1e-5 * distance
            value = function(u)
            slope = (function(u + step) - function(u - step)) / (2 * step)
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                move = (value - w * share) / slope
            # At most half the distance, so that no step crosses the law.
            move = move * np.minimum(1.0, 0.5 * distance / np.maximum(np.abs(move), 1e-300))
            u = u - move
            if np.all(np.abs(move) <= 1e-15 * np.abs(u)):
                break
    error = np.abs(function(u) - w) / size
    bad = ~(error < 1e-9) | (np.sign(u.imag) != -np.sign(w.imag))
    if np.any(bad):
        raise ValueError(
            f"The argument w has the value {w[bad][0]:.6g}, which the transform of this law does not take outside the law; "
            "its inverse does not exist there."
        )
    return u


def _number(x: np.ndarray) -> Any:
    return x.item() if x.ndim == 0 else x
