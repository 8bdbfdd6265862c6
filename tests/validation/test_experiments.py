"""The experiments: that they pass, and that their tables can fail."""
import math

import pytest

from linop_spectra.validation import Experiment, Findings, Row, conduct, experiments
from linop_spectra.validation.experiment import at_least, at_most, close

QUICK = [
    "lanczos-coefficients", "single-probe", "loss-surface", "free-convolution", "two-populations", "nonlinear-features",
    "block-of-a-matrix", "linear-regression", "spiked-regression", "class-structure", "softmax-at-zero",
]  # fmt: skip
"""The others take longer; ``benchmarks/theory.py`` runs them all."""


@pytest.mark.parametrize("name", QUICK)
def test_theory_holds(name):
    experiment = experiments()[name]
    if absent := experiment.missing():
        pytest.skip(f"{absent} is not installed")
    outcome = conduct(experiment)
    assert outcome.passed, str(outcome)
    axes = outcome.plot()
    assert axes.get_xlabel() and axes.get_ylabel()


def test_a_row_passes_within_its_tolerance_only():
    assert close("x", 2.0, 2.1, relative=0.06).passed and not close("x", 2.0, 2.1, relative=0.04).passed
    assert close("x", 0.0, 0.1, absolute=0.2).passed and not close("x", 0.0, 0.1).passed
    assert at_least("x", 1, 1).passed and not at_least("x", 1, 0.9).passed
    assert at_most("x", 1, 1).passed and not at_most("x", 1, 1.1).passed
    assert not any(row.passed for row in (close("x", 1, math.nan, absolute=9), at_least("x", 1, math.nan), at_most("x", 1, math.nan)))


def test_one_bad_row_fails_the_experiment():
    rows = (Row("good", 1.0, 1.0), Row("bad", 1.0, 1.5, tolerance=0.1))
    outcome = conduct(Experiment("made-up", "Nothing", "nobody", lambda seed: Findings(rows, lambda ax: None)))
    assert not outcome.passed
    assert [record["passed"] for record in outcome.records()] == [True, False]
    assert [line[-1] for line in outcome.table()[1:]] == ["ok", "FAILED"]
    assert "1 of 2 rows passed" in str(outcome)


def test_what_is_not_installed_is_named():
    experiment = Experiment("made-up", "Nothing", "nobody", lambda seed: Findings((), lambda ax: None), needs=("numpy", "no_such_package"))
    assert experiment.missing() == "no_such_package"


def test_names_and_sentences_are_in_order():
    for name, experiment in experiments().items():
        assert name == experiment.name == name.lower() and " " not in name
        assert experiment.statement[0].isupper() and not experiment.statement.endswith(".") and experiment.source
