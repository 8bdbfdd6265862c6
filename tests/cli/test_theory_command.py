"""``theory``: the list, one experiment with its files, and what does not fit."""
import json

import pytest

import linop_spectra.cli.theory as theory
from linop_spectra.validation import Experiment, Findings, Row, experiments


@pytest.fixture
def made_up(monkeypatch):
    """Put one experiment with the given measured number in the place of all."""

    def install(measured, needs=()):
        found = Findings((Row("one", 1.0, measured, tolerance=0.1),), lambda ax: ax.plot([0, 1], [0, 1]))
        experiment = Experiment("made-up", "One is one", "arithmetic", lambda seed: found, needs)
        monkeypatch.setattr("linop_spectra.validation.experiments", lambda: {"made-up": experiment})

    return install


def test_list_shows_every_experiment(command):
    done = command("theory", "--list")
    assert (done.status, done.err) == (0, "")
    for name, experiment in experiments().items():
        assert name in done.out and experiment.source.split(",")[0] in " ".join(done.out.split())


def test_writes_table_and_picture(command, tmp_path):
    done = command("theory", "block-of-a-matrix", "--out", "out", "--seed", 1)
    assert (done.status, done.err) == (0, "")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"block-of-a-matrix.json", "block-of-a-matrix.png"}
    assert (tmp_path / "out" / "block-of-a-matrix.png").read_bytes().startswith(b"\x89PNG")
    saved = json.loads((tmp_path / "out" / "block-of-a-matrix.json").read_text())
    assert saved["passed"] is True and saved["seed"] == 1 and len(saved["rows"]) == done.out.count("  ok\n")
    assert "1 of 1 experiments passed" in done.out


def test_disagreement_is_an_exit_status(command, made_up):
    made_up(1.5)
    done = command("theory", "made-up")
    assert done.status == theory.FAILED and "FAILED" in done.out and "0 of 1" in done.out


def test_all_runs_everything_and_quiet_prints_nothing(command, made_up, tmp_path):
    made_up(1.0)
    done = command("theory", "all", "--quiet", "--out", tmp_path / "out")
    assert (done.status, done.out, done.err) == (0, "", "") and (tmp_path / "out" / "made-up.json").exists()


def test_missing_packages_are_said(command, made_up):
    made_up(1.0, ("no_such_package",))
    done = command("theory", "made-up")
    assert done.status == 0 and "no_such_package is not installed" in done.err


@pytest.mark.parametrize(("names", "part"), [(["nothing"], "no experiment 'nothing'"), ([], "NAME is missing")])
def test_bad_names(command, names, part):
    done = command("theory", *names)
    assert done.status == 2 and part in done.sentence
