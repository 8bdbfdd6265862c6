"""Knock-outs of parts of a matrix: models whose answer is known, dense algebra, and small networks with little noise."""

import numpy as np
import pytest
import torch
from torch import nn

import linop_spectra as ls
from linop_spectra.curvature.attribution import attribute
from linop_spectra.random_matrices.models import ClassStructureModel, class_decomposition

MODEL = ClassStructureModel(num_classes=4, num_examples=40, dimension=120)
PARTS = class_decomposition(MODEL.sample)
WHOLE = MODEL.sample.gauss_newton()


@pytest.fixture(scope="module")
def table():
    components = {"A1": PARTS.A1, "A2": PARTS.A2, "A1+A2": PARTS.A1 + PARTS.A2, "B1": PARTS.B1, "B2": PARTS.B2, "top": None}
    return attribute(WHOLE, components, num_outliers=12, max_rank=120, num_steps=80, num_probes=4)


def test_groups_are_classes_and_pairs(table):
    assert table.groups == ((0, 4), (4, 12)) and MODEL.group_sizes == (4, 8)
    np.testing.assert_allclose(table.outliers, np.linalg.eigvalsh(WHOLE.to_dense())[::-1][:12], rtol=1e-6)


def test_class_means_make_the_first_group_and_pairs_the_second(table):
    means, pairs = table["A1+A2"], table["B1"]
    assert means.rank == 4 and means.groups[0].energy > 0.99 and means.groups[0].largest_angle < 2
    assert means.groups[1].energy < 0.01 and means.groups[1].largest_angle == pytest.approx(90, abs=1e-6)
    assert pairs.rank == 8 and pairs.groups[1].energy > 0.99 and pairs.groups[0].energy < 0.01
    # Taking the means out takes the top C away, by either way: what is left begins at the second group.
    for left in (means.subtracted, means.projected):
        assert left.largest == pytest.approx(table.outliers[4], rel=0.1) and left.num_outliers == 8
    # Taking the pairs out leaves the first group, and nothing where the second one was.
    assert pairs.subtracted.largest == pytest.approx(table.outliers[0], rel=0.02) and pairs.subtracted.num_outliers < 8
    assert np.linalg.eigvalsh((WHOLE - PARTS.B1).to_dense())[-5] < 0.1 * table.outliers[11]
    assert table["B2"].subtracted.largest == pytest.approx(table.outliers[0], rel=0.01)


def test_energies_of_parts_add_up(table):
    for group in range(2):
        assert sum(table[name].groups[group].energy for name in ("A1", "A2", "B1", "B2")) == pytest.approx(1.0, abs=1e-9)
    # A2 has the range of A1 and is smaller by the odds of a mistake, 0.3 / 0.7.
    assert table["A2"].groups[0].energy / table["A1"].groups[0].energy == pytest.approx(0.3 / 0.7, rel=1e-6)


def test_knock_outs_against_dense_algebra(table):
    dense, exact = WHOLE.to_dense(), np.linalg.eigvalsh(WHOLE.to_dense())
    for name, part in (("A1", PARTS.A1), ("B1", PARTS.B1)):
        row = table[name]
        values, vectors = np.linalg.eigh(part.to_dense())
        basis = vectors[:, values > 1e-9 * values[-1]]
        away = np.eye(120) - basis @ basis.T
        for left, matrix in ((row.subtracted, dense - part.to_dense()), (row.projected, away @ dense @ away)):
            after = np.linalg.eigvalsh(matrix)
            assert left.largest == pytest.approx(after[-1], rel=1e-6)
            assert left.wasserstein == pytest.approx(np.mean(np.abs(exact - after)), rel=0.05)
        cosines = np.linalg.svd(basis.T @ np.linalg.eigh(dense)[1][:, -4:], compute_uv=False)
        assert row.groups[0].largest_angle == pytest.approx(np.degrees(np.arccos(min(1, cosines.min()))), abs=1e-3)
        assert row.groups[0].mean_cosine_squared == pytest.approx(np.mean(cosines**2), abs=1e-6)


def test_top_pairs_are_all_of_themselves(table):
    top = table["top"]
    assert [share.energy for share in top.groups] == pytest.approx([1, 1]) and top.groups[0].largest_angle < 0.1
    assert top.subtracted.largest == pytest.approx(np.linalg.eigvalsh(WHOLE.to_dense())[-13], rel=1e-4)
    assert top.subtracted.wasserstein == pytest.approx(top.projected.wasserstein, rel=1e-3)  # weights of the rest are sampled


def test_table_and_file(table, tmp_path):
    text = str(table)
    assert "A1+A2" in text and "energy 1-4" in text and "projected" in text
    table.save(tmp_path / "a.npz")
    again = ls.load(tmp_path / "a.npz")
    assert str(again) == text and again["B1"].groups == table["B1"].groups
    with pytest.raises(KeyError, match="no component"):
        table["C"]


def test_a_space_stands_for_the_matrix_on_it():
    a = np.diag([10.0, 5.0, 1.0, 0.5, 0.1])
    found = attribute(a, {"first": np.eye(5)[:, :1] * 7.0}, num_outliers=2, num_steps=5)
    row = found["first"]
    assert found.groups == ((0, 2),) and row.groups[0].energy == pytest.approx(0.5)
    assert row.groups[0].mean_cosine_squared == pytest.approx(0.5) and row.groups[0].largest_angle == pytest.approx(90)
    assert row.subtracted.largest == pytest.approx(5.0) and row.projected.wasserstein == pytest.approx(2.0)


def test_indefinite_matrices_keep_their_signs():
    a = np.diag([10.0, -9.0, 1.0, 0.5, 0.1, 0.05])
    found = attribute(a, num_outliers=2, num_steps=6)
    assert found.outliers.tolist() == pytest.approx([10.0, -9.0]) and found["top"].subtracted.largest == pytest.approx(1.0)


def low_noise_classifier(**options):
    """Three classes, far apart with little noise, after some training: the outliers of G are class means."""
    torch.manual_seed(0)
    means, labels = 3 * torch.randn(3, 6), torch.arange(90) % 3
    x = (means[labels] + 0.05 * torch.randn(90, 6)).double()
    model = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 3)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()
    return ls.objective(model, "cross_entropy", (x, labels), batch_size=40, **options)


def test_removing_class_means_lowers_the_top_of_a_low_noise_net():
    objective = low_noise_classifier()
    found = attribute(objective, groups=[6, 3], max_rank=12, num_steps=24, num_probes=1)
    assert [row.component for row in found.rows] == ["A1", "A2", "A1+A2", "B1", "B2", "top"]
    assert found.largest == pytest.approx(np.linalg.eigvalsh(objective.ggn().to_dense())[-1], rel=1e-6)
    # C + C (C - 2) = 6 directions of means hold the first group, and the spread of examples the second.
    means, pairs, rest = found["A1+A2"], found["B1"], found["B2"]
    assert means.rank == 3 and pairs.rank == 3
    assert means.groups[0].energy + pairs.groups[0].energy > 0.99 and means.groups[0].energy > 0.4
    assert rest.groups[0].energy < 0.01 and rest.groups[1].energy > 0.99
    structure = objective.class_structure()
    left = np.linalg.eigvalsh(objective.ggn().to_dense() - structure.A1.to_dense() - structure.A2.to_dense())
    assert means.subtracted.largest == pytest.approx(left[-1], rel=1e-5) and means.subtracted.largest < 0.75 * found.largest
    assert sum(found[name].groups[0].energy for name in ("A1", "A2", "B1", "B2")) == pytest.approx(1, abs=1e-8)


def symmetric(matrix):
    return (matrix + matrix.T) / 2


def test_parts_of_an_objective_are_those_given_as_operators():
    """Shared ranges, one pass for the rest of the parts, traces of what is left: the same table as from dense matrices."""
    objective = low_noise_classifier()
    structure, names = objective.class_structure(), ["A1", "A2", "A1+A2", "B1", "B2", "top"]
    dense = {name: symmetric(sum(getattr(structure, part).to_dense() for part in name.split("+"))) for name in names[:-1]}
    options = {"groups": [6, 3], "max_rank": 12, "num_steps": 24, "num_probes": 1}
    for matrix, names_here in (("ggn", names), ("hessian", ["B1", "A2", "A1"])):
        found = attribute(objective, names_here, matrix=matrix, **options)
        whole = symmetric(getattr(objective, matrix)().to_dense())
        expected = attribute(whole, {name: dense.get(name) for name in names_here}, **options)
        for one, other in zip(found.rows, expected.rows, strict=True):
            assert one.rank == other.rank and one.range_energy == pytest.approx(other.range_energy, abs=1e-6)
            for share, exact in zip(one.groups, other.groups, strict=True):
                assert share.energy == pytest.approx(exact.energy, abs=1e-8)
                assert share.largest_angle == pytest.approx(exact.largest_angle, abs=1e-2)
            for left, right in ((one.subtracted, other.subtracted), (one.projected, other.projected)):
                assert left.largest == pytest.approx(right.largest, rel=1e-5) and left.num_outliers == right.num_outliers
                assert left.wasserstein == pytest.approx(right.wasserstein, rel=1e-3)
    # The class means are found, and projected out, once for the three: what comes on top are two spectra of 24 steps.
    one, three = (attribute(objective, some, **options) for some in (["A1"], ["A1", "A2", "A1+A2"]))
    assert three.num_matvecs - one.num_matvecs <= 2 * 25


def test_weight_decay_is_not_lost():
    """With it the parts do not add up to the matrix: what is left of a part is a difference."""
    objective = low_noise_classifier(weight_decay=0.5)
    row = attribute(objective, ["A1"], num_outliers=1, num_steps=40)["A1"]
    exact = np.linalg.eigvalsh(objective.ggn().to_dense() - objective.class_structure().A1.to_dense())[-1]
    assert exact > 0.5 and row.subtracted.largest == pytest.approx(exact, rel=1e-6)


def test_a_range_that_is_cut_off_says_so():
    """Five directions of twenty: the rest of the trace is measured on what they leave."""
    values = np.r_[20 + np.arange(20.0), np.zeros(40)]
    found = attribute(np.diag(values), {"all": np.diag(values)}, num_outliers=1, max_rank=5, num_steps=30)
    exact = np.sort(values)[-5:].sum() / values.sum()
    assert found["all"].rank == 5 and found["all"].range_energy == pytest.approx(exact, rel=1e-6)  # random signs see a diagonal exactly
    assert any("5 directions were projected out" in note for note in found.notes)


def test_layers_of_a_regression():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    objective = ls.objective(model, "mse", (torch.randn(12, 3).double(), torch.randn(12, 1).double()))
    found = attribute(objective, matrix="hessian", num_outliers=2, num_steps=21)
    assert [row.component for row in found.rows] == ["top", "0", "2"]
    dense = objective.hessian().to_dense()
    keep = np.ones(len(dense), dtype=bool)
    keep[:16] = False  # the first layer
    ends = np.linalg.eigvalsh(dense[keep][:, keep])
    assert found["0"].projected.largest == pytest.approx(max(ends[0], ends[-1], key=abs), rel=1e-6) and found["0"].rank == 16


@pytest.mark.parametrize("call, error, words", [
    (lambda: attribute(WHOLE, ["A1"]), TypeError, "obj is a matrix"),
    (lambda: attribute(WHOLE, {"A1": None}), TypeError, "is None"),
    (lambda: attribute(WHOLE, {}), ValueError, "empty"),
    (lambda: attribute(WHOLE, {"x": np.eye(3)}), ValueError, "shape"),
    (lambda: attribute(WHOLE, num_outliers=500), ValueError, "num_outliers"),
    (lambda: attribute(WHOLE, groups=[1, 2], num_outliers=5), ValueError, "add up"),
    (lambda: attribute(low_noise_classifier(), ["layer nine"]), ValueError, "layer nine"),
    (lambda: attribute(low_noise_classifier(), matrix="fisher"), ValueError, "matrix"),
])  # fmt: skip
def test_wrong_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
