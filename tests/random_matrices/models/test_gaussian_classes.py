"""A linear classifier on Gaussian classes: closed-form groups against the dense matrix, samples and the class decomposition."""

import numpy as np
import pytest

from linop_spectra.random_matrices.models import GaussianClasses, class_decomposition


@pytest.mark.parametrize("classes, features", [(2, 2), (3, 3), (4, 9), (6, 8)])
@pytest.mark.parametrize("separation, mistake", [(10.0, 0.1), (0.0, 0.5), (1.0, 0.95)])
def test_groups_are_the_eigenvalues(classes, features, separation, mistake):
    model = GaussianClasses(classes, features, separation, mistake)
    operator = model.expected_gauss_newton()
    assert operator.hermitian and operator.shape == (classes * features,) * 2
    assert sum(count for _, count in model.groups) == classes * features
    np.testing.assert_allclose(np.linalg.eigvalsh(operator.to_dense()), model.eigenvalues(), atol=1e-13 * (1 + separation**2))


def test_the_matrix_is_the_mean_over_samples():
    model = GaussianClasses(3, 4, 3.0, 0.3)
    sample = model.sample(6000, seed=1)
    found, expected = sample.gauss_newton().to_dense(), model.expected_gauss_newton().to_dense()
    forms = np.einsum("ikd,ikl->ikdl", sample.class_gradients()[:200], sample.class_gradients()[:200])
    spread = np.einsum("ik,ikdl->idl", sample.probabilities[:200], forms).std(axis=0)
    assert np.all(np.abs(found - expected) < 5 * spread / np.sqrt(6000) + 1e-12)
    assert np.abs(found - expected).max() > 1e-6
    assert not np.any(model.sample(9, seed=1).jacobian[0] == model.sample(9, seed=2).jacobian[0], where=model.sample(9).jacobian[0] != 0)


def test_outliers_are_those_of_the_class_means():
    """With strong means the parts A1 + A2 and B1 carry the first two groups."""
    model = GaussianClasses(4, 10, 30.0, 0.2)
    parts = class_decomposition(model.sample(800))
    (top, count), (middle, pairs), *_ = model.groups
    means = np.linalg.eigvalsh(parts.means_alone.to_dense())[::-1]
    np.testing.assert_allclose(means[:count], top, rtol=0.03)
    spread = np.linalg.eigvalsh(parts.B1.to_dense())[::-1]
    np.testing.assert_allclose(spread[:pairs], middle, rtol=0.05)
    assert spread[pairs] < 1e-10 * middle


def test_bad_input():
    for arguments, message in [
        ((1, 3, 1.0, 0.1), "num_classes"),
        ((3, 2, 1.0, 0.1), "num_features"),
        ((3, 3, -1.0, 0.1), "separation"),
        ((3, 3, 1.0, 1.0), "mistake"),
    ]:
        with pytest.raises(ValueError, match=message):
            GaussianClasses(*arguments)
    with pytest.raises(ValueError, match="seed"):
        GaussianClasses(3, 3, 1.0, 0.1).sample(5, seed=-1)
