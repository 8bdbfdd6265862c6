"""Matrices of softmax cross-entropy from given Jacobian blocks, against sums written out."""

import numpy as np
import pytest

import linop_spectra as ls
from linop_spectra.random_matrices.models import SoftmaxSample
from linop_spectra.random_matrices.models.softmax_sample import softmax


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    return SoftmaxSample(rng.standard_normal((7, 3, 5)), softmax(2 * rng.standard_normal((7, 3))), np.array([0, 1, 2, 0, 0, 1, 2]))


def test_matrices_against_their_definitions(sample):
    expected, gradient = np.zeros((5, 5)), np.zeros(5)
    for j, p, y in zip(sample.jacobian, sample.probabilities, sample.labels, strict=True):
        expected += j.T @ (np.diag(p) - np.outer(p, p)) @ j / 7
        gradient += j.T @ (p - np.eye(3)[y]) / 7
    np.testing.assert_allclose(sample.gauss_newton().to_dense(), expected, atol=1e-14)
    np.testing.assert_allclose(sample.gradient(), gradient, atol=1e-14)
    flat = sample.jacobian.reshape(21, 5)
    np.testing.assert_allclose(sample.kernel().to_dense(), flat @ flat.T, atol=1e-13)
    assert sample.kernel().positive_semidefinite and sample.gauss_newton().positive_semidefinite
    assert ls.check_operator(sample.gauss_newton()).passed
    gradients = sample.class_gradients()
    np.testing.assert_allclose(np.einsum("ik,ikd->id", sample.probabilities, gradients), 0, atol=1e-15)
    second = np.einsum("ik,ikd,ike->de", sample.probabilities / 7, gradients, gradients)
    np.testing.assert_allclose(second, expected, atol=1e-14)


def test_softmax_weights(sample):
    values, vectors = sample.softmax_weights()
    for p, value, vector in zip(sample.probabilities, values, vectors, strict=True):
        np.testing.assert_allclose(vector @ np.diag(value) @ vector.T, np.diag(p) - np.outer(p, p), atol=1e-15)
    assert values[:, 0].max() < 1e-15 and values.sum() == pytest.approx((1 - (sample.probabilities**2).sum(axis=1)).sum())


def test_the_matrix_of_a_network_with_these_blocks():
    """A model that is linear in its parameters has no other curvature: its Hessian in torch is the same matrix."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    jacobian, parameters, labels = rng.standard_normal((6, 3, 4)), rng.standard_normal(4), np.arange(6) % 3

    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(parameters))

        def forward(self, blocks):
            return blocks @ self.weight

    sample = SoftmaxSample(jacobian, softmax(jacobian @ parameters), labels)
    objective = ls.objective(Linear(), "cross_entropy", (torch.tensor(jacobian), torch.tensor(labels)))
    np.testing.assert_allclose(ls.to_numpy(objective.hessian().to_dense()), sample.gauss_newton().to_dense(), atol=1e-14)
    np.testing.assert_allclose(ls.to_numpy(objective.gradient()), sample.gradient(), atol=1e-14)
    structure = objective.class_structure()
    from linop_spectra.random_matrices.models import class_decomposition

    parts = class_decomposition(sample)
    for name in ("A1", "A2", "B1", "B2"):
        np.testing.assert_allclose(ls.to_numpy(getattr(structure, name).to_dense()), getattr(parts, name).to_dense(), atol=1e-14)


def test_single_precision(sample):
    single = SoftmaxSample(sample.jacobian.astype(np.float32), sample.probabilities, sample.labels)
    assert single.gauss_newton().dtype == np.float32 and single.gradient().dtype == np.float32
    np.testing.assert_allclose(single.gauss_newton().to_dense(), sample.gauss_newton().to_dense(), atol=1e-6)


def test_bad_input(sample):
    j, p, y = sample.jacobian, sample.probabilities, sample.labels
    for arguments, message in [
        ((j, p[:, :2], y), r"\(N, C, D\)"),
        ((j[:0], p[:0], y[:0]), r"\(N, C, D\)"),
        ((j, 2 * p, y), "sum to one"),
        ((j, p, y + 1), "whole numbers from 0 to 2"),
        ((j, p, y.astype(float)), "whole numbers"),
    ]:
        with pytest.raises(ValueError, match=message):
            SoftmaxSample(*arguments)
