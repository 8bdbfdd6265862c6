"""The law of a Wigner matrix seen through a rectangular random matrix."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from .law import SpectralLaw, check_levels, check_positive, check_whole, like
from .numerical_law import discrete_jacobi
from .wishart_product_law import WishartProduct


@dataclasses.dataclass(frozen=True)
class WignerProduct(SpectralLaw):
    """Limit of the spectrum of ``X W X^T``, W an r x r Wigner matrix and X n x r with independent entries of variance ``1 / r``.

    A symmetric law: for ``c = n / r`` above one a share ``1 - 1 / c`` of the eigenvalues is zero, and half of the others are
    negative. It is what Granziol proposes for Hessians of few effective directions.

    Parameters
    ----------
    ratio : float
        ``c = n / r``, order of the matrix over that of W.
    variance : float
        Of the semicircle that W follows. The variance of the law is ``variance ratio``.

    Notes
    -----
    The law is the free multiplicative convolution of a semicircle with Marchenko-Pastur. Its R-transform,
    ``(C(s w^2 c) - 1) / (c w)`` with C the generating function of the Catalan numbers and s the variance times c, gives a quartic equation
    for the Cauchy transform that depends on ``z^2`` only: the squares of the eigenvalues over ``variance c`` follow `WishartProduct` of the
    ratios 1, c and c.

    References
    ----------
    D. Granziol, *Beyond random matrix theory for deep networks*, arXiv:2006.07721 (2020).

    Examples
    --------
    >>> import linop_spectra as ls
    >>> law = ls.random_matrices.WignerProduct(ratio=5.0)
    >>> law.atoms, law.moment(2), law.moment(4)
    ([(0.0, 0.8)], 5.0, 300.0)
    >>> [round(law.cdf(x), 3) for x in (-1e-9, 0.0)]
    [0.1, 0.9]
    """

    ratio: float
    variance: float = 1.0

    def __post_init__(self) -> None:
        for name, meaning in (("ratio", "the order over that of the Wigner matrix"), ("variance", "that of the Wigner matrix")):
            object.__setattr__(self, name, check_positive(name, getattr(self, name), meaning))

    @functools.cached_property
    def _squares(self) -> WishartProduct:
        return WishartProduct([1.0, self.ratio, self.ratio])

    @property
    def _scale(self) -> float:
        return self.variance * self.ratio

    @property
    def support(self) -> list[tuple[float, float]]:
        """The one interval, around zero."""
        edge = math.sqrt(self._scale * self._squares.support[0][1])
        return [(-edge, edge)]

    @property
    def atoms(self) -> list[tuple[float, float]]:
        """Pairs (place, mass): the share ``1 - 1 / ratio`` at zero when the ratio is above one."""
        return self._squares.atoms

    def pdf(self, x: Any) -> Any:
        """Density of the continuous part at `x`; the shape of `x`. Infinite at zero when the ratio is one."""
        x = np.asarray(x, dtype=np.float64)
        size = np.abs(x)
        # The density is finite at zero, where that of the squares is not, unless the ratio is one: a point beside it stands for zero.
        at = size if self.ratio == 1 else np.maximum(size, 1e-9 * self.support[0][1])
        with np.errstate(invalid="ignore"):
            density = at / self._scale * self._squares.pdf(at * at / self._scale)
        return like(np.where((size == 0) & (self.ratio == 1), np.inf, density))

    def cdf(self, x: Any) -> Any:
        """Share of the eigenvalues at or below `x`; the shape of `x`."""
        x = np.asarray(x, dtype=np.float64)
        atom = self._squares._atom
        above = (1 - np.asarray(self._squares.cdf(x * x / self._scale))) / 2  # of one sign, beyond |x|
        share = np.where(x >= 0, 1 - above, above)
        return like(np.where(x == 0, (1 + atom) / 2, share))

    def quantile(self, q: Any) -> Any:
        """Smallest place whose `cdf` reaches `q`; the shape of `q`.

        Raises
        ------
        ValueError
            When `q` is not between 0 and 1.
        """
        q = check_levels(q)
        outer = np.minimum(q, 1 - q)
        size = np.sqrt(self._scale * np.asarray(self._squares.quantile(np.clip(1 - 2 * outer, 0.0, 1.0))))
        return like(np.where(q < 0.5, -size, size) * (size > 0))

    def moment(self, k: int) -> float:
        """Mean of the k-th powers of the eigenvalues; zero for odd k.

        Raises
        ------
        ValueError
            When `k` is not a whole number of at least 0.
        """
        k = check_whole("k", k, 0)
        return 0.0 if k % 2 else self._scale ** (k // 2) * self._squares.moment(k // 2)

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
        z = np.asarray(z, dtype=np.complex128)
        # The transform of the squares at z^2, times z; from above at a positive z is from below at its negative.
        below = z.imag < 0
        at = np.where(below, z.conj(), z)
        square = np.where(at.imag == 0, at.real * at.real + 0j, at * at) / self._scale
        with np.errstate(invalid="ignore"):
            value = np.asarray(self._squares.stieltjes(square))
            value = np.where((at.imag == 0) & (at.real < 0), value.conj(), value) * at / self._scale
        if self.ratio < 1:
            value = np.where(at == 0, 1j * np.pi * np.asarray(self.pdf(0.0)), value)
        else:
            value = np.where(at == 0, complex(0, math.inf) if self.ratio == 1 else complex(math.inf), value)
        return like(np.where(below, value.conj(), value))

    def jacobi_coefficients(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """What k Lanczos steps give in the limit: coefficients of the orthogonal polynomials of the law.

        Parameters
        ----------
        k : int
            Steps.

        Returns
        -------
        alphas : numpy.ndarray
            Shape (k,), zero.
        betas : numpy.ndarray
            Shape (k,); the last one lies beyond the k x k matrix.
        """
        k = check_whole("k", k, 1)
        nodes, weights = self._squares._nodes(k)
        size = np.sqrt(self._scale * nodes)
        _, betas = discrete_jacobi(np.concatenate([-size, size]), np.concatenate([weights, weights]) / 2, k)
        return np.zeros(k), betas
