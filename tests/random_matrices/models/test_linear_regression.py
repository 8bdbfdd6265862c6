"""Linear regression with Gaussian features: its data, its Hessian, its law, and every framework that is installed."""

import numpy as np
import pytest

import linop_spectra as ls
from linop_spectra.random_matrices.models import LinearRegression


def loss(problem, w):
    return np.mean((problem.inputs @ w[:, None] - problem.targets) ** 2)


def test_hessian_is_that_of_the_mean_squared_error():
    problem = LinearRegression(5, 12, spikes=(4.0,), seed=3)
    dense, rng, h = problem.hessian().to_dense(), np.random.default_rng(0), 1e-3
    w = rng.standard_normal(5)
    for i in range(5):
        for j in range(5):
            a, b = h * np.eye(5)[i], h * np.eye(5)[j]
            change = loss(problem, w + a + b) - loss(problem, w + a) - loss(problem, w + b) + loss(problem, w)
            assert change / h**2 == pytest.approx(dense[i, j], abs=1e-6)
    assert problem.hessian().positive_semidefinite and problem.hessian().dtype == np.float64


@pytest.mark.parametrize("p, n", [(500, 2000), (1000, 250)])
def test_hessian_follows_its_law(p, n):
    problem = LinearRegression(p, n, seed=1)
    values = np.linalg.eigvalsh(problem.hessian().to_dense())
    zeros = max(0, p - n)
    assert dict(problem.law.atoms).get(0.0, 0.0) == zeros / p and np.abs(values[:zeros]).max(initial=0.0) < 1e-12
    levels = (np.arange(p) + 0.5) / p
    assert np.abs(problem.law.cdf(values[zeros:]) - levels[zeros:]).max() < 8 / p
    (a, b), = problem.law.support
    assert values[zeros] == pytest.approx(a, rel=0.12 if zeros else 0.05) and values[-1] == pytest.approx(b, rel=0.03)


@pytest.mark.parametrize("spike", [3.0, 0.3, 1.2])
def test_spikes_give_their_outliers(spike):
    p, n = 300, 1200
    problem = LinearRegression(p, n, spikes=(spike,), seed=5)
    values, vectors = np.linalg.eigh(problem.hessian().to_dense())
    (expected,) = problem.outliers()
    end = -1 if spike > 1 else 0
    slack = 3 * expected.fluctuation + (0 if expected.separated else 2 * p ** (-2 / 3))
    assert values[end] == pytest.approx(expected.location, abs=slack)
    assert vectors[0, end] ** 2 == pytest.approx(expected.overlap, abs=0.12)


def test_variance_of_one_example():
    """Against the mean over many examples of the exact squared length."""
    problem = LinearRegression(6, 200_000, spikes=(3.0,), seed=2)
    x, population = problem.inputs, problem.population
    for index in (0, 1):
        products = 2 * x * x[:, index : index + 1] - 2 * population[index] * np.eye(6)[index]
        lengths = (products**2).sum(axis=1)
        expected = problem.field_variance(float(population[index]))
        assert lengths.mean() == pytest.approx(expected, abs=4 * lengths.std() / np.sqrt(len(x)))
    average = ((4 * (x**2).sum(axis=1) ** 2).mean() - 4 * (population**2).sum()) / 6
    assert problem.field_variance() == pytest.approx(average, rel=0.02)


def test_data_are_a_function_of_the_seed():
    one, same, other = (LinearRegression(4, 7, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.inputs, same.inputs)
    np.testing.assert_array_equal(one.targets, same.targets)
    assert not np.any(one.inputs == other.inputs) and one.targets.shape == (7, 1)
    single = LinearRegression(4, 7, seed=1, dtype=np.float32)
    assert single.inputs.dtype == single.targets.dtype == single.hessian().dtype == np.float32
    np.testing.assert_allclose(single.inputs, one.inputs, rtol=1e-6)
    assert len(one.batch_hessians(3)) == 2
    np.testing.assert_allclose(one.batch_hessians(7)[0].to_dense(), one.hessian().to_dense())
    noiseless = LinearRegression(4, 7, noise=0.0)
    np.testing.assert_allclose(noiseless.targets[:, 0], noiseless.inputs @ noiseless.weights)
    square = LinearRegression(4, 4).hessian()
    assert square.hermitian and np.linalg.eigvalsh(square.to_dense()).min() > 0


def test_torch_has_the_same_hessian():
    torch = pytest.importorskip("torch")
    problem = LinearRegression(6, 15, seed=4)
    model = torch.nn.Linear(6, 1, bias=False).double()
    objective = ls.objective(model, "mse", (torch.tensor(problem.inputs), torch.tensor(problem.targets)))
    for operator in (objective.hessian(), objective.ggn()):
        np.testing.assert_allclose(ls.to_numpy(operator.to_dense()), problem.hessian().to_dense(), atol=1e-12)


def test_bad_input():
    for call, message in [
        (lambda: LinearRegression(0, 5), "num_features"),
        (lambda: LinearRegression(5, 0), "num_examples"),
        (lambda: LinearRegression(1, 5, spikes=(1.0, 2.0)), "only 1 features"),
        (lambda: LinearRegression(3, 5, spikes=(-1.0,)), "spikes"),
        (lambda: LinearRegression(3, 5, noise=-1.0), "noise"),
        (lambda: LinearRegression(3, 5, seed=-1), "seed"),
        (lambda: LinearRegression(3, 5).batch_hessians(6), "only 5 examples"),
        (lambda: LinearRegression(3, 5).field_variance(-1.0), "spike"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="real floating-point"):
        LinearRegression(3, 5, dtype=complex)
