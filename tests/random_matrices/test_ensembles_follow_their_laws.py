"""All eigenvalues of one matrix of an ensemble against its limit law: rigid, a few units over n from it."""

import numpy as np
import pytest

from linop_spectra.random_matrices.ensembles.deformed_wigner import deformed_wigner
from linop_spectra.random_matrices.ensembles.sample_covariance import sample_covariance
from linop_spectra.random_matrices.ensembles.weighted_gram import weighted_gram
from linop_spectra.random_matrices.ensembles.wigner_product import wigner_product
from linop_spectra.random_matrices.ensembles.wishart_product import wishart_product
from linop_spectra.random_matrices.laws.free_convolution import free_additive_convolution
from linop_spectra.random_matrices.laws.fuss_catalan import FussCatalan
from linop_spectra.random_matrices.laws.generalized_marchenko_pastur import GeneralizedMarchenkoPastur
from linop_spectra.random_matrices.laws.marchenko_pastur import MarchenkoPastur
from linop_spectra.random_matrices.laws.semicircle import Semicircle
from linop_spectra.random_matrices.laws.weighted_gram_law import WeightedGramLaw
from linop_spectra.random_matrices.laws.wigner_product_law import WignerProduct
from linop_spectra.random_matrices.laws.wishart_product_law import WishartProduct

N = 500
SPLIT = np.repeat([1.0, 5.0], N // 2)
CASES = {
    "two populations": (
        lambda: sample_covariance(SPLIT, 2 * N, seed=1),
        lambda s: GeneralizedMarchenkoPastur([1.0, 5.0], [0.5, 0.5], ratio=0.5, variance=s),
    ),
    "weighted gram": (
        lambda: weighted_gram(np.repeat([0.2, 2.0], N), N, variance=1.5, seed=1),
        lambda s: WeightedGramLaw([0.2, 2.0], [0.5, 0.5], ratio=0.5, variance=1.5 * s),
    ),
    "indefinite gram": (
        lambda: weighted_gram(np.repeat([-1.0, 2.0], N), N, seed=2),
        lambda s: WeightedGramLaw([-1.0, 2.0], [0.5, 0.5], ratio=0.5, variance=s),
    ),
    "deformed": (
        lambda: deformed_wigner(MarchenkoPastur(ratio=0.5), n=N, variance=0.3, seed=1),
        lambda s: free_additive_convolution(MarchenkoPastur(ratio=0.5), Semicircle(variance=0.3 * s)),
    ),
    "two factors": (lambda: wishart_product((N, 2 * N, 3 * N), seed=1), lambda s: WishartProduct([0.5 * s, N / (3 * N) * s])),
    "low rank": (lambda: wigner_product(N, 200, variance=0.5, seed=1), lambda s: WignerProduct(ratio=2.5, variance=0.5 * s)),
    "fuss-catalan": (lambda: wishart_product((N, N, N), seed=1), lambda s: FussCatalan(2) if s == 1 else WishartProduct([s, s])),
}


@pytest.mark.parametrize("name", CASES)
def test_eigenvalues_follow_the_law(name):
    make, law = CASES[name]
    values = np.linalg.eigvalsh(make().to_dense())
    levels = (np.arange(N) + 0.5) / N
    apart = np.abs(values) > 1e-9  # an atom stands on one place, not on its levels

    def distance(right):
        return np.abs(right.cdf(values) - levels)[apart].max()

    assert distance(law(1.0)) < 8 / N
    assert distance(law(1.5)) > 8 / N
