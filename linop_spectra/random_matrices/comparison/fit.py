"""Fits of a law to a measured spectrum that outliers do not disturb."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import numpy as np

from ...results import Estimate, PathLike, html_table, register, save_result
from ...spectra import SpectralDensity, spectral_density
from ..laws.law import SpectralLaw, check_whole
from ..laws.tracy_widom import TracyWidom
from ..outliers import spiked_wigner_outlier, spiked_wishart_outlier
from .dirichlet_bootstrap import STEPS_OF_ROOT, draw_coefficients, most_steps
from .families import Family, MarchenkoPasturFamily, check_family
from .measurement import Measurement, check_density, measurement

_FIRST = 1 / 3
"""Share of the steps before the tail."""
_STEPS_OF_ROOT = 0.75
"""Steps of a fit at most, over the square root of the number of eigenvalues beside an atom."""
_OSCILLATION = 2.0
"""How many times the largest oscillation of the draws shows a bulk of several intervals."""


@dataclasses.dataclass(frozen=True)
class Spike:
    """An eigenvalue outside the fitted bulk, and the perturbation of rank one that explains it.

    Attributes
    ----------
    location : float
        The eigenvalue.
    residual_norm : float
        An eigenvalue lies within this distance.
    strength : Estimate
        For a semicircle the eigenvalue of the perturbation; for Marchenko-Pastur the population eigenvalue, in units of an eigenvalue.
        Its standard error is the fluctuation of the outlier, where the perturbation is independent of the noise.
    overlap : float
        Squared cosine between the eigenvector and that of the perturbation.
    """

    location: float
    residual_norm: float
    strength: Estimate
    overlap: float


@register("law fit")
@dataclasses.dataclass(frozen=True)
class Fit:
    """A law fitted to the bulk of a spectrum.

    Attributes
    ----------
    law : SpectralLaw
        The fitted law.
    parameters : dict of str to Estimate
        Its parameters with standard errors.
    spikes : tuple of Spike
        Outliers beyond the edges, ascending.
    centre : float
        Mean of the alphas of the tail, less that of the law: where the bulk lies beside the fitted one.
    drift : float
        Change of the betas over the tail, in standard errors. A bulk with long tails has betas that grow, or fall once its last
        eigenvalues are resolved.
    oscillation : float
        Amplitude of the strongest periodic part of the betas of the tail, as a share of their mean.
    oscillation_period : float
        Its period in steps.
    multi_cut : bool
        Whether that is twice as much as in any draw of the law, and most of what the betas vary: a bulk of several intervals.
    steps : tuple of int
        First step of the tail, and the one after its last.
    family : str
        Name of the family.
    num_matvecs : int
        Products with the operator that the fit itself took.
    seconds : float
        Wall-clock time.
    """

    law: SpectralLaw
    parameters: dict[str, Estimate]
    spikes: tuple[Spike, ...]
    centre: float
    drift: float
    oscillation: float
    oscillation_period: float
    multi_cut: bool
    steps: tuple[int, int]
    family: str
    num_matvecs: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        values = ", ".join(f"{name} {value.value:.4g} ± {value.standard_error:.2g}" for name, value in self.parameters.items())
        parts = [f"{type(self.law).__name__} with {values}, from Lanczos steps {self.steps[0] + 1} to {self.steps[1]}."]
        if self.spikes:
            strengths = ", ".join(f"{spike.location:.4g} (strength {spike.strength.value:.4g})" for spike in self.spikes)
            parts.append(f"Outside of the bulk: {strengths}.")
        ((low, high),) = self.law.support
        if abs(self.centre) > 0.05 * (high - low):
            parts.append(f"The bulk lies {abs(self.centre):.3g} {'above' if self.centre > 0 else 'below'} that of the law.")
        if self.multi_cut:
            parts.append(
                f"The coefficients oscillate with a period of {self.oscillation_period:.3g} steps: the bulk has several intervals, and one "
                "interval does not describe it."
            )
        if abs(self.drift) > 4:
            parts.append(f"The coefficients drift by {self.drift:.1f} standard errors: the edges of the bulk are not settled.")
        return " ".join(parts)

    def _repr_html_(self) -> str:
        rows = [("law", type(self.law).__name__)] + [(name, str(value)) for name, value in self.parameters.items()]
        rows += [(f"spike at {spike.location:.5g}", f"strength {spike.strength}") for spike in self.spikes]
        return html_table(rows)

    def save(self, path: PathLike) -> None:
        """Write the fit to `path` (``.npz``); `linop_spectra.load` reads it back."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in ("law", "spikes")}
        fields["parameters"] = {name: dataclasses.asdict(value) for name, value in self.parameters.items()}
        fields["spikes"] = [dataclasses.asdict(spike) for spike in self.spikes]
        save_result(path, "law fit", fields, {})

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> Fit:
        scalars["parameters"] = {name: Estimate(**value) for name, value in scalars["parameters"].items()}
        scalars["spikes"] = tuple(Spike(**{**spike, "strength": Estimate(**spike["strength"])}) for spike in scalars["spikes"])
        scalars["steps"] = tuple(scalars["steps"])
        family = check_family(scalars["family"])
        values = np.array([scalars["parameters"][name].value for name in family.parameters])
        return cls(law=family().law(values), **scalars)


def fit(density: Any, family: Any, *, exclude_outliers: bool = True, num_bootstrap: int = 199, seed: int = 0) -> Fit:
    """Parameters of a law that fit the bulk of a measured spectrum, and the outliers beside it.

    Moments are destroyed by a few outliers. Here converged outliers are taken out of the measure, and the parameters are read off the
    tail of the remaining Lanczos coefficients, which approach ``(a + b) / 2`` and ``(b - a) / 4`` for a bulk on [a, b], with the slow
    decrease that they have in a finite matrix.

    Parameters
    ----------
    density : SpectralDensity or LinearOperator
        What to fit. Of an operator the spectral density is measured first, with its default settings.
    family : {"semicircle", "marchenko_pastur"} or class
        `Semicircle` about zero, or `MarchenkoPastur`. Of the two aspect ratios that fit, the one above one is taken where the
        measure has the atom at zero that belongs to it.
    exclude_outliers : bool
        Whether to take the converged outliers out first. Without, only the tail protects.
    num_bootstrap : int
        Draws for the standard errors, at least 20.
    seed : int
        Of these draws.

    Returns
    -------
    Fit
        Law, parameters with standard errors, spikes and signs of a bulk that is of another kind.

    Raises
    ------
    TypeError
        When `density` has no measure.
    ValueError
        When the family is unknown, or there are fewer than 8 Lanczos coefficients to fit.

    Examples
    --------
    >>> import linop_spectra as ls
    >>> from linop_spectra.random_matrices.comparison.fit import fit
    >>> density = ls.spectral_density(ls.random_matrices.wishart(300, 1200, seed=0), num_steps=40)
    >>> result = fit(density, "marchenko_pastur")
    >>> low, high = result.parameters["ratio"].confidence_interval(0.999)
    >>> bool(low < 0.25 < high)
    True
    """
    began = time.perf_counter()
    kind = check_family(family)
    count = check_whole("num_bootstrap", num_bootstrap, 20)
    rng = np.random.default_rng(check_whole("seed", seed, 0))
    spent = 0
    if not isinstance(density, SpectralDensity) and hasattr(density, "matmat"):
        density = spectral_density(density, seed=seed)
        spent = density.num_matvecs
    density = check_density(density)
    measured = measurement(density, exclude_outliers=exclude_outliers)
    fitter, values, used = fit_measurement(measured, kind)
    law = fitter.law(values)
    k, first = used.num_steps, tail_start(used.num_steps)
    draws = draw_coefficients(law, used.dimension, k, len(used.alphas), count, rng, beta=used.beta)
    alphas, betas = (part.mean(axis=1) for part in draws)
    errors = fitter.estimate(alphas, betas, used.dimension, first).std(axis=0, ddof=1)
    parameters = {
        name: Estimate(float(value), standard_error=float(error), method="tail of the Lanczos coefficients")
        for name, value, error in zip(fitter.parameters, values, errors, strict=True)
    }
    tail = used.betas.mean(axis=0)[first:]
    drift = _drift(tail, betas[:, first:])
    amplitude, period, share = _oscillation(np.concatenate([tail[None], betas[:, first:]]))
    multi_cut = bool(amplitude[0] > _OSCILLATION * amplitude[1:].max() and share[0] > 0.5)
    centre = float(np.mean((used.alphas.mean(axis=0) - alphas.mean(axis=0))[first:]))
    return Fit(
        law, parameters, _spikes(density, law, used), centre, drift, float(amplitude[0] / tail.mean()), float(period[0]),
        multi_cut, (first, k), fitter.name, spent, time.perf_counter() - began,
    )  # fmt: skip


def fit_measurement(measured: Measurement, kind: type[Family]) -> tuple[Family, np.ndarray, Measurement]:
    """The family with its branch chosen, the parameters of shape (parameters,), and the steps that they determine."""
    used = measured.first(max(8, int(_STEPS_OF_ROOT * math.sqrt(measured.dimension))))
    for _ in range(2):  # the atom of the law decides how many steps count
        if used.num_steps < 8 or not np.all(used.betas[:, :7] > 0):
            raise ValueError(
                f"The argument density has {int(np.count_nonzero(np.all(used.betas > 0, axis=0)))} Lanczos steps before a breakdown, but a "
                "fit needs at least 8; take more steps, or a larger matrix."
            )
        first = tail_start(used.num_steps)
        alphas, betas = used.alphas.mean(axis=0)[None], used.betas.mean(axis=0)[None]
        family = kind(many=kind is MarchenkoPasturFamily and _has_atom(measured, alphas[0, first:], betas[0, first:]))
        values = family.estimate(alphas, betas, used.dimension, first)[0]
        shorter = measured.first(max(8, int(most_steps(family.law(values), measured.dimension) * _STEPS_OF_ROOT / STEPS_OF_ROOT)))
        if shorter.num_steps >= used.num_steps:
            break
        used = shorter
    return family, values, used


def tail_start(num_steps: int) -> int:
    """First step of the tail of so many steps."""
    return max(1, int(_FIRST * num_steps))


def _has_atom(measured: Measurement, alphas: np.ndarray, betas: np.ndarray) -> bool:
    """Whether half of the mass that an atom at zero would have lies well below the bulk."""
    alpha, beta = float(alphas.mean()), float(betas.mean())
    edge = alpha - 2 * beta
    quotient = max(alpha / beta, 2.0)
    larger = ((quotient + math.sqrt(quotient**2 - 4)) / 2) ** 2
    below = 0.0
    for a, b in zip(measured.alphas, measured.betas, strict=True):
        nodes, vectors = np.linalg.eigh(np.diag(a) + np.diag(b, -1), UPLO="L")
        below += float(np.sum(vectors[0, nodes < edge / 2] ** 2)) / len(measured.alphas)
    return below > max((1 - 1 / larger) / 2, 4 / math.sqrt(measured.dimension))


def _drift(tail: np.ndarray, null: np.ndarray) -> float:
    """Second half of the tail less the first, less what the null has, in its standard deviations."""
    half = len(tail) // 2
    change = null[:, half:].mean(axis=1) - null[:, :half].mean(axis=1)
    return float((tail[half:].mean() - tail[:half].mean() - change.mean()) / max(change.std(), np.finfo(float).tiny))


def _oscillation(tails: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Amplitude of the strongest periodic part of each row, its period, and its share of the variance beside a straight line."""
    m = tails.shape[1]
    if m < 6:
        return np.zeros(len(tails)), np.full(len(tails), np.inf), np.zeros(len(tails))
    steps = np.arange(m)
    line = np.stack([np.ones(m), steps - steps.mean()], axis=1)
    rest = tails - (tails @ line / np.sum(line**2, axis=0)) @ line.T
    amplitudes = 2 / m * np.abs(np.fft.rfft(rest, axis=1))
    if m % 2 == 0:
        amplitudes[:, -1] /= 2
    strongest = 2 + np.argmax(amplitudes[:, 2:], axis=1)
    amplitude = np.take_along_axis(amplitudes, strongest[:, None], axis=1)[:, 0]
    power = amplitude**2 * np.where(2 * strongest == m, 1.0, 0.5)
    return amplitude, m / strongest, power / np.maximum(np.mean(rest**2, axis=1), np.finfo(float).tiny)


def _spikes(density: SpectralDensity, law: SpectralLaw, used: Measurement) -> tuple[Spike, ...]:
    """Converged outliers beyond the fitted edges and the spread of the extreme eigenvalue there."""
    ((low, high),) = law.support
    margin = TracyWidom(beta=used.beta).quantile(0.99) * (high - low) / 4 * used.dimension ** (-2 / 3)
    found = []
    for outlier in density.outliers():
        beyond = max(outlier.value - high, low - outlier.value)
        if beyond <= margin + outlier.residual_norm:
            continue
        if any(abs(outlier.value - place) <= 1e-6 * high for place, _ in law.atoms):
            continue
        found.append(_spike(outlier.value, outlier.residual_norm, law, used))
    return tuple(found)


def _spike(value: float, residual: float, law: SpectralLaw, used: Measurement) -> Spike:
    """The perturbation whose outlier lies at `value`, by inverting the formulas of `outliers`."""
    if hasattr(law, "ratio"):
        c, scale, x = law.ratio, law.variance, value / law.variance  # type: ignore[attr-defined]
        inner = x + 1 - c
        root = math.sqrt(max(inner**2 - 4 * x, 0.0))
        spike = scale * (inner + math.copysign(root, value - law.support[0][0])) / 2
        if not spike > 0:
            return Spike(value, residual, Estimate(math.nan, method="no spiked covariance has an eigenvalue there"), math.nan)

        def outlier(strength: float) -> Any:
            samples = max(1, round(used.dimension / c))
            return spiked_wishart_outlier(strength, ratio=c, variance=scale, n=samples, beta=used.beta)  # type: ignore[arg-type]
    else:
        variance = law.variance  # type: ignore[attr-defined]
        spike = (value + math.copysign(math.sqrt(max(value**2 - 4 * variance, 0.0)), value)) / 2

        def outlier(strength: float) -> Any:
            return spiked_wigner_outlier(strength, variance=variance, n=used.dimension, beta=used.beta)  # type: ignore[arg-type]

    predicted = outlier(spike)
    step = 1e-4 * abs(spike)
    slope = (outlier(spike + step).location - outlier(spike - step).location) / (2 * step)
    error = abs(predicted.fluctuation / slope) if predicted.fluctuation is not None and slope != 0 else math.nan
    strength = Estimate(spike, standard_error=error, quadrature_error=residual, method="inverted outlier")
    return Spike(value, residual, strength, predicted.overlap)
