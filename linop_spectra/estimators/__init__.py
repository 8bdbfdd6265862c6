"""Traces, norms and log-determinants, each with an interval."""

from .functions import logdet, trace_function
from .norms import frobenius_norm, spectral_norm
from .trace import trace

__all__ = ["frobenius_norm", "logdet", "spectral_norm", "trace", "trace_function"]
