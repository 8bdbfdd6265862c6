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
    return _positive("--span", text, "the default is 1", "; the default is 1")


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
    return _positive("--learning-rate", text, "write for example 0.1")


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


def _number(name: str, text: str, hint: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise CommandError(f"The argument {name} is {text!r}, which is no number; {hint}.") from None


def _positive(name: str, text: str, hint: str, ending: str = "") -> float:
    value = _number(name, text, hint)
    if not 0 < value < float("inf"):
        raise CommandError(f"The argument {name} is {text!r}, but must be a positive number{ending}.")
    return value


def _share(name: str, text: str, hint: str) -> float:
    value = _number(name, text, hint)
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
    for name, (text, add) in _SUBCOMMANDS.items():
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        add(command)
        _add_common(command, f"{name}-output")
        command.set_defaults(run=functions[name])
    return parser


def _add_common(parser: Parser, folder: str) -> None:
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="seed of everything random (default: 0)")
    parser.add_argument("--out", default=folder, metavar="DIR", help=f"folder for what is written (default: {folder})")
    parser.add_argument("--no-progress", action="store_true", help="show no progress bar (none is shown without a terminal)")
    parser.add_argument("--quiet", action="store_true", help="print only warnings and errors")
    parser.add_argument("--traceback", action="store_true", help="show Python's traceback when something fails")


def _add_objective(parser: Parser) -> None:
    parser.add_argument(
        "target", metavar="TARGET", help="file.py:factory or module:factory, a function without arguments that returns an Objective"
    )


def _add_operator(parser: Parser, owner: str) -> None:
    parser.add_argument("--operator", choices=["hessian", "ggn"], help=f"matrix of {owner} (default: hessian)")


def _add_run(parser: Parser, default_steps: str, probes_help: str = "random probes, or auto (default)") -> None:
    parser.add_argument("--steps", type=steps, metavar="N", help=f"Lanczos steps for each probe {default_steps}")
    parser.add_argument("--probes", type=probes, default="auto", metavar="N", help=probes_help)


def _add_time_budget(parser: Parser) -> None:
    parser.add_argument("--time-budget", type=seconds, metavar="TIME", help="stop in time and keep what is done: seconds, '10m'")


def _add_checkpoint(parser: Parser) -> None:
    parser.add_argument("--checkpoint", metavar="PATH", help="write the state here as the run goes, or go on from it")


def _add_target(parser: Parser) -> None:
    parser.add_argument("target", metavar="TARGET", help=_TARGET)
    _add_operator(parser, "an Objective")


def _add_spectrum(parser: Parser) -> None:
    _add_target(parser)
    _add_run(parser, "(default: 64)")
    _add_time_budget(parser)
    _add_checkpoint(parser)
    parser.add_argument("--dry-run", action="store_true", help="print products, time, memory and expected precision, and stop")


def _add_theory(parser: Parser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="experiments by name, or all")
    parser.add_argument("--list", action="store_true", help="print all experiments with what they claim, and stop")


def _add_landscape(parser: Parser) -> None:
    _add_objective(parser)
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
    _add_time_budget(parser)
    _add_checkpoint(parser)


def _add_eigs(parser: Parser) -> None:
    _add_target(parser)
    parser.add_argument("-k", type=pairs, default=6, metavar="N", help="eigenpairs (default: 6)")
    parser.add_argument(
        "--which", choices=["LM", "LA", "SA", "SM", "BE"], default="LM",
        help="largest in modulus (default), largest, smallest, smallest in modulus, or both ends",
    )
    parser.add_argument("--tol", type=tolerance, default=1e-6, metavar="T", help="residual over the norm of the operator (default: 1e-6)")
    parser.add_argument("--max-products", type=products, metavar="N", help="products after which unconverged pairs are kept, marked")
    _add_time_budget(parser)


def _add_compare(parser: Parser) -> None:
    for name in ("first", "second"):
        parser.add_argument(name, metavar=name.upper(), help="a spectrum.npz that the command spectrum wrote, or a target as it takes it")
    _add_operator(parser, "objectives among the targets")
    _add_run(parser, "where targets are measured (default: 64)", "random probes there, or auto (default)")
    parser.add_argument(
        "--level", type=level, default=0.01, metavar="P",
        help="probability with which one spectrum, measured twice, is called two (default: 0.01)",
    )


def _add_report(parser: Parser) -> None:
    _add_target(parser)
    parser.add_argument("--steps", type=steps, metavar="N", help="Lanczos steps for each probe (default: 48, with --quick 24)")
    parser.add_argument("--quick", action="store_true", help="fewer steps, and neither spectra of blocks nor the plane of losses")


def _add_evolve(parser: Parser) -> None:
    _add_objective(parser)
    parser.add_argument(
        "checkpoints", metavar="CHECKPOINT", nargs="+", help="files of parameters in the order of training, such as saved state dicts"
    )
    _add_operator(parser, "the Objective")
    _add_run(parser, "(default: 48)")
    parser.add_argument("-k", type=pairs, default=5, metavar="N", help="largest eigenpairs that are followed (default: 5)")
    parser.add_argument("--learning-rate", type=learning_rate, metavar="X", help="of the training, to show the edge of stability")
    parser.add_argument(
        "--method", choices=["gd", "heavy_ball", "nesterov"], default="gd", help="of the training (default: gd)"
    )
    parser.add_argument("--momentum", type=momentum, default=0.0, metavar="X", help="of the training (default: 0)")


_SUBCOMMANDS: dict[str, tuple[str, Callable[[Parser], None]]] = {
    "demo": ("Train a small convolutional network on handwritten digits; show its curvature before and after.", lambda parser: None),
    "spectrum": ("Compute the spectrum of one operator; write the picture, the result and a summary.", _add_spectrum),
    "eigs": ("Compute some eigenpairs of one operator, with true residuals; write the pairs and a summary.", _add_eigs),
    "report": (
        "Measure all that can be said of one objective or matrix; write one page that needs nothing else, and its numbers as JSON.",
        _add_report,
    ),
    "landscape": (
        "Measure the loss of an objective along lines or over a plane; write the picture, the result and a summary.",
        _add_landscape,
    ),
    "compare": (
        "Test whether two spectra differ by more than random probes explain; write the picture, the result and a summary.",
        _add_compare,
    ),
    "evolve": ("Follow the spectrum of an objective over saved checkpoints; write the pictures, the result and a summary.", _add_evolve),
    "theory": ("Test predictions of random-matrix theory; print what was expected and measured, and draw the figures.", _add_theory),
}
