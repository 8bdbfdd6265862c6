"""Directions: eigenvectors, random ones, and those with the norms of the filters."""

import numpy as np
import pytest
from landscape_networks import MAKERS, arrays, classifier

import linop_spectra as ls
import linop_spectra.landscape as landscape


def test_random_directions_are_unit_and_the_same_for_a_seed():
    objective = classifier("torch")
    one, three = (landscape.directions(objective, "random", num, seed=4) for num in (1, 3))
    np.testing.assert_array_equal(one[0], three[0])
    np.testing.assert_allclose(np.linalg.norm(three.vectors, axis=0), 1, rtol=1e-14)
    assert np.abs(np.triu(three.vectors.T @ three.vectors, 1)).max() < 0.9 and len(three) == 3
    assert not np.allclose(landscape.directions(objective, seed=5)[0], one[0])


@pytest.mark.parametrize("framework", MAKERS)
def test_filters_get_the_norms_of_the_models_and_biases_nothing(framework):
    objective = classifier(framework)
    d = landscape.directions(objective, "filter_normalized", 2, seed=1)
    weights = arrays(objective, objective.parameters())
    for column in d.vectors.T:
        for (w, _), (dw, db) in zip(weights, arrays(objective, column), strict=True):
            np.testing.assert_allclose(np.linalg.norm(dw, axis=1), np.linalg.norm(w, axis=1), rtol=1e-12)
            assert not db.any()
    assert np.abs(np.linalg.norm(arrays(objective, d[0])[0][0], axis=0) - np.linalg.norm(weights[0][0], axis=0)).min() > 1e-6


@pytest.mark.parametrize("framework", MAKERS)
def test_filter_normalised_lines_do_not_see_the_scale_of_layers(framework):
    """A ReLU network computes the same with its layers scaled by a and 1/a: pictures may differ only along other directions."""
    t = np.linspace(-1, 1, 5)
    pair = [classifier(framework, activation="ReLU", scales=scales) for scales in ((1.0, 1.0), (10.0, 0.1))]
    assert pair[0].value() == pytest.approx(pair[1].value(), rel=1e-12)
    one, other = (landscape.line(objective, "filter_normalized", t) for objective in pair)
    np.testing.assert_allclose(one.loss, other.loss, rtol=1e-10)
    one, other = (landscape.line(objective, "random", t) for objective in pair)
    assert np.abs(one.loss - other.loss).max() > 0.1


def norms(array, axes):
    return array.square().sum(dim=axes).sqrt()


def test_where_filters_lie_in_torch():
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 2), torch.nn.BatchNorm2d(3), torch.nn.ConvTranspose2d(3, 5, 2), torch.nn.Flatten(), torch.nn.Linear(45, 2)
    ).double()
    objective = ls.objective(model.eval(), "cross_entropy", (torch.randn(4, 2, 3, 3).double(), torch.randint(0, 2, (4,))))
    found = objective.unflatten(landscape.directions(objective, "filter_normalized")[0])
    own = dict(model.named_parameters())
    for name, others in [("0.weight", (1, 2, 3)), ("2.weight", (0, 2, 3)), ("4.weight", (1,))]:
        torch.testing.assert_close(norms(found[name], others), norms(own[name].detach(), others), rtol=1e-12, atol=0)
    assert not any(found[name].any() for name in ("0.bias", "1.weight", "1.bias", "2.bias", "4.bias"))
    other = objective.unflatten(landscape.directions(objective, "filter_normalized", filter_axis={"4.weight": -1})[0])
    torch.testing.assert_close(other["4.weight"].norm(dim=0), own["4.weight"].detach().norm(dim=0), rtol=1e-12, atol=0)
    torch.testing.assert_close(other["0.weight"], found["0.weight"])
    with pytest.raises(ValueError, match=r"'5\.weight'"):
        landscape.directions(objective, "filter_normalized", filter_axis={"5.weight": 0})


def test_eigenvectors_from_both_ends(tmp_path):
    objective = classifier("torch")
    values = np.linalg.eigvalsh(np.asarray(objective.hessian().to_dense()))
    top, bottom = (landscape.directions(objective, kind, 2, tol=1e-10) for kind in ("top", "bottom"))
    np.testing.assert_allclose(top.eigenvalues, values[:-3:-1], rtol=1e-8)
    np.testing.assert_allclose(bottom.eigenvalues, values[:2], rtol=1e-6, atol=1e-9)
    forms = np.einsum("ik,ik->k", top.vectors, objective.hessian() @ top.vectors)
    np.testing.assert_allclose(forms, top.eigenvalues, rtol=1e-8)
    gauss_newton = landscape.directions(objective, "top", operator=objective.ggn(), tol=1e-10)
    assert gauss_newton.eigenvalues[0] == pytest.approx(np.linalg.eigvalsh(np.asarray(objective.ggn().to_dense()))[-1])
    top.save(tmp_path / "d.npz")
    again = ls.load(tmp_path / "d.npz")
    np.testing.assert_array_equal(again.vectors, top.vectors)
    assert (again.labels, again.kind, again.num_matvecs) == (top.labels, "top", top.num_matvecs)


def test_bad_arguments_are_named():
    torch = pytest.importorskip("torch")
    objective = classifier("torch")
    with pytest.raises(ValueError, match="kind is 'sideways'"):
        landscape.directions(objective, "sideways")
    with pytest.raises(ValueError, match="num must be"):
        landscape.directions(objective, num=0)
    with pytest.raises(ValueError, match="seed"):
        landscape.directions(objective, seed=-1)

    class Scale(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = torch.nn.Parameter(torch.ones(3))

        def forward(self, x):
            return self.factor * x

    with pytest.raises(ValueError, match="no filters"):
        landscape.directions(ls.objective(Scale(), "mse", (torch.ones(2, 3), torch.ones(2, 3))), "filter_normalized")
