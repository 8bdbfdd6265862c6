"""The map of class means and the markers of Gram spectra."""
import sys
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from scipy.spatial.distance import pdist

from linop_spectra.plots.class_means import class_means, gram_spectra


def structure_of(vectors, weights):
    """What the figures read of a class structure, from the means themselves: shape (C, C, P)."""
    classes = len(vectors)
    rows = (np.sqrt(weights)[:, :, None] * vectors).reshape(classes**2, -1)
    gram = rows @ rows.T
    return SimpleNamespace(
        num_classes=classes, cross_class_weights=weights, gram=lambda parts: gram, spectrum=lambda parts: np.linalg.eigvalsh(gram)
    )


@pytest.fixture
def classes():
    rng = np.random.default_rng(0)
    centres = 10 * rng.standard_normal((4, 1, 12))
    vectors = centres + 0.3 * rng.standard_normal((4, 4, 12))
    weights = rng.random((4, 4)) + 0.1
    return vectors, weights / weights.sum()


def points(ax):
    pairs = np.array([text.get_position() for text in ax.texts if text.get_gid() == "pair"])
    means = np.array([line.get_xydata()[0] for line in ax.lines if line.get_gid() == "class mean"])
    return pairs, means


def test_scaling_keeps_the_distances_of_means_in_a_plane():
    rng = np.random.default_rng(1)
    plane, _ = np.linalg.qr(rng.standard_normal((30, 2)))
    vectors = rng.standard_normal((3, 3, 2)) @ plane.T
    weights = rng.random((3, 3)) + 0.1
    pairs, means = points(class_means(structure_of(vectors, weights), method="mds"))
    np.testing.assert_allclose(pdist(pairs), pdist(vectors.reshape(9, -1)), rtol=1e-9)
    off = weights * (1 - np.eye(3))
    expected = np.einsum("cd,cdp->cp", off, vectors) / off.sum(axis=1)[:, None]
    np.testing.assert_allclose(pdist(means), pdist(expected), rtol=1e-9)


def test_tsne_puts_each_class_around_its_mean(classes):
    pytest.importorskip("sklearn")
    ax = class_means(structure_of(*classes), method="tsne", names=["a", "b", "c", "d"])
    pairs, means = points(ax)
    nearest = np.argmin(np.linalg.norm(pairs[:, None] - means[None], axis=2), axis=1)
    np.testing.assert_array_equal(nearest, np.repeat(np.arange(4), 4))
    assert [text.get_text() for text in ax.texts if text.get_gid() != "pair"] == ["a", "b", "c", "d"]
    assert "t-SNE" in ax.get_title(loc="left")


def test_a_class_that_does_not_occur_is_left_out(classes):
    vectors, weights = classes
    weights = weights * np.array([1, 1, 0, 1])[:, None]
    pairs, means = points(class_means(structure_of(vectors, weights), method="mds"))
    assert pairs.shape == (12, 2) and means.shape == (3, 2)


def test_without_scikit_learn(classes, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    assert "scaling" in class_means(structure_of(*classes)).get_title(loc="left")
    with pytest.raises(ImportError, match="method='mds'"):
        class_means(structure_of(*classes), method="tsne")


@pytest.mark.parametrize(("options", "word"), [({"method": "pca"}, "method"), ({"names": ["a"]}, "names")])
def test_wrong_arguments(classes, options, word):
    with pytest.raises(ValueError, match=word):
        class_means(structure_of(*classes), **options)


def test_too_few_means():
    with pytest.raises(ValueError, match="three"):
        class_means(structure_of(np.ones((1, 1, 3)), np.ones((1, 1))))


def test_markers_stand_at_the_eigenvalues():
    ax = gram_spectra({"A1": np.array([0.5, 2.0]), "B1": np.array([-1e-17, 1e-14, 0.25])}, title="parts")
    found = {line.get_gid(): line.get_xdata() for line in ax.lines if line.get_gid()}
    np.testing.assert_array_equal(found["markers A1"], [0.5, 2.0])
    np.testing.assert_array_equal(found["markers B1"], [0.25])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["A1 (2)", "B1 (1, 2 zero)"]
    assert ax.get_xscale() == "log" and ax.get_title(loc="left") == "parts"


def test_markers_need_a_positive_eigenvalue():
    with pytest.raises(ValueError, match="positive"):
        gram_spectra({"A1": np.zeros(3)})


def test_axes_and_style_of_the_caller_are_kept(classes):
    from matplotlib.figure import Figure

    before = dict(matplotlib.rcParams)
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert class_means(structure_of(*classes), left, method="mds") is left
    assert gram_spectra(structure_of(*classes), right) is right
    assert len(figure.axes) == 2 and dict(matplotlib.rcParams) == before
    figure.canvas.draw()
