"""What lines and planes have in common: the loss at points, files and pictures."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Self

import numpy as np

from ..results import PathLike, save_result
from .storage import from_file, to_file


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class LossSurface:
    """Loss and metrics at points around an objective's parameters; the base of `Line` and `Plane`, which have the points.

    Attributes
    ----------
    loss : numpy.ndarray
        The objective.
    held_out_loss : numpy.ndarray or None
        The same for the held-out data.
    metrics, held_out_metrics : dict of str to numpy.ndarray
        Each metric, on either data.
    evaluated : numpy.ndarray
        Which points were evaluated, booleans.
    labels : tuple of str
        A name for each direction.
    value : float or None
        Loss at the centre, where there is a quadratic model.
    slope, curvature : numpy.ndarray or None
        Of the quadratic model.
    batch_norm : {"keep", "re-estimate"}
        What was done about running statistics.
    num_matvecs : int
        Products that directions and quadratic model took.
    seconds : float
        Wall-clock time.
    status : {"complete", "interrupted", "time budget"}
        Why the evaluation ended.
    """

    kind_of_file: ClassVar[str]

    loss: np.ndarray
    evaluated: np.ndarray
    labels: tuple[str, ...]
    metrics: dict[str, np.ndarray]
    held_out_loss: np.ndarray | None = None
    held_out_metrics: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    value: float | None = None
    slope: np.ndarray | None = None
    curvature: np.ndarray | None = None
    batch_norm: str = "keep"
    num_matvecs: int = 0
    seconds: float = 0.0
    status: str = "complete"

    @property
    def converged(self) -> bool:
        """Whether all points were evaluated."""
        return self.status == "complete"

    def _quadratic_model(self, function: str) -> tuple[float, np.ndarray, np.ndarray]:
        if self.value is None or self.slope is None or self.curvature is None:
            raise ValueError(f"This {function} has no quadratic model; pass quadratic=True to {function}().")
        return self.value, self.slope, self.curvature

    def _sentence_of_lost_points(self) -> list[str]:
        lost = int((self.evaluated & ~np.isfinite(self.loss)).sum())
        return [f"the loss is not finite at {lost} of the points"] if lost else []

    def save(self, path: PathLike) -> None:
        """Write the result to `path` (``.npz``); `linop_spectra.load` reads it back."""
        save_result(path, self.kind_of_file, *to_file(self))

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        return cls(**from_file(scalars, arrays))


def written(axes: Any, path: PathLike | None) -> Any:
    """Axes, after their figure was written where a path is given."""
    if path is not None:
        axes.figure.savefig(path)
    return axes


def range_of(values: np.ndarray) -> str:
    """The smallest and the largest finite loss in words."""
    known = values[np.isfinite(values)]
    return f"loss {known.min():.6g} to {known.max():.6g}" if known.size else "no finite loss"
