"""Traces, diagonals, norms, log-determinants and effective ranks, each with an interval."""

from .diagonal import DiagonalEstimate, diagonal
from .functions import logdet, trace_function
from .norms import frobenius_norm, nuclear_norm, schatten_norm, spectral_norm
from .ranks import effective_dimension, effective_rank, participation_ratio, spectral_entropy, stable_rank
from .sampling import EstimationInterrupted, NonFiniteEstimateError
from .trace import trace

__all__ = [
    "DiagonalEstimate",
    "EstimationInterrupted",
    "NonFiniteEstimateError",
    "diagonal",
    "effective_dimension",
    "effective_rank",
    "frobenius_norm",
    "logdet",
    "nuclear_norm",
    "participation_ratio",
    "schatten_norm",
    "spectral_entropy",
    "spectral_norm",
    "stable_rank",
    "trace",
    "trace_function",
]
