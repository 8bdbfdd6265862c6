"""Fisher-Rao norm and relative flatness: exact values and invariances."""

import numpy as np
import pytest
from metric_networks import FRAMEWORKS, dense, in_torch
from scipy import special

import linop_spectra as ls
from linop_spectra.curvature import metrics

torch = pytest.importorskip("torch")


def homogeneous(depth=3, seed=0):
    torch.manual_seed(seed)
    layers = []
    for _ in range(depth - 1):
        layers += [torch.nn.Linear(5, 5, bias=False), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(5, 3, bias=False)).double()
    x, y = torch.randn(20, 5, dtype=torch.float64), torch.randint(0, 3, (20,))
    return model, x, y


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_fisher_rao_norm_of_homogeneous_networks(depth):
    """Liang et al. (2019), theorem 3.1: (number of layers)^2 times the mean square of <dl/df, f>."""
    model, x, y = homogeneous(depth)
    with torch.no_grad():
        f = model(x).numpy()
    slope = special.softmax(f, axis=1) - np.eye(3)[y.numpy()]
    expected = depth**2 * np.mean((slope * f).sum(axis=1) ** 2)
    objective = ls.objective(model, "cross_entropy", (x, y), batch_size=7)
    assert metrics.fisher_rao_norm(objective, "empirical").value == pytest.approx(expected, rel=1e-10)
    # With the model's own labels it is the variance of f under the softmax.
    p = special.softmax(f, axis=1)
    own = depth**2 * np.mean((p * f**2).sum(axis=1) - (p * f).sum(axis=1) ** 2)
    assert metrics.fisher_rao_norm(objective).value == pytest.approx(own, rel=1e-10)
    decayed = ls.objective(model, "cross_entropy", (x, y), weight_decay=3.0)
    assert metrics.fisher_rao_norm(decayed).value == pytest.approx(own, rel=1e-10)


def _rescaled(model, c):
    with torch.no_grad():
        model[0].weight.mul_(c)
        model[2].weight.div_(c)


def test_rescaling_layers_changes_neither_norm_nor_relative_flatness():
    model, x, y = homogeneous(3)
    before = ls.objective(model, "cross_entropy", (x, y))
    _rescaled(model, 4.0)
    after = ls.objective(model, "cross_entropy", (x, y))
    assert metrics.fisher_rao_norm(after).value == pytest.approx(metrics.fisher_rao_norm(before).value, rel=1e-10)
    for name in ("0.weight", "2.weight"):
        first, second = (metrics.relative_flatness(one, name, num_probes=25).value for one in (before, after))
        assert second == pytest.approx(first, rel=1e-9)
    assert metrics.trace(after).value != pytest.approx(metrics.trace(before).value, rel=0.1)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_relative_flatness_is_the_contraction_of_dense_blocks(framework):
    objective = FRAMEWORKS[framework]()
    names = [name for name, place in objective.blocks.items() if place.stop - place.start == 20]
    assert len(names) == 1
    place, H = objective.blocks[names[0]], dense(objective)
    torch_layout = framework != "keras"  # the weights here are (outputs, inputs) in jax, too
    axis = 0 if torch_layout else 1
    shape = (5, 4) if torch_layout else (4, 5)
    W = np.asarray(objective.parameters())[place].reshape(shape)
    block = H[place, place].reshape(*shape, *shape)
    if torch_layout:
        expected = np.einsum("si,ti,sjtj->", W, W, block)
    else:
        expected = np.einsum("is,it,jsjt->", W, W, block)
    found = metrics.relative_flatness(objective, names[0], output_axis=axis, num_probes=16)
    assert found.value == pytest.approx(expected, rel=1e-10) and found.method == "exact"
    values = [metrics.relative_flatness(objective, names[0], output_axis=axis, num_probes=8, seed=s) for s in range(3)]
    for one in values:
        low, high = one.confidence_interval(0.9999)
        assert low <= expected <= high
    if framework != "jax":  # names as in torch and Keras say which axis it is
        assert metrics.relative_flatness(objective, names[0], num_probes=16).value == pytest.approx(expected, rel=1e-10)


def test_what_is_no_weight_is_refused():
    objective = in_torch()
    with pytest.raises(ValueError, match=r"there are '0\.weight'"):
        metrics.relative_flatness(objective, "7.weight")
    with pytest.raises(ValueError, match=r"has shape \(5,\)"):
        metrics.relative_flatness(objective, "0.bias")
    with pytest.raises(ValueError, match="output_axis"):
        metrics.relative_flatness(objective, "0.weight", output_axis=2)
    with pytest.raises(ValueError, match="kind"):
        metrics.fisher_rao_norm(objective, "other")
