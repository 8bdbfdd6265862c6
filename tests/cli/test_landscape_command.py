"""``landscape``: what it writes and prints, and what it refuses."""
import json
import pathlib
import re

import numpy as np
import pytest

import linop_spectra as ls

pytest.importorskip("torch")

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
