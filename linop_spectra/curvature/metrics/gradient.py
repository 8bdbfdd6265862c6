"""The gradient against the curvature: overlaps with eigenspaces, alignment, curvature along it.

A Lanczos run that is started at the gradient has all of them: its spectral measure holds, at each eigenvalue, the squared cosine of the
gradient with the eigenspace. No eigenvector is needed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...krylov import LanczosResult
from ...spectra.quadrature import mass_bracket
from .extremes import extreme_of_runs
from .influence import BatchInfluence, Effect
from .metric import CURVATURE, Metric, ratio_metric
from .shared_run import SharedRun, run_of
from .source import require_objective


def gradient_overlap(source: Any, *, num_directions: int | None = None, sampling: bool = False, **options: Any) -> Metric:
    r"""Share of the squared gradient in the span of the eigenvectors of the largest eigenvalues, :math:`|U_k^\top g|^2 / |g|^2`; no unit.

    One Lanczos run that is started at the gradient and one at a probe (which counts the eigenvalues), in lockstep. Gur-Ari, Roberts and
    Dyer (2018). Null value: k/P. Pitfalls: with C classes there are C - 1 outliers in the model of independent logits, not C; the
    gradient of one batch overlaps otherwise than that of all data.

    Parameters
    ----------
    source : Objective or SharedRun
        Of the Hessian.
    num_directions : int, optional
        k; by default the number of outliers above the bulk, at least one.
    sampling : bool
        Whether the interval also holds the sampling of the data, from the turning of gradient and eigenspace: a product for each Ritz value
        above the gap beyond those that every `SharedRun.influence` takes.
    **options
        Of `SharedRun.of`: ``num_steps``, ``num_probes``, ``seed``, ...

    Returns
    -------
    Metric
        The middle of a rigorous bracket of the gradient's mass above the middle of the gap below eigenvalue k.

    Raises
    ------
    ValueError
        When the gradient is zero, or there are fewer Ritz values than directions.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature import metrics
    >>> model = torch.nn.Linear(3, 1, bias=False).double()
    >>> with torch.no_grad():
    ...     _ = model.weight.copy_(torch.tensor([[1.0, 1.0, 0.0]]))
    >>> inputs = torch.diag(torch.tensor([3.0, 1.0, 1.0], dtype=torch.float64))
    >>> objective = ls.objective(model, "mse", (inputs, torch.zeros(3, 1, dtype=torch.float64)))
    >>> round(metrics.gradient_overlap(objective, num_directions=1).value, 6)  # the gradient is (9, 1, 0) * 2/3
    0.987805
    """
    shared, along = _runs(source, options)
    S = shared.density
    count, place = _place(shared, num_directions)
    if place == -math.inf:
        low = high = 1.0
        note = "all directions"
    else:
        below = mass_bracket(*along.jacobi(0), place)
        low, high = 1 - below[1], 1 - below[0]
        rough = "" if S.deflation.sharp[0][-count:].all() else "; not all of them have converged"
        note = f"{count} largest eigenvalues, above {place:.4g}; null {count / S.dimension:.3g}{rough}"
    found = Metric(
        (low + high) / 2,
        quadrature_error=(high - low) / 2,
        num_matvecs=shared.num_matvecs,
        seconds=shared.seconds,
        method="Gauss-Radau bracket",
        converged=S.converged,
        name="gradient_overlap",
        note=note,
        least=0.0,
        most=1.0,
    )
    return shared.influence.carry(found, effect_of_overlap(shared.influence, num_directions)) if sampling else found


def _place(shared: SharedRun, num_directions: int | None) -> tuple[int, float]:
    """How many of the largest eigenvalues count, and the middle of the gap below them; minus infinity below all."""
    S = shared.density
    if num_directions is None:
        above = S.bulk_edges()[1]
        count = max(1, sum(1 for outlier in S.outliers() if outlier.value > above))
    else:
        count = num_directions
        if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
            raise ValueError(f"The argument num_directions must be a whole number of at least 1, but is {num_directions!r}.")
    rule = S.deflation.rules[0]
    if count < len(rule.nodes):
        return count, float((rule.nodes[-count] + rule.nodes[-count - 1]) / 2)
    if count < S.dimension or not rule.exact:
        raise ValueError(
            f"The argument num_directions is {count}, but the run has only {len(rule.nodes)} Ritz values; take more num_steps."
        )
    return count, -math.inf


def effect_of_overlap(data: BatchInfluence, num_directions: int | None = None) -> Effect:
    """Effect of the choice of the data on `gradient_overlap`."""
    return data.gradient_overlap(_place(data.shared, num_directions)[1])


def gradient_curvature(source: Any, *, sampling: bool = False, **options: Any) -> Metric:
    """Curvature along the gradient, ``g.H.g / |g|^2``; unit loss/parameter^2; one product.

    Two over it is where the loss along the gradient is back at its value, to second order; one over it is the Cauchy step. Pitfall: that of
    a batch, with the batch's own gradient and Hessian, is larger (the batch sharpness of stochastic gradient descent).

    Parameters
    ----------
    source : Objective or SharedRun
        Of the Hessian.
    sampling : bool
        Whether the interval also holds the sampling of the data.
    **options
        Of `SharedRun.of`.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature import metrics
    >>> objective = ls.objective(torch.nn.Linear(2, 1, bias=False).double(), "mse", (torch.eye(2).double(), torch.ones(2, 1).double()))
    >>> round(metrics.gradient_curvature(objective).value, 8)
    1.0
    """
    shared, along = _runs(source, options)
    alphas, _ = along.jacobi(0)
    found = Metric(
        float(alphas[0]), rounding_error=shared.density.noise_floor, num_matvecs=shared.num_matvecs, seconds=shared.seconds,
        method="Lanczos from the gradient", name="gradient_curvature", unit=CURVATURE, note="g.H.g / |g|^2",
    )  # fmt: skip
    return shared.influence.carry(found, shared.influence.gradient_curvature()) if sampling else found


def gradient_alignment(source: Any, *, sampling: bool = False, **options: Any) -> Metric:
    """Curvature along the gradient over the largest eigenvalue, ``g.H.g / (|g|^2 lambda_1)``; no unit; one Lanczos run.

    One where the gradient is an eigenvector of the largest eigenvalue. Null value: the mean eigenvalue over the largest one.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature import metrics
    >>> objective = ls.objective(torch.nn.Linear(2, 1, bias=False).double(), "mse", (torch.eye(2).double(), torch.ones(2, 1).double()))
    >>> round(metrics.gradient_alignment(objective).value, 8)
    1.0
    """
    shared, along = _runs(source, options)
    S = shared.density
    top = extreme_of_runs([S.run], S.noise_floor, upper=True, others=[along])
    found = ratio_metric(
        gradient_curvature(shared), top, name="gradient_alignment", note="g.H.g / (|g|^2 largest eigenvalue)", most=1.0,
        num_matvecs=shared.num_matvecs, seconds=shared.seconds,
    )  # fmt: skip
    return shared.influence.carry(found, effect_of_alignment(shared.influence)) if sampling else found


def effect_of_alignment(data: BatchInfluence) -> Effect:
    """Effect of the choice of the data on `gradient_alignment`."""
    along = data.shared.along_gradient
    assert along is not None
    values = [float(along.alphas[0, 0]), float(data.shared.density.extreme_eigenvalues()[1][0])]
    return data.through(values, [data.gradient_curvature(), data.end(upper=True)], lambda v: [1 / v[1], -v[0] / v[1] ** 2])


def gradient_cosine(source: Any, *, sampling: bool = False, **options: Any) -> Metric:
    """Cosine of the gradient with its product with the Hessian, ``cos(g, H g)``; no unit; one product.

    One where the gradient is an eigenvector.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature import metrics
    >>> objective = ls.objective(torch.nn.Linear(2, 1, bias=False).double(), "mse", (torch.eye(2).double(), torch.ones(2, 1).double()))
    >>> round(metrics.gradient_cosine(objective).value, 8)
    1.0
    """
    shared, along = _runs(source, options)
    alphas, betas = along.jacobi(0)
    length = math.hypot(float(alphas[0]), float(betas[0]))
    if not length > shared.density.noise_floor:
        raise ValueError("The product of the Hessian with the gradient is zero up to rounding; its direction is not defined.")
    found = Metric(
        float(alphas[0]) / length,
        rounding_error=2 * shared.density.noise_floor / length,
        num_matvecs=shared.num_matvecs,
        seconds=shared.seconds,
        method="Lanczos from the gradient",
        name="gradient_cosine",
        note="cos(g, H g)",
        least=-1.0,
        most=1.0,
    )
    return shared.influence.carry(found, effect_of_cosine(shared.influence)) if sampling else found


def effect_of_cosine(data: BatchInfluence) -> Effect:
    """Effect of the choice of the data on `gradient_cosine`."""
    along = data.shared.along_gradient
    assert along is not None
    values = [float(along.alphas[0, 0]), math.hypot(float(along.alphas[0, 0]), float(along.betas[0, 0]))]
    effects = [data.gradient_curvature(), data.gradient_product()]
    return data.through(values, effects, lambda v: [1 / v[1], -v[0] / v[1] ** 2])


def _runs(source: Any, options: dict[str, Any]) -> tuple[SharedRun, LanczosResult]:
    if isinstance(source, SharedRun):
        if options:
            raise TypeError(f"A shared run has no use for the options {', '.join(sorted(options))}; pass the objective with them.")
        shared = source
    else:
        shared = run_of(require_objective(source, "gradient's curvature"), options)
    if shared.along_gradient is None:
        raise ValueError("The gradient is exactly zero, so that it has no direction to compare with the curvature.")
    return shared, shared.along_gradient
