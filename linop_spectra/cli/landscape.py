"""``linop-spectra landscape``: the loss of an objective along lines or over a plane, three files and a table."""

from __future__ import annotations

import argparse
import pathlib
import shlex
import sys
from typing import Any

import numpy as np

from ..curvature import CurvatureOperator, Objective
from .errors import INTERRUPTED, CommandError, explain_failure, is_ours
from .output import cannot_write, prepare_folder, versions, write_figure, write_json
from .spectrum import _check_checkpoint, show_progress
from .summary import format_table
from .target import Target, load_target

LINE_POINTS, PLANE_POINTS = 21, 15
_KINDS = {"top": "top", "bottom": "bottom", "random": "random", "filter": "filter_normalized"}


def landscape_command(options: argparse.Namespace) -> int:
    """Run the subcommand; returns the exit status."""
    from ..landscape import LandscapeInterrupted

    if options.plane and options.count is not None:
        raise CommandError("The argument --count is for lines; a plane has two directions, so drop it or --plane.")
    target = load_target(options.target)
    operator = target.operator
    objective = operator.objective if isinstance(operator, CurvatureOperator) else None
    if not isinstance(objective, Objective):
        raise CommandError(
            f"The argument TARGET is {options.target!r}, which gives an operator, but a loss surface needs an Objective; return what "
            "linop_spectra.objective makes."
        )
    held_out = _held_out(target, objective, options) if options.held_out else None
    folder = prepare_folder(options.out)
    _check_checkpoint(options.checkpoint)
    failure: CommandError | None = None
    try:
        result = _compute(objective, held_out, options)
    except LandscapeInterrupted as error:
        result, failure = error.partial, CommandError(str(error).replace("kept in .partial", "kept and marked as partial"))
        failure.__cause__ = error
    except Exception as error:
        if is_ours(error):
            raise CommandError(str(error)) from error
        raise CommandError(f"The loss of {options.target} failed: {explain_failure(error, target.file)}.") from error
    summary = summarise(result)
    _write(folder, result, summary, options, failure)
    if not options.quiet:
        print(f"Loss surface of {options.target}\n")
        print(format_table(list(zip(*_rows(summary), strict=True))))
        print(f"\nWritten to {folder}{'' if failure is None else ', as far as the run came'}.")
    if failure is not None:
        raise failure
    if result.status == "interrupted":
        print(f"linop-spectra: Interrupted; what was done until then is in {str(folder)!r} and marked so.", file=sys.stderr)
        return INTERRUPTED
    return 0


def _held_out(target: Target, objective: Objective, options: argparse.Namespace) -> Objective:
    given = target.held_out
    if given is None:
        raise CommandError(
            f"The argument --held-out asks for held-out data, but {options.target!r} gives none; return (objective, held_out) from the "
            "factory, where held_out is data as linop_spectra.objective takes them."
        )
    if isinstance(given, Objective):
        return given
    try:
        return objective.with_data(given)
    except Exception as error:
        if is_ours(error):
            raise CommandError(f"The held-out data of {options.target!r} do not fit: {error}") from error
        raise CommandError(f"The held-out data of {options.target!r} failed: {explain_failure(error, target.file)}.") from error


def _compute(objective: Objective, held_out: Objective | None, options: argparse.Namespace) -> Any:
    from ..landscape import directions, line, plane

    found = directions(objective, _KINDS[options.directions], 2 if options.plane else options.count or 1, seed=options.seed)  # type: ignore[arg-type]
    default = PLANE_POINTS if options.plane else LINE_POINTS
    t = np.linspace(-options.span, options.span, options.points or default)
    common: dict[str, Any] = {
        "metrics": "accuracy" if options.accuracy else None, "batch_norm": options.batch_norm, "checkpoint": options.checkpoint,
        "held_out": held_out, "time_budget": options.time_budget, "progress": show_progress(options) or None,
        "quadratic": None if options.directions in ("top", "bottom") else True,
    }  # fmt: skip
    if options.plane:
        return plane(objective, found, xs=t, **common)
    return line(objective, found, t, **common)


def summarise(result: Any) -> dict[str, Any]:
    """All numbers of a line or a plane: arrays, and what the table shows."""
    loss = result.loss
    known = loss[np.isfinite(loss)]
    curvature = np.diag(result.curvature) if hasattr(result, "xs") else np.atleast_1d(result.curvature)
    places = {"xs": result.xs, "ys": result.ys} if hasattr(result, "xs") else {"distances": result.distances}
    return {
        **places,
        "directions": list(result.labels),
        "loss": loss,
        "held_out_loss": result.held_out_loss,
        "metrics": result.metrics,
        "held_out_metrics": result.held_out_metrics,
        "loss_at_centre": result.value,
        "smallest_loss": float(known.min()) if known.size else None,
        "largest_loss": float(known.max()) if known.size else None,
        "slope": np.atleast_1d(result.slope),
        "curvature": curvature,
        "num_points": int(loss.size),
        "num_evaluated": int(result.evaluated.sum()),
        "num_not_finite": int((result.evaluated & ~np.isfinite(loss)).sum()),
        "num_matvecs": result.num_matvecs,
        "batch_norm": result.batch_norm,
        "status": result.status,
        "seconds": result.seconds,
    }


def _rows(numbers: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("status", numbers["status"]),
        ("points", f"{numbers['num_evaluated']:,} of {numbers['num_points']:,}"),
        ("not finite", str(numbers["num_not_finite"])),
        ("products", f"{numbers['num_matvecs']:,}"),
        ("seconds", f"{numbers['seconds']:.1f}"),
        ("loss at the centre", f"{numbers['loss_at_centre']:.6g}"),
    ]
    if numbers["smallest_loss"] is not None:
        rows.append(("loss", f"{numbers['smallest_loss']:.6g} to {numbers['largest_loss']:.6g}"))
    held_out = numbers["held_out_loss"]
    if held_out is not None and np.isfinite(held_out).any():
        rows.append(("held-out loss", f"{np.nanmin(held_out):.6g} to {np.nanmax(held_out):.6g}"))
    for label, slope, curvature in zip(numbers["directions"], numbers["slope"], numbers["curvature"], strict=True):
        rows.append((label, f"slope {slope:.4g}, curvature {curvature:.4g}"))
    return rows


def _write(
    folder: pathlib.Path, result: Any, summary: dict[str, Any], options: argparse.Namespace, failure: CommandError | None
) -> None:
    about = {
        "target": options.target, "seed": options.seed, "command": shlex.join(["linop-spectra", *options.argv]), "versions": versions(),
        "error": None if failure is None else str(failure),
    }  # fmt: skip
    path = folder / "landscape.json"
    try:
        write_json(path, {**summary, **about})
        path = folder / "landscape.npz"
        result.save(path)
        path = folder / "landscape.png"
        try:
            axes = result.plot()
        except (ImportError, ValueError) as error:  # matplotlib is missing, or nothing is finite
            print(f"linop-spectra: warning: {path.name} is left out: {error}", file=sys.stderr)
            return
        write_figure(path, axes)
    except OSError as error:
        raise cannot_write(path, error) from error
