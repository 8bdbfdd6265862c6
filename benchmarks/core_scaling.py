"""Section ``scaling``: time of a Lanczos run against the order, the steps and the probes, as a figure."""

from __future__ import annotations

from typing import Any

import numpy as np
from core_common import in_turns

import linop_spectra as ls

KINDS = {"full": "full reorthogonalisation", "none": "three-term recurrence"}


def run(options: Any) -> dict[str, Any]:
    top, rounds = (100_000, 3) if options.small else (1_000_000, 5)
    rounds = options.rounds or rounds
    n, k = top // 10, 50
    orders = [round(float(x)) for x in np.geomspace(top // 100, top, 5)]
    panels = {
        "order n": [(m, k, 1) for m in orders],
        "steps k": [(n, steps, 1) for steps in (25, 50, 100, 200)],
        "probes": [(n, k, probes) for probes in (1, 2, 4, 8)],
    }
    results: dict[str, Any] = {}
    for axis, (panel, cases) in enumerate(panels.items()):
        points = [case[axis] for case in cases]
        calls = {(case, kind): _call(*case, kind) for case in cases for kind in KINDS}
        times = in_turns(calls, rounds)  # type: ignore[type-var, arg-type]
        results[panel] = {"points": points, "steps": k, "order": n}
        for kind in KINDS:
            median = np.array([np.median(times[case, kind]) for case in cases])  # type: ignore[index]
            slope = float(np.polyfit(np.log(points), np.log(median), 1)[0])
            last = float(np.log(median[-1] / median[-2]) / np.log(points[-1] / points[-2]))
            results[panel][kind] = {"seconds": list(median), "slope": slope, "last_slope": last}
            shown = ", ".join(f"{point:,}: {1e3 * value:.1f} ms" for point, value in zip(points, median, strict=True))
            print(f"{panel:8s} {kind}: slope {slope:.2f}, at the end {last:.2f} ({shown})", flush=True)
    _plot(results, options.plot)
    return {"panels": results, "rounds": rounds}


def _call(n: int, k: int, probes: int, kind: str) -> Any:
    A = ls.diagonal_operator(np.linspace(0.0, 1.0, n, dtype=np.float32))
    return lambda: ls.lanczos(A, k, num_probes=probes, reorthogonalize=kind)


def _plot(results: dict[str, Any], path: Any) -> None:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import NullLocator
    except ImportError:
        print("matplotlib is not installed: no figure")
        return
    figure = Figure(figsize=(10.5, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (panel, result) in zip(figure.subplots(1, 3), results.items(), strict=True):
        for (kind, label), marker in zip(KINDS.items(), "os", strict=True):
            slope = result[kind]["slope"]
            axes.loglog(result["points"], result[kind]["seconds"], marker=marker, label=f"{label}: slope {slope:.2f}")
        fixed = {"order n": f"k = {result['steps']}, one probe", "steps k": f"n = {result['order']:,}, one probe",
                 "probes": f"n = {result['order']:,}, k = {result['steps']}"}[panel]  # fmt: skip
        axes.set(xlabel=panel, title=fixed)
        axes.set_xticks(result["points"], [f"{point:,}" for point in result["points"]])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylim(top=4 * max(max(result[kind]["seconds"]) for kind in KINDS))  # room for the legend
        axes.tick_params(axis="x", labelsize=8)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc="upper left")
        axes.set_ylabel("seconds")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    print(f"written: {path}")
