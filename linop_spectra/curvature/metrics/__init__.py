"""Metrics of curvature, each with its unit, its interval and its pitfall: of an objective, an operator or a spectral density."""

from .batch_statistics import BatchStatistics, batch_statistics
from .correlation import FlatnessCorrelation, flatness_correlation
from .examples_needed import examples_needed
from .extremes import condition_number, largest_eigenvalue, smallest_eigenvalue, spectral_norm
from .flatness import fisher_rao_norm, pac_bayes_deviation, relative_flatness
from .goldilocks import goldilocks_ratio, positive_share
from .gradient import gradient_alignment, gradient_cosine, gradient_curvature, gradient_overlap
from .hessian_variance import HessianVariance, hessian_variance
from .laplace import LaplaceEvidence, laplace_evidence
from .layers import LayerRow, layer_table
from .logits import logit_metrics
from .metric import Metric
from .noise_scale import curvature_noise_scale, gradient_noise_scale
from .residual_ratio import residual_ratio
from .shared_run import SharedRun
from .sharpness import (
    adaptive_hessian,
    adaptive_sharpness,
    average_sharpness,
    critical_sharpness,
    sam_sharpness,
    worst_case_sharpness,
)
from .signs import negative_energy, negative_mass, negative_ratio
from .sums import (
    effective_dimension,
    effective_rank,
    frobenius_norm,
    intrinsic_dimension,
    logdet,
    nuclear_norm,
    participation_ratio,
    spectral_entropy,
    stable_rank,
    trace,
)
from .takeuchi import takeuchi_criterion, trace_ratio

__all__ = [
    "BatchStatistics",
    "FlatnessCorrelation",
    "HessianVariance",
    "LaplaceEvidence",
    "LayerRow",
    "Metric",
    "SharedRun",
    "adaptive_hessian",
    "adaptive_sharpness",
    "average_sharpness",
    "batch_statistics",
    "condition_number",
    "critical_sharpness",
    "curvature_noise_scale",
    "effective_dimension",
    "effective_rank",
    "examples_needed",
    "fisher_rao_norm",
    "flatness_correlation",
    "frobenius_norm",
    "goldilocks_ratio",
    "gradient_alignment",
    "gradient_cosine",
    "gradient_curvature",
    "gradient_noise_scale",
    "gradient_overlap",
    "hessian_variance",
    "intrinsic_dimension",
    "laplace_evidence",
    "largest_eigenvalue",
    "layer_table",
    "logdet",
    "logit_metrics",
    "negative_energy",
    "negative_mass",
    "negative_ratio",
    "nuclear_norm",
    "pac_bayes_deviation",
    "participation_ratio",
    "positive_share",
    "relative_flatness",
    "residual_ratio",
    "sam_sharpness",
    "smallest_eigenvalue",
    "spectral_entropy",
    "spectral_norm",
    "stable_rank",
    "takeuchi_criterion",
    "trace",
    "trace_ratio",
    "worst_case_sharpness",
]
