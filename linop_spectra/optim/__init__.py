"""Optimisers, learning rates and what a spectrum says of both, on objectives of every framework."""

from .adahessian import AdaHessian
from .cauchy import CauchySteps
from .cubic import CubicNewton, cubic_step
from .edge_guard import EdgeOfStabilityGuard
from .faces import keras_train_step, optax_transformation, torch_optimizer
from .goldilocks import GoldilocksScan, goldilocks_scan
from .hessian_free import HessianFree
from .kronecker import KFAC
from .lanczos_newton import LanczosNewton
from .minimize import Minimization, minimize
from .momentum import GradientDescent, HeavyBall, Nesterov
from .noisy_quadratic import NoisyQuadratic
from .optimizer import Optimizer
from .parameters import (
    CurvatureRange,
    FirstOrderParameters,
    convergence_rate,
    curvature_range,
    gradient_descent_from,
    gradient_descent_parameters,
    heavy_ball_from,
    heavy_ball_parameters,
    nesterov_from,
    nesterov_parameters,
)
from .random_subspace import RandomSubspace
from .saddle_free import SaddleFreeNewton
from .schedule import SpectralSchedule
from .sophia import Sophia
from .step_info import StepInfo
from .trust_region import TrustRegionNewton, trust_region_step

__all__ = [
    "KFAC",
    "AdaHessian",
    "CauchySteps",
    "CubicNewton",
    "CurvatureRange",
    "EdgeOfStabilityGuard",
    "FirstOrderParameters",
    "GoldilocksScan",
    "GradientDescent",
    "HeavyBall",
    "HessianFree",
    "LanczosNewton",
    "Minimization",
    "Nesterov",
    "NoisyQuadratic",
    "Optimizer",
    "RandomSubspace",
    "SaddleFreeNewton",
    "Sophia",
    "SpectralSchedule",
    "StepInfo",
    "TrustRegionNewton",
    "convergence_rate",
    "cubic_step",
    "curvature_range",
    "goldilocks_scan",
    "gradient_descent_from",
    "gradient_descent_parameters",
    "heavy_ball_from",
    "heavy_ball_parameters",
    "keras_train_step",
    "minimize",
    "nesterov_from",
    "nesterov_parameters",
    "optax_transformation",
    "torch_optimizer",
    "trust_region_step",
]
