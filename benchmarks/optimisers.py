"""Optimisers from curvature beside tuned SGD with momentum and AdamW, on real data.

Run it from the root of the repository:

    python benchmarks/optimisers.py [autoencoder cnn transformer adding] [--budget 10] [--seeds 3] [--out DIR]

Each method gets the same processor seconds, one thread; its one setting, where it has one, is chosen by trainings with another seed for a
quarter of the time; where a seed then diverges, the next best is taken. Results are written after every training, and a second call goes
on where the first stopped. It reads the data sets from the folder LINOP_SPECTRA_DATA (or ../shared/data).
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
from optimiser_runs import LAYERED, LOOKS, METHODS, train

from linop_spectra.cli.output import versions
from linop_spectra.plots.style import NORMAL, dress, new_figure
from linop_spectra.results import write_atomically

RESULTS = ROOT / "benchmarks" / "results"
TUNING_SEED = 100
STYLES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
COLOURS = {
    "first order": ("#8C8C8C", "#000000", "#555555"), "spectrum": ("#CC79A7",), "diagonal": ("#E69F00", "#D55E00", "#8C3B00"),
    "Kronecker": ("#009E73", "#00573F"), "Krylov": ("#56B4E9", "#0072B2", "#003B73", "#6A51A3", "#3F007D"),
}  # fmt: skip


def final(run: dict[str, Any]) -> float:
    """Training loss at the end; infinite where the training diverged."""
    return run["loss"][-1] if math.isfinite(run["loss"][-1]) else math.inf


def diverged(run: dict[str, Any]) -> bool:
    """Whether a training ended above its start."""
    return not final(run) <= run["loss"][0]


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
        usable = {key: loss for key, loss in entry["tuning"].items() if float(key) not in entry.get("diverged", [])}
        usable = usable or {str(method.grid[0]): 0.0}
        while usable:
            best = min(usable, key=usable.get)
            entry["setting"] = float(best)
            entry["runs"] = {seed: run for seed, run in entry["runs"].items() if run["setting"] == float(best)}
            for seed in range(seeds):
                if str(seed) not in entry["runs"]:
                    entry["runs"][str(seed)] = train(problem, method, float(best), seed, budget)
                    write(path, held)
            if len(usable) == 1 or not any(diverged(run) for run in entry["runs"].values()):
                break
            # What went well for a quarter of the time with one seed diverged: the next best.
            del usable[best]
            entry.setdefault("diverged", []).append(float(best))
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


def reached(entry: dict[str, Any], key: str, goal: float) -> float:
    """Median over the seeds of `key` where the loss fell to `goal`, by straight lines between the looks; infinite where it did not."""
    found = []
    for run in entry["runs"].values():
        below = next((i for i, loss in enumerate(run["loss"]) if loss <= goal), None)
        if not below:
            found.append(math.inf if below is None else 0.0)
            continue
        (x0, x1), (y0, y1) = run[key][below - 1 : below + 1], run["loss"][below - 1 : below + 1]
        found.append(x0 + (x1 - x0) * (y0 - goal) / (y0 - y1))
    return float(np.median(found))


def race(held: dict[str, Any]) -> dict[str, Any]:
    """What each method took to come to the loss that plain gradient descent ends with: seconds, work and steps."""
    goal = float(np.median([final(run) for run in held["methods"]["gradient descent"]["runs"].values()]))
    keys = ("seconds", "work", "steps")
    return {"goal": goal, **{name: {key: reached(entry, key, goal) for key in keys} for name, entry in held["methods"].items()}}


def draw(held: dict[str, Any], path: pathlib.Path) -> None:
    """Training loss over processor seconds, work and steps; bands from the least to the largest of the seeds."""
    figure = new_figure(14, 5.2)
    axes = figure.subplots(1, 3, sharey=True)
    labels = {"seconds": "processor seconds", "work": "work: gradients of all data (a product is two)", "steps": "steps"}
    seen: dict[str, int] = {}
    limits = []
    for name, entry in held["methods"].items():
        group = METHODS[name].group
        number = seen[group] = seen.get(group, -1) + 1
        shades = COLOURS[group]
        colour, style = shades[number % len(shades)], STYLES[number % len(STYLES)]
        runs = list(entry["runs"].values())
        y = np.array([[value if math.isfinite(value) else np.nan for value in run["loss"]] for run in runs])
        limits += [np.nanmax(y[:, 0]), np.nanmin(y)]
        for ax, key in zip(axes, labels, strict=True):
            x = np.mean([run[key] for run in runs], axis=0)
            ax.plot(x, np.median(y, axis=0), linestyle=style, color=colour, label=name, linewidth=2.2 if group == "first order" else 1.5)
            ax.fill_between(x, y.min(axis=0), y.max(axis=0), color=colour, alpha=0.1, linewidth=0)
    for ax, (key, label) in zip(axes, labels.items(), strict=True):
        dress(ax)
        ax.set_yscale("log")
        ax.set_xlabel(label)
        ax.set_ylim(0.95 * min(limits), 1.1 * max(limits))
        if key != "seconds":
            ax.set_xscale("symlog", linthresh=1)
            ax.set_xlim(left=0)
    axes[0].set_ylabel("training loss")
    axes[0].set_title(f"{held['title']}: {len(runs)} seeds, median and range", loc="left")
    axes[2].legend(fontsize=NORMAL, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path)


def main(arguments: list[str]) -> int:
    """Measure, print a table for each problem, and write JSON and figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("problems", nargs="*", choices=[*PROBLEMS, []])
    parser.add_argument("--budget", type=float, default=10.0, help="processor seconds of a training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.problems or PROBLEMS:
        problem = PROBLEMS[name]()
        names = [method for method in options.methods if problem.layered or method not in LAYERED]
        print(f"\n{problem.title}: {options.budget:g} s for each of {options.seeds} trainings, {LOOKS} looks", flush=True)
        held = measure(problem, names, options.budget, options.seeds, options.out / f"optimisers_{name}.json")
        if "gradient descent" in held["methods"]:
            held["race"] = race(held)
            write(options.out / f"optimisers_{name}.json", held)
            print(f"To the loss {held['race']['goal']:.4g} of plain gradient descent, seconds, work and steps:")
            for method, found in held["race"].items():
                if method != "goal":
                    print(f"{method:20s}" + "".join(f" {value:9.4g}" for value in found.values()), flush=True)
        draw(held, options.out / f"optimisers_{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
