"""A line of 21 points: many points in one pass over the data against one pass for each point.

Run it from the root of the repository:

    python benchmarks/landscape.py [NAME ...] [--repeats 3] [--out benchmarks/results/landscape.json]

The other side of each ratio is the plain loop: an objective at each point, its value, then its accuracy. "held" are data in memory; "read"
are batches that do not fit the memory budget and are loaded and augmented again in each pass (images moved by a few random pixels).
"""

from __future__ import annotations

import argparse
import itertools
import json
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.ndimage
from core import RESULTS
from core_common import in_turns, ratio, show, versions

import linop_spectra as ls
import linop_spectra.landscape
from linop_spectra.landscape.metrics import Accuracy

POINTS = 21
EXAMPLES, SIDE, CLASSES, BATCH = 2048, 16, 10, 256
AGREE = 1e-5
BUDGET = 3 << 20
"""Half of it is for data: less than they take."""


class Augmented:
    """Batches of images, each moved by a few random pixels when it is read, by NumPy's random state, which is frozen."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, convert: Any) -> None:
        self.images, self.labels, self.convert = images, labels, convert

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for first in range(0, len(self.images), BATCH):
            part = self.images[first : first + BATCH]
            shifts = np.random.randint(-2, 3, (len(part), 2))  # noqa: NPY002 -- as loaders do
            moved = [np.roll(image, shift, (0, 1)) for image, shift in zip(part, shifts, strict=True)]
            yield self.convert(np.stack(moved)), self.convert(self.labels[first : first + BATCH])


def torch_model(kind: str) -> tuple[Any, Any]:
    import torch
    from torch import nn

    torch.manual_seed(0)
    if kind == "mlp":
        model = nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 32), nn.ReLU(), nn.Linear(32, CLASSES))
    else:
        model = nn.Sequential(
            nn.Unflatten(1, (1, SIDE)), nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.LazyLinear(CLASSES),
        )  # fmt: skip
        model(torch.zeros(1, SIDE, SIDE))
    return lambda data, **options: ls.objective(model, "cross_entropy", data, **options), torch.as_tensor


def jax_model(kind: str) -> tuple[Any, Any]:
    import jax

    rng = np.random.default_rng(0)
    sizes = (SIDE**2, 32, CLASSES)
    params = [rng.standard_normal(shape).astype(np.float32) / shape[0] ** 0.5 for shape in itertools.pairwise(sizes)]

    def apply(weights: Any, x: Any) -> Any:
        return jax.nn.relu(x.reshape(len(x), -1) @ weights[0]) @ weights[1]

    return lambda data, **options: ls.objective(apply, "cross_entropy", data, params=params, **options), np.asarray


def keras_model(kind: str) -> tuple[Any, Any]:
    import keras

    layers = keras.layers
    model = keras.Sequential([keras.Input((SIDE, SIDE)), layers.Flatten(), layers.Dense(32, "relu"), layers.Dense(CLASSES)])
    return lambda data, **options: ls.objective(model, "cross_entropy", data, **options), np.asarray


NETWORKS = {
    "torch mlp": (torch_model, "mlp"), "torch cnn": (torch_model, "cnn"), "jax mlp": (jax_model, "mlp"), "keras mlp": (keras_model, "mlp"),
}  # fmt: skip


def loop(objective: Any, direction: np.ndarray, distances: np.ndarray, accuracy: Any) -> np.ndarray:
    """One point after the other."""
    theta, out = objective.parameters(), []
    for t in distances:
        there = objective.with_parameters(theta + np.float32(t) * direction)
        out.append([there.value(), *([accuracy(there)] if accuracy else [])])
    return np.array(out).T


def measure(name: str, repeats: int) -> dict[str, Any]:
    build, kind = NETWORKS[name]
    make, convert = build(kind)
    rng = np.random.default_rng(1)
    images = scipy.ndimage.gaussian_filter(rng.standard_normal((EXAMPLES, SIDE, SIDE)), (0, 2, 2)).astype(np.float32) * 5
    labels = rng.integers(0, CLASSES, EXAMPLES)
    held = make((convert(images), convert(labels)), batch_size=BATCH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the data are not kept
        read = make(Augmented(images, labels, convert), memory_budget=BUDGET)
        read.value()
    distances = np.linspace(-1, 1, POINTS)
    found: dict[str, Any] = {}
    for place, objective in (("held", held), ("read", read)):
        direction = np.asarray(ls.landscape.directions(objective, "random").vectors[:, 0])
        for what in ("loss", "loss and accuracy"):
            accuracy = Accuracy(objective) if what != "loss" else None
            metrics = "accuracy" if accuracy else None

            def ours(objective: Any = objective, metrics: Any = metrics, direction: Any = direction) -> np.ndarray:
                line = ls.landscape.line(objective, direction, distances, metrics=metrics)
                return np.array([line.loss, *line.metrics.values()])

            def plain(objective: Any = objective, accuracy: Any = accuracy, direction: Any = direction) -> np.ndarray:
                return loop(objective, direction, distances, accuracy)

            error = float(np.max(np.abs(ours() - plain()) / np.abs(plain())))
            if not error < AGREE:
                raise SystemExit(f"{name}, {place}, {what}: the two differ by {error:.1e}")
            times = in_turns({"ours": ours, "loop": plain}, repeats)
            found[f"{place}, {what}"] = {"ratio": ratio(times["ours"], times["loop"]), "error": error}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"among {', '.join(map(repr, NETWORKS))}; all by default")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS / "landscape.json")
    options = parser.parse_args()
    results = {name: measure(name, options.repeats) for name in options.names or NETWORKS}
    for name, rows in results.items():
        for what, row in rows.items():
            print(f"{name:10} {what:24} {show(row['ratio'])}")
    options.out.write_text(json.dumps({"versions": versions(1), "ratio_to_a_loop": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
