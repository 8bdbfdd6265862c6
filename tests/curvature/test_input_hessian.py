"""Hessians with respect to inputs and activations."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dense_torch import CASES, assert_close, case, classifier, to_dense  # noqa: E402
from torch.func import functional_call, jacrev  # noqa: E402

import linop_spectra as ls  # noqa: E402

nn = torch.nn


def second_derivative(function, at):
    """Dense Hessian in a tensor, flattened."""
    flat = jacrev(jacrev(lambda x: function(x.view(at.shape))))(at.reshape(-1).clone())
    return flat.detach().numpy()


@pytest.mark.parametrize("name", CASES)
def test_inputs_against_dense(name):
    objective, dense = case(name)
    operator = objective.input_hessian()
    expected = second_derivative(lambda x: dense.sum_loss(dense.model(x), dense.targets) / dense.terms, dense.inputs)
    assert_close(operator, expected)
    assert operator.batches[0] == slice(0, dense.inputs[:4].numel())
    assert ls.check_operator(operator).passed
    # Examples do not interact.
    each = dense.inputs[0].numel()
    outside = np.kron(np.eye(len(dense.inputs)), np.ones((each, each))) == 0
    np.testing.assert_array_equal(to_dense(operator)[outside], 0)


def test_weight_decay_has_no_part():
    plain, _ = case("masked")
    decayed, _ = case("masked", weight_decay=0.5)
    np.testing.assert_array_equal(to_dense(plain.input_hessian()), to_dense(decayed.input_hessian()))


def test_batch_statistics_couple_examples():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).double().train()
    x, y = torch.randn(6, 3).double(), torch.randint(0, 2, (6,))
    state = {k: v.clone() for k, v in model.state_dict().items()}
    operator = ls.objective(model, "cross_entropy", (x, y), batch_norm="train").input_hessian()
    matrix = to_dense(operator)
    assert abs(matrix[:3, 3:]).max() > 1e-4
    buffers = {k: v.clone() for k, v in state.items()}
    expected = second_derivative(
        lambda inputs: nn.functional.cross_entropy(functional_call(model, {k: v.clone() for k, v in buffers.items()}, (inputs,)), y), x
    )
    np.testing.assert_allclose(matrix, expected, atol=1e-12)
    assert ls.check_operator(operator).passed
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_several_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.mix = nn.Embedding(5, 2), nn.Linear(2, 2)

        def forward(self, tokens, x):
            return self.mix(torch.tanh(self.embed(tokens)) * torch.sin(x))

    torch.manual_seed(0)
    model = Two().double()
    tokens, x, y = torch.randint(0, 5, (5,)), torch.randn(5, 2).double(), torch.randint(0, 2, (5,))
    objective = ls.objective(model, "cross_entropy", [((tokens[:3], x[:3]), y[:3]), ((tokens[3:], x[3:]), y[3:])])
    operator = objective.input_hessian()
    assert_close(operator, second_derivative(lambda z: nn.functional.cross_entropy(model(tokens, z), y), x))
    pieces = operator.unflatten(np.arange(10.0))
    assert [list(piece) for piece in pieces] == [["inputs.1"], ["inputs.1"]]
    np.testing.assert_array_equal(pieces[1]["inputs.1"].numpy(), np.arange(6.0, 10.0).reshape(2, 2))

    class Named(Two):
        def forward(self, *, tokens, x):
            return super().forward(tokens, x)

    named = Named().double()
    named.load_state_dict(model.state_dict())
    again = ls.objective(named, "cross_entropy", [({"tokens": tokens, "x": x}, y)])
    assert_close(again.input_hessian(), to_dense(operator))


def test_a_first_layer_that_works_in_place():
    torch.manual_seed(0)
    model = nn.Sequential(nn.SiLU(inplace=True), nn.Linear(3, 2)).double()
    x, y = torch.randn(4, 3).double(), torch.randint(0, 2, (4,))
    before = x.clone()
    operator = ls.objective(model, "cross_entropy", (x, y)).input_hessian()
    plain = nn.Sequential(nn.SiLU(), model[1])
    assert_close(operator, second_derivative(lambda z: nn.functional.cross_entropy(plain(z), y), before))


@pytest.mark.parametrize("layer", ["0", "1", "2"])
def test_activations_against_dense(layer):
    torch.manual_seed(0)
    model = classifier()
    x, y = torch.randn(7, 4).double(), torch.randint(0, 3, (7,))
    objective = ls.objective(model, "cross_entropy", (x, y), batch_size=3)
    cut = int(layer) + 1
    activations = model[:cut](x).detach()
    operator = objective.activation_hessian(layer)
    assert_close(operator, second_derivative(lambda a: nn.functional.cross_entropy(model[cut:](a), y), activations))
    assert ls.check_operator(operator).passed
    assert [list(piece) for piece in operator.unflatten(np.zeros(operator.shape[0]))] == [[layer]] * 3


def test_activations_with_a_batch_loss_and_a_residual_connection():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.last = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x):
            x = torch.tanh(self.first(x))
            return self.last(x + torch.tanh(self.second(x)))

    torch.manual_seed(0)
    model, x = Residual().double(), torch.randn(4, 3).double()
    loss = ls.BatchLoss(lambda module, batch: (module(batch).pow(4).sum(), 2 * len(batch)))
    operator = ls.objective(model, loss, [x]).activation_hessian("second")
    h = torch.tanh(model.first(x)).detach()
    at = model.second(h).detach()
    assert_close(operator, second_derivative(lambda a: model.last(h + torch.tanh(a)).pow(4).sum() / 8, at))
    with pytest.raises(TypeError, match="BatchLoss does not say which arrays are inputs"):
        ls.objective(model, loss, [x]).input_hessian()


def test_modules_that_cannot_be_changed():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.lstm, self.spare = nn.Linear(3, 3), nn.LSTM(3, 2, batch_first=True), nn.Linear(1, 1)
            self.spare.requires_grad_(False)

        def forward(self, x):
            return self.lstm(self.layer(self.layer(x)))[0][:, -1]

    torch.manual_seed(0)
    objective = ls.objective(Twice().double(), "mse", (torch.randn(4, 5, 3), torch.randn(4, 2)))
    with pytest.raises(TypeError, match="'layer' runs 2 times"):
        objective.activation_hessian("layer")
    with pytest.raises(TypeError, match="'lstm' gives a tuple"):
        objective.activation_hessian("lstm")
    with pytest.raises(TypeError, match="'spare' runs 0 times"):
        objective.activation_hessian("spare")
    for name in ("none", ""):
        with pytest.raises(ValueError, match="no module of the model; there are 'layer'"):
            objective.activation_hessian(name)
    assert ls.check_operator(objective.input_hessian()).passed
    data = torch.zeros(3, 2, dtype=int), torch.ones(3, dtype=int)
    tokens = ls.objective(nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 2)), "cross_entropy", data)
    with pytest.raises(TypeError, match=r"torch\.int64.*activation_hessian"):
        tokens.input_hessian()
    assert tokens.activation_hessian("0").shape == (18, 18)


def test_masked_batches_and_scarce_memory():
    """A batch without a single term is zero, and the budget is shared."""
    model = classifier()
    torch.manual_seed(0)
    x, y = torch.randn(8, 4).double(), torch.randint(0, 3, (8,))
    y[:4] = -100
    whole = ls.objective(model, "cross_entropy", (x, y), batch_size=8)
    parts = ls.objective(model, "cross_entropy", [(x[:4], y[:4]), (x[4:], y[4:])], memory_budget=3000)
    assert_close(parts.input_hessian(), to_dense(whole.input_hessian()))
    np.testing.assert_array_equal(to_dense(parts.input_hessian())[:16], 0)
    assert "0 of 1 batches are kept" in parts.input_hessian().engine
    assert "all 1 batches are kept" in whole.input_hessian().engine


def test_nothing_of_the_model_changes():
    model = classifier()
    hooks = [len(module._forward_hooks) for module in model.modules()]
    objective = ls.objective(model, "cross_entropy", (torch.randn(5, 4), torch.randint(0, 3, (5,))))
    gradient = objective.gradient()
    objective.activation_hessian("1").to_dense()
    objective.input_hessian().to_dense()
    assert hooks == [len(module._forward_hooks) for module in model.modules()]
    np.testing.assert_array_equal(gradient, objective.gradient())
