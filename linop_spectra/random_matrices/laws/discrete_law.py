"""A law of finitely many point masses, such as a list of eigenvalues."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from .law import SpectralLaw, check_levels, check_whole, like
from .numerical_law import discrete_jacobi

_BLOCK = 2_000_000


@dataclasses.dataclass(frozen=True)
class DiscreteLaw(SpectralLaw):
    """Point masses at given places, such as a population spectrum or a list of eigenvalues.

    Parameters
    ----------
    places : array
        Finite real numbers, shape (n,). They are sorted, and equal ones are merged.
    weights : array, optional
        Masses, shape (n,): not negative, of sum one. Equal ones by default. Places of weight zero are dropped.

    Raises
    ------
    ValueError
        When the shapes differ, a place is not finite, a weight is negative, or the weights do not sum to one within 1e-8.

    Examples
    --------
    >>> import linop_spectra as ls
    >>> from linop_spectra.random_matrices.laws.discrete_law import DiscreteLaw
    >>> law = DiscreteLaw([5.0, 1.0], [0.25, 0.75])
    >>> law.atoms, law.mean(), law.quantile(0.75)
    ([(1.0, 0.75), (5.0, 0.25)], 2.0, 1.0)
    >>> DiscreteLaw([1.0, 1.0, 2.0, 4.0]).cdf(2.0)
    0.75
    """

    places: tuple[float, ...]
    weights: tuple[float, ...]

    def __init__(self, places: Any, weights: Any = None) -> None:
        x, h = check_measure("places", places, "weights", weights)
        object.__setattr__(self, "places", tuple(x.tolist()))
        object.__setattr__(self, "weights", tuple(h.tolist()))

    @functools.cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.places), np.array(self.weights)

    @property
    def support(self) -> list[tuple[float, float]]:
        """No interval: there is no continuous part."""
        return []

    @property
    def atoms(self) -> list[tuple[float, float]]:
        """Pairs (place, mass), ascending."""
        return list(zip(self.places, self.weights, strict=True))

    def pdf(self, x: Any) -> Any:
        """Density of the continuous part, which is zero; the shape of `x`."""
        x = np.asarray(x, dtype=np.float64)
        return like(np.where(np.isnan(x), np.nan, 0.0))

    @functools.cached_property
    def _steps(self) -> np.ndarray:
        total = np.cumsum(self._arrays[1])
        total[-1] = 1.0
        return np.minimum(total, 1.0)

    def cdf(self, x: Any) -> Any:
        """Mass at or below `x`; the shape of `x`."""
        x = np.asarray(x, dtype=np.float64)
        below = np.concatenate([[0.0], self._steps])[np.searchsorted(self._arrays[0], x, side="right")]
        return like(np.where(np.isnan(x), np.nan, below))

    def quantile(self, q: Any) -> Any:
        """Smallest place whose `cdf` reaches `q`; the shape of `q`.

        Raises
        ------
        ValueError
            When `q` is not between 0 and 1.
        """
        q = check_levels(q)
        return like(self._arrays[0][np.searchsorted(self._steps, q, side="left")])

    def moment(self, k: int) -> float:
        """Mean of the k-th powers.

        Raises
        ------
        ValueError
            When `k` is not a whole number of at least 0.
        """
        k = check_whole("k", k, 0)
        places, weights = self._arrays
        return 1.0 if k == 0 else math.fsum(weights * places**k)

    def var(self) -> float:
        """The variance, without cancellation when the mean is large."""
        places, weights = self._arrays
        return math.fsum(weights * (places - self.mean()) ** 2)

    def stieltjes(self, z: Any) -> Any:
        """Stieltjes transform, ``sum weight / (place - z)``; infinite at a place. Complex, the shape of `z`."""
        return like(self._resolvents(z, (1, self._arrays[1]))[0])

    def _cauchy_slope(self, z: np.ndarray) -> np.ndarray:
        """Derivative of the Cauchy transform."""
        return -self._resolvents(z, (2, self._arrays[1]))[0]

    @functools.cached_property
    def _centred(self) -> tuple[float, np.ndarray, float]:
        """Mean, weights times distance from it, and size of the places."""
        (places, weights), mean = self._arrays, self.mean()
        return mean, weights * (places - mean), abs(mean) + math.sqrt(self.var())

    def _self_energy(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``z - 1 / G`` and its derivative, from sums of ``place - mean``, which do not cancel far away."""
        (mean, centred, size), weights = self._centred, self._arrays[1]
        # Minus G, minus its derivative, and the same with every place taken times its distance from the mean.
        value, slope, shifted, shifted_slope = self._resolvents(z, (1, weights), (2, weights), (1, centred), (2, centred))
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            energy, energy_slope = mean + shifted / value, shifted_slope / value - shifted * slope / value**2
            # Near zero, where an atom makes the self-energy vanish, the plain difference keeps the relative digits instead.
            near = np.abs(z) < 0.1 * size
            return np.where(near, z + 1 / value, energy), np.where(near, 1 - slope / value**2, energy_slope)

    def _resolvents(self, z: Any, *sums: tuple[int, np.ndarray]) -> list[np.ndarray]:
        """Sums of ``weight / (place - z)^power``, one for each pair of a power (one or two) and weights."""
        z = np.asarray(z, dtype=np.complex128)
        places, flat = self._arrays[0], z.ravel()
        out = [np.empty(flat.shape, dtype=np.complex128) for _ in sums]
        powers, rows = {power for power, _ in sums}, max(1, _BLOCK // len(places))
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            for first in range(0, len(flat), rows):
                gap = places - flat[first : first + rows, None]
                inverse = {power: 1 / gap if power == 1 else 1 / gap**2 for power in powers}
                for total, (power, weights) in zip(out, sums, strict=True):
                    total[first : first + rows] = inverse[power] @ weights
        return [total.reshape(z.shape) for total in out]

    def jacobi_coefficients(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Alphas and betas of k Lanczos steps, each of shape (k,); the last beta is zero when k is the number of places.

        Raises
        ------
        ValueError
            When `k` is not a whole number of at least 1, or there are fewer than k places.
        """
        k = check_whole("k", k, 1)
        if k > len(self.places):
            raise ValueError(f"The argument k is {k}, but a law of {len(self.places)} places ends after as many Lanczos steps.")
        return discrete_jacobi(*self._arrays, k)


def check_measure(name: str, places: Any, weights_name: str, weights: Any) -> tuple[np.ndarray, np.ndarray]:
    """Sorted distinct places with positive weights that sum to one, or a ValueError that names the argument."""
    try:
        x = np.asarray(places, dtype=np.float64)
        h = None if weights is None else np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"The arguments {name} and {weights_name} must be arrays of real numbers.") from None
    if x.ndim != 1 or x.size == 0 or not np.all(np.isfinite(x)):
        raise ValueError(f"The argument {name} must be a 1-D array of at least one finite number, but is {_brief(places)}.")
    if h is None:
        h = np.full(x.shape, 1 / x.size)
    if h.shape != x.shape:
        raise ValueError(f"The argument {weights_name} must have the shape of {name}, {x.shape}, but has shape {h.shape}.")
    if not np.all(np.isfinite(h)) or np.any(h < 0):
        raise ValueError(f"The argument {weights_name} must hold finite numbers that are not negative, but is {_brief(weights)}.")
    if abs(math.fsum(h) - 1) > 1e-8:
        raise ValueError(f"The argument {weights_name} must sum to one, but sums to {math.fsum(h):.10g}; divide it by its sum.")
    distinct, index = np.unique(x, return_inverse=True)
    merged = np.bincount(index, weights=h, minlength=len(distinct))
    used = merged > 0
    return distinct[used] + 0.0, merged[used] / math.fsum(merged)


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
