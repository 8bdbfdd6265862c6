"""Multinomial logistic regression at zero weights: closed form against differences, a network, and its limit."""

import numpy as np
import pytest
from scipy import special

import linop_spectra as ls
from linop_spectra.random_matrices import MarchenkoPastur
from linop_spectra.random_matrices.models import (
    LogisticLaw,
    MultinomialLogistic,
    logistic_eigenvalues_at_zero,
    logistic_hessian_at_zero,
)


def gradient(problem, w):
    """Of the mean cross-entropy in weights of shape (C, d), written out."""
    p = special.softmax(problem.inputs @ w.T, axis=1)
    p[np.arange(problem.num_examples), problem.targets] -= 1
    return (p.T @ problem.inputs / problem.num_examples).ravel()


def test_closed_form_against_finite_differences():
    problem, h = MultinomialLogistic(4, 9, 3, seed=1), 1e-4
    size = 12
    differences = np.array([
        (gradient(problem, (h * e).reshape(3, 4)) - gradient(problem, (-h * e).reshape(3, 4))) / (2 * h) for e in np.eye(size)
    ])  # fmt: skip
    dense = problem.hessian_at_zero().to_dense()
    np.testing.assert_allclose(dense, differences, atol=3e-8)
    swapped = problem.hessian_at_zero(layout="class columns").to_dense()
    order = np.arange(size).reshape(3, 4).T.ravel()
    np.testing.assert_allclose(swapped, dense[np.ix_(order, order)], atol=1e-15)


@pytest.mark.parametrize("d, n, classes", [(10, 40, 4), (30, 12, 3), (5, 5, 2), (1, 1, 2)])
def test_eigenvalues_with_their_multiplicities(d, n, classes):
    problem = MultinomialLogistic(d, n, classes)
    found = problem.eigenvalues_at_zero()
    np.testing.assert_allclose(found, np.linalg.eigvalsh(problem.hessian_at_zero().to_dense()), atol=1e-13)
    zeros = d + (classes - 1) * max(0, d - n)
    assert np.abs(found[:zeros]).max() < 1e-14 and found[zeros] > 1e-6
    rest = found[zeros:].reshape(-1, classes - 1)
    np.testing.assert_allclose(rest, rest[:, :1] * np.ones(classes - 1), rtol=1e-12)
    operator = problem.hessian_at_zero()
    assert operator.positive_semidefinite and operator.shape == (d * classes,) * 2


def test_torch_has_the_same_matrix_three_times():
    torch = pytest.importorskip("torch")
    problem = MultinomialLogistic(5, 18, 3, seed=2)
    model = torch.nn.Linear(5, 3, bias=False).double()
    torch.nn.init.zeros_(model.weight)
    objective = ls.objective(model, "cross_entropy", (torch.tensor(problem.inputs), torch.tensor(problem.targets)))
    expected = problem.hessian_at_zero().to_dense()
    for operator in (objective.hessian(), objective.ggn(), objective.fisher("exact")):
        np.testing.assert_allclose(ls.to_numpy(operator.to_dense()), expected, atol=1e-13)


# -- the limit ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d, n", [(300, 1200), (400, 100)])
def test_eigenvalues_follow_the_law(d, n):
    problem = MultinomialLogistic(d, n, 4, seed=3)
    values, law = problem.eigenvalues_at_zero(), problem.law
    atom = dict(law.atoms)[0.0]
    assert atom == np.mean(np.abs(values) < 1e-13)
    positive = values[np.abs(values) >= 1e-13]
    levels = atom + (np.arange(positive.size) + 0.5) / values.size
    assert np.abs(law.cdf(positive) - levels).max() < 8 / d
    assert np.abs(MarchenkoPastur(ratio=d / n).cdf(positive) - levels).max() > 0.1
    assert [law.moment(k) for k in (1, 2)] == pytest.approx([(values**k).mean() for k in (1, 2)], rel=0.02)


@pytest.mark.parametrize("ratio", [0.25, 1.0, 4.0])
def test_the_law_is_consistent(ratio):
    law = LogisticLaw(ratio=ratio, num_classes=5, variance=2.0)
    ((a, b),) = law.support
    z = np.array([1.0 + 0.5j, -2.0 + 0j, b + 1.0 + 0j])
    angle = np.pi * (np.arange(20_000) + 0.5) / 20_000
    x = a + (b - a) * np.sin(angle / 2) ** 2
    weights = law.pdf(x) * (b - a) * np.sin(angle) / 2 * np.pi / 20_000
    atom = dict(law.atoms)[0.0]
    assert atom + weights.sum() == pytest.approx(1, rel=1e-7)
    np.testing.assert_allclose(law.stieltjes(z), atom / (0 - z) + (weights / (x - z[:, None])).sum(axis=1), rtol=1e-6)
    for k in range(5):
        nodes, masses = law.gauss_rule(k + 1)
        assert [law.moment(j) for j in range(2 * k + 2)] == pytest.approx([(masses * nodes**j).sum() for j in range(2 * k + 2)], rel=1e-9)
    q = np.linspace(atom + 0.01, 0.99, 30)
    np.testing.assert_allclose(law.cdf(law.quantile(q)), q, atol=1e-9)
    assert law.quantile(atom / 2) == 0 and law.cdf(-1e-9) == 0 and law.cdf(0.0) == pytest.approx(atom) and law.cdf(b) == 1
    assert law.mean() == pytest.approx(0.8 * 2 / 5)


def test_bad_input():
    for call, message in [
        (lambda: logistic_hessian_at_zero(np.ones(3), 2), "inputs"),
        (lambda: logistic_hessian_at_zero(np.ones((0, 3)), 2), "inputs"),
        (lambda: logistic_hessian_at_zero(np.ones((2, 3)), 1), "num_classes"),
        (lambda: logistic_hessian_at_zero(np.ones((2, 3)), 2, layout="rows"), "layout"),
        (lambda: logistic_eigenvalues_at_zero(np.ones((2, 3)), 0), "num_classes"),
        (lambda: LogisticLaw(ratio=0.0, num_classes=3), "ratio"),
        (lambda: LogisticLaw(ratio=1.0, num_classes=3).quantile(1.5), "between 0 and 1"),
        (lambda: MultinomialLogistic(2, 3, 1), "num_classes"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
