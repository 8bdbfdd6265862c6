"""The loop over steps: batches, checkpoints, interruptions."""

import numpy as np
import pytest
from descent_methods import Averaged

import linop_spectra as ls

torch = pytest.importorskip("torch")

X = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = X.sum(dim=1, keepdim=True)
BATCHES = [(X[i : i + 4], Y[i : i + 4]) for i in range(0, 12, 4)]


def objective():
    model = torch.nn.Linear(3, 1).double()
    with torch.no_grad():
        model.weight.zero_()
        model.bias.zero_()
    return ls.objective(model, "mse", (X, Y))


def test_batches_are_taken_in_turn():
    obj, method = objective(), Averaged(learning_rate=0.05)
    theta = obj.parameters()
    for step in range(5):
        theta, info = method.step(obj.with_data(BATCHES[step % 3]), theta)
    for given in (BATCHES, lambda step: BATCHES[step % 3]):
        run = ls.optim.minimize(Averaged(learning_rate=0.05), obj, 5, batches=given)
        np.testing.assert_array_equal(run.theta, theta)
        assert run.losses[-1] == info.loss and run.status == "complete" and len(run.infos) == 5 and run.num_matvecs == 0
    assert run.column("scale").shape == (5,) and np.isnan(run.column("scale")).all() and run.column("learning_rate")[0] == 0.05


def test_an_interrupted_run_goes_on_as_if_nothing_had_been(tmp_path):
    whole = ls.optim.minimize(Averaged(noise=0.01), objective(), 8, batches=BATCHES)
    path = tmp_path / "run.npz"

    def interrupt(info, theta):
        if info.step == 3:
            raise KeyboardInterrupt

    part = ls.optim.minimize(Averaged(noise=0.01), objective(), 8, batches=BATCHES, checkpoint=path, callback=interrupt)
    assert part.status == "interrupted" and len(part.infos) == 4
    rest = ls.optim.minimize(Averaged(noise=0.01), objective(), 8, batches=BATCHES, checkpoint=path)
    np.testing.assert_array_equal(rest.theta, whole.theta)
    np.testing.assert_array_equal(rest.losses, whole.losses)
    again = ls.optim.minimize(Averaged(noise=0.01), objective(), 8, batches=BATCHES, checkpoint=path)
    np.testing.assert_array_equal(again.theta, whole.theta)


def test_a_step_that_is_interrupted_leaves_state_and_parameters_together():
    class Late(Averaged):
        def step(self, objective, theta, *, curvature=None):
            out = super().step(objective, theta, curvature=curvature)
            if self.steps_taken == 3:
                raise KeyboardInterrupt
            return out

    method = Late()
    run = ls.optim.minimize(method, objective(), 5)
    assert run.status == "interrupted" and len(run.infos) == 2 == method.steps_taken
    theta, _ = Averaged.step(method, objective(), run.theta)
    np.testing.assert_array_equal(theta, ls.optim.minimize(Averaged(), objective(), 3).theta)


def test_runs_stop_when_asked(tmp_path):
    stopped = ls.optim.minimize(Averaged(), objective(), 10, callback=lambda info, theta: info.step == 2)
    assert stopped.status == "stopped" and len(stopped.infos) == 3
    late = ls.optim.minimize(Averaged(), objective(), 10, time_budget=0.0)
    assert late.status == "time budget" and not late.infos
    np.testing.assert_array_equal(late.theta, objective().parameters())
    seen = []
    ls.optim.minimize(Averaged(), objective(), 3, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_runs_are_saved(tmp_path):
    run = ls.optim.minimize(Averaged(), objective(), 3)
    run.save(tmp_path / "run.npz")
    back = ls.load(tmp_path / "run.npz")
    np.testing.assert_array_equal(back.theta, run.theta)
    assert str(back.infos) == str(run.infos) and back.status == "complete" and back.seconds == run.seconds


def test_bad_arguments_of_the_loop(tmp_path):
    with pytest.raises(ValueError, match="num_steps is -1"):
        ls.optim.minimize(Averaged(), objective(), -1)
    with pytest.raises(ValueError, match="list\\(loader\\)"):
        ls.optim.minimize(Averaged(), objective(), 1, batches=iter(BATCHES))
    with pytest.raises(ValueError, match="at least one"):
        ls.optim.minimize(Averaged(), objective(), 1, curvature_batches=[])
    Averaged().save(tmp_path / "state.npz")
    with pytest.raises(ValueError, match="no checkpoint of"):
        ls.optim.minimize(Averaged(), objective(), 1, checkpoint=tmp_path / "state.npz")
