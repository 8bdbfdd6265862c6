"""The problems with known spectra, in every framework that is installed: from the model's own derivatives to the law."""

import functools

import numpy as np
import pytest

import linop_spectra as ls
from linop_spectra.random_matrices import MarchenkoPastur
from linop_spectra.random_matrices.models import LinearRegression, MultinomialLogistic
from linop_spectra.spectra.distances import wasserstein_distance

FRAMEWORKS = ("torch", "jax", "tensorflow")


@pytest.fixture
def _double_precision():
    jax = pytest.importorskip("jax")
    before = jax.config.values["jax_enable_x64"]
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@functools.cache
def regression(p, n):
    return LinearRegression(p, n, seed=1)


def linear_objective(framework, weights, loss, data):
    """``x -> x W^T`` for weights of shape (outputs, inputs), read row by row in every framework."""
    inputs, targets = data
    if framework == "torch":
        torch = pytest.importorskip("torch")
        model = torch.nn.Linear(weights.shape[1], weights.shape[0], bias=False).double()
        with torch.no_grad():
            model.weight.copy_(torch.tensor(weights))
        return ls.objective(model, loss, (torch.tensor(inputs), torch.tensor(targets)))
    if framework == "jax":
        jnp = pytest.importorskip("jax.numpy")
        return ls.objective(lambda p, x: x @ p["w"].T, loss, (inputs, targets), params={"w": jnp.asarray(weights)})
    tf = pytest.importorskip("tensorflow")

    class Linear(tf.Module):
        def __init__(self):
            super().__init__()
            self.w = tf.Variable(weights)

        def __call__(self, x):
            return x @ tf.transpose(self.w)

    return ls.objective(Linear(), loss, (inputs, targets))


@pytest.mark.usefixtures("_double_precision")
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("p, n", [(1000, 4000), (1000, 250)])
def test_linear_regression_follows_marchenko_pastur(framework, p, n):
    problem = regression(p, n)
    hessian = linear_objective(framework, problem.weights[None], "mse", (problem.inputs, problem.targets)).hessian()
    v = np.random.default_rng(0).standard_normal(p)
    expected = problem.hessian() @ v
    assert np.linalg.norm(ls.to_numpy(hessian @ v) - expected) < 1e-10 * np.linalg.norm(expected)
    density = ls.spectral_density(hessian, num_steps=50, num_probes=2, seed=0)
    law, atom = problem.law, max(0.0, 1 - n / p)
    ((a, b),) = law.support
    nodes, weights = np.asarray(density.nodes), np.asarray(density.weights)
    # Mass at zero and mean, each within four standard errors of two probes; a Ritz value may stray into the gap, with hardly any mass.
    at_zero = weights[np.abs(nodes) < 1e-8].sum()
    assert at_zero == pytest.approx(atom, abs=4 * np.sqrt(atom * (1 - atom) / p) + 1e-12)
    assert density.moment(1) == pytest.approx(law.mean(), abs=4 * np.sqrt(law.var() / p) + 0.02)
    massive = nodes[(weights > 1e-4) & (nodes > 1e-8)]
    assert massive[0] == pytest.approx(a, rel=0.03 if n > p else 0.12) and nodes.max() == pytest.approx(b, rel=0.03)
    # Between the measurement and the law's own 50-point rule stand the choice of probes, of which F_v (1 - F_v) 2 / (P n_v) is the
    # variance of the distribution function, and the rigid spectrum of the sample.
    x = np.linspace(0, 1.2 * b, 4001)
    f = law.cdf(x)
    slack = 2 * np.sqrt(4 / (np.pi * p * 2)) * np.trapezoid(np.sqrt(f * (1 - f)), x) + 6 * b / p
    wrong = MarchenkoPastur(ratio=p / n, variance=3.0), MarchenkoPastur(ratio=n / p, variance=2.0)
    distances = [wasserstein_distance(density, other.gauss_rule(50)) for other in (law, *wrong)]
    assert distances[0] < slack < min(distances[1:])


@pytest.mark.usefixtures("_double_precision")
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_logistic_regression_at_zero_has_its_closed_form(framework):
    problem = MultinomialLogistic(12, 40, 4, seed=1)
    objective = linear_objective(framework, np.zeros((4, 12)), "cross_entropy", (problem.inputs, problem.targets))
    expected = problem.hessian_at_zero().to_dense()
    for operator in (objective.hessian(), objective.ggn(), objective.fisher("exact")):
        np.testing.assert_allclose(ls.to_numpy(operator.to_dense()), expected, atol=1e-12)
