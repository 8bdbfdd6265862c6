"""Optimisers, learning rates and what a spectrum says of both, on objectives of every framework."""

from .faces import keras_train_step, optax_transformation, torch_optimizer
from .minimize import Minimization, minimize
from .optimizer import Optimizer
from .step_info import StepInfo

__all__ = [
    "Minimization",
    "Optimizer",
    "StepInfo",
    "keras_train_step",
    "minimize",
    "optax_transformation",
    "torch_optimizer",
]
