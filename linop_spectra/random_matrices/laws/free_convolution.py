"""Free convolutions: spectra of sums and products of matrices in general position."""

from __future__ import annotations

import abc
import dataclasses
import math

import numpy as np

from .affine_law import AffineLaw
from .discrete_law import DiscreteLaw
from .fixed_point import fixed_point, self_energy_with_slope
from .fixed_point_law import FixedPointLaw
from .generalized_marchenko_pastur import GeneralizedMarchenkoPastur
from .law import SpectralLaw
from .marchenko_pastur import MarchenkoPastur
from .semicircle import Semicircle
from .silverstein import gap_index
from .transforms import ends

_MASS_ROUNDING = 1e-12


def free_additive_convolution(first: SpectralLaw, second: SpectralLaw) -> SpectralLaw:
    """Law of the sum of two large symmetric matrices whose eigenvectors are independent of each other.

    The sum of A and ``Q B Q^T`` with Q a random rotation follows it, when A and B follow the two laws.

    Parameters
    ----------
    first, second : SpectralLaw
        Laws with finite ends.

    Returns
    -------
    SpectralLaw
        A `Semicircle` when both are; a shifted law when one is a single atom; else a law with the same methods, by subordination.

    Raises
    ------
    ValueError
        When an argument is not a spectral law, or has no finite ends.

    Notes
    -----
    With F one over the Cauchy transform and ``h(w) = w - F(w)``, the subordination function is the fixed point of
    ``omega = z - h2(z - h1(omega))``, and ``F(z) = F1(omega)``. It is found by Newton's method with continuation from large imaginary
    parts; plain iteration does not converge in reasonable time near the real line. The sum has an atom at a + b exactly when the masses
    there add up to more than one, and its mass is the excess.

    References
    ----------
    D. Voiculescu, *Addition of certain non-commuting random variables*, J. Funct. Anal. 66 (1986).
    H. Bercovici and D. Voiculescu, *Regularity questions for free convolution*, Oper. Theory Adv. Appl. 104 (1998).
    S. T. Belinschi and H. Bercovici, *A new approach to subordination results in free probability*, J. Anal. Math. 101 (2007).

    Examples
    --------
    The sum of two free symmetric signs has the arcsine law:

    >>> from linop_spectra.random_matrices.laws.discrete_law import DiscreteLaw
    >>> from linop_spectra.random_matrices.laws.free_convolution import free_additive_convolution
    >>> sign = DiscreteLaw([-1.0, 1.0])
    >>> total = free_additive_convolution(sign, sign)
    >>> total.support, round(total.quantile(0.75), 10)
    ([(-2.0, 2.0)], 1.4142135624)
    """
    for name, law in (("first", first), ("second", second)):
        check_bounded(name, law)
    if isinstance(first, Semicircle) and isinstance(second, Semicircle):
        return Semicircle(variance=first.variance + second.variance)
    for law, other in ((first, second), (second, first)):
        low, high = ends(law)
        if low == high:
            return _affine(other, 1.0, low)
    return FreeSum(first, second)


def free_multiplicative_convolution(first: SpectralLaw, second: SpectralLaw) -> SpectralLaw:
    """Law of the product of two large positive semi-definite matrices whose eigenvectors are independent of each other.

    ``A^(1/2) Q B Q^T A^(1/2)`` with Q a random rotation follows it, when A and B follow the two laws.

    Parameters
    ----------
    first, second : SpectralLaw
        Laws on the non-negative numbers with finite ends.

    Returns
    -------
    SpectralLaw
        A `GeneralizedMarchenkoPastur` when one is a `MarchenkoPastur` and the other one discrete; a stretched law when one is a
        single atom; else a law with the same methods, by subordination.

    Raises
    ------
    ValueError
        When an argument is not a spectral law, has no finite ends or has negative places.

    Notes
    -----
    With F one over the Cauchy transform and ``k(w) = w - F(w)``, the subordination function is the fixed point of
    ``omega = z / k2(z / k1(omega))``, and ``F(z) = z F1(omega) / omega``. The atom at zero is the larger one of the two; another one, at
    a b, has the excess of the two masses over one.

    References
    ----------
    D. Voiculescu, *Multiplication of certain non-commuting random variables*, J. Operator Theory 18 (1987).
    S. T. Belinschi, *The atoms of the free multiplicative convolution of two probability distributions*, Integral Equations Operator
    Theory 46 (2003).
    S. T. Belinschi and H. Bercovici, *A new approach to subordination results in free probability*, J. Anal. Math. 101 (2007).

    Examples
    --------
    >>> import linop_spectra as ls
    >>> from linop_spectra.random_matrices.laws.free_convolution import free_multiplicative_convolution
    >>> square = ls.random_matrices.MarchenkoPastur(ratio=1.0)
    >>> free_multiplicative_convolution(square, square).moments(5).round(6).tolist()
    [1.0, 1.0, 3.0, 12.0, 55.0]
    """
    for name, law in (("first", first), ("second", second)):
        check_bounded(name, law)
        low = ends(law)[0]
        if low < 0:
            raise ValueError(f"The argument {name} must be a law on the non-negative numbers, but its lowest place is {low:.6g}.")
    for law, other in ((first, second), (second, first)):
        low, high = ends(law)
        if low == high:
            return DiscreteLaw([0.0], [1.0]) if low == 0 else _affine(other, low, 0.0)
    for law, other in ((first, second), (second, first)):
        if isinstance(law, MarchenkoPastur) and isinstance(other, DiscreteLaw):
            return GeneralizedMarchenkoPastur(other.places, other.weights, ratio=law.ratio, variance=law.variance)
    # In units of the means, so that the fixed point has the size of z.
    means = first.mean(), second.mean()
    return _affine(FreeProduct(_affine(first, 1 / means[0], 0.0), _affine(second, 1 / means[1], 0.0)), means[0] * means[1], 0.0)


class _FreeConvolution(FixedPointLaw):
    """What sums and products share: two subordination functions, of which one may be infinite between parts of the law."""

    first: SpectralLaw
    second: SpectralLaw

    @abc.abstractmethod
    def _image(self, one: SpectralLaw, other: SpectralLaw, omega: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Map of the subordination function of `one`, and its derivative."""

    @abc.abstractmethod
    def _partner(self, law: SpectralLaw, omega: np.ndarray, z: np.ndarray) -> np.ndarray:
        """The other subordination function, from that of `law`."""

    def _map(self, omega: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._image(self.first, self.second, omega, z)

    def _solve_block(self, z: np.ndarray) -> np.ndarray:
        # That of a law in one piece is infinite where the transform of the convolution vanishes; that of the other one is not.
        turned = _parts(self.second) > _parts(self.first)
        laws = (self.second, self.first) if turned else (self.first, self.second)

        def solve(one: SpectralLaw, other: SpectralLaw, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return fixed_point(lambda omega, at: self._image(one, other, omega, at), z, self._scale, relative=self._relative)

        omega, good = solve(*laws, z)
        if turned:
            omega = self._partner(self.second, omega, z)
        if not np.all(good):
            rest = ~good
            again, found = solve(laws[1], laws[0], z[rest])
            if not turned:
                again = self._partner(self.second, again, z[rest])
            omega[rest] = np.where(found, again, omega[rest])
        return omega

    def _gap_of(self, omega: np.ndarray, z: np.ndarray) -> np.ndarray:
        other = self._partner(self.first, omega, z)
        return gap_index(self.first, omega.real) + 1_000_000 * gap_index(self.second, other.real)


def _parts(law: SpectralLaw) -> int:
    return len(law.support) + len(law.atoms)


@dataclasses.dataclass(frozen=True)
class FreeSum(_FreeConvolution):
    """The free additive convolution of two laws, see `free_additive_convolution`.

    Parameters
    ----------
    first, second : SpectralLaw
        Laws with finite ends, neither of them a single atom.
    """

    first: SpectralLaw
    second: SpectralLaw

    @property
    def _hull(self) -> tuple[float, float]:
        (a, b), (c, d) = ends(self.first), ends(self.second)
        return a + c, b + d

    @property
    def atoms(self) -> list[tuple[float, float]]:
        """Pairs (place, mass): sums of places whose masses exceed one together."""
        return _meeting_atoms(self.first, self.second, lambda a, b: a + b)

    def _image(self, one: SpectralLaw, other: SpectralLaw, omega: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inner, inner_slope = self_energy_with_slope(one, omega)
        outer, outer_slope = self_energy_with_slope(other, z - inner)
        return z - outer, outer_slope * inner_slope

    def _partner(self, law: SpectralLaw, omega: np.ndarray, z: np.ndarray) -> np.ndarray:
        return z - self_energy_with_slope(law, omega)[0]

    def _cauchy_from(self, omega: np.ndarray, z: np.ndarray) -> np.ndarray:
        return -np.asarray(self.first.stieltjes(omega), dtype=np.complex128)

    def _self_energy(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sum of the two at their subordination functions, and its derivative."""
        flat = z.ravel()
        omega = self._solve(flat)
        one, one_slope = self_energy_with_slope(self.first, omega)
        other, other_slope = self_energy_with_slope(self.second, flat - one)
        slope = (one_slope * (1 - other_slope) + other_slope * (1 - one_slope)) / (1 - one_slope * other_slope)
        return (one + other).reshape(z.shape), slope.reshape(z.shape)

    def _candidates(self) -> np.ndarray:
        centre, spread = self.first.mean() + self.second.mean(), math.sqrt(self.first.var() + self.second.var())
        return centre + spread * np.linspace(-3, 3, 121)

    def mean(self) -> float:
        """The sum of the means."""
        return self.first.mean() + self.second.mean()

    def var(self) -> float:
        """The sum of the variances."""
        return self.first.var() + self.second.var()


@dataclasses.dataclass(frozen=True)
class FreeProduct(_FreeConvolution):
    """The free multiplicative convolution of two laws, see `free_multiplicative_convolution`.

    Parameters
    ----------
    first, second : SpectralLaw
        Laws on the non-negative numbers with finite ends, neither of them a single atom; their means should be of order one.
    """

    first: SpectralLaw
    second: SpectralLaw

    @property
    def _hull(self) -> tuple[float, float]:
        (a, b), (c, d) = ends(self.first), ends(self.second)
        return a * c, b * d

    @property
    def _relative(self) -> bool:
        return True

    @property
    def atoms(self) -> list[tuple[float, float]]:
        """Pairs (place, mass): the larger atom at zero, and products of places whose masses exceed one together."""
        zero = max(sum(mass for place, mass in law.atoms if place == 0) for law in (self.first, self.second))
        meeting = [(place, mass) for place, mass in _meeting_atoms(self.first, self.second, lambda a, b: a * b) if place > 0]
        return [(0.0, zero), *meeting] if zero > 0 else meeting

    def _image(self, one: SpectralLaw, other: SpectralLaw, omega: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inner, inner_slope = self_energy_with_slope(one, omega)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            partner = z / inner
            outer, outer_slope = self_energy_with_slope(other, partner)
            image = z / outer
            return image, image / outer * outer_slope * partner / inner * inner_slope

    def _partner(self, law: SpectralLaw, omega: np.ndarray, z: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return np.asarray(z / self_energy_with_slope(law, omega)[0])

    def _cauchy_from(self, omega: np.ndarray, z: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return -omega * np.asarray(self.first.stieltjes(omega), dtype=np.complex128) / z

    def _candidates(self) -> np.ndarray:
        high = self._hull[1]
        spread = math.sqrt(self.var())
        return np.concatenate([high * 10.0 ** np.linspace(-12, 0, 100), self.mean() + spread * np.linspace(-3, 3, 121)])

    def mean(self) -> float:
        """The product of the means."""
        return self.first.mean() * self.second.mean()

    def var(self) -> float:
        """``m1^2 v2 + m2^2 v1`` for means m and variances v."""
        return self.first.mean() ** 2 * self.second.var() + self.second.mean() ** 2 * self.first.var()


def _meeting_atoms(first: SpectralLaw, second: SpectralLaw, place: object) -> list[tuple[float, float]]:
    """Atoms at combined places, with the excess of the masses over one."""
    assert callable(place)
    found = [(place(a, b), p + q - 1) for a, p in first.atoms for b, q in second.atoms if p + q - 1 > _MASS_ROUNDING]
    return sorted(found)


def _affine(law: SpectralLaw, factor: float, shift: float) -> SpectralLaw:
    """The law stretched and shifted, in closed form where there is one."""
    if factor == 1 and shift == 0:
        return law
    if isinstance(law, DiscreteLaw):
        return DiscreteLaw(np.array(law.places) * factor + shift, law.weights)
    if isinstance(law, AffineLaw):
        return _affine(law.law, law.factor * factor, law.shift * factor + shift)
    if isinstance(law, MarchenkoPastur) and shift == 0:
        return MarchenkoPastur(ratio=law.ratio, variance=law.variance * factor)
    if isinstance(law, Semicircle) and shift == 0:
        return Semicircle(variance=law.variance * factor**2)
    return AffineLaw(law, factor=factor, shift=shift)


def check_bounded(name: str, law: SpectralLaw) -> None:
    """A ValueError unless the argument is a spectral law with finite ends."""
    if not isinstance(law, SpectralLaw):
        raise ValueError(f"The argument {name} must be a spectral law, but is a {type(law).__name__}; pass eigenvalues as a DiscreteLaw.")
    low, high = ends(law)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"The argument {name} must be a law with finite ends, but it reaches from {low} to {high}.")
