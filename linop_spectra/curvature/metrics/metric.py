"""A metric: an estimate with its name, its unit, and what the data themselves leave open."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from ...results import Estimate, PathLike, register, save_result

CURVATURE = "loss/parameter^2"
"""Unit of an eigenvalue of a Hessian."""
RATIO = "1"
"""Unit of what has none."""


@register("metric")
@dataclasses.dataclass(frozen=True)
class Metric(Estimate):
    """An `Estimate` that says what it is.

    Attributes
    ----------
    name : str
        What it is called in a report.
    unit : str
        ``"loss"``, ``"loss/parameter^2"``, ``"parameter"``, ..., or ``"1"`` for a ratio.
    note : str
        The definition where there is a choice, and the null value where there is one.
    least, most : float
        Range that the quantity cannot leave; the interval is cut there.
    sampling_error : float
        Standard error by the choice of the examples (same unit): what other data would have changed. Zero where that was not asked for.
    sampling_degrees : float
        Of Student's t distribution for that part.
    bias : float
        How much the value exceeds, on average, that of endless data, to first order; the interval reaches from the value to the
        value without it, and is widened on both sides. Zero where that was not asked for.
    num_examples : float
        Examples that the sampling error and the bias are for; zero where they were not asked for. See `examples_needed`.

    Examples
    --------
    >>> from linop_spectra.curvature.metrics import Metric
    >>> Metric(0.9, standard_error=0.1, name="share", most=1.0).confidence_interval(0.95)
    (0.70..., 1.0)
    """

    name: str = ""
    unit: str = RATIO
    note: str = ""
    least: float = -math.inf
    most: float = math.inf
    sampling_error: float = 0.0
    sampling_degrees: float = math.inf
    bias: float = 0.0
    num_examples: float = 0.0

    @classmethod
    def of(cls, estimate: Estimate, **changes: Any) -> Metric:
        """An estimate as a metric, with further attributes or other ones."""
        known = {field.name: getattr(estimate, field.name) for field in dataclasses.fields(estimate)}
        return cls(**{**known, **changes})

    def confidence_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Two-sided interval: probes and data added in squares, widened by quadrature, rounding and bias, inside of the range.

        Parameters
        ----------
        level : float
            Nominal coverage, between 0 and 1.

        Returns
        -------
        tuple of float
            Lower and upper end.
        """
        low, high = super().confidence_interval(level)
        if self.sampling_error > 0:
            from scipy import stats

            fixed = self.quadrature_error + self.rounding_error
            random = (high - low) / 2 - fixed
            data = float(stats.t.ppf(0.5 + level / 2, self.sampling_degrees)) * self.sampling_error
            half = math.hypot(random, data) + fixed
            low, high = self.value - half, self.value + half
        low, high = min(low, low - self.bias), max(high, high - self.bias)
        return max(low, self.least), min(high, self.most)

    @property
    def corrected(self) -> float:
        """The value without its bias, cut to the range: of endless data, to first order."""
        return min(max(self.value - self.bias, self.least), self.most)

    @property
    def sources(self) -> dict[str, float]:
        """Where the error comes from: random probes and data (one standard error each), quadrature, rounding, and the bias."""
        return {**super().sources, "data": self.sampling_error, "bias": abs(self.bias)}

    def scaled(self, factor: float) -> Metric:
        """The metric times a positive number, with all its errors and its bias; the range is left open."""
        names = ("value", "standard_error", "quadrature_error", "rounding_error", "sampling_error", "bias")
        return self.with_changes(**{name: factor * getattr(self, name) for name in names}, least=-math.inf, most=math.inf)

    def with_changes(self, **changes: Any) -> Metric:
        """The same metric with other attributes."""
        return dataclasses.replace(self, **changes)

    def to_json(self, level: float = 0.95) -> dict[str, Any]:
        """Value, interval, unit, products and note as plain objects; what is not finite is None."""
        low, high = self.confidence_interval(level)
        errors = {name: size for name, size in self.sources.items() if size != 0}
        return plain(
            {
                "value": self.value, "interval": [low, high], "level": level, "unit": self.unit, "products": self.num_matvecs,
                "note": self.note, "method": self.method, "errors": errors, "converged": self.converged,
            }
        )  # fmt: skip

    def save(self, path: PathLike) -> None:
        """Write the metric to `path`; `linop_spectra.load` reads it back."""
        save_result(path, "metric", dataclasses.asdict(self), {})

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> Metric:
        return cls(**scalars)


def plain(value: Any) -> Any:
    """A value for JSON: numbers that are not finite become None, arrays lists.

    Examples
    --------
    >>> plain({"a": [1.0, float("nan")], "b": np.arange(2)})
    {'a': [1.0, None], 'b': [0, 1]}
    """
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def ratio_metric(numerator: Estimate, denominator: Estimate, **changes: Any) -> Metric:
    """The ratio of two estimates with independent errors, to first order."""
    value = numerator.value / denominator.value
    relative = {
        name: (getattr(numerator, name) / abs(denominator.value), abs(value / denominator.value) * getattr(denominator, name))
        for name in ("standard_error", "quadrature_error", "rounding_error")
    }
    return Metric(
        value=value, standard_error=math.hypot(*relative["standard_error"]), quadrature_error=sum(relative["quadrature_error"]),
        rounding_error=sum(relative["rounding_error"]), num_matvecs=numerator.num_matvecs + denominator.num_matvecs,
        degrees_of_freedom=min(numerator.degrees_of_freedom, denominator.degrees_of_freedom),
        seconds=numerator.seconds + denominator.seconds, method=numerator.method,
        converged=numerator.converged and denominator.converged,
    ).with_changes(**changes)  # fmt: skip
