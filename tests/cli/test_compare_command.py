"""``compare``: saved spectra and targets, the verdict, and what does not fit."""
import json

import numpy as np
import pytest

import linop_spectra as ls

TARGETS = (
    "def one():\n    return ls.diagonal_operator(np.linspace(0.0, 1.0, 2000))\n"
    "def other():\n    return ls.diagonal_operator(np.linspace(0.0, 1.3, 2000))\n"
)


def test_one_spectrum_twice_and_two(command, script, tmp_path):
    path = script(TARGETS)
    verdicts = {}
    for name, second in (("same", "one"), ("different", "other")):
        done = command("compare", f"{path}:one", f"{path}:{second}", "--steps", 30, "--out", name)
        assert (done.status, done.err) == (0, "")
        assert {file.name for file in (tmp_path / name).iterdir()} == {"summary.json", "comparison.npz", "comparison.png"}
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        verdicts[name] = summary["distinguishable"]
        assert summary["verdict"] in done.out and summary["dimensions"] == [2000, 2000] and summary["num_steps"] == [30, 30]
        assert summary["p_value"] == ls.load(tmp_path / name / "comparison.npz").p_value
    assert verdicts == {"same": False, "different": True}
    # The means are 0.5 and 0.65, and quantiles of a uniform law differ by as much on average.
    assert summary["wasserstein"]["low"] <= 0.15 <= summary["wasserstein"]["high"]
    trace = summary["differences"]["trace"]
    assert abs(trace["value"] - 300) <= trace["high"] - trace["low"]  # about four standard errors


def test_saved_spectra(command, tmp_path):
    for name, seed, top in (("a", 0, 1.0), ("b", 1, 1.3)):
        ls.spectral_density(ls.diagonal_operator(np.linspace(0, top, 1500)), num_steps=24, seed=seed).save(tmp_path / f"{name}.npz")
    done = command("compare", "a.npz", "b.npz", "--out", "out", "--quiet")
    assert (done.status, done.out, done.err) == (0, "", "")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["distinguishable"] is True and summary["first"] == "a.npz" and "compare a.npz b.npz" in summary["command"]


def test_a_saved_spectrum_against_a_matrix_file(command, matrix, tmp_path):
    assert command("spectrum", matrix, "--steps", 40, "--seed", 7, "--out", "saved", "--quiet").status == 0
    done = command("compare", "saved/spectrum.npz", matrix, "--steps", 40, "--out", "out")
    assert done.status == 0 and "not distinguishable" in done.out


def test_another_result_is_refused(command, matrix, tmp_path):
    ls.eigsh(np.diag(np.arange(9.0)), k=2).save(tmp_path / "pairs.npz")
    done = command("compare", "pairs.npz", matrix)
    assert done.status == 2 and "EigenResult" in done.sentence and "spectrum.npz" in done.sentence


@pytest.mark.parametrize(("first", "word"), [("absent.npz", "absent.npz"), ("nothing", "TARGET")])
def test_missing_files_are_one_sentence(command, matrix, first, word):
    done = command("compare", first, matrix)
    assert done.status == 2 and word in done.sentence


def test_wrong_level(command, matrix):
    done = command("compare", matrix, matrix, "--level", "2")
    assert done.status == 2 and "--level" in done.sentence
