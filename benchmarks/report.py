"""The whole report of an MNIST classifier (535,818 parameters, 10,000 images): products and seconds of each section.

Run it from the root of the repository:

    OMP_NUM_THREADS=2 python benchmarks/report.py [--out DIR] [--images N] [--against FOLDER]

With --against, the same report is made by the package in FOLDER, another checkout, directly afterwards, and the ratio is printed: of
processor time, because a shared machine changes wall-clock time more than the code does. It needs MNIST as mnist_spectrum.py does.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import torch
from mnist_spectrum import BATCH, RESULTS, data_folder, load_images, train_network

import linop_spectra as ls
from linop_spectra.cli.output import plain, versions
from linop_spectra.cli.report import measure
from linop_spectra.cli.report_work import Extent, Work
from linop_spectra.cli.summary import format_table
from linop_spectra.cli.target import load_target

IMAGES = "LINOP_SPECTRA_IMAGES"
"""Environment variable by which the target, which takes no arguments, is told the number of images."""


def make() -> ls.Objective:
    """The objective, as the command's target."""
    folder = data_folder()
    if folder is None:
        raise FileNotFoundError("There is no MNIST in the folder LINOP_SPECTRA_DATA or in ../shared/data.")
    images, labels = load_images(folder, int(os.environ.get(IMAGES, "10000")))
    return ls.objective(train_network(images, labels, seed=0), "cross_entropy", (images, labels), batch_size=BATCH)


def numbers() -> dict[str, Any]:
    """Make the report; products and seconds of its sections, and how true its progress bar was."""
    work = Work(load_target(f"{__file__}:make", None), Extent.of(None, False), 0)
    began, worked = time.perf_counter(), time.process_time()
    moments: list[tuple[float, float, float]] = []

    def progress(done: int, total: int) -> None:
        moments.append((done / total, time.perf_counter() - began, time.process_time() - worked))

    sections, _ = measure(work, progress)
    wall, processor = time.perf_counter() - began, time.process_time() - worked
    shares = [share for share, _, _ in moments]
    half = next(moment for moment in moments if moment[0] >= 0.5)
    times = {"wall": (half[1], wall), "processor": (half[2], processor)}
    # Predicted over actual: what a bar says at the half is that as much is to come as has passed.
    left = {name: spent * (1 - half[0]) / half[0] / (whole - spent) for name, (spent, whole) in times.items()}
    rows = [
        {"section": one.title, "products": one.num_matvecs, "seconds": one.seconds, "processor_seconds": one.processor_seconds}
        for one in sections
    ]
    return {
        "sections": rows, "seconds": wall, "processor_seconds": processor, "threads": torch.get_num_threads(),
        "left_out": {one.title: one.omitted for one in sections if one.omitted},
        "progress": {
            "monotone": shares == sorted(shares), "ends_at": shares[-1], "steps": len(shares), "remaining_at_half_over_actual": left,
        },
    }  # fmt: skip


def other(folder: str) -> dict[str, Any]:
    """The numbers of the package in another folder, from a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])}
    line = [sys.executable, __file__, "--numbers"]
    done = subprocess.run(line, env=environment, cwd=folder, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> int:
    """Measure, print, write; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    parser.add_argument("--against", metavar="FOLDER")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--numbers", action="store_true", help="print the numbers as one line of JSON, and write nothing")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    os.environ.setdefault(IMAGES, str(options.images))
    if data_folder() is None:
        print("Skipped: there is no MNIST in the folder LINOP_SPECTRA_DATA or in ../shared/data.")
        return 0
    found = numbers()
    if options.numbers:
        print(json.dumps(plain(found)))
        return 0
    found |= {"images": int(os.environ[IMAGES]), "versions": versions(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    columns = ("section", "products", "seconds", "processor_seconds")
    rows = [[f"{row[name]:,.1f}" if isinstance(row[name], float) else str(row[name]) for name in columns] for row in found["sections"]]
    products = sum(row["products"] for row in found["sections"])
    total = ["all", str(products), *(f"{found[name]:,.1f}" for name in columns[2:])]
    print(format_table([list(columns), *rows, total]))
    print(f"\nprogress: {found['progress']}")
    if options.against:
        before = other(options.against)
        found["before"] = before
        found["processor_ratio"] = found["processor_seconds"] / before["processor_seconds"]
        print(f"{found['processor_ratio']:.2f} of the processor time of {options.against}: {before['processor_seconds']:.1f} s")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "report.json").write_text(json.dumps(plain(found), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
