"""When a run may stop: a tolerance for the Wasserstein distance or for a trace, and what is still missing to it."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from .density import BOUND_CONFIDENCE, SpectralDensity

Target = Literal["wasserstein", "trace"] | Callable[[np.ndarray], np.ndarray]
_LEAST_SHARE = 0.1
"""Where probes alone cannot reach a tolerance, steps go on until they make up less than this share of it."""


@dataclasses.dataclass(frozen=True)
class Gap:
    """How far a result is from its goal.

    Attributes
    ----------
    allowed : float
        Largest error that meets the goal.
    steps : float
        Part of the error that more steps reduce, and rounding.
    probes : float
        Part that falls with the root of the number of probes.
    """

    allowed: float
    steps: float
    probes: float

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        return self.steps + self.probes <= self.allowed

    def needs_steps(self, num_probes: int, most_probes: int) -> bool:
        """Whether more steps are called for, given that there may be as many as `most_probes` probes."""
        least = self.probes * math.sqrt(num_probes / most_probes)
        return self.steps > max(min(self.allowed / 2, self.allowed - least), _LEAST_SHARE * self.allowed)

    def needed_probes(self, num_probes: int) -> float:
        """About how many probes would do with these steps; infinite where none would."""
        room = self.allowed - self.steps
        return math.ceil(1.05 * num_probes * (self.probes / room) ** 2) if room > 0 else math.inf


@dataclasses.dataclass(frozen=True)
class Goal:
    """A tolerance and what it is for."""

    tol: float
    target: Target

    @classmethod
    def of(cls, tol: Any, target: Any) -> Goal | None:
        """The goal of two arguments; None without a tolerance.

        Raises
        ------
        ValueError
            When the tolerance is not positive, or the target unknown.
        """
        if target not in ("wasserstein", "trace") and not callable(target):
            raise ValueError(f"The argument target must be 'wasserstein', 'trace' or a function of an array, but is {target!r}.")
        if tol is None:
            if target != "wasserstein":
                raise ValueError("The argument target says what the argument tol is for; pass tol as well.")
            return None
        if isinstance(tol, bool) or not isinstance(tol, numbers.Real) or not 0 < float(tol) < math.inf:
            raise ValueError(f"The argument tol must be positive, but is {tol!r}.")
        return cls(float(tol), target)

    def gap(self, S: SpectralDensity) -> Gap:
        """What is missing."""
        if self.target == "wasserstein":
            (low, _), (high, _) = S.extreme_eigenvalues()
            # A multiple of the identity has no width but rounding.
            width = high - low if high - low > S.noise_floor else S.norm_estimate
            return Gap(self.tol * width, *S._wasserstein_parts)
        trace = S.trace(None if self.target == "trace" else self.target)
        low, high = trace.confidence_interval(BOUND_CONFIDENCE)
        fixed = trace.quadrature_error + trace.rounding_error
        return Gap(self.tol * abs(trace.value), fixed, (high - low) / 2 - fixed)

    def describe(self, S: SpectralDensity) -> str:
        """Why the goal was not reached, in a sentence for the notes."""
        gap = self.gap(S)
        error = gap.steps + gap.probes
        size = gap.allowed / self.tol
        quantity = "Wasserstein bound" if self.target == "wasserstein" else "half-width of the 95 % interval of the trace"
        unit = "of the width of the spectrum" if self.target == "wasserstein" else "of its value"
        reached = f"{error / size:.2g} {unit}" if size > 0 else f"{error:.2g}"
        needed = gap.needed_probes(S.num_probes)
        advice = "more steps are needed" if not math.isfinite(needed) else f"about {needed:,} probes would do"
        return f"the tolerance {self.tol:g} was not met: the {quantity} is {reached}; {advice}"
