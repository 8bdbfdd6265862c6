"""Curvature of a trained model: the objective, and the matrices built from an adapter's few derivatives."""

from .batch_loss import BatchLoss
from .blocks import BlockOperator
from .blockwise import BlockwiseSpectra, blockwise_spectra
from .class_structure import ClassStructure
from .class_traces import ClassTraces
from .data import Batches
from .fisher import EmpiricalFisherOperator, FisherOperator, MonteCarloFisherOperator
from .gradient_covariance import GradientCovarianceOperator
from .input_hessian import InputHessianOperator
from .jacobian import JacobianOperator, NeuralTangentKernel
from .linearization import Accumulator, Linearization, ModelFunctions
from .logits_losses import LanguageModelLoss, LogitsLoss
from .matrices import CurvatureOperator, GaussNewtonOperator, HessianOperator, OutputCurvatureOperator
from .non_finite import NonFiniteLossError
from .objective import Objective
from .preconditioned import PreconditionedOperator, preconditioned
from .residual import ResidualOperator

__all__ = [
    "Accumulator",
    "BatchLoss",
    "Batches",
    "BlockOperator",
    "BlockwiseSpectra",
    "ClassStructure",
    "ClassTraces",
    "CurvatureOperator",
    "EmpiricalFisherOperator",
    "FisherOperator",
    "GaussNewtonOperator",
    "GradientCovarianceOperator",
    "HessianOperator",
    "InputHessianOperator",
    "JacobianOperator",
    "LanguageModelLoss",
    "Linearization",
    "LogitsLoss",
    "ModelFunctions",
    "MonteCarloFisherOperator",
    "NeuralTangentKernel",
    "NonFiniteLossError",
    "Objective",
    "OutputCurvatureOperator",
    "PreconditionedOperator",
    "ResidualOperator",
    "blockwise_spectra",
    "preconditioned",
]
