"""Tables over grids: their cells against single measurements, files that are taken up again, and what they refuse."""

import csv
import json

import numpy as np
import pytest
import torch
from torch import nn

import linop_spectra as ls
from linop_spectra.evolution import study


def objective(seed=0):
    torch.manual_seed(seed)
    model = nn.Linear(4, 3).double()
    return ls.objective(model, "cross_entropy", (torch.randn(60, 4).double(), torch.arange(60) % 3))


def other_data():
    torch.manual_seed(9)
    return torch.randn(30, 4).double(), torch.arange(30) % 3


def test_cells_are_what_single_measurements_give():
    own = objective()
    points = {"start": own.parameters(), "zero": np.zeros(15)}
    table = study(
        own, checkpoints=points, sample_sizes=(5, None), splits={"train": None, "test": other_data()}, operators=("hessian", "ggn"),
        seeds=(0, 1), num_steps=15, measure=lambda density, obj: {"median": density.quantile(0.5)},
    )  # fmt: skip
    assert len(table) == 2 * 2 * 2 * 2 * 2
    (row,) = table.select(checkpoint="zero", sample_size=5, split="test", operator="ggn", seed=1)
    cell = own.with_parameters(np.zeros(15)).with_data(other_data()).subset(5, seed=1)
    exact = np.linalg.eigvalsh(cell.ggn().to_dense())
    assert row["largest"] == pytest.approx(exact[-1]) and row["loss"] == pytest.approx(np.log(3)) and row["num_examples"] == 15
    assert abs(row["trace"] - exact.sum()) < 5 * row["trace_error"] + 1e-9 and row["median"] >= 0
    assert table.column("largest").shape == (32,) and "sample_size" in str(table)


def test_a_file_is_taken_up_again(tmp_path, monkeypatch):
    path, own = tmp_path / "cells.jsonl", objective()
    options = {"sample_sizes": (5, 10, None), "num_steps": 6, "path": path}
    first = study(own, operators=("hessian",), **options)
    assert len(path.read_text().splitlines()) == 3
    measured = []
    import sys

    module = sys.modules[study.__module__]
    original = module.spectral_density
    monkeypatch.setattr(module, "spectral_density", lambda *args, **kwargs: measured.append(1) or original(*args, **kwargs))
    both = study(own, operators=("hessian", "ggn"), **options)
    assert len(measured) == 3 and [row["trace"] for row in both.select(operator="hessian")] == [row["trace"] for row in first]
    # The last line was cut off by an interruption: that cell alone is done again.
    text = path.read_text()
    path.write_text(text[: len(text) - 40])
    measured.clear()
    again = study(own, operators=("hessian", "ggn"), **options)
    assert len(measured) == 1 and again.column("trace").tolist() == both.column("trace").tolist()
    measured.clear()
    study(objective(seed=3), operators=("hessian", "ggn"), **options)  # another model: nothing is taken over
    assert len(measured) == 6
    path.write_text("no row\n" + text)
    with pytest.raises(ValueError, match="Line 1"):
        study(own, **options)


def test_tables_are_written(tmp_path):
    table = study(objective(), operators={"twice": lambda own: 2 * own.hessian()}, num_steps=5)
    table.save(tmp_path / "t.csv")
    table.save(tmp_path / "t.json")
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert float(rows[0]["trace"]) == table[0]["trace"] and rows[0]["operator"] == "twice"
    assert json.loads((tmp_path / "t.json").read_text())[0]["largest"] == table[0]["largest"]
    with pytest.raises(ValueError, match=r"\.csv or \.json"):
        table.save(tmp_path / "t.xlsx")


@pytest.mark.parametrize("options, words", [
    ({"operators": ("jacobian",)}, "jacobian"), ({"seeds": ()}, "seeds"), ({"sample_sizes": (0,)}, "sample_sizes"),
    ({"checkpoints": []}, "checkpoints"), ({"sample_sizes": (5, 5)}, "twice"),
])  # fmt: skip
def test_wrong_arguments_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        study(objective(), num_steps=3, **options)
