"""Principal directions of a path: against the singular value decomposition, and of a random walk."""

import sys

import numpy as np
import pytest
from landscape_networks import MAKERS, classifier

import linop_spectra as ls
import linop_spectra.landscape as landscape


def path_of(objective, count=7, seed=0):
    rng = np.random.default_rng(seed)
    theta = np.asarray(objective.parameters())
    return [theta + step for step in np.cumsum(rng.standard_normal((count, len(theta))), axis=0)]


@pytest.mark.parametrize("piece", [5, 1 << 18])
def test_same_as_the_singular_value_decomposition(piece, monkeypatch):
    monkeypatch.setattr(sys.modules["linop_spectra.landscape.trajectory"], "_PIECE", piece)
    objective = classifier("torch")
    path = path_of(objective)
    found = landscape.trajectory(objective, path, num=3)
    centred = np.stack(path) - np.mean(path, axis=0)
    _, s, vt = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(found.explained_variance, (s**2 / np.sum(s**2))[:3], rtol=1e-10)
    np.testing.assert_allclose(np.abs(vt[:3] @ found.directions), np.eye(3), atol=1e-8)
    offsets = np.stack(path) - objective.parameters()
    np.testing.assert_allclose(found.coordinates, offsets @ found.directions, atol=1e-10)
    outside = offsets - found.coordinates @ found.directions.T
    np.testing.assert_allclose(found.distances, np.linalg.norm(outside, axis=1), atol=1e-10)


@pytest.mark.parametrize("framework", MAKERS)
def test_a_path_in_a_plane_through_the_model(framework):
    objective = classifier(framework)
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.standard_normal((objective.num_parameters, 2)))[0]
    points = rng.standard_normal((6, 2)) * [3.0, 1.0]
    theta = np.asarray(objective.parameters())
    found = landscape.trajectory(objective, [objective.with_parameters(theta + basis @ p) for p in points])
    assert found.explained_variance.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(found.distances, 0, atol=1e-9)
    np.testing.assert_allclose(found.directions @ found.coordinates.T, basis @ points.T, atol=1e-9)
    plane = landscape.plane(objective, found, xs=found.coordinates[:1, 0], ys=found.coordinates[:1, 1])
    assert plane.loss[0, 0] == pytest.approx(objective.with_parameters(theta + basis @ points[0]).value(), rel=1e-10)
    assert plane.labels == found.labels


def test_random_walk_has_a_known_share_of_variance():
    """Antognini and Sohl-Dickstein (2018): 6 / (pi k)^2 of the variance of a long walk in many dimensions."""
    torch = pytest.importorskip("torch")
    objective = ls.objective(torch.nn.Linear(199, 100).double(), "mse", (torch.ones(1, 199).double(), torch.ones(1, 100).double()))
    found = landscape.trajectory(objective, path_of(objective, 200), num=3)
    np.testing.assert_allclose(found.explained_variance, 6 / (np.pi * np.arange(1, 4)) ** 2, rtol=0.03)


def test_small_moves_far_from_the_origin_keep_their_digits():
    objective = classifier("torch")
    theta = 1e6 * np.ones(objective.num_parameters)
    far = objective.with_parameters(theta)
    d = np.linalg.qr(np.random.default_rng(0).standard_normal((len(theta), 2)))[0]
    path = [theta + 1e-3 * (k * d[:, 0] + 0.1 * k**2 * d[:, 1]) for k in range(6)]
    found = landscape.trajectory(far, path)
    np.testing.assert_allclose(np.linalg.norm(found.coordinates, axis=1), [1e-3 * np.hypot(k, 0.1 * k**2) for k in range(6)], rtol=1e-5)


def test_bad_paths_are_named(tmp_path):
    objective = classifier("torch")
    theta = np.asarray(objective.parameters())
    for path, num, text in [
        ([theta], 1, "1 checkpoints have at most 0"),
        ([], 1, "0 checkpoints"),
        ([theta, theta + 1, theta + 2], 2, "along 1 directions only"),
        ([theta, theta], 1, "along 0 directions only"),
        ([theta, theta[1:]], 1, "shape"),
        ([theta, np.nan * theta, theta], 1, "not finite"),
    ]:
        with pytest.raises(ValueError, match=text):
            landscape.trajectory(objective, path, num)
    found = landscape.trajectory(objective, path_of(objective))
    found.save(tmp_path / "t.npz")
    np.testing.assert_array_equal(ls.load(tmp_path / "t.npz").coordinates, found.coordinates)
