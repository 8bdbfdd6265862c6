"""The Tracy-Widom laws: fluctuations of the largest eigenvalue."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev

from .law import Law, check_levels, check_whole, like

_LOW, _HIGH = -11.0, 13.0
"""Beyond these the distribution functions are 0 and 1 to rounding, for each beta."""
_CENTRE, _RADIUS = (_HIGH + _LOW) / 2, (_HIGH - _LOW) / 2
_DEGREE = 140
_NODES = 90


@dataclasses.dataclass(frozen=True)
class TracyWidom(Law):
    """Limit of the largest eigenvalue of a random matrix, centred and scaled.

    - ``beta=1``: real symmetric matrices. For `wigner` of variance s^2 it is the law of ``n^(2/3) (largest / s - 2)``.
    - ``beta=2``: complex Hermitian ones, in the same scaling.
    - ``beta=4``: quaternion ones, in the scaling in which the mean is -2.3069 and the variance 0.5177. Authors who write ``F4(s)``
      where ``F4(s / sqrt(2))`` stands in the notes below have the law of ``sqrt(2)`` times this variable (mean -3.2624).

    Parameters
    ----------
    beta : {1, 2, 4}
        Real, complex or quaternion entries.

    Notes
    -----
    With V the integral operator on the half-line with kernel ``Ai((x + y) / 2 + s) / 2``, the laws are ``F1(s) = det(1 - V)``,
    ``F2(s) = det(1 - V) det(1 + V)`` and ``F4(s / sqrt(2)) = (det(1 - V) + det(1 + V)) / 2`` (Ferrari and Spohn, 2005; Bornemann,
    2010). Each determinant is that of a Gauss-Legendre discretisation, which converges exponentially (Bornemann, 2010). They are
    made once at Chebyshev points and interpolated, with an absolute error of the order of 1e-13.

    References
    ----------
    C. A. Tracy and H. Widom, *On orthogonal and symplectic matrix ensembles*, Comm. Math. Phys. 177 (1996).
    P. L. Ferrari and H. Spohn, *A determinantal formula for the GOE Tracy-Widom distribution*, J. Phys. A 38 (2005).
    F. Bornemann, *On the numerical evaluation of distributions in random matrix theory*, Markov Process. Related Fields 16 (2010).

    Examples
    --------
    >>> import linop_spectra as ls
    >>> law = ls.random_matrices.TracyWidom(beta=1)
    >>> round(law.mean(), 6), round(law.var(), 6), round(law.quantile(0.95), 4)
    (-1.206534, 1.607781, 0.9793)
    """

    beta: int

    def __post_init__(self) -> None:
        if isinstance(self.beta, bool) or not isinstance(self.beta, (int, float, np.integer, np.floating)) or self.beta not in (1, 2, 4):
            raise ValueError(f"The argument beta must be 1 (real), 2 (complex) or 4 (quaternion matrices), but is {self.beta!r}.")
        object.__setattr__(self, "beta", int(self.beta))

    @property
    def _scale(self) -> float:
        return math.sqrt(2) if self.beta == 4 else 1.0

    @property
    def support(self) -> list[tuple[float, float]]:
        """The whole line."""
        return [(-math.inf, math.inf)]

    def pdf(self, x: Any) -> Any:
        """Density at `x`; the shape of `x`."""
        x = np.asarray(x, dtype=np.float64) * self._scale
        inside = (x > _LOW) & (x < _HIGH)
        slope = chebyshev.chebval((np.where(inside, x, _CENTRE) - _CENTRE) / _RADIUS, _derivative(self.beta)) / _RADIUS
        return like(np.where(inside, self._scale * np.maximum(slope, 0.0), np.where(np.isnan(x), np.nan, 0.0)))

    def cdf(self, x: Any) -> Any:
        """Probability of a value at or below `x`, with an absolute error of the order of 1e-13; the shape of `x`."""
        return like(self._unscaled_cdf(np.asarray(x, dtype=np.float64) * self._scale))

    def _unscaled_cdf(self, s: np.ndarray) -> np.ndarray:
        inside = (s > _LOW) & (s < _HIGH)
        value = chebyshev.chebval((np.where(inside, s, _CENTRE) - _CENTRE) / _RADIUS, _interpolant(self.beta))
        return np.where(inside, np.clip(value, 0.0, 1.0), np.where(np.isnan(s), np.nan, (s >= _HIGH).astype(np.float64)))

    def quantile(self, q: Any) -> Any:
        """Place where `cdf` reaches `q`; minus and plus infinity at 0 and 1; the shape of `q`.

        Raises
        ------
        ValueError
            When `q` is not between 0 and 1.
        """
        q = check_levels(q)
        low, high = np.full(q.shape, _LOW), np.full(q.shape, _HIGH)
        for _ in range(55):  # bisection down to rounding
            middle = (low + high) / 2
            short = self._unscaled_cdf(middle) < q
            low, high = np.where(short, middle, low), np.where(short, high, middle)
        return like(np.select([q == 0, q == 1], [-np.inf, np.inf], high / self._scale))

    def moment(self, k: int) -> float:
        """Mean of the k-th powers; by parts, from the distribution function.

        Raises
        ------
        ValueError
            When `k` is not a whole number of at least 0.
        """
        k = check_whole("k", k, 0)
        if k == 0:
            return 1.0
        # Mean of x^k = HIGH^k - integral of k x^(k - 1) F. Gauss-Legendre is exact for the interpolating polynomial.
        points, weights = np.polynomial.legendre.leggauss(_DEGREE // 2 + k)
        x = _CENTRE + _RADIUS * points
        value = _HIGH**k - k * _RADIUS * np.sum(weights * x ** (k - 1) * chebyshev.chebval(points, _interpolant(self.beta)))
        return float(value / self._scale**k)


@functools.cache
def _interpolant(beta: int) -> np.ndarray:
    """Chebyshev coefficients of the distribution function on [-11, 13], in the scaling without sqrt(2)."""
    minus, plus = _determinants()
    values = {1: minus, 2: minus * plus, 4: (minus + plus) / 2}[beta]
    points = chebyshev.chebpts1(_DEGREE + 1)
    return np.asarray(chebyshev.chebvander(points, _DEGREE).T @ values * (np.r_[1.0, np.full(_DEGREE, 2.0)] / (_DEGREE + 1)))


@functools.cache
def _derivative(beta: int) -> np.ndarray:
    return np.asarray(chebyshev.chebder(_interpolant(beta)))


@functools.cache
def _determinants() -> tuple[np.ndarray, np.ndarray]:
    """``det(1 - V)`` and ``det(1 + V)`` at the Chebyshev points."""
    places = _CENTRE + _RADIUS * chebyshev.chebpts1(_DEGREE + 1)
    pairs = np.array([fredholm_determinants(s) for s in places])
    return pairs[:, 0], pairs[:, 1]


def fredholm_determinants(s: float, num_nodes: int = _NODES) -> tuple[float, float]:
    """``det(1 - V)`` and ``det(1 + V)`` for the kernel ``Ai((x + y) / 2 + s) / 2`` on the half-line, by Gauss-Legendre quadrature.

    Parameters
    ----------
    s : float
        Where.
    num_nodes : int
        Of the quadrature; the error falls exponentially with it.

    Returns
    -------
    tuple of float
        The two determinants.
    """
    from scipy import special

    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    length = max(2 * (16.0 - s), 8.0)  # the Airy function is below 1e-19 beyond an argument of 16
    x, root = length * (nodes + 1) / 2, np.sqrt(length * weights / 2)
    i, j = np.tril_indices(num_nodes)
    kernel = np.zeros((num_nodes, num_nodes))
    kernel[i, j] = root[i] * root[j] * special.airy((x[i] + x[j]) / 2 + s)[0] / 2
    eigenvalues = np.linalg.eigvalsh(kernel, UPLO="L")
    return float(np.prod(1 - eigenvalues)), float(np.prod(1 + eigenvalues))
