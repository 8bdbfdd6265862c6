"""The law of Pennington and Worah for the Gram matrix of a random layer with a nonlinearity."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.polynomial import polynomial

from .activation import activation_moments
from .law import SpectralLaw, check_positive, check_whole, like
from .marchenko_pastur import MarchenkoPastur
from .numerical_law import NumericalLaw
from .rational_inverse import Gap, RationalInverse, lagrange_coefficient, lower_argument, support_between
from .wishart_product_law import WishartProduct

_LINEAR = 1e-12


@dataclasses.dataclass(frozen=True)
class PenningtonWorah(NumericalLaw):
    """Limit of the spectrum of ``Y Y^T / m``, where ``Y = f(W X / sqrt(n_0))`` are the outputs of a random layer on random data.

    The weights W are n_1 x n_0 and the data X are n_0 x m, all entries independent standard normal, and the activation f, applied to
    each entry, has mean zero under a standard normal. Of f only two numbers matter. An activation whose mean is not zero has
    the same law beside one eigenvalue of the order of n_1.

    Parameters
    ----------
    input_ratio : float
        ``n_0 / m``, inputs over samples: phi of the paper.
    width_ratio : float
        ``n_0 / n_1``, inputs over width: psi of the paper. The matrix is n_1 x n_1 from m samples: its own aspect ratio `ratio`
        is ``n_1 / m = input_ratio / width_ratio``.
    eta : float
        Mean of ``f(z)^2`` for a standard normal z.
    zeta : float
        Square of the mean of ``z f(z)``, from 0 to eta. At 0 the law is Marchenko-Pastur; at eta, for a linear f, that of a product
        of two Wishart matrices.

    Notes
    -----
    With u the product of the two companions of the paper's P and of t, and ``q = (eta - zeta) u + zeta u / (1 - zeta u)``, the paper's
    quartic equation is ``z = (1 + phi q) (1 + psi q) / (psi u)`` and the Cauchy transform is ``psi u / (1 + phi q)``: its inverse
    is rational, and on the branch of the law the arguments of the factors add up to that of z.

    References
    ----------
    J. Pennington and P. Worah, *Nonlinear random matrix theory for deep learning*, NeurIPS (2017), theorem 1.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> law = ls.random_matrices.PenningtonWorah.from_activation(np.tanh, input_ratio=1.0, width_ratio=1.0)
    >>> round(law.eta, 5), round(law.zeta, 5), round(law.moment(1), 5)
    (0.39429, 0.36688, 0.39429)
    """

    input_ratio: float
    width_ratio: float
    eta: float
    zeta: float

    def __post_init__(self) -> None:
        for name, meaning in (
            ("input_ratio", "the number of inputs over that of samples"),
            ("width_ratio", "the number of inputs over the width"),
            ("eta", "the mean of f(z)^2"),
        ):
            object.__setattr__(self, name, check_positive(name, getattr(self, name), meaning))
        zeta = self.zeta
        if isinstance(zeta, (bool, np.bool_)) or not isinstance(zeta, (int, float, np.integer, np.floating)) or not math.isfinite(zeta):
            raise ValueError(f"The argument zeta, the square of the mean of z f(z), must be a finite number, but is {zeta!r}.")
        if not 0 <= zeta <= self.eta * (1 + _LINEAR):
            raise ValueError(
                f"The argument zeta, the square of the mean of z f(z), is between 0 and eta = {self.eta:.6g} for every f, not {zeta!r}."
            )
        object.__setattr__(self, "zeta", min(float(zeta), self.eta))

    @classmethod
    def from_activation(cls, activation: Callable[[np.ndarray], Any], *, input_ratio: float, width_ratio: float) -> PenningtonWorah:
        """The law of an activation function, less its mean under a standard normal.

        Parameters
        ----------
        activation : callable
            Of an array of numbers, entry by entry; see `activation_moments`.
        input_ratio, width_ratio : float
            ``n_0 / m`` and ``n_0 / n_1``.

        Returns
        -------
        PenningtonWorah
            With the eta and zeta of ``f - mean``.
        """
        found = activation_moments(activation)
        return cls(input_ratio=input_ratio, width_ratio=width_ratio, eta=found.eta, zeta=found.zeta)

    @property
    def ratio(self) -> float:
        """``n_1 / m``, order of the matrix over samples."""
        return self.input_ratio / self.width_ratio

    @functools.cached_property
    def _unscaled(self) -> SpectralLaw | None:
        """The law over eta where it is one of the two limits."""
        share = self.zeta / self.eta
        if share <= _LINEAR:
            return MarchenkoPastur(ratio=self.ratio)
        return WishartProduct([self.ratio, 1 / self.width_ratio]) if 1 - share <= _LINEAR else None

    @functools.cached_property
    def _fraction(self) -> tuple[np.ndarray, np.ndarray]:
        """The q of the notes as numerator and denominator in ``v = eta u``."""
        share = self.zeta / self.eta
        return np.array([0.0, 1.0, -(1 - share) * share]), np.array([1.0, -share])

    @functools.cached_property
    def _factors(self) -> tuple[np.ndarray, np.ndarray]:
        """``1 + phi q`` and ``1 + psi q`` times the denominator of q."""
        top, bottom = self._fraction
        return polynomial.polyadd(bottom, self.input_ratio * top), polynomial.polyadd(bottom, self.width_ratio * top)

    @functools.cached_property
    def _inverse(self) -> RationalInverse:
        """The place z over eta as a function of v."""
        bottom = self._fraction[1]
        denominator = polynomial.polymul([0.0, self.width_ratio], polynomial.polymul(bottom, bottom))
        return RationalInverse(polynomial.polymul(*self._factors), denominator, self._argument)

    def _argument(self, v: np.ndarray) -> np.ndarray:
        share = self.zeta / self.eta
        with np.errstate(divide="ignore", invalid="ignore"):
            q = (1 - share) * v + share * v / (1 - share * v)  # in the lower half-plane with v
        return lower_argument(1 + self.input_ratio * q) + lower_argument(1 + self.width_ratio * q) - lower_argument(v)

    @functools.cached_property
    def _gaps(self) -> list[Gap]:
        top, bottom = self._fraction
        phi, psi = self.input_ratio, self.width_ratio
        first, second = self._factors
        rate = polynomial.polysub(
            polynomial.polymul(polynomial.polyder(top), bottom), polynomial.polymul(top, polynomial.polyder(bottom))
        )
        # The logarithmic derivative of z, without its zeros and poles: phi q' / (1 + phi q) + psi q' / (1 + psi q) = 1 / v.
        both = [2 * phi] if phi == psi else polynomial.polyadd(phi * second, psi * first)
        zeros = first if phi == psi else polynomial.polymul(first, second)
        stills = polynomial.polysub(polynomial.polymul([0.0, 1.0], polynomial.polymul(rate, both)), polynomial.polymul(bottom, zeros))
        roots = np.concatenate([polynomial.polyroots(factor) for factor in (first, second)])
        return self._inverse.gaps([self.eta / self.zeta, *roots[roots.imag == 0].real], stills)

    @property
    def support(self) -> list[tuple[float, float]]:
        """One or two intervals; the atom at zero, if any, is in `atoms`."""
        if self._unscaled is not None:
            return [(self.eta * a, self.eta * b) for a, b in self._unscaled.support]
        edges = [(self.eta * a, self.eta * b) for a, b in support_between(self._gaps)]
        if self.input_ratio == self.width_ratio:  # n_1 = m: a hard edge
            edges[0] = (0.0, edges[0][1])
        return edges

    @property
    def atoms(self) -> list[tuple[float, float]]:
        """Pairs (place, mass): the share of zero eigenvalues, for ``n_1 > m``; for a linear f for ``n_1 > n_0`` too."""
        if self._unscaled is not None:
            return self._unscaled.atoms
        return [(0.0, 1 - 1 / self.ratio)] if self.ratio > 1 else []

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
        z = np.asarray(z, dtype=np.complex128) / self.eta
        if self._unscaled is not None:
            return like(np.asarray(self._unscaled.stieltjes(z) / self.eta))
        below = z.imag < 0
        v = self._inverse.solve(np.where(below, z.conj(), z), self._gaps)
        with np.errstate(divide="ignore", invalid="ignore"):
            out = -self.width_ratio * v * polynomial.polyval(v, self._fraction[1]) / polynomial.polyval(v, self._factors[0]) / self.eta
        return like(np.where(below, out.conj(), out))

    def moment(self, k: int) -> float:
        """Mean of the k-th powers of the eigenvalues, by Lagrange's inversion.

        Raises
        ------
        ValueError
            When `k` is not a whole number of at least 0.
        """
        k = check_whole("k", k, 0)
        if k == 0:
            return 1.0
        share = self.zeta / self.eta
        q = share ** np.arange(k + 2.0)
        q = np.concatenate([[0.0, 1.0], q[2:]])  # v + share^2 v^2 + share^3 v^3 + ...
        one = np.eye(1, k + 2)[0]
        growth = np.convolve(one + self.input_ratio * q, one + self.width_ratio * q)[: k + 2] / self.width_ratio
        return self.eta**k * lagrange_coefficient(k, growth, self.width_ratio * q)
