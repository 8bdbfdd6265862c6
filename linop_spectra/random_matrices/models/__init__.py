"""Models of curvature in closed form: data and operators by a seed, and what theory says of their spectra."""

from .class_structure import ClassDecomposition, ClassStructureModel, class_decomposition
from .gaussian_classes import GaussianClasses
from .linear_regression import LinearRegression
from .logistic import LogisticLaw, MultinomialLogistic, logistic_eigenvalues_at_zero, logistic_hessian_at_zero
from .logit_clustering import LogitClustering
from .minibatch import (
    BatchSizeFit,
    MinibatchModel,
    MinibatchPrediction,
    effective_batch_size,
    fit_batch_sizes,
    minibatch_operators,
    shifted_eigenvalue,
)
from .random_energy import expected_uncertainty, freezing_scale, frozen_participation
from .softmax_sample import SoftmaxSample

__all__ = [
    "BatchSizeFit",
    "ClassDecomposition",
    "ClassStructureModel",
    "GaussianClasses",
    "LinearRegression",
    "LogisticLaw",
    "LogitClustering",
    "MinibatchModel",
    "MinibatchPrediction",
    "MultinomialLogistic",
    "SoftmaxSample",
    "class_decomposition",
    "effective_batch_size",
    "expected_uncertainty",
    "fit_batch_sizes",
    "freezing_scale",
    "frozen_participation",
    "logistic_eigenvalues_at_zero",
    "logistic_hessian_at_zero",
    "minibatch_operators",
    "shifted_eigenvalue",
]
