"""The command line: what it takes, and a sentence for each thing that does not fit."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any, NoReturn

from .errors import CommandError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one sentence instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        """Raise the sentence; `main` prints it."""
        raise CommandError(f"The command line does not fit: {message}; {self.prog} --help shows what it takes.")


def steps(text: str) -> int:
    """Number of Lanczos steps."""
    return _whole("--steps", text, 1, "64 is a good start")


def probes(text: str) -> int | str:
    """Number of probes, or ``auto``."""
    return "auto" if text == "auto" else _whole("--probes", text, 1, "'auto' chooses by the size of the operator")


def points(text: str) -> int:
    """Number of points along a direction."""
    return _whole("--points", text, 2, "21 is the default for lines")


def count(text: str) -> int:
    """Number of directions."""
    return _whole("--count", text, 1, "the default is 1")


def span(text: str) -> float:
    """Largest distance from the model."""
    try:
        value = float(text)
    except ValueError:
        raise CommandError(f"The argument --span is {text!r}, which is no number; the default is 1.") from None
    if not 0 < value < float("inf"):
        raise CommandError(f"The argument --span is {text!r}, but must be a positive number; the default is 1.")
    return value


def seed(text: str) -> int:
    """Seed of the random probes."""
    return _whole("--seed", text, 0, "the default is 0")


def seconds(text: str) -> float:
    """A time span: seconds, or amounts with units.

    Examples
    --------
    >>> seconds("600"), seconds("10m"), seconds("1h30m"), seconds("0.5h")
    (600.0, 600.0, 5400.0, 1800.0)
    """
    plain = text.strip().lower()
    parts = re.findall(r"(\d*\.?\d+)\s*([smhd])", plain)
    if re.fullmatch(r"\d*\.?\d+", plain):
        total = float(plain)
    elif parts and re.fullmatch(r"(\d*\.?\d+\s*[smhd]\s*)+", plain):
        total = sum(float(amount) * _UNITS[unit] for amount, unit in parts)
    else:
        raise CommandError(f"The argument --time-budget is {text!r}, which is no time; write seconds, or for example '1h30m'.")
    if not 0 < total < float("inf"):
        raise CommandError(f"The argument --time-budget is {text!r}, but must be longer than zero; write for example '10m'.")
    return total


def _whole(name: str, text: str, least: int, hint: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise CommandError(f"The argument {name} is {text!r}, which is no whole number; {hint}.") from None
    if value < least:
        raise CommandError(f"The argument {name} must be at least {least}, but is {value}; {hint}.")
    return value


def build_parser(
    version: str,
    spectrum: Callable[[Any], int],
    demo: Callable[[Any], int],
    theory: Callable[[Any], int],
    landscape: Callable[[Any], int],
) -> Parser:
    """The whole command line; the functions are what its subcommands run."""
    parser = Parser(
        prog="linop-spectra", allow_abbrev=False,
        description="Spectra with error bars of matrices that are too large to write down.",
    )
    parser.add_argument("--version", action="version", version=f"linop-spectra {version}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    _add_demo(commands, demo)
    _add_spectrum(commands, spectrum)
    _add_theory(commands, theory)
    _add_landscape(commands, landscape)
    return parser


def _add_common(parser: Parser, folder: str) -> None:
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="seed of everything random (default: 0)")
    parser.add_argument("--out", default=folder, metavar="DIR", help=f"folder for what is written (default: {folder})")
    parser.add_argument("--no-progress", action="store_true", help="show no progress bar (none is shown without a terminal)")
    parser.add_argument("--quiet", action="store_true", help="print only warnings and errors")
    parser.add_argument("--traceback", action="store_true", help="show Python's traceback when something fails")


def _add_demo(commands: Any, function: Callable[[Any], int]) -> None:
    text = "Train a small convolutional network on handwritten digits; show its curvature before and after."
    parser = commands.add_parser("demo", help=text, description=text, allow_abbrev=False)
    _add_common(parser, "demo-output")
    parser.set_defaults(run=function)


def _add_spectrum(commands: Any, function: Callable[[Any], int]) -> None:
    text = "Compute the spectrum of one operator; write the picture, the result and a summary."
    parser = commands.add_parser("spectrum", help=text, description=text, allow_abbrev=False)
    parser.add_argument(
        "target", metavar="TARGET",
        help="file.py:factory or module:factory, a function without arguments that returns an Objective, a LinearOperator or "
        "what aslinearoperator takes; or a symmetric matrix in a .mtx, .mtx.gz or .npz file",
    )
    parser.add_argument("--operator", choices=["hessian", "ggn"], help="matrix of an Objective (default: hessian)")
    parser.add_argument("--steps", type=steps, metavar="N", help="Lanczos steps for each probe (default: 64)")
    parser.add_argument("--probes", type=probes, default="auto", metavar="N", help="random probes, or auto (default)")
    parser.add_argument("--time-budget", type=seconds, metavar="TIME", help="stop in time and keep what is done: seconds, '10m'")
    parser.add_argument("--checkpoint", metavar="PATH", help="write the state here as the run goes, or go on from it")
    parser.add_argument("--dry-run", action="store_true", help="print products, time, memory and expected precision, and stop")
    _add_common(parser, "spectrum-output")
    parser.set_defaults(run=function)


def _add_theory(commands: Any, function: Callable[[Any], int]) -> None:
    text = "Test predictions of random-matrix theory; print what was expected and measured, and draw the figures."
    parser = commands.add_parser("theory", help=text, description=text, allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="NAME", help="experiments by name, or all")
    parser.add_argument("--list", action="store_true", help="print all experiments with what they claim, and stop")
    _add_common(parser, "theory-output")
    parser.set_defaults(run=function)


def _add_landscape(commands: Any, function: Callable[[Any], int]) -> None:
    text = "Measure the loss of an objective along lines or over a plane; write the picture, the result and a summary."
    parser = commands.add_parser("landscape", help=text, description=text, allow_abbrev=False)
    parser.add_argument(
        "target", metavar="TARGET", help="file.py:factory or module:factory, a function without arguments that returns an Objective"
    )
    parser.add_argument(
        "--directions", choices=["top", "bottom", "random", "filter"], default="top",
        help="eigenvectors of the largest or smallest eigenvalues of the Hessian, random unit vectors, or random vectors with the norms "
        "of the model's filters (default: top)",
    )
    parser.add_argument("--count", type=count, metavar="N", help="lines, each along a direction of its own (default: 1)")
    parser.add_argument("--plane", action="store_true", help="the plane of two directions instead of lines")
    parser.add_argument("--points", type=points, metavar="N", help="points along each direction (default: 21, for a plane 15)")
    parser.add_argument("--span", type=span, default=1.0, metavar="S", help="largest multiple of each direction (default: 1)")
    parser.add_argument("--accuracy", action="store_true", help="measure the accuracy of a classifier too")
    parser.add_argument(
        "--batch-norm", choices=["keep", "re-estimate"], default="keep",
        help="running statistics away from the model: its own, or new ones at each point (default: keep)",
    )
    parser.add_argument("--time-budget", type=seconds, metavar="TIME", help="stop in time and keep what is done: seconds, '10m'")
    parser.add_argument("--checkpoint", metavar="PATH", help="write the state here as the run goes, or go on from it")
    _add_common(parser, "landscape-output")
    parser.set_defaults(run=function)
