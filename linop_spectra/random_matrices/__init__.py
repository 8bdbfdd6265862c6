"""Random-matrix theory: ensembles as operators, the limiting laws of their spectra, and tests of measured spectra against them."""

from . import models
from .comparison.comparison import Comparison, compare
from .comparison.fit import Fit, Spike, fit
from .comparison.power_law_fit import LikelihoodRatio, PowerLawFit, fit_power_law
from .comparison.spacing_ratios import SpacingRatios, ratio_density, spacing_ratios
from .ensembles.band_wigner import band_wigner
from .ensembles.deformed_wigner import deformed_wigner
from .ensembles.erdos_renyi import erdos_renyi
from .ensembles.gaussian import gaussian
from .ensembles.haar_rotated import haar_rotated
from .ensembles.haar_rotation import haar_rotation
from .ensembles.levy_matrix import levy_matrix
from .ensembles.power_law_matrix import power_law_matrix
from .ensembles.sample_covariance import sample_covariance
from .ensembles.spiked_wigner import spiked_wigner
from .ensembles.spiked_wishart import spiked_wishart
from .ensembles.thinned_wigner import thinned_wigner
from .ensembles.thinned_wishart import thinned_wishart
from .ensembles.tridiagonal import tridiagonal_wigner, tridiagonal_wishart
from .ensembles.weighted_gram import weighted_gram
from .ensembles.wigner import wigner
from .ensembles.wigner_product import wigner_product
from .ensembles.wishart import wishart
from .ensembles.wishart_product import wishart_product
from .laws.activation import ActivationMoments, activation_moments
from .laws.arcsine import Arcsine
from .laws.discrete_law import DiscreteLaw
from .laws.free_compression import free_compression
from .laws.free_convolution import free_additive_convolution, free_multiplicative_convolution
from .laws.fuss_catalan import FussCatalan
from .laws.generalized_marchenko_pastur import GeneralizedMarchenkoPastur
from .laws.law import Law, SpectralLaw
from .laws.marchenko_pastur import MarchenkoPastur
from .laws.numerical_law import NumericalLaw
from .laws.pennington_bahri import PenningtonBahri, pennington_bahri_critical_energy
from .laws.pennington_worah import PenningtonWorah
from .laws.power_law import PowerLaw
from .laws.semicircle import Semicircle
from .laws.thinned_wigner_law import thinned_wigner_atom, thinned_wigner_moment
from .laws.tracy_widom import TracyWidom
from .laws.weighted_gram_law import WeightedGramLaw
from .laws.wigner_product_law import WignerProduct
from .laws.wishart_product_law import WishartProduct
from .outliers import (
    Outlier,
    additive_outlier,
    deformed_wigner_outlier,
    generalized_spiked_outlier,
    multiplicative_outlier,
    spiked_wigner_outlier,
    spiked_wishart_outlier,
)

__all__ = [
    "ActivationMoments",
    "Arcsine",
    "Comparison",
    "DiscreteLaw",
    "Fit",
    "FussCatalan",
    "GeneralizedMarchenkoPastur",
    "Law",
    "LikelihoodRatio",
    "MarchenkoPastur",
    "NumericalLaw",
    "Outlier",
    "PenningtonBahri",
    "PenningtonWorah",
    "PowerLaw",
    "PowerLawFit",
    "Semicircle",
    "SpacingRatios",
    "SpectralLaw",
    "Spike",
    "TracyWidom",
    "WeightedGramLaw",
    "WignerProduct",
    "WishartProduct",
    "activation_moments",
    "additive_outlier",
    "band_wigner",
    "compare",
    "deformed_wigner",
    "deformed_wigner_outlier",
    "erdos_renyi",
    "fit",
    "fit_power_law",
    "free_additive_convolution",
    "free_compression",
    "free_multiplicative_convolution",
    "gaussian",
    "generalized_spiked_outlier",
    "haar_rotated",
    "haar_rotation",
    "levy_matrix",
    "models",
    "multiplicative_outlier",
    "pennington_bahri_critical_energy",
    "power_law_matrix",
    "ratio_density",
    "sample_covariance",
    "spacing_ratios",
    "spiked_wigner",
    "spiked_wigner_outlier",
    "spiked_wishart",
    "spiked_wishart_outlier",
    "thinned_wigner",
    "thinned_wigner_atom",
    "thinned_wigner_moment",
    "thinned_wishart",
    "tridiagonal_wigner",
    "tridiagonal_wishart",
    "weighted_gram",
    "wigner",
    "wigner_product",
    "wishart",
    "wishart_product",
]
