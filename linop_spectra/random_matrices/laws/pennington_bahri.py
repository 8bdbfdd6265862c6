"""The law of Pennington and Bahri for the Hessian of a network: a Wishart matrix plus a Wigner matrix."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
from numpy.polynomial import polynomial

from .law import check_positive, check_whole, like
from .numerical_law import NumericalLaw
from .rational_inverse import Gap, RationalInverse, lagrange_coefficient, support_between


@dataclasses.dataclass(frozen=True)
class PenningtonBahri(NumericalLaw):
    """Limit of the spectrum of a Hessian ``H_0 + H_1`` with a positive part and a free symmetric part that scales with the loss.

    ``H_0 = J J^T / m`` is the Gauss-Newton part, n x n from m data with independent standard entries in J: Marchenko-Pastur of the
    ratio ``n / m``. ``H_1`` is the residual part: a semicircle of variance ``2 energy``. Both are the model's assumptions; those of
    a trained network differ, which is what a comparison with this law shows.

    Parameters
    ----------
    ratio : float
        ``n / m``, parameters over data.
    energy : float
        Value of the loss, half the mean squared residual.

    Notes
    -----
    The R-transform is ``1 / (1 - ratio w) + 2 energy w``: the Cauchy transform solves a cubic equation, of which one root lies in the
    lower half-plane for every z in the upper one. For a ratio above one the zero eigenvalues of H_0 become a second
    interval, where the energy is small enough. The semicircle's variance has no factor `ratio`.

    References
    ----------
    J. Pennington and Y. Bahri, *Geometry of neural network loss surfaces via random matrix theory*, ICML (2017), section 4.2.

    Examples
    --------
    >>> import linop_spectra as ls
    >>> law = ls.random_matrices.PenningtonBahri(ratio=0.25, energy=0.08702)
    >>> round(law.critical_energy, 6), round(law.index, 4)
    (0.04351, 0.0415)
    """

    ratio: float
    energy: float

    def __post_init__(self) -> None:
        for name, meaning in (("ratio", "the number of parameters over that of data"), ("energy", "half the mean squared residual")):
            object.__setattr__(self, name, check_positive(name, getattr(self, name), meaning))

    @functools.cached_property
    def _inverse(self) -> RationalInverse:
        """``z = R(w) + 1 / w`` as a fraction."""
        numerator = [1.0, 1 - self.ratio, 2 * self.energy, -2 * self.energy * self.ratio]
        return RationalInverse(numerator, [0.0, 1.0, -self.ratio])

    @functools.cached_property
    def _gaps(self) -> list[Gap]:
        roots = polynomial.polyroots(self._inverse.numerator)
        return self._inverse.gaps([1 / self.ratio, *roots[roots.imag == 0].real])

    @property
    def support(self) -> list[tuple[float, float]]:
        """One interval, or two for a ratio above one and a small energy."""
        return support_between(self._gaps)

    @property
    def critical_energy(self) -> float:
        """Energy above which eigenvalues are negative; zero for a ratio of one or more."""
        return float(pennington_bahri_critical_energy(self.ratio))

    @property
    def index(self) -> float:
        """Share of the eigenvalues below zero: that of the directions of descent at a critical point."""
        return float(self.cdf(0.0)) if self.support[0][0] < 0 else 0.0

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
        w = self._inverse.solve(np.where(below, z.conj(), z), self._gaps)
        return like(np.where(below, -w.conj(), -w))

    def r_transform(self, w: Any) -> Any:
        """``1 / (1 - ratio w) + 2 energy w``; the shape of `w`."""
        w = np.asarray(w)
        return like(1 / (1 - self.ratio * w) + 2 * self.energy * w)

    def moment(self, k: int) -> float:
        """Mean of the k-th powers of the eigenvalues, by Lagrange's inversion of the Cauchy transform.

        Raises
        ------
        ValueError
            When `k` is not a whole number of at least 0.
        """
        k = check_whole("k", k, 0)
        growth = np.concatenate([[1.0], self.ratio ** np.arange(k + 1.0)])  # 1 + w R(w)
        if k > 0:
            growth[2] += 2 * self.energy
        return lagrange_coefficient(k + 1, growth, np.array([0.0, 1.0]))

    def var(self) -> float:
        """Variance of the eigenvalues, ``ratio + 2 energy``."""
        return self.ratio + 2 * self.energy


def pennington_bahri_critical_energy(ratio: Any) -> Any:
    """Energy up to which the law of Pennington and Bahri has no negative eigenvalues.

    Just above it their share grows like ``(energy / critical_energy - 1)^(3/2)``.

    Parameters
    ----------
    ratio : array
        Parameters over data, positive.

    Returns
    -------
    array
        ``(1 - 20 ratio - 8 ratio^2 + (1 + 8 ratio)^(3/2)) / 16``, in the equal form ``(3 - s)^3 (1 + s) / 128`` with
        ``s = sqrt(1 + 8 ratio)``, which does not cancel near one; zero for a ratio of one or more. The shape of `ratio`.

    Raises
    ------
    ValueError
        When a ratio is not positive.

    References
    ----------
    J. Pennington and Y. Bahri, *Geometry of neural network loss surfaces via random matrix theory*, ICML (2017), equation 15.

    Examples
    --------
    >>> from linop_spectra.random_matrices.laws.pennington_bahri import pennington_bahri_critical_energy
    >>> [round(pennington_bahri_critical_energy(ratio), 6) for ratio in (0.05, 0.25, 0.5, 1.0)]
    [0.102281, 0.04351, 0.011271, 0.0]
    """
    ratio = np.asarray(ratio, dtype=np.float64)
    if not np.all((ratio > 0) & np.isfinite(ratio)):
        raise ValueError("The argument ratio, the number of parameters over that of data, must be positive and finite.")
    s = np.sqrt(1 + 8 * ratio)
    return like(np.maximum(8 * (1 - ratio) / (3 + s), 0.0) ** 3 * (1 + s) / 128)
