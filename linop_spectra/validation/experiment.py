"""An experiment whose outcome theory predicts, and the table of what was expected and what came out."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Comparison = Literal["equal", "at least", "at most"]
Number = float | np.floating[Any] | np.integer[Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """One number that theory predicts, beside the one that was measured.

    Attributes
    ----------
    quantity : str
        What it is, with its unit where it has one.
    expected : float
        What theory says, or the bound.
    measured : float
        What came out.
    tolerance : float
        Largest difference that passes, in the unit of the quantity; 0 for the two bounds.
    comparison : str
        ``"equal"`` within the tolerance, ``"at least"`` or ``"at most"``.

    Examples
    --------
    >>> Row("mean", 1.0, 1.02, tolerance=0.05).passed, at_most("share", 0.1, 0.2).passed
    (True, False)
    """

    quantity: str
    expected: float
    measured: float
    tolerance: float = 0.0
    comparison: Comparison = "equal"

    @property
    def passed(self) -> bool:
        """Whether the measured number is what theory allows; never for a NaN."""
        if self.comparison == "at least":
            return bool(self.measured >= self.expected)
        if self.comparison == "at most":
            return bool(self.measured <= self.expected)
        return bool(abs(self.measured - self.expected) <= self.tolerance)


def at_least(quantity: str, bound: Number, measured: Number) -> Row:
    """A number that must not be smaller than a bound."""
    return Row(quantity, float(bound), float(measured), comparison="at least")


def at_most(quantity: str, bound: Number, measured: Number) -> Row:
    """A number that must not be larger than a bound."""
    return Row(quantity, float(bound), float(measured), comparison="at most")


def close(quantity: str, expected: Number, measured: Number, *, absolute: Number = 0.0, relative: Number = 0.0) -> Row:
    """A number that must equal another one up to an absolute or relative difference, whichever allows more."""
    return Row(quantity, float(expected), float(measured), tolerance=float(max(absolute, relative * abs(float(expected)))))


@dataclasses.dataclass(frozen=True)
class Findings:
    """What an experiment hands back: its table and its picture.

    Attributes
    ----------
    rows : tuple of Row
        The table.
    draw : callable
        Draws the picture on the axes that it is given.
    """

    rows: tuple[Row, ...]
    draw: Callable[[Axes], Any]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One prediction of theory and how to test it.

    Attributes
    ----------
    name : str
        For the command line.
    statement : str
        What theory says, in one sentence.
    source : str
        Who said so.
    run : callable
        ``run(seed)`` makes everything from the seed and returns `Findings`.
    needs : tuple of str
        Packages that have to be installed.
    """

    name: str
    statement: str
    source: str
    run: Callable[[int], Findings]
    needs: tuple[str, ...] = ()

    def missing(self) -> str | None:
        """The first package that it needs and that is not installed, or None."""
        return next((package for package in self.needs if importlib.util.find_spec(package) is None), None)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """An experiment that has been run.

    Attributes
    ----------
    experiment : Experiment
        Which one.
    findings : Findings
        Table and picture.
    seed : int
        Of everything random.
    seconds : float
        How long it took.
    """

    experiment: Experiment
    findings: Findings
    seed: int
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every row of the table passed."""
        return all(row.passed for row in self.findings.rows)

    def table(self) -> list[list[str]]:
        """The table as text: a header and one line for each row."""
        return [["quantity", "expected", "measured", ""], *(_line(row) for row in self.findings.rows)]

    def records(self) -> list[dict[str, Any]]:
        """The table as plain values, for a file."""
        return [{**dataclasses.asdict(row), "passed": row.passed} for row in self.findings.rows]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the picture on `ax`, by default on a new figure.

        Raises
        ------
        ImportError
            When matplotlib is not installed.
        """
        from ..plots.style import dress, new_axes

        ax = new_axes() if ax is None else ax
        dress(ax)
        self.findings.draw(ax)
        return ax

    def __str__(self) -> str:
        good = sum(row.passed for row in self.findings.rows)
        head = f"{self.experiment.name}: {good} of {len(self.findings.rows)} rows passed"
        lines = [head, *(", ".join(line) for line in self.table()[1:])]
        return "\n".join(lines)


def conduct(experiment: Experiment, seed: int = 0) -> Outcome:
    """Run one experiment.

    Parameters
    ----------
    experiment : Experiment
        Which one; `experiments` lists them.
    seed : int
        Of everything random; the outcome is a function of it.

    Examples
    --------
    >>> from linop_spectra.validation import conduct, experiments
    >>> conduct(experiments()["softmax-at-zero"]).passed
    True
    """
    began = time.perf_counter()
    findings = experiment.run(seed)
    return Outcome(experiment, findings, seed, time.perf_counter() - began)


def _line(row: Row) -> list[str]:
    bound = {"equal": f" ± {_number(row.tolerance, 2)}" if row.tolerance else "", "at least": " or more", "at most": " or less"}
    expected = f"{_number(row.expected)}{bound[row.comparison]}"
    return [row.quantity, expected, _number(row.measured), "ok" if row.passed else "FAILED"]


def _number(value: float, digits: int = 5) -> str:
    if math.isfinite(value) and float(value).is_integer() and abs(value) < 1e6:
        return f"{int(value)}"
    return f"{value:.{digits}g}"
