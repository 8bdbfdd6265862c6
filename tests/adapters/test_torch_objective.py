"""The life of an objective: copies, other parameters, other data, parts."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import linop_spectra as ls  # noqa: E402

nn = torch.nn
cross_entropy = nn.functional.cross_entropy


def setting(n=24):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)).double().eval()
    model[1].running_mean.normal_()
    return model, torch.randn(n, 4, dtype=torch.float64), torch.arange(n) % 3


def test_later_training_does_not_change_the_objective():
    model, x, y = setting()
    objective = ls.objective(model, "cross_entropy", (x, y))
    hessian, ggn = objective.hessian(), objective.ggn()
    v = np.ones(objective.num_parameters)
    started = ls.objective(model, "cross_entropy", (x, y)).hessian()
    before = started @ v, ggn.objective.value(), objective.gradient()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model.train()
    for _ in range(3):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
    np.testing.assert_array_equal(hessian @ v, before[0])
    np.testing.assert_array_equal(started @ v, before[0])
    assert objective.value() == before[1]
    np.testing.assert_array_equal(objective.gradient(), before[2])
    assert ls.objective(model, "cross_entropy", (x, y), batch_norm="eval").value() != before[1]


def test_with_parameters_from_vectors_mappings_and_files(tmp_path):
    model, x, y = setting()
    objective = ls.objective(model, "cross_entropy", (x, y))
    theta = objective.parameters()
    other, _, _ = setting()
    with torch.no_grad():
        for p in other.parameters():
            p.add_(0.1)
        other[1].running_mean.add_(1.0)
    expected = ls.objective(other, "cross_entropy", (x, y))
    torch.save(other.state_dict(), tmp_path / "weights.pt")
    torch.save({"state_dict": {f"module.{k}": v for k, v in other.state_dict().items()}, "epoch": 3}, tmp_path / "wrapped.pt")
    np.savez(tmp_path / "weights.npz", **{k: v.numpy() for k, v in other.state_dict().items()})
    sources = [other.state_dict(), tmp_path / "weights.pt", str(tmp_path / "wrapped.pt"), tmp_path / "weights.npz"]
    for source in sources:
        moved = objective.with_parameters(source)
        # Running statistics belong to a checkpoint: they must come along.
        assert moved.value() == expected.value(), source
        np.testing.assert_array_equal(moved.hessian() @ theta, expected.hessian() @ theta)
        assert moved.functions is objective.functions
        assert moved.data is objective.data
    moved = objective.with_parameters(theta + 0.1)
    np.testing.assert_allclose(moved.parameters(), expected.parameters(), rtol=1e-15)
    assert moved.value() != expected.value()  # its buffers are the first ones
    np.testing.assert_array_equal(objective.parameters(), theta)
    theta += 1  # a copy: neither objective changes
    np.testing.assert_allclose(moved.parameters(), expected.parameters(), rtol=1e-15)


def test_a_subset_of_parameters_takes_the_others_from_the_checkpoint():
    model, x, y = setting()
    objective = ls.objective(model, "cross_entropy", (x, y), parameters="3.*")
    state = {name: value + 0.2 if value.is_floating_point() else value for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    assert objective.with_parameters(state).value() == pytest.approx(cross_entropy(model(x), y).item(), rel=1e-13)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (np.ones(3), ValueError, r"shape \(53,\), but the one given has \(3,\)"),
        ({"0.weight": torch.zeros(5, 4)}, ValueError, "lack '0.bias'"),
        ("no/such/file.pt", FileNotFoundError, "no file"),
        (np.ones(53) * 1j, TypeError, "complex"),
    ],
)
def test_parameters_that_do_not_fit(source, error, message):
    model, x, y = setting()
    objective = ls.objective(model, "cross_entropy", (x, y))
    assert objective.num_parameters == 53
    with pytest.raises(error, match=message):
        objective.with_parameters(source)


def test_files_that_are_no_state_dicts(tmp_path):
    model, x, y = setting()
    objective = ls.objective(model, "cross_entropy", (x, y))
    torch.save(model, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"save model.state_dict\(\)"):
        objective.with_parameters(tmp_path / "model.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="holds a list"):
        objective.with_parameters(tmp_path / "list.pt")
    (tmp_path / "weights.txt").write_text("1 2 3")
    with pytest.raises(ValueError, match="no known kind"):
        objective.with_parameters(tmp_path / "weights.txt")
    wrong = dict(model.state_dict()) | {"0.weight": torch.zeros(4, 5)}
    with pytest.raises(ValueError, match=r"'0.weight' has shape \(5, 4\)"):
        objective.with_parameters(wrong)


def test_flatten_and_unflatten_are_inverse():
    model, x, y = setting()
    objective = ls.objective(model, "cross_entropy", (x, y))
    theta = objective.parameters()
    tree = objective.unflatten(theta)
    assert list(tree) == list(objective.blocks) == [name for name, _ in model.named_parameters()]
    for name, parameter in model.named_parameters():
        assert torch.equal(tree[name], parameter)
        np.testing.assert_array_equal(theta[objective.blocks[name]], parameter.detach().numpy().ravel())
    np.testing.assert_array_equal(objective.flatten(tree), theta)
    np.testing.assert_array_equal(objective.flatten(list(tree.values())), theta)
    tree["0.weight"].zero_()
    np.testing.assert_array_equal(objective.parameters(), theta)
    with pytest.raises(ValueError, match="lack"):
        objective.flatten({"0.weight": tree["0.weight"]})
    with pytest.raises(ValueError, match="2 arrays were given"):
        objective.flatten(list(tree.values())[:2])


def test_with_data_shares_everything_else():
    model, x, y = setting()
    objective = ls.objective(model, "cross_entropy", (x, y), batch_size=7, weight_decay=0.1)
    part = objective.with_data((x[:10].numpy(), y[:10]))
    assert part.functions is objective.functions
    assert part.num_examples == 10
    assert part.value() == ls.objective(model, "cross_entropy", (x[:10], y[:10]), batch_size=7, weight_decay=0.1).value()
    with pytest.raises(TypeError, match="one-shot"):
        objective.with_data(iter([(x, y)]))


def test_batches_one_by_one():
    model, x, y = setting()
    objective = ls.objective(model, "cross_entropy", (x, y), batch_size=10)
    parts = objective.per_batch()
    assert [part.num_examples for part in parts] == [10, 10, 4]
    mean = sum(part.num_examples * part.gradient() for part in parts) / 24
    np.testing.assert_allclose(mean, objective.gradient(), atol=1e-15)
    assert parts[2].value() == pytest.approx(cross_entropy(model(x[20:]), y[20:]).item(), rel=1e-13)


@pytest.mark.parametrize("batch_size", [None, 7])
@pytest.mark.parametrize("one_hot", [False, True])
def test_balanced_subset(batch_size, one_hot):
    model, x, y = setting()
    y[:6] = 0
    targets = nn.functional.one_hot(y, 3).double() if one_hot else y
    objective = ls.objective(model, "cross_entropy", (x, targets), batch_size=batch_size)
    subset = objective.subset(2, seed=1)
    assert subset.num_examples == 6
    labels = np.concatenate([objective.functions.labels(batch) for batch in subset.batches()])
    np.testing.assert_array_equal(np.bincount(labels), [2, 2, 2])
    rows = torch.cat([batch[0] for batch in subset.batches()])
    assert all(any(torch.equal(row, known) for known in x) for row in rows)
    assert subset.value() == objective.subset(2, seed=1).value()
    # The same choice whatever the batches.
    assert subset.value() == pytest.approx(ls.objective(model, "cross_entropy", (x, targets)).subset(2, seed=1).value(), rel=1e-13)
    assert subset.value() != objective.subset(2, seed=2).value()
    with pytest.raises(ValueError, match=r"class 0 has only 12 examples"):
        objective.subset(20)
    with pytest.raises(ValueError, match="per_class is 0"):
        objective.subset(0)


def test_subset_needs_classes():
    _, x, _ = setting()
    for targets in (torch.rand(24, 3), torch.rand(24, 1)):
        model = nn.Linear(4, targets.shape[1])
        with pytest.raises(TypeError, match="one class for each example"):
            ls.objective(model, "mse", (x, targets)).subset(1)


def test_operators_share_nothing_and_free_their_graphs():
    import gc
    import weakref

    model, x, y = setting()
    objective = ls.objective(model, "cross_entropy", (x, y))
    hessian = objective.hessian()
    _ = hessian @ objective.parameters()
    kept = weakref.ref(hessian._linearizations._kept[0])
    gc.disable()
    try:
        del hessian
        assert kept() is None  # no reference cycle holds the memory
    finally:
        gc.enable()
