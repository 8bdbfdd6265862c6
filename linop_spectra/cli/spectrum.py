"""``linop-spectra spectrum``: one operator, its spectrum, three files and a table."""

from __future__ import annotations

import argparse
import pathlib
import shlex
import sys
from typing import Any

from ..krylov import LanczosInterrupted
from .errors import BAD_INPUT, INTERRUPTED, CommandError, explain_failure, is_ours
from .output import cannot_write, prepare_folder, versions, write_figure, write_json
from .summary import format_table, rows, summarise
from .target import Target, load_target


def spectrum_command(options: argparse.Namespace) -> int:
    """Run the subcommand; returns the exit status."""
    target = load_target(options.target, options.operator)
    if options.dry_run:
        return _print_plan(target, options)
    folder = prepare_folder(options.out)
    _check_checkpoint(options.checkpoint)
    failure: CommandError | None = None
    try:
        result = _compute(target, options)
    except LanczosInterrupted as error:
        result, failure = _keep_partial(error, target)
    write_result(folder, result, target, options, failure)
    if not options.quiet:
        print(f"Spectrum of {target.name}\n")
        print(format_table(list(zip(*rows(summarise(result)), strict=True))))
        print(f"\n{result.explain()}\n\nWritten to {folder}{'' if failure is None else ', as far as the run came'}.")
    if failure is not None:
        raise failure
    if result.status == "interrupted":
        print(f"linop-spectra: Interrupted; what was done until then is in {str(folder)!r} and marked so.", file=sys.stderr)
        return INTERRUPTED
    return 0


def write_result(
    folder: pathlib.Path, result: Any, target: Target, options: argparse.Namespace, failure: CommandError | None
) -> None:
    """Write ``summary.json``, ``spectrum.npz`` and, where matplotlib is there, ``spectrum.png``.

    Raises
    ------
    CommandError
        When the disk is full or the folder has gone.
    """
    about = {
        "target": options.target, "operator": target.matrix, "dtype": str(target.operator.dtype), "seed": options.seed,
        "command": shlex.join(["linop-spectra", *options.argv]), "versions": versions(),
        "error": None if failure is None else str(failure),
    }  # fmt: skip
    path = folder / "summary.json"
    try:
        write_json(path, {**summarise(result), **about})
        path = folder / "spectrum.npz"
        result.save(path)
        path = folder / "spectrum.png"
        write_picture(path, result)
    except OSError as error:
        raise cannot_write(path, error) from error


def write_picture(path: pathlib.Path, result: Any) -> None:
    """Draw one spectrum, or say what to install."""
    from ..plots import spectrum

    try:
        axes = spectrum(result)
    except ImportError as error:
        print(f"linop-spectra: warning: {path.name} is left out: {error}", file=sys.stderr)
        return
    write_figure(path, axes)


def show_progress(options: argparse.Namespace) -> bool:
    """Whether to show bars: on a terminal, unless the user asked for none."""
    return sys.stderr.isatty() and not options.no_progress and not options.quiet


def _compute(target: Target, options: argparse.Namespace) -> Any:
    from ..spectra import spectral_density

    try:
        return spectral_density(
            target.operator, num_steps=options.steps, num_probes=options.probes, seed=options.seed,
            time_budget=options.time_budget, checkpoint=options.checkpoint, progress=show_progress(options) or None,
        )
    except LanczosInterrupted:
        raise
    except Exception as error:
        raise product_failed(error, target) from error


def _print_plan(target: Target, options: argparse.Namespace) -> int:
    from ..spectra import plan

    try:
        print(plan(target.operator, num_steps=options.steps, num_probes=options.probes))
    except Exception as error:
        raise product_failed(error, target) from error
    return 0


def product_failed(error: Exception, target: Target) -> CommandError:
    """The library's own sentences as they are; anything else came from the user's operator."""
    if is_ours(error):
        return CommandError(str(error))
    return CommandError(f"The product with {target.name} failed: {explain_failure(error, target.file)}.")


def _keep_partial(error: LanczosInterrupted, target: Target) -> tuple[Any, CommandError]:
    """The spectrum of the steps that were done before a product failed, and what to say about it."""
    from ..spectra import SpectralDensity

    cause = error.__cause__
    sentence = str(error).rstrip(".")
    if cause is not None and not is_ours(cause):
        sentence += f"; {explain_failure(cause, target.file)}"
    if error.step < 1:
        raise CommandError(f"{sentence}; there was no complete step to keep.") from error
    partial = error.partial
    result = partial if isinstance(partial, SpectralDensity) else SpectralDensity(partial)
    failure = CommandError(f"{sentence}; the {error.step} complete steps were kept and are marked as partial.", BAD_INPUT)
    failure.__cause__ = error
    return result, failure


def _check_checkpoint(path: str | None) -> None:
    if path is None:
        return
    folder = pathlib.Path(path).resolve().parent
    if not folder.is_dir():
        raise CommandError(f"The argument --checkpoint is {path!r}, but there is no folder {str(folder)!r}; make it first.")
    if pathlib.Path(path).is_dir():
        raise CommandError(f"The argument --checkpoint is {path!r}, which is a folder; name a file in it.")
