"""Papyan's decomposition from explicit gradients: identity, ranks, closed forms, the misprint, and three groups of eigenvalues."""

import numpy as np
import pytest

from linop_spectra.random_matrices.models import ClassStructureModel, LogitClustering, SoftmaxSample, class_decomposition
from linop_spectra.random_matrices.models.softmax_sample import softmax


def random_sample(labels, classes, dimension=40, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.asarray(labels)
    return SoftmaxSample(
        rng.standard_normal((labels.size, classes, dimension)), softmax(1.5 * rng.standard_normal((labels.size, classes))), labels
    )


SAMPLES = {
    "balanced": random_sample(np.arange(30) % 5, 5),
    "uneven": random_sample([0] * 11 + [1] * 4 + [2] * 2 + [3], 4, seed=1),
    "class missing": random_sample([0, 0, 2, 2, 2, 3], 4, seed=2),
    "one example": random_sample([1], 3, seed=3),
    "model": ClassStructureModel(num_classes=4, num_examples=30, dimension=50).sample,
    "clusters": LogitClustering(num_classes=4, num_examples=30, dimension=50).sample,
}


@pytest.mark.parametrize("name", SAMPLES)
def test_parts_add_up_to_the_gauss_newton_matrix(name):
    sample = SAMPLES[name]
    parts = class_decomposition(sample)
    dense = {part: getattr(parts, part).to_dense() for part in ("A1", "A2", "B1", "B2")}
    expected = sample.gauss_newton().to_dense()
    scale = np.linalg.norm(expected)
    assert np.linalg.norm(sum(dense.values()) - expected) < 1e-12 * scale
    assert np.linalg.norm(dense["A1"] + dense["A2"] - parts.means_alone.to_dense()) < 1e-12 * scale
    classes, occurring = sample.num_classes, len(set(sample.labels.tolist()))
    ranks = {part: np.linalg.matrix_rank(matrix, tol=1e-10 * scale, hermitian=True) for part, matrix in dense.items()}
    assert ranks["A1"] == ranks["A2"] == occurring
    assert ranks["B1"] == occurring * (classes - 2)
    assert np.linalg.matrix_rank(parts.means_alone.to_dense(), tol=1e-10 * scale, hermitian=True) == occurring
    assert parts.pair_weights.sum() == pytest.approx(1, rel=1e-13)
    right = np.arange(classes)
    np.testing.assert_allclose(
        parts.pair_weights[right, right, None] * parts.pair_means[right, right],
        -parts.class_weights[:, None] * parts.class_means,
        atol=1e-12 * np.abs(parts.class_means).max(),
    )


def test_the_misprinted_centre_does_not_add_up():
    sample = SAMPLES["balanced"]
    parts, wrong = class_decomposition(sample), np.zeros((40, 40))
    for c in range(5):
        for other in range(5):
            if other != c:
                spread = parts.pair_means[c, other] - parts.class_means[other]
                wrong += parts.pair_weights[c, other] * np.outer(spread, spread)
    expected = sample.gauss_newton().to_dense()
    rest = parts.A1.to_dense() + parts.A2.to_dense() + parts.B2.to_dense()
    assert np.linalg.norm(rest + wrong - expected) > 0.01 * np.linalg.norm(expected)
    assert np.linalg.norm(rest + parts.B1.to_dense() - expected) < 1e-12 * np.linalg.norm(expected)


@pytest.mark.parametrize("classes, examples, dimension, mistake", [(10, 300, 800, 0.3), (5, 103, 400, 0.1), (3, 3, 200, 0.8)])
def test_three_groups_of_eigenvalues(classes, examples, dimension, mistake):
    model = ClassStructureModel(classes, examples, dimension, mistake=mistake, seed=2)
    values = np.linalg.eigvalsh(model.sample.gauss_newton().to_dense())[::-1]
    first, second = model.group_sizes
    assert (first, second) == (classes, classes * (classes - 2))
    assert values[first - 1] > 20 * values[first] and (examples == classes or values[first + second - 1] > 20 * values[first + second])
    of_classes, of_pairs = model.group_means
    # Means of squared lengths of C vectors, and of C (C - 2) directions, in D dimensions, and overlaps of order sqrt(C / D).
    assert values[:first].mean() == pytest.approx(of_classes, rel=4 * np.sqrt(2 / (dimension * classes)) + 2e-3)
    slack = 4 * np.sqrt(2 / (dimension * second)) + classes**2 / dimension
    assert values[first : first + second].mean() == pytest.approx(of_pairs, rel=slack)
    parts = class_decomposition(model.sample)
    np.testing.assert_allclose(np.linalg.eigvalsh(parts.means_alone.to_dense())[::-1][:first], values[:first], rtol=0.03)
    spread = np.linalg.eigvalsh(parts.B1.to_dense())[::-1]
    np.testing.assert_allclose(spread[:second].sum(), values[first : first + second].sum(), rtol=0.2)


def test_the_gradients_of_the_model_are_what_it_says():
    model = ClassStructureModel(4, 12, 5000, scales=(3.0, 2.0, 1.0), mistake=0.2)
    gradients, sample = model.sample.class_gradients(), model.sample
    np.testing.assert_allclose(gradients, sample.jacobian, atol=1e-15)
    wrong = np.ones((12, 4), bool)
    wrong[np.arange(12), sample.labels] = False
    rows = gradients[wrong].reshape(12, 3, 5000)
    assert (rows**2).sum(axis=2).mean() == pytest.approx(14, rel=0.1)
    gram = np.einsum("ikd,jld->ikjl", rows, rows)
    assert gram[0, 0, 0, 1] == pytest.approx(9, abs=1.5)  # one class, two logits
    assert gram[0, 0, 4, 0] == pytest.approx(13, abs=1.5)  # one class and logit, two examples
    assert gram[0, 0, 1, 0] == pytest.approx(0, abs=1.0)  # two classes
    again = ClassStructureModel(4, 12, 5000, scales=(3.0, 2.0, 1.0), mistake=0.2)
    np.testing.assert_array_equal(again.sample.jacobian, sample.jacobian)


def test_bad_input():
    for arguments, message in [
        ({"num_classes": 2}, "num_classes"),
        ({"num_classes": 5, "num_examples": 4}, "num_examples"),
        ({"scales": (1.0, 2.0)}, "three numbers"),
        ({"scales": (1.0, -2.0, 1.0)}, "scales"),
        ({"mistake": 0.0}, "mistake"),
        ({"seed": -1}, "seed"),
    ]:
        with pytest.raises(ValueError, match=message):
            ClassStructureModel(**arguments)
