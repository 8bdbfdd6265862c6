"""Free compression: spectra of principal blocks of matrices in general position."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from .fixed_point import self_energy_with_slope
from .fixed_point_law import FixedPointLaw
from .free_convolution import check_bounded
from .law import SpectralLaw, check_positive
from .marchenko_pastur import MarchenkoPastur
from .semicircle import Semicircle
from .silverstein import gap_index
from .transforms import ends


def free_compression(law: SpectralLaw, fraction: float) -> SpectralLaw:
    """Law of a principal m x m block of a large P x P matrix with random eigenvectors, at ``fraction = m / P``.

    It is what block spectra would be if blocks were nothing special: the null model of block-wise curvature.

    Parameters
    ----------
    law : SpectralLaw
        Law of the whole matrix, with finite ends.
    fraction : float
        ``m / P``, above zero and at most one.

    Returns
    -------
    SpectralLaw
        A `Semicircle` or a `MarchenkoPastur` where the law is one, the law itself at fraction one or when it is a single atom; else a
        law with the same methods, by subordination.

    Raises
    ------
    ValueError
        When `law` is not a spectral law with finite ends, or `fraction` is not in (0, 1].

    Notes
    -----
    The R-transform of the block is ``R(fraction w)``, so its mean is that of the whole and its variance is `fraction` times that of the
    whole. The subordination function is the fixed point of ``omega = z + (1 - fraction) F(omega)`` with F one over the Cauchy
    transform, and the block's is ``G(omega) / fraction``. An atom of mass p keeps its place, with the mass
    ``(p - (1 - fraction)) / fraction`` if that is positive.

    References
    ----------
    A. Nica and R. Speicher, *On the multiplication of free N-tuples of noncommutative random variables*, Amer. J. Math. 118 (1996).
    S. T. Belinschi and H. Bercovici, *Atoms and regularity for measures in a partially defined free convolution semigroup*,
    Math. Z. 248 (2004).

    Examples
    --------
    >>> import linop_spectra as ls
    >>> from linop_spectra.random_matrices.laws.free_compression import free_compression
    >>> free_compression(ls.random_matrices.MarchenkoPastur(ratio=0.5), 0.25)
    MarchenkoPastur(ratio=0.125, variance=1.0)
    """
    check_bounded("law", law)
    fraction = check_positive("fraction", fraction, "the size of the block over that of the matrix")
    if fraction > 1:
        raise ValueError(f"The argument fraction, the size of the block over that of the matrix, must be at most one, but is {fraction}.")
    low, high = ends(law)
    if fraction == 1 or low == high:
        return law
    if isinstance(law, Semicircle):
        return Semicircle(variance=fraction * law.variance)
    if isinstance(law, MarchenkoPastur):
        return MarchenkoPastur(ratio=fraction * law.ratio, variance=law.variance)
    if isinstance(law, CompressedLaw):  # a block of a block
        return CompressedLaw(law.law, law.fraction * fraction)
    return CompressedLaw(law, fraction)


@dataclasses.dataclass(frozen=True)
class CompressedLaw(FixedPointLaw):
    """The free compression of a law, see `free_compression`.

    Parameters
    ----------
    law : SpectralLaw
        Law of the whole, with finite ends and not a single atom.
    fraction : float
        Between zero and one.
    """

    law: SpectralLaw
    fraction: float

    @property
    def _hull(self) -> tuple[float, float]:
        return ends(self.law)

    @property
    def _relative(self) -> bool:
        return False

    @property
    def atoms(self) -> list[tuple[float, float]]:
        """Pairs (place, mass): those of the whole that are heavier than one minus the fraction."""
        kept = ((place, (mass - (1 - self.fraction)) / self.fraction) for place, mass in self.law.atoms)
        return [(place, mass) for place, mass in kept if mass > 1e-12]

    def _map(self, omega: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value, slope = self_energy_with_slope(self.law, omega)
        return z + (1 - self.fraction) * (omega - value), (1 - self.fraction) * (1 - slope)

    def _cauchy_from(self, omega: np.ndarray, z: np.ndarray) -> np.ndarray:
        return -np.asarray(self.law.stieltjes(omega), dtype=np.complex128) / self.fraction

    def _gap_of(self, omega: np.ndarray, z: np.ndarray) -> np.ndarray:
        return gap_index(self.law, omega.real)

    def _self_energy(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """That of the whole at the subordination function, and its derivative."""
        value, slope = self_energy_with_slope(self.law, self._solve(z.ravel()))
        slope = slope / (1 - (1 - self.fraction) * (1 - slope))
        return value.reshape(z.shape), slope.reshape(z.shape)

    def _candidates(self) -> np.ndarray:
        return self.mean() + math.sqrt(self.var()) * np.linspace(-3, 3, 121)

    def mean(self) -> float:
        """The mean of the whole."""
        return self.law.mean()

    def var(self) -> float:
        """The fraction times the variance of the whole."""
        return self.fraction * self.law.var()

    def r_transform(self, w: Any) -> Any:
        """R-transform of the whole at ``fraction w``; the shape of `w`."""
        return self.law.r_transform(self.fraction * np.asarray(w))
