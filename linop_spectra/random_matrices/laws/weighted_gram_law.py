"""The law of a weighted Gram matrix: Gauss-Newton matrices of independent gradients."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from .generalized_marchenko_pastur import population_law, scaled_population
from .law import SpectralLaw, check_positive
from .silverstein import SilversteinLaw


@dataclasses.dataclass(frozen=True)
class WeightedGramLaw(SilversteinLaw):
    """Limit of the spectrum of ``(1 / N) sum_i a_i x_i x_i^T``, a D x D matrix of N independent vectors with weights.

    The x_i have independent entries of mean zero. Weights may be negative. With all of them one it is `MarchenkoPastur`.

    Parameters
    ----------
    weights : array
        Distinct values of the weights a_i, or all of them, shape (k,).
    probabilities : array, optional
        Share of the vectors that has each weight, shape (k,), of sum one; equal shares by default.
    ratio : float
        ``c = D / N``, dimension over number of vectors.
    variance : float
        Of the entries of the x_i.
    population : SpectralLaw, optional
        Law of the weights, in place of `weights` and `probabilities`; it may have a density.

    Notes
    -----
    The Stieltjes transform solves ``m = 1 / (-z + s int a / (1 + a s c m))`` with s the variance, the integral over the weights. The
    nonzero eigenvalues are those of the N x N matrix ``A^(1/2) X X^T A^(1/2) / N``, which follows `GeneralizedMarchenkoPastur` of ratio
    ``1 / c``, population a and variance ``c s``.

    References
    ----------
    V. A. Marchenko and L. A. Pastur, *Distribution of eigenvalues for some sets of random matrices*, Math. USSR Sb. 1 (1967).
    S. Fort and S. Ganguli, *Emergent properties of the local geometry of neural loss landscapes*, arXiv:1910.05929 (2019).

    Examples
    --------
    >>> from linop_spectra.random_matrices.laws.weighted_gram_law import WeightedGramLaw
    >>> law = WeightedGramLaw([1.0, 3.0], [0.5, 0.5], ratio=4.0)
    >>> law.atoms, round(law.mean(), 12)
    ([(0.0, 0.75)], 2.0)
    """

    population: SpectralLaw
    ratio: float
    variance: float = 1.0

    def __init__(
        self, weights: Any = None, probabilities: Any = None, *, ratio: float, variance: float = 1.0, population: SpectralLaw | None = None
    ) -> None:
        object.__setattr__(self, "ratio", check_positive("ratio", ratio, "the dimension over the number of vectors"))
        object.__setattr__(self, "variance", check_positive("variance", variance, "that of the entries"))
        object.__setattr__(self, "population", population_law("weights", weights, "probabilities", probabilities, population))
        if not self.population.support and not any(place for place, _ in self.population.atoms):
            raise ValueError("All weights are zero; give at least one that is not.")

    @functools.cached_property
    def _population_law(self) -> SpectralLaw:
        return scaled_population(self.population, self.variance * self.ratio)

    @property
    def _slope_ratio(self) -> float:
        return 1 / self.ratio

    @property
    def atoms(self) -> list[tuple[float, float]]:
        """The atom at zero, if any: the share of dimensions that no vector of nonzero weight reaches, as a pair (place, mass)."""
        used = 1 - sum(mass for place, mass in self.population.atoms if place == 0)
        mass = 1 - used / self.ratio
        return [(0.0, mass)] if mass > 0 else []

    def _cauchy_from(self, omega: np.ndarray, z: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(1 / omega)
