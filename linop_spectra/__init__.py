"""Certified spectra of matrices too large to write down."""

from . import plots, random_matrices
from .adapters import objective
from .backends import to_numpy
from .curvature import BatchLoss, Objective
from .estimators import frobenius_norm, logdet, spectral_norm, trace, trace_function
from .krylov import EigenResult, LanczosInterrupted, LanczosResult, NonFiniteProductError, eigsh, lanczos
from .operators import (
    LinearOperator,
    OperatorCheck,
    SupportsMatmat,
    aslinearoperator,
    block_diagonal,
    check_operator,
    compress,
    deflate,
    diagonal_operator,
    identity,
    kronecker,
    low_rank,
    shift,
    submatrix,
)
from .results import Estimate, load
from .spectra import LogSpectrum, Outlier, Plan, SpectralDensity, plan, spectral_density

__version__ = "0.1.0"

__all__ = [
    "BatchLoss",
    "EigenResult",
    "Estimate",
    "LanczosInterrupted",
    "LanczosResult",
    "LinearOperator",
    "LogSpectrum",
    "NonFiniteProductError",
    "Objective",
    "OperatorCheck",
    "Outlier",
    "Plan",
    "SpectralDensity",
    "SupportsMatmat",
    "aslinearoperator",
    "block_diagonal",
    "check_operator",
    "compress",
    "deflate",
    "diagonal_operator",
    "eigsh",
    "frobenius_norm",
    "identity",
    "kronecker",
    "lanczos",
    "load",
    "logdet",
    "low_rank",
    "objective",
    "plan",
    "plots",
    "random_matrices",
    "shift",
    "spectral_density",
    "spectral_norm",
    "submatrix",
    "to_numpy",
    "trace",
    "trace_function",
]
