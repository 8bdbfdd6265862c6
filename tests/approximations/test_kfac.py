"""KFAC and EKFAC of torch models against per-example Jacobians of torch.func, closed forms and hand computation."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import linop_spectra as ls  # noqa: E402
from linop_spectra.approximations.approximate import approximate  # noqa: E402
from linop_spectra.approximations.ekfac import ekfac  # noqa: E402
from linop_spectra.approximations.kfac import kfac, nearest_kronecker  # noqa: E402
from linop_spectra.approximations.kronecker_factors import DenseBlock, KroneckerBlock  # noqa: E402

nn = torch.nn
LAYERS = {"kfac": kfac, "ekfac": ekfac}


def normal(*shape, seed=0):
    return torch.tensor(np.random.default_rng(seed).standard_normal(shape))


def classes(*shape, count=3, seed=1):
    return torch.tensor(np.random.default_rng(seed).integers(0, count, shape))


def seeded(make):
    """A float64 model in evaluation mode, the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().double().eval()


def mlp():
    return seeded(lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)))


def cnn():
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3, stride=2, padding=(1, 2), dilation=(1, 2)), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(27, 3, bias=False)
        )
    )


class Sequence(nn.Module):
    """A linear layer at every position, another one behind the mean."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)).mean(1))


class Classes(nn.Linear):
    """A classifier of positions, with the classes where torch has them."""

    def forward(self, x):
        return super().forward(x).transpose(1, 2)


class Transformer(nn.Module):
    """Time first, a tied embedding, a packed projection, as many positions as examples in a batch."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(6, 4)
        self.layer = nn.TransformerEncoderLayer(4, 2, 5, dropout=0.0)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        return self.head(self.layer(self.embedding(x.T))).mean(0)


MODELS = {
    "mlp": (mlp, normal(11, 4), classes(11)),
    "cnn": (cnn, normal(7, 2, 5, 6), classes(7)),
    "sequence": (lambda: seeded(Sequence), normal(9, 4, 4), classes(9, count=2)),
    "transformer": (lambda: seeded(Transformer), classes(8, 4, count=6), classes(8, count=6)),
}


def example_gradients(model, x, cotangents):
    """Rows of ``J_n^T c`` for all examples and columns, shape (num_examples, num_columns, num_parameters), without the library."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    rows = []
    for n in range(len(x)):

        def outputs(p, n=n):
            return torch.func.functional_call(model, p, (x[n : n + 1],))[0]

        _, pull = torch.func.vjp(outputs, parameters)
        rows.append([torch.cat([g.reshape(-1) for g in pull(c)[0].values()]) for c in cotangents[n]])
    return np.array([[row.numpy() for row in own] for own in rows])


def softmax_roots(model, x):
    """Columns ``sqrt(p_c) (e_c - p)``, whose outer products sum up to the Hessian of softmax cross-entropy."""
    p = torch.softmax(model(x).detach(), 1)
    return p.sqrt()[:, :, None] * (torch.eye(p.shape[1], dtype=p.dtype) - p[:, None, :])


def true_matrix(model, x, kind, y=None):
    """Mean over examples of the outer products of gradients of cross-entropy."""
    if kind == "exact":
        columns = softmax_roots(model, x)
    else:
        columns = (torch.softmax(model(x).detach(), 1) - nn.functional.one_hot(y, model(x).shape[1]))[:, None, :]
    rows = example_gradients(model, x, columns)
    return np.einsum("nci,ncj->ij", rows, rows) / len(x)


def masked(matrix, approximation):
    """The blocks of a matrix that an approximation has."""
    kept = np.zeros_like(matrix)
    for layer in approximation.layers:
        index = np.ix_(layer.places.ravel(), layer.places.ravel())
        kept[index] = matrix[index]
    return kept


def objective_of(name, loss="cross_entropy", **options):
    make, x, y = MODELS[name]
    return ls.objective(make(), loss, (x, y), **{"batch_size": 4, **options})


def close(found, expected, tolerance=1e-11):
    found, expected = np.asarray(found), np.asarray(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(1e-300, abs(expected).max()))


# -- where it is exact -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("kind", ["exact", "empirical"])
def test_one_example_has_exact_blocks(make, kind):
    x, y, model = normal(1, 4), classes(1), mlp()
    # With several classes the columns of the first layer differ by one factor only, and the inputs are the same.
    approximation = make(ls.objective(model, "cross_entropy", (x, y)), fisher=kind)
    close(approximation.to_dense(), masked(true_matrix(model, x, kind, y), approximation))


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_deep_linear_networks_are_exact(make):
    model = seeded(lambda: nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 6, bias=False), nn.Linear(6, 2)))
    x = normal(13, 4) * torch.arange(1.0, 5.0)
    objective = ls.objective(model, "mse", (x, normal(13, 2, seed=3)), batch_size=5)
    columns = 2**0.5 * torch.eye(2, dtype=x.dtype).expand(13, 2, 2)
    rows = example_gradients(model, x, columns)
    truth = np.einsum("nci,ncj->ij", rows, rows) / 26  # a mean over elements
    approximation = make(objective)
    close(approximation.to_dense(), masked(truth, approximation))


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
def test_linear_layers_at_positions_are_exact_in_the_setting_of_each_kind(sharing):
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 3), nn.Linear(3, 2)

        def forward(self, x):
            found = self.second(self.first(x))
            return found if sharing == "expand" else found.mean(1)

    model, x = seeded(Positions), normal(6, 5, 4)
    outputs = model(x).detach()
    approximation = kfac(ls.objective(model, "mse", (x, outputs + 1), batch_size=4), sharing=sharing)
    size = outputs[0].numel()
    columns = 2**0.5 * torch.eye(size, dtype=x.dtype).reshape(size, *outputs.shape[1:]).expand(6, size, *outputs.shape[1:])
    rows = example_gradients(model, x, columns)
    truth = np.einsum("nci,ncj->ij", rows, rows) / outputs.numel()
    close(approximation.to_dense(), masked(truth, approximation))
    other = kfac(ls.objective(model, "mse", (x, outputs + 1)), sharing="reduce" if sharing == "expand" else "expand")
    assert abs(np.asarray(other.to_dense()) - masked(truth, other)).max() > 1e-3 * abs(truth).max()


# -- the factors by hand -----------------------------------------------------------------------------------------------


def gradients_in(model, layer, x, columns):
    """Gradients in the outputs of a layer, by a hook, shape (num_columns, num_examples, ...)."""
    seen = []
    handle = layer.register_forward_hook(lambda module, given, output: seen.append(output))
    outputs = model(x)
    handle.remove()
    return torch.stack([torch.autograd.grad(outputs, seen[0], columns[:, c], retain_graph=True)[0] for c in range(columns.shape[1])])


def with_ones(a):
    return torch.cat([a, torch.ones_like(a[..., :1])], -1)


def test_factors_of_a_convolution():
    first = {"stride": (2, 1), "padding": 1, "dilation": (1, 2)}
    model = seeded(lambda: nn.Sequential(nn.Conv2d(2, 3, (3, 2), **first), nn.Tanh(), nn.Flatten(), nn.Linear(54, 3)))
    x, y = normal(5, 2, 5, 6), classes(5)
    patches = nn.functional.unfold(x, (3, 2), **first).transpose(1, 2)
    g = gradients_in(model, model[0], x, softmax_roots(model, x))
    g = g.flatten(3).transpose(2, 3)  # columns, examples, positions, channels
    a = with_ones(patches)
    expected = {
        "expand": (torch.einsum("cnsi,cnsj->ij", g, g) / 5, torch.einsum("nsi,nsj->ij", a, a) / (5 * patches.shape[1])),
        "reduce": (torch.einsum("cni,cnj->ij", g.sum(2), g.sum(2)) / 5, torch.einsum("ni,nj->ij", a.mean(1), a.mean(1)) / 5),
    }
    objective = ls.objective(model, "cross_entropy", (x, y), batch_size=2)
    for sharing, (rows, columns) in expected.items():
        layer = kfac(objective, sharing=sharing).layers[0]
        assert layer.names == ("0.weight", "0.bias")
        close(layer.rows, rows)
        close(layer.columns, columns)


def test_gradients_of_single_examples_through_a_convolution():
    model, x = cnn(), MODELS["cnn"][1]
    rows = example_gradients(model, x, softmax_roots(model, x))
    found = ekfac(objective_of("cnn"))
    layer = found.layers[0]
    (_, u), (_, v) = layer.bases
    weights = rows[:, :, layer.places]  # num_examples, columns, rows and columns of the weight with its bias
    expected = (np.einsum("ri,ncrs,sj->ncij", u, weights, v) ** 2).sum((0, 1)) / len(x)
    close(layer.eigenvalues, expected)


def test_factors_of_a_shared_layer_by_hand():
    # One weight, two positions, one output: everything is a number.
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Linear(1, 1, bias=False)

        def forward(self, x):  # (n, 2)
            return 2 * self.w(x[:, :1]) + 3 * self.w(x[:, 1:])

    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).double()
    objective = ls.objective(seeded(Shared), "mse", (x, torch.zeros(2, 1).double()))
    # Columns sqrt(2); gradients 2 and 3 times it at inputs of squares 1, 9 and 4, 16; two terms.
    assert kfac(objective).to_dense().item() == pytest.approx(2 * (2 * (4 + 9)) / 2 * (1 + 9 + 4 + 16) / 4)
    assert kfac(objective, sharing="reduce").to_dense().item() == pytest.approx(2 * (2 * 25) / 2 * (1.5**2 + 3.5**2) / 2)
    assert ekfac(objective).to_dense().item() == pytest.approx(2 * ((2 * 1 + 3 * 2) ** 2 + (2 * 3 + 3 * 4) ** 2) / 2)
    assert objective.ggn().to_dense().item() == pytest.approx(2 * ((2 * 1 + 3 * 2) ** 2 + (2 * 3 + 3 * 4) ** 2) / 2)


def test_nearest_kronecker_product():
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(2):
        a, b = rng.standard_normal((3, 5)), rng.standard_normal((2, 4))
        pairs.append((a @ a.T, b @ b.T))
    total = sum(np.kron(a, b) for a, b in pairs)
    rearranged = total.reshape(3, 2, 3, 2).transpose(0, 2, 1, 3).reshape(9, 4)
    best = np.linalg.svd(rearranged, compute_uv=False)
    rows, columns = nearest_kronecker(pairs)
    assert np.linalg.norm(total - np.kron(rows, columns)) == pytest.approx(np.linalg.norm(best[1:]))
    assert np.linalg.eigvalsh(rows).min() > 0 < np.linalg.eigvalsh(columns).min()


# -- EKFAC -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["exact", "empirical"])
@pytest.mark.parametrize("name", MODELS)
def test_eigenvalue_correction(name, kind):
    make, x, y = MODELS[name]
    truth, objective = true_matrix(make(), x, kind, y), objective_of(name)
    for sharing in ("expand", "reduce"):
        plain, corrected = (LAYERS[which](objective, fisher=kind, sharing=sharing) for which in ("kfac", "ekfac"))
        assert corrected.trace() == pytest.approx(np.trace(truth), rel=1e-11)
        for before, after in zip(plain.layers, corrected.layers, strict=True):
            index = np.ix_(after.places.ravel(), after.places.ravel())
            errors = [
                np.linalg.norm(truth[index] - np.asarray(m.to_dense())[index]) / np.linalg.norm(truth[index]) for m in (plain, corrected)
            ]
            assert before.names == after.names
            assert errors[1] <= errors[0] + 1e-12
            if isinstance(after, DenseBlock):
                assert max(errors) < 1e-11


def test_drawn_targets_are_those_of_the_fisher_matrix():
    objective = objective_of("cnn")
    matrix = np.asarray(objective.fisher("mc", num_samples=3, seed=5).to_dense())
    found = ekfac(objective, fisher="mc", num_samples=3, seed=5)
    assert found.trace() == pytest.approx(np.trace(matrix), rel=1e-11)


# -- scaling -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["exact", "mc", "empirical"])
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_batches_do_not_matter(make, kind):
    options = {"fisher": kind, **({"num_samples": 2, "seed": 3} if kind == "mc" else {})}
    found = [np.asarray(make(objective_of("sequence", batch_size=size), **options).to_dense()) for size in (1, 4, 9)]
    close(found[0], found[1], 1e-12)
    close(found[2], found[1], 1e-12)


@pytest.mark.parametrize("kind", ["exact", "mc"])
def test_large_batches_in_pieces(kind):
    # Enough examples that a few of them tell how they are arranged, and a budget that asks for pieces.
    x, y, options = normal(130, 2, 5, 6), classes(130), {"fisher": kind, **({"seed": 7} if kind == "mc" else {})}
    whole, small = (ls.objective(cnn(), "cross_entropy", (x, y), batch_size=130, memory_budget=b) for b in ("1GB", 100_000))
    found, expected = ekfac(small, **options), ekfac(whole, **options)
    assert found.num_backward > expected.num_backward
    for one, other in zip(found.layers, expected.layers, strict=True):
        close(one.eigenvalues, other.eigenvalues, 1e-12)
    close(kfac(small, **options).to_dense(), kfac(whole, **options).to_dense(), 1e-12)


@pytest.mark.parametrize("kind", ["exact", "empirical"])
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_ignored_examples_do_not_count(make, kind):
    x, y = MODELS["mlp"][1:]
    keep = torch.tensor([n not in (0, 3, 4, 5) for n in range(len(x))])  # one batch of two has none
    hidden = torch.where(keep, y, -100)
    with_mask = make(ls.objective(mlp(), "cross_entropy", (x, hidden), batch_size=2), fisher=kind)
    without = make(ls.objective(mlp(), "cross_entropy", (x[keep], y[keep]), batch_size=3), fisher=kind)
    close(with_mask.to_dense(), without.to_dense(), 1e-12)


def test_weighted_classes_scale_the_gradients():
    x, y = MODELS["mlp"][1:]
    weight = torch.tensor([1.0, 2.0, 0.5]).double()
    objective = ls.objective(mlp(), nn.CrossEntropyLoss(weight=weight), (x, y), batch_size=4)
    found = ekfac(objective)
    rows = example_gradients(mlp(), x, softmax_roots(mlp(), x) * weight[y].sqrt()[:, None, None])
    truth = np.einsum("nci,ncj->ij", rows, rows) / float(weight[y].sum())
    assert found.trace() == pytest.approx(np.trace(truth), rel=1e-11)


def test_masked_positions_of_a_sequence():
    class PerPosition(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.second(torch.tanh(self.first(x))).transpose(1, 2)

    x, y = normal(5, 4, 4), classes(5, 4)
    y[0, 1:] = y[3, :] = -100
    objective = ls.objective(seeded(PerPosition), "cross_entropy", (x, y), batch_size=2)
    found = ekfac(objective)
    matrix = np.asarray(objective.ggn().to_dense())
    assert found.trace() == pytest.approx(np.trace(matrix), rel=1e-11)
    # A softmax has one direction less than classes at each position.
    assert found.num_backward == 2 * 3 * (2 * 4)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_drawn_targets_are_unbiased(make):
    objective = objective_of("mlp", batch_size=11)
    samples = np.array([make(objective, fisher="mc", seed=seed).trace() for seed in range(60)])
    exact = make(objective).trace()
    error = samples.std(ddof=1) / len(samples) ** 0.5
    assert abs(samples.mean() - exact) < 4 * error
    assert error > 0
    many = make(objective, fisher="mc", num_samples=60).trace()
    assert abs(many - exact) < 4 * error


def test_monte_carlo_factors_are_unbiased_entry_by_entry():
    objective = objective_of("sequence", batch_size=9)
    draws = np.array([kfac(objective, fisher="mc", seed=seed).layers[0].rows for seed in range(80)])
    exact = kfac(objective).layers[0].rows
    score = (draws.mean(0) - exact) / (draws.std(0, ddof=1) / len(draws) ** 0.5)
    assert abs(score).max() < 4


def test_weight_decay_adds_the_identity():
    plain, decayed = (kfac(objective_of("mlp", weight_decay=decay)) for decay in (0.0, 0.25))
    close(decayed.to_dense(), np.asarray(plain.to_dense()) + 0.25 * np.eye(len(plain.eigenvalues())))
    empirical = kfac(objective_of("mlp", weight_decay=0.25), fisher="empirical")
    close(empirical.to_dense(), kfac(objective_of("mlp"), fisher="empirical").to_dense())


# -- what it can do ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cnn", "transformer"])
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_closed_forms(make, name):
    found = make(objective_of(name, weight_decay=0.01))
    dense = np.asarray(found.to_dense())
    n = len(dense)
    b = np.random.default_rng(2).standard_normal((n, 3))
    close(dense, dense.T, 1e-13)
    close(found.solve(b, damping=0.1), np.linalg.solve(dense + 0.1 * np.eye(n), b))
    close(found.solve(b[:, 0], damping=0.0), np.linalg.solve(dense, b[:, 0]))
    close(found.eigenvalues(), np.linalg.eigvalsh(dense))
    assert found.trace() == pytest.approx(np.trace(dense))
    assert found.frobenius_norm() == pytest.approx(np.linalg.norm(dense))
    assert found.logdet(damping=0.1) == pytest.approx(np.linalg.slogdet(dense + 0.1 * np.eye(n))[1])
    top = np.asarray(found.top_vectors(3))
    close(dense @ top, top * found.eigenvalues()[::-1][:3], 1e-10)
    assert ls.check_operator(found).passed
    assert (found.shape, found.positive_semidefinite, found.source_matvecs) == ((n, n), True, 0 if name == "cnn" else 16)
    size = found.blocks["0.weight" if name == "cnn" else "layer.linear1.weight"]
    close(found.block("0.weight" if name == "cnn" else "layer.linear1.weight").to_dense(), dense[size, size])


@pytest.mark.parametrize("name", ["cnn", "transformer"])
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_vectors_in_torch(make, name):
    found, expected = make(objective_of(name, backend="torch:cpu")), make(objective_of(name))
    b = np.random.default_rng(2).standard_normal(expected.shape[0])
    close(found.to_dense(), expected.to_dense(), 1e-12)
    assert isinstance(found @ b, torch.Tensor)
    for options in ({}, {"factored": True}) if make is kfac else ({},):
        close(found.solve(torch.tensor(b), damping=0.1, **options), expected.solve(b, damping=0.1, **options), 1e-12)
    close(found.eigenvalues(), expected.eigenvalues(), 1e-12)


def test_factored_damping():
    found, damping = kfac(objective_of("mlp")), 0.3
    b = np.random.default_rng(0).standard_normal(len(found.eigenvalues()))
    expected = np.empty_like(b)
    for layer in found.layers:
        (r, c), places = layer.places.shape, layer.places.ravel()
        balance = (np.trace(layer.columns) / c / (np.trace(layer.rows) / r)) ** 0.5
        left, right = layer.rows + damping**0.5 / balance * np.eye(r), layer.columns + damping**0.5 * balance * np.eye(c)
        expected[places] = np.linalg.solve(np.kron(left, right), b[places])
    close(found.solve(b, damping=damping, factored=True), expected)
    with pytest.raises(ValueError, match="the kind is 'ekfac'"):
        ekfac(objective_of("mlp")).solve(b, damping=damping, factored=True)
    with pytest.raises(ValueError, match="needs a positive damping"):
        found.solve(b, factored=True)
    with pytest.raises(ValueError, match="has no inverse"):
        found.solve(b)


def test_separate_biases_have_exact_blocks():
    make, x, _ = MODELS["mlp"]
    found, truth = kfac(objective_of("mlp"), include_bias=False), true_matrix(make(), x, "exact")
    assert [(type(layer), layer.names) for layer in found.layers] == [
        (KroneckerBlock, ("0.weight",)), (DenseBlock, ("0.bias",)), (KroneckerBlock, ("2.weight",)), (DenseBlock, ("2.bias",)),
    ]  # fmt: skip
    for name in ("0.bias", "2.bias"):
        place = found.blocks[name]
        close(found.block(name).to_dense(), truth[place, place])
    assert found.source_matvecs == 0


@pytest.mark.parametrize("patterns", ["*.weight", "*.bias", ["0.*"], ["2.weight", "0.bias"]])
def test_some_parameters(patterns):
    make, x, y = MODELS["cnn"] if patterns == ["0.*"] else MODELS["mlp"]
    objective = ls.objective(make(), "cross_entropy", (x, y), parameters=patterns)
    found = ekfac(objective)
    assert found.trace() == pytest.approx(np.trace(np.asarray(objective.ggn().to_dense())), rel=1e-11)
    assert {name for layer in found.layers for name in layer.names} == set(objective.blocks)


def test_single_precision_sums_in_double():
    # Inputs with a large mean: their moments cancel where they are summed in single precision.
    x, y = normal(400, 4) + 1000, classes(400)
    model = mlp().float()
    with torch.no_grad():
        model[0].weight.mul_(1e-3)
    double = ls.objective(model, "cross_entropy", (x.float(), y), batch_size=7, dtype="float64")
    single = ls.objective(model, "cross_entropy", (x.float(), y), batch_size=7)
    found, expected = (kfac(objective).layers[0].columns for objective in (single, double))
    assert found.dtype == np.float64
    close(found, expected, 1e-13)
    assert np.asarray(kfac(single).to_dense()).dtype == np.float32


def test_many_ways_to_use_a_weight():
    class Ways(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Parameter(0.5 * torch.randn(3, 3)) for _ in range(4))
            self.e, self.bias = nn.Parameter(torch.randn(2, 3)), nn.Parameter(torch.randn(3))
            self.packed = nn.Parameter(torch.randn(6, 3))

        def forward(self, x):
            x = torch.tanh(x @ self.a + self.bias)
            x = torch.tanh(torch.einsum("nk,kj->jn", x, self.b)).T
            x = torch.tanh((self.c @ x.T).T) + torch.addmm(torch.ones(3).double(), x, self.d.mT)
            one, two = self.packed.chunk(2)
            x = torch.sin(nn.functional.linear(x, one)) * nn.functional.linear(x, two)
            return torch.matmul(x, self.e.t())

    model, x, y = seeded(Ways), normal(7, 3), classes(7, count=2)
    objective = ls.objective(model, "cross_entropy", (x, y), batch_size=3)
    found = ekfac(objective)
    kinds = {layer.names: (type(layer).__name__, layer.places.shape) for layer in found.layers}
    assert kinds[("a", "bias")] == ("RescaledBlock", (3, 4))
    assert sorted(names for names in kinds) == [("a", "bias"), ("b",), ("c",), ("d",), ("e",), ("packed",)]
    assert {kind for kind, _ in kinds.values()} == {"RescaledBlock"}
    assert len(found.layers) == 7  # two for the packed one
    truth = true_matrix(model, x, "exact")
    assert found.trace() == pytest.approx(np.trace(truth), rel=1e-11)


def test_a_bias_behind_a_result_that_is_read_twice_is_alone():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.randn(3, 3)), nn.Parameter(torch.randn(3))

        def forward(self, x):
            y = x @ self.weight
            return torch.tanh(y + self.bias) * y

    model, x, y = seeded(Twice), normal(6, 3), classes(6)
    found, truth = ekfac(ls.objective(model, "cross_entropy", (x, y))), true_matrix(model, x, "exact")
    assert [layer.names for layer in found.layers] == [("weight",), ("bias",)]
    assert found.trace() == pytest.approx(np.trace(truth), rel=1e-11)
    place = found.blocks["bias"]
    close(found.block("bias").to_dense(), truth[place, place])


# -- what has no factors -----------------------------------------------------------------------------------------------


def test_small_parameters_have_exact_blocks():
    model = seeded(lambda: nn.Sequential(nn.Conv2d(2, 4, 2, groups=2), nn.BatchNorm2d(4), nn.Flatten(), nn.LayerNorm(16), nn.Linear(16, 3)))
    x, y = normal(6, 2, 3, 3), classes(6)
    found = kfac(ls.objective(model, "cross_entropy", (x, y), batch_size=4))
    truth = true_matrix(model, x, "exact")
    exact = [layer for layer in found.layers if isinstance(layer, DenseBlock)]
    assert {name for layer in exact for name in layer.names} == {"0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"}
    for layer in exact:
        index = np.ix_(layer.places, layer.places)
        close(layer.matrix, truth[index])


def test_unused_parameters_have_zeros():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(3, 2), nn.Linear(40, 50)

        def forward(self, x):
            return self.used(x)

    objective = ls.objective(seeded(Unused), "mse", (normal(5, 3), normal(5, 2)))
    with pytest.warns(UserWarning, match="does not depend on the parameters 'unused"):
        found = kfac(objective)
    place = objective.blocks["unused.weight"]
    assert not np.asarray(found.matvec(np.ones(found.shape[0])))[place].any()
    assert np.count_nonzero(found.eigenvalues()) == 8
    assert np.isfinite(found.solve(np.ones(found.shape[0]), damping=1.0)).all()


def recurrent():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cells, self.head = nn.LSTM(3, 20, batch_first=True), nn.Linear(20, 3)

        def forward(self, x):
            return self.head(self.cells(x)[0][:, -1])

    return seeded(Recurrent)


def test_large_parameters_without_factors_are_refused():
    x, y = normal(4, 5, 3), classes(4)
    with pytest.raises(ValueError, match=r"The parameter 'cells.weight_hh_l0' of 1,600 numbers is used by torch's lstm.*parameters="):
        kfac(ls.objective(recurrent(), "cross_entropy", (x, y)))
    found = kfac(ls.objective(recurrent(), "cross_entropy", (x, y), parameters="head.*"))
    assert [layer.names for layer in found.layers] == [("head.weight", "head.bias")]


def test_weights_on_something_without_examples_are_refused():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.positions, self.first = nn.Linear(4, 300), nn.Linear(3, 300)

        def forward(self, x):
            return torch.tanh(self.first(x) + self.positions(torch.ones(len(x), 4).double().mean(0, keepdim=True))).sum(1, keepdim=True)

    with pytest.raises(ValueError, match=r"'positions.weight' of 1,200 numbers.*do not belong to one example each"):
        kfac(ls.objective(seeded(Table), "mse", (normal(5, 3), normal(5, 1))))


@pytest.mark.parametrize(
    ("error", "match", "options"),
    [
        (ValueError, "The argument fisher is 'true'", {"fisher": "true"}),
        (ValueError, "The argument sharing is 'both'", {"sharing": "both"}),
        (ValueError, "belong to fisher='mc'", {"num_samples": 3}),
        (ValueError, "num_samples must be a whole number", {"fisher": "mc", "num_samples": 0}),
        (ValueError, "belong to kind='mc'", {"fisher": "empirical", "seed": 3}),
    ],
)
def test_wrong_arguments(error, match, options):
    with pytest.raises(error, match=match):
        kfac(objective_of("mlp"), **options)


def test_what_is_refused():
    with pytest.raises(TypeError, match="must be an Objective"):
        kfac(np.eye(3))
    norm = seeded(lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)))
    with pytest.raises(TypeError, match="depend on the other examples"):
        kfac(ls.objective(norm, "cross_entropy", (normal(5, 4), classes(5)), batch_norm="train"))
    with pytest.raises(ValueError, match="has negative eigenvalues"):
        kfac(ls.objective(mlp(), lambda o, t: (o**4 - o**2).mean(), (normal(3, 4) * 1e-3, classes(3))))
    flat, long = seeded(lambda: nn.Sequential(nn.Linear(4, 3), nn.Flatten(0, 1))), seeded(lambda: Classes(4, 3))
    with pytest.raises(ValueError, match="need one row for each"):
        kfac(ls.objective(flat, "cross_entropy", [(normal(3, 2, 4), classes(6))]))
    with pytest.raises(ValueError, match=r"backward passes.*fisher='mc'"):
        kfac(ls.objective(long, "cross_entropy", (normal(2, 900, 4), classes(2, 900)), memory_budget=10**8))


def test_a_loss_of_one_s_own():
    x, t = normal(6, 4), normal(6, 3, seed=2)
    own = kfac(ls.objective(mlp(), lambda outputs, targets: ((outputs - targets) ** 2).mean(), (x, t), batch_size=4))
    close(own.to_dense(), kfac(ls.objective(mlp(), "mse", (x, t), batch_size=4)).to_dense())


# -- manners -----------------------------------------------------------------------------------------------------------


def test_no_side_effects():
    model, x, y = cnn(), *MODELS["cnn"][1:]
    model[0].weight.grad = torch.ones_like(model[0].weight)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state, grad = torch.get_rng_state(), model[0].weight.grad.clone()
    inputs = x.clone()
    objective = ls.objective(model, "cross_entropy", (x, y), batch_size=3)
    theta = objective.parameters().copy()
    first = kfac(objective, fisher="mc").to_dense()
    ekfac(objective)
    assert (np.asarray(kfac(objective, fisher="mc").to_dense()) == np.asarray(first)).all()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(grad, model[0].weight.grad)
    assert model.training
    assert torch.equal(inputs, x)
    assert (objective.parameters() == theta).all()
    b = np.ones(objective.num_parameters)
    kfac(objective).solve(b, damping=1.0)
    assert (b == 1).all()


def test_by_name_and_with_progress():
    objective, seen = objective_of("mlp"), []
    found = approximate(objective, "ekfac", fisher="mc", num_samples=2, progress=lambda done, total: seen.append((done, total)))
    assert (found.kind, found.num_backward, found.num_matvecs) == ("ekfac", 2 * 2 * 3, 0)
    assert seen == 2 * [(4, 11), (8, 11), (11, 11)]
    assert "Monte-Carlo Fisher matrix of 2 samples" in repr(found)


def test_not_a_number():
    x, y = MODELS["mlp"][1:]
    x = x.clone()
    x[3, 1] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        kfac(ls.objective(mlp(), "cross_entropy", (x, y), batch_size=4))
