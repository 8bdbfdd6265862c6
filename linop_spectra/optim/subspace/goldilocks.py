"""Where a network trains in few dimensions, and what the curvature says there: the Goldilocks zone."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..._progress import Progress, ProgressBar
from ...curvature import Objective
from ...curvature.metrics import goldilocks_ratio, positive_share
from ...landscape.metrics import Metrics, metric_functions, named_metrics
from ...results import PathLike, register, save_result
from ..minimize import BatchesOf, minimize
from ..optimizer import Optimizer
from .random_subspace import RandomSubspace

_COLUMNS = ("ratios", "ratio_errors", "plane_ratios", "plane_errors", "positive_shares", "positive_errors")


@register("goldilocks scan")
@dataclasses.dataclass(frozen=True, eq=False)
class GoldilocksScan:
    """Curvature at scaled parameters, and how well random planes through them train.

    Attributes
    ----------
    radii : numpy.ndarray
        Factors of the parameters, shape (R,).
    dimensions : numpy.ndarray
        Dimensions of the planes, shape (D,).
    ratios, ratio_errors : numpy.ndarray
        Trace over Frobenius norm of the Hessian, and standard errors, shape (R,).
    plane_ratios, plane_errors : numpy.ndarray
        The same of its restriction to random planes of dimension `plane_dimension`, shape (R,).
    positive_shares, positive_errors : numpy.ndarray
        Share of positive eigenvalues of the restrictions, shape (R,).
    plane_dimension : int
        Of those restrictions.
    start_losses : numpy.ndarray
        Loss before training, shape (R,).
    losses : numpy.ndarray
        Loss over all data after training in a random plane, shape (R, D); infinite where the training left the finite numbers.
    metrics : dict
        Arrays of shape (R, D) by name.
    num_steps, num_matvecs : int
        Steps of each training, and products of the whole scan.
    seconds : float
        Wall-clock time.
    """

    radii: np.ndarray
    dimensions: np.ndarray
    ratios: np.ndarray
    ratio_errors: np.ndarray
    plane_ratios: np.ndarray
    plane_errors: np.ndarray
    positive_shares: np.ndarray
    positive_errors: np.ndarray
    plane_dimension: int
    start_losses: np.ndarray
    losses: np.ndarray
    metrics: dict[str, np.ndarray]
    num_steps: int
    num_matvecs: int
    seconds: float

    def __str__(self) -> str:
        names = [f"loss, d = {d}" for d in self.dimensions]
        rows = ["radius  tr/|H|_F  positive  " + "  ".join(names)]
        for i, radius in enumerate(self.radii):
            cells = "  ".join(f"{loss:{len(name)}.4g}" for loss, name in zip(self.losses[i], names, strict=True))
            rows.append(f"{radius:6g}  {self.ratios[i]:8.3g}  {self.positive_shares[i]:8.2f}  {cells}")
        return "\n".join(rows)

    def plot(self, path: PathLike | None = None) -> np.ndarray:
        """Draw ratios, and what was reached in planes, over the radius, and return the axes.

        See `linop_spectra.plots.goldilocks.goldilocks`.
        """
        from ...plots.goldilocks import goldilocks

        return goldilocks(self, path=path)

    def save(self, path: PathLike) -> None:
        """Write the scan to `path` (``.npz``); `linop_spectra.load` reads it back."""
        held = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        found = held.pop("metrics")
        arrays = {name: value for name, value in held.items() if isinstance(value, np.ndarray)}
        arrays |= {f"metric/{name}": value for name, value in found.items()}
        save_result(path, "goldilocks scan", {name: value for name, value in held.items() if name not in arrays}, arrays)

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> GoldilocksScan:
        found = {name.removeprefix("metric/"): arrays.pop(name) for name in list(arrays) if name.startswith("metric/")}
        fields: dict[str, Any] = {**scalars, **arrays}
        return cls(**fields, metrics=found)


def goldilocks_scan(
    objective: Objective, radii: Sequence[float], dimensions: Sequence[int], method: Callable[[], Optimizer], num_steps: int, *,
    batches: BatchesOf = None, metrics: Metrics = None, plane_dimension: int = 16, num_planes: int = 4, seed: int = 0,
    progress: Progress = None,
) -> GoldilocksScan:  # fmt: skip
    r"""Cutting-plane training over dimensions and radii, beside :math:`\mathrm{tr} H / |H|_F` and the share of positive curvature.

    At each radius r the parameters are r times those of the objective (an initialisation); there the Hessian is measured, in all of
    the space and in random planes, and for each dimension d a method trains :math:`\theta = r \theta_0 + P \xi` with a random
    orthonormal P (S. Fort and A. Scherlis, *The Goldilocks zone*, AAAI 2019). That the zone of high ratio is where networks train is what
    they found, and not a law: A. Vysogorets, A. Dawid and J. Kempe, *Deconstructing the Goldilocks zone of neural network initialization*
    (2024), find it neither needed nor enough.

    Parameters
    ----------
    objective : Objective
        Model, loss and all data, at the initialisation.
    radii : sequence of float
        Positive factors.
    dimensions : sequence of int
        Dimensions of the planes to train in.
    method : callable
        Makes a fresh `Optimizer` for each training.
    num_steps : int
        Steps of each training.
    batches : sequence or callable, optional
        Mini-batches of the trainings, as for `minimize`; else all data.
    metrics : "accuracy", callable, list or mapping, optional
        What to measure after each training beside the loss, as for `linop_spectra.landscape.line`.
    plane_dimension, num_planes : int
        Planes that the Hessian is restricted to.
    seed : int
        Of planes and probes; the planes to train in are the same at every radius.
    progress : bool or callable, optional
        As for `linop_spectra.lanczos`.

    Returns
    -------
    GoldilocksScan
        With a table, `plot` and `save`.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> objective = ls.objective(model, "cross_entropy", (torch.randn(60, 4), torch.randint(0, 3, (60,))))
    >>> method = lambda: ls.optim.LanczosNewton(damping=0.1, num_steps=4)
    >>> scan = ls.optim.goldilocks_scan(objective, [0.5, 1.0], [4], method, 5)
    >>> scan.losses.shape, bool((scan.losses[:, 0] < scan.start_losses).all())
    ((2, 1), True)
    """
    _check(objective, radii, dimensions, method)
    began = time.perf_counter()
    named = named_metrics(metrics)
    measured = metric_functions(named, objective)
    theta, shape = objective.parameters(), (len(radii), len(dimensions))
    losses, found = np.full(shape, math.inf), {name: np.full(shape, math.nan) for name in named}
    curvature: list[tuple[float, ...]] = []
    starts, matvecs = [], 0
    width = min(plane_dimension, objective.num_parameters)
    with ProgressBar(progress, len(radii) * (1 + len(dimensions)), "Goldilocks scan", unit="training") as bar:
        for i, radius in enumerate(radii):
            here = objective.with_parameters(float(radius) * theta)
            starts.append(here.value())
            numbers, products = _curvature(here, width, num_planes, seed)
            curvature.append(numbers)
            matvecs += products
            bar.advance()
            for j, dimension in enumerate(dimensions):
                trained = _train(here, RandomSubspace(method(), dimension=int(dimension), seed=seed), num_steps, batches)
                if trained is not None:
                    run, at_the_end = trained
                    matvecs += run.num_matvecs
                    losses[i, j] = at_the_end.value()
                    for name, measure in measured.items():
                        found[name][i, j] = measure(at_the_end)
                bar.advance()
    columns = dict(zip(_COLUMNS, np.array(curvature).T, strict=True))
    return GoldilocksScan(
        radii=np.asarray(radii, dtype=np.float64), dimensions=np.asarray(dimensions, dtype=np.int64), plane_dimension=width,
        start_losses=np.array(starts), losses=losses, metrics=found, num_steps=int(num_steps), num_matvecs=matvecs,
        seconds=time.perf_counter() - began, **columns,
    )  # fmt: skip


def _curvature(here: Objective, width: int, num_planes: int, seed: int) -> tuple[tuple[float, ...], int]:
    whole = goldilocks_ratio(here, seed=seed)
    planes = goldilocks_ratio(here, plane_dimension=width, num_planes=num_planes, seed=seed)
    positive = positive_share(here, plane_dimension=width, num_planes=num_planes, seed=seed)
    three = (whole, planes, positive)
    numbers = tuple(number for one in three for number in (one.value, one.standard_error))
    return numbers, sum(one.num_matvecs for one in three)


def _train(here: Objective, method: Optimizer, num_steps: int, batches: BatchesOf) -> Any:
    try:
        run = minimize(method, here, num_steps, batches=batches)
        if run.status == "interrupted":
            raise KeyboardInterrupt
        at_the_end = here.with_parameters(run.theta)
        at_the_end.value()
    except FloatingPointError:
        return None
    return run, at_the_end


def _check(objective: Any, radii: Sequence[float], dimensions: Sequence[int], method: Any) -> None:
    if not isinstance(objective, Objective):
        raise TypeError(f"The argument objective is a {type(objective).__name__}, but must be made by linop_spectra.objective.")
    if not len(radii) or not all(math.isfinite(radius) and radius > 0 for radius in radii):
        raise ValueError(f"The argument radii must hold positive finite numbers, at least one, but is {list(radii)!r}.")
    n = objective.num_parameters
    if not len(dimensions) or not all(int(d) == d and 1 <= d <= n for d in dimensions):
        raise ValueError(f"The argument dimensions must hold whole numbers between 1 and {n}, at least one, but is {list(dimensions)!r}.")
    if not callable(method) or isinstance(method, Optimizer):
        raise TypeError("The argument method must be a function that makes a fresh optimiser, such as lambda: LanczosNewton().")
