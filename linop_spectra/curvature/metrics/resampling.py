r"""Sampling errors of any metric, by measuring it again without a group of the batches: the jackknife.

For metrics that have no influence function in closed form, or none as cheap. With :math:`T_{-b}` the metric without group b, whose share of
the data is :math:`w_b`, the influence of the group is :math:`I_b = (1 / w_b - 1)(\bar T - T_{-b})` with the mean that makes
:math:`\sum_b w_b I_b = 0`, and from there on everything is as in `influence`; the bias is :math:`\sum_b (1 - w_b) (T_{-b} - T)` (Busing,
Meijer and van der Leeden, Stat. Comput. 9, 1999). For a metric that is itself a mean over the data, the group alone shows its influence at
a fraction of the cost. All measurements have the same seeds, so that random probes and directions cancel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from ..objective import Objective
from .batches import BatchSet
from .influence import standard_error
from .metric import Metric

GROUPS = 10
"""Groups that batches are put into, at most."""


def resampled(
    objective: Objective, measure: Callable[[Objective], Metric], what: str, *, mean: bool = False, smooth: bool = True
) -> Metric:
    """A metric with the sampling of the data in its interval.

    Parameters
    ----------
    objective : Objective
        With at least two batches, random parts of the data.
    measure : callable
        The metric of an objective; it has to give the same for the same data.
    what : str
        What is measured, for messages.
    smooth : bool
        Whether the metric has derivatives by the data; of one that jumps, such as a count, the jackknife shows no bias.
    mean : bool
        Whether the metric is a mean over the data, so that those of the groups add up to it. It costs one more measurement; else as
        many as there are groups, less one.

    Returns
    -------
    Metric
        ``num_matvecs`` counts all measurements.

    Raises
    ------
    ValueError
        When there is only one batch, the loss is a sum over the data, or the metric is not defined without one of the groups.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature import metrics
    >>> from linop_spectra.curvature.metrics.resampling import resampled
    >>> data = (torch.tensor([[1.0], [2.0], [3.0]]).double(), torch.zeros(3, 1).double())
    >>> objective = ls.objective(torch.nn.Linear(1, 1, bias=False).double(), "mse", data, batch_size=1)
    >>> found = resampled(objective, metrics.trace, "trace")  # 2 x^2 = 2, 8, 18 with the mean 28 / 3
    >>> round(found.sampling_error, 6), round(8.082904 / 3**0.5, 6)
    (4.666667, 4.666667)
    """
    functions = objective.functions
    if not functions.averages:
        raise ValueError(
            f"The loss is a sum over the data, so that the sampling of the {what} by leaving out batches would mix size and choice; make "
            "the objective with a loss that is a mean."
        )
    batches = BatchSet.of(objective, f"sampling of the {what}")
    members, count = list(objective.batches()), min(len(batches.parts), GROUPS)
    group = np.arange(len(members)) % count
    weights = np.array([batches.sizes[group == g].sum() for g in range(count)]) / batches.sizes.sum()
    whole = measure(objective)
    values, spent = np.empty(count), float(whole.num_matvecs)
    for g in range(count):
        kept = [batch for batch, own in zip(members, group, strict=True) if (own == g) == mean]
        try:
            found = measure(dataclasses.replace(objective, data=functions.sequence(kept)))
        except ValueError as error:
            raise ValueError(
                f"The sampling of the {what} is not known, because it is not defined {'on' if mean else 'without'} one of {count} "
                f"groups of the batches: {error}"
            ) from error
        values[g] = found.value
        spent += found.num_matvecs * (weights[g] if mean else 1 - weights[g])
    centre = float((1 - weights) @ values) / (count - 1)
    influence = values if mean else (1 / weights - 1) * (centre - values)
    bias = 0.0 if mean or not smooth else float((1 - weights) @ (values - whole.value))
    return whole.with_changes(
        sampling_error=standard_error(weights, influence), sampling_degrees=float(count - 1), bias=bias,
        num_examples=float(batches.examples.sum()), num_matvecs=round(spent),
    )  # fmt: skip
