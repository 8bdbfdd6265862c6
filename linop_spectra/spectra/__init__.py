"""Spectral densities: discrete measures from Lanczos coefficients, with bounds and views."""

from .density import Outlier, SpectralDensity
from .log_spectrum import LogSpectrum
from .plan import Plan, plan
from .slq import spectral_density

__all__ = ["LogSpectrum", "Outlier", "Plan", "SpectralDensity", "plan", "spectral_density"]
