"""``evolve``: spectra over saved checkpoints."""
import json

import numpy as np
import pytest

import linop_spectra as ls

torch = pytest.importorskip("torch")

NETWORK = (
    "import torch\n"
    "def make():\n"
    "    torch.manual_seed(0)\n"
    "    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()\n"
    "    data = torch.randn(30, 3, dtype=torch.float64), torch.randn(30, 2, dtype=torch.float64)\n"
    "    return ls.objective(model, 'mse', data)\n"
)


@pytest.fixture
def checkpoints(script, tmp_path):
    """The target, the objective, and state dicts of three moments as files."""
    path = script(NETWORK)
    namespace = {"ls": ls}
    exec(NETWORK, namespace)
    objective = namespace["make"]()
    files = []
    for step, scale in ((0, 1.0), (10, 1.5), (20, 2.0)):
        state = {name: torch.as_tensor(array) for name, array in objective.unflatten(scale * objective.parameters()).items()}
        files.append(tmp_path / f"step-{step}.pt")
        torch.save(state, files[-1])
    return f"{path}:make", objective, files


def test_follows_the_largest_eigenvalues(command, checkpoints, tmp_path):
    target, objective, files = checkpoints
    done = command("evolve", target, *files, "-k", 2, "--steps", 12, "--learning-rate", 0.5, "--out", "out")
    assert (done.status, done.err) == (0, "")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"summary.json", "evolution.npz", "evolution.png", "ridge.png", "checkpoints"}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [row["step"] for row in summary["rows"]] == [0, 10, 20] and {row["threshold"] for row in summary["rows"]} == {4.0}
    for scale, found in zip((1.0, 1.5, 2.0), summary["eigenvalues"], strict=True):
        own = objective.with_parameters(scale * objective.parameters())
        np.testing.assert_allclose(found, np.linalg.eigvalsh(own.hessian().to_dense())[:-3:-1], rtol=1e-3)
    assert len(ls.load(tmp_path / "out" / "evolution.npz")) == 3 and "overlap" in done.out


def test_a_second_run_goes_on_from_what_is_kept(command, checkpoints, tmp_path):
    target, _, files = checkpoints
    common = ("-k", 2, "--steps", 8, "--out", "out", "--quiet")
    assert command("evolve", target, *files[:2], *common).out == ""
    kept = [path.stat().st_mtime_ns for path in sorted((tmp_path / "out" / "checkpoints").iterdir())]
    assert command("evolve", target, *files, *common).status == 0
    again = [path.stat().st_mtime_ns for path in sorted((tmp_path / "out" / "checkpoints").iterdir())]
    assert again[:2] == kept and len(again) == 3


def test_what_does_not_fit_is_one_sentence(command, checkpoints, matrix):
    target, _, files = checkpoints
    for arguments, word in (
        ((target, "absent.pt"), "absent.pt"), ((matrix, files[0]), "Objective"), ((target, files[0], "--learning-rate", "fast"), "fast"),
        ((target,), "CHECKPOINT"),
    ):  # fmt: skip
        done = command("evolve", *arguments)
        assert done.status == 2 and word in done.sentence
