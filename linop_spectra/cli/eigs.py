"""``linop-spectra eigs``: some eigenpairs of one operator, two files and a table."""

from __future__ import annotations

import argparse
import pathlib
import shlex
import sys
from typing import Any

from ..krylov import LanczosInterrupted
from .errors import BAD_INPUT, INTERRUPTED, CommandError, explain_failure, is_ours
from .output import cannot_write, prepare_folder, versions, write_json
from .spectrum import product_failed, show_progress
from .summary import format_table
from .target import Target, load_target


def eigs_command(options: argparse.Namespace) -> int:
    """Run the subcommand; returns the exit status."""
    target = load_target(options.target, options.operator)
    order = target.operator.shape[0]
    if options.k > order:
        raise CommandError(f"The argument -k is {options.k}, but {target.name} has only {order} eigenvalues; ask for fewer.")
    folder = prepare_folder(options.out)
    failure: CommandError | None = None
    try:
        result = _compute(target, options)
    except LanczosInterrupted as error:
        result, failure = _keep_partial(error, target)
    numbers = summarise(result)
    _write(folder, result, numbers, target, options, failure)
    if not options.quiet:
        print(f"Eigenvalues of {target.name}\n")
        print(format_table(list(zip(*_rows(numbers), strict=True))))
        verified = "no wanted eigenvalue is missing" if result.verified else "a copy of a multiple eigenvalue may be missing"
        print(f"\n{result.num_matvecs:,} products in {result.seconds:.1f} s; {verified}.")
        print(f"Written to {folder}{'' if failure is None else ', as far as the search came'}.")
    if failure is not None:
        raise failure
    if result.status == "interrupted":
        print(f"linop-spectra: Interrupted; what was done until then is in {str(folder)!r} and marked so.", file=sys.stderr)
        return INTERRUPTED
    return 0


def summarise(result: Any) -> dict[str, Any]:
    """All numbers of the table."""
    return {
        "eigenvalues": [
            {"value": value, "residual_norm": residual, "converged": converged}
            for value, residual, converged in zip(result.eigenvalues, result.residual_norms, result.converged, strict=True)
        ],
        "num_matvecs": result.num_matvecs,
        "seconds": result.seconds,
        "status": result.status,
        "verified": result.verified,
        "norm_estimate": result.norm_estimate,
        "method": result.method,
    }


def _rows(numbers: dict[str, Any]) -> list[tuple[str, str, str]]:
    rows = [("eigenvalue", "residual", "")]
    for pair in numbers["eigenvalues"]:
        rows.append((f"{pair['value']:.10g}", f"{pair['residual_norm']:.1e}", "" if pair["converged"] else "not converged"))
    return rows


def _compute(target: Target, options: argparse.Namespace) -> Any:
    from ..krylov import eigsh

    try:
        return eigsh(
            target.operator, k=options.k, which=options.which, tol=options.tol, seed=options.seed, max_matvecs=options.max_products,
            time_budget=options.time_budget, progress=show_progress(options) or None,
        )  # fmt: skip
    except LanczosInterrupted:
        raise
    except Exception as error:
        raise product_failed(error, target) from error


def _keep_partial(error: LanczosInterrupted, target: Target) -> tuple[Any, CommandError]:
    """The pairs that were known before a product failed, and what to say about it."""
    cause = error.__cause__
    sentence = str(error).rstrip(".")
    if cause is not None and not is_ours(cause):
        sentence += f"; {explain_failure(cause, target.file)}"
    if error.partial is None or not len(getattr(error.partial, "eigenvalues", ())):
        raise CommandError(f"{sentence}; there was no eigenpair to keep.") from error
    failure = CommandError(f"{sentence}; the pairs known until then were kept and are marked as partial.", BAD_INPUT)
    failure.__cause__ = error
    return error.partial, failure


def _write(
    folder: pathlib.Path, result: Any, numbers: dict[str, Any], target: Target, options: argparse.Namespace, failure: CommandError | None
) -> None:
    about = {
        "target": options.target, "operator": target.matrix, "order": target.operator.shape[0], "dtype": str(target.operator.dtype),
        "which": options.which, "tol": options.tol, "seed": options.seed, "command": shlex.join(["linop-spectra", *options.argv]),
        "versions": versions(), "error": None if failure is None else str(failure),
    }  # fmt: skip
    path = folder / "summary.json"
    try:
        write_json(path, {**numbers, **about})
        path = folder / "eigenpairs.npz"
        result.save(path)
    except OSError as error:
        raise cannot_write(path, error) from error
