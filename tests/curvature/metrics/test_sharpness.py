"""Sharpness of quadratics in closed form, and what reparametrisations do to it."""

import numpy as np
import pytest
from metric_networks import dense, in_torch, regression
from scipy import optimize

import linop_spectra as ls
from linop_spectra.curvature import metrics
from linop_spectra.curvature.metrics.sharpness import maximum_in_ball

torch = pytest.importorskip("torch")


class Product(torch.nn.Module):
    """f = a b x, whose square loss is flat along ab = constant."""

    def __init__(self, a):
        super().__init__()
        self.a, self.b = (torch.nn.Parameter(torch.tensor(v, dtype=torch.float64)) for v in (a, 1 / a))

    def forward(self, x):
        return self.a * self.b * x


def product(a):
    one = torch.ones(1, 1, dtype=torch.float64)
    return ls.objective(Product(a), lambda outputs, targets: 0.5 * ((outputs - targets) ** 2).mean(), (one, one))


@pytest.mark.parametrize("a, largest", [(1.0, 2.0), (2.0, 4.25), (10.0, 100.01)])
def test_the_same_function_has_any_sharpness(a, largest):
    """Dinh et al. (2017): on ab = 1 the eigenvalue is a^2 + b^2. Adaptive sharpness does not see the rescaling."""
    objective = product(a)
    assert metrics.largest_eigenvalue(objective).value == pytest.approx(largest, rel=1e-12)
    assert metrics.trace(objective).value == pytest.approx(largest, rel=1e-12)
    assert metrics.adaptive_sharpness(objective).value == pytest.approx(1.0, rel=1e-10)  # half of |(ab, ab)|^2
    assert metrics.adaptive_sharpness(objective, kind="average").value == pytest.approx(1.0, rel=1e-10)


class Direction(torch.nn.Module):
    """Outputs depend on the direction of the weights only."""

    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.as_tensor(weight))

    def forward(self, x):
        return x @ (self.weight / self.weight.norm())[:, None]


def test_scale_invariant_networks():
    """Euler: H w = -g and w.H.w = 0; w -> c w divides the Hessian by c^2."""
    rng = np.random.default_rng(0)
    w, x, y = rng.standard_normal(5), torch.as_tensor(rng.standard_normal((30, 5))), torch.as_tensor(rng.standard_normal((30, 1)))
    objective = ls.objective(Direction(w), "mse", (x, y))
    H, g = objective.hessian(), np.asarray(objective.gradient())
    np.testing.assert_allclose(H @ w, -g, atol=1e-12)
    assert abs(w @ (H @ w)) < 1e-12 and abs(g @ w) < 1e-12
    for c in (2.0, 10.0):
        scaled = objective.with_parameters(c * w)
        assert metrics.largest_eigenvalue(scaled).value * c**2 == pytest.approx(metrics.largest_eigenvalue(objective).value, rel=1e-9)
        assert metrics.frobenius_norm(scaled).value * c**2 == pytest.approx(metrics.frobenius_norm(objective).value, rel=1e-9)


def _quadratic(seed=0, p=4):
    rng = np.random.default_rng(seed)
    x, theta = rng.standard_normal((25, p)), rng.standard_normal(p)
    objective = regression(x, x @ rng.standard_normal(p) + 0.3 * rng.standard_normal(25), theta)
    return objective, 2 * x.T @ x / 25, np.asarray(objective.gradient())


def test_sharpness_of_a_quadratic():
    objective, H, g = _quadratic()
    rho, length = 0.3, np.linalg.norm(g)
    expected = rho * length + 0.5 * rho**2 * g @ H @ g / length**2
    assert metrics.sam_sharpness(objective, rho).value == pytest.approx(expected, rel=1e-10)
    best = optimize.minimize(
        lambda e: -(g @ e + 0.5 * e @ H @ e), rho * g / length, constraints={"type": "ineq", "fun": lambda e: rho**2 - e @ e}, tol=1e-14
    )
    assert metrics.worst_case_sharpness(objective, rho).value == pytest.approx(-best.fun, rel=1e-6)
    assert metrics.average_sharpness(objective, 0.1).value == pytest.approx(0.005 * np.trace(H), rel=1e-9)
    low, high = metrics.average_sharpness(objective, 0.1, method="sampled", num_samples=64).confidence_interval(0.999)
    assert low < 0.005 * np.trace(H) < high
    assert metrics.critical_sharpness(objective, tol=1e-6).value == pytest.approx(g @ H @ g / length**2, rel=1e-5)
    assert metrics.pac_bayes_deviation(objective, 0.2).value == pytest.approx(np.sqrt(0.4 / np.trace(H)), rel=1e-9)
    low, high = metrics.pac_bayes_deviation(objective, 0.2, method="sampled", num_samples=64).confidence_interval(0.999)
    assert low < np.sqrt(0.4 / np.trace(H)) < high


def test_at_a_minimum_the_worst_case_is_half_the_largest_eigenvalue():
    x = np.random.default_rng(1).standard_normal((25, 3))
    objective = regression(x, np.zeros(25), np.zeros(3))
    w = np.linalg.eigvalsh(2 * x.T @ x / 25)
    assert metrics.worst_case_sharpness(objective, 0.2).value == pytest.approx(0.02 * w[-1], rel=1e-9)
    with pytest.raises(ValueError, match="worst_case_sharpness"):
        metrics.sam_sharpness(objective)
    with pytest.raises(ValueError, match="direction"):
        metrics.critical_sharpness(objective)


@pytest.mark.parametrize("seed", range(12))
def test_the_maximum_in_a_ball(seed):
    """Against a fine search over the circle and its inside, with hard cases: slopes that miss the top direction, negative curvature."""
    rng = np.random.default_rng(seed)
    w, s, radius = rng.standard_normal(2) - (seed % 3), rng.standard_normal(2) * (seed % 2), 0.5 + rng.random()
    if seed % 4 == 3:
        s[np.argmax(w)] = 0.0
    angles, lengths = np.meshgrid(np.linspace(0, 2 * np.pi, 2001), np.linspace(0, radius, 301))
    x, y = lengths * np.cos(angles), lengths * np.sin(angles)
    best = (s[0] * x + s[1] * y + 0.5 * (w[0] * x**2 + w[1] * y**2)).max()
    assert maximum_in_ball(w, s, radius)[0] == pytest.approx(best, abs=2e-4 * (1 + abs(best)))


def test_adaptive_hessian_is_the_scaled_matrix():
    objective = in_torch()
    w = np.abs(np.asarray(objective.parameters()))
    np.testing.assert_allclose(dense_of(metrics.adaptive_hessian(objective)), w[:, None] * dense(objective) * w, atol=1e-12)
    ggn = metrics.adaptive_hessian(objective, objective.ggn())
    np.testing.assert_allclose(dense_of(ggn), w[:, None] * dense(objective, "ggn") * w, atol=1e-12)


def dense_of(operator):
    return np.asarray(operator.to_dense())


def test_a_descent_that_never_ends_and_one_that_is_none():
    objective, _, g = _quadratic()
    with pytest.raises(ValueError, match="lowers the loss"):
        metrics.critical_sharpness(objective, direction=g)  # uphill
    line = regression(np.ones((2, 1)), np.full(2, 1e6), np.zeros(1))
    with pytest.raises(ValueError, match="evaluations"):
        metrics.critical_sharpness(line, direction=np.full(1, 1e-9), max_values=5)
    with pytest.raises(ValueError, match="shape"):
        metrics.critical_sharpness(objective, direction=np.ones(2))
    for bad in (0.0, -1.0, np.nan, True):
        with pytest.raises(ValueError, match="radius"):
            metrics.sam_sharpness(objective, bad)
    with pytest.raises(ValueError, match="method"):
        metrics.average_sharpness(objective, 0.1, method="other")
    with pytest.raises(ValueError, match="kind"):
        metrics.adaptive_sharpness(objective, kind="other")


def test_a_trace_that_is_not_positive_has_no_deviation():
    class Concave(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))

        def forward(self, x):
            return self.w

    one = torch.ones(1, 1, dtype=torch.float64)
    objective = ls.objective(Concave(), lambda outputs, targets: -(outputs**2).sum(), (one, one))
    with pytest.raises(ValueError, match="only where it is positive"):
        metrics.pac_bayes_deviation(objective)
    with pytest.raises(ValueError, match="does not rise"):
        metrics.pac_bayes_deviation(objective, method="sampled", num_samples=2)


class Squares(torch.nn.Module):
    """f = x^2 y^2; on xy = 1 the eigenvalue of half the squared error is 4 (x^2 + y^2)."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = (torch.nn.Parameter(torch.tensor(v, dtype=torch.float64)) for v in (x, y))

    def forward(self, inputs):
        return (self.x * self.y) ** 2 * inputs


@pytest.mark.parametrize("rate, final", [(0.05, 0.998), (0.02, 0.9996)])
def test_gradient_descent_ends_just_below_the_edge_of_stability(rate, final):
    """Started at 1.2 times two over the learning rate, it leaves for a minimum whose sharpness is just below."""
    total = 1.2 * 2 / rate / 4  # x^2 + y^2 with xy = 1
    x = np.sqrt((total + np.sqrt(total**2 - 4)) / 2)
    y = 1 / x + 1e-4
    for _ in range(200_000):
        slope = (x * y) ** 2 - 1
        x, y = x - rate * slope * 2 * x * y**2, y - rate * slope * 2 * x**2 * y
    one = torch.ones(1, 1, dtype=torch.float64)
    objective = ls.objective(Squares(x, y), lambda outputs, targets: 0.5 * ((outputs - targets) ** 2).mean(), (one, one))
    assert abs(objective.value()) < 1e-12
    assert metrics.largest_eigenvalue(objective).value * rate / 2 == pytest.approx(final, abs=2e-3)


@pytest.mark.parametrize("measure", [metrics.critical_sharpness, lambda own: metrics.pac_bayes_deviation(own, 1e6, method="sampled")])
@pytest.mark.parametrize("broken", [False, True])
def test_only_a_loss_that_is_not_finite_is_a_rise(measure, broken):
    """Beyond a limit the loss overflows, which is a wall; an error of the user's own function is not taken for one."""

    def loss(outputs, targets):
        if float(outputs.detach().abs().max()) > 3:
            if broken:
                raise ValueError("This loss knows no such outputs.")
            return outputs.sum() * float("inf")
        return ((outputs - targets) ** 2).mean()

    one = torch.ones(4, 1, dtype=torch.float64)
    model = torch.nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        model.weight.fill_(-2.0)
    objective = ls.objective(model, loss, (one, one))  # (w - 1)^2 at w = -2, with walls at -3 and 3
    if broken:
        with pytest.raises(ValueError, match="no such outputs"):
            measure(objective)
        return
    found = measure(objective)
    # The wall is met before the loss is back at its value (4 on the other side), and before it has risen by a million.
    if found.name == "critical_sharpness":
        assert found.value == pytest.approx(2 / (5 / 6), rel=0.02)  # w + rate 6 = 3
    else:
        assert 0.2 < found.value < 5  # one over the largest of eight normal numbers; without the wall it is a thousand
