"""Jacobian of the outputs and neural tangent kernel."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dense_torch import CASES, assert_close, case, classifier, to_dense  # noqa: E402

import linop_spectra as ls  # noqa: E402

nn = torch.nn


@pytest.mark.parametrize("name", CASES)
def test_against_dense(name):
    objective, dense = case(name)
    jacobian = objective.jacobian()
    assert jacobian.shape == (dense.outputs(dense.theta).numel(), objective.num_parameters)
    assert_close(jacobian, dense.jacobian)
    assert_close(np.asarray(jacobian.T.to_dense()), dense.jacobian.T)
    assert_close(objective.ntk(), dense.jacobian @ dense.jacobian.T)
    assert ls.check_operator(jacobian).passed
    assert ls.check_operator(objective.ntk()).passed


def test_kernel_and_gauss_newton_matrix_share_their_eigenvalues():
    """For squared errors ``G = 2 J^T J / T`` and ``2 J J^T / T``."""
    objective, dense = case("squared errors")
    kernel = np.linalg.eigvalsh(to_dense(objective.ntk())) * 2 / dense.terms
    matrix = np.linalg.eigvalsh(to_dense(objective.ggn()))
    smaller = min(len(kernel), len(matrix))
    np.testing.assert_allclose(kernel[-smaller:], matrix[-smaller:], atol=1e-13)
    assert objective.ntk().positive_semidefinite


def test_singular_values():
    objective, dense = case("masked")
    found = ls.svds(objective.jacobian(), k=3)
    np.testing.assert_allclose(np.sort(found.singular_values), np.linalg.svd(dense.jacobian)[1][:3][::-1], rtol=1e-6)


def test_batches_and_blocks():
    objective, dense = case("masked", batch_size=4)
    jacobian = objective.jacobian()
    assert jacobian.batches == (slice(0, 12), slice(12, 24), slice(24, 33))
    assert list(jacobian.blocks) == dense.names
    assert "kept" in jacobian.engine


def test_where_nothing_is_kept():
    plentiful, dense = case("tokens")
    scarce, _ = case("tokens", batch_size=2, memory_budget=4000)
    assert_close(scarce.jacobian(), dense.jacobian)
    assert_close(scarce.ntk(), to_dense(plentiful.ntk()))


def test_single_precision_and_bad_shapes():
    model = classifier().float()
    objective = ls.objective(model, "cross_entropy", (torch.randn(5, 4), torch.randint(0, 3, (5,))))
    jacobian = objective.jacobian()
    assert jacobian.dtype == np.float32
    assert (jacobian @ np.ones(jacobian.shape[1], dtype=np.float32)).dtype == np.float32
    assert ls.check_operator(jacobian).passed
    with pytest.raises(ValueError, match="needs a vector of length"):
        jacobian @ np.ones(3)
    with pytest.raises(ValueError, match=r"needs a vector of length"):
        jacobian.rmatvec(np.ones(3))


def test_models_with_several_outputs_are_refused():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x):
            return self.layer(x), x

    objective = ls.objective(Two(), "mse", (torch.ones(3, 2), torch.ones(3, 2)))
    with pytest.raises(TypeError, match="returns a tuple"):
        objective.jacobian()
