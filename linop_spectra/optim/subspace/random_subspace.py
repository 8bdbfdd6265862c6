"""Training in a random subspace of the parameters."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np

from ...backends import Array
from ...curvature import Objective
from ...curvature.subspace import SubspaceObjective, in_subspace, random_rows
from ..evaluation import Start
from ..optimizer import Optimizer, Proposal, check_seed
from ..step_info import StepInfo


class RandomSubspace(Optimizer):
    r"""Another method, confined to :math:`\theta_0 + P \xi` with a random orthonormal P; the origin is where the first step starts.

    How few dimensions still train a network is its intrinsic dimension (C. Li, H. Farkhoor, R. Liu and J. Yosinski, *Measuring the
    intrinsic dimension of objective landscapes*, ICLR 2018). On a quadratic with equal curvature in all n directions, the least loss in a
    random d-dimensional plane through the start is on average :math:`(1 - d/n) L_0`.

    A step costs what it costs of the method, each gradient and product with the cost of one in all parameters; P takes d vectors of
    memory and is made again from the seed after a restart.

    Parameters
    ----------
    method : Optimizer
        What moves the coordinates. Its own settings and state are part of this one's.
    dimension : int
        d, between 1 and the number of parameters.
    seed : int
        Of the subspace.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> _ = torch.manual_seed(0)
    >>> x = torch.randn(50, 8)
    >>> objective = ls.objective(torch.nn.Linear(8, 1), "mse", (x, x.sum(dim=1, keepdim=True)))
    >>> method = ls.optim.RandomSubspace(ls.optim.LanczosNewton(damping=1e-6, num_steps=4), dimension=4)
    >>> theta, info = method.step(objective, objective.parameters())
    >>> 0 < objective.with_parameters(theta).value() < info.loss
    True
    """

    _settings = ("method", "dimension", "seed")

    def __init__(self, method: Optimizer, *, dimension: int, seed: int = 0) -> None:
        super().__init__()
        if not isinstance(method, Optimizer):
            raise TypeError(f"The argument method is a {type(method).__name__}, but must be a method of linop_spectra.optim.")
        if isinstance(dimension, bool) or int(dimension) != dimension or dimension < 1:
            raise ValueError(f"The argument dimension is {dimension!r}, but must be a whole number of at least 1.")
        self.method, self.dimension, self.seed = copy.copy(method), int(dimension), check_seed(seed)
        self._rows: Array = None

    @property
    def settings(self) -> dict[str, Any]:
        """Settings by name; those of the method inside with its name."""
        inside = {"class": type(self.method).__name__, **self.method.settings}
        return {"method": inside, "dimension": self.dimension, "seed": self.seed}

    def step(self, objective: Objective, theta: Any, *, curvature: Objective | None = None) -> tuple[Array, StepInfo]:
        """One step of the method inside, in coordinates; see `Optimizer.step`."""
        theta, held = self._checked(objective, theta), self._held(objective)
        backend = objective.functions.backend
        if self._rows is None or self._rows.shape[1] != objective.num_parameters:
            self._rows = random_rows(objective, self.dimension, self.seed)
        # The origin is kept, so that methods with a pull towards zero coordinates pull towards it.
        origin = held.get("origin", theta)
        coordinates = backend.asarray(backend.gemv_t(self._rows, theta - origin), dtype=objective.dtype)
        inside = in_subspace(objective.with_parameters(origin), self._rows)
        other = None if curvature is None else in_subspace(curvature.with_parameters(origin), self._rows)
        nested = {name.removeprefix("method/"): value for name, value in held.items() if name.startswith("method/")}
        self.method.state, self.method.steps_taken = nested, self.steps_taken
        # What a user did to the parameters outside of the subspace stays.
        outside = theta - origin - self._combined(inside, coordinates)
        inside = _moved(inside, outside)
        other = None if other is None else _moved(other, outside)
        after, info = self.method.step(inside, coordinates, curvature=other)
        kept = {f"method/{name}": value for name, value in self.method.state.items()}
        self.state = {"num_parameters": objective.num_parameters, "origin": origin, **kept}
        self.steps_taken = self.method.steps_taken
        if not info.accepted:
            return theta, info
        return theta + self._combined(inside, after - coordinates), info

    def _combined(self, inside: SubspaceObjective, coordinates: Array) -> Array:
        backend = inside.functions.backend
        return backend.combine(np.asarray(backend.to_numpy(coordinates), dtype=np.float64)[None, :], inside.rows)[0]

    def _propose(self, start: Start) -> Proposal:
        raise TypeError(
            "A random subspace takes its steps by the method inside, and no other method can hold it; put that one inside: "
            "RandomSubspace(EdgeOfStabilityGuard(...), dimension=...)."
        )


def _moved(inside: SubspaceObjective, outside: Array) -> SubspaceObjective:
    return dataclasses.replace(inside, origin=inside.origin + outside)
