"""Optimisers from curvature beside tuned SGD with momentum and AdamW, on real data.

Run it from the root of the repository:

    python benchmarks/optimisers.py [autoencoder cnn transformer adding resnet] [--budget 10] [--seeds 3] [--out DIR]

Each method gets the same processor seconds, one thread; its one setting, where it has one, is chosen by short trainings with another seed
(the same share of the budget for each value). Results are written after every training, and a second call goes on where the first
stopped. It reads the data sets from the folder LINOP_SPECTRA_DATA (or ../shared/data).
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import sys
from typing import Any

import numpy as np
import torch
from optimiser_problems import PROBLEMS, ROOT, Problem
from optimiser_runs import FIRST_ORDER, LAYERED, LOOKS, METHODS, train

from linop_spectra.cli.output import versions
from linop_spectra.plots.style import SMALL, dress, new_figure
from linop_spectra.results import write_atomically

RESULTS = ROOT / "benchmarks" / "results"
TUNING_SEED = 100


def final(run: dict[str, Any]) -> float:
    """Training loss at the end; infinite where the training diverged."""
    return run["loss"][-1] if math.isfinite(run["loss"][-1]) else math.inf


def measure(problem: Problem, names: list[str], budget: float, seeds: int, path: pathlib.Path) -> dict[str, Any]:
    """Tune and train by every method; what is in the file already is not repeated."""
    held: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    held.update(title=problem.title, budget=budget, versions=versions(), threads=torch.get_num_threads())
    methods = held.setdefault("methods", {})
    for name in names:
        method, entry = METHODS[name], methods.setdefault(name, {"tuning": {}, "runs": {}})
        for setting in method.grid if len(method.grid) > 1 else ():
            if str(setting) not in entry["tuning"]:
                entry["tuning"][str(setting)] = final(train(problem, method, setting, TUNING_SEED, budget / 4))
                write(path, held)
        best = min(entry["tuning"], key=entry["tuning"].get) if entry["tuning"] else method.grid[0]
        entry["setting"] = float(best)
        for seed in range(seeds):
            if str(seed) not in entry["runs"]:
                entry["runs"][str(seed)] = train(problem, method, float(best), seed, budget)
                write(path, held)
        print(row(name, entry), flush=True)
    return held


def write(path: pathlib.Path, held: dict[str, Any]) -> None:
    """The results as JSON, replaced in one step."""
    write_atomically(path, lambda stream: stream.write(json.dumps(held, indent=1).encode()))


def row(name: str, entry: dict[str, Any]) -> str:
    """A method's line of the table."""
    runs = list(entry["runs"].values())
    losses, held_out = [final(run) for run in runs], [run["held_out"][-1] for run in runs]
    last = {key: np.mean([run[key][-1] for run in runs]) for key in ("steps", "work", "products")}
    setting = f"{entry['setting']:g}" if entry["tuning"] else "none"
    return (
        f"{name:20s} {setting:>8s}  loss {np.mean(losses):9.4g} +- {np.std(losses):8.2g}  held out {np.nanmean(held_out):8.4g}  "
        f"steps {last['steps']:7.0f}  work {last['work']:7.1f}  products {last['products']:7.0f}  "
        f"ms/step {1e3 * np.mean([run['seconds_per_step'] for run in runs]):7.1f}"
    )


def draw(held: dict[str, Any], path: pathlib.Path) -> None:
    """Training loss over processor seconds, steps and work; bands from the least to the largest of the seeds."""
    from matplotlib import colormaps

    figure = new_figure(14, 4.6)
    axes = figure.subplots(1, 3, sharey=True)
    names = list(held["methods"])
    colours = dict(zip(names, colormaps["turbo"](np.linspace(0.05, 0.95, len(names))), strict=True))
    labels = {"seconds": "processor seconds", "steps": "steps", "work": "passes over the data (gradients)"}
    for ax, (key, label) in zip(axes, labels.items(), strict=True):
        dress(ax)
        for name in names:
            runs = list(held["methods"][name]["runs"].values())
            x = np.mean([run[key] for run in runs], axis=0)
            y = np.array([[value if math.isfinite(value) else np.nan for value in run["loss"]] for run in runs])
            style = "-" if name in FIRST_ORDER else ["--", "-.", ":"][names.index(name) % 3]
            ax.plot(x, np.median(y, axis=0), style, color=colours[name], label=name, linewidth=2.2 if name in FIRST_ORDER else 1.4)
            ax.fill_between(x, y.min(axis=0), y.max(axis=0), color=colours[name], alpha=0.12, linewidth=0)
        ax.set_yscale("log")
        ax.set_xlabel(label)
        if key != "seconds":
            ax.set_xscale("symlog", linthresh=1)
    axes[0].set_ylabel("training loss")
    axes[0].set_title(held["title"], loc="left")
    axes[2].legend(fontsize=SMALL, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path)


def main(arguments: list[str]) -> int:
    """Measure, print a table for each problem, and write JSON and figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("problems", nargs="*", default=list(PROBLEMS), choices=[*PROBLEMS, []])
    parser.add_argument("--budget", type=float, default=10.0, help="processor seconds of a training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.problems:
        problem = PROBLEMS[name]()
        names = [method for method in options.methods if problem.layered or method not in LAYERED]
        print(f"\n{problem.title}: {options.budget:g} s for each of {options.seeds} trainings, {LOOKS} looks", flush=True)
        held = measure(problem, names, options.budget, options.seeds, options.out / f"optimisers_{name}.json")
        draw(held, options.out / f"optimisers_{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
