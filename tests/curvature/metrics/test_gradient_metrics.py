"""The gradient against dense eigenvectors."""

import numpy as np
import pytest
from metric_networks import FRAMEWORKS, dense, in_torch, regression

from linop_spectra.curvature import metrics


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_everything_along_the_gradient_agrees_with_dense_eigenvectors(framework):
    objective = FRAMEWORKS[framework]()
    H, g = dense(objective), np.asarray(objective.gradient())
    w, V = np.linalg.eigh(H)
    shared = metrics.SharedRun.of(objective)
    curvature = g @ H @ g / (g @ g)
    assert metrics.gradient_curvature(shared).value == pytest.approx(curvature, rel=1e-10)
    assert metrics.gradient_cosine(shared).value == pytest.approx(g @ H @ g / np.linalg.norm(g) / np.linalg.norm(H @ g), rel=1e-10)
    assert metrics.gradient_alignment(shared).value == pytest.approx(curvature / w[-1], rel=1e-8)
    for k in (1, 2, 5):
        overlap = np.sum((V[:, -k:].T @ g) ** 2) / (g @ g)
        found = metrics.gradient_overlap(shared, num_directions=k)
        assert found.value == pytest.approx(overlap, abs=1e-7) and f"null {k / len(w):.3g}" in found.note


def test_few_steps_bracket_the_overlap():
    objective = in_torch()
    H, g = dense(objective), np.asarray(objective.gradient())
    V = np.linalg.eigh(H)[1]
    found = metrics.gradient_overlap(objective, num_directions=1, num_steps=12, seed=1)
    low, high = found.confidence_interval()
    assert 0 <= low <= (V[:, -1] @ g) ** 2 / (g @ g) <= high <= 1
    assert found.num_matvecs >= 5 * 12


def test_a_gradient_of_zero_is_refused():
    x = np.random.default_rng(0).standard_normal((20, 3))
    objective = regression(x, np.zeros(20), np.zeros(3))
    for metric in (metrics.gradient_overlap, metrics.gradient_curvature, metrics.gradient_alignment, metrics.gradient_cosine):
        with pytest.raises(ValueError, match="exactly zero"):
            metric(objective)
    with pytest.raises(ValueError, match="num_directions"):
        metrics.gradient_overlap(in_torch(), num_directions=0)
    with pytest.raises(TypeError, match="needs an objective"):
        metrics.gradient_curvature(np.eye(3))


def test_layers_add_up_to_the_trace_and_agree_with_dense_blocks():
    objective = in_torch()
    H, g = dense(objective), np.asarray(objective.gradient())
    shared = metrics.SharedRun.of(objective)
    rows = metrics.layer_table(shared)
    assert [row.name for row in rows] == ["0", "2"] and [row.num_parameters for row in rows] == [25, 18]
    top = np.linalg.eigh(H)[1][:, -1]
    for row, places in zip(rows, (slice(0, 25), slice(25, 43)), strict=True):
        low, high = row.trace.confidence_interval(0.999)
        assert low <= np.trace(H[places, places]) <= high
        assert row.gradient_norm == pytest.approx(np.linalg.norm(g[places]))
        assert row.top_eigenvector == pytest.approx(top[places] @ top[places])
    assert sum(row.energy for row in rows) == pytest.approx(1.0)
    few = metrics.layer_table(metrics.SharedRun.of(objective, num_steps=8, num_probes=2))
    for row, places in zip(few, (slice(0, 25), slice(25, 43)), strict=True):
        low, high = row.trace.confidence_interval(0.9999)
        assert low <= np.trace(H[places, places]) <= high
    without = metrics.SharedRun.of(objective, reorthogonalize="none", num_steps=8)
    with pytest.raises(ValueError, match="kept no vectors"):
        metrics.layer_table(without)
