"""Simpler matrices in place of a large one, and what they lose."""

from . import haar_null
from .approximate import approximate
from .approximation import Approximation
from .block import BlockApproximation
from .critique import Critique, critique
from .critique_rows import CritiqueRow
from .diagonal import DiagonalApproximation, ScalarApproximation
from .low_rank import LowRankApproximation, LowRankPlusDiagonal

__all__ = [
    "Approximation",
    "BlockApproximation",
    "Critique",
    "CritiqueRow",
    "DiagonalApproximation",
    "LowRankApproximation",
    "LowRankPlusDiagonal",
    "ScalarApproximation",
    "approximate",
    "critique",
    "haar_null",
]
