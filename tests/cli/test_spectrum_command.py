"""``spectrum``: what it writes and prints, and where it stops early."""
import json
import re
import sys

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sparse

import linop_spectra as ls

SLOW = (
    "import time\n"
    "def make():\n"
    "    d = np.concatenate([np.linspace(-1, 1, 297), [10.0, 15.0, 20.0]])\n"
    "    def product(x):\n"
    "        time.sleep({pause})\n"
    "        return d * x\n"
    "    return ls.aslinearoperator(product, shape=(300, 300), dtype=float, hermitian=True)\n"
)


def test_writes_picture_result_and_summary(command, matrix, tmp_path):
    done = command("spectrum", matrix, "--steps", 40, "--probes", 2, "--seed", 3, "--out", "out")
    assert (done.status, done.err) == (0, "")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"spectrum.png", "spectrum.npz", "summary.json"}
    assert (tmp_path / "out" / "spectrum.png").read_bytes().startswith(b"\x89PNG")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    saved = ls.load(tmp_path / "out" / "spectrum.npz")
    expected = ls.spectral_density(np.load(matrix)["arr_0"], num_steps=40, num_probes=2, seed=3)
    np.testing.assert_array_equal(saved.nodes, expected.nodes)
    assert summary["largest_eigenvalue"]["value"] == pytest.approx(20.0, abs=1e-9)
    assert summary["smallest_eigenvalue"]["value"] == pytest.approx(-1.0, abs=0.05)
    assert summary["trace"]["low"] <= summary["trace"]["value"] <= summary["trace"]["high"]
    assert summary["trace"]["low"] <= 45.0 <= summary["trace"]["high"]
    assert 0 <= summary["negative_mass"]["low"] <= summary["negative_mass"]["high"] <= 1
    assert [round(outlier["value"], 6) for outlier in sorted(summary["outliers"], key=lambda o: o["value"])] == [10, 15, 20]
    assert (summary["status"], summary["seed"], summary["num_probes"], summary["num_steps"]) == ("complete", 3, 2, 40)
    assert summary["versions"]["linop-spectra"] == ls.__version__ and "--seed 3" in summary["command"]
    assert summary["error"] is None


def test_prints_the_table(command, matrix):
    done = command("spectrum", matrix)
    for name in ("dimension", "largest eigenvalue", "smallest eigenvalue", "trace", "negative mass", "outliers", "noise floor"):
        assert re.search(rf"^{name} +\S", done.out, re.MULTILINE), name
    assert "20 ±" in done.out and "spectrum-output" in done.out


def test_quiet_prints_nothing(command, matrix):
    done = command("spectrum", matrix, "--quiet")
    assert (done.status, done.out, done.err) == (0, "", "")


@pytest.mark.parametrize("name", ["m.mtx", "m.mtx.gz", "sparse.npz", "dense.npz"])
def test_reads_every_matrix_format(command, tmp_path, name):
    matrix = sparse.diags_array([1.0, 2.0, 1.0], offsets=[-1, 0, 1], shape=(60, 60)).tocsr()
    if name == "sparse.npz":
        sparse.save_npz(tmp_path / name, matrix)
    elif name == "dense.npz":
        np.savez(tmp_path / name, matrix.toarray())
    else:
        plain = tmp_path / "m.mtx"
        scipy.io.mmwrite(plain, matrix, symmetry="symmetric")
        if name.endswith(".gz"):
            import gzip

            (tmp_path / name).write_bytes(gzip.compress(plain.read_bytes()))
    done = command("spectrum", name, "--steps", 60, "--out", "out", "--quiet")
    assert (done.status, done.err) == (0, "")
    largest = json.loads((tmp_path / "out" / "summary.json").read_text())["largest_eigenvalue"]["value"]
    assert largest == pytest.approx(2 + 2 * np.cos(np.pi / 61), abs=1e-9)


@pytest.mark.parametrize(
    "body",
    ["return ls.diagonal_operator(np.arange(50.0))", "return np.diag(np.arange(50.0))",
     "import scipy.sparse as s; return s.diags_array(np.arange(50.0)).tocsr()",
     "import scipy.sparse.linalg as l; return l.aslinearoperator(np.diag(np.arange(50.0)))"],
    ids=["operator", "array", "sparse", "scipy"],
)
def test_a_factory_may_return_what_multiplies(command, script, body):
    path = script(f"def make():\n    {body}\n")
    done = command("spectrum", f"{path}:make", "--steps", 30)
    assert done.status == 0, done.err
    assert "49 ±" in done.out


def test_a_module_target_is_found_in_the_working_folder(command, script):
    script("def make(order=40):\n    return np.eye(order)\n", "spectrum_target_module.py")
    done = command("spectrum", "spectrum_target_module:make", "--steps", 5, "--quiet")
    assert (done.status, done.err) == (0, "")


def test_matrices_of_an_objective(command, script, tmp_path):
    pytest.importorskip("torch")
    path = script(
        "import torch\n"
        "def make():\n"
        "    torch.manual_seed(0)\n"
        "    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3)).double()\n"
        "    data = torch.randn(30, 4, dtype=torch.float64), torch.randint(0, 3, (30,))\n"
        "    return ls.objective(model, 'cross_entropy', data)\n"
    )
    smallest = {}
    for operator in ("hessian", "ggn"):
        done = command("spectrum", f"{path}:make", "--operator", operator, "--steps", 40, "--out", operator)
        assert done.status == 0, done.err
        summary = json.loads((tmp_path / operator / "summary.json").read_text())
        assert summary["operator"] == operator and summary["dimension"] == 51
        smallest[operator] = summary["smallest_eigenvalue"]["value"]
    assert smallest["hessian"] < -1e-3 and smallest["ggn"] > -1e-9
    default = command("spectrum", f"{path}:make", "--steps", 40)
    assert "hessian" in default.out


def test_dry_run_prints_the_plan_and_writes_nothing(command, matrix, tmp_path):
    done = command("spectrum", matrix, "--dry-run", "--steps", 30, "--probes", 2, "--out", "out")
    assert done.status == 0 and not (tmp_path / "out").exists()
    for part in ("30 steps from 2 probes", "products", "expected time", "basis", "expected interval width"):
        assert part in done.out


def test_more_steps_than_the_order_are_cut_with_a_line(command, tmp_path, script):
    path = script("def make():\n    return np.diag(np.arange(20.0))\n")
    done = command("spectrum", f"{path}:make", "--steps", 500, "--out", "out")
    assert done.status == 0 and "warning" in done.sentence and "500" in done.sentence and "20" in done.sentence
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["num_steps"] == 20


def test_spent_time_budget_is_marked_and_no_failure(command, script, tmp_path):
    path = script(SLOW.format(pause=0.02))
    done = command("spectrum", f"{path}:make", "--steps", 200, "--probes", 1, "--time-budget", "0.6s", "--out", "out")
    assert done.status == 0 and "time budget" in done.out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["status"] == "time budget" and 1 <= summary["num_steps"] < 200
    assert (tmp_path / "out" / "spectrum.png").exists()


def test_nan_keeps_the_steps_before_it(command, script, tmp_path):
    path = script(
        "calls = []\n"
        "def make():\n"
        "    d = np.linspace(1, 2, 80)\n"
        "    def product(x):\n"
        "        calls.append(1)\n"
        "        return d * x if len(calls) < 12 else np.nan * x\n"
        "    return ls.aslinearoperator(product, shape=(80, 80), dtype=float, hermitian=True)\n"
    )
    done = command("spectrum", f"{path}:make", "--probes", 1, "--out", "out")
    assert done.status == 2 and re.search(r"step \d+|\d+ complete steps", done.sentence) and "partial" in done.sentence
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["status"] == "interrupted" and "NaN" in summary["error"] and 1 <= summary["num_steps"] < 12
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"spectrum.png", "spectrum.npz", "summary.json"}


def test_a_product_that_fails_names_the_line(command, script):
    path = script(
        "calls = []\n"
        "def product(x):\n"
        "    calls.append(1)\n"
        "    if len(calls) > 9:\n"
        "        raise RuntimeError('the disk is on fire')\n"
        "    return 2 * x + np.arange(80.0) * x\n"
        "def make():\n"
        "    return ls.aslinearoperator(product, shape=(80, 80), dtype=float, hermitian=True)\n"
    )
    done = command("spectrum", f"{path}:make", "--probes", 1)
    assert done.status == 2 and "the disk is on fire" in done.sentence and "line 7" in done.sentence


def test_missing_matplotlib_still_writes_the_rest(command, matrix, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = command("spectrum", matrix, "--out", "out")
    assert done.status == 0 and "pip install linop-spectra[plot]" in done.sentence
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"spectrum.npz", "summary.json"}


def test_progress_bar_only_on_a_terminal(command, matrix, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert "Traceback" not in command("spectrum", matrix).err
    assert command("spectrum", matrix, "--no-progress").err == ""


def test_version_and_help(command, capsys):
    for arguments, expected in ((["--version"], ls.__version__), (["--help"], "spectrum"), (["spectrum", "--help"], "--dry-run")):
        with pytest.raises(SystemExit) as caught:
            command(*arguments)
        assert caught.value.code == 0 and expected in capsys.readouterr().out
