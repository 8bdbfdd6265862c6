"""How long a run has to be, by theory, and how far a trace stands out of its noise, from one product."""

from __future__ import annotations

import math
import numbers
import time
from typing import Any, NamedTuple

import numpy as np

from ..krylov.lanczos import check_count
from ..operators import aslinearoperator, require_hermitian
from ..results import Estimate


class SlqBudget(NamedTuple):
    """Steps and probes of a run."""

    num_steps: int
    num_probes: int


def slq_budget(n: int, tolerance: float, failure_probability: float = 0.05) -> SlqBudget:
    """Steps and probes that suffice for every Hermitian matrix of order `n`, before anything is known of it.

    ``k = ceil(12 / t + 1/2)`` steps and ``p = ceil(4 ln(2 n / eta) / ((n + 2) t^2))`` probes give a Wasserstein-1 distance of at
    most ``t (lambda_max - lambda_min)`` with probability ``1 - eta``. It is a worst case: `SpectralDensity.wasserstein_bound`
    of a run is usually ten times smaller, and ``spectral_density(..., tol=)`` stops by that.

    Parameters
    ----------
    n : int
        Order of the matrix.
    tolerance : float
        The share t of the width of the spectrum, between 0 and 1.
    failure_probability : float
        eta, between 0 and 1.

    Returns
    -------
    SlqBudget
        ``num_steps``, at most n because then the rule is exact, and ``num_probes``.

    Raises
    ------
    ValueError
        When an argument is out of its range.

    References
    ----------
    T. Chen, T. Trogdon and S. Ubaru, *Analysis of stochastic Lanczos quadrature for spectrum approximation*, ICML (2021),
    theorem 1.

    Examples
    --------
    >>> slq_budget(800_000, 0.01, failure_probability=0.01)
    SlqBudget(num_steps=1201, num_probes=1)
    """
    n = check_count("n", n)
    for name, value in (("tolerance", tolerance), ("failure_probability", failure_probability)):
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 < value < 1:
            raise ValueError(f"The argument {name} must lie strictly between 0 and 1, but is {value!r}.")
    steps = math.ceil(12 / tolerance + 0.5)
    probes = math.ceil(4 * math.log(2 * n / failure_probability) / ((n + 2) * tolerance**2))
    return SlqBudget(min(steps, n), probes)


def signal_to_noise(alpha: float, norm: float, n: int, *, complex_valued: bool) -> float:
    """``|tr A| / (sqrt(2) |A|_F)`` from ``alpha = v^* A v`` and ``norm = |A v|`` of a unit probe (complex: without the root of two).

    ``n alpha`` is an estimate of the trace, ``n norm^2`` of the squared Frobenius norm.
    """
    if norm == 0:
        return math.inf
    return math.sqrt(n if complex_valued else n / 2) * abs(alpha) / norm


def probe_snr(A: Any, seed: int = 0) -> Estimate:
    """Signal-to-noise ratio of a trace from one probe, ``|tr A| / (sqrt(2) |A|_F)``, from one product.

    One probe gives the trace with the relative standard error one over this number, p probes with one over the root of p times
    it. Below one, a trace from a few probes without deflation is noise. For complex operators the root of two is not there.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Hermitian operator.
    seed : int
        Seed of the probe, which is the first one of `spectral_density`.

    Returns
    -------
    Estimate
        Its standard error is one: the noise of the trace itself. That of the Frobenius norm comes on top where few eigenvalues
        carry it.

    Raises
    ------
    ValueError
        When the operator is not Hermitian, or its product is not finite.

    Examples
    --------
    The identity of order 200 has the trace 200 and the Frobenius norm sqrt(200).

    >>> import linop_spectra as ls
    >>> from linop_spectra.spectra import probe_snr
    >>> round(probe_snr(ls.identity(200)).value, 9)
    10.0
    """
    operator = aslinearoperator(A)
    require_hermitian(operator, "The signal-to-noise ratio", seed=seed)
    backend, n = operator.backend, operator.shape[0]
    began, before = time.perf_counter(), operator.num_matvecs
    probe = backend.probes(n, (0,), kind="sphere", seed=seed, domain="probe", dtype=operator.dtype)
    own = backend.empty((n,), operator.dtype)
    own[...] = operator.matmat(probe.T)[:, 0]
    alpha, norm = np.real(backend.fetch([backend.dot(probe[0, :], own), backend.norm(own)]))
    if not (np.isfinite(alpha) and np.isfinite(norm)):
        raise ValueError("The product with the operator holds NaN or infinity; look at check_operator(A).")
    value = signal_to_noise(float(alpha), float(norm), n, complex_valued=operator.dtype.kind == "c")
    return Estimate(
        value, standard_error=1.0 if math.isfinite(value) else 0.0, num_matvecs=operator.num_matvecs - before,
        seconds=time.perf_counter() - began, method="one product",
    )  # fmt: skip
