"""How negative a spectrum is: by mass, by energy, and by its ends."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...estimators import spectral_sums
from ...spectra import spectral_density
from ...spectra.density import SpectralMeasure
from ...spectra.quadrature import mass_bracket
from ..objective import Objective
from .extremes import extreme_of_runs
from .influence import BatchInfluence, Effect
from .metric import Metric, ratio_metric
from .resampling import resampled
from .shared_run import SharedRun, spectrum_of
from .source import Source, require_data
from .sums import of_spectrum


def negative_mass(source: Source, *, sampling: bool = False, **options: Any) -> Metric:
    """Share of negative eigenvalues, below minus the noise floor; no unit, one density.

    The middle of a rigorous bracket (Gauss-Radau), half of whose width is the quadrature error: wide where a bulk sits at zero. Pitfall:
    a density smoothed by Gaussians gives a positive semidefinite matrix 42 to 49 % of negative mass. A count has no derivative, so that
    its sampling error comes from leaving out groups of batches, at most ten: nine more densities. Its bias is not known: noise of the data
    spreads a bulk at zero to both sides.

    Parameters
    ----------
    source : Objective, SharedRun, operator or SpectralDensity
        The Hessian of an objective is meant.
    sampling : bool
        Whether the interval also holds the sampling of the data.
    **options
        Of `linop_spectra.spectral_density`.

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.curvature import metrics
    >>> metrics.negative_mass(np.diag(np.linspace(1.0, 2.0, 50))).value
    0.0
    """
    if sampling:
        if isinstance(source, SharedRun):
            return resampled_mass(source, source.objective)
        return resampled(require_data(source), lambda own: negative_mass(own.hessian(), **options), "negative mass", smooth=False)
    S, _ = spectrum_of(source, options, False)
    d, threshold = S.deflation, -S.noise_floor
    certain = int(np.sum(d.pinned < threshold))
    low, high = np.mean([_rest_below(S, probe, threshold) for probe in range(S.num_probes)], axis=0).tolist()
    share = d.rest_dimension / d.n
    middle = (low + high) / 2
    error = math.sqrt(2 * middle * (1 - middle) / (S.num_probes * (d.rest_dimension + 2))) if d.rest_dimension > 1 else 0.0
    return Metric(
        certain / d.n + share * middle, standard_error=share * error, quadrature_error=share * (high - low) / 2, num_matvecs=S.num_matvecs,
        seconds=S.seconds, method="Gauss-Radau bracket", converged=S.converged, name="negative_mass",
        note=f"share of eigenvalues below {threshold:.1e}", least=0.0, most=1.0,
    )  # fmt: skip


def resampled_mass(shared: SharedRun, objective: Objective) -> Metric:
    """`negative_mass` of a run that is there with the sampling of the data; `objective` is that of the run in at least two batches."""

    def measure(own: Objective) -> Metric:
        return negative_mass(shared.density if own is objective else spectral_density(getattr(own, shared.matrix)(), **shared.options))

    return resampled(objective, measure, "negative mass", smooth=False)


def _rest_below(S: SpectralMeasure, probe: int, z: float) -> tuple[float, float]:
    """Bracket of the share below z of what is not pinned, as one probe sees it."""
    d = S.deflation
    if not d.rest_dimension:
        return 0.0, 0.0
    rule, (_, pinned) = d.rules[probe], d.of_probe(probe)
    bracket = mass_bracket(*S.run.jacobi(probe), z)
    below, left = float(rule.weights[pinned & (rule.nodes < z)].sum()), 1 - float(rule.weights[pinned].sum())
    if not left > 0:
        return 0.0, 1.0
    ends = np.clip((np.array(bracket) - below) / left, 0.0, 1.0)
    return float(ends[0]), float(ends[1])


def negative_energy(source: Source, *, sampling: bool = False, **options: Any) -> Metric:
    """Share of negative eigenvalues in the sum of moduli, ``sum_{lambda < 0} |lambda| / sum |lambda|``; no unit, one density.

    Steadier than the mass, because eigenvalues of an uncertain sign are small.

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.curvature import metrics
    >>> round(metrics.negative_energy(np.diag([3.0, -1.0])).value, 8)
    0.25
    """
    return of_spectrum(
        source, options, sampling, spectral_sums.negative_energy, name="negative_energy", least=0.0, most=1.0,
        note="sum of |lambda| over lambda < 0, over the sum of |lambda|",
    )  # fmt: skip


def negative_ratio(source: Source, *, sampling: bool = False, **options: Any) -> Metric:
    """Modulus of the smallest eigenvalue over the largest one, zero where the smallest is positive; no unit, one Lanczos run.

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.curvature import metrics
    >>> round(metrics.negative_ratio(np.diag([4.0, -1.0, 0.0])).value, 8)
    0.25
    """
    S, data = spectrum_of(source, options, sampling)
    low, high = (extreme_of_runs([S.run], S.noise_floor, upper=upper) for upper in (False, True))
    found = ratio_of_ends(low, high)
    return found if data is None else data.carry(found, effect_of_ratio(data))


def effect_of_ratio(data: BatchInfluence) -> Effect:
    """Effect of the choice of the data on `negative_ratio`."""
    (low, _), (high, _) = data.shared.density.extreme_eigenvalues()
    ends = [data.end(upper=False), data.end(upper=True)]
    return data.through([low, high], ends, lambda v: [-1 / v[1], v[0] / v[1] ** 2] if v[0] < 0 else [0.0, 0.0])


def ratio_of_ends(smallest: Metric, largest: Metric) -> Metric:
    """`negative_ratio` from both ends.

    Raises
    ------
    ValueError
        When the largest eigenvalue is not positive.
    """
    if not largest.value > 0:
        raise ValueError(f"The largest eigenvalue is {largest.value:.6g}; the negative ratio needs a positive one.")
    down = Metric(
        max(-smallest.value, 0.0), quadrature_error=smallest.quadrature_error, rounding_error=smallest.rounding_error,
        num_matvecs=largest.num_matvecs, seconds=largest.seconds, method=largest.method, converged=smallest.converged,
    )  # fmt: skip
    return ratio_metric(
        down, largest, name="negative_ratio", note="max(-smallest, 0) / largest", least=0.0, num_matvecs=largest.num_matvecs,
        seconds=largest.seconds,
    )  # fmt: skip
