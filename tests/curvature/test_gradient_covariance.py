"""Covariance of the gradient of one example."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dense_torch import CASES, assert_close, case, classifier, to_dense  # noqa: E402

import linop_spectra as ls  # noqa: E402

nn = torch.nn


@pytest.mark.parametrize("name", CASES)
def test_against_gradients_of_single_examples(name):
    objective, dense = case(name)
    g = dense.example_gradients * len(dense.example_gradients) / dense.terms
    np.testing.assert_allclose(g.mean(axis=0), dense.gradient, atol=1e-14 * abs(g).max())
    covariance = objective.gradient_covariance()
    assert covariance.positive_semidefinite
    assert_close(covariance, np.cov(g.T, bias=True))
    assert_close(objective.gradient_covariance(centered=False), g.T @ g / len(g))
    assert ls.check_operator(covariance).passed
    assert ls.check_operator(objective.gradient_covariance(centered=False)).passed


def test_where_nothing_is_kept():
    plentiful, _ = case("masked")
    scarce, _ = case("masked", batch_size=2, memory_budget=4000)
    assert_close(scarce.gradient_covariance(), to_dense(plentiful.gradient_covariance()))


def test_weight_decay_is_no_part_of_it():
    plain, _ = case("squared errors")
    decayed, _ = case("squared errors", weight_decay=0.5)
    for centered in (True, False):
        assert_close(decayed.gradient_covariance(centered=centered), to_dense(plain.gradient_covariance(centered=centered)))
    assert ls.check_operator(decayed.gradient_covariance()).passed


def test_one_example_has_none():
    torch.manual_seed(0)
    objective = ls.objective(classifier(), "cross_entropy", (torch.randn(1, 4), torch.tensor([2])))
    g = objective.gradient()
    np.testing.assert_allclose(to_dense(objective.gradient_covariance()), 0, atol=1e-15)
    assert_close(objective.gradient_covariance(centered=False), np.outer(g, g))


def test_trace_is_the_mean_square_distance_of_batch_gradients():
    """Of batches of one example each, as the library itself gives them."""
    objective, _ = case("squared errors", batch_size=1)
    gradients = np.array([part.gradient() for part in objective.per_batch()])
    distance = np.mean(np.sum((gradients - objective.gradient()) ** 2, axis=1))
    np.testing.assert_allclose(ls.trace(objective.gradient_covariance(), method="exact").value, distance, rtol=1e-12)


def test_a_forgotten_example_is_caught():
    from linop_spectra.curvature import EmpiricalFisherOperator

    class Scaled(EmpiricalFisherOperator):
        def _add_product(self, part, v, total):
            super()._add_product(part, v, total)
            total.add(v)

    objective, _ = case("squared errors")
    assert not ls.check_operator(Scaled(objective)).passed
