"""Newton methods whose steps are kept short by a region, and a region that learns from how well the model did."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any

import numpy as np

from ...backends import Array
from ...operators import LinearOperator, require_hermitian
from ..evaluation import Matrix, Start, check_matrix
from ..optimizer import Optimizer, Proposal, check_number
from .krylov_space import KrylovSpace
from .subproblem import HardCase, SubproblemResult, check_hard_case, check_steps, check_tolerance

_SEARCH = 10
"""Products of a search for an eigenvector, for each of the most in a step."""
_MANY = 10
"""Rejections in a row after which a step says that something is wrong."""


@dataclasses.dataclass
class _Kept:
    """The Krylov space of a step that was rejected, and where it belongs."""

    theta: Array
    gradient: Array
    places: tuple[Any, ...]
    space: KrylovSpace


class ModelNewton(Optimizer, abc.ABC):
    """What cubic regularisation and trust regions share: the quadratic model, its ratio to the loss, and what follows.

    The step minimises the model with the region, in the Krylov space of curvature and gradient. The ratio of actual to predicted
    decrease decides: below `accept` the parameters stay and only the region tightens; above `very_good` it loosens. Both decreases are
    first lengthened by ten units of rounding of the loss, so that near a minimum noise does not reject steps (A. R. Conn, N. I. M.
    Gould and Ph. L. Toint, *Trust-Region Methods*, 2000, section 17.4.2).

    The Krylov space does not depend on the region: after a rejected step at the same parameters and data the next one uses it again,
    without products. It is not part of the state; a run that was restored computes it again, to the same bits.
    """

    _region: str
    """Name of the setting and of the entry of the state that the region is."""

    def __init__(
        self, *, matrix: Matrix, num_steps: int, tol: float, hard_case: HardCase, accept: float, very_good: float
    ) -> None:
        super().__init__()
        check_matrix(matrix)
        check_hard_case(hard_case)
        steps = check_steps(num_steps)
        if steps is None:
            raise ValueError("The argument num_steps is None, but must be a whole number of at least 1.")
        self.matrix: Matrix = matrix
        self.num_steps = steps
        self.tol = check_tolerance(tol)
        self.hard_case: HardCase = hard_case
        self.accept = check_number("accept", accept, positive=True, below=1.0)
        self.very_good = check_number("very_good", very_good, positive=True, below=1.0)
        if self.accept >= self.very_good:
            raise ValueError(f"The argument accept is {accept!r} and very_good is {very_good!r}, but accept must be the smaller one.")
        self._kept: _Kept | None = None

    @abc.abstractmethod
    def _solve(self, start: Start, region: float, tol: float, hard_case: HardCase) -> SubproblemResult:
        """The step for a region."""

    @abc.abstractmethod
    def _loosened(self, start: Start, region: float, ratio: float, step_norm: float) -> float:
        """The region after a step that was accepted."""

    @abc.abstractmethod
    def _tightened(self, start: Start, region: float, step_norm: float) -> float:
        """The region after a step that was rejected."""

    @property
    def _search_limit(self) -> int:
        return max(_SEARCH * self.num_steps, 200)

    def _looks(self) -> bool:
        """Whether the lowest eigenvector may be looked for where that is needed."""
        return self.hard_case == "auto"

    def _operator(self, start: Start) -> LinearOperator:
        """The curvature, its products counted."""
        operator = start.operator(self.matrix)
        n = start.objective.num_parameters
        if operator.shape != (n, n):
            raise ValueError(f"The argument matrix made an operator of shape {operator.shape}, but the objective has {n} parameters.")
        require_hermitian(operator, type(self).__name__)
        return operator

    def _space(self, start: Start) -> KrylovSpace:
        """The Krylov space of this step: that of the last one where nothing but the region has changed since."""
        operator = self._operator(start)
        objective, curvature = start.objective, start.curvature
        places = (objective.functions, objective.data, objective.weight_decay, curvature.functions, curvature.data, curvature.weight_decay)
        kept, self._kept = self._kept, None
        if (
            kept is not None
            and all(old is new for old, new in zip(kept.places, places, strict=True))
            and not start.backend.any(kept.theta != start.theta)
            and not start.backend.any(kept.gradient != start.gradient)
        ):
            kept.space.operator = operator
        else:
            gradient = start.backend.contiguous(start.gradient, operator.dtype)
            space = KrylovSpace(operator, gradient, self.num_steps, test_symmetry=callable(self.matrix))
            kept = _Kept(start.theta + 0, start.gradient + 0, places, space)
        self._kept = kept
        return kept.space

    def _propose(self, start: Start) -> Proposal:
        region = float(start.state.get(self._region, getattr(self, self._region)))
        rejections = int(start.state.get("rejections", 0))
        first = float(start.state.get("first_gradient_norm", start.gradient_norm))
        # More exact as the gradient goes down, for superlinear convergence (Dembo and Steihaug, 1983), in units of its first size.
        relative = min(1.0, start.gradient_norm / first) if first > 0.0 else 1.0
        tol = max(self.tol * math.sqrt(relative), 1e-12)
        solution = self._solve(start, region, tol, self.hard_case)
        if self._looks() and math.isnan(solution.lowest_eigenvalue) and -solution.model_value <= self._rounding(start):
            # As far down as the gradient leads: this may be a saddle.
            solution = self._solve(start, region, tol, "always")
        tightened = self._tightened(start, region, solution.step_norm)
        still = solution.step_norm == 0.0
        found = None if self._kept is None else self._kept.space.lowest
        looked = found is not None and not math.isnan(solution.lowest_eigenvalue)
        unanswered = looked and not solution.hard_case and not found.converged[0]  # type: ignore[union-attr]
        message = ""
        if still and unanswered:
            message = "The gradient is zero: the parameters stay."
        elif still:
            message = "The gradient is zero and no negative curvature was looked for or found: the parameters stay."
        elif start.gradient_norm == 0.0:
            message = "The gradient is zero; the step follows negative curvature."
        elif rejections + 1 >= _MANY:
            message = (
                f"The {rejections} steps before this one were rejected. Where this goes on, the loss does not follow its gradient and "
                "curvature at any distance: it is at its rounding limit, or not smooth here, or random; ls.check_operator tells."
            )
        if unanswered:
            message += (
                f" The search for negative curvature ended after {self._search_limit} products without an answer; num_steps allows more."
            )
        return Proposal(
            solution.step,
            state={
                self._region: region, "rejections": 0, "first_gradient_norm": first if first > 0.0 else start.gradient_norm,
            },
            rejected_state={self._region: tightened, "rejections": rejections + 1, "first_gradient_norm": first},
            predicted_decrease=-solution.model_value,
            damping=solution.multiplier,
            loss_after=start.loss if still else None,
            refreshed=start.num_matvecs > 0,
            message=message.strip(),
            details={
                self._region: region, "krylov_steps": float(solution.num_steps), "residual": solution.residual_norm,
                "hard_case": float(solution.hard_case), "lowest_eigenvalue": solution.lowest_eigenvalue, "step_norm": solution.step_norm,
            },
        )  # fmt: skip

    @staticmethod
    def _rounding(start: Start) -> float:
        """Differences of the loss that mean nothing."""
        return 10 * float(np.finfo(start.backend.dtype_of(start.gradient)).eps) * abs(start.loss) + 1e-300

    def _judge(self, start: Start, proposal: Proposal, actual_decrease: float) -> tuple[bool, str]:
        length = proposal.details["step_norm"]
        if length == 0.0:
            self._kept = None
            return True, ""
        rounding = self._rounding(start)
        ratio = (actual_decrease + rounding) / (proposal.predicted_decrease + rounding)
        if not ratio >= self.accept:
            name = self._region
            return False, (
                f"The loss {'fell' if actual_decrease >= 0 else 'rose'} by {abs(actual_decrease):.3g} where the model promised a fall by "
                f"{proposal.predicted_decrease:.3g}; {name} changes "
                f"from {proposal.details[name]:.3g} to {proposal.rejected_state[name]:.3g}."
            )
        proposal.state[self._region] = self._loosened(start, proposal.details[self._region], ratio, length)
        self._kept = None
        return True, ""
