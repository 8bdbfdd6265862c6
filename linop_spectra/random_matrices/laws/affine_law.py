"""A law stretched and shifted."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from .fixed_point import cauchy_with_slope, self_energy_with_slope
from .law import SpectralLaw, check_positive, check_whole


@dataclasses.dataclass(frozen=True)
class AffineLaw(SpectralLaw):
    """Law of ``factor lambda + shift`` where lambda follows another law.

    Parameters
    ----------
    law : SpectralLaw
        Law of lambda.
    factor : float
        Positive.
    shift : float
        Finite.

    Examples
    --------
    >>> import linop_spectra as ls
    >>> from linop_spectra.random_matrices.laws.affine_law import AffineLaw
    >>> AffineLaw(ls.random_matrices.Semicircle(), factor=2.0, shift=1.0).support
    [(-3.0, 5.0)]
    """

    law: SpectralLaw
    factor: float = 1.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.law, SpectralLaw):
            raise ValueError(f"The argument law must be a spectral law, but is a {type(self.law).__name__}.")
        object.__setattr__(self, "factor", check_positive("factor", self.factor, "by which the places are multiplied"))
        if not isinstance(self.shift, (int, float, np.integer, np.floating)) or not math.isfinite(self.shift):
            raise ValueError(f"The argument shift must be a finite number, but is {self.shift!r}.")
        object.__setattr__(self, "shift", float(self.shift))

    def _inner(self, x: Any) -> np.ndarray:
        return np.asarray((np.asarray(x) - self.shift) / self.factor)

    @property
    def support(self) -> list[tuple[float, float]]:
        """Intervals that carry the continuous part, ascending."""
        return [(self.factor * a + self.shift, self.factor * b + self.shift) for a, b in self.law.support]

    @property
    def atoms(self) -> list[tuple[float, float]]:
        """Pairs (place, mass)."""
        return [(self.factor * place + self.shift, mass) for place, mass in self.law.atoms]

    def pdf(self, x: Any) -> Any:
        """Density of the continuous part at `x`; the shape of `x`."""
        return self.law.pdf(self._inner(x)) / self.factor

    def cdf(self, x: Any) -> Any:
        """Mass at or below `x`; the shape of `x`."""
        inner = self._inner(x)
        for place, _ in self.law.atoms:  # rounding must not put an atom above its own place
            inner = np.where(np.asarray(x) == self.factor * place + self.shift, place, inner)
        return self.law.cdf(inner)

    def quantile(self, q: Any) -> Any:
        """Smallest place whose `cdf` reaches `q`; the shape of `q`."""
        return self.factor * self.law.quantile(q) + self.shift

    def moment(self, k: int) -> float:
        """Mean of the k-th powers."""
        k = check_whole("k", k, 0)
        terms = (math.comb(k, j) * self.factor**j * self.law.moment(j) * self.shift ** (k - j) for j in range(k + 1))
        return math.fsum(terms)

    def var(self) -> float:
        """The variance."""
        return self.factor**2 * self.law.var()

    def stieltjes(self, z: Any) -> Any:
        """Stieltjes transform, the mean of ``1 / (lambda - z)``; on the support the limit from above. Complex, the shape of `z`."""
        return self.law.stieltjes(self._inner(z)) / self.factor

    def _cauchy_slope(self, z: np.ndarray) -> np.ndarray:
        return cauchy_with_slope(self.law, self._inner(z))[1] / self.factor**2

    def _self_energy(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value, slope = self_energy_with_slope(self.law, self._inner(z))
        return self.factor * value + self.shift, slope

    def r_transform(self, w: Any) -> Any:
        """R-transform at `w`, see `SpectralLaw.r_transform`; the shape of `w`."""
        return self.factor * self.law.r_transform(np.asarray(w) * self.factor) + self.shift

    def jacobi_coefficients(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """What k Lanczos steps give in the limit: alphas and betas, each of shape (k,)."""
        alphas, betas = self.law.jacobi_coefficients(k)
        return self.factor * alphas + self.shift, self.factor * betas
