"""What every law offers: density, distribution function, quantiles, moments."""

from __future__ import annotations

import abc
import math
from typing import Any

import numpy as np

from ...krylov.tridiagonal import ritz
from . import transforms


class Law(abc.ABC):
    """A probability law on the real line: a density on `support` and point masses at `atoms`."""

    @property
    @abc.abstractmethod
    def support(self) -> list[tuple[float, float]]:
        """Intervals that carry the continuous part, ascending."""

    @property
    def atoms(self) -> list[tuple[float, float]]:
        """Pairs (place, mass); none by default."""
        return []

    @abc.abstractmethod
    def pdf(self, x: Any) -> Any:
        """Density of the continuous part at `x`; the shape of `x`."""

    @abc.abstractmethod
    def cdf(self, x: Any) -> Any:
        """Mass at or below `x`; the shape of `x`."""

    @abc.abstractmethod
    def quantile(self, q: Any) -> Any:
        """Smallest place whose `cdf` reaches `q`; the shape of `q`."""

    @abc.abstractmethod
    def moment(self, k: int) -> float:
        """Mean of the k-th powers."""

    def moments(self, count: int) -> np.ndarray:
        """Means of the powers 0 to ``count - 1``, shape (count,).

        Raises
        ------
        ValueError
            When `count` is not a whole number of at least 1.
        """
        return np.array([self.moment(k) for k in range(check_whole("count", count, 1))])

    def mean(self) -> float:
        """The first moment."""
        return self.moment(1)

    def var(self) -> float:
        """The variance."""
        return self.moment(2) - self.moment(1) ** 2


class SpectralLaw(Law):
    """Limit of the eigenvalues of a random matrix, with its Stieltjes transform and orthogonal polynomials."""

    @abc.abstractmethod
    def stieltjes(self, z: Any) -> Any:
        """Stieltjes transform, the mean of ``1 / (lambda - z)``; on the support the limit from above."""

    def cauchy(self, z: Any) -> Any:
        """Cauchy transform, the mean of ``1 / (z - lambda)``: minus `stieltjes`; the shape of `z`."""
        return -self.stieltjes(z)

    def r_transform(self, w: Any) -> Any:
        """Free analogue of the logarithm of the characteristic function, ``R(w) = K(w) - 1 / w`` with K the inverse of `cauchy`.

        The R-transform of a sum of free matrices is the sum of theirs; its power series at zero is ``mean + var w + ...``.

        Parameters
        ----------
        w : array
            Real or complex points. Real ones lie between the values of `cauchy` at the lower and at the upper end of the law.

        Returns
        -------
        array
            The shape of `w`; real for real `w`.

        Raises
        ------
        ValueError
            When `cauchy` does not take the value `w` outside the law, so that the inverse does not exist.

        References
        ----------
        D. Voiculescu, *Addition of certain non-commuting random variables*, J. Funct. Anal. 66 (1986).

        Examples
        --------
        >>> import linop_spectra as ls
        >>> ls.random_matrices.MarchenkoPastur(ratio=0.5).r_transform(1.0)
        2.0
        """
        return transforms.r_transform(self, w)

    def s_transform(self, w: Any) -> Any:
        """Multiplicative analogue of `r_transform`, for laws on the non-negative numbers.

        ``S(w) = (1 + w) / (w u)`` where ``u cauchy(u) - 1 = w``. The S-transform of a product of free matrices is the product of theirs.

        Parameters
        ----------
        w : array
            Real or complex points. Real ones lie above minus the mass that is not at zero.

        Returns
        -------
        array
            The shape of `w`; real for real `w`.

        Raises
        ------
        ValueError
            When the law has negative places or a zero mean, or `w` lies where the inverse does not exist.

        References
        ----------
        D. Voiculescu, *Multiplication of certain non-commuting random variables*, J. Operator Theory 18 (1987).

        Examples
        --------
        >>> import linop_spectra as ls
        >>> ls.random_matrices.MarchenkoPastur(ratio=0.5).s_transform(-0.5)
        1.3333333333333333
        """
        return transforms.s_transform(self, w)

    @abc.abstractmethod
    def jacobi_coefficients(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """What k Lanczos steps give in the limit: alphas and betas, each of shape (k,)."""

    def gauss_rule(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Nodes and weights, each of shape (k,), of the rule that is exact for moments 0 to 2 k - 1.

        Examples
        --------
        >>> import linop_spectra as ls
        >>> nodes, weights = ls.random_matrices.MarchenkoPastur(ratio=0.5).gauss_rule(3)
        >>> float((weights * nodes**2).sum().round(12))
        1.5
        """
        nodes, vectors = ritz(*self.jacobi_coefficients(k))
        return nodes, vectors[0] ** 2


def like(x: np.ndarray) -> Any:
    """A number for a 0-d array, else the array."""
    return x.item() if x.ndim == 0 else x


def check_whole(name: str, value: Any, least: int) -> int:
    """A whole number of at least `least`, or a ValueError that names the argument."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"The argument {name} must be a whole number of at least {least}, but is {value!r}.")
    return int(value)


def check_positive(name: str, value: Any, meaning: str) -> float:
    """A positive finite number, or a ValueError that names the argument and says what it means."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)) or not 0 < value < math.inf:
        raise ValueError(f"The argument {name}, {meaning}, must be a positive finite number, but is {value!r}.")
    return float(value)


def check_levels(q: Any) -> np.ndarray:
    """Levels between 0 and 1 as float64, or a ValueError."""
    q = np.asarray(q, dtype=np.float64)
    if not np.all((q >= 0) & (q <= 1)):
        raise ValueError("The argument q must lie between 0 and 1.")
    return q
