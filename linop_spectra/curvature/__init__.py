"""Curvature of a trained model: the objective, and the matrices built from an adapter's few derivatives."""

from .batch_loss import BatchLoss
from .data import Batches
from .linearization import Accumulator, Linearization, ModelFunctions
from .matrices import CurvatureOperator, GaussNewtonOperator, HessianOperator
from .objective import Objective

__all__ = [
    "Accumulator",
    "BatchLoss",
    "Batches",
    "CurvatureOperator",
    "GaussNewtonOperator",
    "HessianOperator",
    "Linearization",
    "ModelFunctions",
    "Objective",
]
