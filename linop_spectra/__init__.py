"""Certified spectra of matrices too large to write down."""

from .backends import to_numpy
from .krylov import EigenResult, LanczosInterrupted, LanczosResult, NonFiniteProductError, eigsh, lanczos
from .operators import (
    LinearOperator,
    OperatorCheck,
    SupportsMatmat,
    aslinearoperator,
    check_operator,
    diagonal_operator,
    identity,
    low_rank,
)
from .results import Estimate, load
from .spectra import LogSpectrum, Outlier, SpectralDensity, spectral_density

__version__ = "0.1.0"

__all__ = [
    "EigenResult",
    "Estimate",
    "LanczosInterrupted",
    "LanczosResult",
    "LinearOperator",
    "LogSpectrum",
    "NonFiniteProductError",
    "OperatorCheck",
    "Outlier",
    "SpectralDensity",
    "SupportsMatmat",
    "aslinearoperator",
    "check_operator",
    "diagonal_operator",
    "eigsh",
    "identity",
    "lanczos",
    "load",
    "low_rank",
    "spectral_density",
    "to_numpy",
]
