"""Optimisers, learning rates and what a spectrum says of both, on objectives of every framework."""

from .faces import keras_train_step, optax_transformation, torch_optimizer
from .first_order.cauchy import CauchySteps
from .first_order.edge_guard import EdgeOfStabilityGuard
from .first_order.momentum import GradientDescent, HeavyBall, Nesterov
from .first_order.noisy_quadratic import NoisyQuadratic
from .first_order.parameters import (
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
from .first_order.schedule import SpectralSchedule
from .minimize import Minimization, minimize
from .native import as_optimizer
from .newton.hessian_free import HessianFree
from .newton.lanczos_newton import LanczosNewton
from .newton.saddle_free import SaddleFreeNewton
from .optimizer import Optimizer
from .preconditioned.adahessian import AdaHessian
from .preconditioned.kronecker import KFAC
from .preconditioned.sophia import Sophia
from .regions.cubic import CubicNewton, cubic_step
from .regions.trust_region import TrustRegionNewton, trust_region_step
from .step_info import StepInfo
from .subspace.goldilocks import GoldilocksScan, goldilocks_scan
from .subspace.random_subspace import RandomSubspace

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
    "as_optimizer",
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
