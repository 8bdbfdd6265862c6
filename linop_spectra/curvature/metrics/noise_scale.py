"""Gradient noise scale: the batch size at which noise and signal of the gradient are equal."""

from __future__ import annotations

import dataclasses
import math
import time

import numpy as np

from ...backends import Array
from ...estimators.sampling import mean_with_error
from ...krylov.lanczos import check_count
from ..objective import Objective
from .batches import BatchSet
from .influence import standard_error
from .metric import Metric
from .source import inner, require_objective


def gradient_noise_scale(obj: Objective) -> Metric:
    r"""Simple noise scale :math:`\mathrm{tr}\, \Sigma / |G|^2` (McCandlish et al., 2018); unit example.

    One gradient. The variance :math:`\Sigma` of one example from the scatter of the batches' gradients about their mean, and :math:`|G|^2`
    without the bias :math:`\mathrm{tr}\, \Sigma / N`: numerator and denominator each without bias, then divided. Pitfall: with few
    batches, or near a minimum where G vanishes, the ratio is anything; a :math:`|G|^2` that noise explains is refused.

    Parameters
    ----------
    obj : Objective
        With at least two batches, random parts of the data.

    Returns
    -------
    Metric
        With the standard error of a jackknife over batches, which is the sampling of the data already.

    Raises
    ------
    ValueError
        When there is one batch, or no gradient is left once the noise is taken off.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature import metrics
    >>> model = torch.nn.Linear(1, 1, bias=False).double()
    >>> with torch.no_grad():
    ...     _ = model.weight.copy_(torch.tensor([[4.0]]))
    >>> data = (torch.ones(2, 1).double(), torch.tensor([[1.0], [3.0]]).double())
    >>> round(metrics.gradient_noise_scale(ls.objective(model, "mse", data, batch_size=1)).value, 6)  # gradients 6 and 2: 8 / (16 - 4)
    0.666667
    """
    return noise_scale_of(BatchSet.of(require_objective(obj, "gradient noise scale"), "gradient noise scale"))


def noise_scale_of(batches: BatchSet) -> Metric:
    """`gradient_noise_scale` of batches that are there."""
    began = time.perf_counter()
    gram = gram_of(batches, batches.gradients)
    value, error, dof = _jackknife(gram, batches.sizes)
    return Metric(
        value,
        standard_error=error,
        degrees_of_freedom=dof,
        seconds=time.perf_counter() - began,
        method=f"{len(batches.parts)} batch gradients",
        name="gradient_noise_scale",
        unit="example",
        note="tr Sigma / |G|^2",
        least=0.0,
    )


def curvature_noise_scale(obj: Objective, *, num_probes: int = 4, seed: int = 0) -> Metric:
    r"""Noise scale in the metric of the Hessian, :math:`\mathrm{tr}(H \Sigma) / (G^\top H G)` (McCandlish et al., 2018); unit example.

    It is the one that says by how much a step with the best learning rate gains. One product along the gradient, and one for each random
    combination of the batches' gradients, whose covariance is that of one example. Both parts without bias, as in `gradient_noise_scale`;
    the standard error is by the batches, which is the sampling of the data already.

    Parameters
    ----------
    obj : Objective
        With at least two batches.
    num_probes : int
        Random combinations; from one less than the batches on, orthogonal ones, which is exact.
    seed : int
        Of the combinations.

    Raises
    ------
    ValueError
        When there is one batch, or the curvature along the gradient is not positive once the noise is taken off.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature import metrics
    >>> model = torch.nn.Linear(1, 1, bias=False).double()
    >>> with torch.no_grad():
    ...     _ = model.weight.copy_(torch.tensor([[4.0]]))
    >>> data = (torch.ones(2, 1).double(), torch.tensor([[1.0], [3.0]]).double())
    >>> round(metrics.curvature_noise_scale(ls.objective(model, "mse", data, batch_size=1)).value, 6)
    0.666667
    """
    began = time.perf_counter()
    objective = require_objective(obj, "gradient noise scale")
    batches = BatchSet.of(objective, "gradient noise scale")
    probes, count = check_count("num_probes", num_probes), len(batches.parts)
    backend, operator = objective.functions.backend, dataclasses.replace(objective, weight_decay=0.0).hessian()
    weights = batches.sizes / batches.sizes.sum()
    gradients = batches.gradients
    mean = _combine(weights, gradients)
    bent = operator.matvec(mean)
    signal = inner(objective, mean, bent)
    turns = 2 * np.array([inner(objective, bent, own) for own in gradients])
    signal_error = standard_error(weights, turns)
    exact = probes >= count - 1
    # Gradients of batches about their mean: sqrt(n_b) (g_b - mean) has rank K - 1.
    contrasts = np.sqrt(batches.sizes)[:, None] * (np.eye(count) - weights[None, :])
    if exact:
        basis = np.linalg.svd(np.eye(count) - np.sqrt(np.outer(weights, weights)))[0][:, : count - 1]
        mixes = basis.T @ contrasts
    else:
        mixes = np.random.default_rng(seed).choice([-1.0, 1.0], (probes, count)) @ contrasts
    forms = []
    for mix in mixes:
        y = _combine(mix / math.sqrt(count - 1), gradients)
        forms.append(inner(objective, y, operator.matvec(backend.contiguous(y))))
    values = np.array(forms)
    if exact:
        # Orthogonal combinations of batches vary as the batches do.
        noise, error = math.fsum(values), float(np.std(values, ddof=1) * math.sqrt(count - 1)) if count > 2 else math.inf
    else:
        # Of what other batches would change only an upper bound is known: that of noise in a single direction.
        noise, over_probes, _ = mean_with_error(values)
        error = math.hypot(over_probes, noise * math.sqrt(2 / (count - 1)))
    clean = signal - noise / float(batches.sizes.sum())
    if not clean > 0:
        raise ValueError(
            f"The curvature along the gradient, {signal:.4g}, is no larger than what the noise explains ({signal - clean:.4g}), so "
            "that the noise scale "
            "is not defined; use more data, or another matrix."
        )
    slope = 1 / clean + noise / (clean**2 * float(batches.sizes.sum()))
    return Metric(
        noise / clean,
        standard_error=math.hypot(slope * error, noise / clean**2 * signal_error),
        degrees_of_freedom=float(max(count - 1, 1)),
        num_matvecs=1 + len(mixes),
        seconds=time.perf_counter() - began,
        method="batch gradients",
        name="curvature_noise_scale",
        unit="example",
        note="tr(H Sigma) / G.H.G",
    )


def _combine(coefficients: np.ndarray, vectors: list[Array]) -> Array:
    total = float(coefficients[0]) * vectors[0]
    for factor, vector in zip(coefficients[1:], vectors[1:], strict=True):
        total = total + float(factor) * vector
    return total


def gram_of(batches: BatchSet, vectors: list[Array]) -> np.ndarray:
    """Inner products of the batches' gradients, shape (K, K)."""
    backend, count = batches.whole.functions.backend, len(vectors)
    pairs = [(i, j) for i in range(count) for j in range(i + 1)]
    flat = np.real(np.asarray(backend.fetch([backend.dot(vectors[i], vectors[j]) for i, j in pairs])))
    out = np.empty((count, count))
    for (i, j), value in zip(pairs, flat, strict=True):
        out[i, j] = out[j, i] = value
    return out


def signal_and_noise(gram: np.ndarray, sizes: np.ndarray) -> tuple[float, float]:
    """Squared mean gradient and variance of one example's gradient (its trace), both without bias, from inner products of batch gradients.

    Examples
    --------
    >>> signal_and_noise(np.outer([6.0, 2.0], [6.0, 2.0]), np.ones(2))  # mean 4, variance 8
    (12.0, 8.0)
    """
    weights = sizes / sizes.sum()
    squared = float(weights @ gram @ weights)
    scatter = float(sizes @ (np.diag(gram) - 2 * gram @ weights + squared))
    noise = max(scatter, 0.0) / (len(sizes) - 1)
    return squared - noise / float(sizes.sum()), noise


def _jackknife(gram: np.ndarray, sizes: np.ndarray) -> tuple[float, float, float]:
    signal, noise = signal_and_noise(gram, sizes)
    if not signal > 0:
        raise ValueError(
            f"The squared gradient is no larger than what its noise explains ({noise / float(sizes.sum()):.4g}), so that the noise "
            "scale is not defined: "
            "the parameters are at a minimum as far as these data show. Use more data."
        )
    value, count = noise / signal, len(sizes)
    if count < 3:
        return value, math.inf, 1.0
    without = []
    for index in range(count):
        kept = np.arange(count) != index
        own_signal, own_noise = signal_and_noise(gram[np.ix_(kept, kept)], sizes[kept])
        without.append((own_signal, own_noise))
    # Numerator and denominator are averaged on their own, and the error carried over to first order.
    parts = np.array(without)
    linear = parts[:, 1] / signal - noise / signal**2 * parts[:, 0]
    error = math.sqrt((count - 1) / count * float(((linear - linear.mean()) ** 2).sum()))
    return value, error, float(count - 1)
