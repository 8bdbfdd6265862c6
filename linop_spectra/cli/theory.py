"""``linop-spectra theory``: predictions of random-matrix theory, tested by the library on this machine."""

from __future__ import annotations

import argparse
import shlex
import sys
import textwrap
from typing import Any

from .errors import CommandError
from .output import cannot_write, prepare_folder, versions, write_figure, write_json
from .summary import format_table

FAILED = 1
"""Exit status when theory and measurement disagree."""


def theory_command(options: argparse.Namespace) -> int:
    """Run the subcommand; returns the exit status."""
    from ..validation import conduct, experiments

    known = experiments()
    if options.list:
        _print_list(known)
        return 0
    names = list(known) if options.names == ["all"] else list(dict.fromkeys(options.names))
    if not names:
        raise CommandError("The argument NAME is missing; name experiments, or 'all', or see --list.")
    if unknown := [name for name in names if name not in known]:
        raise CommandError(f"There is no experiment {unknown[0]!r}; linop-spectra theory --list shows them all.")
    folder = prepare_folder(options.out)
    passed = []
    for name in names:
        if absent := known[name].missing():
            print(f"linop-spectra: warning: {name} is left out, because {absent} is not installed.", file=sys.stderr)
            continue
        outcome = conduct(known[name], options.seed)
        passed.append(outcome.passed)
        _write(folder, outcome, options)
        if not options.quiet:
            print(_wrapped(f"{name}: {outcome.experiment.statement} ({outcome.experiment.source})."), end="\n\n")
            print(format_table(list(zip(*outcome.table(), strict=True))), end="\n\n")
            print(f"{'Passed' if outcome.passed else 'FAILED'} in {outcome.seconds:.1f} s.\n", flush=True)
    if not options.quiet:
        print(f"{sum(passed)} of {len(passed)} experiments passed; written to {folder}.")
    return 0 if all(passed) else FAILED


def _print_list(known: dict[str, Any]) -> None:
    for name, experiment in known.items():
        print(f"{name}\n{textwrap.indent(_wrapped(f'{experiment.statement} ({experiment.source}).'), '    ')}")


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 110)


def _write(folder: Any, outcome: Any, options: argparse.Namespace) -> None:
    name = outcome.experiment.name
    path = folder / f"{name}.json"
    try:
        write_json(path, {
            "experiment": name, "statement": outcome.experiment.statement, "source": outcome.experiment.source,
            "passed": outcome.passed, "rows": outcome.records(), "seconds": outcome.seconds, "seed": options.seed,
            "command": shlex.join(["linop-spectra", *options.argv]), "versions": versions(),
        })  # fmt: skip
        path = folder / f"{name}.png"
        try:
            axes = outcome.plot()
        except ImportError as error:
            print(f"linop-spectra: warning: {path.name} is left out: {error}", file=sys.stderr)
            return
        write_figure(path, axes)
    except OSError as error:
        raise cannot_write(path, error) from error
