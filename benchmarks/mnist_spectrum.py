"""The Hessian spectrum of a trained MLP on 10,000 MNIST images: seconds, cost of a product, memory, and the numbers.

Run it from the root of the repository:

    python benchmarks/mnist_spectrum.py [--out DIR] [--steps 64] [--images 10000]

It reads MNIST's original files from the folder LINOP_SPECTRA_DATA (or ../shared/data), subfolder ``mnist``.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import pathlib
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

import linop_spectra as ls
from linop_spectra import plots
from linop_spectra.cli.output import plain, versions, write_figure
from linop_spectra.cli.summary import format_table, rows, summarise

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
IMAGES = "train-images-idx3-ubyte.gz"
LABELS = "train-labels-idx1-ubyte.gz"
BATCH = 1536  # 10,000 is no multiple of it: six full batches and one of 784
EPOCHS = 5


def data_folder() -> pathlib.Path | None:
    """The folder with MNIST's files, or None."""
    candidates = [os.environ.get("LINOP_SPECTRA_DATA"), ROOT.parent / "shared" / "data"]
    for candidate in candidates:
        if candidate and (pathlib.Path(candidate) / "mnist" / IMAGES).is_file():
            return pathlib.Path(candidate) / "mnist"
    return None


def load_images(folder: pathlib.Path, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first `count` training images as rows with mean zero and deviation one, and their labels."""

    def read(name: str, offset: int) -> np.ndarray:
        return np.frombuffer(gzip.open(folder / name).read(), np.uint8, offset=offset)

    images = read(IMAGES, 16).reshape(-1, 784)[:count].astype(np.float32) / 255
    labels = read(LABELS, 8)[:count].astype(np.int64)
    return torch.from_numpy((images - images.mean()) / images.std()), torch.from_numpy(labels)


def train_network(images: torch.Tensor, labels: torch.Tensor, seed: int) -> nn.Module:
    """An MLP 784-512-256-10, trained by stochastic gradients with momentum."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(784, 512), nn.GELU(), nn.Linear(512, 256), nn.GELU(), nn.Linear(256, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(EPOCHS):
        for index in torch.randperm(len(labels)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[index]), labels[index]).backward()
            optimizer.step()
    optimizer.zero_grad()
    return model


def fastest(functions: Sequence[Callable[[], Any]], repeats: int = 7) -> list[float]:
    """The fastest of a few calls of each function, taken in turns so that a busy machine slows all of them alike."""
    for function in functions:
        function()
    times = np.empty((repeats, len(functions)))
    for row in times:
        for position, function in enumerate(functions):
            began = time.perf_counter()
            function()
            row[position] = time.perf_counter() - began
    return [float(best) for best in times.min(axis=0)]


def main() -> int:
    """Train, measure, write; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = data_folder()
    if folder is None:
        print(f"Skipped: there is no mnist/{IMAGES} in the folder LINOP_SPECTRA_DATA or in ../shared/data.")
        return 0
    images, labels = load_images(folder, options.images)
    began = time.perf_counter()
    model = train_network(images, labels, options.seed)
    training_seconds = time.perf_counter() - began
    with torch.no_grad():
        accuracy = float((model(images).argmax(dim=1) == labels).double().mean())

    def plain_gradient() -> None:
        for first in range(0, len(labels), BATCH):
            batch = slice(first, first + BATCH)
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch], reduction="sum") / len(labels)
            torch.autograd.grad(loss, list(model.parameters()))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    hessian = ls.objective(model, "cross_entropy", (images, labels), batch_size=BATCH).hessian()
    result = ls.spectral_density(hessian, num_steps=options.steps, num_probes=1, seed=options.seed, progress=sys.stderr.isatty())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    vector = np.random.default_rng(options.seed).standard_normal(result.dimension).astype(np.float32)
    gradient_seconds, product_seconds = fastest([plain_gradient, lambda: hessian @ vector])

    numbers = {
        **summarise(result),
        "images": len(labels), "batch_size": BATCH, "last_batch": len(labels) % BATCH or BATCH, "training_accuracy": accuracy,
        "training_seconds": training_seconds, "gradient_seconds": gradient_seconds, "product_seconds": product_seconds,
        "product_over_gradient": product_seconds / gradient_seconds, "peak_memory_bytes": peak,
        "peak_memory_before_bytes": before, "seed": options.seed, "threads": torch.get_num_threads(), "versions": versions(),
    }  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "mnist_spectrum.json").write_text(json.dumps(plain(numbers), indent=2) + "\n")
    write_figure(options.out / "mnist_spectrum.png", plots.spectrum(result))
    table = [
        *rows(numbers), ("training accuracy", f"{accuracy:.4f}"), ("one gradient", f"{gradient_seconds:.3f} s"),
        ("one product", f"{product_seconds:.3f} s, {numbers['product_over_gradient']:.2f} gradients"),
        ("peak memory", f"{peak / 1e9:.2f} GB, {before / 1e9:.2f} GB before the run"),
    ]  # fmt: skip
    print(format_table(list(zip(*table, strict=True))))
    print(f"\n{result.explain()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
