"""Spectral densities: discrete measures from Lanczos coefficients, with bounds and views."""

from .budget import SlqBudget, probe_snr, slq_budget
from .density import Outlier, SpectralDensity
from .distances import kolmogorov_distance, wasserstein_distance
from .kpm import KernelPolynomial
from .log_spectrum import LogSpectrum
from .maxent import MaximumEntropy, maximum_entropy
from .plan import Plan, plan
from .slq import spectral_density
from .terminator import TerminatedFraction

__all__ = [
    "KernelPolynomial",
    "LogSpectrum",
    "MaximumEntropy",
    "Outlier",
    "Plan",
    "SlqBudget",
    "SpectralDensity",
    "TerminatedFraction",
    "kolmogorov_distance",
    "maximum_entropy",
    "plan",
    "probe_snr",
    "slq_budget",
    "spectral_density",
    "wasserstein_distance",
]
