"""Principal directions of a path of parameters, and the path in their plane."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..backends import to_numpy
from ..curvature import Objective
from ..krylov.lanczos import check_count
from ..results import PathLike, register, save_result
from .storage import from_file, to_file

_PIECE = 1 << 18
"""Parameters that are worked on at a time, in double precision."""


@register("trajectory")
@dataclasses.dataclass(frozen=True, eq=False)
class Trajectory:
    """A path of T parameter vectors in the space of its principal directions.

    Attributes
    ----------
    directions : numpy.ndarray
        Orthonormal columns, the strongest first, shape (P, K).
    explained_variance : numpy.ndarray
        Share of the path's variance along each, shape (K,).
    coordinates : numpy.ndarray
        The path seen from the objective's parameters, projected on the directions, shape (T, K); in the unit of the parameters. A
        plane along the first two directions has these coordinates.
    distances : numpy.ndarray
        How far each point lies outside of the space through the objective's parameters that the directions span, shape (T,).
    labels : tuple of str
        A name for each direction.
    seconds : float
        Wall-clock time.
    """

    directions: np.ndarray
    explained_variance: np.ndarray
    coordinates: np.ndarray
    distances: np.ndarray
    labels: tuple[str, ...]
    seconds: float = 0.0

    def save(self, path: PathLike) -> None:
        """Write the trajectory to `path` (``.npz``); `linop_spectra.load` reads it back."""
        save_result(path, "trajectory", *to_file(self))

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> Trajectory:
        return cls(**from_file(scalars, arrays))


def trajectory(objective: Objective, checkpoints: Iterable[Any], num: int = 2) -> Trajectory:
    r"""Principal directions of a path of parameters (Li, Xu, Taylor, Studer and Goldstein, 2018, section 7).

    Principal components of the T vectors around their mean, from the T x T matrix of inner products: no array has more than
    T or `num` columns of length P. Time is T^2 P operations.

    Pitfall: a high share of variance is no sign of a low-dimensional path. A random walk in many dimensions has
    :math:`6/(\pi^2 k^2)` of its variance along the k-th direction, 61 % and 15 % along the first two, and a spiral as its picture
    (Antognini and Sohl-Dickstein, 2018).

    Parameters
    ----------
    objective : Objective
        Its parameters are the origin of the coordinates, usually the last point of the path.
    checkpoints : iterable of array, mapping, str, path or Objective
        The path, in what `Objective.with_parameters` takes, at least two points; held in the objective's dtype.
    num : int
        Directions, K; at most T - 1.

    Returns
    -------
    Trajectory
        Directions, shares of variance, and the projected path.

    Raises
    ------
    ValueError
        When there are too few points, they do not move, or shapes do not fit.

    Examples
    --------
    >>> import numpy as np, torch, linop_spectra as ls, linop_spectra.landscape
    >>> objective = ls.objective(torch.nn.Linear(3, 1), "mse", (torch.randn(20, 3), torch.randn(20, 1)))
    >>> end, way = objective.parameters(), np.ones(4, np.float32)
    >>> path = ls.landscape.trajectory(objective, [end - 2 * way, end - way, end], num=1)
    >>> np.abs(path.coordinates[:, 0]).round(3), path.explained_variance.round(3)
    (array([4., 2., 0.]), array([1.]))
    """
    num = check_count("num", num)
    began = time.perf_counter()
    n = objective.num_parameters
    rows = []
    for given in checkpoints:
        vector = given.parameters() if isinstance(given, Objective) else objective.with_parameters(given).parameters()
        row = np.asarray(to_numpy(vector), dtype=objective.dtype)
        if row.shape != (n,):
            raise ValueError(f"The argument checkpoints holds a vector of shape {row.shape}, but the objective has {n} parameters.")
        rows.append(row)
    if not 1 <= num < len(rows):
        most = max(len(rows) - 1, 0)
        raise ValueError(f"The argument num is {num}, but {len(rows)} checkpoints have at most {most} principal directions.")
    origin = np.asarray(to_numpy(objective.parameters()))
    pieces = [slice(first, min(first + _PIECE, n)) for first in range(0, n, _PIECE)]

    def moves(piece: slice) -> np.ndarray:
        """The path seen from the origin: differences before anything is squared, so that small moves keep their digits."""
        return np.stack([row[piece].astype(np.float64) - origin[piece].astype(np.float64) for row in rows])

    gram = sum(np.einsum("ip,jp->ij", d, d) for d in map(moves, pieces))
    gram = np.asarray(gram, dtype=np.float64)
    if not np.isfinite(gram).all():
        raise ValueError("The argument checkpoints holds parameters that are not finite.")
    centering = np.eye(len(rows)) - 1 / len(rows)
    values, vectors = np.linalg.eigh(centering @ gram @ centering)
    values, vectors = values[::-1], vectors[:, ::-1]
    noise = len(rows) * np.finfo(np.float64).eps * max(float(np.trace(gram)), 0.0)
    if not values[num - 1] > noise:
        raise ValueError(
            f"The argument num is {num}, but the path moves along {int((values > noise).sum())} directions only; ask for at most that many."
        )
    weights = centering @ (vectors[:, :num] / np.sqrt(values[:num]))
    directions = np.empty((n, num))
    for piece in pieces:
        directions[piece] = moves(piece).T @ weights
    # The Gram matrix squares the condition number: small components are made orthonormal again.
    q, r = np.linalg.qr(directions)
    directions = q * np.sign(np.diag(r))
    coordinates = np.zeros((len(rows), num))
    outside = np.zeros(len(rows))
    for piece in pieces:
        coordinates += moves(piece) @ directions[piece]
    for piece in pieces:
        outside += np.sum((moves(piece) - coordinates @ directions[piece].T) ** 2, axis=1)
    labels = tuple(f"principal direction {k + 1} ({100 * values[k] / values.sum():.3g} %)" for k in range(num))
    return Trajectory(
        directions.astype(objective.dtype), np.clip(values, 0, None)[:num] / np.clip(values, 0, None).sum(), coordinates,
        np.sqrt(outside), labels, time.perf_counter() - began,
    )  # fmt: skip
