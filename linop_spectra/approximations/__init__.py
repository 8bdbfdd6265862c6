"""Simpler matrices in place of a large one, and what they lose."""

from . import haar_null
from .approximate import approximate
from .approximation import Approximation
from .block import BlockApproximation
from .critique import Critique, critique
from .critique_rows import CritiqueRow
from .diagonal import DiagonalApproximation, ScalarApproximation
from .flatness_correlation import FlatnessCorrelation, flatness_correlation
from .low_rank import LowRankApproximation, LowRankPlusDiagonal

__all__ = [
    "Approximation",
    "BlockApproximation",
    "Critique",
    "CritiqueRow",
    "DiagonalApproximation",
    "FlatnessCorrelation",
    "LowRankApproximation",
    "LowRankPlusDiagonal",
    "ScalarApproximation",
    "approximate",
    "critique",
    "flatness_correlation",
    "haar_null",
]
