"""The law of products of free Wishart matrices, of any aspect ratios."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev, polynomial

from .angle_law import AngleLaw, interpolant
from .law import check_positive, check_whole, like
from .rational_inverse import Gap, RationalInverse, lagrange_coefficient, lower_argument


@dataclasses.dataclass(frozen=True)
class WishartProduct(AngleLaw):
    """Limit of the spectrum of a product of independent Wishart matrices ``W_1 W_2 ... W_K``, each p x p with its own ratio.

    ``W_i = X_i X_i^T / n_i`` with X_i of shape p x n_i, entries independent of mean zero and variance one, and ``c_i = p / n_i``. The
    same law has ``Y Y^T / (n_1 ... n_K)`` for a product of rectangular matrices ``Y = X_1 X_2 ... X_K`` of shapes p x n_1, n_1 x n_2,
    and so on: the Gram matrix of a deep linear network. A share ``1 - 1 / c`` of the eigenvalues is zero, c the largest ratio, if
    that is above one.

    Parameters
    ----------
    ratios : sequence of float
        ``c_i = p / n_i`` of each factor; the order does not matter.

    Notes
    -----
    The S-transform is the product of ``1 / (1 + c_i w)``, so that with ``w = z G(z) - 1``, G the Cauchy transform,
    ``w z = (1 + w) prod (1 + c_i w)`` (Voiculescu, 1987; Burda et al., 2010). On the support ``w = s exp(-i angle)``, where the
    arguments of ``1 + w`` and of all ``1 + c_i w`` add up to minus the angle: one s for each angle between 0 and pi. The
    distribution function has an error of the order of 1e-13, or of 1e-7 where the two largest of 1 and the ratios differ by less
    than a thousandth.

    References
    ----------
    D. Voiculescu, *Multiplication of certain non-commuting random variables*, J. Operator Theory 18 (1987).
    Z. Burda, A. Jarosz, G. Livan, M. A. Nowak and A. Swiech, *Eigenvalues and singular values of products of rectangular Gaussian
    random matrices*, Phys. Rev. E 82 (2010).

    Examples
    --------
    >>> import linop_spectra as ls
    >>> law = ls.random_matrices.WishartProduct(ratios=[0.5, 2.0])
    >>> law.atoms, law.moment(1), law.moment(2)
    ([(0.0, 0.5)], 1.0, 3.5)
    >>> [round(float(edge), 6) for edge in law.support[0]]
    [0.111871, 7.49338]
    """

    ratios: Sequence[float]

    def __post_init__(self) -> None:
        if isinstance(self.ratios, (str, bytes)) or np.ndim(self.ratios) != 1 or len(self.ratios) == 0:
            raise ValueError(f"The argument ratios must be a sequence of at least one ratio p / n, but is {self.ratios!r}.")
        ratios = tuple(check_positive("ratios", c, "p / n of each factor") for c in np.asarray(self.ratios).tolist())
        object.__setattr__(self, "ratios", ratios)

    @functools.cached_property
    def _all(self) -> np.ndarray:
        """The coefficients of w in the product, descending: one, and the ratios."""
        return np.sort(np.array([1.0, *self.ratios]))[::-1]

    @functools.cached_property
    def _stills(self) -> tuple[float, float]:
        """The w of the upper edge, above zero, and of the lower edge, below it: where z stands still."""
        from scipy import optimize

        c = self._all

        def slope(w: float) -> float:
            return float(np.sum(c * w / (1 + c * w)) - 1)  # w z' / z

        high = 1.0
        while slope(high) <= 0:
            high *= 2
        low = high
        while slope(low) >= 0:
            low /= 2
        upper = optimize.brentq(slope, low, high, xtol=1e-300, rtol=1e-15)
        gap = c[0] - c[1]
        if gap == 0:
            return upper, -1 / c[0]

        def balance(t: float) -> float:
            """The same at ``w = -1 / u``, u between the two largest coefficients."""
            return float(c[0] / (gap * (1 - t)) - np.sum(c[1:] / (gap * t + (c[1] - c[1:]))) - 1)

        t = optimize.brentq(balance, 1e-15, 1 - 1e-15, xtol=1e-300, rtol=1e-15)
        return upper, -1 / (c[1] + gap * t)

    @functools.cached_property
    def _edges(self) -> tuple[float, float]:
        upper, lower = self._stills
        a = 0.0 if self._all[0] == self._all[1] else float(np.prod(1 + self._all * lower) / lower)
        return a, float(np.prod(1 + self._all * upper) / upper)

    @property
    def support(self) -> list[tuple[float, float]]:
        """Ends of the continuous part; the lower one is zero when the two largest of 1 and the ratios are equal."""
        return [self._edges]

    @property
    def atoms(self) -> list[tuple[float, float]]:
        """Pairs (place, mass): the share at zero when a ratio is above one."""
        return [(0.0, 1 - 1 / max(self.ratios))] if max(self.ratios) > 1 else []

    # -- the angle ---------------------------------------------------------------------------------------------------------

    def _balance(self, angle: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sum of the arguments, which is zero at the right size of w, and its derivative by the logarithm of the size."""
        sine, cosine = np.sin(angle), np.cos(angle)
        total, rate = -angle, np.zeros(angle.shape)
        for c in self._all:
            y, x = c * size * sine, 1 + c * size * cosine
            total, rate = total + np.arctan2(y, x), rate + y / (x * x + y * y)
        return total, rate

    @functools.cached_property
    def _log_size(self) -> np.ndarray:
        """Chebyshev coefficients of the logarithm of the size of w in ``2 angle / pi - 1``: a start for Newton's method."""
        ends = np.log(np.abs(self._stills))
        reach = np.log(self._all[0] / self._all[-1]) + 3

        def bisected(t: np.ndarray) -> np.ndarray:
            low, high = np.full(t.shape, ends.min() - reach), np.full(t.shape, ends.max() + reach)
            for _ in range(60):
                middle = (low + high) / 2
                short = self._balance(np.pi / 2 * (1 + t), np.exp(middle))[0] < 0
                low, high = np.where(short, middle, low), np.where(short, high, middle)
            return (low + high) / 2

        return interpolant(bisected, tolerance=1e-7)

    def _root(self, angle: np.ndarray) -> np.ndarray:
        """The w at each angle."""
        start = chebyshev.chebval(2 * angle / np.pi - 1, self._log_size)
        low, high, log_size = start - 1e-5, start + 1e-5, start
        for _ in range(24):  # Newton's method; bisection where the angle is so near pi that the start is too rough
            total, rate = self._balance(angle, np.exp(log_size))
            low, high = np.where(total < 0, log_size, low), np.where(total < 0, high, log_size)
            with np.errstate(divide="ignore", invalid="ignore"):
                new = log_size - total / rate
            new = np.where((new >= low) & (new <= high), new, (low + high) / 2)
            done = np.abs(new - log_size) <= 2e-16
            log_size = new
            if done.all():
                break
        return np.exp(log_size - 1j * angle)

    def _places(self, angle: np.ndarray) -> np.ndarray:
        w = self._root(angle)
        place = 1 / np.abs(w)
        for c in self._all:
            place = place * np.abs(1 + c * w)
        return np.asarray(place)

    def _mass_rate(self, angle: np.ndarray) -> np.ndarray:
        # Mass is density times dx, density is -Im w / (pi x), and along the curve d log x / d angle = |l|^2 / Im l with l = w z' / z.
        w = self._root(angle)
        level, spread = -np.ones(w.shape, dtype=np.complex128), np.zeros(w.shape)
        for c in self._all:
            level = level + c * w / (1 + c * w)
            spread = spread + c / np.abs(1 + c * w) ** 2
        return np.asarray(np.abs(level) ** 2 / (np.pi * spread))

    def _angular_density(self, angle: np.ndarray) -> np.ndarray:
        return np.asarray(-self._root(angle).imag / (np.pi * self._places(angle)))

    # -- transforms and moments ----------------------------------------------------------------------------------------------

    @functools.cached_property
    def _inverse(self) -> RationalInverse:
        numerator = functools.reduce(polynomial.polymul, [np.array([1.0, c]) for c in self._all])
        return RationalInverse(numerator, [0.0, 1.0], self._argument)

    def _argument(self, w: np.ndarray) -> np.ndarray:
        return np.asarray(sum(lower_argument(1 + c * w) for c in self._all) - lower_argument(w))

    @functools.cached_property
    def _gaps(self) -> list[Gap]:
        (a, b), (upper, lower) = self._edges, self._stills
        return [Gap(-np.inf, a, lower, 0.0), Gap(b, np.inf, 0.0, upper)]

    def _denominator(self, w: np.ndarray) -> np.ndarray:
        """The product of ``1 + c_i w``, without that of the one."""
        return np.prod(1 + np.array(self.ratios).reshape(-1, *[1] * w.ndim) * w, axis=0)

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
        below = z.imag < 0
        at = np.where(below, z.conj(), z)
        w = self._inverse.solve(at, self._gaps)
        a, b = self._edges
        inside = (at.imag == 0) & (at.real > a) & (at.real < b)
        if inside.any():
            w = np.array(w)
            w[inside] = self._root(self._angle(at.real[inside]))
        # (1 + w) / z, in the form that holds at z = 0.
        with np.errstate(divide="ignore", invalid="ignore"):
            out = -w / self._denominator(w)
        if a == 0 or self.atoms:
            out = np.where(z == 0, np.inf, out)
        return like(np.where(below, out.conj(), out))

    def moment(self, k: int) -> float:
        """Mean of the k-th powers of the eigenvalues, by Lagrange's inversion.

        Raises
        ------
        ValueError
            When `k` is not a whole number of at least 0.
        """
        k = check_whole("k", k, 0)
        return 1.0 if k == 0 else lagrange_coefficient(k, np.asarray(self._inverse.numerator), np.array([0.0, 1.0]))

    def s_transform(self, w: Any) -> Any:
        """The product of ``1 / (1 + c_i w)``; the shape of `w`."""
        return like(np.asarray(1 / self._denominator(np.asarray(w))))
