"""KFAC and EKFAC as optimisers against least squares, dense Gauss-Newton matrices and moving averages in NumPy."""


import numpy as np
import pytest
from newton_objectives import network, other_data, torch

import linop_spectra as ls
from linop_spectra.approximations import approximate
from linop_spectra.optim.preconditioned.diagonal_curvature import seed_of_step
from linop_spectra.optim.preconditioned.kronecker import KFAC
from linop_spectra.optim.preconditioned.running_factors import blocks_of

nn = torch.nn
PLAIN = {"learning_rate": 1.0, "momentum": 0.0, "norm_constraint": None, "fisher": "exact"}


def linear(outputs=2, examples=20, bias=True, seed=0):
    """Linear regression in torch, and its data."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(examples, 4, generator=generator).double() * torch.tensor([1.0, 3.0, 0.2, 1.0]).double() + 0.5
    y = torch.randn(examples, outputs, generator=generator).double()
    return ls.objective(nn.Linear(4, outputs, bias=bias).double(), "mse", (x, y)), x.numpy(), y.numpy()


def deep(*layers, examples=13, loss="mse", seed=1):
    torch.manual_seed(seed)
    model = nn.Sequential(*(make() for make in layers)).double()
    return ls.objective(model, loss, (torch.randn(examples, 4).double(), torch.randn(examples, 2).double()))


def dense_blocks(objective, layers=("0", "1", "2")):
    """The Gauss-Newton matrix with zeros between layers."""
    matrix = np.asarray(objective.ggn().to_dense())
    kept = np.zeros_like(matrix)
    for layer in layers:
        places = [objective.blocks[name] for name in objective.blocks if name.startswith(f"{layer}.")]
        if places:
            index = np.concatenate([np.arange(place.start, place.stop) for place in places])
            kept[np.ix_(index, index)] = matrix[np.ix_(index, index)]
    return kept


def step_of(method, objective, **options):
    theta = objective.parameters()
    after, info = method.step(objective, theta, **options)
    return after - theta, info


# -- where it is exact -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["kfac", "ekfac"])
@pytest.mark.parametrize("bias", [True, False])
def test_one_undamped_step_solves_least_squares(kind, bias):
    objective, x, y = linear(bias=bias)
    theta, info = KFAC(damping=0.0, kind=kind, **PLAIN).step(objective, objective.parameters())
    inputs = np.hstack([x, np.ones((len(x), 1))]) if bias else x
    solution = np.linalg.lstsq(inputs, y, rcond=None)[0].T
    expected = np.concatenate([solution[:, :4].ravel(), solution[:, 4]]) if bias else solution.ravel()
    np.testing.assert_allclose(theta, expected, atol=1e-10)
    assert abs(objective.with_parameters(theta).gradient()).max() < 1e-12 and info.accepted


@pytest.mark.parametrize("kind", ["kfac", "ekfac"])
def test_deep_linear_networks_get_newtons_step_of_each_layer(kind):
    objective = deep(lambda: nn.Linear(4, 5), lambda: nn.Linear(5, 6, bias=False), lambda: nn.Linear(6, 2))
    step, info = step_of(KFAC(damping=0.03, kind=kind, **PLAIN), objective)
    expected = -np.linalg.solve(dense_blocks(objective) + 0.03 * np.eye(len(step)), objective.gradient())
    np.testing.assert_allclose(step, expected, rtol=1e-9, atol=1e-12)
    # Two outputs: two backward passes, twice with EKFAC.
    assert (info.num_gradients, info.num_matvecs, info.refreshed) == (3 if kind == "kfac" else 5, 0, True)


@pytest.mark.parametrize("kind", ["kfac", "ekfac"])
def test_one_example_gets_newtons_step_of_each_layer(kind):
    objective = deep(lambda: nn.Linear(4, 5), nn.Tanh, lambda: nn.Linear(5, 2), examples=1)
    step, _ = step_of(KFAC(damping=0.1, kind=kind, **PLAIN), objective)
    expected = -np.linalg.solve(dense_blocks(objective) + 0.1 * np.eye(len(step)), objective.gradient())
    np.testing.assert_allclose(step, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("factored", [False, True])
def test_a_large_damping_is_gradient_descent(factored):
    objective = network()
    step, _ = step_of(KFAC(damping=1e10, factored_damping=factored, **{**PLAIN, "learning_rate": 1e10}), objective)
    np.testing.assert_allclose(step, -objective.gradient(), rtol=1e-4 if factored else 1e-8)


@pytest.mark.parametrize("options", [{"kind": "kfac"}, {"kind": "ekfac"}, {"kind": "kfac", "sharing": "reduce"}])
@pytest.mark.parametrize("fisher", ["mc", "exact", "empirical"])
def test_the_first_step_is_that_of_the_approximation(options, fisher):
    objective = network()
    drawn = {"num_samples": 2} if fisher == "mc" else {}
    method = KFAC(**{**PLAIN, "fisher": fisher, "damping": 0.02, "learning_rate": 0.5, "seed": 7}, **options, **drawn)
    step, info = step_of(method, objective)
    seeds = {"seed": seed_of_step(7, 0), **drawn} if fisher == "mc" else {}
    sharing = {name: value for name, value in options.items() if name != "kind"}
    approximation = approximate(objective, options["kind"], fisher=fisher, **sharing, **seeds)
    np.testing.assert_allclose(step, -0.5 * approximation.solve(objective.gradient(), damping=0.02), rtol=1e-10)
    # The Hessian of cross-entropy with three classes has rank two.
    passes = {"mc": 2, "exact": 2, "empirical": 1}[fisher] * (2 if options["kind"] == "ekfac" else 1)
    assert info.num_gradients == 1 + passes and info.damping == 0.02 and info.learning_rate == 0.5


def test_damping_in_the_factors():
    objective = network()
    step, _ = step_of(KFAC(damping=0.02, factored_damping=True, **PLAIN), objective)
    expected = approximate(objective, "kfac").solve(objective.gradient(), damping=0.02, factored=True)
    np.testing.assert_allclose(step, -expected, rtol=1e-10)


@pytest.mark.parametrize("fisher", ["exact", "empirical"])
def test_weight_decay_of_the_loss_adds_to_the_damping_and_that_of_the_method_moves_the_parameters(fisher):
    model = nn.Linear(3, 2).double()
    data = torch.randn(9, 3).double(), torch.randn(9, 2).double()
    objective = ls.objective(model, "mse", data, weight_decay=0.4)
    step, _ = step_of(KFAC(**{**PLAIN, "fisher": fisher}, damping=0.1, weight_decay=0.2), objective)
    factors = approximate(ls.objective(model, "mse", data), "kfac", fisher=fisher)
    # No weight decay is in the empirical Fisher matrix.
    expected = -factors.solve(objective.gradient(), damping=0.1 + (0.4 if fisher == "exact" else 0.0)) - 0.2 * objective.parameters()
    np.testing.assert_allclose(step, expected, rtol=1e-9)


# -- moving averages ---------------------------------------------------------------------------------------------------


def batches(objective, count, size=10):
    x, y = other_data(count * size)
    return [objective.with_data((x[i * size : (i + 1) * size], y[i * size : (i + 1) * size])) for i in range(count)]


def dense_inverse(objective, factors, damping, vector):
    """By Kronecker products that are written out; a layer's bias is the last column of its matrix."""
    out = np.zeros_like(vector)
    for (rows, columns), (weight, bias) in zip(factors, (("0.weight", "0.bias"), ("2.weight", "2.bias")), strict=True):
        shape = len(rows), len(columns) - 1
        matrix = np.hstack([vector[objective.blocks[weight]].reshape(shape), vector[objective.blocks[bias]][:, None]])
        solved = np.linalg.solve(np.kron(rows, columns) + damping * np.eye(matrix.size), matrix.ravel()).reshape(matrix.shape)
        out[objective.blocks[weight]], out[objective.blocks[bias]] = solved[:, :-1].ravel(), solved[:, -1]
    return out


def test_moving_averages_and_stale_inverses_in_numpy():
    objective = network()
    method = KFAC(
        learning_rate=lambda step: 0.3 / (1 + step), momentum=0.8, damping=0.05, fisher="exact", factor_decay=0.6, factors_every=2,
        inverse_every=6, norm_constraint=None,
    )  # fmt: skip
    theta = expected = objective.parameters()
    factors = inverse_of = None
    last, updates, decomposed = np.zeros_like(theta), 0, []
    for t, batch in enumerate(batches(objective, 13)):
        theta, info = method.step(batch, theta)
        here = batch.with_parameters(expected)
        if t % 2 == 0:
            updates += 1
            decay = min(1 - 1 / updates, 0.6)
            fresh = [(layer.rows, layer.columns) for layer in approximate(here, "kfac").layers]
            factors = fresh if factors is None else [
                tuple(decay * old + (1 - decay) * new for old, new in zip(olds, news, strict=True))
                for olds, news in zip(factors, fresh, strict=True)
            ]  # fmt: skip
            if updates <= 3 or t - decomposed[-1] >= 6:
                inverse_of = factors
                decomposed.append(t)
        last = 0.8 * last - 0.3 / (1 + t) * dense_inverse(objective, inverse_of, 0.05, here.gradient())
        expected = expected + last
        np.testing.assert_allclose(theta, expected, rtol=1e-8, atol=1e-10)
        assert info.refreshed == (t % 2 == 0)
    assert decomposed == [0, 2, 4, 10]


def test_drawn_targets_are_others_in_every_step():
    objective = network()
    method = KFAC(momentum=0.0, learning_rate=1e-12, norm_constraint=None, factor_decay=0.0)
    theta, _ = method.step(objective, objective.parameters())
    first = method.state["0/rows"]
    method.step(objective, theta)
    assert abs(method.state["0/rows"] - first).max() > 1e-3 * abs(first).max()


def test_second_moments_come_over_to_new_eigenvectors_as_a_diagonal():
    objective = network()
    method = KFAC(kind="ekfac", **{**PLAIN, "learning_rate": 1e-9}, damping=0.1, factor_decay=0.7, inverse_every=2)
    theta = objective.parameters()
    for batch in batches(objective, 4):
        before = method.state
        theta, _ = method.step(batch, theta)
        if "0/eigenvalues" not in before:
            continue
        for i in range(2):
            old, new = ([state[f"{i}/{name} eigenvectors"] for name in ("rows", "columns")] for state in (before, method.state))
            u, w = np.kron(*old), np.kron(*new)
            carried = np.diag(w.T @ (u * before[f"{i}/eigenvalues"].ravel()) @ u.T @ w)
            decay = min(1 - 1 / method.state["factor_updates"], 0.7)
            # The fresh second moments are the diagonal of the layer's Gauss-Newton block in the new eigenvectors.
            places = method.state["order"][:25] if i == 0 else method.state["order"][25:]
            block = np.asarray(batch.ggn().to_dense())[np.ix_(places, places)]
            fresh = np.diag(w.T @ block @ w)
            np.testing.assert_allclose(
                method.state[f"{i}/eigenvalues"].ravel(), decay * carried + (1 - decay) * fresh, rtol=1e-5, atol=1e-9
            )
    assert [block.names for block in blocks_of(method.state)] == [["0.weight", "0.bias"], ["2.weight", "2.bias"]]


# -- length of the step ------------------------------------------------------------------------------------------------


def test_the_norm_constraint_bounds_what_the_predictions_change():
    objective = network()
    theta, gradient = objective.parameters(), objective.gradient()
    free, _ = step_of(KFAC(**{**PLAIN, "learning_rate": 0.5}, damping=0.01), objective)
    bound = {**PLAIN, "learning_rate": 0.5, "norm_constraint": 1e-3, "damping": 0.01}
    step, info = step_of(KFAC(**bound), objective)
    np.testing.assert_allclose(step, info.details["norm_scale"] * free, rtol=1e-12)
    matrix = np.asarray(approximate(objective, "kfac").to_dense()) + 0.01 * np.eye(len(theta))
    assert info.details["norm_scale"] < 1 and step @ matrix @ step == pytest.approx(1e-3, rel=1e-9)
    assert step @ gradient < 0
    loose, info = step_of(KFAC(**{**bound, "norm_constraint": 1e9}), objective)
    np.testing.assert_array_equal(loose, free)
    assert info.details["norm_scale"] == 1


def test_rescaling_by_the_exact_gauss_newton_matrix():
    objective = network()
    gradient, matrix = objective.gradient(), np.asarray(objective.ggn().to_dense())
    direction = -approximate(objective, "kfac").solve(gradient, damping=0.02)
    step, info = step_of(KFAC(**{**PLAIN, "learning_rate": 0.8}, damping=0.02, rescale=True), objective)
    alpha = -(gradient @ direction) / (direction @ matrix @ direction + 0.02 * direction @ direction)
    np.testing.assert_allclose(step, 0.8 * alpha * direction, rtol=1e-9)
    assert info.details["rescaling"] == pytest.approx(alpha) and info.num_matvecs == 1
    assert info.predicted_decrease == pytest.approx(-(gradient @ step + step @ matrix @ step / 2), rel=1e-9)
    bounded, info = step_of(KFAC(**{**PLAIN, "norm_constraint": 1e-3}, damping=0.02, rescale=True), objective)
    assert bounded @ matrix @ bounded + 0.02 * bounded @ bounded == pytest.approx(1e-3, rel=1e-9)
    assert info.predicted_decrease == pytest.approx(-(gradient @ bounded + bounded @ matrix @ bounded / 2), rel=1e-9)


def test_length_and_momentum_from_two_equations():
    objective = network()
    method = KFAC(**{**PLAIN, "momentum": "fitted"}, damping=0.05, rescale=True)
    theta, first = method.step(objective, objective.parameters())
    last = method.state["last_step"]
    here = objective.with_parameters(theta)
    after, info = method.step(objective, theta)
    assert (first.num_matvecs, info.num_matvecs) == (1, 2)
    gradient, matrix = here.gradient(), np.asarray(here.ggn().to_dense()) + 0.05 * np.eye(len(theta))
    factors = {i: (method.state[f"{i}/rows"], method.state[f"{i}/columns"]) for i in range(2)}
    direction = -dense_inverse(objective, factors.values(), 0.05, gradient)
    both = np.column_stack([direction, last])
    expected = both @ np.linalg.solve(both.T @ matrix @ both, -both.T @ gradient)
    np.testing.assert_allclose(after - theta, expected, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("momentum", [0.5, "fitted"])
def test_the_predicted_decrease_of_a_quadratic_is_the_actual_one(momentum):
    objective, _, _ = linear()
    method = KFAC(momentum=momentum, fisher="mc", damping=0.1, weight_decay=0.05, rescale=True, norm_constraint=0.1)
    theta = objective.parameters()
    for step in range(4):
        theta, info = method.step(objective, theta)
        assert info.ratio == pytest.approx(1.0, rel=1e-8) and info.num_matvecs == (2 if step == 0 else 3)


def test_damping_follows_the_reduction_ratio():
    objective, _, _ = linear()
    method = KFAC(**PLAIN, damping=2.0, adapt_damping=True, adapt_every=3)
    theta, found, products = objective.parameters(), [], []
    for _ in range(7):
        theta, info = method.step(objective, theta)
        found.append(info.damping)
        products.append(info.num_matvecs)
    lower = 2.0 * 0.95**3
    np.testing.assert_allclose(found, [2, 2, 2, lower, lower, lower, lower * 0.95**3], rtol=1e-14)
    assert products == [0, 0, 1, 0, 0, 1, 0]
    # The curvature of other, smaller inputs promises what the loss does not keep.
    tiny = objective.with_data((1e-3 * torch.randn(20, 4).double(), torch.randn(20, 2).double()))
    method = KFAC(**{**PLAIN, "learning_rate": 5.0}, damping=1.0, adapt_damping=True, adapt_every=1)
    _, info = method.step(objective, objective.parameters(), curvature=tiny)
    assert info.ratio < 0.25 and method.state["damping"] == pytest.approx(1 / 0.95)


def test_a_loss_that_is_not_finite_raises_the_damping_that_adapts():
    objective, _, _ = linear()
    method = KFAC(learning_rate=1e300, momentum=0.0, norm_constraint=None, adapt_damping=True, damping=0.1)
    theta = objective.parameters()
    after, info = method.step(objective, theta)
    assert not info.accepted and "not finite" in info.message and (after == theta).all()
    assert method.state["damping"] == pytest.approx(0.1 / 0.95**5) and "structure" not in method.state


# -- parameters without factors ----------------------------------------------------------------------------------------


def normalised(others):
    objective = deep(lambda: nn.Linear(4, 5), lambda: nn.LayerNorm(5), nn.Tanh, lambda: nn.Linear(5, 2), examples=1)
    return objective, KFAC(**PLAIN, damping=0.1, others=others)


def test_scales_of_normalisation_have_exact_blocks():
    objective, method = normalised("exact")
    step, info = step_of(method, objective)
    matrix = np.asarray(objective.ggn().to_dense())
    names = [("0.weight", "0.bias"), ("1.weight",), ("1.bias",), ("3.weight", "3.bias")]
    kept = np.zeros_like(matrix)
    for own in names:
        index = np.concatenate([np.arange(objective.blocks[name].start, objective.blocks[name].stop) for name in own])
        kept[np.ix_(index, index)] = matrix[np.ix_(index, index)]
    np.testing.assert_allclose(step, -np.linalg.solve(kept + 0.1 * np.eye(len(kept)), objective.gradient()), rtol=1e-9)
    kinds = {tuple(block.names): block.kind for block in blocks_of(method.state)}
    assert kinds == dict(zip(names, ["kronecker", "dense", "dense", "kronecker"], strict=True))
    assert info.num_matvecs == 10


def test_scales_of_normalisation_as_a_diagonal():
    objective, method = normalised("diagonal")
    step, info = step_of(method, objective)
    place = objective.blocks["1.weight"]
    diagonal = approximate(objective, "ggn_mc", each="batch", seed=seed_of_step(0, 0)).diagonal
    np.testing.assert_allclose(step[place], -objective.gradient()[place] / (diagonal[place] + 0.1), rtol=1e-10)
    assert info.num_matvecs == 0 and "diagonal" in {block.kind for block in blocks_of(method.state)}


@pytest.mark.parametrize(("width", "loss", "kind"), [(20, "mse", "dense"), (40, "mse", "diagonal"), (40, None, "dense")])
def test_many_scales_are_a_diagonal_unless_no_targets_can_be_drawn(width, loss, kind):
    def smooth(outputs, targets):
        return ((1 + (outputs - targets) ** 2) ** 0.5).mean()

    layers = lambda: nn.Linear(4, width), lambda: nn.LayerNorm(width), nn.Tanh, lambda: nn.Linear(width, 2)
    objective = deep(*layers, examples=3, loss=loss or smooth)
    method = KFAC(**PLAIN, damping=0.1)
    _, info = step_of(method, objective)
    assert {block.kind for block in blocks_of(method.state) if block.names[0].startswith("1.")} == {kind}
    assert info.num_matvecs == (0 if kind == "diagonal" else 2 * width)


def test_what_has_no_factors_and_is_too_large_is_refused():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.randn(40, 40))

        def forward(self, x):
            return (x @ torch.linalg.qr(self.table)[0])[:, :2]

    objective = ls.objective(Recurrent(), "mse", (torch.randn(3, 40), torch.randn(3, 2)))
    with pytest.raises(ValueError, match="'table' of 1,600 numbers"):
        KFAC().step(objective, objective.parameters())


def test_parameters_that_nothing_uses_stay():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(4, 2), nn.Linear(3, 3)

        def forward(self, x):
            return self.used(x)

    objective = ls.objective(Idle().double(), "mse", (torch.randn(9, 4).double(), torch.randn(9, 2).double()))
    with pytest.warns(UserWarning, match="does not depend on the parameters 'idle"):
        step, _ = step_of(KFAC(**PLAIN, damping=0.1), objective)
    assert not step[objective.blocks["idle.weight"]].any() and step[objective.blocks["used.weight"]].all()
    with pytest.raises(ValueError, match="damping is 0, but the block of 'idle"):
        KFAC(**PLAIN, damping=0.0).step(objective, objective.parameters())


def test_no_damping_needs_factors_of_full_rank():
    objective, _, _ = linear(examples=3)
    with pytest.raises(ValueError, match="block of 'weight', 'bias' has no inverse"):
        KFAC(**PLAIN, damping=0.0).step(objective, objective.parameters())


def test_a_model_with_other_layers_is_refused():
    method = KFAC()
    first = deep(lambda: nn.Linear(4, 3), lambda: nn.Linear(3, 2))
    theta, _ = method.step(first, first.parameters())
    other = deep(lambda: nn.Linear(4, 2), lambda: nn.Linear(2, 3), lambda: nn.Linear(3, 1, bias=False), lambda: nn.Linear(1, 1, bias=False))
    assert other.num_parameters == first.num_parameters
    other = other.with_data((torch.randn(5, 4).double(), torch.randn(5, 1).double()))
    with pytest.raises(ValueError, match="other layers"):
        method.step(other, theta)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"damping": -1e-3}, "argument damping"), ({"momentum": 1.0}, "argument momentum"), ({"momentum": "fitted"}, "rescale=True"),
        ({"kind": "shampoo"}, "'kfac' or 'ekfac'"), ({"fisher": "true"}, "argument fisher"), ({"sharing": "sum"}, "argument sharing"),
        ({"others": "none"}, "argument others"), ({"factor_decay": 1.0}, "factor_decay"), ({"inverse_every": 0}, "inverse_every"),
        ({"norm_constraint": 0.0}, "norm_constraint"), ({"kind": "ekfac", "factored_damping": True}, "factored_damping"),
        ({"damping": 0.0, "adapt_damping": True}, "adapt_damping"), ({"fisher": "exact", "num_samples": 2}, "num_samples"),
        ({"seed": True}, "argument seed"), ({"learning_rate": 0.0}, "learning_rate is 0.0, but must be finite and positive"),
    ],
)  # fmt: skip
def test_wrong_settings_are_said(options, words):
    with pytest.raises(ValueError, match=words):
        KFAC(**options)
