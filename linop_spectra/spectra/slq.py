"""Stochastic Lanczos quadrature: from an operator to its spectral density."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from .._progress import Progress
from ..krylov.lanczos import RunOptions, check_count, clamp_steps, run_lanczos
from ..krylov.recurrence import Recurrence
from ..krylov.result import merge
from ..operators import aslinearoperator, require_hermitian
from ..results import PathLike
from .deflation import deflate
from .density import SpectralDensity, quadrature_wasserstein

DEFAULT_STEPS = 64
_STEPS_BETWEEN_LOOKS = 8


def default_probes(n: int) -> int:
    """Probes by size: the CDF of one probe is off by about ``1 / sqrt(n)``."""
    return 4 if n < 100_000 else 2 if n <= 1_000_000 else 1


def spectral_density(
    A: Any,
    *,
    num_steps: int | None = None,
    num_probes: int | Literal["auto"] = "auto",
    tol: float | None = None,
    time_budget: float | None = None,
    seed: int = 0,
    deflate: bool | Literal["auto"] = "auto",
    reorthogonalize: Literal["auto", "full", "none"] = "auto",
    memory_budget: int | float | str | None = None,
    progress: Progress = None,
    checkpoint: PathLike | None = None,
) -> SpectralDensity:
    """Spectral density of a Hermitian operator by stochastic Lanczos quadrature, with error bars.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Hermitian operator of shape (n, n).
    num_steps : int, optional
        Lanczos steps for each probe, 64 by default; more than n are cut to n.
    num_probes : int or "auto"
        Random probes, uniform on the sphere; 4 below n = 100,000, 2 up to a million, 1 above, and one more where a single
        probe leaves a multiplicity open.
    tol : float, optional
        Stop early once the quadrature part of the Wasserstein bound is below `tol` times the span of the Ritz values.
    time_budget : float, optional
        Seconds after which the run ends with what it has.
    seed : int
        Seed of the probes.
    deflate : bool or "auto"
        Whether converged simple eigenvalues get the weight 1/n; "auto" does where the basis is kept.
    reorthogonalize, memory_budget
        As in `linop_spectra.lanczos`.
    progress : bool or callable, optional
        True shows a bar; a callable is called as ``progress(done, total)``.
    checkpoint : str or path, optional
        File that the run is written to as it goes, and taken up from.

    Returns
    -------
    SpectralDensity
        The measure and its views. After Ctrl-C or a spent time budget it is made of the steps that were done, and says so.

    Raises
    ------
    ValueError
        When an argument is wrong or the operator is not Hermitian.
    NonFiniteProductError, LanczosInterrupted
        When a product fails; the partial run is in ``.partial``.

    References
    ----------
    T. Chen, T. Trogdon and S. Ubaru, *Analysis of stochastic Lanczos quadrature for spectrum approximation*, ICML (2021).

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> S = ls.spectral_density(ls.diagonal_operator(np.r_[np.linspace(-1.0, 1.0, 990), np.arange(5.0, 15.0)]))
    >>> len(S.outliers())
    10
    >>> low, high = S.trace().confidence_interval(0.95)
    >>> bool(low < 95.0 < high)
    True
    """
    operator = aslinearoperator(A)
    require_hermitian(operator, "The spectral density", seed=seed)
    n = operator.shape[0]
    steps = min(DEFAULT_STEPS, n) if num_steps is None else clamp_steps(check_count("num_steps", num_steps), n)
    probes = default_probes(n) if num_probes == "auto" else check_count("num_probes", num_probes)
    if deflate not in (True, False, "auto"):
        raise ValueError(f"The argument deflate must be True, False or 'auto', but is {deflate!r}.")
    if tol is not None and not tol > 0:
        raise ValueError(f"The argument tol must be positive, but is {tol!r}.")
    options = RunOptions(
        time_budget=time_budget, progress=progress, checkpoint=checkpoint, measure_noise=True,
        stop=None if tol is None else _stop_at(tol), description="spectral density",
    )  # fmt: skip
    shared = {"reorthogonalize": reorthogonalize, "seed": seed, "memory_budget": memory_budget}
    run = run_lanczos(operator, steps, num_probes=probes, options=options, **shared)  # type: ignore[arg-type]
    kept = run.reorthogonalize == "full"
    if deflate is True and not kept:
        raise ValueError(
            "deflate=True needs the whole basis, because without reorthogonalisation Ritz values repeat; use "
            "reorthogonalize='full' or deflate='auto'."
        )
    pin = kept if deflate == "auto" else bool(deflate)
    notes: list[str] = []
    if not kept:
        notes.append("without reorthogonalisation: Ritz values may repeat, their weights are right, eigenvalues are not counted")
    if num_probes == "auto" and probes == 1 and pin and run.status == "complete" and _objects(run):
        more = dataclasses.replace(options, checkpoint=None, measure_noise=False, stop=None)
        run = merge(run, run_lanczos(operator, run.num_steps, num_probes=1, options=more, first_probe=1, **shared))  # type: ignore[arg-type]
        notes.append("a second probe was added to decide on a possible multiplicity")
    density = SpectralDensity(run, pin, tuple(notes))
    if tol is not None:
        density = dataclasses.replace(density, tolerance_met=_relative_bound(density) <= tol)
    return density


def _objects(run: Any) -> bool:
    return bool(deflate(run, pin=True).objections)


def _relative_bound(S: SpectralDensity) -> float:
    (low, _), (high, _) = S.extreme_eigenvalues()
    return quadrature_wasserstein(S.deflation) / (high - low) if high > low else 0.0


def _stop_at(tol: float) -> Callable[[Recurrence], bool]:
    def stop(state: Recurrence) -> bool:
        if state.steps_done % _STEPS_BETWEEN_LOOKS:
            return False
        state.fetch()
        run = state.result(status="complete", seconds=0.0, seed=0, start_norms=np.ones(state.num_probes), start_digest="")
        return _relative_bound(SpectralDensity(run, pin=False)) <= tol

    return stop
