"""Functions of a few sums over a spectrum, such as ranks and effective dimensions, from one spectral density.

The sums ``s_k = sum_i f_k(lambda_i)`` come from the same random probes and are correlated; to first order (delta method) the error of
``h(s_1, s_2, ...)`` is that of the single sum over ``g = sum_k dh/ds_k f_k``, a trace of a function like any other, with its exact sampling
law, quadrature and rounding error. What the order leaves out is added to the quadrature error.

Each function here takes a density and gives the `SpectralFunction` for it: the eigenvalues are divided by the norm of the operator
where that avoids overflow. ``factor`` is 1 for the eigenvalues of a Hermitian operator and 2 for those of a Gram operator, which are
squared singular values.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from ..results import Estimate
from ..spectra.density import SpectralMeasure
from .norms import modulus

Function = Callable[[np.ndarray], np.ndarray]

_TINY = np.finfo(np.float64).tiny


@dataclasses.dataclass(frozen=True, eq=False)
class SpectralFunction:
    """A function h of sums over the spectrum.

    Attributes
    ----------
    functions : tuple of callable
        f_k of the eigenvalues.
    derivatives : tuple of callable
        f_k', on both sides of a kink.
    combine, gradient : callable
        h of the sums, and its partial derivatives.
    norm, norm_power : float
        Where h is also divided by a power of the spectral norm: its value, and the power; the functions hold it as a constant.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> S = ls.spectral_density(ls.diagonal_operator(np.array([1.0, 2.0, 3.0])))
    >>> round(participation_ratio(S).estimate(S).value, 6)  # 36 / 14
    2.571429
    """

    functions: tuple[Function, ...]
    derivatives: tuple[Function, ...]
    combine: Callable[[Sequence[float]], float] = lambda s: s[0]
    gradient: Callable[[Sequence[float]], Sequence[float]] = lambda s: [1.0]
    norm: float = 0.0
    norm_power: int = 0

    def sums(self, S: SpectralMeasure) -> list[float]:
        """The sums s_k."""
        return [S.trace(f).value for f in self.functions]

    def estimate(self, S: SpectralMeasure) -> Estimate:
        """h, with the error of the one sum that it is to first order."""
        found = [S.trace(f) for f in self.functions]
        sums = [one.value for one in found]
        slopes = self.gradient(sums)

        def linear(x: np.ndarray) -> np.ndarray:
            return np.asarray(sum(slope * f(x) for slope, f in zip(slopes, self.functions, strict=True)))

        total, value = S.trace(linear), self.combine(sums)
        more = self._bend(S, sums, np.array([one.standard_error for one in found]))
        if self.norm_power:
            ends = [rule.residuals[i] for rule in S.deflation.rules for i in (0, -1) if abs(rule.nodes[i]) >= S.norm_estimate * (1 - 1e-12)]
            more += self.norm_power * abs(value) * float(max(ends)) / S.norm_estimate
        return dataclasses.replace(total, value=value, quadrature_error=total.quadrature_error + more)

    def _bend(self, S: SpectralMeasure, sums: list[float], errors: np.ndarray) -> float:
        """What the first order leaves out at three standard errors of the sums together; it matters only where they are large."""
        errors = np.where(np.isfinite(errors), errors, 0.0)
        if not errors.any():
            return 0.0
        units = np.where(errors > 0, errors, 1.0)
        scaled = [lambda x, f=f, unit=unit: f(x) / unit for f, unit in zip(self.functions, units, strict=True)]
        correlation = np.diag((errors > 0).astype(float))
        for k, first in enumerate(scaled):
            for j, second in enumerate(scaled[:k]):
                if errors[k] > 0 and errors[j] > 0:
                    both = S.trace(lambda x, f=first, g=second: f(x) + g(x)).standard_error  # type: ignore[misc]
                    correlation[k, j] = correlation[j, k] = np.clip((both**2 - 2) / 2, -1, 1) if math.isfinite(both) else 0.0
        variances, axes = np.linalg.eigh(correlation)
        value, centre, bent = self.combine(sums), np.array(sums), 0.0
        # Sums of squares and moduli stay positive.
        positive = np.array([bool(np.all(f(S.nodes) >= 0)) for f in self.functions])
        for variance, axis in zip(variances, axes.T, strict=True):
            step = 3 * math.sqrt(max(variance, 0.0)) * axis * errors
            over = float(np.max(np.abs(step[positive]) / np.maximum(centre[positive], _TINY), initial=0.0))
            step *= min(1.0, 0.9 / over) if over > 0 else 1.0
            bent += abs(self.combine((centre + step).tolist()) + self.combine((centre - step).tolist()) - 2 * value) / 2
        return bent


def plain_sum(f: Function, derivative: Function) -> SpectralFunction:
    """The sum of one function of the eigenvalues."""
    return SpectralFunction((f,), (derivative,))


def trace(S: SpectralMeasure) -> SpectralFunction:
    """Sum of the eigenvalues."""
    return plain_sum(_itself, np.ones_like)


def nuclear_norm(S: SpectralMeasure) -> SpectralFunction:
    """Sum of the moduli."""
    return plain_sum(np.abs, np.sign)


def frobenius_norm(S: SpectralMeasure) -> SpectralFunction:
    """Root of the sum of squares."""
    norm = S.norm_estimate or 1.0
    return SpectralFunction(
        (lambda x: (x / norm) ** 2,), (lambda x: 2 * x / norm**2,), lambda s: norm * math.sqrt(s[0]),
        lambda s: [0.5 * norm / math.sqrt(s[0])] if s[0] > 0 else [0.0],
    )  # fmt: skip


def logdet(S: SpectralMeasure, shift: float) -> SpectralFunction:
    """Sum of ``log(lambda + shift)``."""
    return plain_sum(lambda x: np.log(np.maximum(x + shift, _TINY)), lambda x: 1 / np.maximum(x + shift, _TINY))


def effective_dimension(S: SpectralMeasure, damping: float) -> SpectralFunction:
    """Sum of ``lambda / (lambda + damping)`` over the positive eigenvalues."""
    return plain_sum(
        lambda x: share(x, damping),
        lambda x: np.where(x > 0, damping / (np.maximum(x, 0.0) + damping) ** 2, 0.0),
    )


def share(x: np.ndarray, damping: float) -> np.ndarray:
    """What an eigenvalue adds to the effective dimension: ``x / (x + damping)``, zero below zero."""
    above = np.maximum(x, 0.0)
    return np.asarray(above / (above + damping))


def stable_rank(S: SpectralMeasure, factor: int = 1) -> SpectralFunction:
    """Squared Frobenius norm over the squared spectral norm."""
    norm = nonzero_norm(S, "stable rank")
    power = 2 if factor == 1 else 1
    return SpectralFunction(
        (lambda x: (modulus(x, factor) / norm) ** power,),
        (lambda x: power / norm * np.sign(x) * (modulus(x, factor) / norm) ** (power - 1),),
        norm=norm,
        norm_power=power,
    )


def intrinsic_dimension(S: SpectralMeasure) -> SpectralFunction:
    """Trace over the spectral norm."""
    norm = nonzero_norm(S, "intrinsic dimension")
    return SpectralFunction((lambda x: x / norm,), (lambda x: np.ones_like(x) / norm,), norm=norm, norm_power=1)


def participation_ratio(S: SpectralMeasure) -> SpectralFunction:
    """Squared trace over the squared Frobenius norm."""
    norm = nonzero_norm(S, "participation ratio")
    return SpectralFunction(
        (lambda x: x / norm, lambda x: (x / norm) ** 2), (lambda x: np.ones_like(x) / norm, lambda x: 2 * x / norm**2),
        lambda s: s[0] ** 2 / s[1], lambda s: [2 * s[0] / s[1], -((s[0] / s[1]) ** 2)],
    )  # fmt: skip


def goldilocks_ratio(S: SpectralMeasure) -> SpectralFunction:
    """Trace over the Frobenius norm."""
    norm = nonzero_norm(S, "Goldilocks ratio")
    return SpectralFunction(
        (lambda x: x / norm, lambda x: (x / norm) ** 2), (lambda x: np.ones_like(x) / norm, lambda x: 2 * x / norm**2),
        lambda s: s[0] / math.sqrt(s[1]), lambda s: [1 / math.sqrt(s[1]), -s[0] / (2 * s[1] ** 1.5)],
    )  # fmt: skip


def negative_energy(S: SpectralMeasure) -> SpectralFunction:
    """Sum of the moduli of negative eigenvalues over that of all."""
    norm = nonzero_norm(S, "negative energy")
    return SpectralFunction(
        (lambda x: np.maximum(-x, 0.0) / norm, lambda x: np.abs(x) / norm), (lambda x: -1.0 * (x < 0) / norm, lambda x: np.sign(x) / norm),
        lambda s: s[0] / s[1], lambda s: [1 / s[1], -s[0] / s[1] ** 2],
    )  # fmt: skip


def spectral_entropy(S: SpectralMeasure, factor: int = 1) -> SpectralFunction:
    """Entropy of the moduli over their sum, in nats (Roy and Vetterli, 2007)."""
    norm = nonzero_norm(S, "spectral entropy")

    def size(x: np.ndarray) -> np.ndarray:
        return np.asarray((modulus(x, factor) / norm) ** (1 / factor))

    def surprise(x: np.ndarray) -> np.ndarray:
        a = size(x)
        return np.asarray(a * np.log(np.maximum(a, _TINY)))

    def slope(x: np.ndarray) -> np.ndarray:
        a = np.maximum(size(x), _TINY)
        return np.asarray(np.sign(x) * a ** (1 - factor) / (factor * norm))

    return SpectralFunction(
        (size, surprise), (slope, lambda x: slope(x) * (1 + np.log(np.maximum(size(x), _TINY)))),
        lambda s: math.log(s[0]) - s[1] / s[0], lambda s: [(1 + s[1] / s[0]) / s[0], -1 / s[0]],
    )  # fmt: skip


def effective_rank(S: SpectralMeasure, factor: int = 1) -> SpectralFunction:
    """Exponential of the entropy."""
    entropy = spectral_entropy(S, factor)

    def value(s: Sequence[float]) -> float:
        return math.exp(entropy.combine(s))

    return dataclasses.replace(entropy, combine=value, gradient=lambda s: [value(s) * slope for slope in entropy.gradient(s)])


def nonzero_norm(S: SpectralMeasure, name: str) -> float:
    """The largest modulus of a Ritz value.

    Raises
    ------
    ValueError
        When it is zero, and what is called `name` is not defined.
    """
    if not S.norm_estimate > 0:
        raise ValueError(f"The operator is zero, which has no {name}.")
    return S.norm_estimate


def _itself(x: np.ndarray) -> np.ndarray:
    return x
