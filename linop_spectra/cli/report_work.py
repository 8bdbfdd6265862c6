"""What the sections of a report share: the target, the extent, what was measured already, and how failures become sentences."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

from .._progress import Progress
from ..curvature import CurvatureOperator, Objective
from ..operators import LinearOperator
from ..spectra import SpectralDensity
from .errors import explain_failure, is_ours
from .report_page import Section
from .target import Target

T = TypeVar("T")
LARGE = 100_000
"""Order from which there is one probe, because one is enough for a spectrum, and further runs are shorter, because products are dear."""
_LARGE_STEPS, _LARGE_DIAGONAL, _LARGE_PLANE = 24, 32, 9


def portion(progress: Progress, first: float, last: float) -> Progress:
    """Progress of a part of a section that goes from one share of it to another."""
    if not callable(progress):
        return None

    def advance(done: int, total: int) -> None:
        progress(round(1000 * (first + (last - first) * min(done, total) / max(total, 1))), 1000)

    return advance


@dataclasses.dataclass(frozen=True)
class Extent:
    """How much a report measures.

    Attributes
    ----------
    steps : int
        Lanczos steps of the matrix itself.
    more_steps : int
        Of the Gauss-Newton matrix and of blocks.
    extras : tuple of str
        Metrics with products of their own.
    blocks, plane, classes : bool
        Whether to measure the spectra of blocks, the loss over a plane, and the spectra of a classifier's parts.
    diagonal_products : int
        For the estimate of the diagonal.
    line_points, plane_points : int
        Along each direction.
    most_blocks : int
        Blocks beyond which their spectra are left out.
    """

    steps: int = 48
    more_steps: int = 32
    extras: tuple[str, ...] = ("residual_ratio",)
    blocks: bool = True
    plane: bool = True
    classes: bool = True
    diagonal_products: int = 64
    line_points: int = 21
    plane_points: int = 11
    most_blocks: int = 24

    @classmethod
    def of(cls, steps: int | None, quick: bool) -> Extent:
        """The extent that the command line asks for."""
        whole = cls() if not quick else cls(
            steps=24, more_steps=16, extras=(), blocks=False, plane=False, classes=False, diagonal_products=24, line_points=11
        )  # fmt: skip
        return whole if steps is None else dataclasses.replace(whole, steps=steps, more_steps=min(steps, whole.more_steps))


@dataclasses.dataclass
class Work:
    """The state of a report.

    Attributes
    ----------
    target : Target
        What the report is about.
    extent : Extent
        How much of it.
    seed : int
        Of everything random.
    density : SpectralDensity or None
        Of the matrix, once it is measured.
    gauss_newton : SpectralDensity or None
        Of the Gauss-Newton matrix, once it is measured beside the Hessian.
    curvature : object
        The curvature report of an objective, once it is measured.
    failure : Exception or None
        Of the first section that could not be measured at all.
    interrupted : bool
        Whether Ctrl-C came.
    """

    target: Target
    extent: Extent
    seed: int
    density: SpectralDensity | None = None
    gauss_newton: SpectralDensity | None = None
    curvature: Any = None
    failure: Exception | None = None
    interrupted: bool = False

    def go_on(self) -> None:
        """Stop here if Ctrl-C came, which a computation may have answered with a partial result.

        Raises
        ------
        KeyboardInterrupt
            When it came.
        """
        if self.interrupted:
            raise KeyboardInterrupt

    @property
    def operator(self) -> LinearOperator:
        """The matrix."""
        return self.target.operator

    @property
    def objective(self) -> Objective | None:
        """The objective, where the target is one."""
        operator = self.target.operator
        return operator.objective if self.target.matrix is not None and isinstance(operator, CurvatureOperator) else None

    @property
    def order(self) -> int:
        """Rows of the matrix."""
        return self.target.operator.shape[0]

    @property
    def diagonal_products(self) -> int:
        """Products for the diagonal; a matrix that the critique forms anyway has it exactly."""
        if self.order <= 4 * self.extent.steps:
            return self.order
        return min(self.extent.diagonal_products, _LARGE_DIAGONAL) if self.order >= LARGE else self.extent.diagonal_products

    @property
    def probes(self) -> int:
        """Random probes of each spectrum of an objective."""
        return 4 if self.order < LARGE else 1

    @property
    def more_steps(self) -> int:
        """Lanczos steps of the Gauss-Newton matrix, of blocks and of parts."""
        return min(self.extent.more_steps, _LARGE_STEPS if self.order >= LARGE else self.order, self.order)

    @property
    def plane_points(self) -> int:
        """Points along each side of the plane."""
        return min(self.extent.plane_points, _LARGE_PLANE) if self.order >= LARGE else self.extent.plane_points

    def sentence(self, error: BaseException) -> str:
        """Why something failed, in a sentence."""
        if is_ours(error):
            return " ".join(str(error).split())
        cause = error.__cause__
        if cause is not None and is_ours(cause):
            return " ".join(str(cause).split())
        return f"The computation failed: {explain_failure(error, self.target.file)}."

    def attempt(self, section: Section, what: str, function: Callable[[], T]) -> T | None:
        """What a function returns; when it raises, None, and the section says why."""
        self.go_on()
        try:
            return function()
        except Exception as error:
            section.leave_out(what, self.sentence(error))
            return None
