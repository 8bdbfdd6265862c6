"""The attracting fixed point of an analytic map of the upper half-plane, by Newton's method with continuation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .law import SpectralLaw

Map = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(omega, z) to the image of omega and its derivative by omega."""

_ROUNDING = 1e-14
_LOWEST = 1e-13
"""Least height above the real line, in units of the scale, at which a point is still continued."""


def fixed_point(image: Map, z: np.ndarray, scale: float, *, relative: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Fixed point in the closed upper half-plane of ``omega -> image(omega, z)``, for each z in the closed upper half-plane.

    An analytic map of the half-plane into itself has at most one fixed point at which the modulus of its derivative is below one,
    inside or, as a limit, on the real line; it is the wanted one (the theorem of Denjoy and Wolff). So any point to which Newton's
    method converges is either recognised or refused by the derivative alone. What is refused is tried again from the solution
    at a smaller height of z above the real line.

    Parameters
    ----------
    image : callable
        The map and its derivative, vectorised.
    z : numpy.ndarray
        Complex, shape (m,).
    scale : float
        Length of the problem, such as the width of the support.
    relative : bool
        Converge relative to omega rather than to the scale, for laws that are unbounded at zero.

    Returns
    -------
    omega : numpy.ndarray
        Complex, shape (m,).
    recognised : numpy.ndarray
        Whether the derivative there is that of the wanted fixed point, or nearly so at an edge; boolean, shape (m,).

    References
    ----------
    S. T. Belinschi and H. Bercovici, *A new approach to subordination results in free probability*, J. Anal. Math. 101 (2007).
    """
    out = np.full(z.shape, np.nan, dtype=np.complex128)
    height = np.full(z.shape, 4.0 * scale)
    ratio = np.full(z.shape, 0.25)
    omega = z + 1j * height
    for _ in range(200):  # at the first height the map contracts strongly
        following = image(omega, z + 1j * height)[0]
        change = np.abs(following - omega)
        omega = following
        if np.all(~(change > 1e-3 * scale)):
            break
    recognised = np.zeros(z.shape, dtype=bool)
    left = np.arange(len(z))
    floor = 0.0 if relative else scale
    for _ in range(120):
        if len(left) == 0:
            break
        found, good = _newton(
            image, omega[left], z[left], floor, real=z[left].imag == 0, most=np.where(height[left] > 1e-6 * scale, 14, 40)
        )
        out[left[good]] = found[good]
        recognised[left[good]] = True
        left = left[~good]
        if len(left) == 0:
            break
        lower = height[left] * ratio[left]
        found, good = _newton(
            image, omega[left], z[left] + 1j * lower, floor, real=np.zeros(len(left), dtype=bool), most=np.full(len(left), 20)
        )
        down = left[good]
        omega[down], height[down] = found[good], lower[good]
        ratio[down] = np.maximum(0.05, ratio[down] ** 1.5)
        ratio[left[~good]] = np.sqrt(ratio[left[~good]])
        # Nothing moves any more: the solution a rounding above z is the solution.
        low = height[left] < _LOWEST * np.maximum(np.abs(z[left]), floor)
        recognised[left[low]] = True
        ended = low | (ratio[left] > 0.99)
        out[left[ended]] = omega[left[ended]]
        left = left[~ended]
    out[left] = omega[left]
    _bridge(image, z, out, scale)
    return out, recognised


def _bridge(image: Map, z: np.ndarray, omega: np.ndarray, scale: float) -> None:
    """Solutions where the map is the identity, as for two laws of two atoms at their common centre: means over the neighbours."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        flat = (omega.imag > 1e-6 * scale) & (np.abs(image(omega, z)[1] - 1) < 1e-9)
    if np.any(flat):
        step = 3e-6 * scale
        sides = [fixed_point(image, z[flat] + shift, scale)[0] for shift in (-step, step)]
        omega[flat] = (sides[0] + sides[1]) / 2


def _newton(
    image: Map, omega: np.ndarray, z: np.ndarray, floor: float, real: np.ndarray, most: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Newton's method; where `real` holds a point that would leave the half-plane is put on the real line, elsewhere its step is cut."""
    omega = omega.copy()
    good = np.zeros(omega.shape, dtype=bool)
    active = np.arange(len(omega))
    last = np.full(omega.shape, np.inf)
    for turn in range(40):
        here = omega[active]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            value, slope = image(here, z[active])
            residual = value - here
            size = floor + np.abs(here)
            step = residual / (1 - slope)
            # A step much longer than the problem is wide leads nowhere.
            step = step * np.minimum(1.0, 4 * size / np.maximum(np.abs(step), 1e-300))
            new = here + step
            length = np.abs(step)
            # Short and no longer halving: what is left is rounding.
            stuck = (length <= 1e-10 * size) & (length > 0.5 * last[active])
            small = stuck | (length <= _ROUNDING * size) | ((np.abs(residual) <= 0.3 * _ROUNDING * size) & (length <= 1e-6 * size))
            # On the real line the derivative of a map of the half-plane is not negative.
            accepted = small & (np.abs(slope) <= 1 + 1e-5) & ((here.imag > 0) | (slope.real >= -1e-6))
        last[active] = length
        broken = ~np.isfinite(new)
        below = new.imag < 0
        new = np.where(below & real[active], new.real, np.where(below, new.real + 0.2j * here.imag, new))
        omega[active] = np.where(broken, here, new)
        good[active] = accepted & ~broken
        active = active[~(small | broken | (turn + 1 >= most[active]))]
        if len(active) == 0:
            break
    return omega, good


def cauchy_with_slope(law: SpectralLaw, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cauchy transform and its derivative at points of the closed upper half-plane off the law."""
    value = -np.asarray(law.stieltjes(z), dtype=np.complex128)
    exact = getattr(law, "_cauchy_slope", None)
    if exact is not None:
        return value, np.asarray(exact(z))
    gap = np.full(z.shape, np.inf)
    for a, b in [*law.support, *((place, place) for place, _ in law.atoms)]:
        gap = np.minimum(gap, np.hypot(z.imag, z.real - np.clip(z.real, a, b)))
    # Sideways, within the disc in which the transform is analytic.
    step = 1e-4 * np.maximum(gap, 1e-9 * (1 + np.abs(z)))
    return value, (np.asarray(law.stieltjes(z - step)) - np.asarray(law.stieltjes(z + step))) / (2 * step)


def self_energy_with_slope(law: SpectralLaw, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Self-energy ``z - 1 / G(z)``, which is R(G(z)), and its derivative; without cancellation where the law offers that."""
    exact = getattr(law, "_self_energy", None)
    if exact is not None:
        value, slope = exact(z)
        return np.asarray(value), np.asarray(slope)
    value, slope = cauchy_with_slope(law, z)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return z - 1 / value, 1 + slope / value**2
