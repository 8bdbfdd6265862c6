"""``linop-spectra demo``: the curvature of a network before and after training, on real data."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from typing import Any

import numpy as np

from .errors import INTERRUPTED, CommandError
from .output import cannot_write, prepare_folder, versions, write_figure, write_json
from .spectrum import show_progress
from .summary import bracket, eigenvalue, format_table, interval, summarise

STEPS = 64
MATRICES = {"hessian": "Hessian", "ggn": "Gauss-Newton"}
STAGES = {"initial": "at initialisation", "trained": "after training"}


def demo_command(options: argparse.Namespace) -> int:
    """Run the subcommand; returns the exit status."""
    try:
        import sklearn  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise CommandError(
            f"The demo needs {error.name}, which is not installed; run: pip install linop-spectra[demo]"
        ) from error
    from . import digits

    folder = prepare_folder(options.out)
    began = time.perf_counter()
    data = digits.load_digits(options.seed)
    network = digits.make_network(options.seed)
    say = _Speaker(options.quiet)
    count = sum(parameter.numel() for parameter in network.parameters())
    say(f"{len(data.train[1]):,} images for training, {len(data.held_out[1])} held out; a network of {count:,} parameters.")

    results: dict[str, Any] = {}
    numbers: dict[str, Any] = {"initial": {}, "trained": {}}
    for stage, when in STAGES.items():
        if stage == "trained":
            digits.train(network, data, options.seed, show_progress(options))
        network.eval()
        about = numbers[stage]
        about["train_accuracy"] = digits.accuracy(network, data.train)
        about["held_out_accuracy"] = digits.accuracy(network, data.held_out)
        say(f"{when}: accuracy {_percent(about['train_accuracy'])} in training, {_percent(about['held_out_accuracy'])} held out")
        if not _analyse(network, data, stage, numbers[stage], results, options):
            print("linop-spectra: Interrupted; the demo writes its files only when it is complete.", file=sys.stderr)
            return INTERRUPTED
    seconds = time.perf_counter() - began
    for key, matrix in MATRICES.items():
        say(f"\n{matrix} ({count:,} parameters, {STEPS} steps, {results[f'{matrix} after training'].num_probes} probes)\n")
        say(format_table(_table(numbers, key)))
    say(f"\n{results['Hessian after training'].explain()}\n\n{seconds:.0f} seconds; written to {folder}.")
    _write(folder, results, {**numbers, "num_classes": digits.NUM_CLASSES, "seconds": seconds, "seed": options.seed,
                             "command": shlex.join(["linop-spectra", *options.argv]), "versions": versions()})
    return 0


def _analyse(
    network: Any, data: Any, stage: str, numbers: dict[str, Any], results: dict[str, Any], options: argparse.Namespace
) -> bool:
    """Both spectra and the gradient's share in the outlier space at one stage; False when the user interrupted."""
    from ..adapters import objective
    from ..krylov import eigsh
    from ..spectra import spectral_density
    from .digits import NUM_CLASSES

    loss = objective(network, "cross_entropy", data.train)
    gradient = np.asarray(loss.gradient(), dtype=np.float64)
    numbers["loss"] = loss.value()
    numbers["gradient_norm"] = float(np.linalg.norm(gradient))
    for key, matrix in MATRICES.items():
        operator = getattr(loss, key)()
        result = spectral_density(operator, num_steps=STEPS, seed=options.seed, progress=show_progress(options) or None)
        if result.status == "interrupted":
            return False
        top = eigsh(operator, NUM_CLASSES - 1, which="LA", tol=1e-4, seed=options.seed)
        vectors = np.asarray(top.eigenvectors, dtype=np.float64)
        share = float(np.linalg.norm(vectors.T @ gradient) ** 2 / max(numbers["gradient_norm"] ** 2, np.finfo(float).tiny))
        results[f"{matrix} {STAGES[stage]}"] = result
        numbers[key] = {**summarise(result), "gradient_share": share, "outlier_space": NUM_CLASSES - 1}
    return True


def _table(numbers: dict[str, Any], key: str) -> list[list[str]]:
    columns = [["", "largest eigenvalue", "smallest eigenvalue", "trace", "negative mass",
                "outliers (C − 1 = 9)", "gradient in the top C − 1"]]
    for stage, when in STAGES.items():
        one = numbers[stage][key]
        columns.append([
            when, eigenvalue(one["largest_eigenvalue"]), eigenvalue(one["smallest_eigenvalue"]), interval(one["trace"]),
            bracket(one["negative_mass"]), str(one["num_outliers"]), _percent(one["gradient_share"]),
        ])
    return columns


def _write(folder: Any, results: dict[str, Any], numbers: dict[str, Any]) -> None:
    from ..plots import spectra

    path = folder / "demo.json"
    try:
        write_json(path, numbers)
        for title, result in results.items():
            path = folder / f"{title.lower().replace(' ', '-')}.npz"
            result.save(path)
        path = folder / "spectrum.png"
        try:
            axes = spectra(results)
        except ImportError as error:
            print(f"linop-spectra: warning: {path.name} is left out: {error}", file=sys.stderr)
            return
        write_figure(path, axes[0])
    except OSError as error:
        raise cannot_write(path, error) from error


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


class _Speaker:
    """Print at once, or not at all."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    def __call__(self, text: str) -> None:
        if not self.quiet:
            print(text, flush=True)
