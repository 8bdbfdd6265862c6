"""Errors that carry what was computed before they struck."""

from __future__ import annotations

from typing import Any


class LanczosInterrupted(RuntimeError):
    """A product failed in the middle of a run; what was done before is kept.

    Attributes
    ----------
    partial : LanczosResult, EigenResult, SolveResult, SingularResult, FunctionProduct or None
        What the function that was called would have returned, up to the last complete step; ``status`` is ``"interrupted"``.
    step : int
        Number of complete steps.
    """

    def __init__(self, message: str, partial: Any, step: int) -> None:
        super().__init__(message)
        self.partial = partial
        self.step = step


class NotHermitianError(ValueError):
    """Products disagree with each other by more than rounding: the operator is not Hermitian, or its products are noise."""


class NonFiniteProductError(LanczosInterrupted, FloatingPointError):
    """A product with the operator held NaN or infinity."""
