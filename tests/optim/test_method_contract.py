"""What every method keeps to, whatever it does: failed steps leave no trace, costs are true, rates and files are checked."""

import functools
import math

import numpy as np
import pytest

import linop_spectra as ls

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

optim = ls.optim
METHODS = {
    "LanczosNewton": lambda **k: optim.LanczosNewton(**{"damping": 0.1, "num_steps": 4} | k),
    "LanczosNewton random": lambda **k: optim.LanczosNewton(**{"damping": 0.1, "start_at": "random", "refresh_every": 3} | k),
    "SaddleFreeNewton": lambda **k: optim.SaddleFreeNewton(**{"damping": 0.1, "num_steps": 4} | k),
    "SaddleFreeNewton adaptive": lambda **k: optim.SaddleFreeNewton(**{"damping": 0.1, "num_steps": 4, "adaptive": True} | k),
    "HessianFree": lambda **k: optim.HessianFree(**k),
    "HessianFree preconditioned": lambda **k: optim.HessianFree(**{"preconditioner": "squared_gradients"} | k),
    "CubicNewton": lambda **k: optim.CubicNewton(**{"num_steps": 5} | k),
    "TrustRegionNewton": lambda **k: optim.TrustRegionNewton(**{"num_steps": 5} | k),
    "TrustRegionNewton Steihaug": lambda **k: optim.TrustRegionNewton(**{"num_steps": 5, "method": "steihaug"} | k),
    "AdaHessian": lambda **k: optim.AdaHessian(**{"refresh_every": 2} | k),
    "Sophia-G": lambda **k: optim.Sophia(**{"refresh_every": 2} | k),
    "Sophia-H": lambda **k: optim.Sophia(**{"refresh_every": 2, "estimator": "hutchinson"} | k),
    "KFAC": lambda **k: optim.KFAC(**{"factors_every": 2, "inverse_every": 3} | k),
    "KFAC fitted": lambda **k: optim.KFAC(**{"rescale": True, "momentum": "fitted", "adapt_damping": True, "adapt_every": 2} | k),
    "EKFAC": lambda **k: optim.KFAC(**{"kind": "ekfac", "factors_every": 2, "inverse_every": 4} | k),
    "GradientDescent": lambda **k: optim.GradientDescent(**{"learning_rate": 0.1} | k),
    "HeavyBall": lambda **k: optim.HeavyBall(**{"learning_rate": 0.1} | k),
    "Nesterov": lambda **k: optim.Nesterov(**{"learning_rate": 0.1} | k),
    "RandomSubspace": lambda **k: optim.RandomSubspace(optim.LanczosNewton(**{"damping": 0.1, "num_steps": 3} | k), dimension=4),
    "EdgeOfStabilityGuard": lambda **k: optim.EdgeOfStabilityGuard(optim.HeavyBall(**{"learning_rate": 0.1} | k), refresh_every=2),
}
CURVED = [name for name in METHODS if name not in ("GradientDescent", "HeavyBall", "Nesterov")]
RATED = [name for name, make in METHODS.items() if hasattr(make(), "learning_rate")]
WITH_MATRIX = [name for name in CURVED if hasattr(METHODS[name](), "matrix") and name != "EdgeOfStabilityGuard"]


@pytest.fixture(params=METHODS, name="make")
def _make(request):
    return METHODS[request.param]


def data(examples=12, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(examples, 3, generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.randint(0, 2, (examples,), generator=generator)


def objective(dtype=torch.float64, **options):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)
    return ls.objective(model, "cross_entropy", data(dtype=dtype), **options)


def broken():
    x, y = data()
    x[3, 1] = math.nan
    return x, y


def snapshot(method):
    return {name: np.array(value) for name, value in method.state_dict()["state"].items()}, method.steps_taken


def same(one, other):
    (left, steps), (right, others) = one, other
    return steps == others and left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


def test_failed_first_step_leaves_nothing_behind(make):
    here, method = objective(), make()
    with pytest.raises(FloatingPointError):
        method.step(here.with_data(broken()), here.parameters())
    assert not method.state and method.steps_taken == 0
    other = ls.objective(nn.Linear(3, 2).double(), "cross_entropy", data())  # of another size
    assert method.step(other, other.parameters())[1].step == 0


def test_data_that_are_not_finite_leave_state_and_parameters(make):
    here, method = objective(), make()
    theta = here.parameters()
    for _ in range(3):
        theta, _ = method.step(here, theta)
    before, at = snapshot(method), theta.copy()
    with pytest.raises(FloatingPointError):
        method.step(here.with_data(broken()), theta)
    assert same(before, snapshot(method)) and (theta == at).all()


@pytest.mark.parametrize("name", CURVED)
def test_curvature_that_is_not_finite_never_reaches_the_parameters(name):
    """Either an error that says so and leaves the state, or a step that is rejected, at each place between two refreshes."""
    here = objective()
    for steps in range(3):
        method, theta = METHODS[name](), here.parameters()
        for _ in range(steps):
            theta, _ = method.step(here, theta)
        before = snapshot(method)
        try:
            after, info = method.step(here, theta, curvature=here.with_data(broken()))
        except FloatingPointError:
            assert same(before, snapshot(method))
        else:
            assert np.isfinite(after).all() and (not info.accepted or not info.refreshed)
            after, info = method.step(here, after)
            assert info.accepted and np.isfinite(after).all()


def test_interrupted_steps_leave_the_state(make):
    """Ctrl-C in any forward pass of a step."""

    class Interrupting(nn.Module):
        calls, limit = 0, math.inf

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Linear(3, 2).double()

        def forward(self, x):
            Interrupting.calls += 1
            if Interrupting.calls >= Interrupting.limit:
                raise KeyboardInterrupt
            return self.layer(x)

    here = ls.objective(Interrupting(), "cross_entropy", data())
    x, y = data()
    method = make()
    theta, _ = method.step(here, here.parameters())
    before = snapshot(method)
    for pass_number in range(1, 200):
        Interrupting.calls, Interrupting.limit = 0, pass_number
        try:
            method.step(here.with_data((x[:7], y[:7])), theta)
        except KeyboardInterrupt:
            assert same(before, snapshot(method))
        else:
            assert Interrupting.calls < pass_number  # not swallowed
            break
    assert pass_number > 1


@pytest.mark.parametrize("backend", [None, "torch:cpu"])
@pytest.mark.parametrize("cut", [1, 2])
def test_restored_between_refreshes_the_run_is_the_same(make, backend, cut, tmp_path):
    here, whole = objective(backend=backend), make()
    theta = here.parameters()
    for step in range(5):
        if step == cut:
            whole.save(tmp_path / "state.npz")
            halfway = theta + 0
        theta, _ = whole.step(here, theta)
    again = make()
    again.restore(tmp_path / "state.npz")
    for _ in range(cut, 5):
        halfway, _ = again.step(here, halfway)
    assert same(snapshot(whole), snapshot(again)) and (np.asarray(theta) == np.asarray(halfway)).all()
    other = ls.objective(nn.Linear(3, 2).double(), "cross_entropy", data(), backend=backend)
    with pytest.raises(ValueError, match="parameters"):
        again.step(other, other.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_vectors_keep_their_type_and_details_are_numbers(make, dtype):
    here, method = objective(dtype), make()
    theta = here.parameters()
    for step in range(3):
        theta, info = method.step(here, theta)
        assert theta.dtype == here.dtype and info.step == step and np.isfinite(info.loss)
        assert info.step_norm > 0 or not info.accepted
        assert all(isinstance(name, str) and isinstance(value, float) for name, value in info.details.items())


@pytest.mark.parametrize("name", WITH_MATRIX)
def test_products_are_those_that_the_operator_took(name):
    taken = []

    def matrix(at):
        inner = at.ggn()

        def apply(vector):
            taken.append(1)
            return inner.matvec(vector)

        return ls.aslinearoperator(apply, shape=inner.shape, dtype=inner.dtype, hermitian=True)

    here, method = objective(), METHODS[name](matrix=matrix)
    theta = here.parameters()
    for _ in range(4):
        taken.clear()
        theta, info = method.step(here, theta)
        assert info.num_matvecs == sum(taken)


@pytest.mark.parametrize("name", RATED)
def test_schedules_that_return_nonsense_are_named(name):
    here = objective()
    for rate in (math.nan, math.inf, -1.0, None, "fast", 1j, np.array([0.1, 0.2])):
        method = METHODS[name](learning_rate=lambda step, rate=rate: rate)
        with pytest.raises(ValueError, match="The learning rate of step 0 is "):
            method.step(here, here.parameters())
        assert not method.state


@pytest.mark.parametrize("name", RATED)
def test_schedules_may_start_at_zero(name):
    here, method = objective(), METHODS[name](learning_rate=lambda step: 0.1 * min(step, 1))
    theta, info = method.step(here, here.parameters())
    assert info.accepted and info.learning_rate == 0.0 and info.step_norm == 0.0 and "gradient is zero" not in info.message
    assert (theta == here.parameters()).all()
    theta, info = method.step(here, theta)
    assert info.accepted and info.step_norm > 0


@pytest.mark.parametrize("name", RATED)
def test_constant_rates_are_checked_when_the_method_is_made(name):
    for rate in (0.0, -0.1, math.nan, None, "fast"):
        with pytest.raises(ValueError, match="learning_rate"):
            METHODS[name](learning_rate=rate)


def test_schedules_are_told_apart_by_name_and_not_by_address(tmp_path):
    """A partial function has no name of its own, and another address in each process."""

    def decay(scale, step):
        return scale / (1 + step)

    here = objective()
    first = optim.HeavyBall(learning_rate=functools.partial(decay, 0.1))
    theta, _ = first.step(here, here.parameters())
    first.save(tmp_path / "state.npz")
    second = optim.HeavyBall(learning_rate=functools.partial(decay, 0.1))
    second.restore(tmp_path / "state.npz")
    assert (second.step(here, theta)[0] == first.step(here, theta)[0]).all()


def test_kronecker_factors_look_at_the_arrangement_of_examples_once(monkeypatch):
    here, counted = objective().with_data(data(64)), []
    passes = type(here.functions).weight_uses

    def weight_uses(self, point, batch):
        counted.append(batch)
        return passes(self, point, batch)

    monkeypatch.setattr(type(here.functions), "weight_uses", weight_uses)
    for kind, first, later in (("kfac", 2, 1), ("ekfac", 3, 2)):  # few examples, all of them, and once more for the eigenvalues
        method, theta = optim.KFAC(kind=kind), here.parameters()
        for wanted in (first, later, later):
            counted.clear()
            theta, _ = method.step(here, theta)
            assert len(counted) == wanted


@pytest.mark.parametrize("name", CURVED)
def test_curvature_of_another_type_is_refused(name):
    method, here = METHODS[name](), objective()
    with pytest.raises(ValueError, match="curvature"):
        method.step(here, here.parameters(), curvature=objective(torch.float32))


@pytest.mark.parametrize("value", [None, "much", 1j, [1.0]], ids=str)
def test_numbers_that_are_none_are_named(value):
    with pytest.raises(ValueError, match="The argument damping is "):
        optim.LanczosNewton(damping=value)


@pytest.mark.parametrize("seed", [-1, 0.5, "1", True])
@pytest.mark.parametrize("make", [optim.LanczosNewton, lambda seed: optim.RandomSubspace(optim.LanczosNewton(), dimension=1, seed=seed)])
def test_seeds_are_checked(make, seed):
    with pytest.raises(ValueError, match="The argument seed"):
        make(seed=seed)


def test_a_subspace_says_what_may_hold_it():
    here, guard = objective(), optim.EdgeOfStabilityGuard(optim.RandomSubspace(optim.LanczosNewton(), dimension=2))
    with pytest.raises(TypeError, match="RandomSubspace\\(EdgeOfStabilityGuard"):
        guard.step(here, here.parameters())
    inside = optim.RandomSubspace(optim.EdgeOfStabilityGuard(optim.HeavyBall(learning_rate=0.1)), dimension=2)
    assert inside.step(here, here.parameters())[1].accepted


def test_adaptive_damping_stays_where_no_damping_makes_a_difference():
    """At the minimum all losses are equal to rounding: that is no reason for more damping, nor for a rejection."""
    generator = np.random.default_rng(0)
    x = torch.as_tensor(generator.standard_normal((30, 3)), dtype=torch.float32)
    here = ls.objective(nn.Linear(3, 1), "mse", (x, torch.as_tensor(generator.standard_normal((30, 1)), dtype=torch.float32)))
    method, theta = optim.SaddleFreeNewton(damping=0.1, num_steps=4, adaptive=True), here.parameters()
    infos = []
    for _ in range(60):
        theta, info = method.step(here, theta)
        infos.append(info)
    assert max(info.damping for info in infos) <= 1.0 and all(info.accepted for info in infos)
    assert infos[-1].gradient_norm < 1e-5


def test_regions_take_gradients_whose_squares_underflow():
    tiny = 1e-200
    step = optim.trust_region_step(ls.diagonal_operator(np.array([2.0, -1.0]) * tiny), np.array([1.0, 0.1]) * tiny, radius=1.0)
    np.testing.assert_allclose(step, [-0.321996, -0.946741], atol=1e-5)
    step = optim.cubic_step(ls.diagonal_operator(np.array([2.0, -1.0]) * tiny), np.array([1.0, 0.1]) * tiny, sigma=tiny)
    np.testing.assert_allclose(step, [-0.323047, -1.046815], atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.SaddleFreeNewton(damping=0.1, num_steps=4, adaptive=True), lambda: optim.SaddleFreeNewton(damping=1e-3, num_steps=4),
        lambda: optim.LanczosNewton(damping=1e-3, num_steps=4), lambda: optim.CubicNewton(num_steps=5),
        lambda: optim.CubicNewton(num_steps=5, hard_case="always"), lambda: optim.TrustRegionNewton(num_steps=5),
    ],
    ids=["SaddleFreeNewton adaptive", "SaddleFreeNewton", "LanczosNewton", "CubicNewton", "CubicNewton always", "TrustRegionNewton"],
)  # fmt: skip
def test_a_classifier_that_is_sure_of_its_examples_ends_no_run(make):
    """In single precision the curvature of a saturated softmax is mostly rounding, and its products are not symmetric any more."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(5))
    here = ls.objective(model, "cross_entropy", (x, (x[:, 0] > 0).long()))
    method, theta, losses = make(), here.parameters(), []
    for _ in range(60):
        theta, info = method.step(here, theta)
        losses.append(info.loss)
    assert min(losses) < 1e-4 and np.isfinite(theta).all()
