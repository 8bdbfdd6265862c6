"""Gradient descent by the step that minimises the quadratic along the gradient."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from ...krylov.lanczos import check_count
from ..evaluation import Matrix, Start, check_matrix
from ..optimizer import NO_GRADIENT, Optimizer, Proposal, check_number


class CauchySteps(Optimizer):
    r"""Gradient descent with the learning rate :math:`\eta = g^\top g / g^\top H g`.

    It minimises the quadratic along the gradient (A.-L. Cauchy, 1847). With `relaxation` below one the steps do not fall into
    the zigzag of the exact minimiser (M. Raydan and B. Svaiter, Comput. Optim. Appl. 21, 2002). Where the curvature along the gradient is
    negative its modulus is used, and the message says so.

    A step costs one gradient, a refresh one product.

    Parameters
    ----------
    refresh_every : int
        Steps between refreshes; in between the learning rate stays.
    matrix : {"hessian", "ggn", "fisher"} or callable
        H, on the data of the curvature.
    relaxation : float
        Factor of the learning rate, positive.
    largest_rate : float
        Limit of the learning rate, for gradients along which there is hardly any curvature.
    evaluate : bool
        Whether the loss after each step is evaluated: then a step to where it is not finite is rejected, and the learning rate is
        halved until the next refresh. False saves that forward pass.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> objective = ls.objective(torch.nn.Linear(3, 1).double(), "mse", (torch.eye(3).double(), torch.ones(3, 1).double()))
    >>> theta, info = ls.optim.CauchySteps(evaluate=True).step(objective, objective.parameters())
    >>> round(info.ratio, 9)  # the loss is a quadratic
    1.0
    """

    _settings: ClassVar[tuple[str, ...]] = ("refresh_every", "matrix", "relaxation", "largest_rate", "evaluate")

    def __init__(
        self, *, refresh_every: int = 1, matrix: Matrix = "hessian", relaxation: float = 1.0, largest_rate: float = math.inf,
        evaluate: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.refresh_every = check_count("refresh_every", refresh_every)
        check_matrix(matrix)
        self.matrix = matrix
        self.relaxation = check_number("relaxation", relaxation, positive=True)
        if not largest_rate > 0:
            raise ValueError(f"The argument largest_rate is {largest_rate!r}, but must be positive.")
        self.largest_rate = float(largest_rate)
        self.evaluate = self._evaluates = bool(evaluate)

    def _propose(self, start: Start) -> Proposal:
        if start.gradient_norm == 0:
            return Proposal(0.0 * start.gradient, message=NO_GRADIENT)
        state: dict[str, Any] = {}
        message, predicted, curvature = "", math.nan, math.nan
        due = start.step % self.refresh_every == 0 or "learning_rate" not in start.state
        if due:
            operator = start.operator(self.matrix)
            square = start.gradient_norm**2
            quadratic = start.dot(start.gradient, operator.matvec(start.gradient))
            curvature = quadratic / square
            state["learning_rate"], message = self._rate(start, curvature)
            predicted = state["learning_rate"] * square - 0.5 * state["learning_rate"] ** 2 * quadratic
        eta = float(state["learning_rate"] if due else start.state["learning_rate"])
        return Proposal(
            -eta * start.gradient, state=state, rejected_state={"learning_rate": eta / 2}, predicted_decrease=predicted, learning_rate=eta,
            refreshed=due, message=message, details={"gradient_curvature": curvature} if due else {},
        )  # fmt: skip

    def _rate(self, start: Start, curvature: float) -> tuple[float, str]:
        if not math.isfinite(curvature):
            raise FloatingPointError("The product of the curvature with the gradient is not finite; the optimiser's state is as it was.")
        rate = self.relaxation / abs(curvature) if curvature else math.inf
        message = "The curvature along the gradient is negative; its modulus sets the step." if curvature < 0 else ""
        if rate > self.largest_rate:
            return self.largest_rate, message
        if math.isfinite(rate):
            return rate, message
        if "learning_rate" in start.state:
            return float(start.state["learning_rate"]), "There is no curvature along the gradient; the learning rate stays as it was."
        raise ValueError(
            "There is no curvature along the gradient, so that it sets no step; pass largest_rate= to the optimiser."
        )
