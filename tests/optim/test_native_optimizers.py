"""Optimisers of torch, optax and Keras as methods: the same steps as natively, on copies, guarded, saved and rejected like any other."""

import functools
import math

import numpy as np
import pytest
import torch
from first_order_problems import Vector, _half_square, network, resumed_is_identical, run
from torch.nn import functional as F

import linop_spectra as ls
from linop_spectra.optim import EdgeOfStabilityGuard, Optimizer, as_optimizer
from linop_spectra.optim.optimizer import Proposal

H = np.linspace(0.1, 2.0, 40)


def groups(model):
    return [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.3},
        {"params": [p for p in model.parameters() if p.ndim == 1], "lr": 0.03},
    ]


class Counting(torch.optim.Optimizer):
    """Keeps a number among its groups' settings and takes more arguments than settings."""

    def __init__(self, factor, params):
        super().__init__(params, {"lr": 0.5, "k": 0})
        self.factor = factor

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["k"] += 1
            for p in group["params"]:
                p.sub_(p.grad, alpha=self.factor * group["lr"] / group["k"])


TORCH = {
    "heavy ball": lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01),
    "Nesterov": lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, nesterov=True),
    "Adam": lambda m: torch.optim.Adam(m.parameters(), lr=0.01, amsgrad=True),
    "AdamW with groups": lambda m: torch.optim.AdamW(groups(m), lr=0.01, betas=(0.8, 0.95)),
    "RMSprop": lambda m: torch.optim.RMSprop(m.parameters(), lr=0.01, momentum=0.5, centered=True),
    "NAdam": lambda m: torch.optim.NAdam(m.parameters(), lr=0.01),
    "Adagrad": lambda m: torch.optim.Adagrad(m.parameters(), lr=0.05, initial_accumulator_value=0.1),
    "differentiable": lambda m: torch.optim.Adam(m.parameters(), lr=torch.tensor(0.01).double(), differentiable=True),
    "settings that count": lambda m: Counting(0.7, m.parameters()),
}  # fmt: skip


def native_steps(model, optimizer, data, steps, scheduler=None):
    x, y = data
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def parameters(objective, model):
    return objective.flatten(dict(model.named_parameters(remove_duplicate=False)))


@pytest.mark.parametrize("name", TORCH)
def test_steps_are_those_of_torch(name):
    model, data = network()
    objective = ls.objective(model, "cross_entropy", data)
    passed = TORCH[name](model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    settings = repr(passed.state_dict())
    theta, infos = run(as_optimizer(passed), objective, 12)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    assert all(p.grad is None for p in model.parameters()) and repr(passed.state_dict()) == settings
    native = TORCH[name](model)
    if name == "differentiable":  # which torch itself can only do inside of a graph
        native = torch.optim.Adam(model.parameters(), lr=float(torch.tensor(0.01)))
    native_steps(model, native, data, 12)
    np.testing.assert_allclose(theta, parameters(objective, model), rtol=1e-13, atol=1e-14)
    rate = {"AdamW with groups": 0.03, "Adagrad": 0.05, "settings that count": 0.5, "heavy ball": 0.1, "Nesterov": 0.1}.get(name, 0.01)
    assert all(info.accepted and info.learning_rate == pytest.approx(rate, rel=1e-7) for info in infos)


@pytest.mark.parametrize("name, guarded", [*((name, False) for name in TORCH), ("Adam", True), ("AdamW with groups", True)])
def test_resumes_bit_for_bit_in_torch(name, guarded, tmp_path):
    model, (x, y) = network(dtype=torch.float32 if guarded else torch.float64)
    objective = ls.objective(model, "cross_entropy", (x, y), batch_size=8)
    objectives = [objective.with_data((x[i : i + 4], y[i : i + 4])) for i in range(6)]

    def make():
        method = as_optimizer(TORCH[name](model))
        return EdgeOfStabilityGuard(method, refresh_every=2) if guarded else method

    assert resumed_is_identical(make, objectives, tmp_path)


def test_state_that_the_optimiser_has_already_is_taken_over():
    model, data = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    native_steps(model, optimizer, data, 5)
    objective = ls.objective(model, "cross_entropy", data)
    held = {key: value.clone() for key, value in optimizer.state[model[0].weight].items()}
    theta, _ = run(as_optimizer(optimizer), objective, 4)
    assert all(torch.equal(value, optimizer.state[model[0].weight][key]) for key, value in held.items())
    native_steps(model, optimizer, data, 4)
    np.testing.assert_allclose(theta, parameters(objective, model), rtol=1e-13, atol=1e-14)


class Tied(torch.nn.Module):
    """One matrix twice, a frozen bias, and a parameter that nothing uses."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second, self.last = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 3)
        self.second.weight = self.first.weight
        self.first.bias.requires_grad_(False)
        self.unused = torch.nn.Parameter(torch.ones(2))

    def forward(self, x):
        return self.last(torch.tanh(self.second(torch.tanh(self.first(x)))))


@pytest.mark.filterwarnings("ignore:The loss of the batch does not depend")
def test_tied_frozen_and_unused_parameters():
    model = Tied().double()
    data = torch.randn(15, 4).double(), torch.randint(0, 3, (15,))
    objective = ls.objective(model, "cross_entropy", data)
    method = as_optimizer(torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.5))
    theta, _ = run(method, objective, 6)
    native_steps(model, torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.5), data, 6)
    np.testing.assert_allclose(theta, parameters(objective, model), rtol=1e-13, atol=1e-14)
    assert (theta[objective.blocks["unused"]] == 1).all() and "exp_avg/first.bias" not in method.state
    _, infos = run(EdgeOfStabilityGuard(torch.optim.AdamW(model.parameters(), lr=1e-3), num_steps=3), objective, 2)
    assert np.isfinite(infos[-1].details["sharpness"]) and infos[-1].details["threshold"] == pytest.approx(38e3)


def test_parameters_that_the_optimiser_does_not_hold_stay():
    model, data = network()
    objective = ls.objective(model, "cross_entropy", data)
    theta, info = run(as_optimizer(torch.optim.SGD(model[2].parameters(), lr=0.1)), objective, 3)
    moved = theta != objective.parameters()
    assert moved[objective.blocks["2.weight"]].all() and not moved[objective.blocks["0.weight"]].any()
    # The sharpness that counts is that of the block that moves.
    _, info = EdgeOfStabilityGuard(torch.optim.SGD(model[2].parameters(), lr=0.1), num_steps=20).step(objective, objective.parameters())
    rows = np.r_[objective.blocks["2.weight"], objective.blocks["2.bias"]]
    block = objective.hessian().to_dense()[np.ix_(rows, rows)]
    assert info.details["sharpness"] == pytest.approx(np.linalg.eigvalsh(block)[-1], rel=1e-6)


def test_another_model_in_the_same_order():
    model, data = network()
    other, _ = network(seed=5)
    objective = ls.objective(model, "cross_entropy", data)
    theta, _ = run(as_optimizer(torch.optim.Adam(other.parameters(), lr=0.01)), objective, 3)
    expected, _ = run(as_optimizer(torch.optim.Adam(model.parameters(), lr=0.01)), objective, 3)
    np.testing.assert_array_equal(theta, expected)
    named = torch.optim.Adam([(name, p) for name, p in reversed(list(other.named_parameters()))], lr=0.01)
    theta, _ = run(as_optimizer(named), objective, 3)
    np.testing.assert_array_equal(theta, expected)
    with pytest.raises(ValueError, match="holds none of the parameters of the objective's model"):
        as_optimizer(torch.optim.Adam(torch.nn.Linear(3, 2).parameters())).step(objective, theta)


def test_scheduler_on_the_optimiser():
    """Of both, learning rate and momentum; and it does not warn of steps that were not taken."""
    model, data = network()
    objective = ls.objective(model, "cross_entropy", data)

    def both():
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.4, total_steps=12)

    optimizer, scheduler = both()
    method, theta, rates = as_optimizer(optimizer), objective.parameters(), []
    for _ in range(10):
        theta, info = method.step(objective, theta)
        rates.append(info.learning_rate)
        scheduler.step()
    optimizer, scheduler = both()
    for rate in rates:
        assert rate == optimizer.param_groups[0]["lr"]
        native_steps(model, optimizer, data, 1, scheduler)
    np.testing.assert_allclose(theta, parameters(objective, model), rtol=1e-12, atol=1e-13)
    assert len(set(rates)) == 10


def test_loss_that_is_not_finite_rejects_the_step():
    """The logarithm's argument turns negative: the parameters stay, and so does all of the state."""
    model = Vector([1.0, 2.0])
    loss = ls.BatchLoss(lambda m, batch: (batch.mean() * m.w.sum() + m.w.log().sum(), 1.0))
    objective = ls.objective(model, loss, [torch.ones(1).double()])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    method = as_optimizer(optimizer)
    theta, _ = run(method, objective, 3)
    before = {name: np.array(value) for name, value in method.state.items()}
    optimizer.param_groups[0]["lr"] = 5.0
    after, info = method.step(objective, theta)
    assert not info.accepted and "not finite" in info.message and (after == theta).all()
    assert before.keys() == method.state.keys() and all((before[name] == np.array(value)).all() for name, value in method.state.items())
    optimizer.param_groups[0]["lr"] = 0.01
    again, _ = method.step(objective, theta)
    whole, _ = run(as_optimizer(torch.optim.Adam(model.parameters(), lr=0.01)), objective, 4)
    np.testing.assert_array_equal(again, whole)


def test_in_a_torch_loop_and_in_minimize(tmp_path):
    model, (x, y) = network()
    objective = ls.objective(model, "cross_entropy", (x, y))
    method = as_optimizer(torch.optim.Adam(model.parameters(), lr=0.02))
    whole = ls.optim.minimize(method, objective, 6)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    ls.optim.minimize(as_optimizer(optimizer), objective, 3, checkpoint=tmp_path / "run.npz")
    resumed = ls.optim.minimize(as_optimizer(optimizer), objective, 6, checkpoint=tmp_path / "run.npz")
    np.testing.assert_array_equal(whole.theta, resumed.theta)
    loop = ls.optim.torch_optimizer(as_optimizer(torch.optim.Adam(model.parameters(), lr=0.02)), model, "cross_entropy")
    for _ in range(6):
        loop.step((x, y))
    np.testing.assert_array_equal(whole.theta, parameters(objective, model))


# -- the guard ---------------------------------------------------------------------------------------------------------


def of_quadratic(**options):
    model = Vector(np.ones(40))
    return model, ls.objective(model, ls.BatchLoss(_half_square), [torch.as_tensor(H)])


@pytest.mark.parametrize("settings, constant", [
    ({}, 2.0), ({"momentum": 0.6}, 3.2), ({"momentum": 0.6, "nesterov": True}, 3.2 / 2.2),
    ({"momentum": 0.6, "dampening": 0.6}, None),  # nothing is known of it
])  # fmt: skip
def test_guarded_descent_of_torch(settings, constant):
    model, objective = of_quadratic()
    rate = 1.1 * (constant or 10.0) / 2.0
    assert run(as_optimizer(torch.optim.SGD(model.parameters(), lr=rate, **settings)), objective, 150)[1][-1].loss > 1e3
    guard = EdgeOfStabilityGuard(torch.optim.SGD(model.parameters(), lr=rate, **settings), safety=0.9, num_steps=10)
    _, infos = run(guard, objective, 150)
    assert infos[-1].loss < 1e-3 * infos[0].loss
    if constant is not None:
        assert infos[-1].details["threshold"] == pytest.approx(constant / rate)
        assert infos[-1].details["sharpness"] == pytest.approx(2.0, rel=1e-4)
        assert 0.98 * 0.9 * constant / 2.0 < infos[-1].learning_rate <= 0.9 * constant / 2.0


def test_guarded_descent_is_torch_at_the_lower_rate():
    model, objective = of_quadratic()
    optimizer = torch.optim.SGD(model.parameters(), lr=3.2, momentum=0.6)
    guarded, _ = run(EdgeOfStabilityGuard(optimizer, safety=0.5, num_steps=25), objective, 40)
    plain, _ = run(as_optimizer(torch.optim.SGD(model.parameters(), lr=0.8, momentum=0.6)), objective, 40)
    np.testing.assert_allclose(guarded, plain, rtol=1e-5, atol=1e-8)


def dense_hessian(model, data):
    """By torch's own functions, in the order of the parameters."""
    names, shapes = zip(*[(name, p.shape) for name, p in model.named_parameters()], strict=True)
    sizes = [math.prod(shape) for shape in shapes]

    def loss(vector):
        pieces = {name: piece.view(shape) for name, piece, shape in zip(names, vector.split(sizes), shapes, strict=True)}
        return F.cross_entropy(torch.func.functional_call(model, pieces, (data[0],)), data[1])

    return torch.autograd.functional.hessian(loss, torch.cat([p.detach().ravel() for p in model.parameters()])).numpy()


@pytest.mark.parametrize("kind, options", [("Adam", {"weight_decay": 0.2}), ("AdamW", {"amsgrad": True}), ("AdamW", {"betas": (0.5, 0.9)})])
def test_sharpness_of_adam(kind, options):
    """Against the dense Hessian in the metric of the second moments that torch itself has after its steps."""
    model, data = network()
    hessian = dense_hessian(model, data)
    objective = ls.objective(model, "cross_entropy", data)
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=1e-3, eps=1e-3, **options)
    guard = EdgeOfStabilityGuard(optimizer, num_steps=30)
    _, info = guard.step(objective, objective.parameters())
    native_steps(model, optimizer, data, 1)
    beta, (first, second) = options.get("weight_decay", 0.0), optimizer.param_groups[0]["betas"]
    key = "max_exp_avg_sq" if options.get("amsgrad") else "exp_avg_sq"
    moments = np.concatenate([optimizer.state[p][key].numpy().ravel() for p in model.parameters()])
    root = np.sqrt(np.sqrt(moments / (1 - second)) + 1e-3)
    expected = np.linalg.eigvalsh((hessian + beta * np.eye(len(root))) / np.outer(root, root))[-1]
    assert info.details["sharpness"] == pytest.approx(expected, rel=1e-6)
    assert info.details["threshold"] == pytest.approx((2 + 2 * first) / (1 - first) / 1e-3, rel=1e-9)
    assert info.details["scaled"] == pytest.approx(min(1.0, 0.95 * info.details["threshold"] / expected), rel=1e-5)


def test_groups_with_other_learning_rates_are_one_metric():
    """Of gradient descent with rates L, what counts is the largest eigenvalue of L^(1/2) (H + D) L^(1/2)."""
    model, data = network()
    objective = ls.objective(model, "cross_entropy", data)
    optimizer = torch.optim.SGD(groups(model), lr=0.5)
    _, info = EdgeOfStabilityGuard(optimizer, num_steps=30).step(objective, objective.parameters())
    rates = np.concatenate([np.full(p.numel(), 0.5 if p.ndim > 1 else 0.03) for p in model.parameters()])
    decay = np.concatenate([np.full(p.numel(), 0.3 if p.ndim > 1 else 0.0) for p in model.parameters()])
    matrix = np.sqrt(np.outer(rates, rates)) * (dense_hessian(model, data) + np.diag(decay))
    assert info.details["sharpness"] * 0.5 == pytest.approx(np.linalg.eigvalsh(matrix)[-1], rel=1e-6)
    assert info.details["threshold"] == pytest.approx(2 / 0.5)


def test_groups_with_other_momenta_are_judged_by_their_steps():
    model, data = network()
    objective = ls.objective(model, "cross_entropy", data)
    own = [{"params": model[0].parameters(), "momentum": 0.5}, {"params": model[2].parameters()}]
    _, info = EdgeOfStabilityGuard(torch.optim.SGD(own, lr=0.2, momentum=0.9), num_steps=30).step(objective, objective.parameters())
    # The first step is one of gradient descent.
    assert info.details["threshold"] == pytest.approx(2 / 0.2)
    assert info.details["sharpness"] == pytest.approx(np.linalg.eigvalsh(dense_hessian(model, data))[-1], rel=1e-6)


def test_step_that_is_not_finite_is_rejected_and_not_measured():
    """Without epsilon Adam divides zero by zero where the gradient is zero."""
    model = Vector(np.zeros(40))
    objective = ls.objective(model, ls.BatchLoss(_half_square), [torch.as_tensor(H)])
    guard = EdgeOfStabilityGuard(torch.optim.Adam(model.parameters(), eps=0.0))
    theta, info = guard.step(objective, np.r_[0.0, np.ones(39)])
    assert not info.accepted and "not finite" in info.message and np.isfinite(theta).all() and info.num_matvecs == 0


def test_preconditioner_of_the_user_goes_before():
    """And a method that says nothing of itself is judged by its step in that metric."""
    model, objective = of_quadratic()
    diagonal = np.linspace(4.0, 1.0, 40)
    guard = EdgeOfStabilityGuard(torch.optim.Adam(model.parameters(), lr=0.01), num_steps=20, preconditioner=lambda state: diagonal)
    _, info = guard.step(objective, objective.parameters())
    assert info.details["sharpness"] == pytest.approx((H / diagonal).max(), rel=1e-6)

    class Scaled(Optimizer):
        def _propose(self, start):
            return Proposal(-1.5 * start.gradient / diagonal)

    _, info = EdgeOfStabilityGuard(Scaled(), safety=1.0, num_steps=20, preconditioner=lambda state: diagonal).step(objective, np.ones(40))
    assert info.details["threshold"] == pytest.approx(2 / 1.5, rel=1e-6)


def test_adahessian_says_what_it_divides_by():
    """On a diagonal quadratic its estimate is exact, so that the curvature in its metric is h / (h + eps)."""
    _, objective = of_quadratic()
    method = EdgeOfStabilityGuard(ls.optim.AdaHessian(learning_rate=60.0, eps=0.5, spatial_average=False), num_steps=20)
    _, info = method.step(objective, objective.parameters())
    assert info.details["sharpness"] == pytest.approx(2.0 / 2.5, rel=1e-9) and info.details["threshold"] == pytest.approx(38 / 60)
    assert info.details["scaled"] == pytest.approx(0.95 * 38 / 60 / 0.8, rel=1e-6)


def test_sophia_is_judged_by_its_step():
    _, objective = of_quadratic()
    method = EdgeOfStabilityGuard(ls.optim.Sophia(learning_rate=0.1, estimator="hutchinson"), num_steps=20)
    _, info = method.step(objective, objective.parameters())
    assert info.details["sharpness"] == pytest.approx(2.0, rel=1e-6)


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make, words", [
    (lambda m: "sgd", "but must be a method of linop_spectra.optim"), (lambda m: torch.optim.SGD, "call it first"),
    (lambda m: m, "torch.optim.Optimizer"), (lambda m: torch.optim.LBFGS(m.parameters()), "asks for closure"),
    (lambda m: torch.optim.SparseAdam(m.parameters()), "sparse"),
    (lambda m: ls.optim.torch_optimizer(ls.optim.LanczosNewton(), m, "mse"), "asks for batch"),
])  # fmt: skip
def test_what_is_no_optimiser_is_refused(make, words):
    model, _ = network()
    with pytest.raises(TypeError, match=words):
        as_optimizer(make(model))
    with pytest.raises(TypeError, match=f"The argument base cannot be guarded. .*{words}"):
        EdgeOfStabilityGuard(make(model))


def test_ascent_is_refused():
    model, _ = network()
    with pytest.raises(ValueError, match="maximize=True"):
        as_optimizer(torch.optim.SGD(model.parameters(), lr=0.1, maximize=True))


def test_methods_of_this_library_are_returned():
    method = ls.optim.HeavyBall(learning_rate=0.1)
    assert as_optimizer(method) is method


def test_state_of_another_optimiser_is_refused(tmp_path):
    model, data = network()
    objective = ls.objective(model, "cross_entropy", data)
    method = as_optimizer(torch.optim.Adam(model.parameters()))
    method.step(objective, objective.parameters())
    method.save(tmp_path / "state.npz")
    with pytest.raises(ValueError, match="'Adam' there, 'SGD' here"):
        as_optimizer(torch.optim.SGD(model.parameters(), lr=0.1)).restore(tmp_path / "state.npz")


def test_a_random_subspace_has_no_parameters_of_a_model():
    model, data = network()
    objective = ls.objective(model, "cross_entropy", data)
    method = ls.optim.RandomSubspace(as_optimizer(torch.optim.Adam(model.parameters())), dimension=3)
    with pytest.raises(TypeError, match="none of a torch model"):
        method.step(objective, objective.parameters())


# -- optax -------------------------------------------------------------------------------------------------------------

_RNG = np.random.default_rng(0)
X, Y = _RNG.standard_normal((24, 4)), _RNG.integers(0, 3, 24)
WEIGHTS = [_RNG.standard_normal(shape) / 2 for shape in [(4, 5), 5, (5, 3), 3]]


@pytest.fixture
def jax():
    yield from in_double_precision()


def in_double_precision():
    jax = pytest.importorskip("jax")
    settings = {"jax_enable_x64": True, "jax_disable_most_optimizations": True}  # the second compiles quickly
    before = {name: jax.config.values[name] for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield jax
    for name, value in before.items():
        jax.config.update(name, value)


@functools.cache  # one compilation for all of these tests
def in_jax(jax):
    jnp = jax.numpy
    params = {"in": {"w": jnp.asarray(WEIGHTS[0]), "b": jnp.asarray(WEIGHTS[1])}, "out": [jnp.asarray(w) for w in WEIGHTS[2:]]}

    def apply(p, x):
        return jnp.tanh(x @ p["in"]["w"] + p["in"]["b"]) @ p["out"][0] + p["out"][1]

    def loss(p):
        return -jnp.take_along_axis(jax.nn.log_softmax(apply(p, X)), jnp.asarray(Y)[:, None], 1).mean()

    return params, loss, ls.objective(apply, "cross_entropy", (X, Y), params=params)


MASK = {"in": {"w": True, "b": False}, "out": [True, False]}
OPTAX = {
    "adam": lambda o: o.adam(0.01),
    "clipped": lambda o: o.chain(o.clip_by_global_norm(0.3), o.sgd(0.1, momentum=0.9)),
    "injected": lambda o: o.inject_hyperparams(o.adam)(learning_rate=o.linear_schedule(0.1, 0.01, 6)),
    "masked": lambda o: o.adamw(0.01, weight_decay=0.2, mask=MASK),
    "noisy": lambda o: o.chain(o.add_noise(0.1, 0.5, 0), o.sgd(0.1)),
    "asks for the loss": lambda o: o.polyak_sgd(),
    "narrow": lambda o: o.adam(0.01, mu_dtype="bfloat16"),
}


@pytest.mark.parametrize("name", OPTAX)
def test_steps_are_those_of_optax(jax, name, tmp_path):
    optax = pytest.importorskip("optax")
    params, loss, objective = in_jax(jax)
    native = OPTAX[name](optax)
    theta, infos = run(as_optimizer(native), objective, 6)
    state, here, update, slope = native.init(params), params, jax.jit(native.update), jax.jit(jax.value_and_grad(loss))
    for _ in range(6):
        value, gradient = slope(here)
        extra = {"value": value, "grad": gradient} if isinstance(native, optax.GradientTransformationExtraArgs) else {}
        updates, state = update(gradient, state, here, **extra)
        here = optax.apply_updates(here, updates)
    tolerance = 1e-3 if name == "narrow" else 1e-12  # the mean is rounded to 8 bits, wherever rounding differs in the last one of 53
    np.testing.assert_allclose(theta, objective.flatten(here), rtol=tolerance, atol=tolerance)
    assert infos[2].learning_rate == pytest.approx(0.1 - 2 * 0.015) if name == "injected" else math.isnan(infos[2].learning_rate)
    assert resumed_is_identical(lambda: as_optimizer(native), [objective] * 6, tmp_path)


def test_guarded_optax(jax):
    optax = pytest.importorskip("optax")
    params, loss, objective = in_jax(jax)
    from jax.flatten_util import ravel_pytree

    flat, unravel = ravel_pytree(params)
    hessian = np.asarray(jax.jit(jax.hessian(lambda v: loss(unravel(v))))(flat))
    order = np.asarray(ravel_pytree(params)[0])
    np.testing.assert_array_equal(order, objective.parameters())
    known = {
        "sgd": (optax.inject_hyperparams(optax.sgd)(learning_rate=0.1), 2.0),
        "heavy ball": (optax.inject_hyperparams(optax.sgd)(learning_rate=0.1, momentum=0.9), 3.8),
        "Nesterov": (optax.inject_hyperparams(optax.sgd)(learning_rate=0.1, momentum=0.9, nesterov=True), 3.8 / 2.8),
    }
    for native, constant in known.values():
        _, infos = run(EdgeOfStabilityGuard(native, num_steps=30), objective, 2)
        assert infos[0].details["sharpness"] == pytest.approx(np.linalg.eigvalsh(hessian)[-1], rel=1e-6)
        assert infos[-1].details["threshold"] == pytest.approx(constant / 0.1, rel=1e-6)
    native = optax.inject_hyperparams(optax.adamw)(learning_rate=0.01, eps=1e-3, weight_decay=0.1, mask=None)
    _, info = EdgeOfStabilityGuard(native, num_steps=30).step(objective, objective.parameters())
    root = np.sqrt(np.abs(objective.gradient()) + 1e-3)  # the root of the corrected second moments, after one step
    assert info.details["sharpness"] == pytest.approx(np.linalg.eigvalsh(hessian / np.outer(root, root))[-1], rel=1e-6)
    assert info.details["threshold"] == pytest.approx(3800, rel=1e-6)
    # What is not known is judged by the step: here a hundred times too long.
    _, info = EdgeOfStabilityGuard(optax.sgd(200.0), num_steps=30).step(objective, objective.parameters())
    assert info.details["threshold"] == pytest.approx(2 / 200, rel=1e-6) and info.actual_decrease > 0


def test_metric_that_changes_between_checks(jax):
    """What is chained behind hides Adam in some steps: the sharpness of the other metric is not used for them."""
    optax = pytest.importorskip("optax")
    _, _, objective = in_jax(jax)
    adam = optax.inject_hyperparams(optax.adam)(learning_rate=0.01)
    native = optax.chain(adam, optax.scale_by_schedule(lambda count: jax.numpy.where(count % 4 < 2, 1.0, 0.5)))
    method = EdgeOfStabilityGuard(native, refresh_every=100, num_steps=30)
    _, infos = run(method, objective, 12)
    kinds = [info.details["threshold"] == pytest.approx(3800, rel=1e-5) for info in infos]
    assert any(kinds) and not all(kinds)
    for before, after, info in zip(kinds, kinds[1:], infos[1:], strict=False):
        assert info.refreshed is (before != after)


def test_optax_face_and_wrong_frameworks(jax):
    optax = pytest.importorskip("optax")
    params, _, objective = in_jax(jax)
    with pytest.raises(TypeError, match="linesearch=None"):
        as_optimizer(optax.lbfgs()).step(objective, objective.parameters())
    model, data = network()
    in_torch = ls.objective(model, "cross_entropy", data)
    with pytest.raises(TypeError, match="none of JAX"):
        as_optimizer(optax.adam(0.1)).step(in_torch, in_torch.parameters())
    with pytest.raises(TypeError, match="none of a torch model"):
        as_optimizer(torch.optim.Adam(model.parameters())).step(objective, objective.parameters())
    whole, _ = run(as_optimizer(optax.adam(0.01)), objective, 3)
    apply = objective.functions._model.build(objective.point.leaves, ()).func
    face = ls.optim.optax_transformation(as_optimizer(optax.adam(0.01)), apply, "cross_entropy")
    state = face.init(params)
    for _ in range(3):
        updates, state = face.update(None, state, params, data=(X, Y))
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(objective.flatten(params), whole, rtol=1e-14, atol=1e-15)
    inside = ls.optim.RandomSubspace(as_optimizer(optax.adam(0.01)), dimension=5)
    assert run(inside, objective, 3)[1][-1].actual_decrease > 0


# -- Keras -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def keras():
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "jax":
        yield keras
        return
    for _ in in_double_precision():
        yield keras


@functools.cache  # one tracing for all of these tests
def built_in_keras(keras, constrained):
    layers, constraint = keras.layers, keras.constraints.MaxNorm(0.8) if constrained else None
    model = keras.Sequential([
        keras.Input((4,), dtype="float64"), layers.Dense(5, "tanh", dtype="float64", kernel_constraint=constraint),
        layers.Dense(3, dtype="float64"),
    ])  # fmt: skip
    model.set_weights(WEIGHTS)
    return model, ls.objective(model, "cross_entropy", (X, Y))


def in_keras(keras, constrained=False):
    model, objective = built_in_keras(keras, constrained)
    model.set_weights(WEIGHTS)
    return model, objective


def keras_steps(model, objective, optimizer, steps):
    """Natively, with the objective's gradient at the model's weights."""
    for _ in range(steps):
        gradients = objective.unflatten(objective.with_parameters(model.get_weights()).gradient())
        names = {v.path.partition("/")[2]: v for v in model.trainable_variables}
        optimizer.apply(list(gradients.values()), [names[name] for name in gradients])
    return objective.with_parameters(model.get_weights()).parameters()


def without_biases(optimizer):
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


KERAS = {
    "Nesterov": lambda k: k.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "Adam": lambda k: k.optimizers.Adam(0.01, amsgrad=True),
    "AdamW": lambda k: without_biases(k.optimizers.AdamW(0.01, weight_decay=0.2, clipnorm=0.5)),
    "schedule": lambda k: k.optimizers.RMSprop(k.optimizers.schedules.ExponentialDecay(0.01, 2, 0.5)),
    "accumulated": lambda k: k.optimizers.Adam(0.01, gradient_accumulation_steps=2),
}


@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.parametrize("name", KERAS)
def test_steps_are_those_of_keras(keras, name, tmp_path):
    model, objective = in_keras(keras, constrained=True)
    native = KERAS[name](keras)
    theta, infos = run(as_optimizer(native), objective, 6)
    assert not native.built and int(native.iterations) == 0
    assert all((before == after).all() for before, after in zip(WEIGHTS, model.get_weights(), strict=True))
    rate = {"Nesterov": 0.1, "schedule": 0.01 * 0.5 ** (5 / 2)}.get(name, 0.01)
    assert infos[-1].learning_rate == pytest.approx(rate, rel=1e-6)
    assert resumed_is_identical(lambda: as_optimizer(KERAS[name](keras)), [objective] * 6, tmp_path)
    np.testing.assert_allclose(theta, keras_steps(model, objective, KERAS[name](keras), 6), rtol=1e-13, atol=1e-14)


@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_keras_optimiser_that_has_a_state_and_another_learning_rate(keras):
    model, start = in_keras(keras)
    optimizer = keras.optimizers.Adam(0.01)
    keras_steps(model, start, optimizer, 3)
    objective = ls.objective(model, "cross_entropy", (X, Y))
    method = as_optimizer(optimizer)
    theta, _ = method.step(objective, objective.parameters())
    optimizer.learning_rate = 0.05
    theta, info = method.step(objective, theta)
    assert info.learning_rate == pytest.approx(0.05) and int(optimizer.iterations) == 3
    optimizer.learning_rate = 0.01
    keras_steps(model, start, optimizer, 1)
    optimizer.learning_rate = 0.05
    np.testing.assert_allclose(theta, keras_steps(model, start, optimizer, 1), rtol=1e-13, atol=1e-14)
    _, elsewhere = in_keras(keras)
    with pytest.raises(ValueError, match="built for other variables"):
        as_optimizer(keras_other(keras)).step(elsewhere, elsewhere.parameters())


@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_variables_that_do_not_decay(keras):
    model, objective = in_keras(keras)
    optimizers = [keras.optimizers.AdamW(0.01, weight_decay=5.0) for _ in range(2)]
    for optimizer in optimizers:
        optimizer.exclude_from_weight_decay(var_list=[model.trainable_variables[2]])
    theta, _ = run(as_optimizer(optimizers[0]), objective, 3)
    np.testing.assert_allclose(theta, keras_steps(model, objective, optimizers[1], 3), rtol=1e-13, atol=1e-14)


def keras_other(keras):
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build([keras.Variable(np.ones(3))])
    return optimizer


@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_guarded_keras(keras):
    _, objective = in_keras(keras)
    hessian = objective.hessian().to_dense()
    for native, constant in [(keras.optimizers.SGD(0.1), 2.0), (KERAS["Nesterov"](keras), 3.8 / 2.8)]:
        _, info = EdgeOfStabilityGuard(native, num_steps=30).step(objective, objective.parameters())
        assert info.details["sharpness"] == pytest.approx(np.linalg.eigvalsh(hessian)[-1], rel=1e-6)
        assert info.details["threshold"] == pytest.approx(constant / 0.1, rel=1e-6)
    native = keras.optimizers.AdamW(0.01, epsilon=1e-3)
    _, info = EdgeOfStabilityGuard(native, num_steps=30).step(objective, objective.parameters())
    root = np.sqrt(np.abs(objective.gradient()) + 1e-3 / math.sqrt(1 - 0.999))  # Keras adds epsilon before it corrects
    assert info.details["sharpness"] == pytest.approx(np.linalg.eigvalsh(hessian / np.outer(root, root))[-1], rel=1e-6)
    assert info.details["threshold"] == pytest.approx(3800, rel=1e-6)


@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_keras_optimiser_on_a_torch_model_and_in_a_keras_loop(keras):
    """Its rule needs no model of Keras; and the training step of a Keras model takes it like any method."""
    torch_model, data = network()
    objective = ls.objective(torch_model, "cross_entropy", data)
    theta, _ = run(as_optimizer(keras.optimizers.SGD(0.125, momentum=0.5)), objective, 4)  # both are numbers of single precision
    expected, _ = run(ls.optim.HeavyBall(learning_rate=0.125, momentum=0.5), objective, 4)
    np.testing.assert_allclose(theta, expected, rtol=1e-13, atol=1e-14)
    model, here = in_keras(keras)
    train_step = ls.optim.keras_train_step(as_optimizer(keras.optimizers.Adam(0.01)), model, "cross_entropy")
    for _ in range(3):
        train_step((X, Y))
    theta, _ = run(as_optimizer(keras.optimizers.Adam(0.01)), here, 3)
    np.testing.assert_allclose(theta, ls.objective(model, "cross_entropy", (X, Y)).parameters(), rtol=1e-14, atol=1e-15)
