"""Learning rates and momenta against the roots of the iterations, brute force and measured spectra."""

import numpy as np
import pytest

import linop_spectra as ls
from linop_spectra.optim.first_order.parameters import (
    convergence_rate,
    curvature_range,
    gradient_descent_from,
    gradient_descent_parameters,
    heavy_ball_from,
    heavy_ball_parameters,
    nesterov_from,
    nesterov_parameters,
)

PARAMETERS = {"gd": gradient_descent_parameters, "heavy_ball": heavy_ball_parameters, "nesterov": nesterov_parameters}


@pytest.mark.parametrize("smallest, learning_rate, momentum, rate", [(0.01, 3.30579, 0.66942, 0.81818), (0.001, 3.75853, 0.88114, 0.93869)])
def test_heavy_ball(smallest, learning_rate, momentum, rate):
    found = heavy_ball_parameters(largest=1.0, smallest=smallest)
    assert tuple(found) == pytest.approx((learning_rate, momentum), abs=1e-5)
    assert found.rate == pytest.approx(rate, abs=1e-5) and found.condition_number == pytest.approx(1 / smallest)
    assert found.rate**found.num_steps_per_digit == pytest.approx(0.1)


def test_gradient_descent_and_nesterov():
    found = gradient_descent_parameters(largest=1.0, smallest=0.01)
    assert found.rate == pytest.approx(0.98020, abs=1e-5) and found.learning_rate == pytest.approx(2 / 1.01)
    for smallest in (0.3, 0.01):
        found = nesterov_parameters(largest=2.0, smallest=smallest)
        assert found.rate == pytest.approx(1 - 2 / np.sqrt(3 * 2.0 / smallest + 1), rel=1e-7)


def by_roots(learning_rate, momentum, value, method):
    """Spectral radius of the iteration on two successive points, written out from the definition of the method."""
    if method == "nesterov":
        # y = w + b (w - w_before); w' = (1 - h l) y
        companion = [[(1 - learning_rate * value) * (1 + momentum), -(1 - learning_rate * value) * momentum], [1, 0]]
    else:
        companion = [[1 + momentum - learning_rate * value, -momentum], [1, 0]]
    return np.abs(np.linalg.eigvals(np.array(companion))).max()


@pytest.mark.parametrize("method", ["heavy_ball", "nesterov"])
def test_rates_are_those_of_the_roots(method):
    rng = np.random.default_rng(0)
    for _ in range(200):
        learning_rate, momentum, value = rng.uniform(0.01, 3), rng.uniform(0, 0.99), rng.uniform(-1, 4)
        found = convergence_rate(learning_rate, momentum, eigenvalues=value, method=method)
        assert found == pytest.approx(by_roots(learning_rate, momentum, value, method), rel=1e-6)


@pytest.mark.parametrize("method", PARAMETERS)
def test_no_other_parameters_are_better(method):
    found = PARAMETERS[method](largest=1.0, smallest=0.04)
    between = np.linspace(0.04, 1.0, 300)
    assert np.max(convergence_rate(*found, eigenvalues=between, method=method)) == pytest.approx(found.rate, abs=1e-6)
    momenta = [0.0] if method == "gd" else np.linspace(0, 0.95, 60)
    for momentum in momenta:
        for learning_rate in np.linspace(0.05, 4.0, 200):
            assert np.max(convergence_rate(learning_rate, momentum, eigenvalues=[0.04, 1.0], method=method)) > found.rate - 1e-9


def test_equal_ends_need_one_step():
    found = heavy_ball_parameters(largest=2.0, smallest=2.0)
    assert tuple(found) == pytest.approx((0.5, 0.0)) and found.rate == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("arguments, words", [
    ({"largest": 1.0, "smallest": 2.0}, "exchange them"), ({"largest": 1.0, "smallest": 0.0}, "smallest"),
    ({"largest": np.nan, "smallest": 0.1}, "largest"), ({"largest": 1.0, "smallest": -0.1}, "smallest"),
])  # fmt: skip
@pytest.mark.parametrize("method", PARAMETERS)
def test_wrong_ends(method, arguments, words):
    with pytest.raises(ValueError, match=words):
        PARAMETERS[method](**arguments)


@pytest.mark.parametrize("arguments, words", [
    ({"learning_rate": -1.0}, "learning_rate"), ({"learning_rate": 1.0, "momentum": 1.0}, "momentum"),
    ({"learning_rate": 1.0, "method": "sgd"}, "method"),
    ({"learning_rate": 1.0, "momentum": 0.5, "method": "gd"}, "plain gradient descent"),
])  # fmt: skip
def test_wrong_rates(arguments, words):
    with pytest.raises(ValueError, match=words):
        convergence_rate(**{"eigenvalues": 1.0, **arguments})


# -- measured spectra --------------------------------------------------------------------------------------------------


def test_positive_definite_matrix():
    """Both ends of a bulk are found up to what Lanczos resolves, and from both ends the exact parameters follow."""
    matrix = ls.diagonal_operator(np.linspace(0.01, 1.0, 400))
    S = ls.spectral_density(matrix, num_steps=80)
    ends = curvature_range(S)
    assert ends.smallest_is == "resolved" and ends.smallest == pytest.approx(0.01, rel=0.05)
    assert 1.0 <= ends.largest < 1.01
    run = curvature_range(S.run)
    assert (run.largest, run.smallest) == (ends.largest, ends.smallest)
    pairs = ls.eigsh(matrix, 2, which="BE", tol=1e-10)
    for measured, exact in [(heavy_ball_from, heavy_ball_parameters), (nesterov_from, nesterov_parameters),
                            (gradient_descent_from, gradient_descent_parameters)]:  # fmt: skip
        assert tuple(measured(pairs)) == pytest.approx(tuple(exact(largest=1.0, smallest=0.01)), rel=1e-7)


def network_like(n=500):
    """Many eigenvalues at zero up to rounding, some negative ones, and five that stand out."""
    return np.concatenate([np.full(n - 25, 1e-17), -np.linspace(0.01, 0.05, 20), [0.5, 1.0, 2.0, 4.0, 8.0]])


def test_network_like_spectrum():
    """The smallest resolved positive eigenvalue counts, not rounding around zero; with weight decay that is the smallest."""
    ends = curvature_range(ls.spectral_density(ls.diagonal_operator(network_like()), num_steps=40, num_probes=2))
    assert ends.smallest == pytest.approx(0.5, rel=1e-9) and ends.largest == pytest.approx(8.0, rel=1e-9)
    S = ls.spectral_density(ls.diagonal_operator(np.maximum(network_like(), 0) + 0.01), num_steps=40)
    ends = curvature_range(S, weight_decay=0.01)
    assert ends.smallest_is == "weight decay" and ends.smallest == 0.01
    assert heavy_ball_from(S, weight_decay=0.01).condition_number == pytest.approx(801, rel=1e-9)


def test_largest_has_its_error_bar():
    """After few steps the Ritz value is too small and its residual is not: a learning rate from the former alone diverges."""
    values = np.linspace(0.0, 1.0, 2000) ** 0.2
    run = ls.lanczos(ls.diagonal_operator(values), 3)
    ends = curvature_range(run)
    assert run.ritz_values.max() < 1.0 < ends.largest
    assert ends.largest == run.ritz_values[0, -1] + run.residual_norms[0, -1]


def test_single_precision():
    S = ls.spectral_density(ls.diagonal_operator(network_like().astype(np.float32)), num_steps=40)
    ends = curvature_range(S)
    assert ends.smallest == pytest.approx(0.5, rel=1e-5) and ends.largest == pytest.approx(8.0, rel=1e-5)


def test_spectra_that_set_nothing():
    negative = ls.spectral_density(ls.diagonal_operator(-np.linspace(1.0, 2.0, 50)), num_steps=10)
    with pytest.raises(ValueError, match="No positive eigenvalue"):
        curvature_range(negative)
    S = ls.spectral_density(ls.diagonal_operator(np.linspace(1.0, 2.0, 50)), num_steps=10)
    with pytest.raises(ValueError, match="weight_decay is 5"):
        curvature_range(S, weight_decay=5.0)
    with pytest.raises(ValueError, match="weight_decay"):
        curvature_range(S, weight_decay=-1.0)
    with pytest.raises(TypeError, match="ndarray"):
        curvature_range(np.ones(3))
