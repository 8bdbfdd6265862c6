"""``landscape``: what it writes and prints, and what it refuses."""
import json
import pathlib
import re
import signal
import time

import numpy as np
import pytest

import linop_spectra as ls

torch = pytest.importorskip("torch")

TARGET = (
    "import torch\n"
    "def make():\n"
    "    torch.manual_seed(0)\n"
    "    model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double()\n"
    "    return ls.objective(model, 'cross_entropy', (torch.randn(40, 5).double(), torch.randint(0, 3, (40,))))\n"
)


def test_writes_picture_result_and_summary(command, script, tmp_path):
    path = script(TARGET)
    done = command("landscape", f"{path}:make", "--count", 2, "--points", 5, "--span", 0.5, "--accuracy", "--out", "out", "--seed", 3)
    assert (done.status, done.err) == (0, "")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"landscape.png", "landscape.npz", "landscape.json"}
    assert (tmp_path / "out" / "landscape.png").read_bytes().startswith(b"\x89PNG")
    summary = json.loads((tmp_path / "out" / "landscape.json").read_text())
    line = ls.load(tmp_path / "out" / "landscape.npz")
    np.testing.assert_array_equal(line.distances, np.linspace(-0.5, 0.5, 5))
    np.testing.assert_array_equal(summary["loss"], line.loss)
    np.testing.assert_array_equal(summary["metrics"]["accuracy"], line.metrics["accuracy"])
    assert summary["status"] == "complete" and summary["num_points"] == summary["num_evaluated"] == 10 and summary["seed"] == 3
    assert summary["curvature"] == sorted(summary["curvature"], reverse=True) and summary["error"] is None
    assert "loss at the centre" in done.out and "10 of 10" in done.out


HELD_OUT = TARGET + (
    "def with_data():\n"
    "    o = make()\n"
    "    return o, (torch.randn(15, 5).double(), torch.randint(0, 3, (15,)))\n"
    "def with_objective():\n"
    "    o, data = with_data()\n"
    "    return o, o.with_data(data)\n"
    "def wrong_data():\n"
    "    return make(), 'nothing'\n"
    "def other_model():\n"
    "    m = torch.nn.Linear(5, 3).double()\n"
    "    return make(), ls.objective(m, 'cross_entropy', with_data()[1])\n"
)


@pytest.mark.parametrize("factory", ["with_data", "with_objective"])
def test_held_out_data(command, script, factory):
    path = script(HELD_OUT)
    options = ("--directions", "random", "--points", 3, "--accuracy", "--out", "out")
    done = command("landscape", f"{path}:{factory}", "--held-out", *options)
    assert (done.status, done.err) == (0, "")
    line, summary = ls.load("out/landscape.npz"), json.loads(pathlib.Path("out/landscape.json").read_text())
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double()
    torch.randn(40, 5), torch.randint(0, 3, (40,))
    x, y = torch.randn(15, 5).double(), torch.randint(0, 3, (15,))
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(model(x), y).item()
        share = (model(x).argmax(dim=1) == y).double().mean().item()
    assert line.held_out_loss[0, 1] == summary["held_out_loss"][0][1] == pytest.approx(expected, rel=1e-12)
    assert line.held_out_metrics["accuracy"][0, 1] == summary["held_out_metrics"]["accuracy"][0][1] == pytest.approx(share)
    assert abs(line.loss[0, 1] - expected) > 1e-3 and "held-out loss" in done.out
    # Without the argument, and for other commands, the pair is the objective.
    plain = command("landscape", f"{path}:{factory}", *options)
    assert plain.status == 0 and ls.load("out/landscape.npz").held_out_loss is None
    assert command("eigs", f"{path}:{factory}", "-k", 1, "--quiet").status == 0


@pytest.mark.parametrize("factory, text", [
    ("make", "gives none; return .objective, held_out."), ("wrong_data", "held-out data"), ("other_model", "other parameters"),
])  # fmt: skip
def test_held_out_data_that_do_not_fit(command, script, factory, text):
    done = command("landscape", f"{script(HELD_OUT)}:{factory}", "--held-out", "--directions", "random")
    assert done.status == 2
    assert re.search(text, done.sentence), done.sentence


@pytest.mark.parametrize("directions", ["bottom", "random", "filter"])
def test_plane(command, script, directions):
    path = script(TARGET)
    done = command("landscape", f"{path}:make", "--plane", "--directions", directions, "--points", 3, "--span", 1e-3, "--out", "out")
    assert (done.status, done.err) == (0, "")
    plane = ls.load("out/landscape.npz")
    assert plane.loss.shape == (3, 3) and plane.loss[1, 1] == plane.value
    np.testing.assert_allclose(plane.loss, plane.quadratic(), atol=1e-7)


def test_stops_in_time_and_goes_on(command, script):
    path = script(TARGET)
    part = command("landscape", f"{path}:make", "--directions", "random", "--time-budget", "0.000001", "--checkpoint", "state", "--quiet")
    assert (part.status, part.out) == (0, "")
    assert json.loads(pathlib.Path("landscape-output/landscape.json").read_text())["status"] == "time budget"
    whole = command("landscape", f"{path}:make", "--directions", "random", "--checkpoint", "state")
    assert whole.status == 0 and "21 of 21" in whole.out


def test_killed_and_interrupted_runs_go_on_to_the_same_bits(command, script, start, tmp_path, monkeypatch):
    path = script(
        "import os, pathlib, signal, time, torch\n"
        "class Stopped(torch.nn.Conv1d):\n"
        "    def forward(self, x):\n"
        "        open('passes', 'a').write('x')\n"
        "        if os.path.exists('stop') and os.path.exists('state'):\n"
        "            how, after = pathlib.Path('stop').read_text().split()\n"
        "            if os.path.getsize('passes') >= int(after):\n"
        "                os.remove('stop')\n"
        "                signal.raise_signal(signal.SIGINT) if how == 'interrupt' else time.sleep(60)\n"
        "        return super().forward(x[:, None])[..., 0]\n"
        "def make():\n"
        "    torch.manual_seed(0)\n"
        "    return ls.objective(Stopped(1, 3, 5).double(), 'cross_entropy', (torch.randn(40, 5).double(), torch.randint(0, 3, (40,))))\n"
    )
    often = "import linop_spectra.landscape.checkpoint as c\nc.CHECKPOINT_SECONDS = 0"  # instead of ten
    common = ("landscape", f"{path}:make", "--plane", "--points", 9, "--directions", "random", "--accuracy", "--quiet")

    def stop(how):
        """Stop after thirty passes from now, once there is a checkpoint."""
        (tmp_path / "stop").write_text(f"{how} {(tmp_path / 'passes').stat().st_size + 30}")

    assert command(*common, "--out", "whole").status == 0
    stop("kill")
    process = start(*common, "--out", "resumed", "--checkpoint", "state", first=often)
    end = time.monotonic() + 60
    while (tmp_path / "stop").exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "resumed" / "landscape.json").exists()

    stop("interrupt")
    monkeypatch.setattr("linop_spectra.landscape.checkpoint.CHECKPOINT_SECONDS", 0)
    interrupted = command(*common, "--out", "resumed", "--checkpoint", "state")
    assert interrupted.status == 130 and "Interrupted" in interrupted.err, interrupted.err
    part = ls.load(tmp_path / "resumed" / "landscape.npz")
    assert part.status == "interrupted" and 0 < part.evaluated.sum() < 81
    assert command(*common, "--out", "resumed", "--checkpoint", "state").status == 0
    one, other = (ls.load(tmp_path / name / "landscape.npz") for name in ("whole", "resumed"))
    assert other.status == "complete"
    np.testing.assert_array_equal(one.loss, other.loss)
    np.testing.assert_array_equal(one.metrics["accuracy"], other.metrics["accuracy"])


def test_bad_input_is_one_sentence(command, script, matrix):
    path = script(TARGET + "def broken():\n    o = make()\n    return o.with_parameters(float('nan') * o.parameters())\n")
    for arguments, text in [
        ((matrix,), "needs an Objective"),
        ((f"{path}:absent",), "'absent'"),
        ((f"{path}:make", "--span", "-1"), "--span must|--span is"),
        ((f"{path}:make", "--span", "far"), "no number"),
        ((f"{path}:make", "--points", 1), "--points must be at least 2"),
        ((f"{path}:make", "--count", 0), "--count must be at least 1"),
        ((f"{path}:make", "--plane", "--count", 3), "--count is for lines"),
        ((f"{path}:make", "--batch-norm", "re-estimate"), "no batch normalisation layer"),
        ((f"{path}:make", "--checkpoint", "no/state"), "no folder"),
        ((f"{path}:broken", "--directions", "random"), "not finite"),
    ]:
        done = command("landscape", *arguments)
        assert done.status == 2
        assert re.search(text, done.sentence), done.sentence
