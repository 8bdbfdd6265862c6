"""The loss along lines through a point."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import numpy as np

from .._progress import Progress
from ..curvature import Objective
from ..results import PathLike, register
from .batch_norm import BatchNorm
from .directions import Directions, as_directions
from .evaluation import Options, Table, evaluate
from .metrics import Metrics
from .quadratic import Quadratic, QuadraticModel, quadratic_model
from .surface import LossSurface, range_of, written

_ROUNDING = 1e-12
"""Of shares of a way, as np.linspace has them."""


@register("landscape line")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Line(LossSurface):
    """Loss and metrics along one direction, or along several.

    Arrays have shape (T,) for one direction and (K, T) for several. They are NaN where nothing was evaluated or the loss is not finite.

    Attributes
    ----------
    distances : numpy.ndarray
        Multiples t of the direction, shape (T,): the parameters are ``theta + t d``. Along a unit vector they are distances in the
        unit of the parameters; between two models they are shares of the way.
    loss : numpy.ndarray
        The objective.
    held_out_loss : numpy.ndarray or None
        The same for the held-out data.
    metrics, held_out_metrics : dict of str to numpy.ndarray
        Each metric, on either data.
    evaluated : numpy.ndarray
        Which points were evaluated, booleans.
    direction : numpy.ndarray
        Shape (P,), or (P, K) for several.
    labels : tuple of str
        A name for each direction.
    value : float or None
        Loss at the centre, where there is a quadratic model.
    slope, curvature : numpy.ndarray or None
        Of the quadratic model ``value + slope t + curvature t**2 / 2``: gradient times direction, and the direction's quadratic
        form; shape () for one direction and (K,) for several.
    kind : {"line", "interpolation"}
        Whether the line goes through the model, or from it to another one.
    batch_norm : {"keep", "re-estimate"}
        What was done about running statistics.
    num_matvecs : int
        Products that directions and quadratic model took.
    seconds : float
        Wall-clock time.
    status : {"complete", "interrupted", "time budget"}
        Why the evaluation ended.
    """

    kind_of_file: ClassVar[str] = "landscape line"

    distances: np.ndarray
    direction: np.ndarray
    kind: Literal["line", "interpolation"] = "line"

    def quadratic(self, distances: Any = None) -> np.ndarray:
        """The quadratic model, by default at the line's own distances; shape (T,) or (K, T).

        Raises
        ------
        ValueError
            When the line was made without one.
        """
        value, slope, curvature = self._quadratic_model("line")
        t = self.distances if distances is None else np.asarray(distances, dtype=np.float64)
        return np.asarray(value + slope[..., None] * t + curvature[..., None] * t**2 / 2)

    def barrier(self, *, held_out: bool = False) -> float:
        """How far the loss between two models rises above the chord of their losses, in units of the loss.

        The largest of ``loss(t) - (1 - t) loss(0) - t loss(1)`` over the shares t between 0 and 1 (Frankle, Dziugaite, Roy and Carbin,
        2020, section 2, with the chord in place of the mean of the two ends). Pitfall: two copies of one model whose units are permuted
        have a barrier too; and running statistics that are kept raise it.

        Raises
        ------
        ValueError
            When the line joins no two models, or an end was not evaluated.
        """
        loss = self.held_out_loss if held_out else self.loss
        if self.kind != "interpolation" or loss is None:
            raise ValueError("A barrier lies between two models: make the line by interpolate(), with held_out= for that of held-out data.")
        inside = (self.distances >= -_ROUNDING) & (self.distances <= 1 + _ROUNDING)
        t, values = self.distances[inside], loss[inside]
        ends = [values[np.abs(t - end) <= _ROUNDING] for end in (0.0, 1.0)]
        if not all(len(end) and np.isfinite(end[0]) for end in ends):
            raise ValueError("The barrier needs the losses of both models, at the shares 0 and 1; they were not evaluated or not finite.")
        if not np.isfinite(values).all():
            return float("inf")
        return float(np.max(values - (1 - t) * ends[0][0] - t * ends[1][0]))

    def plot(self, path: PathLike | None = None, ax: Any = None, **options: Any) -> Any:
        """Draw the line, see `linop_spectra.plots.loss_line`; returns the axes.

        Parameters
        ----------
        path : str or path, optional
            Where to write the picture.
        ax : matplotlib.axes.Axes, optional
            Where to draw.
        **options
            For `linop_spectra.plots.loss_line`.
        """
        from ..plots.landscape import loss_line as draw

        return written(draw(self, ax, **options), path)

    def __str__(self) -> str:
        what = f"{len(self.labels)} line{'s' if len(self.labels) > 1 else ''} of {len(self.distances)} points"
        lines = [f"{what}, distances {self.distances.min():.4g} to {self.distances.max():.4g}, {self.status}"]
        lines += [f"{label}: {range_of(loss)}" for label, loss in zip(self.labels, np.atleast_2d(self.loss), strict=True)]
        return "\n".join(lines + self._sentence_of_lost_points())


def line(
    objective: Objective,
    direction: Any,
    distances: Any,
    *,
    metrics: Metrics = None,
    held_out: Objective | None = None,
    quadratic: Quadratic = None,
    batch_norm: BatchNorm = "keep",
    checkpoint: PathLike | None = None,
    seed: int = 0,
    progress: Progress = None,
    time_budget: float | None = None,
) -> Line:
    """Loss and metrics along one direction, or along several, through an objective's parameters.

    Each point costs one forward pass over the data, which gives the accuracy too, and what other metrics cost. Data that do not fit the
    memory budget are read once for up to 32 points. Points near the centre come first, so that a run that is cut short has its middle.

    Parameters
    ----------
    objective : Objective
        With P parameters, which are the centre.
    direction : array, Directions, EigenResult, mapping or str
        Shape (P,), or several as columns of (P, K); named arrays as `Objective.flatten` takes them; eigenpairs; or a name that
        `directions` knows: ``"random"``, ``"filter_normalized"``, ``"top"``, ``"bottom"``. A direction is taken as it is: of one that is
        no unit vector, distances count multiples of it.
    distances : array
        Multiples of the direction, shape (T,).
    metrics : str, callable, sequence or mapping, optional
        ``"accuracy"`` for softmax cross-entropy, or a function that takes the objective at a point and returns a number; several in a
        list or by name.
    held_out : Objective, optional
        The same model with other data (``objective.with_data(data)``); loss and metrics are measured on it too.
    quadratic : None, bool, EigenResult or operator, optional
        The quadratic model to lay over. None: where directions come with eigenvalues, from these. True: by a gradient and one product
        with the Hessian for each direction. Eigenpairs: as though the Hessian were their sum, without products. An operator, such as
        ``objective.ggn()``: by one product with it for each direction.
    batch_norm : {"keep", "re-estimate"}
        What batch normalisation by running statistics uses away from the centre: the statistics that the model came with, or new ones
        from a pass over the objective's data at each point in training mode: modules of torch and flax, and Keras models (the held-out
        data use the same). Kept ones fit the centre only: between two models they make a barrier where there is none.
    checkpoint : str or path, optional
        What is done is written here, at most every ten seconds, and a later call with the same arguments goes on from it: the result
        is the same to the last bit.
    seed : int
        Of directions by name.
    progress : bool or callable, optional
        True for a bar, or a function ``(done, total)``.
    time_budget : float, optional
        Seconds after which no group of points is begun. The result then has NaN where nothing was evaluated, and its status says so.

    Returns
    -------
    Line
        Loss, metrics and quadratic model.

    Raises
    ------
    ValueError, TypeError
        When an argument does not fit: a direction that is zero, of another shape or not finite; distances that are none.
    LandscapeInterrupted
        When the loss or a metric raises after other points; they are in ``.partial``. A loss that is not finite is NaN instead, with a
        warning. After Ctrl-C the result holds what was done.

    Examples
    --------
    >>> import numpy as np, torch, linop_spectra as ls, linop_spectra.landscape
    >>> model = torch.nn.Linear(3, 1).double()
    >>> data = torch.randn(20, 3, dtype=torch.float64), torch.randn(20, 1, dtype=torch.float64)
    >>> objective = ls.objective(model, "mse", data)
    >>> pairs = ls.eigsh(objective.hessian(), k=2, which="LA")
    >>> line = ls.landscape.line(objective, pairs, np.linspace(-1, 1, 5))
    >>> line.loss.shape, bool(np.allclose(line.loss, line.quadratic()))
    ((2, 5), True)
    """
    found, single = as_directions(objective, direction, "direction", seed)
    t = _distances(distances, "distances")
    model = quadratic_model(objective, found, quadratic)
    theta, backend = objective.parameters(), objective.functions.backend
    steps = len(t)

    def point(index: int) -> Any:
        which, where = divmod(index, steps)
        return theta + float(t[where]) * backend.asarray(found.vectors[:, which], dtype=objective.dtype)

    order = np.argsort(np.tile(np.abs(t), len(found)), kind="stable")
    options = Options(metrics, held_out, batch_norm, checkpoint, progress, time_budget)
    return evaluate(
        objective, point, order.tolist(), [found.vectors, t], options,
        lambda table: make_line(table, found, t, single, model, "line", batch_norm),
    )  # fmt: skip


def make_line(
    table: Table, found: Directions, t: np.ndarray, single: bool, model: QuadraticModel | None,
    kind: Literal["line", "interpolation"], batch_norm: str,
) -> Line:  # fmt: skip
    """The result from what was measured."""
    fields: dict[str, Any] = table.shaped((len(t),) if single else (len(found), len(t)))
    if model is not None:
        slope, curvature = model.slope, np.diag(model.curvature).copy()
        pair = (np.asarray(slope[0]), np.asarray(curvature[0])) if single else (slope, curvature)
        fields |= {"value": model.value, "slope": pair[0], "curvature": pair[1], "num_matvecs": model.num_matvecs}
    fields["num_matvecs"] = fields.get("num_matvecs", 0) + found.num_matvecs
    direction = found.vectors[:, 0] if single else found.vectors
    return Line(distances=t, direction=direction, labels=found.labels, kind=kind, batch_norm=batch_norm, **fields)


def _distances(given: Any, name: str) -> np.ndarray:
    t = np.array(given, dtype=np.float64)
    if t.ndim != 1 or t.size == 0 or not np.isfinite(t).all():
        found = f"has shape {t.shape}" if t.ndim != 1 or t.size == 0 else "some are not finite"
        raise ValueError(f"The argument {name} must be a list of finite numbers, but {found}; pass for example np.linspace(-1, 1, 21).")
    return t
