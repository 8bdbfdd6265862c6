"""The loss along lines: exact where it is known, resumable, and without side effects."""

import numpy as np
import pytest
from landscape_networks import HELD_X, HELD_Y, MAKERS, TARGET, X, Y, arrays, classifier, cross_entropy, held_out, logits, regression

import linop_spectra as ls
import linop_spectra.landscape as landscape

T = np.linspace(-1.5, 2.0, 8)


def direction_of(objective, seed=0):
    return np.random.default_rng(seed).standard_normal(objective.num_parameters)


@pytest.mark.parametrize("framework", MAKERS)
def test_line_of_a_quadratic_is_exact(framework):
    objective = regression(framework)
    d = direction_of(objective)
    line = landscape.line(objective, d, T, quadratic=True)
    theta = np.asarray(objective.parameters())
    for t, loss in zip(T, line.loss, strict=True):
        ((w, b),) = arrays(objective, theta + t * d)
        assert loss == pytest.approx(np.mean((X @ w.T + b - TARGET) ** 2), rel=1e-12)
    np.testing.assert_allclose(line.quadratic(), line.loss, rtol=1e-11)
    assert line.curvature == pytest.approx(d @ np.asarray(objective.hessian().to_dense()) @ d, rel=1e-12)
    assert line.num_matvecs == 1 and line.converged and line.evaluated.all()


@pytest.mark.parametrize("framework", MAKERS)
def test_loss_and_accuracy_of_a_classifier(framework):
    objective = classifier(framework, batch_size=8)
    d = direction_of(objective)
    line = landscape.line(objective, d, T, metrics="accuracy", held_out=held_out(objective))
    for i, t in enumerate(T):
        theta = np.asarray(objective.parameters()) + t * d
        own, other = logits(objective, theta), logits(objective, theta, HELD_X)
        assert line.loss[i] == pytest.approx(cross_entropy(own, Y), rel=1e-12)
        assert line.held_out_loss[i] == pytest.approx(cross_entropy(other, HELD_Y), rel=1e-12)
        assert line.metrics["accuracy"][i] == np.mean(own.argmax(axis=1) == Y)
        assert line.held_out_metrics["accuracy"][i] == np.mean(other.argmax(axis=1) == HELD_Y)
    assert len(np.unique(line.metrics["accuracy"])) > 1


@pytest.mark.parametrize("framework", MAKERS)
def test_eigenvectors_bring_their_quadratic_model(framework):
    objective = classifier(framework)
    pairs = ls.eigsh(objective.hessian(), k=2, which="LA", tol=1e-9)
    t = np.linspace(-1e-3, 1e-3, 5)
    line = landscape.line(objective, pairs, t)
    assert line.loss.shape == (2, 5) and line.direction.shape == (objective.num_parameters, 2)
    np.testing.assert_allclose(line.loss, line.quadratic(), atol=1e-8)
    np.testing.assert_array_equal(line.curvature, pairs.eigenvalues[::-1])
    assert np.abs(line.quadratic() - line.value - line.slope[:, None] * t).max() > 1e-8  # the curvature counts


def test_quadratic_model_of_eigenpairs_and_of_another_matrix():
    objective = classifier("torch")
    h, g = (np.asarray(m.to_dense()) for m in (objective.hessian(), objective.ggn()))
    d = direction_of(objective)
    values, vectors = np.linalg.eigh(h)
    pairs = ls.eigsh(objective.hessian(), k=3, which="LA", tol=1e-10)
    few = landscape.line(objective, d, [0.0], quadratic=pairs)
    assert few.curvature == pytest.approx(np.sum(values[-3:] * (vectors[:, -3:].T @ d) ** 2), rel=1e-6)
    assert few.num_matvecs == 0
    assert landscape.line(objective, d, [0.0], quadratic=objective.ggn()).curvature == pytest.approx(d @ g @ d, rel=1e-10)
    assert few.slope == pytest.approx(np.asarray(objective.gradient()) @ d)
    assert few.value == objective.value()
    plain = landscape.line(objective, d, [0.0])
    assert plain.value is None
    with pytest.raises(ValueError, match="quadratic=True"):
        plain.quadratic()


def test_distances_count_multiples_of_the_direction_in_the_order_given():
    objective = classifier("torch")
    d = direction_of(objective)
    line = landscape.line(objective, 2 * d, [0.5, -0.25, 0.0])
    expected = landscape.line(objective, d, [0.0, 1.0, -0.5])
    np.testing.assert_array_equal(line.loss, expected.loss[[1, 2, 0]])
    assert line.loss[2] == objective.value()
    named = landscape.line(objective, objective.unflatten(2 * d), [0.5])
    np.testing.assert_array_equal(named.loss, line.loss[:1])


def test_weights_before_normalisation_have_no_scale():
    """Euler: a loss that does not change with the scale of a weight is flat along it, and its gradient is orthogonal to it."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    first = torch.nn.Linear(4, 6, bias=False), torch.nn.BatchNorm1d(6, eps=1e-16)
    model = torch.nn.Sequential(*first, torch.nn.Tanh(), torch.nn.Linear(6, 3))
    data = torch.randn(20, 4, dtype=torch.float64), torch.randint(0, 3, (20,))
    objective = ls.objective(model.double(), "cross_entropy", data, batch_norm="train")
    d = np.zeros(objective.num_parameters)
    d[objective.blocks["0.weight"]] = np.asarray(objective.parameters())[objective.blocks["0.weight"]]
    line = landscape.line(objective, d, [-0.9, -0.5, 0.0, 1.0, 9.0], quadratic=True)
    np.testing.assert_allclose(line.loss, objective.value(), rtol=1e-12)
    assert abs(line.slope) < 1e-12 and abs(line.curvature) < 1e-11
    rest = landscape.line(objective, np.where(d == 0, 1.0, 0.0), [-0.5, 0.5])
    assert np.ptp(rest.loss) > 1e-3


# -- metrics ---------------------------------------------------------------------------------------------------------------


def test_metrics_by_function_and_by_name():
    objective = classifier("torch")

    def norm(there):
        return np.linalg.norm(there.parameters())

    d = direction_of(objective)
    line = landscape.line(objective, d, [0.0, 1.0], metrics=["accuracy", norm])
    assert list(line.metrics) == ["accuracy", "norm"]
    assert line.metrics["norm"][1] == pytest.approx(np.linalg.norm(objective.parameters() + d), rel=1e-14)
    assert list(landscape.line(objective, d, [0.0], metrics={"size": norm}).metrics) == ["size"]
    wrong = [("error", ValueError, "only 'accuracy'"), ([norm, norm], ValueError, "same name"), ({"a": 3}, TypeError, "int")]
    for metrics, error, text in wrong:
        with pytest.raises(error, match=text):
            landscape.line(objective, d, [0.0], metrics=metrics)


def test_accuracy_ignores_masked_positions_and_refuses_other_losses():
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    model = torch.nn.Conv1d(2, 3, 1).double()  # classes along dimension 1, a position each
    x, y = torch.randn(7, 2, 5, dtype=torch.float64), torch.randint(0, 3, (7, 5))
    y[torch.rand(7, 5) < 0.4] = -100
    objective = ls.objective(model, "cross_entropy", (x, y), batch_size=3)
    line = landscape.line(objective, direction_of(objective), [0.0], metrics="accuracy")
    used = y >= 0
    assert line.metrics["accuracy"][0] == pytest.approx((model(x).argmax(dim=1) == y)[used].double().mean().item(), rel=1e-15)
    with pytest.raises(TypeError, match="'accuracy' needs softmax"):
        landscape.line(regression("torch"), direction_of(regression("torch")), [0.0], metrics="accuracy")


# -- what is not finite ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framework", MAKERS)
def test_losses_that_overflow_are_kept_as_nan_and_said(framework):
    objective = classifier(framework)
    d = np.full(objective.num_parameters, 1e308)
    with np.errstate(over="ignore"), pytest.warns(UserWarning, match="not finite at 2 of 4 points"):
        line = landscape.line(objective, d, [0.0, 1.0, 1e-310, -1.7], metrics="accuracy")
    np.testing.assert_array_equal(np.isfinite(line.loss), [True, False, True, False])
    assert np.isnan(line.loss[[1, 3]]).all() and line.evaluated.all() and line.converged
    assert "not finite at 2" in str(line)


# -- cut short and continued -----------------------------------------------------------------------------------------------


class Stops:
    """A metric that fails at one of the points."""

    __name__ = "stops"

    def __init__(self, after, error):
        self.left, self.error = after, error

    def __call__(self, objective):
        self.left -= 1
        if self.left < 0:
            raise self.error
        return objective.value() ** 2


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("disk on fire")])
def test_resumed_is_the_uninterrupted_run_bit_for_bit(tmp_path, error):
    objective = classifier("torch", batch_size=8)
    other = held_out(objective)
    d = direction_of(objective)
    whole = landscape.line(objective, d, T, metrics=Stops(99, error), held_out=other)
    options = {"held_out": other, "checkpoint": tmp_path / "line.npz"}
    if isinstance(error, KeyboardInterrupt):
        part = landscape.line(objective, d, T, metrics=Stops(7, error), **options)
    else:
        with pytest.raises(landscape.LandscapeInterrupted, match=r"after 3 others \(RuntimeError: disk on fire\)") as caught:
            landscape.line(objective, d, T, metrics=Stops(7, error), **options)
        part = caught.value.partial
        assert caught.value.step == 3 and caught.value.__cause__ is error
    assert part.status == "interrupted" and not part.converged and part.evaluated.sum() == 3
    assert set(np.flatnonzero(part.evaluated)) == set(np.argsort(np.abs(T))[:3])  # the middle first
    np.testing.assert_array_equal(part.loss[part.evaluated], whole.loss[part.evaluated])
    assert np.isnan(part.loss[~part.evaluated]).all()
    counter = Stops(99, error)
    resumed = landscape.line(objective, d, T, metrics=counter, **options)
    assert counter.left == 99 - 2 * 6  # five points, and the one that is checked
    for name in ("loss", "held_out_loss"):
        np.testing.assert_array_equal(getattr(resumed, name), getattr(whole, name))
    np.testing.assert_array_equal(resumed.metrics["stops"], whole.metrics["stops"])
    np.testing.assert_array_equal(resumed.held_out_metrics["stops"], whole.held_out_metrics["stops"])


def test_a_first_point_that_fails_raises_as_it_is():
    objective = classifier("torch")
    with pytest.raises(KeyError):
        landscape.line(objective, direction_of(objective), T, metrics=Stops(0, KeyError("x")))
    with pytest.raises(KeyboardInterrupt):
        landscape.line(objective, direction_of(objective), T, metrics=Stops(0, KeyboardInterrupt()))


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    objective = classifier("torch")
    d, path = direction_of(objective), tmp_path / "line.npz"
    landscape.line(objective, d, T, checkpoint=path)
    with pytest.raises(ValueError, match="directions or distances"):
        landscape.line(objective, d, T + 1, checkpoint=path)
    with pytest.raises(ValueError, match="directions or distances"):
        landscape.line(objective, d + 1, T, checkpoint=path)
    with pytest.raises(ValueError, match="its parameters are not"):
        landscape.line(objective.with_parameters(d), d, T, checkpoint=path)
    with pytest.raises(ValueError, match="its metrics are not"):
        landscape.line(objective, d, T, checkpoint=path, metrics="accuracy")
    with pytest.raises(ValueError, match="another objective"):
        landscape.line(held_out(objective), d, T, checkpoint=path)
    pair = {"checkpoint": tmp_path / "pair.npz", "held_out": held_out(objective)}
    landscape.line(objective, d, T, **pair)
    with pytest.raises(ValueError, match="the held-out loss is"):
        landscape.line(objective, d, T, **pair | {"held_out": objective})
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="damaged"):
        landscape.line(objective, d, T, checkpoint=path)
    with pytest.raises(OSError, match="folder is missing"):
        landscape.line(objective, d, T, checkpoint=tmp_path / "no" / "line.npz")


def test_time_budget_and_progress():
    objective = classifier("torch")
    seen = []
    line = landscape.line(objective, direction_of(objective), T, time_budget=1e-9, progress=lambda done, total: seen.append((done, total)))
    assert line.status == "time budget" and line.evaluated.sum() == 1 and seen == [(1, 8)]
    with pytest.raises(ValueError, match="time_budget"):
        landscape.line(objective, direction_of(objective), T, time_budget=-1)


# -- arguments and files -----------------------------------------------------------------------------------------------------


def test_directions_and_distances_are_checked():
    objective = classifier("torch")
    n = objective.num_parameters
    good = np.ones(n)
    for d, text in [
        (np.ones(n - 1), rf"shape \({n - 1},\)"),
        (np.zeros(n), "is zero"),
        (np.where(np.arange(n) == 2, np.nan, 1.0), "not finite"),
        (np.stack([good, 0 * good], axis=1), "number 1.*zero"),
        (np.ones((n, 2, 2)), "shape"),
        (1j * good, "complex"),
        ("sideways", "one of 'random'"),
    ]:
        with pytest.raises(ValueError, match=text):
            landscape.line(objective, d, T)
    for t in ([], [[0.0]], [0.0, np.inf]):
        with pytest.raises(ValueError, match="list of finite numbers"):
            landscape.line(objective, good, t)
    with pytest.raises(TypeError, match="held_out is a tuple"):
        landscape.line(objective, good, T, held_out=(1, 2))
    with pytest.raises(ValueError, match="other parameters"):
        landscape.line(objective, good, T, held_out=regression("torch"))
    with pytest.raises(TypeError, match="quadratic is a str"):
        landscape.line(objective, good, T, quadratic="yes")
    with pytest.raises(ValueError, match=r"quadratic has shape \(3, 3\)"):
        landscape.line(objective, good, T, quadratic=np.eye(3))
    with pytest.raises(ValueError, match="'keep' or 're-estimate'"):
        landscape.line(objective, good, T, batch_norm="train")


def test_what_is_saved_comes_back(tmp_path):
    objective = classifier("torch")
    pairs = ls.eigsh(objective.hessian(), k=2, which="LA")
    line = landscape.line(objective, pairs, T, metrics="accuracy", held_out=held_out(objective))
    line.save(tmp_path / "line.npz")
    again = ls.load(tmp_path / "line.npz")
    assert str(again) == str(line) and again.labels == line.labels and again.value == line.value
    for name in ("distances", "loss", "held_out_loss", "direction", "slope", "curvature", "evaluated"):
        np.testing.assert_array_equal(getattr(again, name), getattr(line, name))
    np.testing.assert_array_equal(again.held_out_metrics["accuracy"], line.held_out_metrics["accuracy"])
    plain = landscape.line(objective, "random", T)
    plain.save(tmp_path / "plain.npz")
    assert ls.load(tmp_path / "plain.npz").held_out_loss is None


@pytest.mark.parametrize("framework", MAKERS)
def test_float32_models(framework):
    objective = classifier(framework, dtype="float32")
    line = landscape.line(objective, "filter_normalized", [-1.0, 0.0, 1.0], quadratic=True, metrics="accuracy")
    theta = np.asarray(objective.parameters(), dtype=np.float64)
    expected = [cross_entropy(logits(objective, (theta + t * line.direction).astype(np.float32)), Y) for t in line.distances]
    np.testing.assert_allclose(line.loss, expected, rtol=1e-5)
    assert line.loss[1] == objective.value() and line.direction.dtype == np.float32


def test_nothing_of_the_users_changes():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.Dropout(0.5), torch.nn.Linear(6, 3)).eval()
    model(torch.randn(5, 4)).sum().backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [p.grad.clone() for p in model.parameters()]
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    objective = ls.objective(model, "cross_entropy", (torch.randn(20, 4), torch.randint(0, 3, (20,))))
    drawn = torch.get_rng_state()
    for policy in ("keep", "re-estimate"):
        landscape.line(objective, "random", T, quadratic=True, metrics="accuracy", batch_norm=policy)
        landscape.plane(objective, "filter_normalized", "random", [-1.0, 1.0], batch_norm=policy)
    landscape.slices(objective, 3)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(torch.equal(old, p.grad) for old, p in zip(gradients, model.parameters(), strict=True))
    assert not any(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), drawn) and not torch.equal(state, drawn)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


@pytest.mark.parametrize("kind", ["line", "plane", "interpolate", "slices", "trajectory"])
def test_arrays_of_another_backend(kind):
    """Vectors of torch, as on a device without CuPy, give what NumPy's give."""
    found = []
    for backend in ("numpy", "torch:cpu"):
        objective = classifier("torch", backend=backend)
        d = objective.functions.backend.asarray(direction_of(objective))
        if kind == "line":
            pairs = ls.eigsh(objective.hessian(), k=2, which="LA", tol=1e-10)
            found.append(landscape.line(objective, d, T, quadratic=pairs).quadratic())
        elif kind == "plane":
            found.append(landscape.plane(objective, d, "random", T, quadratic=True).loss)
        elif kind == "interpolate":
            found.append(landscape.interpolate(objective, d).loss)
        elif kind == "slices":
            found.append(landscape.slices(objective, 5).curvatures)
        else:
            found.append(landscape.trajectory(objective, [d, 2 * d, 0 * d], 1).coordinates)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-8)
