"""Sums over the spectrum, and functions of a few of them with errors to first order."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ... import estimators
from ...results import Estimate
from ...spectra.density import SpectralMeasure
from .metric import CURVATURE, Metric
from .source import Source, density_of, operator_of, positive

Function = Callable[[np.ndarray], np.ndarray]


def trace(source: Source, **options: Any) -> Metric:
    """Trace of the Hessian; unit loss/parameter^2.

    From a density, without products: where outliers have converged it is far more precise than its probes alone. Else by
    `linop_spectra.trace`, 100 products by default. Pitfall: the relative deviation of a single probe is ``sqrt(2) |H|_F / |tr H|``, 45 %
    for ten equal outliers, and positive and negative parts cancel.

    Parameters
    ----------
    source : Objective, operator or SpectralDensity
        The Hessian of an objective is meant.
    **options
        Of `linop_spectra.trace`.

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.curvature import metrics
    >>> found = metrics.trace(np.diag([3.0, -1.0]))
    >>> round(found.value, 8), found.unit
    (2.0, 'loss/parameter^2')
    """
    return _of(source, options, "trace", CURVATURE, "sum of the eigenvalues", estimators.trace, lambda S: S.trace())


def frobenius_norm(source: Source, **options: Any) -> Metric:
    """Frobenius norm of the Hessian, the root of the sum of its squared eigenvalues; unit loss/parameter^2.

    From a density without products, else by `linop_spectra.frobenius_norm`. Pitfall: that of a batch is larger, its square by
    ``P V_z`` (see `hessian_variance`).

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.curvature import metrics
    >>> round(metrics.frobenius_norm(np.diag([3.0, -4.0])).value, 8)
    5.0
    """
    return _of(
        source, options, "frobenius_norm", CURVATURE, "root of the sum of squared eigenvalues", estimators.frobenius_norm,
        lambda S: of_sums(S, [np.square], lambda s: float(np.sqrt(s[0])), lambda s: [0.5 / np.sqrt(s[0])]), least=0.0,
    )  # fmt: skip


def nuclear_norm(source: Source, **options: Any) -> Metric:
    """Nuclear norm of the Hessian, the sum of the moduli of its eigenvalues; unit loss/parameter^2.

    One density. Pitfall: the modulus has a kink at zero, where the bulk is: the quadrature error falls only as one over the steps.

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.curvature import metrics
    >>> round(metrics.nuclear_norm(np.diag([3.0, -4.0])).value, 8)
    7.0
    """
    return _of(
        source, options, "nuclear_norm", CURVATURE, "sum of |eigenvalues|", estimators.nuclear_norm, lambda S: S.trace(np.abs), least=0.0
    )


def logdet(source: Source, *, damping: float, **options: Any) -> Metric:
    """Logarithm of the determinant of ``H + damping I``; no unit, but it depends on that of the loss.

    One density. Pitfall: not defined for an indefinite H whose smallest eigenvalue is below minus the damping, which is refused.

    Parameters
    ----------
    source : Objective, operator or SpectralDensity
        The Hessian of an objective is meant.
    damping : float
        Positive, in the unit of the eigenvalues.
    **options
        Of `linop_spectra.logdet`.

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.curvature import metrics
    >>> round(metrics.logdet(np.diag([1.0, 3.0]), damping=1.0).value, 6)  # log 2 + log 4
    2.079442
    """
    shift = positive("damping", damping)

    def from_density(S: SpectralMeasure) -> Estimate:
        if not float(S.nodes[0]) + shift > S.noise_floor:
            raise ValueError(
                f"The smallest Ritz value is {S.nodes[0]:.6g}, so that H + {shift:g} I is not positive definite and has no real "
                "log-determinant; raise damping."
            )
        return S.trace(lambda x: np.log(np.maximum(x + shift, np.finfo(np.float64).tiny)))

    note = f"log det(H + {shift:g} I)"
    return _of(source, options, "logdet", "1", note, lambda A, **more: estimators.logdet(A, shift=shift, **more), from_density)


def effective_dimension(source: Source, *, damping: float, **options: Any) -> Metric:
    """Effective dimension, the sum of ``lambda / (lambda + damping)`` over the positive eigenvalues; no unit.

    One density, from which every other damping is free. The parameters that the data determine against a prior of that precision (Gull,
    1989; MacKay, 1992). Pitfall: `damping` is in units of the mean loss; for a prior of precision a and a loss that is the mean over N
    terms it is a / N. Negative eigenvalues count nothing; use a Gauss-Newton matrix to have none.

    Parameters
    ----------
    source : Objective, operator or SpectralDensity
        The Hessian of an objective is meant.
    damping : float
        Positive.
    **options
        Of `linop_spectra.spectral_density`.

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.curvature import metrics
    >>> round(metrics.effective_dimension(np.diag([9.0, 1.0, 0.0]), damping=1.0).value, 8)
    1.4
    """
    damping = positive("damping", damping)
    S = density_of(source, options)
    note = f"sum of lambda / (lambda + {damping:g}) over lambda > 0"

    def share(x: np.ndarray) -> np.ndarray:
        above = np.maximum(x, 0.0)
        return np.asarray(above / (above + damping))

    return Metric.of(S.trace(share), name="effective_dimension", note=note, least=0.0, most=float(S.dimension))


def stable_rank(source: Source, **options: Any) -> Metric:
    """Stable rank ``|H|_F^2 / |H|_2^2``, between 1 and the rank; no unit, one density.

    Pitfall: it follows the largest eigenvalue; a single outlier makes it nearly one.

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.curvature import metrics
    >>> round(metrics.stable_rank(np.diag([2.0, -2.0, 1.0])).value, 8)
    2.25
    """
    found = _by_norm(source, options, "stable rank", lambda x: x**2, 2)
    return Metric.of(found, name="stable_rank", note="|H|_F^2 / |H|_2^2", least=0.0)


def intrinsic_dimension(source: Source, **options: Any) -> Metric:
    """Intrinsic dimension ``tr H / |H|_2`` of a positive semidefinite operator; no unit, one density.

    Pitfall: for an indefinite H the trace cancels, and it is no dimension (it may be negative).

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.curvature import metrics
    >>> round(metrics.intrinsic_dimension(np.diag([2.0, 1.0, 1.0])).value, 8)
    2.0
    """
    found = _by_norm(source, options, "intrinsic dimension", lambda x: x, 1)
    return Metric.of(found, name="intrinsic_dimension", note="trace / |H|_2")


def participation_ratio(source: Source, **options: Any) -> Metric:
    """Participation ratio ``(tr H)^2 / |H|_F^2``; no unit, one density.

    For r equal eigenvalues among zeros it is r. Twice its inverse is the relative variance of one random probe of the trace.
    Pitfall: for an indefinite H the trace cancels, and it counts nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.curvature import metrics
    >>> round(metrics.participation_ratio(np.diag([1.0, 2.0, 3.0])).value, 6)  # 36 / 14
    2.571429
    """
    S = density_of(source, options)
    _require_nonzero(S, "participation ratio")
    found = of_sums(S, [_itself, np.square], lambda s: s[0] ** 2 / s[1], lambda s: [2 * s[0] / s[1], -((s[0] / s[1]) ** 2)])
    return Metric.of(found, name="participation_ratio", note="trace^2 / |H|_F^2", least=0.0)


def spectral_entropy(source: Source, **options: Any) -> Metric:
    """Spectral entropy ``-sum p ln p`` with ``p = |lambda| / sum |lambda|``, in nats; one density.

    Pitfall: a bulk below the resolution of the run dominates it.

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.curvature import metrics
    >>> round(metrics.spectral_entropy(np.eye(10)).value, 6)  # log 10
    2.302585
    """
    S = density_of(source, options)
    _require_nonzero(S, "spectral entropy")
    scale = S.norm_estimate

    def surprise(x: np.ndarray) -> np.ndarray:
        a = np.abs(x) / scale
        return np.asarray(a * np.log(np.maximum(a, np.finfo(np.float64).tiny)))

    found = of_sums(
        S, [lambda x: np.abs(x) / scale, surprise], lambda s: float(np.log(s[0]) - s[1] / s[0]),
        lambda s: [(1 + s[1] / s[0]) / s[0], -1 / s[0]],
    )  # fmt: skip
    return Metric.of(found, name="spectral_entropy", unit="nat", note="-sum p ln p with p = |lambda| / sum |lambda|", least=0.0)


def effective_rank(source: Source, **options: Any) -> Metric:
    """Effective rank, the exponential of `spectral_entropy` (Roy and Vetterli, EUSIPCO 2007); no unit, one density.

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.curvature import metrics
    >>> round(metrics.effective_rank(np.eye(10)).value, 6)
    10.0
    """
    entropy = spectral_entropy(source, **options)
    value = float(np.exp(entropy.value))
    errors = {name: value * getattr(entropy, name) for name in ("standard_error", "quadrature_error", "rounding_error")}
    return dataclasses.replace(entropy, value=value, **errors, name="effective_rank", unit="1", note="exp(spectral entropy)", least=1.0)


def of_sums(
    S: SpectralMeasure,
    functions: Sequence[Function],
    combine: Callable[[Sequence[float]], float],
    gradient: Callable[[Sequence[float]], Sequence[float]],
) -> Estimate:
    """A function of sums over the spectrum, with the error of the one sum that it is to first order (delta method).

    The sums come from the same probes and are correlated; the sum over ``sum_k dh/ds_k f_k`` has the error of ``h(s_1, s_2, ...)``.

    Parameters
    ----------
    S : SpectralDensity
        The measure.
    functions : sequence of callable
        f_k of the eigenvalues.
    combine, gradient : callable
        h of the sums, and its partial derivatives.
    """
    found = [S.trace(f) for f in functions]
    sums = [one.value for one in found]
    slopes = gradient(sums)

    def linear(x: np.ndarray) -> np.ndarray:
        return np.asarray(sum(slope * f(x) for slope, f in zip(slopes, functions, strict=True)))

    total, value = S.trace(linear), combine(sums)
    bent = 0.0
    for k, (f, one) in enumerate(zip(functions, found, strict=True)):
        error = 3 * one.standard_error if math.isfinite(one.standard_error) else 0.0
        # Sums of squares and moduli stay positive.
        bent += _bend(combine, sums, k, min(error, 0.9 * sums[k]) if np.all(f(S.nodes) >= 0) else error)
    return dataclasses.replace(total, value=value, quadrature_error=total.quadrature_error + bent)


def _bend(combine: Callable[[Sequence[float]], float], sums: Sequence[float], index: int, error: float) -> float:
    """What the first order leaves out where one sum is off by `error`; matters only where the relative error is large."""
    shifted = [list(sums), list(sums)]
    for sign, one in zip((1.0, -1.0), shifted, strict=True):
        one[index] += sign * error
    return abs(combine(shifted[0]) + combine(shifted[1]) - 2 * combine(sums)) / 2 if error > 0 else 0.0


def _of(
    source: Source,
    options: dict[str, Any],
    name: str,
    unit: str,
    note: str,
    by_products: Callable[..., Estimate],
    by_density: Callable[[SpectralMeasure], Estimate],
    **more: Any,
) -> Metric:
    if isinstance(source, SpectralMeasure):
        found = by_density(density_of(source, options))
    else:
        found = by_products(operator_of(source), **options)
    return Metric.of(found, name=name, unit=unit, note=note, **more)


def _by_norm(source: Source, options: dict[str, Any], name: str, f: Function, power: int) -> Estimate:
    """The sum of ``f(lambda / norm)``, where a change of the norm counts with a power."""
    S = density_of(source, options)
    norm = _require_nonzero(S, name)
    total = S.trace(lambda x: f(x / norm))
    ends = [rule.residuals[i] for rule in S.deflation.rules for i in (0, -1) if abs(rule.nodes[i]) >= norm * (1 - 1e-12)]
    more = power * abs(total.value) * float(max(ends)) / norm
    return dataclasses.replace(total, quadrature_error=total.quadrature_error + more)


def _require_nonzero(S: SpectralMeasure, name: str) -> float:
    if not S.norm_estimate > 0:
        raise ValueError(f"The operator is zero, which has no {name}.")
    return S.norm_estimate


def _itself(x: np.ndarray) -> np.ndarray:
    return x
