r"""What a diagonal keeps of a matrix whose eigenvectors are random: the null model of every diagonal and block approximation.

Let :math:`H = Q \Lambda Q^\top` of order P with a uniformly distributed (Haar) orthogonal Q, mean eigenvalue
:math:`\bar\lambda` and variance v of the eigenvalues. The squares of a row of Q have the Dirichlet law with all parameters 1/2, so that
a diagonal entry :math:`H_{ii} = \sum_j \lambda_j Q_{ij}^2` has the mean :math:`\bar\lambda` and the variance :math:`2 v / (P + 2)`.
Since :math:`\sum_{ij} (H - \bar\lambda I)_{ij}^2 = P v` whatever Q, an entry off the diagonal has the mean square
:math:`(P v - P \cdot 2 v / (P + 2)) / (P (P - 1)) = v P / ((P + 2) (P - 1))`. All else follows by counting entries. A diagonal that
shows no more than this says of the spectrum nothing but its mean: it carries information exactly as far as it beats the null.

The formulas are our own derivation of these standard facts; for moments of the Haar measure see F. Hiai and D. Petz, *The semicircle
law, free random variables and entropy* (2000), section 4.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import optimize, special

_MARGIN = 1e-12
"""Relative distance from the poles of the cumulant generating function."""

def diagonal_variance(order: int, spectral_variance: float) -> float:
    """Variance of a diagonal entry, ``2 v / (P + 2)``.

    Parameters
    ----------
    order : int
        Order P of the matrix.
    spectral_variance : float
        Variance v of the eigenvalues: the mean of their squares minus the square of their mean.

    Returns
    -------
    float
        In squared units of an eigenvalue.

    Examples
    --------
    >>> diagonal_variance(1, 0.0), diagonal_variance(2, 1.0)  # eigenvalues -1 and 1: the entry is the cosine of a random angle
    (0.0, 0.5)
    """
    return 2 * _check_variance(spectral_variance) / (_check_order(order) + 2)


def off_diagonal_mean_square(order: int, spectral_variance: float) -> float:
    """Mean square of an entry off the diagonal, ``v P / ((P + 2) (P - 1))``; zero for P = 1.

    Examples
    --------
    >>> off_diagonal_mean_square(2, 1.0)
    0.5
    """
    P = _check_order(order)
    return _check_variance(spectral_variance) * P / ((P + 2) * (P - 1)) if P > 1 else 0.0


def diagonal_norm_kept(order: int, mean: float, spectral_variance: float) -> float:
    r"""Share of the squared Frobenius norm on the diagonal, :math:`(\bar\lambda^2 + 2 v / (P + 2)) / (\bar\lambda^2 + v)`.

    Parameters
    ----------
    order : int
        Order P.
    mean : float
        Mean eigenvalue.
    spectral_variance : float
        Variance of the eigenvalues.

    Returns
    -------
    float
        Expectation over Q, between 0 and 1; 1 for the zero matrix.

    Examples
    --------
    >>> import numpy as np
    >>> eigenvalues = 1 / np.arange(1, 1001)
    >>> round(diagonal_norm_kept(1000, eigenvalues.mean(), eigenvalues.var()), 4)
    0.036
    >>> round(diagonal_norm_kept(1000, 1e-3, 1e-3 - 1e-6), 5)  # rank one: 3 / (P + 2)
    0.00299
    """
    total = mean**2 + _check_variance(spectral_variance)
    return float((mean**2 + diagonal_variance(order, spectral_variance)) / total) if total > 0 else 1.0


def block_variance_retained(order: int, sizes: int | Sequence[int]) -> float:
    """Share of the spectral variance that diagonal blocks keep, ``2 / (P + 2) + (m - 1) P / ((P + 2) (P - 1))`` for blocks of order m.

    Parameters
    ----------
    order : int
        Order P.
    sizes : int or sequence of int
        Order of every block, or the orders of all of them, which add up to P.

    Returns
    -------
    float
        Mean square distance of the blocks from the mean eigenvalue times the identity, over that of the whole; about ``(m + 1) / (P + 2)``.

    Examples
    --------
    >>> round(block_variance_retained(1200, 100), 3), round(block_variance_retained(1200, [1200]), 12)
    (0.084, 1.0)
    """
    P = _check_order(order)
    if np.ndim(sizes) == 0:
        mean_size = float(sizes)  # type: ignore[arg-type]
        if not 1 <= mean_size <= P:
            raise ValueError(f"The argument sizes is {sizes!r}, but a block of a matrix of order {P} has an order from 1 to {P}.")
    else:
        orders = np.asarray(sizes, dtype=float)
        if len(orders) == 0 or orders.min() < 1 or orders.sum() != P:
            raise ValueError(f"The argument sizes must be orders of blocks that add up to {P}, but adds up to {orders.sum():g}.")
        mean_size = float((orders**2).sum() / P)  # a row sees the rest of its own block
    return 2 / (P + 2) + ((mean_size - 1) * P / ((P + 2) * (P - 1)) if P > 1 else 1 / 3)


def block_norm_kept(order: int, mean: float, spectral_variance: float, sizes: int | Sequence[int]) -> float:
    """Share of the squared Frobenius norm in diagonal blocks; `diagonal_norm_kept` is the case of blocks of order one.

    Examples
    --------
    >>> block_norm_kept(10, 1.0, 2.0, 1) == diagonal_norm_kept(10, 1.0, 2.0)
    True
    """
    total = mean**2 + _check_variance(spectral_variance)
    return float((mean**2 + spectral_variance * block_variance_retained(order, sizes)) / total) if total > 0 else 1.0


class HaarDiagonal:
    r"""Law of a diagonal entry of a matrix with given eigenvalues and random eigenvectors.

    :math:`H_{ii} = \sum_j \lambda_j g_j^2 / \sum_j g_j^2` for standard normal g, so that it is below t exactly when the weighted sum
    of chi-squares :math:`\sum_j (\lambda_j - t) g_j^2` is negative. The probability of that is taken by the saddlepoint formula of
    Lugannani and Rice (1980), with a relative error of a few per cent far out in the tails.

    Parameters
    ----------
    nodes, weights : array
        The spectrum as a discrete measure, such as `SpectralDensity.nodes` and ``.weights``; shape (k,). The weights sum to one.
    order : int
        Order P.

    Attributes
    ----------
    mean, spectral_variance : float
        Of the eigenvalues.

    Examples
    --------
    >>> law = HaarDiagonal([1.0, 0.0], [0.5, 0.5], order=2)  # the squared cosine of a random angle
    >>> round(law.cdf(0.5), 3), abs(law.cdf(0.75) - 2 / 3) < 0.05
    (0.5, True)
    """

    def __init__(self, nodes: Any, weights: Any, order: int) -> None:
        nodes, weights = np.asarray(nodes, dtype=np.float64), np.asarray(weights, dtype=np.float64)
        if nodes.ndim != 1 or nodes.shape != weights.shape or len(nodes) == 0 or np.any(weights < 0) or not weights.sum() > 0:
            raise ValueError("The arguments nodes and weights must be 1-D arrays of one length, with weights that are not negative.")
        self.order = _check_order(order)
        self._nodes, self._counts = nodes[weights > 0], weights[weights > 0] / weights.sum() * order
        self.mean = float(self._counts @ self._nodes / order)
        self.spectral_variance = float(self._counts @ (self._nodes - self.mean) ** 2 / order)

    @property
    def variance(self) -> float:
        """Of an entry."""
        return diagonal_variance(self.order, self.spectral_variance)

    def cdf(self, t: Any) -> Any:
        """Share of entries at or below `t`; the shape of `t`."""
        out = np.array([self._probability(float(x)) for x in np.ravel(t)]).reshape(np.shape(t))
        return float(out) if out.ndim == 0 else out

    def quantile(self, q: Any) -> Any:
        """Place below which a share `q` of the entries lies; the shape of `q`."""
        out = np.array([self._quantile(float(x)) for x in np.ravel(q)]).reshape(np.shape(q))
        return float(out) if out.ndim == 0 else out

    @property
    def largest(self) -> float:
        """Median of the largest of the P entries, taken as independent."""
        return self._quantile(2.0 ** (-1 / self.order))

    @property
    def smallest(self) -> float:
        """Median of the smallest of the P entries, taken as independent."""
        return self._quantile(-math.expm1(-math.log(2) / self.order))

    def _flat(self) -> bool:
        spread = float(self._nodes.max() - self._nodes.min())
        return spread <= 1e-12 * max(float(np.abs(self._nodes).max()), np.finfo(float).tiny)

    def _quantile(self, q: float) -> float:
        low, high = float(self._nodes.min()), float(self._nodes.max())
        if self._flat() or not 0 < q < 1:
            return self.mean if 0 < q < 1 else (low if q <= 0 else high)
        return float(optimize.brentq(lambda t: self._probability(t) - q, low, high, xtol=1e-10 * (high - low), rtol=1e-12))

    def _probability(self, t: float) -> float:
        """Probability that the weighted sum of chi-squares is negative: Lugannani and Rice at zero."""
        shifted = self._nodes - t
        if shifted.max() <= 0 or self._flat():
            return 1.0 if self.mean <= t else 0.0
        if shifted.min() >= 0:
            return 0.0
        scale = float(np.abs(shifted).max())
        a, m = shifted / scale, self._counts
        # K(s) = -1/2 sum m log(1 - 2 a s), finite between the poles at 1 / (2 min a) and 1 / (2 max a).
        low, high = 0.5 / a.min(), 0.5 / a.max()

        def slope(s: float) -> float:
            return float(np.sum(m * a / (1 - 2 * a * s)))

        # Beside the pole of a node that hardly weighs anything the slope may keep its sign: then the root is there.
        left, right = low * (1 - _MARGIN), high * (1 - _MARGIN)
        if slope(left) >= 0:
            s = left
        elif slope(right) <= 0:
            s = right
        else:
            s = float(optimize.brentq(slope, left, right, xtol=1e-14 * (high - low), rtol=1e-13))
        cumulant = -0.5 * float(np.sum(m * np.log1p(-2 * a * s)))
        curvature = 2 * float(np.sum(m * (a / (1 - 2 * a * s)) ** 2))
        r = math.copysign(math.sqrt(max(-2 * cumulant, 0.0)), s)
        u = s * math.sqrt(curvature)
        if abs(r) < 1e-3:  # the two terms in 1/u - 1/r cancel; their limit is a sixth of the skewness
            third = 8 * float(np.sum(m * (a / (1 - 2 * a * s)) ** 3))
            correction = third / (6 * curvature**1.5)
        else:
            correction = 1 / r - 1 / u
        value = float(special.ndtr(r)) + math.exp(-0.5 * r * r) / math.sqrt(2 * math.pi) * correction
        return min(1.0, max(0.0, value))


def _check_order(order: Any) -> int:
    if isinstance(order, bool) or not isinstance(order, int | np.integer) or order < 1:
        raise ValueError(f"The argument order must be a whole number of at least 1, but is {order!r}.")
    return int(order)


def _check_variance(variance: float) -> float:
    if not 0 <= variance < math.inf:
        raise ValueError(f"The argument spectral_variance must be zero or positive and finite, but is {variance!r}.")
    return float(variance)
