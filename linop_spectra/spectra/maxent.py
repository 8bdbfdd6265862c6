"""Maximum entropy: the density with given Chebyshev moments that assumes least.

Among all densities on an interval with the moments ``mu_0 .. mu_N`` the entropy ``-int rho log rho`` is largest for
``rho = exp(sum_j a_j T_j)``; the multipliers minimise a convex function, here by a damped Newton method.

References
----------
L. R. Mead and N. Papanicolaou, *Maximum entropy in the problem of moments*, J. Math. Phys. 25 (1984). D. Granziol, B. Ru,
S. Zohren, X. Dong, M. Osborne and S. Roberts, *MEMe: an accurate maximum entropy method for efficient approximations in
large-scale machine learning*, Entropy 21 (2019).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from .chebyshev import Interval, check_interval, check_moments, to_angle

QUADRATURE_NODES = 400
_MOST_ITERATIONS = 100
_GRADIENT = 1e-11
_SHORTEST_STEP = 1e-6
_MOST_SHORT_STEPS = 6
_TABLE = 2048


@dataclasses.dataclass(frozen=True, eq=False)
class MaximumEntropy:
    """Density ``exp(sum_j a_j T_j(t))`` of the place t in [-1, 1] of x in an interval.

    Attributes
    ----------
    multipliers : numpy.ndarray
        The coefficients a, shape (N + 1,).
    interval : tuple of float
        Ends.
    converged : bool
        Whether the moments are met to 1e-10 of the mass; otherwise no density has them, or none that the quadrature resolves.
    iterations : int
        Newton steps.
    gradient_norm : float
        Largest difference of a moment from the one asked for, as a share of the mass.
    """

    multipliers: np.ndarray
    interval: Interval
    converged: bool
    iterations: int
    gradient_norm: float

    def density(self, x: Any) -> np.ndarray:
        """Density at `x`, zero outside of the interval; it integrates to the mass."""
        x = np.asarray(x, dtype=np.float64)
        low, high = self.interval
        inside = (x >= low) & (x <= high)
        exponent = _series(self.multipliers, to_angle(x, self.interval))
        return np.where(inside, np.exp(np.where(inside, exponent, 0.0)) * 2 / (high - low), 0.0)

    def cdf(self, x: Any) -> np.ndarray:
        """Mass at or below `x`."""
        places, masses = self._table
        return np.interp(np.asarray(x, dtype=np.float64), places, masses)

    @functools.cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = self.interval
        angle = np.pi * np.arange(_TABLE + 1) / _TABLE
        t, w = np.polynomial.legendre.leggauss(3)
        at = (angle[:-1, None] + angle[1:, None]) / 2 + np.pi / (2 * _TABLE) * t
        pieces = (np.exp(_series(self.multipliers, np.pi - at)) * np.sin(at)) @ w * (np.pi / (2 * _TABLE))
        return (low + high) / 2 - (high - low) / 2 * np.cos(angle), np.concatenate([[0.0], np.cumsum(pieces)])


def maximum_entropy(moments: Any, interval: Any = (-1.0, 1.0)) -> MaximumEntropy:
    """Density of maximum entropy with given Chebyshev moments.

    Parameters
    ----------
    moments : array
        Chebyshev moments from degree 0 (the mass) on, shape (N + 1,); those of a measure without atoms: take isolated
        eigenvalues out first.
    interval : tuple of float
        Ends of the interval that the moments refer to.

    Returns
    -------
    MaximumEntropy
        With ``converged`` False where no density has these moments.

    Raises
    ------
    ValueError
        When an argument is wrong.

    Examples
    --------
    >>> uniform = maximum_entropy([1.0, 0.0, -1 / 3])
    >>> uniform.density([-0.9, 0.0, 0.5]).round(9)
    array([0.5, 0.5, 0.5])
    """
    interval = check_interval(interval)
    moments = check_moments(moments)
    mass, target = float(moments[0]), moments / moments[0]
    t, w = _quadrature()
    if len(target) > QUADRATURE_NODES // 2:
        raise ValueError(f"The argument moments holds {len(target)} numbers; at most {QUADRATURE_NODES // 2} can be used.")
    basis = np.polynomial.chebyshev.chebvander(t, len(target) - 1).T
    a = np.zeros(len(target))
    a[0] = -np.log(2.0)

    def dual(a: np.ndarray) -> tuple[float, np.ndarray]:
        exponent = a @ basis
        if exponent.max() > 600:
            return np.inf, exponent
        density = w * np.exp(exponent)
        return float(density.sum() - a @ target), density

    value, density = dual(a)
    gradient = basis @ density - target
    size, iterations, short = float(np.max(np.abs(gradient))), 0, 0
    # Where no density has the moments the multipliers run away, in ever shorter steps.
    while size > _GRADIENT and iterations < _MOST_ITERATIONS and short < _MOST_SHORT_STEPS:
        step = _newton_step((basis * density) @ basis.T, gradient)
        slope, length = float(gradient @ step), 1.0
        while length > _SHORTEST_STEP:
            new_value, new_density = dual(a + length * step)
            if new_value <= value + 1e-4 * length * slope:
                break
            if abs(slope) < 1e-10 and np.isfinite(new_value) and np.max(np.abs(basis @ new_density - target)) < size:
                break  # the value has no digits left, the gradient has
            length /= 4
        else:
            break
        short = short + 1 if length < 0.01 else 0
        iterations += 1
        a, value, density = a + length * step, new_value, new_density
        gradient = basis @ density - target
        size = float(np.max(np.abs(gradient)))
    a = a.copy()
    a[0] += np.log(mass)
    return MaximumEntropy(a, interval, size <= 1e-10, iterations, size)


@functools.cache
def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    from scipy import special

    nodes, weights = special.roots_legendre(QUADRATURE_NODES)
    return np.asarray(nodes), np.asarray(weights)


def _newton_step(hessian: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Solution of ``hessian step = -gradient``, with the least shift that makes it well posed."""
    from scipy import linalg

    scale, shift = float(np.trace(hessian)) / len(hessian), 0.0
    for _ in range(20):
        try:
            factor = linalg.cho_factor(hessian + shift * np.eye(len(hessian)))
            return np.asarray(-linalg.cho_solve(factor, gradient))
        except linalg.LinAlgError:
            shift = max(10 * shift, 1e-15 * scale)
    return -gradient / scale


def _series(coefficients: np.ndarray, angle: np.ndarray) -> np.ndarray:
    out = np.full(angle.shape, coefficients[0])
    for degree in range(1, len(coefficients)):
        out += coefficients[degree] * np.cos(degree * angle)
    return out
