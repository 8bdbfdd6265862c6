"""Planes: exact for quadratics, and each axis where it belongs."""

import numpy as np
import pytest
from landscape_networks import MAKERS, TARGET, X, arrays, classifier, regression

import linop_spectra as ls
import linop_spectra.landscape as landscape

XS, YS = np.array([-1.0, 0.0, 0.5]), np.array([2.0, -0.5])


@pytest.mark.parametrize("framework", MAKERS)
def test_plane_of_a_quadratic_is_exact(framework):
    objective = regression(framework)
    u, v = np.random.default_rng(1).standard_normal((2, objective.num_parameters))
    plane = landscape.plane(objective, u, v, XS, YS, quadratic=True)
    assert plane.loss.shape == (2, 3) and plane.num_matvecs == 2
    theta = np.asarray(objective.parameters())
    for j, y in enumerate(YS):
        for i, x in enumerate(XS):
            ((w, b),) = arrays(objective, theta + x * u + y * v)
            assert plane.loss[j, i] == pytest.approx(np.mean((X @ w.T + b - TARGET) ** 2), rel=1e-12)
    np.testing.assert_allclose(plane.quadratic(), plane.loss, rtol=1e-11)
    assert plane.quadratic([0.0], [0.0])[0, 0] == plane.value


def test_eigenvectors_and_columns_and_names():
    objective = classifier("torch")
    pairs = ls.eigsh(objective.hessian(), k=3, which="LA", tol=1e-9)
    t = np.linspace(-1e-3, 1e-3, 3)
    plane = landscape.plane(objective, pairs, xs=t)
    np.testing.assert_array_equal(plane.directions, pairs.eigenvectors[:, [2, 1]])
    np.testing.assert_allclose(plane.loss, plane.quadratic(), atol=1e-8)
    np.testing.assert_array_equal(np.diag(plane.curvature), pairs.eigenvalues[[2, 1]])
    assert plane.curvature[0, 1] == 0
    columns = landscape.plane(objective, pairs.eigenvectors[:, [2, 1]], xs=t)
    np.testing.assert_array_equal(columns.loss, plane.loss)
    assert columns.labels == ("u", "v") and columns.value is None
    names = landscape.plane(objective, "random", "random", [0.0, 1.0], seed=2)
    np.testing.assert_array_equal(names.directions, landscape.directions(objective, "random", 2, seed=2).vectors)
    mixed = landscape.plane(objective, "top", "bottom", [0.0])
    assert mixed.curvature[0, 0] > 0 > mixed.curvature[1, 1]
    assert mixed.loss[0, 0] == objective.value()


def test_resumed_and_saved(tmp_path):
    objective = classifier("torch")
    whole = landscape.plane(objective, "random", "random", XS, YS, metrics="accuracy")
    path = tmp_path / "plane.npz"
    part = landscape.plane(objective, "random", "random", XS, YS, metrics="accuracy", checkpoint=path, time_budget=1e-9)
    assert part.status == "time budget" and part.evaluated.sum() == 1 and part.evaluated[1, 1]  # nearest to the centre
    again = landscape.plane(objective, "random", "random", XS, YS, metrics="accuracy", checkpoint=path)
    np.testing.assert_array_equal(again.loss, whole.loss)
    np.testing.assert_array_equal(again.metrics["accuracy"], whole.metrics["accuracy"])
    part.save(tmp_path / "saved.npz")
    loaded = ls.load(tmp_path / "saved.npz")
    np.testing.assert_array_equal(loaded.loss, part.loss)
    np.testing.assert_array_equal(loaded.evaluated, part.evaluated)
    assert str(loaded) == str(part) and "time budget" in str(part)


def test_bad_arguments_are_named():
    objective = classifier("torch")
    u = np.ones(objective.num_parameters)
    for arguments, text in [
        ((u, -2 * u, XS), "parallel"),
        ((u, np.stack([u, u], axis=1), XS), "v holds 2 directions"),
        ((u, 0 * u, XS), "v holds a direction .* zero"),
        ((u[1:], u, XS), "u has shape"),
        ((u,), "one direction and v none"),
        (("random", "random", []), "xs must be"),
        (("random", "random", XS, [np.nan]), "ys must be"),
    ]:
        with pytest.raises(ValueError, match=text):
            landscape.plane(objective, *arguments)
    with pytest.raises(ValueError, match="quadratic=True"):
        landscape.plane(objective, "random", "random", [0.0]).quadratic()
