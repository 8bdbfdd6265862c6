"""``linop-spectra evolve``: the spectrum through training, over saved checkpoints; three files and a table."""

from __future__ import annotations

import argparse
import pathlib
import shlex
import sys
from typing import Any

from ..curvature import CurvatureOperator, Objective
from .errors import INTERRUPTED, CommandError, explain_failure, is_ours
from .output import cannot_write, prepare_folder, versions, write_figure, write_json
from .spectrum import show_progress
from .target import load_target


def evolve_command(options: argparse.Namespace) -> int:
    """Run the subcommand; returns the exit status."""
    target = load_target(options.target)
    operator = target.operator
    objective = operator.objective if isinstance(operator, CurvatureOperator) else None
    if not isinstance(objective, Objective):
        raise CommandError(
            f"The argument TARGET is {options.target!r}, which gives an operator, but checkpoints are those of an Objective; return what "
            "linop_spectra.objective makes."
        )
    for text in options.checkpoints:
        if not pathlib.Path(text).exists():
            raise CommandError(f"The argument CHECKPOINT is {text!r}, but there is no such file; name files that with_parameters reads.")
    folder = prepare_folder(options.out)
    from ..evolution import evolution

    kept = folder / "checkpoints"
    try:
        result = evolution(
            objective, options.checkpoints, matrix=options.operator or "hessian", num_steps=options.steps or 48, num_probes=options.probes,
            k=min(options.k, objective.num_parameters), learning_rate=options.learning_rate, method=options.method,
            momentum=options.momentum, folder=kept, seed=options.seed, progress=show_progress(options) or None,
        )  # fmt: skip
    except KeyboardInterrupt:
        done = len(list(kept.glob("*.npz"))) if kept.is_dir() else 0
        if not done:
            raise
        raise CommandError(
            f"Interrupted after {done} of {len(options.checkpoints)} checkpoints, which are kept in {str(kept)!r}; the same command goes "
            "on from there.",
            INTERRUPTED,
        ) from None
    except Exception as error:
        if is_ours(error):
            raise CommandError(str(error)) from error
        raise CommandError(f"The spectra of {options.target} failed: {explain_failure(error, target.file)}.") from error
    _write(folder, result, options)
    if not options.quiet:
        print(f"Evolution of the {result.matrix} of {options.target}\n\n{result}\n")
        print(f"{result.num_matvecs:,} products in {result.seconds:.1f} s. Written to {folder}.")
    return 0


def _write(folder: pathlib.Path, result: Any, options: argparse.Namespace) -> None:
    path = folder / "summary.json"
    try:
        write_json(path, {
            "rows": result.rows(), "eigenvalues": result.eigenvalues, "residual_norms": result.residual_norms, "matrix": result.matrix,
            "null_overlap": result.null_overlap, "converged": result.converged, "num_matvecs": result.num_matvecs,
            "seconds": result.seconds, "target": options.target, "checkpoints": options.checkpoints, "seed": options.seed,
            "command": shlex.join(["linop-spectra", *options.argv]), "versions": versions(),
        })  # fmt: skip
        path = folder / "evolution.npz"
        result.save(path)
        for kind, name in (("overview", "evolution.png"), ("ridge", "ridge.png")):
            path = folder / name
            try:
                drawn = result.plot(kind=kind)
            except ImportError as error:
                print(f"linop-spectra: warning: {path.name} is left out: {error}", file=sys.stderr)
                return
            write_figure(path, drawn if kind == "ridge" else drawn[0])
    except OSError as error:
        raise cannot_write(path, error) from error
