"""One row of a critique: a property of a matrix beside that of an approximation, with a verdict."""

from __future__ import annotations

import builtins
import dataclasses
import math
from typing import Literal

from ..results import Estimate

Verdict = Literal["ok", "biased", "meaningless", "unresolved"]
TOLERANCES = 0.1, 0.5
"""Relative errors up to which an approximation is "ok", and beyond which it is "meaningless"."""


@dataclasses.dataclass(frozen=True)
class CritiqueRow:
    """A property of a matrix and of an approximation.

    Attributes
    ----------
    property : str
        What is compared.
    name : str
        Of the approximation.
    truth : Estimate
        Of the matrix.
    estimate : Estimate
        Of the approximation; its errors are zero where it is in closed form.
    relative_error : float
        Distance of the two over the modulus of the truth, unless `note` says over what.
    verdict : {"ok", "biased", "meaningless", "unresolved"}
        By the relative error: up to the first tolerance, certainly beyond the first, certainly beyond the second; unresolved where the
        intervals are too wide to tell.
    null : float or None
        What the same kind of approximation would show if the eigenvectors were random; None where that is not known.
    note : str
        What a reader should know.
    """

    property: str
    name: str
    truth: Estimate
    estimate: Estimate
    relative_error: float
    verdict: Verdict
    null: float | None = None
    note: str = ""

    @builtins.property
    def approximation(self) -> float:
        """Value of the approximation."""
        return self.estimate.value


def half_width(estimate: Estimate) -> float:
    """Half of the 95 % interval."""
    low, high = estimate.confidence_interval(0.95)
    return (high - low) / 2


def judge(error: float, uncertainty: float, tolerances: tuple[float, float] = TOLERANCES) -> Verdict:
    """Verdict on a relative error that is known up to an uncertainty.

    Examples
    --------
    >>> judge(0.02, 0.01), judge(0.3, 0.05), judge(2.0, 0.5), judge(0.3, 0.4), judge(0.8, 0.2)
    ('ok', 'biased', 'meaningless', 'unresolved', 'meaningless')
    """
    good, bad = tolerances
    if math.isnan(error) or error == math.inf:
        return "meaningless"
    low, high = error - uncertainty, error + uncertainty
    if low > bad:
        return "meaningless"
    if high <= good:
        return "ok"
    if low > good:
        return "biased"
    if uncertainty <= good:  # on the border, but known well enough
        return "ok" if error <= good else "biased" if error <= bad else "meaningless"
    return "unresolved"


def compared(
    name: str, property: str, truth: Estimate, estimate: Estimate, *, scale: float | None = None, null: float | None = None, note: str = "",
    tolerances: tuple[float, float] = TOLERANCES, one_sided: bool = False,
) -> CritiqueRow:  # fmt: skip
    """A row whose error is the distance of two numbers over `scale`, by default the modulus of the truth.

    With `one_sided` only what the approximation falls short counts.
    """
    size = abs(truth.value) if scale is None else scale
    gap = truth.value - estimate.value if one_sided else abs(estimate.value - truth.value)
    gap = max(gap, 0.0) if not math.isnan(gap) else math.nan
    spread = half_width(truth) + half_width(estimate)
    if size > 0:
        error, uncertainty = gap / size, spread / size
    else:
        error, uncertainty = (0.0, 0.0) if gap <= spread else (gap if math.isnan(gap) else math.inf, 0.0)
    return CritiqueRow(property, name, truth, estimate, error, judge(error, uncertainty, tolerances), null, note)
