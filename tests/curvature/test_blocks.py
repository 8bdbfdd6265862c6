"""Diagonal blocks by name, and the spectra of all of them."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dense_torch import case, classifier, to_dense  # noqa: E402

import linop_spectra as ls  # noqa: E402
from linop_spectra.curvature import BlockwiseSpectra, blockwise_spectra  # noqa: E402

nn = torch.nn
MATRICES = {
    "hessian": lambda o: o.hessian(),
    "ggn": lambda o: o.ggn(),
    "fisher": lambda o: o.fisher(),
    "mc": lambda o: o.fisher("mc", num_samples=2),
    "empirical": lambda o: o.fisher("empirical"),
    "residual": lambda o: o.residual(),
    "covariance": lambda o: o.gradient_covariance(),
}


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("name", ["0.weight", "2.bias", "0", "*.weight", "*"])
def test_blocks_are_parts_of_the_whole(matrix, name):
    objective, _ = case("masked")
    whole = MATRICES[matrix](objective)
    block = whole.block(name)
    own = {"0.weight": ["0.weight"], "2.bias": ["2.bias"], "0": ["0.weight", "0.bias"], "*.weight": ["0.weight", "2.weight"]}
    names = own.get(name, list(objective.blocks))
    index = np.r_[tuple(objective.blocks[n] for n in names)]
    assert block.parameter_names == tuple(names)
    np.testing.assert_allclose(to_dense(block), to_dense(whole)[np.ix_(index, index)], rtol=0, atol=1e-14)
    assert abs(to_dense(block)).max() > 1e-3 or (matrix, name) == ("residual", "2.bias")  # the outputs are linear in it
    assert (block.hermitian, block.positive_semidefinite) == (True, whole.positive_semidefinite)
    assert [place.stop - place.start for place in block.blocks.values()] == [
        objective.blocks[n].stop - objective.blocks[n].start for n in names
    ]
    assert block.engine == whole.engine
    if name == "0":
        assert ls.check_operator(block).passed


def test_unknown_blocks():
    objective, _ = case("masked")
    for name in ("1", "0.weigh", "0.", "conv*", ""):
        with pytest.raises(ValueError, match=r"no layer .* there are '0.weight'"):
            objective.hessian().block(name)


def test_layers_are_not_told_by_the_first_letters():
    layers = nn.ModuleDict({"1": nn.Linear(2, 2), "10": nn.Linear(2, 3)})

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = layers

        def forward(self, x):
            return self.layers["10"](torch.tanh(self.layers["1"](x)))

    objective = ls.objective(Model().double(), "mse", (torch.ones(4, 2), torch.zeros(4, 3)))
    assert objective.ggn().block("layers.1").parameter_names == ("layers.1.weight", "layers.1.bias")


@pytest.mark.parametrize("by", ["parameter", "layer"])
@pytest.mark.parametrize("matrix", ["hessian", "ggn", "fisher", "residual", "gradient_covariance"])
def test_the_same_densities_as_one_by_one(matrix, by):
    objective, _ = case("masked")
    spectra = blockwise_spectra(objective, matrix, by=by, num_steps=9, seed=3)
    names = list(objective.blocks) if by == "parameter" else ["0", "2"]
    assert list(spectra) == names
    whole = getattr(objective, matrix)()
    for name, density in spectra.items():
        block = whole.block(name)
        single = ls.spectral_density(block, num_steps=min(9, block.shape[0]), seed=3)
        assert spectra.parameters[name] == block.parameter_names
        np.testing.assert_allclose(density.nodes, single.nodes, atol=1e-9 * abs(single.nodes).max())
        np.testing.assert_allclose(density.weights, single.weights, atol=1e-9)
        assert density.noise_floor <= 1e-10 * max(abs(single.nodes))
        assert density.pin == single.pin
        assert density.run.num_matvecs == single.run.num_matvecs


def test_exact_where_there_are_as_many_steps_as_rows():
    """Traces too: the order of each block bounds its number of steps."""
    objective, dense = case("squared errors")
    spectra = blockwise_spectra(objective, "hessian")
    for name, density in spectra.items():
        block = dense.hessian[objective.blocks[name], objective.blocks[name]]
        true = np.linalg.eigvalsh(block)
        np.testing.assert_allclose([density.nodes[0], density.nodes[-1]], true[[0, -1]], atol=1e-12)
        if len(block) > 5:
            low, high = spectra.traces[name].confidence_interval(0.999)
            assert low <= np.trace(block) <= high
    assert spectra.num_matvecs == sum(density.run.num_matvecs for density in spectra.values())


def test_each_step_passes_over_the_batches_once():
    objective, _ = case("masked")
    hessian = objective.hessian()
    widths = []
    multiply = hessian._matmat
    hessian._matmat = lambda x: widths.append(x.shape[1]) or multiply(x)
    blockwise_spectra(objective, hessian, num_steps=4, num_probes=2)
    # The second step measures how products repeat, the block of three parameters has only three steps.
    assert widths == [8, 8 + 4, 8, 6]


def test_more_passes_where_memory_is_short():
    plentiful, _ = case("masked", batch_size=4)
    scarce, _ = case("masked", batch_size=4, memory_budget=12 * 8 * 43 * 5)
    widths = []
    hessian = scarce.hessian()
    multiply = hessian._matmat
    hessian._matmat = lambda x: widths.append(x.shape[1]) or multiply(x)
    one, other = blockwise_spectra(plentiful, num_steps=5, num_probes=2), blockwise_spectra(scarce, hessian, num_steps=5, num_probes=2)
    assert 1 <= max(widths) <= 5
    for name in one:
        np.testing.assert_allclose(one[name].nodes, other[name].nodes, atol=1e-9)


def test_unused_parameters_have_a_spectrum_at_zero():
    model = classifier()
    model.register_parameter("spare", nn.Parameter(torch.ones(3).double()))
    torch.manual_seed(0)
    objective = ls.objective(model, "cross_entropy", (torch.randn(9, 4), torch.randint(0, 3, (9,))))
    with pytest.warns(UserWarning, match="spare"):
        spectra = blockwise_spectra(objective, by="layer")
    assert list(spectra) == ["spare", "0", "2"]
    np.testing.assert_array_equal(spectra["spare"].nodes, 0)


def test_saved_and_read_again(tmp_path):
    objective, _ = case("masked")
    spectra = blockwise_spectra(objective, "ggn", by="layer", num_steps=6)
    spectra.save(tmp_path / "blocks.npz")
    again = ls.load(tmp_path / "blocks.npz")
    assert isinstance(again, BlockwiseSpectra)
    assert (list(again), again.parameters, again.num_matvecs) == (list(spectra), spectra.parameters, spectra.num_matvecs)
    for name in spectra:
        np.testing.assert_array_equal(again[name].nodes, spectra[name].nodes)
        assert again[name].trace() == spectra[name].trace()
    assert "2 blocks" in repr(again)
    assert str(again).splitlines()[1].split()[0] == "0"
    with pytest.raises(KeyError, match="no block '7'"):
        again["7"]


def test_figure(tmp_path):
    pytest.importorskip("matplotlib")
    objective, _ = case("masked")
    panels = blockwise_spectra(objective, "ggn", by="layer", num_steps=6).plot(tmp_path / "blocks.png")
    assert len(panels) == 2
    assert (tmp_path / "blocks.png").stat().st_size > 1000


def test_time_budget_and_progress():
    objective, _ = case("masked")
    seen = []
    spectra = blockwise_spectra(objective, num_steps=6, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (6, 6)
    short = blockwise_spectra(objective, num_steps=15, time_budget=1e-6)
    assert short["0.weight"].status == "time budget"
    assert short["0.weight"].num_steps == 1
    assert spectra["0.weight"].status == "complete"


def test_products_that_are_not_finite():
    objective, _ = case("masked")
    hessian = objective.hessian()
    multiply, calls = hessian._matmat, []

    def broken(x):
        calls.append(1)
        out = multiply(x)
        return out if len(calls) < 4 else out * np.nan

    hessian._matmat = broken
    with pytest.raises(ls.NonFiniteProductError, match=r"In the block '0.weight'") as caught:
        blockwise_spectra(objective, hessian, num_steps=8)
    assert caught.value.partial.num_steps == 3


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"matrix": "kfac"}, "matrix is 'kfac'"),
        ({"matrix": ls.identity(3)}, "symmetric operator of shape"),
        ({"by": "row"}, "by is 'row'"),
        ({"num_steps": 0}, "num_steps"),
        ({"num_probes": 0}, "num_probes"),
        ({"time_budget": -1}, "time_budget"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_arguments(arguments, match):
    objective, _ = case("masked")
    with pytest.raises(ValueError, match=match):
        blockwise_spectra(objective, **arguments)
