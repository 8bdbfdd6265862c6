"""Errors that carry what was computed before they struck."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .result import LanczosResult


class LanczosInterrupted(RuntimeError):
    """A product failed in the middle of a run; what was done before is kept.

    Attributes
    ----------
    partial : LanczosResult
        The run up to the last complete step; its ``status`` is ``"interrupted"``.
    step : int
        Number of complete steps.
    """

    def __init__(self, message: str, partial: LanczosResult, step: int) -> None:
        super().__init__(message)
        self.partial = partial
        self.step = step


class NonFiniteProductError(LanczosInterrupted, FloatingPointError):
    """A product with the operator held NaN or infinity."""
