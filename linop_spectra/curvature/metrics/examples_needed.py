"""How many examples are enough: the size of the data at which what other data would change is small."""

from __future__ import annotations

import math

from .metric import Metric
from .source import positive


def examples_needed(
    metric: Metric, relative_width: float = 0.1, *, level: float = 0.95, num_examples: float | None = None
) -> Metric:
    r"""Examples at which the sampling of the data alone leaves an interval of a relative half-width; unit example.

    The sampling error falls as one over the root of the examples, the bias as one over their number: with the half-width
    :math:`q s` and the bias b of N examples, the smallest N' with
    :math:`q s \sqrt{N / N'} + |b| N / N' \le w |T|` for the value T and the relative width w. No products. Pitfall: it holds for more data
    of the same kind at the same parameters; training on more of them changes these. For ratios on few data both are too small (see
    `linop_spectra.curvature.metrics.sums`): ask again with the data that it says.

    Parameters
    ----------
    metric : Metric
        Measured with ``sampling=True``.
    relative_width : float
        w, half of the interval over the modulus of the value.
    level : float
        Coverage of the interval.
    num_examples : float, optional
        N, where the metric does not say it.

    Returns
    -------
    Metric
        N', with the standard error that the few batches leave: ``sqrt(2 / (batches - 1))`` of it, as for every variance. It is below N
        where the data are more than enough.

    Raises
    ------
    ValueError
        When the metric holds no sampling error, its value is zero, or an argument is out of range.

    Examples
    --------
    >>> from linop_spectra.curvature import metrics
    >>> found = metrics.Metric(2.0, sampling_error=0.1, num_examples=1000.0)
    >>> round(metrics.examples_needed(found, 0.01).value)  # 1.96 * 0.1 is to become 0.02
    96036
    """
    relative_width = positive("relative_width", relative_width)
    if not 0 < level < 1:
        raise ValueError(f"The argument level must lie strictly between 0 and 1, but is {level!r}; for 95 % pass 0.95.")
    total = metric.num_examples if num_examples is None else positive("num_examples", num_examples)
    if not total > 0:
        raise ValueError(
            f"The metric {metric.name!r} holds no sampling of the data, so that it does not say how many examples are enough; measure it "
            "with sampling=True."
        )
    if metric.value == 0 or not math.isfinite(metric.value):
        raise ValueError(f"The metric {metric.name!r} is {metric.value}, so that no width is relative to it.")
    from scipy import stats

    aim = relative_width * abs(metric.value)
    half = float(stats.t.ppf(0.5 + level / 2, metric.sampling_degrees)) * metric.sampling_error
    bias = abs(metric.bias)
    # bias y^2 + half y = aim for y = sqrt(N / N'), in the form without cancellation.
    root = math.sqrt(half**2 + 4 * bias * aim)
    needed = total * ((half + root) / (2 * aim)) ** 2
    degrees = metric.sampling_degrees
    # Only the part by the standard error, whose square is estimated from the batches, is uncertain.
    uncertain = 2 * half / (half + root) if half > 0 else 0.0
    return Metric(
        needed, standard_error=needed * uncertain * math.sqrt(2 / degrees), degrees_of_freedom=degrees, name=f"examples for {metric.name}",
        unit="example", note=f"sampling of the data within {relative_width:.3g} of the value, at the level {level:g}", least=0.0,
        method="one over the root of the examples",
    )  # fmt: skip
