"""What AdaHessian, Sophia and KFAC do with data and models that are not as they should be, and how their states are kept."""

import numpy as np
import pytest
from newton_objectives import function_of, network, other_data, same_after_restoring, torch

import linop_spectra as ls
from linop_spectra.optim.preconditioned.adahessian import AdaHessian
from linop_spectra.optim.preconditioned.kronecker import KFAC
from linop_spectra.optim.preconditioned.sophia import Sophia

nn = torch.nn
SOPHIA = {"learning_rate": 0.02, "refresh_every": 2, "betas": (0.9, 0.5), "gamma": 2.0}  # some entries are clipped, some are not
METHODS = {
    "adahessian": lambda **options: AdaHessian(**{"learning_rate": 0.02, "refresh_every": 2, "num_samples": 2, **options}),
    "sophia gnb": lambda **options: Sophia(**{**SOPHIA, **options}),
    "sophia hutchinson": lambda **options: Sophia(**{**SOPHIA, "estimator": "hutchinson", **options}),
    "kfac": lambda **options: KFAC(**{"factors_every": 2, "inverse_every": 2, **options}),
    "kfac fitted": lambda **options: KFAC(
        **{"momentum": "fitted", "rescale": True, "adapt_damping": True, "adapt_every": 2, "factored_damping": True, **options}
    ),
    "ekfac": lambda **options: KFAC(**{"kind": "ekfac", "inverse_every": 1, "damping": 0.01, **options}),
}  # fmt: skip
every_method = pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)


@every_method
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_restored_run_goes_on_bit_identically(make, dtype, tmp_path):
    assert same_after_restoring(make, network(dtype), tmp_path, steps=10)


@every_method
def test_the_loss_falls_and_single_precision_does_the_same(make):
    ends = {}
    for dtype in (np.float32, np.float64):
        objective, method = network(dtype), make()
        theta = objective.parameters()
        for _ in range(5):
            theta, info = method.step(objective, theta)
            assert theta.dtype == dtype and info.accepted
        ends[dtype] = theta
        assert objective.with_parameters(theta).value() < objective.value()
    np.testing.assert_allclose(ends[np.float32], ends[np.float64], rtol=0, atol=5e-3)


@every_method
def test_curvature_of_other_data_and_batches_of_any_size(make):
    objective, method = network(), make()
    theta = objective.parameters()
    x, y = other_data(60)
    for size in (7, 1, 30, 2):
        batch, wide = objective.with_data((x[:size], y[:size])), objective.with_data((x[30:], y[30:]))
        theta, info = method.step(batch, theta, curvature=wide)
        assert info.accepted and info.loss > 0
    if getattr(method, "estimator", "") == "gnb":  # squares are of whole batches
        return
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=25)  # 25, 25, 10
    whole = make().step(objective.with_data((x, y)), theta)[0]
    np.testing.assert_allclose(make().step(objective.with_data(loader), theta)[0], whole, rtol=1e-9, atol=1e-12)


@every_method
def test_curvature_is_measured_on_the_data_that_is_given_for_it(make):
    objective = network()
    wide = objective.with_data(other_data(50))
    theta = objective.parameters()
    alone, other = make().step(objective, theta)[0], make().step(objective, theta, curvature=wide)[0]
    assert (alone != other).any()
    np.testing.assert_array_equal(make().step(objective, theta, curvature=objective)[0], alone)


@every_method
def test_a_zero_gradient_gives_a_zero_step(make):
    model = nn.Linear(3, 2).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    data = torch.randn(12, 3).double(), torch.zeros(12, 2).double()
    objective, method = ls.objective(model, "mse", data), make()
    for _ in range(2):
        theta, info = method.step(objective, objective.parameters())
        assert info.accepted and info.gradient_norm == 0 and info.step_norm == 0 and not theta.any()
        assert "gradient is zero" in info.message


@every_method
def test_a_loss_that_is_not_finite_rejects_the_step_and_keeps_the_means(make):
    model = nn.Linear(3, 2).double()
    objective = ls.objective(model, "mse", (torch.randn(12, 3).double(), torch.randn(12, 2).double()))
    method = make(norm_constraint=None) if isinstance(make(), KFAC) else make()
    theta, _ = method.step(objective, objective.parameters())
    kept = {name: value for name, value in method.state.items() if name != "damping"}
    rate, method.learning_rate = method.learning_rate, 1e300
    after, info = method.step(objective, theta)
    assert not info.accepted and "not finite" in info.message and info.step_norm == 0
    np.testing.assert_array_equal(after, theta)
    assert all(method.state[name] is value for name, value in kept.items()) and method.steps_taken == 2
    method.learning_rate = rate
    assert method.step(objective, theta)[1].accepted


@every_method
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_start_that_is_not_finite_is_said(make, bad):
    objective, method = network(), make()
    theta, _ = method.step(objective, objective.parameters())
    kept = dict(method.state)
    with pytest.raises(FloatingPointError):
        method.step(objective, np.full_like(theta, bad))
    assert all(method.state[name] is value for name, value in kept.items())


@every_method
def test_data_that_are_not_finite_are_said(make):
    objective, method = network(), make()
    x, y = other_data(10)
    x[3, 1] = np.nan
    with pytest.raises(ValueError, match="finite"):
        method.step(objective, objective.parameters(), curvature=objective.with_data((x, y)))
    with pytest.raises(FloatingPointError):
        method.step(objective.with_data((x, y)), objective.parameters())
    assert method.steps_taken == 0 and set(method.state) <= {"num_parameters"}


@every_method
def test_another_number_of_parameters_is_refused(make, tmp_path):
    objective, method = network(), make()
    method.step(objective, objective.parameters())
    method.save(tmp_path / "state.npz")
    again = make()
    again.restore(tmp_path / "state.npz")
    smaller = ls.objective(nn.Linear(3, 2).double(), "mse", (torch.randn(5, 3).double(), torch.randn(5, 2).double()))
    for one in (method, again):
        with pytest.raises(ValueError, match="state belongs to 43 parameters, but the objective has 8"):
            one.step(smaller, smaller.parameters())
    with pytest.raises(ValueError, match="other settings: learning_rate"):
        make(learning_rate=0.017).restore(tmp_path / "state.npz")


@every_method
def test_batch_normalisation_dropout_and_masks_leave_the_model_as_it_was(make):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(27, 3))
    with torch.no_grad():
        model[1].running_mean.add_(0.3)
    model.train()
    y = torch.tensor([0, 1, 2, -100, 1, 0, -100, 2])
    x = torch.randn(8, 1, 5, 5)
    with pytest.raises(ValueError, match="Dropout"):
        ls.objective(model, "cross_entropy", (x, y), batch_norm="eval")
    model[4].eval()
    with pytest.raises(ValueError, match="batch_norm"):
        ls.objective(model, "cross_entropy", (x, y))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes, state = [module.training for module in model.modules()], torch.get_rng_state()
    objective, method = ls.objective(model, "cross_entropy", (x, y), batch_norm="eval"), make()
    theta = objective.parameters()
    for _ in range(3):
        theta, info = method.step(objective, theta)
        assert info.accepted
    assert all((before[name] == value).all() for name, value in model.state_dict().items())
    assert modes == [module.training for module in model.modules()] and (torch.get_rng_state() == state).all()
    assert all(parameter.grad is None for parameter in model.parameters())
    # What is masked has no part.
    alive = ls.objective(model, "cross_entropy", (x[y >= 0], y[y >= 0]), batch_norm="eval")
    if isinstance(method, AdaHessian):  # the others draw targets
        np.testing.assert_allclose(make().step(alive, alive.parameters())[0], make().step(objective, alive.parameters())[0], atol=1e-6)


@every_method
def test_tied_parameters(make):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, tokens):
            return self.head(torch.tanh(self.embedding(tokens))).transpose(1, 2)

    torch.manual_seed(1)
    tokens = torch.randint(0, 6, (8, 5))
    objective, method = ls.objective(Tied().double(), "cross_entropy", (tokens, tokens.roll(1, 1))), make()
    theta = objective.parameters()
    for _ in range(4):
        theta, info = method.step(objective, theta)
    assert objective.num_parameters == 24 and info.accepted and info.loss < objective.value()


def test_what_the_loss_does_not_show_is_said_with_the_way_out():
    alone = function_of(lambda x: (x**2).sum(), np.ones(3))
    with pytest.raises(TypeError, match="pass estimator='hutchinson'"):
        Sophia().step(alone, alone.parameters())
    assert Sophia(estimator="hutchinson").step(alone, alone.parameters())[1].accepted
    with pytest.raises(TypeError, match="outputs"):
        KFAC().step(alone, alone.parameters())
    data = torch.randn(5, 2), torch.randn(5, 1)
    smooth = ls.objective(nn.Linear(2, 1), lambda outputs, targets: torch.log(torch.cosh(outputs - targets)).mean(), data)
    with pytest.raises(TypeError, match="pass fisher='exact'"):
        KFAC().step(smooth, smooth.parameters())
    assert KFAC(fisher="exact").step(smooth, smooth.parameters())[1].accepted


@every_method
def test_vectors_of_torch_as_on_a_device(make, tmp_path):
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 4), nn.LayerNorm(4), nn.Linear(4, 3)).double()
    data = torch.randn(30, 1, 4, 4).double(), torch.randint(0, 3, (30,))
    ends = []
    for backend in ("numpy", "torch"):
        objective = ls.objective(model, "cross_entropy", data, backend=backend)
        theta, method = objective.parameters(), make()
        for step in range(5):
            if step == 3:
                method.save(tmp_path / "state.npz")
                method = make()
                method.restore(tmp_path / "state.npz")
            theta, _ = method.step(objective, theta)
        assert isinstance(theta, torch.Tensor) == (backend == "torch")
        ends.append(np.asarray(theta))
    np.testing.assert_allclose(*ends, rtol=1e-8, atol=1e-10)
