"""The loss on the straight way from one model to another."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._progress import Progress
from ..backends import to_numpy
from ..curvature import Objective
from ..results import PathLike
from .batch_norm import BatchNorm
from .directions import Directions
from .evaluation import Options, evaluate
from .line import Line, _distances, make_line
from .metrics import Metrics
from .quadratic import Quadratic, quadratic_model


def interpolate(
    objective: Objective,
    other: Any,
    fractions: Any = None,
    *,
    metrics: Metrics = None,
    held_out: Objective | None = None,
    quadratic: Quadratic = None,
    batch_norm: BatchNorm = "keep",
    checkpoint: PathLike | None = None,
    progress: Progress = None,
    time_budget: float | None = None,
) -> Line:
    """Loss and metrics on the straight way from an objective's parameters to other ones (Goodfellow, Vinyals and Saxe, 2015).

    Buffers are those of the objective all along. Where the models have running statistics of batch normalisation, those fit only the
    first model: use ``batch_norm="re-estimate"``.

    Parameters
    ----------
    objective : Objective
        The first model, at 0, and the data. A start of your own is ``objective.with_parameters(start)``.
    other : Objective, array, mapping, str or path
        The second model, at 1: another objective with the same parameters, or what `Objective.with_parameters` takes.
    fractions : array, optional
        Shares of the way, shape (T,); 21 from 0 to 1 by default. Values outside go on beyond the models. The parameters at 0 and 1 are
        those of the models to the last bit.
    metrics, held_out, quadratic, batch_norm, checkpoint, progress, time_budget
        As for `line`.

    Returns
    -------
    Line
        Its direction is the difference of the two, its kind ``"interpolation"``; `Line.barrier` says how high the loss rises in
        between.

    Raises
    ------
    ValueError
        When the two have different parameters, or are equal.

    Examples
    --------
    >>> import torch, linop_spectra as ls, linop_spectra.landscape
    >>> data = torch.randn(20, 3), torch.randn(20, 1)
    >>> one, two = (ls.objective(torch.nn.Linear(3, 1), "mse", data) for _ in range(2))
    >>> line = ls.landscape.interpolate(one, two)
    >>> bool(line.loss[-1] == two.value()), line.barrier()  # a convex loss lies below the chord
    (True, 0.0)
    """
    if isinstance(other, Objective):
        if dict(other.blocks) != dict(objective.blocks):
            raise ValueError("The argument other has other parameters than the objective, so that there is no way between them.")
        end = other.parameters()
    else:
        end = objective.with_parameters(other).parameters()
    backend = objective.functions.backend
    start, end = objective.parameters(), backend.asarray(to_numpy(end), dtype=objective.dtype)
    direction = np.asarray(to_numpy(end - start))
    norm = float(np.linalg.norm(direction.astype(np.float64)))
    if not 0 < norm < np.inf:
        raise ValueError(
            "The argument other has the same parameters as the objective; there is no way between them to look at."
            if norm == 0
            else "The argument other has parameters that are not finite."
        )
    t = _distances(np.linspace(0, 1, 21) if fractions is None else fractions, "fractions")
    found = Directions(direction[:, None], ("between the models",), "interpolation")
    model = quadratic_model(objective, found, quadratic)

    def point(index: int) -> Any:
        share = float(t[index])
        return (1.0 - share) * start + share * end

    order = np.argsort(np.minimum(np.abs(t), np.abs(t - 1)), kind="stable")  # the two models first
    options = Options(metrics, held_out, batch_norm, checkpoint, progress, time_budget)
    return evaluate(
        objective, point, order.tolist(), [direction, t], options,
        lambda table: make_line(table, found, t, True, model, "interpolation", batch_norm), alone=2,
    )  # fmt: skip
