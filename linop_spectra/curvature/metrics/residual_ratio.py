"""How much of the Hessian the Gauss-Newton matrix leaves out."""

from __future__ import annotations

import functools
import math
import time

import numpy as np

from ...estimators.sampling import multiply, random_rows, unit_rows
from ...krylov.lanczos import check_count
from ..objective import Objective
from .metric import Metric
from .resampling import resampled
from .source import require_objective


def residual_ratio(obj: Objective, *, num_probes: int = 8, seed: int = 0, sampling: bool = False) -> Metric:
    r"""Relative size :math:`|H - G|_F / |H|_F` of what the Gauss-Newton matrix leaves of the Hessian; no unit.

    Two products for each probe, the same probes for both norms, so that what they share cancels in the ratio. Zero for models that are
    linear in their parameters; small where the loss is small, large before training (0.7 to 0.1 in small classifiers, Fort and Ganguli,
    2019).

    Parameters
    ----------
    obj : Objective
        With a loss that says what the outputs are.
    num_probes : int
        Random signs; from the number of parameters on, unit vectors, which is exact.
    seed : int
        Of the signs.
    sampling : bool
        Whether the interval also holds the sampling of the data, by leaving out groups of batches, at most ten: nine times the products on
        top. Noise of the data adds to both norms, so that the ratio has a bias.

    Raises
    ------
    TypeError
        When the loss has no Gauss-Newton matrix.
    ValueError
        When the Hessian is zero.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature import metrics
    >>> objective = ls.objective(torch.nn.Linear(3, 2), "cross_entropy", (torch.randn(8, 3), torch.randint(0, 2, (8,))))
    >>> metrics.residual_ratio(objective).value < 1e-6
    True
    """
    began, objective = time.perf_counter(), require_objective(obj, "residual ratio")
    if sampling:
        return resampled(objective, functools.partial(residual_ratio, num_probes=num_probes, seed=seed), "residual ratio")
    n, count = objective.num_parameters, check_count("num_probes", num_probes)
    exact = count >= n
    count = n if exact else count
    residual, hessian = objective.residual(), objective.hessian()
    indices = range(count)
    squares = []
    for operator in (residual, hessian):
        own = []
        for start in range(0, count, 8):
            block = indices[start : start + 8]
            rows = unit_rows(operator, block) if exact else random_rows(operator, block, "sign", seed, "frobenius")
            own.append(multiply(operator, rows, start)[1] ** 2)
        squares.append(np.concatenate(own))
    above, below = (float(one.mean()) for one in squares)
    if not below > 0:
        raise ValueError("The Hessian is zero, so that no share of it is defined.")
    value, error, dof = math.sqrt(above / below), 0.0, math.inf
    if not exact:
        # Delta method on the ratio of two means over the same probes.
        linear = squares[0] / below - above / below**2 * squares[1]
        error = (
            float(np.std(linear, ddof=1) / math.sqrt(count)) / (2 * value) if count > 1 and value > 0 else (0.0 if value == 0 else math.inf)
        )
        dof = float(max(count - 1, 1))
    return Metric(
        value,
        standard_error=error,
        degrees_of_freedom=dof,
        rounding_error=8 * hessian.unit_rounding,
        num_matvecs=2 * count,
        seconds=time.perf_counter() - began,
        method="exact" if exact else "random signs",
        name="residual_ratio",
        note="|H - G|_F / |H|_F",
        least=0.0,
    )
