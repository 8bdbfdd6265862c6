"""The Fuss-Catalan law: squared singular values of a product of square random matrices."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from .angle_law import AngleLaw
from .law import check_whole, like
from .wishart_product_law import WishartProduct


@dataclasses.dataclass(frozen=True)
class FussCatalan(AngleLaw):
    """Limit of the spectrum of ``Y Y^T / n^K``, where ``Y = X_1 X_2 ... X_K`` is a product of K square random matrices.

    The X_i are n x n with independent entries of mean zero and variance one. The support is ``[0, (K + 1)^(K + 1) / K^K]``, and
    towards zero the density grows like ``x^(-K / (K + 1))``. One factor gives Marchenko-Pastur of ratio one; `WishartProduct` has
    rectangular factors.

    Parameters
    ----------
    factors : int
        K, the number of matrices: the depth of a linear network of constant width.

    Notes
    -----
    With ``0 < t < pi / (K + 1)``, place and density are ``x = sin^(K+1)((K+1) t) / (sin t sin^K(K t))`` and
    ``sin^2 t sin^(K-1)(K t) / (pi sin^K((K+1) t))``.

    References
    ----------
    T. Banica, S. T. Belinschi, M. Capitaine and B. Collins, *Free Bessel laws*, Canad. J. Math. 63 (2011).
    U. Haagerup and S. Moller, *The law of large numbers for the free multiplicative convolution*, Springer Proc. Math. Stat. 58 (2013).

    Examples
    --------
    >>> import linop_spectra as ls
    >>> law = ls.random_matrices.FussCatalan(factors=2)
    >>> law.support, [law.moment(k) for k in range(5)]
    ([(0.0, 6.75)], [1.0, 1.0, 3.0, 12.0, 55.0])
    """

    factors: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "factors", check_whole("factors", self.factors, 1))

    @property
    def support(self) -> list[tuple[float, float]]:
        """The one interval, from zero."""
        k = self.factors
        return [(0.0, math.exp((k + 1) * math.log1p(1 / k)) * k if k > 100 else (k + 1) ** (k + 1) / k**k)]

    def _sines(self, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sines of t, K t and (K + 1) t."""
        k = self.factors
        t = angle / (k + 1)
        return np.sin(t), np.sin(k * t), np.sin(angle)

    def _places(self, angle: np.ndarray) -> np.ndarray:
        one, most, full = self._sines(angle)
        with np.errstate(invalid="ignore"):
            return np.where(angle > 0, full / one * (full / most) ** self.factors, self.support[0][1])

    def _angular_density(self, angle: np.ndarray) -> np.ndarray:
        one, most, full = self._sines(angle)
        return np.asarray(one**2 / (np.pi * most) * (most / full) ** self.factors)

    def _mass_rate(self, angle: np.ndarray) -> np.ndarray:
        k = self.factors
        one, most, full = self._sines(angle)
        t = angle / (k + 1)
        # Place times density is sin t sin((K + 1) t) / (pi sin K t); the rest is the derivative of minus log x.
        share = one * full / (np.pi * most * (k + 1))
        return np.asarray(share * (np.cos(t) / one + k**2 * np.cos(k * t) / most) - (k + 1) * one * np.cos(angle) / (np.pi * most))

    @functools.cached_property
    def _product(self) -> WishartProduct:
        return WishartProduct([1.0] * self.factors)

    def stieltjes(self, z: Any) -> Any:
        """Stieltjes transform, the mean of ``1 / (lambda - z)``.

        Parameters
        ----------
        z : array
            Complex points; on the support the limit from above is taken, whose imaginary part is pi times `pdf`.

        Returns
        -------
        array
            Complex, the shape of `z`.
        """
        return self._product.stieltjes(z)

    def moment(self, k: int) -> float:
        """Mean of the k-th powers: the Fuss-Catalan number ``binomial((K + 1) k, k) / (K k + 1)``.

        Raises
        ------
        ValueError
            When `k` is not a whole number of at least 0.
        """
        k = check_whole("k", k, 0)
        return float(math.comb((self.factors + 1) * k, k) // (self.factors * k + 1))

    def s_transform(self, w: Any) -> Any:
        """``(1 + w)^-K``; the shape of `w`."""
        return like((1.0 + np.asarray(w)) ** -self.factors)
