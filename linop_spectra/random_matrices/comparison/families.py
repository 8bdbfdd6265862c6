"""Families of laws whose parameters can be read off Lanczos coefficients of a finite matrix."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import numpy as np

from ..laws.law import SpectralLaw
from ..laws.marchenko_pastur import MarchenkoPastur
from ..laws.semicircle import Semicircle

_ROUNDS = 30


class Family(abc.ABC):
    """Laws with parameters that follow from the tail of the coefficients of one measure, or of many at once.

    In the limit the coefficients are constant from the second one on. For a finite Gaussian matrix their means fall slowly with the
    step, which is known exactly (I. Dumitriu and A. Edelman, *Matrix models for beta ensembles*, J. Math. Phys. 43 (2002)) and is
    taken out, so that the fit has no bias of order k / n.
    """

    name: ClassVar[str]
    law_class: ClassVar[type[SpectralLaw]]
    parameters: ClassVar[tuple[str, ...]]

    def __init__(self, many: bool = False) -> None:
        self.many = many

    @abc.abstractmethod
    def estimate(self, alphas: np.ndarray, betas: np.ndarray, n: int, first: int) -> np.ndarray:
        """Parameters, shape (count, parameters), of mean coefficients of shapes (count, k) and (count, k - 1), from step `first` on."""

    def law(self, values: np.ndarray) -> SpectralLaw:
        """The law with these parameters."""
        return self.law_class(**{name: float(value) for name, value in zip(self.parameters, values, strict=True)})

    @abc.abstractmethod
    def coefficients(self, values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients of the laws with parameters of shape (count, parameters): shapes (count, k) and (count, k - 1)."""


class SemicircleFamily(Family):
    """Semicircles about zero: ``beta_j^2`` has the mean ``variance (1 - (j + 1) / n)``."""

    name = "semicircle"
    law_class = Semicircle
    parameters = ("variance",)

    def estimate(self, alphas: np.ndarray, betas: np.ndarray, n: int, first: int) -> np.ndarray:
        """The variance; see `Family.estimate`."""
        steps = np.arange(first, betas.shape[1])
        variance = np.mean(betas[:, first:] ** 2, axis=1) / np.mean(1 - (steps + 1) / max(n, betas.shape[1] + 2))
        return np.asarray(np.maximum(variance, np.finfo(float).tiny)[:, None])

    def coefficients(self, values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Zeros and the standard deviation; see `Family.coefficients`."""
        count = len(values)
        return np.zeros((count, k)), np.broadcast_to(np.sqrt(values[:, :1]), (count, k - 1))


class MarchenkoPasturFamily(Family):
    """Marchenko-Pastur laws: alphas have the mean ``s (1 + c - 2 j c / p)``, squared betas ``s^2 c (1 - j c / p)(1 - (j + 1) / p)``.

    Their ratio gives two aspect ratios, about c and 1 / c; ``many`` says whether to take the one above one, which has an atom at zero.
    """

    name = "marchenko_pastur"
    law_class = MarchenkoPastur
    parameters = ("ratio", "variance")

    def estimate(self, alphas: np.ndarray, betas: np.ndarray, n: int, first: int) -> np.ndarray:
        """Ratio and variance; see `Family.estimate`."""
        first = min(max(first, 1), betas.shape[1] - 1)  # the first alpha differs from all others
        p, steps = max(n, 2 * betas.shape[1] + 2), np.arange(first, betas.shape[1])
        tiny = np.finfo(float).tiny
        mean_beta = np.maximum(np.mean(betas[:, first:], axis=1), tiny)
        quotient = np.mean(alphas[:, first:-1], axis=1) / mean_beta
        ratio = np.full(len(alphas), 2.0 if self.many else 0.5)
        for _ in range(_ROUNDS):  # the corrections are of order k / n: a fixed point
            share = np.minimum(steps * ratio[:, None] / p, 0.5)
            sinking = np.mean(1 + ratio[:, None] - 2 * share, axis=1) / (1 + ratio)
            shrinking = np.mean(np.sqrt((1 - share) * (1 - (steps + 1) / p)), axis=1)
            limit = np.maximum(quotient * shrinking / sinking, 2.0)
            root = (limit + np.sqrt(limit**2 - 4)) / 2
            ratio = root**2 if self.many else root**-2
        variance = mean_beta / (np.sqrt(ratio) * shrinking)
        return np.stack([ratio, variance], axis=1)

    def coefficients(self, values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The variance, then ``variance (1 + ratio)``, and ``variance sqrt(ratio)``; see `Family.coefficients`."""
        ratio, variance = values.T[:, :, None]
        alphas = np.repeat(variance * (1 + ratio), k, axis=1)
        alphas[:, :1] = variance
        return alphas, np.repeat(variance * np.sqrt(ratio), k - 1, axis=1)


_FAMILIES: dict[Any, type[Family]] = {
    key: family for family in (SemicircleFamily, MarchenkoPasturFamily) for key in (family.name, family.law_class)
}


def is_family(given: Any) -> bool:
    """Whether a family is meant rather than one law."""
    return isinstance(given, (str, type))


def check_family(given: Any) -> type[Family]:
    """A family by its name or class, or a ValueError with the names that there are."""
    if isinstance(given, (str, type)) and given in _FAMILIES:
        return _FAMILIES[given]
    raise ValueError(
        f"The argument family is {given!r}, but only 'semicircle' (or the class Semicircle) and 'marchenko_pastur' (or MarchenkoPastur) "
        "can be fitted; pass a law with its parameters instead."
    )
