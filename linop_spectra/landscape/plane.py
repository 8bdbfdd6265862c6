"""The loss over a plane through a point."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from .._progress import Progress
from ..curvature import Objective
from ..results import PathLike, register
from .batch_norm import BatchNorm
from .directions import Directions, as_directions, directions
from .evaluation import Options, Table, evaluate
from .line import _distances
from .metrics import Metrics
from .quadratic import Quadratic, quadratic_model
from .surface import LossSurface, range_of, written
from .trajectory import Trajectory


@register("landscape plane")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Plane(LossSurface):
    """Loss and metrics over a plane.

    Arrays over the plane have shape (len(ys), len(xs)). They are NaN where nothing was evaluated or the loss is not finite.

    Attributes
    ----------
    xs, ys : numpy.ndarray
        Multiples of the two directions: the parameters are ``theta + x u + y v``.
    loss : numpy.ndarray
        The objective.
    held_out_loss : numpy.ndarray or None
        The same for the held-out data.
    metrics, held_out_metrics : dict of str to numpy.ndarray
        Each metric, on either data.
    evaluated : numpy.ndarray
        Which points were evaluated, booleans.
    directions : numpy.ndarray
        u and v as columns, shape (P, 2).
    labels : tuple of str
        A name for each.
    value : float or None
        Loss at the centre, where there is a quadratic model.
    slope : numpy.ndarray or None
        Inner products of the gradient with u and v, shape (2,).
    curvature : numpy.ndarray or None
        Quadratic forms of the two, shape (2, 2).
    batch_norm : {"keep", "re-estimate"}
        What was done about running statistics.
    num_matvecs : int
        Products that directions and quadratic model took.
    seconds : float
        Wall-clock time.
    status : {"complete", "interrupted", "time budget"}
        Why the evaluation ended.
    """

    kind_of_file: ClassVar[str] = "landscape plane"

    xs: np.ndarray
    ys: np.ndarray
    directions: np.ndarray

    def quadratic(self, xs: Any = None, ys: Any = None) -> np.ndarray:
        """The quadratic model, by default at the plane's own points; shape (len(ys), len(xs)).

        Raises
        ------
        ValueError
            When the plane was made without one.
        """
        value, slope, h = self._quadratic_model("plane")
        x = (self.xs if xs is None else np.asarray(xs, dtype=np.float64))[None, :]
        y = (self.ys if ys is None else np.asarray(ys, dtype=np.float64))[:, None]
        return np.asarray(value + slope[0] * x + slope[1] * y + h[0, 0] * x**2 / 2 + h[0, 1] * x * y + h[1, 1] * y**2 / 2)

    def plot(self, path: PathLike | None = None, ax: Any = None, *, kind: str = "contour", **options: Any) -> Any:
        """Draw the plane, see `linop_spectra.plots.loss_contour` and `linop_spectra.plots.loss_surface`; returns the axes.

        Parameters
        ----------
        path : str or path, optional
            Where to write the picture.
        ax : matplotlib.axes.Axes, optional
            Where to draw.
        kind : {"contour", "surface"}
            Level lines, or a surface in space.
        **options
            For the function that draws.
        """
        from ..plots import landscape as pictures

        if kind not in ("contour", "surface"):
            raise ValueError(f"The argument kind is {kind!r}, but must be 'contour' or 'surface'.")
        draw: Any = pictures.loss_contour if kind == "contour" else pictures.loss_surface
        return written(draw(self, ax, **options), path)

    def __str__(self) -> str:
        text = f"plane of {len(self.xs)} x {len(self.ys)} points along {self.labels[0]} and {self.labels[1]}, {self.status}"
        return "\n".join([text, range_of(self.loss), *self._sentence_of_lost_points()])


def plane(
    objective: Objective,
    u: Any,
    v: Any = None,
    xs: Any = None,
    ys: Any = None,
    *,
    metrics: Metrics = None,
    held_out: Objective | None = None,
    quadratic: Quadratic = None,
    batch_norm: BatchNorm = "keep",
    checkpoint: PathLike | None = None,
    seed: int = 0,
    progress: Progress = None,
    time_budget: float | None = None,
) -> Plane:
    """Loss and metrics over the plane that two directions span through an objective's parameters.

    Each point costs what one of a `line` costs. Points near the centre come first.

    Parameters
    ----------
    objective : Objective
        With P parameters, which are the centre.
    u, v : array, mapping or str
        One direction each, as for `line`; two equal names give two different directions of that kind. Without `v`, `u` holds both: an array
        of shape (P, 2), or the first two of a `Trajectory`, of `Directions` or of eigenpairs in descending order. They are taken as they
        are: need not have norm one nor be orthogonal, but a picture with equal scales shows true angles only if they are both.
    xs, ys : array, optional
        Multiples of `u` and of `v`; 21 from -1 to 1 by default, and `ys` is `xs`.
    metrics, held_out, quadratic, batch_norm, checkpoint, seed, progress, time_budget
        As for `line`.

    Returns
    -------
    Plane
        Loss, metrics and quadratic model.

    Raises
    ------
    ValueError, TypeError
        When an argument does not fit, or the two directions are parallel.
    LandscapeInterrupted
        When the loss or a metric raises after other points.

    Examples
    --------
    >>> import numpy as np, torch, linop_spectra as ls, linop_spectra.landscape
    >>> objective = ls.objective(torch.nn.Linear(3, 1), "mse", (torch.randn(20, 3), torch.randn(20, 1)))
    >>> plane = ls.landscape.plane(objective, "random", "random", np.linspace(-1, 1, 5), quadratic=True)
    >>> plane.loss.shape, bool(np.allclose(plane.loss, plane.quadratic(), atol=1e-4))
    ((5, 5), True)
    """
    found = _pair(objective, u, v, seed)
    x = _distances(np.linspace(-1, 1, 21) if xs is None else xs, "xs")
    y = x if ys is None else _distances(ys, "ys")
    model = quadratic_model(objective, found, quadratic)
    theta, backend = objective.parameters(), objective.functions.backend
    along = [backend.asarray(column, dtype=objective.dtype) for column in np.ascontiguousarray(found.vectors.T)]

    def point(index: int) -> Any:
        j, i = divmod(index, len(x))
        return theta + (float(x[i]) * along[0] + float(y[j]) * along[1])

    def finish(table: Table) -> Plane:
        fields = table.shaped((len(y), len(x)))
        if model is not None:
            fields |= {"value": model.value, "slope": model.slope, "curvature": model.curvature, "num_matvecs": model.num_matvecs}
        fields["num_matvecs"] = fields.get("num_matvecs", 0) + found.num_matvecs
        return Plane(xs=x, ys=y, directions=found.vectors, labels=found.labels, batch_norm=batch_norm, **fields)

    order = np.argsort((y[:, None] ** 2 + x[None, :] ** 2).ravel(), kind="stable")
    options = Options(metrics, held_out, batch_norm, checkpoint, progress, time_budget)
    made: Plane = evaluate(objective, point, order.tolist(), [found.vectors, x, y], options, finish)
    return made


def _pair(objective: Objective, u: Any, v: Any, seed: int) -> Directions:
    if isinstance(u, Trajectory):
        u = Directions(u.directions, u.labels, "trajectory")
    if v is None:
        found, single = as_directions(objective, u, "u", seed)
        if single or len(found) < 2:
            raise ValueError("The argument u holds one direction and v none, but a plane takes two; pass another one as v.")
        first = None if found.eigenvalues is None else found.eigenvalues[:2]
        labels = ("u", "v") if found.kind == "given" else found.labels[:2]
        found = dataclasses.replace(found, vectors=np.ascontiguousarray(found.vectors[:, :2]), labels=labels, eigenvalues=first)
    elif isinstance(u, str) and u == v:
        found, _ = as_directions(objective, directions(objective, u, 2, seed=seed), "u")  # type: ignore[arg-type]
    else:
        sides = [as_directions(objective, given, name, seed)[0] for given, name in ((u, "u"), (v, "v"))]
        for name, side in zip("uv", sides, strict=True):
            if len(side) != 1:
                raise ValueError(f"The argument {name} holds {len(side)} directions, but a plane takes one there; pass one of them.")
        values = [side.eigenvalues for side in sides]
        labels = tuple(side.labels[0] if side.kind != "given" else name for name, side in zip("uv", sides, strict=True))
        eigenvalues = None if values[0] is None or values[1] is None else np.concatenate([values[0], values[1]])
        found = Directions(
            np.concatenate([side.vectors for side in sides], axis=1), labels, sides[0].kind, eigenvalues,
            sum(side.num_matvecs for side in sides), sum(side.seconds for side in sides),
        )  # fmt: skip
    wide = found.vectors.astype(np.float64) / np.abs(found.vectors).max(axis=0)
    cosine = float(wide[:, 0] @ wide[:, 1] / np.prod(np.linalg.norm(wide, axis=0)))
    if abs(cosine) > 1 - 1e-9:
        raise ValueError(f"The arguments u and v are parallel (cosine {cosine:.9f}), so that they span no plane; pass another direction.")
    return found
