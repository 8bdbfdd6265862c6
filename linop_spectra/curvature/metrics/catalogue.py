"""What a curvature report measures, by name, and what each measure has to work with."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from ...estimators import spectral_sums
from ...estimators.spectral_sums import SpectralFunction
from ...spectra import SpectralDensity, spectral_density
from ...spectra.density import SpectralMeasure
from ..objective import Objective
from . import extremes, flatness, goldilocks, gradient, laplace, logits, noise_scale, sharpness, signs, sums, takeuchi
from .batches import BatchSet, in_parts
from .influence import BatchInfluence, Effect
from .metric import Metric
from .resampling import resampled
from .residual_ratio import residual_ratio
from .shared_run import SharedRun


@dataclasses.dataclass(frozen=True, eq=False)
class Context:
    """What measures have to work with.

    `sampled` is the objective in at least two batches where intervals are to hold the sampling of the data, for what is not measured by
    the shared run; see `in_parts`. `batches` are those whose statistics are asked for.
    """

    shared: SharedRun
    seed: int
    radius: float
    prior_precision: float
    memory_budget: Any
    batches: BatchSet | None = None
    sampled: Objective | None = None

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
    def data(self) -> dict[str, Any]:
        """Keyword arguments and source of a measure of its own."""
        return {"sampling": self.sampled is not None}

    @property
    def source(self) -> Objective:
        """The objective, in parts where the sampling of the data is asked for."""
        return self.objective if self.sampled is None else self.sampled

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
    return noise_scale.noise_scale_of(context.batches)


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
    "condition_number": lambda c: extremes.condition_number(c.density, damping=_condition_damping(c)),
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
    "sam_sharpness": lambda c: sharpness.sam_sharpness(c.source, c.radius, **c.data),
    "worst_case_sharpness": _worst_case,
    "average_sharpness": _average,
    "pac_bayes_deviation": lambda c: flatness.pac_bayes_deviation(c.density),
    "critical_sharpness": lambda c: sharpness.critical_sharpness(c.source, tol=0.02, **c.data),
}
"""Measures that take no further products, by name."""

EXTRA: dict[str, tuple[Measure, int, int]] = {
    "residual_ratio": (lambda c: residual_ratio(c.source, seed=c.seed, **c.data), 16, 144),
    "adaptive_sharpness": (lambda c: _adaptive(c), 64, 640),
    "curvature_noise_scale": (lambda c: noise_scale.curvature_noise_scale(in_parts(c.objective, c.seed), seed=c.seed), 5, 0),
    "fisher_rao_norm": (lambda c: flatness.fisher_rao_norm(c.source, **c.data), 1, 1),
    "trace_ratio": (lambda c: takeuchi.trace_ratio(c.source, seed=c.seed, **c.data), 64, 576),
    "laplace": (lambda c: _laplace(c), 48, 12),
    "logits": (lambda c: logits.logit_metrics(c.objective, seed=c.seed), 8, 0),
    "goldilocks_planes": (lambda c: _planes(c), 40, 360),
    "negative_mass": (lambda c: _negative_mass(c), 0, 432),
}
"""Measures with products of their own, by name: about how many, and how many more with the sampling of the data."""
OWN_PRODUCTS = {
    "residual_ratio", "adaptive_sharpness_worst", "adaptive_sharpness_average", "curvature_noise_scale", "fisher_rao_norm", "trace_ratio",
    "laplace_log_evidence", "goldilocks_planes",
}  # fmt: skip


BY_BATCHES = (
    "loss_variance", "gradient_variance", "hessian_variance", "shrinkage", "kappa_smallest", "kappa_largest", "gradient_noise_scale",
    "curvature_noise_scale", "q_slsc", "q_sl", "q_dl",
)  # fmt: skip
"""Metrics whose standard error is by a jackknife over batches or examples, so that it is the sampling of the data already."""
NOT_SAMPLED = {
    "negative_mass": "A count has no derivative; extra=('negative_mass',) measures it without some of the batches, with nine more spectra.",
    "laplace_prior_precision": "It is the best of a list of precisions; the evidence and the effective dimension there carry theirs.",
}
"""Metrics that do not carry the sampling of the data, and why."""


def _negative_mass(context: Context) -> Metric:
    return signs.negative_mass(context.density) if context.sampled is None else signs.resampled_mass(context.shared, context.sampled)


def _adaptive(context: Context) -> dict[str, Metric]:
    if context.sampled is None:
        return _adaptive_of(context.objective, context)
    names = {"adaptive_sharpness_worst": False, "adaptive_sharpness_average": True}
    return {
        name: resampled(context.sampled, lambda own, name=name: _adaptive_of(own, context)[name], "adaptive sharpness", mean=mean)  # type: ignore[misc]
        for name, mean in names.items()
    }


def _adaptive_of(objective: Objective, context: Context) -> dict[str, Metric]:
    S = _density(sharpness.adaptive_hessian(objective), context)
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
    found = laplace.laplace_evidence(context.source, num_steps=steps, num_probes=probes, seed=context.seed, **context.data)
    return found.metrics()


def _planes(context: Context) -> Metric:
    dimension = min(10, context.objective.num_parameters)
    if context.sampled is None:
        found = goldilocks.goldilocks_ratio(context.shared.operator, plane_dimension=dimension, seed=context.seed)
    else:
        matrix = context.shared.matrix
        found = resampled(
            context.sampled, lambda own: goldilocks.goldilocks_ratio(getattr(own, matrix)(), plane_dimension=dimension, seed=context.seed),
            "Goldilocks ratio",
        )  # fmt: skip
    return found.with_changes(name="goldilocks_planes")


def slopes_of(context: Context) -> dict[str, Callable[[BatchInfluence], Effect]]:
    """What the choice of the data does to metrics of the shared run, by name; what takes products of its own only where that is asked for.

    The share of negative eigenvalues has no derivative; `negative_mass` measures it without some of the batches.
    """
    S, dimension, radius = context.density, context.objective.num_parameters, context.radius
    functions: dict[str, Callable[[SpectralMeasure], SpectralFunction]] = {
        "trace": spectral_sums.trace, "frobenius_norm": spectral_sums.frobenius_norm, "nuclear_norm": spectral_sums.nuclear_norm,
        "effective_dimension": functools.partial(spectral_sums.effective_dimension, damping=context.damping),
        "stable_rank": spectral_sums.stable_rank, "participation_ratio": spectral_sums.participation_ratio,
        "effective_rank": spectral_sums.effective_rank, "spectral_entropy": spectral_sums.spectral_entropy,
        "negative_energy": spectral_sums.negative_energy, "goldilocks_ratio": spectral_sums.goldilocks_ratio,
    }  # fmt: skip
    out: dict[str, Callable[[BatchInfluence], Effect]] = {}
    for name, function in functions.items():
        out[name] = lambda data, function=function: data.function(function(S))  # type: ignore[misc]
    out["average_sharpness"] = lambda data: (0.5 * radius**2 / dimension) * data.function(spectral_sums.trace(S))
    out["pac_bayes_deviation"] = flatness.effect_of_deviation
    out["spectral_norm"] = BatchInfluence.norm
    out["negative_ratio"] = signs.effect_of_ratio
    out["condition_number"] = lambda data: extremes.effect_of_condition(data, _condition_damping(context))
    out["learning_rate_cap"] = _cap
    if context.shared.gradient_norm > 0:
        out["gradient_alignment"] = gradient.effect_of_alignment
        out["gradient_cosine"] = gradient.effect_of_cosine
        if context.sampled is not None:
            out["gradient_overlap"] = gradient.effect_of_overlap
    if context.sampled is not None:
        out["worst_case_sharpness"] = lambda data: sharpness.effect_of_worst_case(data, radius)
    return out


def _cap(data: BatchInfluence) -> Effect:
    top = float(data.shared.density.extreme_eigenvalues()[1][0])
    return data.through([top], [data.end(upper=True)], lambda v: [-2 / v[0] ** 2])


def _condition_damping(context: Context) -> float:
    """A damping that makes the condition number of an indefinite matrix one of a positive definite one."""
    return 2 * abs(context.end(upper=False).value) + 1e-3 * context.end(upper=True).value
