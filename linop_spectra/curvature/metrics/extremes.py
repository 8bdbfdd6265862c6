r"""Extreme eigenvalues with bounds for what a Lanczos run has not seen.

A Ritz value lies inside of the spectrum, so that the largest one is a lower bound of the largest eigenvalue. That nothing lies beyond
follows from the probe being random: its weight in the eigenspace of the largest eigenvalue exceeds a small number :math:`w` with a
probability that is known (a Beta law), while no measure with the moments of the run can hold a mass of :math:`w` at a place
:math:`x` where the Christoffel function :math:`1 / \sum_j p_j(x)^2` is smaller (Akhiezer, *The classical moment problem*, 1965). The
largest such place bounds the eigenvalue from above. The residual of a Ritz pair alone does not: it says that some eigenvalue is near.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import scipy

from ...krylov import LanczosResult
from ...spectra.quadrature import christoffel_mass
from .influence import BatchInfluence, Effect
from .metric import CURVATURE, Metric, ratio_metric
from .shared_run import spectrum_of
from .source import Source

FAILURE = 1e-4
"""Probability with which the probes miss an eigenvalue beyond the bound."""


def largest_eigenvalue(source: Source, *, sampling: bool = False, **options: Any) -> Metric:
    r"""Largest eigenvalue of a Hermitian operator; unit loss/parameter^2 for a Hessian.

    Costs one Lanczos run, of which the other end comes for free; nothing with a density. With ``sampling=True`` the run is that of
    `SharedRun.of`, and as many products are added as there are probes, plus three: the standard error is that of :math:`u^\top H_b u` over
    the batches, and ``.bias`` how far the noise of the data moves the eigenvalue away from the bulk, ``V_u / (lambda - bulk)``.

    Pitfall: that of a batch is larger than that of all data, see `hessian_variance`, and power iteration finds the largest modulus
    instead. A learning rate above 2 over it is unstable.

    Parameters
    ----------
    source : Objective, SharedRun, operator or SpectralDensity
        The Hessian of an objective is meant.
    sampling : bool
        Whether the interval also holds the sampling of the data.
    **options
        Of `linop_spectra.spectral_density`, for all but a density.

    Returns
    -------
    Metric
        The largest Ritz value, which is a lower bound. ``quadrature_error`` reaches up to where an eigenvalue would have been seen but for
        a probability of 1e-4 over the probes; it is used on both sides.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> from linop_spectra.curvature import metrics
    >>> found = metrics.largest_eigenvalue(np.diag(np.r_[np.linspace(-1.0, 1.0, 200), 3.0]))
    >>> round(found.value, 8), found.quadrature_error < 1e-6
    (3.0, True)
    """
    S, data = spectrum_of(source, options, sampling)
    found = extreme_of_runs([S.run], S.noise_floor, upper=True)
    return found if data is None else data.carry(found, data.end(upper=True))


def smallest_eigenvalue(source: Source, *, sampling: bool = False, **options: Any) -> Metric:
    """Smallest (most negative) eigenvalue of a Hermitian operator; as `largest_eigenvalue`, at the other end.

    Pitfall: at a minimum it is the bottom of a dense bulk around zero, where Lanczos converges slowly; the interval says how far.

    Parameters
    ----------
    source : Objective, SharedRun, operator or SpectralDensity
        The Hessian of an objective is meant.
    sampling : bool
        Whether the interval also holds the sampling of the data.
    **options
        Of `linop_spectra.spectral_density`.

    Returns
    -------
    Metric
        The smallest Ritz value, an upper bound, with how far below an eigenvalue could be hidden.

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.curvature import metrics
    >>> round(metrics.smallest_eigenvalue(np.diag(np.r_[np.linspace(-1.0, 1.0, 200), -2.0])).value, 8)
    -2.0
    """
    S, data = spectrum_of(source, options, sampling)
    found = extreme_of_runs([S.run], S.noise_floor, upper=False)
    return found if data is None else data.carry(found, data.end(upper=False))


def spectral_norm(source: Source, *, sampling: bool = False, **options: Any) -> Metric:
    """Spectral norm, the largest modulus of an eigenvalue; unit loss/parameter^2 for a Hessian.

    One Lanczos run; nothing with a density. Pitfall: of an indefinite Hessian it may belong to the negative end.

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.curvature import metrics
    >>> round(metrics.spectral_norm(np.diag([1.0, -3.0, 2.0])).value, 8)
    3.0
    """
    S, data = spectrum_of(source, options, sampling)
    low, high = (extreme_of_runs([S.run], S.noise_floor, upper=upper) for upper in (False, True))
    found = norm_from_ends(low, high)
    return found if data is None else data.carry(found, data.norm())


def norm_from_ends(smallest: Metric, largest: Metric) -> Metric:
    """The spectral norm from both ends."""
    end = largest if abs(largest.value) >= abs(smallest.value) else smallest
    other = smallest if end is largest else largest
    beyond = max(0.0, abs(other.value) + other.quadrature_error - abs(end.value))
    return dataclasses.replace(
        end,
        value=abs(end.value),
        quadrature_error=max(end.quadrature_error, beyond),
        name="spectral_norm",
        note="largest |eigenvalue|",
        least=0.0,
    )


def condition_number(source: Source, *, damping: float = 0.0, rank: int | None = None, sampling: bool = False, **options: Any) -> Metric:
    r"""Condition number by a definition: :math:`(\lambda_1 + \delta) / (\lambda_P + \delta)`, or :math:`\lambda_1 / \lambda_k`.

    No unit; nothing beyond the extreme eigenvalues. Pitfall: without damping it is infinite for every singular Hessian, and of an
    indefinite one it means nothing; ``.note`` says which definition was used.

    Parameters
    ----------
    source : Objective, SharedRun, operator or SpectralDensity
        The Hessian of an objective is meant.
    sampling : bool
        Whether the interval also holds the sampling of the data.
    damping : float
        Added to every eigenvalue, in their unit.
    rank : int, optional
        k: the largest eigenvalue over the k-th largest, which has to have converged.
    **options
        Of `linop_spectra.spectral_density`.

    Raises
    ------
    ValueError
        When the smaller eigenvalue is not positive, or the k-th one has not converged.

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.curvature import metrics
    >>> kappa = metrics.condition_number(np.diag([4.0, 2.0, 0.0]), damping=1.0)
    >>> round(kappa.value, 6), kappa.note
    (5.0, '(largest + 1) / (smallest + 1)')
    """
    if not np.isfinite(damping) or damping < 0:
        raise ValueError(f"The argument damping must be a finite number of at least 0, but is {damping!r}.")
    S, data = spectrum_of(source, options, sampling)
    top = extreme_of_runs([S.run], S.noise_floor, upper=True)
    if rank is None:
        low, inner = extreme_of_runs([S.run], S.noise_floor, upper=False), None
        note = "largest / smallest" if damping == 0 else f"(largest + {damping:g}) / (smallest + {damping:g})"
    else:
        if isinstance(rank, bool) or not isinstance(rank, int | np.integer) or not 1 <= rank <= S.dimension:
            raise ValueError(f"The argument rank must be a whole number from 1 to the order {S.dimension}, but is {rank!r}.")
        # The order counts: an eigenvalue that has not converged may hide others.
        rule = S.deflation.rules[0]
        place, sharp = len(rule.nodes) - rank, S.deflation.sharp[0]
        if place < 0 or not (rule.exact or sharp[place:].all()):
            raise ValueError(f"Eigenvalue {rank} from the top has not converged after {S.num_steps} steps; take more, or a smaller rank.")
        inner = int(np.nanargmin(np.abs(S.run.ritz_values[0] - rule.nodes[place])))  # of the run, whose rule may hold copies
        low = Metric(float(rule.nodes[place]), quadrature_error=float(rule.residuals[place]), rounding_error=top.rounding_error)
        note = f"largest / number {rank} from the top" + (f", each + {damping:g}" if damping else "")
    if not low.value + damping > low.rounding_error:
        raise ValueError(
            f"The smaller eigenvalue is {low.value:.6g}, and with the damping {damping:g} it is not positive (noise "
            f"{low.rounding_error:.1e}), so "
            "that there is no condition number; raise damping, or ask for a rank."
        )
    above, below = (dataclasses.replace(end, value=end.value + damping) for end in (top, low))
    found = ratio_metric(
        above, below, name="condition_number", unit="1", note=note, num_matvecs=S.num_matvecs, seconds=S.seconds, least=1.0
    )
    if data is None:
        return found
    return data.carry(found, effect_of_condition(data, damping, inner))


def effect_of_condition(data: BatchInfluence, damping: float, place: int | None = None) -> Effect:
    """Effect of the choice of the data on `condition_number`: with the smallest eigenvalue, or the Ritz value of another place."""
    (low, _), (high, _) = data.shared.density.extreme_eigenvalues()
    below = data.end(upper=False) if place is None else data.eigenvalue(place)
    value = low if place is None else float(data.shared.density.run.ritz_values[0][place])
    effects = [data.end(upper=True), below]
    return data.through([high + damping, value + damping], effects, lambda v: [1 / v[1], -v[0] / v[1] ** 2])


def extreme_of_runs(
    runs: list[LanczosResult], noise_floor: float, *, upper: bool, others: list[LanczosResult] | None = None, failure: float = FAILURE
) -> Metric:
    """One end of the spectrum from runs with random probes, and from others that only add Ritz values (the gradient's).

    Parameters
    ----------
    runs : list of LanczosResult
        From probes uniform on the sphere.
    noise_floor : float
        Rounding of the eigenvalues.
    upper : bool
        Which end.
    others : list of LanczosResult, optional
        From any other starting vectors.
    failure : float
        Probability of what the bound does not cover.
    """
    sign = 1.0 if upper else -1.0
    values = [sign * _outermost(run, probe, sign) for run in [*runs, *(others or [])] for probe in range(run.num_probes)]
    best = max(values)
    probes = sum(run.num_probes for run in runs)
    reach = min(_reach(run, probe, sign, failure / probes) for run in runs for probe in range(run.num_probes))
    everything = [*runs, *(others or [])]
    return Metric(
        sign * best,
        quadrature_error=max(0.0, reach - best),
        rounding_error=noise_floor,
        num_matvecs=sum(run.num_matvecs for run in everything),
        seconds=sum(run.seconds for run in everything),
        method="Lanczos, extreme Ritz value and Christoffel bound",
        converged=all(run.converged for run in everything),
        name="largest_eigenvalue" if upper else "smallest_eigenvalue",
        unit=CURVATURE,
        note=f"Ritz value; hidden beyond the interval with probability {failure:g}",
    )


def _outermost(run: LanczosResult, probe: int, sign: float) -> float:
    values = run.ritz_values[probe]
    return float(np.nanmax(values) if sign > 0 else np.nanmin(values))


def _reach(run: LanczosResult, probe: int, sign: float, failure: float) -> float:
    """Place (times the sign) beyond which no eigenvalue of the least likely weight is consistent with the coefficients."""
    alphas, betas = run.jacobi(probe)
    alphas, n = sign * alphas, run.dimension
    end = sign * _outermost(run, probe, sign)
    if betas[-1] == 0.0 or n == 1:
        return end
    # The weight of one unit vector in the probe: Beta(1/2, (n - 1)/2), of complex probes Beta(1, n - 1).
    half = 1.0 if np.dtype(run.dtype).kind == "c" else 0.5
    least = float(scipy.stats.beta.ppf(failure, half, half * (n - 1)))
    scale = max(float(np.abs(alphas).max()), float(np.abs(betas).max()), abs(end))
    low, high = scale * 1e-17, scale * 1e-17
    while christoffel_mass(alphas, betas, np.array(end + high)) >= least:
        low, high = high, 4 * high
    for _ in range(40):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if christoffel_mass(alphas, betas, np.array(end + middle)) >= least else (low, middle)
    return end + float(high)
