"""Learning rates and momenta from measured spectra against grids of them, and the progress that a spectrum predicts.

Run it from the root of the repository:

    python benchmarks/optimiser_schedule.py [quadratic perceptron resnet prediction] [--out DIR]

Every part's figures are in results/optimisers_schedule.json. All methods of a part are run by this library's `HeavyBall` or
`SpectralSchedule`, so that they differ in learning rates, momenta and the cost of measuring them alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from optimiser_problems import ROOT, Problem, objective_of, perceptron, residual_network
from optimiser_runs import Judge

import linop_spectra as ls
from linop_spectra.cli.output import versions
from linop_spectra.plots.style import dress, new_figure
from linop_spectra.results import write_atomically

RESULTS = ROOT / "benchmarks" / "results"
GOALS = {"loss": 1e-8, "distance": 1e-4}
"""What the loss, and the distance from the minimum, are to be of the first ones."""
MOST_STEPS = 5000
NEAR = 0.7
"""Shares of the largest stable learning rate above which a figure of its own shows them."""
MOMENTA = (0.0, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)
Method = Callable[[], ls.optim.Optimizer]


# -- quadratics --------------------------------------------------------------------------------------------------------


def spectra() -> dict[str, np.ndarray]:
    """Spectra of 200 eigenvalues up to one."""
    rng = np.random.default_rng(0)
    bulk = np.linalg.eigvalsh(np.cov(rng.standard_normal((200, 400))))
    return {
        "even logarithms, condition 100": np.logspace(-2, 0, 200),
        "even logarithms, condition 10,000": np.logspace(-4, 0, 200),
        "bulk with ten outliers": np.concatenate([0.05 * bulk[:190] / bulk.max(), np.logspace(-1, 0, 10)]),
    }


def quadratic_objective(eigenvalues: np.ndarray) -> tuple[ls.Objective, np.ndarray]:
    """A linear regression whose Hessian has these eigenvalues, and a start with equal parts along all eigenvectors."""
    n = len(eigenvalues)
    rng = np.random.default_rng(1)
    turned = np.linalg.qr(rng.standard_normal((n, n)))[0]
    x = math.sqrt(n / 2) * np.sqrt(eigenvalues)[:, None] * turned.T
    model = torch.nn.Linear(n, 1, bias=False).double()
    objective = ls.objective(model, "mse", (torch.from_numpy(x), torch.zeros(n, 1, dtype=torch.float64)))
    return objective, turned.sum(axis=1)


def steps_of_recursion(eigenvalues: np.ndarray, settings: list[tuple[float, float]]) -> list[dict[str, float]]:
    """Steps of heavy ball to the goals for each (learning rate, momentum), along the eigenvectors; infinite where they are too many."""
    rates, momenta = (np.array(column)[:, None] for column in zip(*settings, strict=True))
    x, v = np.ones((len(settings), len(eigenvalues))), np.zeros((len(settings), len(eigenvalues)))
    found = [dict.fromkeys(GOALS, math.inf) for _ in settings]
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(1, MOST_STEPS + 1):
            v = momenta * v + eigenvalues * x
            x = x - rates * v
            losses, distances = x**2 @ eigenvalues / eigenvalues.sum(), np.sqrt((x**2).mean(axis=1))
            for row, loss, distance in zip(found, losses, distances, strict=True):
                _note(row, step, loss, distance)
    return found


def _note(found: dict[str, float], step: int, loss: float, distance: float) -> None:
    for name, value in (("loss", loss), ("distance", distance)):
        if value <= GOALS[name] and not math.isfinite(found[name]):
            found[name] = step


def steps_of(method: ls.optim.Optimizer, objective: ls.Objective, start: np.ndarray) -> tuple[dict[str, float], int]:
    """The same by an optimiser, and its products."""
    theta, first, products = start, objective.with_parameters(start).value(), 0
    found = dict.fromkeys(GOALS, math.inf)
    for step in range(MOST_STEPS + 1):
        distance = np.linalg.norm(np.asarray(theta)) / math.sqrt(len(start))
        theta, info = method.step(objective, theta)
        _note(found, step, info.loss / first, distance)
        if all(map(math.isfinite, found.values())) or not distance < 1e9:
            break
        products += info.num_matvecs
    return found, products


def quadratic() -> dict[str, Any]:
    """Steps to the goals by the grid and from spectra."""
    results: dict[str, Any] = {}
    for name, eigenvalues in spectra().items():
        rates = 2.0 ** np.arange(-1, 2.01, 0.25) / eigenvalues.max()
        points = [(float(rate), beta) for rate in rates for beta in MOMENTA]
        steps_at = steps_of_recursion(eigenvalues, points)
        grid = {f"{rate:.4g}, {beta:g}": row for (rate, beta), row in zip(points, steps_at, strict=True)}
        best = {goal: min(grid, key=lambda point, goal=goal: grid[point][goal]) for goal in GOALS}
        objective, start = quadratic_objective(eigenvalues)
        exact = ls.optim.heavy_ball_parameters(largest=eigenvalues.max(), smallest=eigenvalues.min())
        entry: dict[str, Any] = {
            "grid_points": len(grid), "best": best, "best_steps": {goal: grid[point][goal] for goal, point in best.items()},
            "exact_ends": steps_of_recursion(eigenvalues, [tuple(exact)])[0], "from_spectrum": {},
        }  # fmt: skip
        for k in (32, 64, 128):
            method = ls.optim.HeavyBall.from_spectrum(ls.spectral_density(objective.hessian(), num_steps=k, num_probes=1))
            steps, _ = steps_of(method, objective, start)
            entry["from_spectrum"][str(k)] = {"steps": steps, "learning_rate": method.learning_rate, "momentum": method.momentum}
        steps, products = steps_of(ls.optim.SpectralSchedule(refresh_every=100, num_steps=20, factor=0.9, evaluate=False), objective, start)
        entry["schedule"] = {"steps": steps, "products": products}
        results[name] = entry
        print(f"{name}: best of {len(grid)} {entry['best']} {entry['best_steps']}; exact ends {entry['exact_ends']}; from a spectrum "
              + ", ".join(f"{k} products {e['steps']}" for k, e in entry["from_spectrum"].items())
              + f"; schedule {steps}, {products} products", flush=True)  # fmt: skip
    return results


# -- networks ----------------------------------------------------------------------------------------------------------


def descend(
    problem: Problem, method: ls.optim.Optimizer, seed: int, steps: int, batch: int, *, curvature: int | None = None, looks: int = 1,
    weight_decay: float = 0.0,
) -> dict[str, Any]:  # fmt: skip
    """Train for some steps; losses and held-out accuracies at the looks, products, and seconds of processor."""
    judge, generator = Judge(problem, seed), np.random.default_rng([seed, 1])
    whole = objective_of(problem, seed, weight_decay)
    failure = ""
    theta, products, seconds = whole.parameters(), 0, 0.0
    rows: dict[str, list[float]] = {name: [] for name in ("step", "loss", "held_out", "seconds", "products")}
    when = set(np.linspace(0, steps, looks + 1).round().astype(int)[1:])
    for step in range(1, steps + 1):
        chosen = np.arange(len(problem.inputs)) if batch >= len(problem.inputs) else generator.choice(len(problem.inputs), batch, False)
        chosen = torch.from_numpy(chosen)
        here = whole.with_data((problem.inputs[chosen], problem.targets[chosen]))
        other = None
        if curvature:
            more = torch.from_numpy(np.random.default_rng([seed, step]).choice(len(problem.inputs), curvature, False))
            other = whole.with_data((problem.inputs[more], problem.targets[more]))
        began = time.process_time()
        try:
            theta, info = method.step(here, theta, curvature=other)
        except (FloatingPointError, ValueError) as error:  # it diverged, or its spectrum was all rounding
            failure = str(error)
            rows["step"].append(step)
            rows["loss"].append(math.inf)
            rows["held_out"].append(math.nan)
            break
        seconds += time.process_time() - began
        products += info.num_matvecs
        if step in when:
            loss, held_out = judge.look(theta)
            loss = whole.with_parameters(theta).value() if weight_decay and math.isfinite(loss) else loss
            for name, value in zip(rows, (step, loss, held_out, seconds, products), strict=True):
                rows[name].append(float(value))
    return {**rows, "total_products": products, "total_seconds": seconds, "failure": failure}


def short(runs: list[dict[str, Any]], name: str = "loss") -> list[float]:
    """Last values of the runs with four digits."""
    return [float(f"{run[name][-1]:.4g}") for run in runs]


def heavy_ball(rate: float, momentum: float) -> ls.optim.Optimizer:
    """A point of a grid."""
    return ls.optim.HeavyBall(learning_rate=rate, momentum=momentum, evaluate=False)


def measured_once(problem: Problem, seed: int, weight_decay: float) -> ls.optim.Optimizer:
    """Heavy ball from the spectrum at the start, 64 products over all training data."""
    density = ls.spectral_density(objective_of(problem, seed, weight_decay).ggn(), num_steps=64, num_probes=1)
    return ls.optim.HeavyBall.from_spectrum(density, weight_decay=weight_decay)


SCHEDULES: dict[str, Callable[[int], ls.optim.Optimizer]] = {
    "schedule": lambda every: ls.optim.SpectralSchedule(refresh_every=every, num_steps=20, factor=0.9, evaluate=False),
    "schedule every 10 steps, factor 0.5": lambda _: ls.optim.SpectralSchedule(refresh_every=10, num_steps=10, factor=0.5, evaluate=False),
}


def on_perceptron() -> dict[str, Any]:
    """Training loss after a number of steps by a grid and from spectra, with all data and with mini-batches."""
    problem, found = perceptron(), {}
    variants = (
        ("all data, weight decay 0.001", 1000, 300, 50, 1e-3), ("mini-batches of 100, weight decay 0.001", 100, 600, 100, 1e-3),
        ("all data", 1000, 300, 50, 0.0),
    )  # fmt: skip
    for name, batch, steps, every, decay in variants:
        grid = {}
        for rate, beta in itertools.product((0.1, 0.3, 1.0, 3.0), (0.5, 0.9, 0.95, 0.99)):
            grid[f"{rate:g}, {beta:g}"] = descend(problem, heavy_ball(rate, beta), 100, steps, batch, weight_decay=decay)["loss"][-1]
        best = min(grid, key=grid.get)
        entry: dict[str, Any] = {"steps": steps, "grid": grid, "best": best, "runs": {}}
        curvature = None if batch == 1000 else 1000
        rate, beta = map(float, best.split(", "))
        methods: dict[str, Callable[[int], ls.optim.Optimizer]] = {
            "best of the grid": lambda _, rate=rate, beta=beta: heavy_ball(rate, beta),
            "measured once": lambda seed, decay=decay: measured_once(problem, seed, decay),
            **{key: lambda _, make=make, every=every: make(every) for key, make in SCHEDULES.items()},
        }  # fmt: skip
        for key, make in methods.items():
            runs = [
                descend(problem, make(seed), seed, steps, batch, curvature=curvature, looks=30, weight_decay=decay) for seed in range(3)
            ]
            entry["runs"][key] = runs
            print(f"{problem.title}, {name}: {key:24s} ({best if key.startswith('best') else ''}) loss {short(runs)} "
                  f"products {runs[0]['total_products']} {runs[0]['failure'][:50]}", flush=True)  # fmt: skip
        found[name] = entry
    return found


def on_resnet(seconds_for_grid: int = 160) -> dict[str, Any]:
    """A pre-activation ResNet: schedules from spectra beside tuned cosine and step schedules."""
    problem, steps = residual_network(), seconds_for_grid

    def cosine(rate: float) -> Callable[[int], float]:
        return lambda step: rate * 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0)))

    def stairs(rate: float) -> Callable[[int], float]:
        return lambda step: rate * 0.1 ** ((step >= steps / 2) + (step >= 3 * steps / 4))

    tuning: dict[str, dict[str, float]] = {}
    for name, shape in (("cosine", cosine), ("steps", stairs)):
        tuning[name] = {
            f"{rate:g}": descend(problem, heavy_ball(shape(rate), 0.9), 100, steps, problem.small)["loss"][-1]
            for rate in (0.01, 0.03, 0.1, 0.3)
        }
        print(f"{problem.title}: {name} {tuning[name]}", flush=True)
    entry: dict[str, Any] = {"steps": steps, "tuning": tuning, "runs": {}}
    best = {name: float(min(row, key=row.get)) for name, row in tuning.items()}
    methods: dict[str, Method] = {
        f"tuned cosine, {best['cosine']:g}": lambda: heavy_ball(cosine(best["cosine"]), 0.9),
        f"tuned steps, {best['steps']:g}": lambda: heavy_ball(stairs(best["steps"]), 0.9),
        "schedule": lambda: ls.optim.SpectralSchedule(refresh_every=80, num_steps=8, factor=0.9, evaluate=False),
        "schedule, momentum 0.9": lambda: ls.optim.SpectralSchedule(
            refresh_every=80, num_steps=8, factor=0.9, evaluate=False, momentum=0.9
        ),
    }
    for key, make in methods.items():
        curvature = problem.large if key.startswith("schedule") else None
        runs = [descend(problem, make(), seed, steps, problem.small, curvature=curvature, looks=8) for seed in range(3)]
        entry["runs"][key] = runs
        print(f"{problem.title}: {key:24s} loss {short(runs)} held out "
              f"{short(runs, 'held_out')} s {runs[0]['total_seconds']:.1f} products {runs[0]['total_products']}", flush=True)  # fmt: skip
    return entry


# -- predicted progress ------------------------------------------------------------------------------------------------


def prediction() -> dict[str, Any]:
    """Losses that the quadratic at some parameters predicts for the next steps, and those of the network."""
    problem = perceptron()
    whole = objective_of(problem, 0)
    theta, warm = whole.parameters(), ls.optim.HeavyBall(learning_rate=0.1, momentum=0.9, evaluate=False)
    for _ in range(100):
        theta, _ = warm.step(whole, theta)
    here, batch = whole.with_parameters(theta), 50
    batches = [(problem.inputs[i : i + batch], problem.targets[i : i + batch]) for i in range(0, 1000, batch)]
    split = ls.objective(problem.model(0), problem.loss, batches).with_parameters(theta)
    model = ls.optim.NoisyQuadratic.measured(split, num_steps=32, batch_size=batch, matrix="ggn")
    limit = model.largest_learning_rate()
    when = np.array([0, 1, 2, 5, 10, 20, 30, 50, 100])
    found: dict[str, Any] = {"steps": when.tolist(), "limit": limit, "products": model.num_matvecs, "batch": batch, "rates": {}}
    for share in (0.03, 0.1, 0.3, 0.6, 0.9, 1.2):
        rate, losses = share * limit, []
        for seed in range(8):
            method = ls.optim.GradientDescent(learning_rate=rate, evaluate=False)
            generator, now, row = np.random.default_rng(seed), theta, []
            for step in range(int(when[-1]) + 1):
                if step in when:
                    row.append(here.with_parameters(now).value())
                chosen = torch.from_numpy(generator.choice(1000, batch, False))
                now, _ = method.step(whole.with_data((problem.inputs[chosen], problem.targets[chosen])), now)
            losses.append(row)
        predicted = np.asarray(model.expected_loss(when, rate))
        found["rates"][f"{share:g}"] = {
            "learning_rate": rate, "predicted": predicted.tolist(), "mean": np.mean(losses, axis=0).tolist(),
            "standard_error": (np.std(losses, axis=0, ddof=1) / math.sqrt(len(losses))).tolist(),
        }  # fmt: skip
        print(f"{share:g} of {limit:.3g}: predicted {predicted.round(4)}, measured {np.mean(losses, axis=0).round(4)}", flush=True)
    return found


def draw_prediction(held: dict[str, Any], path: pathlib.Path) -> None:
    """Predicted and measured losses over steps: well below the largest stable learning rate, and near it."""
    figure = new_figure(11, 4.2)
    axes = figure.subplots(1, 2)
    for colour, (share, row) in zip(("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7"), held["rates"].items(), strict=True):
        ax = axes[int(float(share) > NEAR)]
        mean, error = np.array(row["mean"]), 2 * np.array(row["standard_error"])
        ax.errorbar(held["steps"], mean, yerr=error, fmt="o", color=colour, markersize=4, linewidth=1)
        ax.plot(held["steps"], row["predicted"], "-", color=colour, label=f"{share} of the largest stable rate")
    for ax, near in zip(axes, (False, True), strict=True):
        dress(ax)
        shown = [value for share, row in held["rates"].items() if (float(share) > NEAR) == near for value in row["mean"]]
        ax.set_xscale("symlog", linthresh=1)
        ax.set_xlim(left=-0.1)
        if near:
            ax.set_yscale("log")
            ax.set_ylim(0.7 * min(shown), 3 * max(shown))
        else:
            ax.set_ylim(0.95 * min(shown), 1.08 * max(shown))
        ax.set_xlabel("steps of stochastic gradient descent")
        ax.legend(frameon=False, fontsize=8)
    axes[0].set_ylabel("training loss: points measured, lines predicted")
    figure.savefig(path)


def draw_schedules(held: dict[str, Any], path: pathlib.Path) -> None:
    """Losses over steps of the networks: tuned, and from spectra."""
    panels = [(f"MLP, {name}", entry["runs"]) for name, entry in held.get("perceptron", {}).items()]
    panels += [("pre-activation ResNet", held["resnet"]["runs"])] if "resnet" in held else []
    figure = new_figure(4.2 * len(panels), 4.0)
    for ax, (title, methods) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        dress(ax)
        tuned = iter(("#000000", "#8C8C8C"))
        measured = iter(("#E69F00", "#CC79A7", "#009E73", "#0072B2"))
        for name, runs in methods.items():
            length = min(len(run["loss"]) for run in runs)
            x, y = runs[0]["step"][:length], np.array([run["loss"][:length] for run in runs])
            y = np.where(np.isfinite(y), y, np.nan)
            colour = next(tuned) if name.startswith(("best", "tuned")) else next(measured)
            ax.plot(x, np.median(y, axis=0), color=colour, label=name, linewidth=1.6)
            ax.fill_between(x, y.min(axis=0), y.max(axis=0), color=colour, alpha=0.12, linewidth=0)
        ax.set_yscale("log")
        ax.set_xlabel("steps")
        ax.set_title(title, loc="left", fontsize=9)
        ax.legend(frameon=False, fontsize=7.5)
    figure.savefig(path)


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "quadratic": quadratic, "perceptron": on_perceptron, "resnet": on_resnet, "prediction": prediction,
}  # fmt: skip


def main(arguments: list[str]) -> int:
    """Run the parts and write their results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "optimisers_schedule.json"
    for name in options.parts or PARTS:
        result = PARTS[name]()
        held = json.loads(path.read_text()) if path.exists() else {}
        held.update({name: result, "versions": versions(), "threads": torch.get_num_threads()})
        write_atomically(path, lambda stream, held=held: stream.write(json.dumps(held, indent=1).encode()))
        if name in ("perceptron", "resnet"):
            draw_schedules(held, options.out / "optimisers_schedule.png")
        if name == "prediction":
            draw_prediction(result, options.out / "optimisers_prediction.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
