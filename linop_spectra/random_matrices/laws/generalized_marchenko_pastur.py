"""The generalised Marchenko-Pastur law: eigenvalues of a sample covariance matrix of correlated variables."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from .affine_law import AffineLaw
from .discrete_law import DiscreteLaw, check_measure
from .fixed_point import self_energy_with_slope
from .law import SpectralLaw, check_positive
from .silverstein import SilversteinLaw
from .transforms import ends


@dataclasses.dataclass(frozen=True)
class GeneralizedMarchenkoPastur(SilversteinLaw):
    """Limit of the spectrum of ``Sigma^(1/2) X X^T Sigma^(1/2) / n``, where X is p x n with independent entries of mean zero.

    The limit is for p and n growing at a fixed ratio ``c = p / n``, with the eigenvalues of the population covariance Sigma following a
    law of their own. It is the free multiplicative convolution of that law with `MarchenkoPastur`.

    Parameters
    ----------
    atoms : array
        Eigenvalues of Sigma, shape (k,), not negative.
    weights : array
        Their shares, shape (k,), which sum to one.
    ratio : float
        ``c = p / n``, number of variables over number of samples.
    variance : float
        Of the entries of X.
    population : SpectralLaw, optional
        Law of the eigenvalues of Sigma, in place of `atoms` and `weights`; it may have a density.

    Notes
    -----
    The transform is that of the Silverstein equation, solved by Newton's method with continuation. The edges for a population of
    atoms are exact to about 1e-13, relative; for one with a density they are found from the solution, to about 1e-10.

    References
    ----------
    V. A. Marchenko and L. A. Pastur, *Distribution of eigenvalues for some sets of random matrices*, Math. USSR Sb. 1 (1967).
    J. W. Silverstein, *Strong convergence of the empirical distribution of eigenvalues of large dimensional random matrices*,
    J. Multivariate Anal. 55 (1995).

    Examples
    --------
    >>> from linop_spectra.random_matrices.laws.generalized_marchenko_pastur import GeneralizedMarchenkoPastur
    >>> law = GeneralizedMarchenkoPastur([1.0, 5.0], [0.5, 0.5], ratio=0.1)
    >>> [(round(a, 5), round(b, 5)) for a, b in law.support]
    [(0.55711, 1.41576), (3.08129, 7.54584)]
    >>> round(law.cdf(2.0), 12)
    0.5
    """

    population: SpectralLaw
    ratio: float
    variance: float = 1.0

    def __init__(
        self, atoms: Any = None, weights: Any = None, *, ratio: float, variance: float = 1.0, population: SpectralLaw | None = None
    ) -> None:
        object.__setattr__(self, "ratio", check_positive("ratio", ratio, "the number of variables over the number of samples"))
        object.__setattr__(self, "variance", check_positive("variance", variance, "that of the entries"))
        object.__setattr__(self, "population", population_law("atoms", atoms, "weights", weights, population))
        low, high = ends(self.population)
        if low < 0:
            name = "atoms" if population is None else "population"
            raise ValueError(
                f"The argument {name} holds eigenvalues of a covariance matrix, but its lowest place is {low:.6g}, which is negative."
            )
        if high == 0:
            raise ValueError("The population covariance is zero; give at least one positive eigenvalue.")

    @functools.cached_property
    def _population_law(self) -> SpectralLaw:
        return scaled_population(self.population, self.variance)

    @property
    def _slope_ratio(self) -> float:
        return self.ratio

    @property
    def atoms(self) -> list[tuple[float, float]]:
        """The atom at zero, if any: the larger one of the population's and ``1 - 1 / ratio``, as a pair (place, mass)."""
        own = sum(mass for place, mass in self.population.atoms if place == 0)
        mass = max(own, 1 - 1 / self.ratio)
        return [(0.0, mass)] if mass > 0 else []

    def _cauchy_from(self, omega: np.ndarray, z: np.ndarray) -> np.ndarray:
        energy, _ = self_energy_with_slope(self._population_law, omega)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(1 / (omega - energy + self.ratio * energy))

    def _density(self, x: np.ndarray) -> np.ndarray:
        # The share 1 / ratio of that of the n x n companion, which has no atom to cancel with near a hard edge.
        omega = self._solve(x.astype(np.complex128))
        return np.asarray(omega.imag / np.abs(omega) ** 2 / (np.pi * self.ratio))


def population_law(name: str, places: Any, weights_name: str, weights: Any, population: SpectralLaw | None) -> SpectralLaw:
    """The population from either form, with finite ends, or a ValueError."""
    if population is None:
        if places is None:
            raise ValueError(f"Give the population as {name} and {weights_name}, or as a law by the argument population.")
        return DiscreteLaw(*check_measure(name, places, weights_name, weights))
    if places is not None or weights is not None:
        raise ValueError(f"Give the population either as {name} and {weights_name} or as a law by the argument population, not both.")
    if not isinstance(population, SpectralLaw):
        raise ValueError(f"The argument population must be a spectral law, but is a {type(population).__name__}.")
    if not np.all(np.isfinite(ends(population))):
        raise ValueError("The argument population must be a law with finite ends.")
    return population


def scaled_population(population: SpectralLaw, factor: float) -> SpectralLaw:
    """The population with its places multiplied."""
    if isinstance(population, DiscreteLaw):
        return DiscreteLaw(np.array(population.places) * factor, population.weights)
    return population if factor == 1 else AffineLaw(population, factor=factor)
