"""``linop-spectra compare``: two spectra, a verdict, three files and a table."""

from __future__ import annotations

import argparse
import pathlib
import shlex
import sys
from typing import Any

import numpy as np

from ..results import read_result
from .errors import CommandError
from .output import cannot_write, prepare_folder, versions, write_figure, write_json
from .spectrum import product_failed, show_progress
from .target import load_target


def compare_command(options: argparse.Namespace) -> int:
    """Run the subcommand; returns the exit status."""
    folder = prepare_folder(options.out)
    # Probes of their own for each, so that chance does not move both alike.
    first, second = (_spectrum(text, options, options.seed + place) for place, text in enumerate((options.first, options.second)))
    from ..spectra.compare import compare

    result = compare(first, second, level=options.level, seed=options.seed)
    _write(folder, result, options)
    if not options.quiet:
        print(f"a: {options.first}\nb: {options.second}\n\n{result}\n\nWritten to {folder}.")
    return 0


def _spectrum(text: str, options: argparse.Namespace, seed: int) -> Any:
    """A saved spectrum, or that of a target."""
    from ..spectra import SpectralDensity, spectral_density

    if _is_result(text):
        from ..results import load

        try:
            found = load(text)
        except ValueError as error:
            raise CommandError(str(error)) from error
        if not isinstance(found, SpectralDensity):
            raise CommandError(
                f"The file {text!r} holds a {type(found).__name__}, but a comparison needs spectra; give the spectrum.npz that the command "
                "spectrum wrote."
            )
        return found
    target = load_target(text, options.operator)
    try:
        found = spectral_density(
            target.operator, num_steps=options.steps, num_probes=options.probes, seed=seed, progress=show_progress(options) or None
        )
    except Exception as error:
        raise product_failed(error, target) from error
    if found.status == "interrupted":
        raise KeyboardInterrupt
    return found


def _is_result(text: str) -> bool:
    """Whether a file was written by the library rather than by numpy or scipy for a matrix."""
    path = pathlib.Path(text)
    if not text.lower().endswith(".npz") or not path.is_file():
        return False
    try:
        with np.load(path, allow_pickle=False) as archive:
            if len(archive.files) == 1 or {"format", "shape"} <= set(archive.files):
                return False
        read_result(path)
    except Exception:  # what is damaged is for the reader of matrices to name
        return False
    return True


def _write(folder: pathlib.Path, result: Any, options: argparse.Namespace) -> None:
    distances = {
        name: {"value": one.value, "low": one.low, "high": one.high, "null": one.null, "null_quantile": one.null_quantile}
        for name, one in ((name, getattr(result, name)) for name in ("wasserstein", "kolmogorov", "jensen_shannon"))
    }
    differences = {}
    for name in ("trace", "largest_eigenvalue", "smallest_eigenvalue", "negative_mass"):
        estimate = getattr(result, name)
        low, high = estimate.confidence_interval(0.95)
        differences[name] = {"value": estimate.value, "low": low, "high": high, "level": 0.95}
    path = folder / "summary.json"
    try:
        write_json(path, {
            "distinguishable": result.distinguishable, "p_value": result.p_value, "level": result.level, "verdict": result.verdict,
            "p_values": result.p_values, "missing": result.missing, **distances, "differences": differences,
            "num_common": result.num_common, "dimensions": result.dimensions, "num_steps": result.num_steps,
            "num_probes": result.num_probes, "notes": result.notes, "first": options.first, "second": options.second,
            "seed": options.seed, "command": shlex.join(["linop-spectra", *options.argv]), "versions": versions(),
        })  # fmt: skip
        path = folder / "comparison.npz"
        result.save(path)
        path = folder / "comparison.png"
        try:
            panels = result.plot()
        except ImportError as error:
            print(f"linop-spectra: warning: {path.name} is left out: {error}", file=sys.stderr)
            return
        write_figure(path, panels[0])
    except OSError as error:
        raise cannot_write(path, error) from error
