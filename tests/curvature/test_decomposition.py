"""Spectra of H, G, H - G and the parts of G in shared passes, against runs of each on its own and dense matrices."""

import numpy as np
import pytest
import torch
from classifiers import objective_of
from torch import nn

import linop_spectra as ls
from linop_spectra.curvature.decomposition import decomposition
from linop_spectra.curvature.lockstep import multiply, share_linearizations

NAMES = ("hessian", "ggn", "residual", "A1", "A2", "B1", "B2")


def matrices(objective):
    structure = objective.class_structure()
    whole = {"hessian": objective.hessian(), "ggn": objective.ggn(), "residual": objective.residual()}
    return whole | {name: getattr(structure, name) for name in NAMES[3:]}


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_coefficients_are_those_of_each_matrix_alone(name):
    objective = objective_of(name, weight_decay=0.1)
    found = decomposition(objective, num_steps=12, num_probes=2, seed=3)
    assert tuple(found) == NAMES
    for key, matrix in matrices(objective).items():
        alone = ls.spectral_density(matrix, num_steps=12, num_probes=2, seed=3)
        k = alone.run.num_steps
        assert found[key].run.num_steps == k
        # After an invariant space was reached, what is left is rounding.
        np.testing.assert_allclose(found[key].nodes[[0, -1]], alone.nodes[[0, -1]], atol=1e-10)
        np.testing.assert_allclose(found[key].run.alphas[:, :2], alone.run.alphas[:, :2], atol=1e-11)


def test_whole_spectra_are_the_dense_ones():
    objective = objective_of("mlp")
    n = objective.num_parameters
    found = decomposition(objective, num_steps=n)
    for key, matrix in matrices(objective).items():
        exact = np.linalg.eigvalsh(matrix.to_dense())
        np.testing.assert_allclose(found[key].nodes[[0, -1]], exact[[0, -1]], atol=1e-8)
        assert found[key].trace(np.square).value == pytest.approx((exact**2).sum(), rel=0.6, abs=1e-9)
    traces = {name: density.trace() for name, density in found.items()}
    total = sum(traces[part].value for part in NAMES[3:])
    error = sum(traces[part].confidence_interval(0.99)[1] - traces[part].value for part in NAMES[1:])
    assert abs(total - traces["ggn"].value) < 3 * error + 1e-9


def test_markers_are_eigenvalues():
    objective = objective_of("mlp")
    structure = objective.class_structure()
    found = decomposition(objective, num_steps=6)
    for parts, values in found.markers.items():
        exact = np.linalg.eigvalsh(sum(getattr(structure, part).to_dense() for part in parts.split("+")))
        size = min(len(values), len(exact))
        np.testing.assert_allclose(np.sort(values)[::-1][:size], exact[::-1][:size], atol=1e-10)
    assert "A1+A2+B1" not in decomposition(objective, num_steps=2, cross_class_means=False).markers


def test_one_pass_over_the_batches_serves_three_matrices():
    """Linearizations that are made anew in each product: as many as batches, not three times as many."""
    objective = objective_of("mlp", batch_size=6, memory_budget=2)
    made = []
    functions = objective.functions
    original = type(functions).linearize
    operators = (objective.hessian(), objective.ggn(), objective.residual())
    share_linearizations(operators)
    rows = np.random.default_rng(0).standard_normal((2, objective.num_parameters))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(functions), "linearize", lambda *args, **kwargs: made.append(1) or original(*args, **kwargs))
        products = multiply(operators, [rows, rows[:1], rows])
        batches = len(list(objective.batches()))
        multiply(operators, [rows, rows[:1], rows])
    assert len(made) <= 2 * batches + 1
    for operator, own, product in zip(operators, (rows, rows[:1], rows), products, strict=True):
        np.testing.assert_allclose(product, operator.to_dense() @ own.T, atol=1e-12)


def test_counts_of_products():
    objective = objective_of("mlp")
    found = decomposition(objective, num_steps=5, num_probes=1, cross_class_means=False)
    assert found.num_matvecs == sum(density.num_matvecs for density in found.densities.values())


def test_regression_and_whole_losses_have_no_classes(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    x, y = torch.randn(9, 3).double(), torch.randn(9, 1).double()
    found = decomposition(ls.objective(model, "mse", (x, y)), num_steps=5)
    assert tuple(found) == NAMES[:3] and not found.markers and "left out" in found.notes[0]

    def whole(model, batch):
        return ((model(batch[0]) - batch[1]) ** 2).sum(), len(batch[0])

    assert found.plot(tmp_path / "d.png").shape == (3, 2) and (tmp_path / "d.png").stat().st_size > 10_000
    only = decomposition(ls.objective(model, ls.BatchLoss(whole), [(x, y)]), num_steps=5)
    assert tuple(only) == ("hessian",) and "Only the Hessian" in str(only)


def test_save_table_and_figure(tmp_path):
    found = decomposition(objective_of("mlp"), num_steps=8)
    found.save(tmp_path / "d.npz")
    again = ls.load(tmp_path / "d.npz")
    assert str(again) == str(found) and again["B2"].nodes.tolist() == found["B2"].nodes.tolist()
    np.testing.assert_array_equal(again.markers["A1"], found.markers["A1"])
    panels = found.plot()
    assert panels.shape == (7, 2)
    drawn = next(line for line in panels[3, 0].lines if line.get_gid() == "markers A1")
    np.testing.assert_allclose(np.sort(drawn.get_xdata()), found.markers["A1"][found.markers["A1"] > 1e-12])
    with pytest.raises(KeyError, match="There is no matrix"):
        found["C"]


def test_time_budget_and_progress():
    seen = []
    found = decomposition(objective_of("mlp"), num_steps=6, progress=lambda done, total: seen.append((done, total)))
    done, totals = zip(*seen, strict=True)
    assert list(done) == sorted(done) and len(set(totals)) == 1 and done[-1] == totals[-1] and len(seen) > 12
    early = sum(2 * (6 - found[name].num_steps) for name in ("A1", "A2"))  # their ranks are small, so that their runs end early
    assert totals[-1] >= found.num_matvecs + found.num_marker_products >= totals[-1] - 4 * early - 2 and early > 0
    assert found["hessian"].status == "complete"
    short = decomposition(objective_of("mlp"), num_steps=30, time_budget=1e-9)
    assert short["hessian"].status == "time budget" and 1 <= short["hessian"].num_steps < 30


def test_what_is_known_is_not_measured_again():
    objective = objective_of("mlp")
    known = {"hessian": ls.spectral_density(objective.hessian(), num_steps=7), "B2": ls.spectral_density(objective.hessian(), num_steps=3)}
    found = decomposition(objective, num_steps=5, num_probes=1, known=known, cross_class_means=False)
    assert found["hessian"] is known["hessian"] and found["B2"] is known["B2"] and tuple(found) == NAMES
    assert found.num_matvecs == sum(found[name].num_matvecs for name in NAMES if name not in known)
    everything = dict.fromkeys(NAMES, known["hessian"])
    assert decomposition(objective, num_steps=5, known=everything, cross_class_means=False).num_matvecs == 0


def test_parts_of_low_rank_from_inner_products():
    """Spectra from Gram matrices: their extreme nodes and traces are those of the dense matrices, and they take no products."""
    objective = objective_of("mlp")
    structure, n = objective.class_structure(), objective.num_parameters
    found = decomposition(objective, num_steps=n, structure=structure, low_rank_parts="gram")
    assert found.num_matvecs == sum(found[name].num_matvecs for name in ("hessian", "ggn", "residual", "B2"))
    for name in ("A1", "A2", "B1"):
        exact = np.linalg.eigvalsh(getattr(structure, name).to_dense())
        nodes = found[name].nodes
        np.testing.assert_allclose(nodes[[0, -1]], exact[[0, -1]], atol=1e-10)
        low, high = found[name].trace().confidence_interval(0.999)
        assert low - 1e-10 <= exact.sum() <= high + 1e-10
        for value in nodes[nodes > 1e-9]:  # every node that is not zero is an eigenvalue
            assert np.abs(exact - value).min() < 1e-9
    by_classes = decomposition(objective, num_steps=4, cross_class_means=False, low_rank_parts="gram")
    assert by_classes.num_matvecs == sum(by_classes[name].num_matvecs for name in ("hessian", "ggn", "residual", "B1", "B2"))


def test_products_of_the_markers_are_counted():
    objective = objective_of("mlp")
    structure = objective.class_structure()
    space, pushed, pulled = structure._means.space, [], []
    push, pull = type(space).push, type(space).pull
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(space), "push", lambda self, x, *rest: pushed.append(x.shape[1]) or push(self, x, *rest))
        patch.setattr(type(space), "pull", lambda self, k, *rest: pulled.append(k) or pull(self, k, *rest))
        known = {name: ls.spectral_density(objective.ggn(), num_steps=3) for name in NAMES}
        found = decomposition(objective, num_steps=3, known=known, structure=structure)
    assert found.num_matvecs == 0 and sum(pulled) == found.num_marker_products > 0
    assert not pushed  # these few vectors are kept, and their inner products are one product of matrices


@pytest.mark.parametrize(
    "options, words",
    [
        ({"num_steps": 0}, "num_steps"), ({"cross_class_means": "yes"}, "cross_class_means"),
        ({"low_rank_parts": "exact"}, "low_rank_parts"), ({"known": {"C": None}}, "known"),
    ],
)  # fmt: skip
def test_wrong_options(options, words):
    with pytest.raises(ValueError, match=words):
        decomposition(objective_of("mlp"), **options)


def test_what_belongs_to_another_objective():
    objective = objective_of("mlp")
    with pytest.raises(ValueError, match="structure is that of another objective"):
        decomposition(objective, structure=objective_of("mlp").class_structure())
    with pytest.raises(ValueError, match="of order 3"):
        decomposition(objective, known={"ggn": ls.spectral_density(np.eye(3), num_steps=1)})


def test_not_an_objective():
    with pytest.raises(TypeError, match=r"linop_spectra\.objective"):
        decomposition(np.eye(3))


@pytest.mark.parametrize("framework", ["jax", "tensorflow"])
def test_other_frameworks_give_the_same_spectra(framework):
    from test_frameworks_agree import INPUTS, TARGETS, WEIGHTS, in_jax, in_torch

    from linop_spectra.curvature.attribution import attribute

    if framework == "jax":
        other = in_jax("cross_entropy")
    else:
        keras = pytest.importorskip("keras")
        model = keras.Sequential([
            keras.Input((4,), dtype="float64"), keras.layers.Dense(5, "tanh", dtype="float64"), keras.layers.Dense(3, dtype="float64"),
        ])  # fmt: skip
        model.set_weights([WEIGHTS["a"].T, WEIGHTS["b"], WEIGHTS["c"].T, WEIGHTS["d"]])
        other = ls.objective(model, "cross_entropy", (INPUTS, TARGETS["cross_entropy"]), batch_size=5)
    here, there = (decomposition(objective, num_steps=14, num_probes=1) for objective in (in_torch("cross_entropy"), other))
    for name in NAMES:
        np.testing.assert_allclose(here[name].nodes[[0, -1]], there[name].nodes[[0, -1]], atol=2e-5)  # JAX works in single precision
    np.testing.assert_allclose(here.markers["A1+A2+B1"][-4:], there.markers["A1+A2+B1"][-4:], atol=2e-5)
    one, two = (attribute(o, ["A1+A2"], groups=[2], num_steps=14, num_probes=1) for o in (in_torch("cross_entropy"), other))
    for row in one.rows:
        assert two[row.component].groups[0].energy == pytest.approx(row.groups[0].energy, abs=1e-3)
        assert two[row.component].subtracted.largest == pytest.approx(row.subtracted.largest, rel=1e-3)
