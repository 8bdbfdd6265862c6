"""Speed and memory of curvature products against peers: one gradient, Hessian, Gauss-Newton, SLQ, top eigenpairs, building.

Run it from the root of the repository, all of it or some sections:

    python benchmarks/products.py [hessian] [ggn] [slq] [top] [build] [gradient] [--models mlp cnn cnn_bn gpt] [--batches 1 8]
        [--frameworks torch jax] [--small] [--threads 1] [--no-memory] [--out FILE]

Networks: an MLP 784-512-256-10 (2,000 examples), a VGG-like network of 1.1 million parameters with and without batch normalisation
in evaluation mode (128 examples), and a GPT of 2.9 million (6 layers of width 192, 512 words, four sequences of 128; eight of them
where there are eight batches), single precision, synthetic data from a seed. Every comparison is a ratio of times that were taken in
turns in one process, printed with its target. Products are compared with plain torch, written without the library.

Peers that are not installed are left out with a line that says so:

    pip install --no-deps curvlinops-for-pytorch backpack-for-pytorch hessian-eigenthings==1.0.0a4 pyhessian
    pip install einops einconv opt_einsum linear_operator unfoldnd matfree jax

The unit, one gradient, is plain autograd over all batches. ``ours recomputed`` keeps nothing between products. Long tasks (`slq`,
`top`) begin from a new operator on our side, so that its linearisation counts, while constructing a peer's does not. On the CPU,
``MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592`` speeds up all sides where convolutions allocate much.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import importlib.metadata
import json
import multiprocessing
import os
import pathlib
import platform
from collections.abc import Callable
from typing import Any

from core import RESULTS, pin

SECTIONS = ("gradient", "hessian", "ggn", "build", "slq", "top")
MODELS = ("mlp", "cnn", "cnn_bn", "gpt")
PACKAGES = ("numpy", "scipy", "torch", "jax", "curvlinops-for-pytorch", "hessian-eigenthings", "pyhessian", "matfree")


def versions(threads: int) -> dict[str, str]:
    """Versions of all sides, threads, and the load that the run began with."""
    found = {"python": platform.python_version(), "threads": str(threads), "cores": str(os.cpu_count())}
    for package in ("linop-spectra", *PACKAGES):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return {**found, "load": load()}


def load() -> str:
    """How many processes want to run."""
    return f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown"


def fresh(function: Callable[..., Any], *arguments: Any) -> Any:
    """The value of a function in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def timed(*arguments: Any) -> Any:
    from products_tasks import timed

    return timed(*arguments)


def measured_memory(*arguments: Any) -> Any:
    from products_tasks import measured_memory

    return measured_memory(*arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", help=f"among {', '.join(SECTIONS)}; all by default")
    parser.add_argument("--small", action="store_true", help="tiny networks, to see that everything works; writes nothing by default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--frameworks", nargs="+", choices=("torch", "jax"), default=("torch", "jax"))
    parser.add_argument("--rounds", type=int, help="how often all sides take their turns with a product (three when small, else nine)")
    parser.add_argument("--long-rounds", type=int, help="the same for `slq` and `top` (one when small, else two)")
    parser.add_argument("--cpu-time", action="store_true", help="time on the processor, for one thread on a machine that others use too")
    parser.add_argument("--no-memory", action="store_true", help="leave the measurements of memory out")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file (benchmarks/results/products.json)")
    options = parser.parse_args()
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no section is called {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    options.sections = [section for section in SECTIONS if not options.sections or section in options.sections]
    if options.out is None and not options.small:
        options.out = RESULTS / "products.json"
    if options.cpu_time and options.threads != 1:
        parser.error("--cpu-time adds the times of all threads up, so that it means something for --threads 1 only")
    pin(options.threads)
    machine = {**versions(options.threads), "clock": "processor" if options.cpu_time else "wall"}
    print("; ".join(f"{name} {value}" for name, value in machine.items()))
    rows = []
    for name in options.models:
        for batches in options.batches:
            for framework in options.frameworks:
                print(f"\n== {framework} {name}, {batches} {'batch' if batches == 1 else 'batches'} ==", flush=True)
                row = fresh(timed, framework, name, batches, options)
                if not options.no_memory and len(row) > 5:
                    row["peak megabytes"] = fresh(measured_memory, framework, name, batches, options)
                row["machine"] = {**machine, "load": load()}
                rows.append(row)
                if options.out is not None:
                    write(options.out, row)
    summary(rows)


def write(path: pathlib.Path, row: dict[str, Any]) -> None:
    """Put the sections of one network into the file; others that it holds stay, so that a run may be done in parts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    same = [old for old in rows if all(old[key] == row[key] for key in ("framework", "name", "batches"))]
    for old in same:
        rows.remove(old)
        peaks = {**old.get("peak megabytes", {}), **row.get("peak megabytes", {})}
        row = {**old, **row, "peak megabytes": peaks}
    path.write_text(json.dumps({"rows": [*rows, row]}, indent=1) + "\n")


def summary(rows: list[dict[str, Any]]) -> None:
    """All targets in a table."""
    print("\ntargets:")
    for row in rows:
        for section, found in row.items():
            if not isinstance(found, dict):
                continue
            for part, values in [(section, found)] if "verdicts" in found else [(f"{section} {key}", found[key]) for key in found]:
                for one in values.get("verdicts", []) if isinstance(values, dict) else []:
                    place = f"{row['framework']} {row['name']} x{row['batches']} {part}"
                    word = "MET" if one["met"] else "MISSED"
                    print(f"  {place:32s} of {one['against']:12s} {one['ratio']:.2f} at most {one['target']:g} {word}")


if __name__ == "__main__":
    main()
