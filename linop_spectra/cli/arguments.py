"""The command line: what it takes, and a sentence for each thing that does not fit."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from .errors import CommandError

_TARGET = (
    "file.py:factory or module:factory, a function without arguments that returns an Objective, a LinearOperator or "
    "what aslinearoperator takes; or a symmetric matrix in a .mtx, .mtx.gz or .npz file"
)
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


def pairs(text: str) -> int:
    """Number of eigenpairs."""
    return _whole("-k", text, 1, "the default is 6")


def products(text: str) -> int:
    """Largest number of products."""
    return _whole("--max-products", text, 1, "leave it out for the default")


def tolerance(text: str) -> float:
    """Relative residual."""
    return _share("--tol", text, "the default is 1e-6")


def learning_rate(text: str) -> float:
    """Learning rate of a training."""
    try:
        value = float(text)
    except ValueError:
        raise CommandError(f"The argument --learning-rate is {text!r}, which is no number; write for example 0.1.") from None
    if not 0 < value < float("inf"):
        raise CommandError(f"The argument --learning-rate is {text!r}, but must be a positive number.")
    return value


def momentum(text: str) -> float:
    """Momentum of a training."""
    return _share("--momentum", text, "leave it out for none")


def level(text: str) -> float:
    """Level of a test."""
    return _share("--level", text, "the default is 0.01")


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


def _share(name: str, text: str, hint: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise CommandError(f"The argument {name} is {text!r}, which is no number; {hint}.") from None
    if not 0 < value < 1:
        raise CommandError(f"The argument {name} is {text!r}, but must lie between 0 and 1; {hint}.")
    return value


def build_parser(version: str, functions: Mapping[str, Callable[[Any], int]]) -> Parser:
    """The whole command line; `functions` are what its subcommands run, by their names."""
    parser = Parser(
        prog="linop-spectra", allow_abbrev=False,
        description="Spectra with error bars of matrices that are too large to write down.",
    )
    parser.add_argument("--version", action="version", version=f"linop-spectra {version}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name, add in _SUBCOMMANDS.items():
        add(commands, functions[name])
    return parser


def _add_common(parser: Parser, folder: str) -> None:
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="seed of everything random (default: 0)")
    parser.add_argument("--out", default=folder, metavar="DIR", help=f"folder for what is written (default: {folder})")
    parser.add_argument("--no-progress", action="store_true", help="show no progress bar (none is shown without a terminal)")
    parser.add_argument("--quiet", action="store_true", help="print only warnings and errors")
    parser.add_argument("--traceback", action="store_true", help="show Python's traceback when something fails")


def _add_target(parser: Parser) -> None:
    parser.add_argument("target", metavar="TARGET", help=_TARGET)
    parser.add_argument("--operator", choices=["hessian", "ggn"], help="matrix of an Objective (default: hessian)")


def _add_demo(commands: Any, function: Callable[[Any], int]) -> None:
    text = "Train a small convolutional network on handwritten digits; show its curvature before and after."
    parser = commands.add_parser("demo", help=text, description=text, allow_abbrev=False)
    _add_common(parser, "demo-output")
    parser.set_defaults(run=function)


def _add_spectrum(commands: Any, function: Callable[[Any], int]) -> None:
    text = "Compute the spectrum of one operator; write the picture, the result and a summary."
    parser = commands.add_parser("spectrum", help=text, description=text, allow_abbrev=False)
    _add_target(parser)
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
        "--held-out", action="store_true",
        help="measure everything on held-out data too: for a factory that returns (objective, held_out), data or another Objective",
    )
    parser.add_argument(
        "--batch-norm", choices=["keep", "re-estimate"], default="keep",
        help="running statistics away from the model: its own, or new ones at each point (default: keep)",
    )
    parser.add_argument("--time-budget", type=seconds, metavar="TIME", help="stop in time and keep what is done: seconds, '10m'")
    parser.add_argument("--checkpoint", metavar="PATH", help="write the state here as the run goes, or go on from it")
    _add_common(parser, "landscape-output")
    parser.set_defaults(run=function)


def _add_eigs(commands: Any, function: Callable[[Any], int]) -> None:
    text = "Compute some eigenpairs of one operator, with true residuals; write the pairs and a summary."
    parser = commands.add_parser("eigs", help=text, description=text, allow_abbrev=False)
    _add_target(parser)
    parser.add_argument("-k", type=pairs, default=6, metavar="N", help="eigenpairs (default: 6)")
    parser.add_argument(
        "--which", choices=["LM", "LA", "SA", "SM", "BE"], default="LM",
        help="largest in modulus (default), largest, smallest, smallest in modulus, or both ends",
    )
    parser.add_argument("--tol", type=tolerance, default=1e-6, metavar="T", help="residual over the norm of the operator (default: 1e-6)")
    parser.add_argument("--max-products", type=products, metavar="N", help="products after which unconverged pairs are kept, marked")
    parser.add_argument("--time-budget", type=seconds, metavar="TIME", help="stop in time and keep what is done: seconds, '10m'")
    _add_common(parser, "eigs-output")
    parser.set_defaults(run=function)


def _add_compare(commands: Any, function: Callable[[Any], int]) -> None:
    text = "Test whether two spectra differ by more than random probes explain; write the picture, the result and a summary."
    parser = commands.add_parser("compare", help=text, description=text, allow_abbrev=False)
    for name in ("first", "second"):
        parser.add_argument(name, metavar=name.upper(), help="a spectrum.npz that the command spectrum wrote, or a target as it takes it")
    parser.add_argument("--operator", choices=["hessian", "ggn"], help="matrix of objectives among the targets (default: hessian)")
    parser.add_argument("--steps", type=steps, metavar="N", help="Lanczos steps for each probe where targets are measured (default: 64)")
    parser.add_argument("--probes", type=probes, default="auto", metavar="N", help="random probes there, or auto (default)")
    parser.add_argument(
        "--level", type=level, default=0.01, metavar="P",
        help="probability with which one spectrum, measured twice, is called two (default: 0.01)",
    )
    _add_common(parser, "compare-output")
    parser.set_defaults(run=function)


def _add_report(commands: Any, function: Callable[[Any], int]) -> None:
    text = "Measure all that can be said of one objective or matrix; write one page that needs nothing else, and its numbers as JSON."
    parser = commands.add_parser("report", help=text, description=text, allow_abbrev=False)
    _add_target(parser)
    parser.add_argument("--steps", type=steps, metavar="N", help="Lanczos steps for each probe (default: 48, with --quick 24)")
    parser.add_argument("--quick", action="store_true", help="fewer steps, and neither spectra of blocks nor the plane of losses")
    _add_common(parser, "report-output")
    parser.set_defaults(run=function)


def _add_evolve(commands: Any, function: Callable[[Any], int]) -> None:
    text = "Follow the spectrum of an objective over saved checkpoints; write the pictures, the result and a summary."
    parser = commands.add_parser("evolve", help=text, description=text, allow_abbrev=False)
    parser.add_argument(
        "target", metavar="TARGET", help="file.py:factory or module:factory, a function without arguments that returns an Objective"
    )
    parser.add_argument(
        "checkpoints", metavar="CHECKPOINT", nargs="+", help="files of parameters in the order of training, such as saved state dicts"
    )
    parser.add_argument("--operator", choices=["hessian", "ggn"], help="matrix of the Objective (default: hessian)")
    parser.add_argument("--steps", type=steps, metavar="N", help="Lanczos steps for each probe (default: 48)")
    parser.add_argument("--probes", type=probes, default="auto", metavar="N", help="random probes, or auto (default)")
    parser.add_argument("-k", type=pairs, default=5, metavar="N", help="largest eigenpairs that are followed (default: 5)")
    parser.add_argument("--learning-rate", type=learning_rate, metavar="X", help="of the training, to show the edge of stability")
    parser.add_argument(
        "--method", choices=["gd", "heavy_ball", "nesterov"], default="gd", help="of the training (default: gd)"
    )
    parser.add_argument("--momentum", type=momentum, default=0.0, metavar="X", help="of the training (default: 0)")
    _add_common(parser, "evolve-output")
    parser.set_defaults(run=function)


_SUBCOMMANDS: dict[str, Callable[[Any, Callable[[Any], int]], None]] = {
    "demo": _add_demo, "spectrum": _add_spectrum, "eigs": _add_eigs, "report": _add_report, "landscape": _add_landscape,
    "compare": _add_compare, "evolve": _add_evolve, "theory": _add_theory,
}  # fmt: skip
