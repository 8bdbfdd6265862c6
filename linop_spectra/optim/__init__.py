"""Optimisers, learning rates and what a spectrum says of both, on objectives of every framework."""

from .optimizer import Optimizer
from .step_info import StepInfo

__all__ = ["Optimizer", "StepInfo"]
