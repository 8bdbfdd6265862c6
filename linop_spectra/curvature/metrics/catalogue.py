"""What a curvature report measures, by name, and what each measure has to work with."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...spectra import SpectralDensity, spectral_density
from ..objective import Objective
from . import extremes, flatness, goldilocks, gradient, laplace, logits, noise_scale, sharpness, signs, sums, takeuchi
from .batch_statistics import BatchStatistics
from .metric import Metric
from .residual_ratio import residual_ratio
from .shared_run import SharedRun


@dataclasses.dataclass(frozen=True, eq=False)
class Context:
    """What measures have to work with."""

    shared: SharedRun
    seed: int
    radius: float
    prior_precision: float
    memory_budget: Any
    batches: BatchStatistics | None = None

    @property
    def objective(self) -> Objective:
        """Whose curvature it is."""
        return self.shared.objective

    @property
    def density(self) -> SpectralDensity:
        """Of the random probes."""
        return self.shared.density

    def end(self, *, upper: bool) -> Metric:
        """An extreme eigenvalue from all runs."""
        along = self.shared.along_gradient
        found = extremes.extreme_of_runs([self.density.run], self.density.noise_floor, upper=upper, others=[] if along is None else [along])
        return found.with_changes(num_matvecs=self.shared.num_matvecs, seconds=self.shared.seconds)

    @property
    def damping(self) -> float:
        """The prior's precision in units of the mean loss."""
        return self.prior_precision / self.terms

    @functools.cached_property
    def terms(self) -> float:
        """Number of terms that the loss averages; one for a sum."""
        return laplace.loss_sum(self.objective)[1] if self.objective.functions.averages else 1.0


def _loss(context: Context) -> Metric:
    began = time.perf_counter()
    value = context.objective.value()
    rounding = 4 * context.objective.functions.unit_rounding * abs(value)
    return Metric(value, rounding_error=rounding, seconds=time.perf_counter() - began, name="loss", unit="loss", note="with weight decay")


def _gradient_norm(context: Context) -> Metric:
    value = context.shared.gradient_norm
    rounding = 4 * context.objective.functions.unit_rounding * value
    return Metric(value, rounding_error=rounding, name="gradient_norm", unit="loss/parameter", note="|g|", least=0.0)


def _learning_rate_cap(context: Context) -> Metric:
    top = context.end(upper=True)
    if not top.value > 0:
        raise ValueError(f"The largest eigenvalue is {top.value:.6g}; without a positive one no learning rate is too large.")
    errors = {name: 2 / top.value**2 * getattr(top, name) for name in ("quadrature_error", "rounding_error")}
    note = "2 / largest eigenvalue, gradient descent on all data"
    return top.with_changes(value=2 / top.value, **errors, name="learning_rate_cap", unit="parameter^2/loss", note=note, least=0.0)


def _worst_case(context: Context) -> Metric:
    return sharpness.worst_case_sharpness(context.shared, context.radius)


def _average(context: Context) -> Metric:
    deviation = context.radius / math.sqrt(context.objective.num_parameters)
    return sharpness.average_sharpness(context.density, deviation).with_changes(
        note=f"quadratic model on the sphere of radius {context.radius:g}"
    )


def simple_noise_scale(context: Context) -> Metric:
    """`gradient_noise_scale` of the batches that are there."""
    if context.batches is None:
        raise ValueError("There are no statistics of batches.")
    batches = context.batches.hessian.batches
    assert batches is not None
    return noise_scale.noise_scale_of(batches)


Measure = Callable[[Context], Metric | Mapping[str, Metric]]

SHARED: dict[str, Measure] = {
    "loss": _loss,
    "gradient_norm": _gradient_norm,
    "largest_eigenvalue": lambda c: c.end(upper=True),
    "smallest_eigenvalue": lambda c: c.end(upper=False),
    "spectral_norm": lambda c: extremes.norm_from_ends(c.end(upper=False), c.end(upper=True)),
    "trace": lambda c: sums.trace(c.density),
    "frobenius_norm": lambda c: sums.frobenius_norm(c.density),
    "nuclear_norm": lambda c: sums.nuclear_norm(c.density),
    "condition_number": lambda c: extremes.condition_number(
        c.density, damping=2 * abs(c.end(upper=False).value) + 1e-3 * c.end(upper=True).value
    ),
    "effective_dimension": lambda c: sums.effective_dimension(c.density, damping=c.damping),
    "stable_rank": lambda c: sums.stable_rank(c.density),
    "participation_ratio": lambda c: sums.participation_ratio(c.density),
    "effective_rank": lambda c: sums.effective_rank(c.density),
    "spectral_entropy": lambda c: sums.spectral_entropy(c.density),
    "negative_mass": lambda c: signs.negative_mass(c.density),
    "negative_energy": lambda c: signs.negative_energy(c.density),
    "negative_ratio": lambda c: signs.ratio_of_ends(c.end(upper=False), c.end(upper=True)),
    "goldilocks_ratio": lambda c: goldilocks.goldilocks_ratio(c.density),
    "gradient_curvature": lambda c: gradient.gradient_curvature(c.shared),
    "gradient_overlap": lambda c: gradient.gradient_overlap(c.shared),
    "gradient_alignment": lambda c: gradient.gradient_alignment(c.shared),
    "gradient_cosine": lambda c: gradient.gradient_cosine(c.shared),
    "learning_rate_cap": _learning_rate_cap,
    "sam_sharpness": lambda c: sharpness.sam_sharpness(c.objective, c.radius),
    "worst_case_sharpness": _worst_case,
    "average_sharpness": _average,
    "pac_bayes_deviation": lambda c: flatness.pac_bayes_deviation(c.density),
    "critical_sharpness": lambda c: sharpness.critical_sharpness(c.objective, tol=0.02),
}
"""Measures that take no further products, by name."""

EXTRA: dict[str, tuple[Measure, int]] = {
    "residual_ratio": (lambda c: residual_ratio(c.objective, seed=c.seed), 16),
    "adaptive_sharpness": (lambda c: _adaptive(c), 64),
    "curvature_noise_scale": (lambda c: noise_scale.curvature_noise_scale(c.objective, seed=c.seed), 5),
    "fisher_rao_norm": (lambda c: flatness.fisher_rao_norm(c.objective), 1),
    "trace_ratio": (lambda c: takeuchi.trace_ratio(c.objective, seed=c.seed), 64),
    "laplace": (lambda c: _laplace(c), 48),
    "logits": (lambda c: logits.logit_metrics(c.objective, seed=c.seed), 8),
    "goldilocks_planes": (lambda c: _planes(c), 40),
}
"""Measures with products of their own, by name, and about how many."""
OWN_PRODUCTS = {
    "residual_ratio", "adaptive_sharpness_worst", "adaptive_sharpness_average", "curvature_noise_scale", "fisher_rao_norm", "trace_ratio",
    "laplace_log_evidence", "goldilocks_planes",
}  # fmt: skip


def _adaptive(context: Context) -> dict[str, Metric]:
    S = _density(sharpness.adaptive_hessian(context.objective), context)
    worst = extremes.largest_eigenvalue(S)
    return {
        "adaptive_sharpness_worst": worst.with_changes(
            unit="loss", name="adaptive_sharpness_worst", note="largest eigenvalue of D H D, D = |w|"
        ),
        "adaptive_sharpness_average": sums.trace(S).with_changes(
            unit="loss", name="adaptive_sharpness_average", note="trace of D H D, D = |w|", num_matvecs=0
        ),
    }


def _density(operator: Any, context: Context) -> SpectralDensity:
    steps, probes = min(context.density.num_steps, operator.shape[0]), context.density.num_probes
    return spectral_density(operator, num_steps=steps, num_probes=probes, seed=context.seed, memory_budget=context.memory_budget)


def _laplace(context: Context) -> dict[str, Metric]:
    steps, probes = context.density.num_steps, context.density.num_probes
    found = laplace.laplace_evidence(context.objective, num_steps=steps, num_probes=probes, seed=context.seed)
    return found.metrics()


def _planes(context: Context) -> Metric:
    dimension = min(10, context.objective.num_parameters)
    found = goldilocks.goldilocks_ratio(context.shared.operator, plane_dimension=dimension, seed=context.seed)
    return found.with_changes(name="goldilocks_planes")


def slopes_of(context: Context) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Derivatives of the metrics that are functions of the spectrum by an eigenvalue."""
    S, floor = context.density, context.density.noise_floor
    total, squares, moduli = (S.trace(f).value for f in (None, np.square, np.abs))
    norm = math.sqrt(max(squares, 0.0))
    alpha = context.damping
    out: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "trace": np.ones_like,
        "nuclear_norm": lambda x: x / np.hypot(x, floor or 1e-300),
        "effective_dimension": lambda x: np.where(x > 0, alpha / (np.maximum(x, 0) + alpha) ** 2, 0.0),
    }
    if norm > 0:
        out["frobenius_norm"] = lambda x: x / norm
        out["goldilocks_ratio"] = lambda x: 1 / norm - total * x / norm**3
        out["participation_ratio"] = lambda x: 2 * total / squares - 2 * total**2 * x / squares**2
        negative = S.trace(lambda x: np.maximum(-x, 0.0)).value
        out["negative_energy"] = lambda x: -1.0 * (x < 0) / moduli - negative * np.sign(x) / moduli**2
    return out
