"""What one step of an optimiser did."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class StepInfo:
    """Numbers of one step; what a method does not have is NaN.

    Attributes
    ----------
    step : int
        Number of the step, from zero.
    loss : float
        Loss at the start of the step, on the data of the gradient.
    gradient_norm : float
        Euclidean norm of its gradient there.
    step_norm : float
        Euclidean norm of what was added to the parameters; zero where the step was rejected.
    accepted : bool
        Whether the parameters moved as the method proposed.
    predicted_decrease : float
        What the method's model of the loss promised the step to gain, in units of the loss. Of a method that has no such model
        (momentum, running diagonals, plain KFAC) that of the gradient alone, minus its inner product with the step.
    actual_decrease : float
        What the step gained on the data of the gradient; NaN where the loss was not evaluated again.
    learning_rate, damping : float
        As they were in this step.
    num_matvecs : int
        Products with curvature matrices.
    num_gradients, num_values : int
        Gradients and values of the loss that were computed, each over all data that was given.
    refreshed : bool
        Whether curvature was measured in this step, and not kept from an earlier one.
    seconds : float
        Wall-clock time.
    message : str
        Why a step was rejected or changed, in a sentence; else empty.
    details : mapping
        Further numbers of the method by name.

    Examples
    --------
    >>> from linop_spectra.optim import StepInfo
    >>> StepInfo(step=0, loss=2.0, gradient_norm=1.0, step_norm=0.5, accepted=True, predicted_decrease=0.4, actual_decrease=0.3).ratio
    0.7499999999999999
    """

    step: int
    loss: float
    gradient_norm: float
    step_norm: float
    accepted: bool
    predicted_decrease: float = math.nan
    actual_decrease: float = math.nan
    learning_rate: float = math.nan
    damping: float = math.nan
    num_matvecs: int = 0
    num_gradients: int = 0
    num_values: int = 0
    refreshed: bool = False
    seconds: float = 0.0
    message: str = ""
    details: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Actual over predicted decrease: one where the method's model is right, negative where the loss rose."""
        if not self.predicted_decrease or math.isnan(self.predicted_decrease):
            return math.nan
        return self.actual_decrease / self.predicted_decrease

    def __str__(self) -> str:
        parts = [f"step {self.step}: loss {self.loss:.6g}, gradient {self.gradient_norm:.3g}, step {self.step_norm:.3g}"]
        for name in ("learning_rate", "damping", "ratio"):
            value = getattr(self, name)
            if not math.isnan(value):
                parts.append(f"{name.replace('_', ' ')} {value:.3g}")
        parts.append(f"{self.num_matvecs} products")
        return ", ".join(parts) + ("" if self.accepted else "; rejected") + (f": {self.message}" if self.message else "")
