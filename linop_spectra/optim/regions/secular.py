"""Cubic-regularised and trust-region problems whose matrix is diagonal: one equation in one number."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple, Protocol

import numpy as np
from scipy.optimize import brentq

_ROUNDING = 4 * float(np.finfo(np.float64).eps)
_TINY = 1e-290


class DiagonalStep(NamedTuple):
    """Solution in the eigenbasis.

    Attributes
    ----------
    coefficients : numpy.ndarray
        Of the step, shape (k,).
    multiplier : float
        The shift lambda of ``(A + lambda I) s = -g``.
    hard_case : bool
        Whether the gradient has no part along the lowest eigenvector, and the step has one all the same.
    """

    coefficients: np.ndarray
    multiplier: float
    hard_case: bool


class Region(Protocol):
    """What keeps a step short: it asks for a norm of the step at each shift."""

    def norm_at(self, shift: float) -> float:
        """Norm that the step has to have at this shift."""

    def largest_shift(self, gradient_norm: float) -> float:
        """Shift by which the step is too short if the matrix is positive semidefinite."""

    def interior(self, norm: float) -> bool:
        """Whether a step of this norm needs no shift."""

    def penalty(self, norm: float) -> float:
        """What is added to the quadratic model for a step of this norm."""


@dataclasses.dataclass(frozen=True)
class Ball:
    """Steps of norm `radius` at most."""

    radius: float

    def norm_at(self, shift: float) -> float:
        """The radius."""
        return self.radius

    def largest_shift(self, gradient_norm: float) -> float:
        """``|g| / radius``."""
        return gradient_norm / self.radius

    def interior(self, norm: float) -> bool:
        """Whether the step lies inside."""
        return norm <= self.radius

    def penalty(self, norm: float) -> float:
        """Nothing."""
        return 0.0


@dataclasses.dataclass(frozen=True)
class Cubic:
    """Steps that pay ``sigma / 3 |s|^3``."""

    sigma: float

    def norm_at(self, shift: float) -> float:
        """``shift / sigma``."""
        return shift / self.sigma

    def largest_shift(self, gradient_norm: float) -> float:
        """``sqrt(sigma |g|)``, where ``|s| = |g| / shift = shift / sigma``."""
        return math.sqrt(self.sigma) * math.sqrt(gradient_norm)

    def interior(self, norm: float) -> bool:
        """Whether the step is zero."""
        return norm == 0.0

    def penalty(self, norm: float) -> float:
        """``sigma / 3 |s|^3``."""
        return self.sigma / 3 * norm**3


def solve_diagonal(values: np.ndarray, coefficients: np.ndarray, region: Region) -> DiagonalStep:
    r"""The global minimiser for a diagonal matrix.

    With eigenvalues :math:`\theta_i` and coefficients :math:`c_i` of the gradient the step is :math:`s_i = -c_i / (\theta_i + \lambda)`
    for the one :math:`\lambda \ge \max(0, -\theta_1)` at which its norm is what the region asks for (J. J. Moré and D. C. Sorensen, 1983,
    section 2; C. Cartis, N. I. M. Gould and Ph. L. Toint, 2011, theorem 3.1). The unknown is the distance of the shift from
    that lower end, in the logarithm of which the equation is solved by Brent's method: it is monotone and nearly straight on both sides,
    and no digits are lost where the shift is close to :math:`-\theta_1`. Where the gradient has no part along the lowest eigenvectors and
    the step at that end is too short, it is filled up along one of them (the hard case).

    Parameters
    ----------
    values : numpy.ndarray
        Eigenvalues in ascending order, shape (k,).
    coefficients : numpy.ndarray
        Of the gradient, shape (k,). What is rounding beside the largest counts as zero.
    region : Region
        `Ball` or `Cubic`.
    """
    size = math.hypot(*coefficients)  # no squares that overflow or underflow
    c = np.where(np.abs(coefficients) > _ROUNDING * size, coefficients, 0.0)
    least = max(0.0, -float(values[0]))
    gaps = values + least
    seen = c != 0.0

    def step_at(distance: float) -> np.ndarray:
        step = np.zeros(len(c))
        step[seen] = -c[seen] / (gaps[seen] + distance)
        return step

    if not np.any(gaps[seen] <= 0.0):  # the equation has a limit at the lower end
        step = step_at(0.0)
        norm, wanted = math.hypot(*step), region.norm_at(least)
        if least == 0.0 and region.interior(norm):
            return DiagonalStep(step, 0.0, False)
        if least > 0.0 and norm <= wanted:
            missing = math.sqrt(wanted - norm) * math.sqrt(wanted + norm)
            if missing > 0.0 and gaps[0] == 0.0 and not seen[0]:
                step[0] = missing
                return DiagonalStep(step, least, True)
            return DiagonalStep(step, least, False)

    def excess(logarithm: float) -> float:
        distance = math.exp(logarithm)
        return math.log(math.hypot(*step_at(distance))) - math.log(region.norm_at(least + distance))

    high = math.log(region.largest_shift(size)) + 1e-6
    low = high + math.log(_ROUNDING)
    while excess(low) <= 0.0:
        if low < math.log(_TINY):  # the step has its length at the lower end, up to rounding
            return DiagonalStep(step_at(math.exp(low)), least, False)
        low -= 20.0
    distance = math.exp(brentq(excess, low, high, xtol=1e-15, rtol=_ROUNDING, maxiter=500))
    return DiagonalStep(step_at(distance), least + distance, False)
