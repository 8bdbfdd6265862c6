"""Variance of batch Hessians against dense ones, and against Gaussian linear regression, where it is known."""

import numpy as np
import pytest
from metric_networks import FRAMEWORKS, dense, in_torch, regression

import linop_spectra as ls
from linop_spectra.curvature.metrics import hessian_variance


def _scatter(objective):
    """Sum of ``n_b |H_b - H|^2`` over K - 1, P and the largest batch, from dense matrices."""
    full = dense(objective)
    parts = objective.per_batch()
    sizes = np.array([part.num_examples for part in parts])
    squares = [n * np.sum((dense(part) - full) ** 2) for n, part in zip(sizes, parts, strict=True)]
    return sum(squares) / (len(parts) - 1) / len(full) / sizes.max()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_all_directions_give_the_scatter_of_dense_matrices(framework):
    objective = FRAMEWORKS[framework](batch_size=6)
    exact = hessian_variance(objective, num_probes=objective.num_parameters)
    assert exact.isotropic == pytest.approx(_scatter(objective), rel=1e-10)
    assert exact.num_matvecs == 5 * objective.num_parameters
    full = dense(objective)
    V = np.linalg.eigh(full)[1]
    along = np.mean([np.sum(((dense(part) - full) @ V[:, -1]) ** 2) for part in objective.per_batch()]) * 5 / 4
    assert exact.along(V[:, -1]) == pytest.approx(along, rel=1e-10)
    assert exact.kappa(3 * V[:, -1]) == pytest.approx(along / exact.isotropic, rel=1e-10)


def test_random_directions_are_unbiased_with_an_honest_standard_error():
    objective = in_torch(batch_size=6)
    truth = _scatter(objective)
    found = [hessian_variance(objective, seed=s, num_probes=4) for s in range(40)]
    values = np.array([one.isotropic for one in found])
    assert abs(values.mean() - truth) < 4 * values.std(ddof=1) / np.sqrt(40)


def test_batches_of_unequal_sizes_are_weighted():
    objective = in_torch(batch_size=8)  # 8, 8, 8 and 6
    found = hessian_variance(objective, num_probes=objective.num_parameters)
    assert found.isotropic == pytest.approx(_scatter(objective), rel=1e-10)
    assert found.batch_size == 8 and found.num_batches == 4 and found.num_examples == 30


def test_unequal_batches_give_the_variance_of_gaussian_regression():
    """For x ~ N(0, I) the Hessian of one example is 2 x x^T, of variance 4 (P + 1) in every direction."""
    p, values = 4, []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((50, p))
        objective = regression(x, np.zeros(50), np.zeros(p), batch_size=16)  # 16, 16, 16 and 2
        values.append(hessian_variance(objective, num_probes=p).per_example)
    assert abs(np.mean(values) - 4 * (p + 1)) < 4 * np.std(values, ddof=1) / np.sqrt(60)
    assert np.std(values, ddof=1) / np.sqrt(60) < 2


def test_weight_decay_is_the_same_in_every_batch():
    plain, decayed = (hessian_variance(in_torch(batch_size=6, weight_decay=decay), num_probes=99) for decay in (0.0, 5.0))
    assert plain.isotropic == pytest.approx(decayed.isotropic, rel=1e-9)


def test_masked_targets_count_for_nothing():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, y = torch.as_tensor(rng.standard_normal((24, 3))), torch.as_tensor(rng.integers(0, 2, 24))
    model = torch.nn.Linear(3, 2).double()
    masked = y.clone()
    masked[[0, 1, 9]] = -100
    objective = ls.objective(model, "cross_entropy", (x, masked), batch_size=8)
    full, parts, terms = dense(objective), objective.per_batch(), np.array([6, 7, 8])
    sizes = terms * 24 / terms.sum()
    truth = sum(n * np.sum((dense(part) - full) ** 2) for n, part in zip(sizes, parts, strict=True)) / 2 / 8 / sizes.max()
    assert hessian_variance(objective, num_probes=8).isotropic == pytest.approx(truth, rel=1e-9)


def test_predictions_shift_each_eigenvalue_by_its_own_variance():
    objective = in_torch(batch_size=6)
    found = hessian_variance(objective)
    w, V = np.linalg.eigh(dense(objective))
    prediction = found.predicted(6, eigenvalues=w[[0, -1]], eigenvectors=V[:, [0, -1]])
    effective = 6 / (1 - 6 / 30)
    shifted = w[-1] + found.along(V[:, -1]) * 6 / effective / w[-1]
    if prediction.separated[-1]:
        assert prediction.eigenvalues[-1] == pytest.approx(shifted, rel=1e-9)
    assert found.predicted(30).largest == pytest.approx(w[-1], rel=1e-6)  # a batch of all examples
    assert found.predicted(6, eigenvalues=w[[0, -1]]).variance == pytest.approx(found.isotropic * 6 / effective)
    assert found.at(12) == pytest.approx(found.isotropic / 2)
    assert found.predicted(4).learning_rate_cap() < found.predicted(20).learning_rate_cap()


def test_several_directions_and_files(tmp_path):
    objective = in_torch(batch_size=6)
    V = np.linalg.eigh(dense(objective))[1]
    found = hessian_variance(objective, direction=V[:, :2])
    assert [one.value for one in found.directional] == pytest.approx([found.along(V[:, 0]), found.along(V[:, 1])])
    found.save(tmp_path / "variance.npz")
    again = ls.load(tmp_path / "variance.npz")
    assert again.isotropic == found.isotropic and again.directional == found.directional and "V_u" in str(again)
    with pytest.raises(ValueError, match="holds no batches"):
        again.along(V[:, 0])


def test_progress_counts_batches():
    calls = []
    hessian_variance(in_torch(batch_size=6), direction=np.ones(43), progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (10, 10) and [done for done, _ in calls] == list(range(1, 11))


def test_what_cannot_be_done_is_said():
    with pytest.raises(ValueError, match=r"has only 1 of them; make it with a smaller batch_size"):
        hessian_variance(in_torch())
    objective = in_torch(batch_size=6)
    for direction in (np.zeros(43), np.ones(5), np.full(43, np.nan)):
        with pytest.raises(ValueError, match="direction"):
            hessian_variance(objective, direction=direction)
    with pytest.raises(TypeError, match="objective"):
        hessian_variance(np.eye(3))
    with pytest.raises(MemoryError, match="memory_budget"):
        hessian_variance(objective, memory_budget=100)
    with pytest.raises(ValueError, match="num_probes"):
        hessian_variance(objective, num_probes=0)
    same = regression(np.ones((8, 2)), np.zeros(8), np.zeros(2), batch_size=2)
    found = hessian_variance(same)
    assert found.isotropic == pytest.approx(0.0, abs=1e-28)


def test_nothing_of_the_model_changes():
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    x, y = torch.randn(20, 3), torch.randint(0, 2, (20,))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hessian_variance(ls.objective(model, "cross_entropy", (x, y), batch_size=5, batch_norm="train"), num_probes=2)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters()) and model.training
