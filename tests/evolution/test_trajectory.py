"""Spectra over checkpoints: against dense matrices, what they take up again, and what they refuse."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import linop_spectra as ls
from linop_spectra.evolution import Evolution, Snapshot, evolution
from linop_spectra.evolution import snapshot as snapshots

torch.manual_seed(0)
X, Y = torch.randn(30, 4).double(), torch.arange(30) % 3


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def trained(moments=4, seed=0):
    model = network(seed)
    states = []
    for _ in range(moments):
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        for _ in range(20):
            loss = nn.functional.cross_entropy(model(X), Y)
            for p, g in zip(model.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True):
                p.data -= 0.5 * g
    return states


STATES = trained()
OBJECTIVE = ls.objective(network(), "cross_entropy", (X, Y), batch_size=16)


@pytest.fixture(scope="module")
def found():
    return evolution(OBJECTIVE, STATES, num_steps=20, k=3, tol=1e-10, learning_rate=0.5)


def test_numbers_are_the_dense_ones(found):
    before = None
    for i, state in enumerate(STATES):
        own = OBJECTIVE.with_parameters(state)
        values, vectors = np.linalg.eigh(own.hessian().to_dense())
        top, gradient = vectors[:, ::-1][:, :3], own.gradient()
        np.testing.assert_allclose(found.eigenvalues[i], values[::-1][:3], rtol=1e-8)
        assert found.loss[i] == pytest.approx(own.value()) and found.gradient_norms[i] == pytest.approx(np.linalg.norm(gradient))
        assert found.gradient_overlaps[i] == pytest.approx(np.sum((top.T @ gradient) ** 2) / (gradient @ gradient), rel=1e-6)
        if before is not None:
            assert found.overlaps[i] == pytest.approx(np.sum((before.T @ top) ** 2) / 3, rel=1e-6)
        before = top
    assert np.isnan(found.overlaps[0]) and found.null_overlap == pytest.approx(3 / OBJECTIVE.num_parameters)
    assert found.converged and found.num_matvecs > 0 and len(found) == 4
    np.testing.assert_allclose(found.thresholds, 4.0)
    np.testing.assert_allclose(found.edge_ratios, found.eigenvalues[:, 0] / 4)


def test_overlap_of_unrelated_networks_is_near_chance():
    """Ten unrelated random directions each: overlaps have mean k / P, far below those of one training."""
    rng = np.random.default_rng(0)
    n = OBJECTIVE.num_parameters
    found = evolution(OBJECTIVE, [rng.standard_normal(n) * 0.5 for _ in range(6)], num_steps=4, k=2)
    assert found.overlaps[1:].mean() < 0.5


def test_labels_and_moments(tmp_path):
    paths = []
    for step, state in zip((100, 20, 3), STATES, strict=False):
        paths.append(tmp_path / f"model-{step}.pt")
        torch.save(state, paths[-1])
    by_file = evolution(OBJECTIVE, paths, num_steps=3, k=1)
    assert by_file.steps.tolist() == [100, 20, 3] and by_file.labels[0] == "model-100"
    by_key = evolution(OBJECTIVE, {"epoch 2": STATES[0], "epoch 7": OBJECTIVE.with_parameters(STATES[1])}, num_steps=3, k=1)
    assert by_key.steps.tolist() == [2, 7] and by_key.labels == ("epoch 2", "epoch 7")
    assert evolution(OBJECTIVE, {"first": STATES[0], "last": STATES[1]}, num_steps=3, k=1).steps.tolist() == [0, 1]


def test_a_folder_is_taken_up_again(tmp_path, found, monkeypatch):
    options = {"num_steps": 20, "k": 3, "tol": 1e-10, "folder": tmp_path / "runs"}
    evolution(OBJECTIVE, STATES[:2], **options)
    taken = []
    from linop_spectra.evolution import trajectory

    original = trajectory.take_snapshot
    monkeypatch.setattr(trajectory, "take_snapshot", lambda *args, **kwargs: taken.append(args[2]) or original(*args, **kwargs))
    again = evolution(OBJECTIVE, STATES, learning_rate=0.5, **options)
    assert taken == [2.0, 3.0]
    np.testing.assert_allclose(again.eigenvalues, found.eigenvalues, rtol=1e-9)
    np.testing.assert_allclose(again.overlaps[1:], found.overlaps[1:], rtol=1e-6)
    np.testing.assert_allclose(again.learning_rates, 0.5)
    taken.clear()
    evolution(OBJECTIVE, STATES[::-1], **options)  # other parameters at the same places
    assert len(taken) == 4
    taken.clear()
    evolution(OBJECTIVE, STATES[::-1], **{**options, "k": 2})
    assert len(taken) == 4


@pytest.mark.parametrize("product", [5, 60, 90], ids=["in the first density", "between", "in later work"])
def test_an_interrupted_moment_is_not_kept(tmp_path, found, monkeypatch, product):
    from linop_spectra.curvature.matrices import HessianOperator

    options = {"num_steps": 20, "k": 3, "tol": 1e-10, "learning_rate": 0.5, "folder": tmp_path / "runs"}
    original, calls = HessianOperator._matmat, []

    def interrupted(self, x):
        calls.append(x.shape[1])
        if len(calls) == product:
            raise KeyboardInterrupt
        return original(self, x)

    with monkeypatch.context() as patch:
        patch.setattr(HessianOperator, "_matmat", interrupted)
        with pytest.raises(KeyboardInterrupt):
            evolution(OBJECTIVE, STATES, **options)
    assert len(calls) == product
    again = evolution(OBJECTIVE, STATES, **options)
    np.testing.assert_allclose(again.eigenvalues, found.eigenvalues, rtol=1e-9)
    assert again.converged and [one.density.status for one in again.snapshots] == ["complete"] * 4


def test_a_folder_of_other_data_is_refused(tmp_path):
    evolution(OBJECTIVE, STATES[:1], num_steps=3, k=1, folder=tmp_path)
    other = ls.objective(network(), "cross_entropy", (X, Y.flip(0)), batch_size=16)
    with pytest.raises(ValueError, match="belongs to other data"):
        evolution(other, STATES[:1], num_steps=3, k=1, folder=tmp_path)
    ls.Estimate(1.0).save(tmp_path / "checkpoint-00000.npz")
    with pytest.raises(ValueError, match="holds no snapshot"):
        evolution(OBJECTIVE, STATES[:1], num_steps=3, k=1, folder=tmp_path)


def test_warm_starts_save_products():
    """The same matrix again, from its own eigenvectors: fewer products than from a random vector."""
    settings = snapshots.Settings(num_steps=4, k=3, tol=1e-8)
    own = OBJECTIVE.with_parameters(STATES[2])
    cold = snapshots.take_snapshot(own, settings, 0, "0", None)
    warm = snapshots.take_snapshot(own, settings, 1, "1", cold)
    assert warm.num_matvecs < cold.num_matvecs and warm.overlap == pytest.approx(1.0, abs=1e-6)


def test_preconditioned_hessian():
    diagonal = np.linspace(1.0, 2.0, OBJECTIVE.num_parameters)
    adam = {"preconditioners": [diagonal], "method": "adam", "momentum": 0.9, "learning_rate": 0.1}
    found = evolution(OBJECTIVE, STATES[:1], num_steps=6, k=1, tol=1e-10, **adam)
    dense = OBJECTIVE.with_parameters(STATES[0]).hessian().to_dense() / np.sqrt(np.outer(diagonal, diagonal))
    assert found.eigenvalues[0, 0] == pytest.approx(np.linalg.eigvalsh(dense)[-1], rel=1e-8)
    assert found.thresholds[0] == pytest.approx(380.0) and "preconditioned" in found.matrix


def test_save_and_table(found, tmp_path):
    found.save(tmp_path / "e.npz")
    again = ls.load(tmp_path / "e.npz")
    assert isinstance(again, Evolution) and str(again) == str(found) and again.rows()[1]["largest"] == found.rows()[1]["largest"]
    assert again.snapshots[-1].eigenvectors is None and "threshold" in str(found)
    last = found.snapshots[-1]
    last.save(tmp_path / "s.npz")
    one = ls.load(tmp_path / "s.npz")
    assert isinstance(one, Snapshot) and np.array_equal(one.eigenvectors, last.eigenvectors)
    assert dataclasses.asdict(dataclasses.replace(one, density=None, eigenvectors=None))["step"] == 3.0


def test_progress_counts_checkpoints():
    seen = []
    evolution(OBJECTIVE, STATES[:2], num_steps=2, k=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize("options, error, words", [
    ({"checkpoints": []}, ValueError, "empty"), ({"checkpoints": "one.pt"}, TypeError, "single"),
    ({"checkpoints": np.zeros(3)}, TypeError, "single"), ({"matrix": "jacobian"}, ValueError, "matrix"), ({"k": 0}, ValueError, "k must"),
    ({"learning_rate": [0.1]}, ValueError, "one for each"), ({"learning_rate": -1.0}, ValueError, "positive"),
    ({"preconditioners": [1]}, ValueError, "preconditioners"), ({"learning_rate": 0.1, "method": "other"}, ValueError, "method"),
])  # fmt: skip
def test_wrong_arguments_are_named(options, error, words):
    with pytest.raises(error, match=words):
        evolution(OBJECTIVE, **{"checkpoints": STATES[:2], "num_steps": 2, **options})
