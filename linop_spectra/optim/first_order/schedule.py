"""Learning rate and momentum that follow the spectrum while training goes on."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np

from ...curvature import Objective
from ...evolution.edge import stability_threshold
from ...krylov.lanczos import check_count
from ..evaluation import Matrix, Start, check_matrix, make_matrix
from ..newton.krylov_model import KrylovModel, krylov_model
from ..optimizer import NO_GRADIENT, Optimizer, check_number, check_seed
from ..stability import StableProposal
from .batch_shift import batch_shift
from .momentum import forgotten, momentum_step
from .parameters import FirstOrderMethod, heavy_ball_parameters, known_positive, nesterov_parameters

_MEASURED = ("learning_rate", "momentum", "largest", "smallest", "batch_shift", "bound")


class SpectralSchedule(Optimizer):
    r"""Heavy ball (or Nesterov's method) whose learning rate and momentum come from a Lanczos run every so many steps.

    Each refresh takes the largest Ritz value with its residual, adds what a mini-batch adds to it, and divides by `factor`:
    :math:`L = (\lambda_1 + V_u / \lambda_1 + r_1) / \text{factor}`, where :math:`V_u` is the variance of the batch's curvature along the
    top eigenvector (Granziol, Zohren and Roberts, 2022). With ``momentum="optimal"`` the parameters are those of `heavy_ball_parameters`
    for L and the smallest positive Ritz value that is resolved, or the objective's weight decay (B. T. Polyak, 1964; for networks
    Granziol, Wan and Garipov, *Deep Curvature Suite*, 2019). With a number the learning rate is the largest stable one,
    :math:`2 (1 + \beta) / L` (Y. LeCun, P. Simard and B. Pearlmutter, NIPS 1992, for :math:`\beta = 0`). Either way it stays below `factor`
    times the stability threshold of the spectrum that was measured last.

    A step costs one gradient, a refresh `num_steps` products, and one more with the correction for mini-batches.

    Parameters
    ----------
    refresh_every : int
        Steps between refreshes. The defaults, a measurement every ten steps and half of the measured limit, are what held on small
        networks; on a quadratic, which does not change, ``refresh_every=1000, factor=1`` is enough.
    num_steps : int
        Lanczos steps of a refresh.
    matrix : {"hessian", "ggn", "fisher"} or callable
        The matrix, or what makes one from an objective.
    factor : float
        Safety factor, above 0 and at most 1: room for a spectrum that grows until the next refresh.
    growth : float
        By how much L may fall at a refresh, and the learning rate rise, at least 1; it may grow without limit. The curvature of
        classifiers falls as they fit, and larger steps then throw them out to where it is large again.
    momentum : "optimal" or float
        The momentum.
    largest_momentum : float
        Limit of an optimal momentum, below 1.
    nesterov : bool
        Whether the step is that of Nesterov's method.
    batch_correction : bool
        Whether the largest eigenvalue is corrected for batches of the gradient that have fewer examples than the curvature data. These
        are compared in parts: their batches, or pieces of a single one.
    start_at : {"random", "gradient"}
        Where Lanczos starts. From the gradient it sees the part of the spectrum that this gradient can excite.
    seed : int
        Of random starts.
    evaluate : bool
        Whether the loss after each step is evaluated: then a step to where it is not finite is rejected, and the learning rate is
        halved until the next refresh. False saves that forward pass.

    Notes
    -----
    `StepInfo.details` has ``momentum``, ``largest`` (with its residual and the shift, without the factor), ``smallest``,
    ``batch_shift`` and ``bound`` (``largest``, or what `growth` makes of the one before).

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> _ = torch.manual_seed(0)
    >>> x = torch.randn(40, 3, dtype=torch.float64)
    >>> objective = ls.objective(torch.nn.Linear(3, 1).double(), "mse", (x, x.sum(dim=1, keepdim=True)))
    >>> method, theta = ls.optim.SpectralSchedule(refresh_every=50, num_steps=4), objective.parameters()
    >>> for _ in range(40):
    ...     theta, info = method.step(objective, theta)
    >>> info.loss < 1e-8
    True
    """

    _settings: ClassVar[tuple[str, ...]] = (
        "refresh_every", "num_steps", "matrix", "factor", "growth", "momentum", "largest_momentum", "nesterov", "batch_correction",
        "start_at", "seed", "evaluate",
    )  # fmt: skip

    def __init__(
        self, *, refresh_every: int = 10, num_steps: int = 10, matrix: Matrix = "hessian", factor: float = 0.5, growth: float = 1.1,
        momentum: float | Literal["optimal"] = "optimal", largest_momentum: float = 0.99, nesterov: bool = False,
        batch_correction: bool = True, start_at: Literal["random", "gradient"] = "random", seed: int = 0, evaluate: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.refresh_every = check_count("refresh_every", refresh_every)
        self.num_steps = check_count("num_steps", num_steps)
        check_matrix(matrix)
        self.matrix = matrix
        self.factor = check_factor("factor", factor)
        if not growth >= 1:
            raise ValueError(f"The argument growth is {growth!r}, but must be at least 1; math.inf lets the learning rate follow at once.")
        self.growth = float(growth)
        if isinstance(momentum, str) and momentum != "optimal":
            raise ValueError(f"The argument momentum is {momentum!r}, but must be 'optimal' or a number.")
        self.momentum: float | Literal["optimal"] = momentum if isinstance(momentum, str) else check_number("momentum", momentum, below=1.0)
        self.largest_momentum = check_number("largest_momentum", largest_momentum, below=1.0)
        if start_at not in ("random", "gradient"):
            raise ValueError(f"The argument start_at is {start_at!r}, but must be 'random' or 'gradient'.")
        self.nesterov, self.batch_correction, self.start_at = bool(nesterov), bool(batch_correction), start_at
        self.seed, self.evaluate = check_seed(seed), bool(evaluate)
        self._evaluates = self.evaluate

    def _propose(self, start: Start) -> StableProposal:
        measured: dict[str, Any] = {}
        message = ""
        due = start.step % self.refresh_every == 0 or "learning_rate" not in start.state
        if due:
            measured, message = self._measured(start)
        now = {name: float(measured[name] if name in measured else start.state[name]) for name in _MEASURED}
        eta, beta = now["learning_rate"], now["momentum"]
        step, changes = momentum_step(start, eta, beta, nesterov=self.nesterov)
        if start.gradient_norm == 0 and start.norm(step) == 0:
            message = " ".join(part for part in (message, NO_GRADIENT) if part)
        details = {name: now[name] for name in _MEASURED[1:]}
        return StableProposal(
            step, state={**measured, **changes}, rejected_state={**measured, **forgotten(start, changes), "learning_rate": eta / 2},
            learning_rate=eta, refreshed=due, message=message, details=details,
            stability=("nesterov" if self.nesterov else "heavy_ball", beta),
        )  # fmt: skip

    def _measured(self, start: Start) -> tuple[dict[str, Any], str]:
        """New entries of the state, and a message."""
        operator = start.operator(self.matrix)
        model = krylov_model(operator, self._first_vector(start), self.num_steps, test_symmetry=callable(self.matrix))
        values, residuals = model.values, model.residual_norms
        floor = 4 * math.sqrt(len(values)) * float(np.finfo(operator.dtype).eps) * float(np.abs(values).max())
        positive = known_positive(values, residuals, floor)
        if not positive.any():
            if "learning_rate" in start.state:
                return {}, "No positive eigenvalue is resolved; learning rate and momentum stay as they were."
            raise ValueError(
                f"No positive eigenvalue of the {self._name} is resolved in {len(values)} Lanczos steps (the largest Ritz value is "
                f"{values[-1]:.3g}), so that it sets no learning rate; take more num_steps, or matrix='ggn'."
            )
        shift = self._shift(start, model) if self.batch_correction else 0.0
        largest = float(values[-1] + residuals[-1]) + shift
        decay = start.curvature.weight_decay
        smallest = decay if 0 < decay <= largest else float(values[positive].min())
        bound = max(largest, float(start.state.get("bound", 0.0)) / self.growth)
        eta, beta = self._parameters(bound / self.factor, smallest)
        return dict(zip(_MEASURED, (eta, beta, largest, smallest, shift, bound), strict=True)), ""

    def _parameters(self, largest: float, smallest: float) -> tuple[float, float]:
        method: FirstOrderMethod = "nesterov" if self.nesterov else "heavy_ball"
        if self.momentum != "optimal":
            return stability_threshold(largest, method, momentum=self.momentum), self.momentum  # threshold and rate exchange places
        found = (nesterov_parameters if self.nesterov else heavy_ball_parameters)(largest=largest, smallest=smallest)
        if found.momentum <= self.largest_momentum:
            return found.learning_rate, found.momentum
        # At the best parameters the largest eigenvalue of heavy ball has the double root -sqrt(beta); this keeps it so.
        eta = 4 / (3 * largest) if self.nesterov else (1 + math.sqrt(self.largest_momentum)) ** 2 / largest
        return eta, self.largest_momentum

    def _shift(self, start: Start, model: KrylovModel) -> float:
        if start.curvature is start.objective:
            return 0.0
        # The weights of the Gauss rule show where the bulk is only where the start does not prefer a part of the spectrum.
        bulk = 0.0
        if self.start_at == "random":
            shares = np.cumsum(model.coefficients**2)
            bulk = float(model.values[int(np.searchsorted(shares, shares[-1] / 2))])
        size = start.objective.num_examples
        shift = batch_shift(self._make, start.curvature, size, float(model.values[-1]), model.vectors[-1], bulk)
        if size < start.curvature.num_examples:
            start.add_matvecs(1)
        return shift

    def _make(self, objective: Objective) -> Any:
        return make_matrix(self.matrix, objective)

    def _first_vector(self, start: Start) -> Any:
        if self.start_at == "gradient" and start.gradient_norm > 0:
            return start.gradient
        n, dtype = start.objective.num_parameters, start.objective.dtype
        return start.backend.probes(n, [start.step], kind="sphere", seed=self.seed, domain="schedule", dtype=dtype)[0]

    @property
    def _name(self) -> str:
        names = {"hessian": "Hessian", "ggn": "Gauss-Newton matrix", "fisher": "Fisher matrix"}
        return "matrix" if callable(self.matrix) else names[self.matrix]


def check_factor(name: str, value: Any) -> float:
    """`value` as a float above zero and at most one.

    Raises
    ------
    ValueError
        When it is not.
    """
    factor = check_number(name, value, positive=True)
    if factor > 1:
        raise ValueError(f"The argument {name} is {value!r}, but must be at most 1: above it learning rates are not stable.")
    return factor
