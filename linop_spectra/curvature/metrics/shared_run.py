"""One Lanczos run for everything: random probes and the gradient, in lockstep over the same passes through the data."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal

import numpy as np

from ..._progress import Progress
from ...backends import Array
from ...krylov import LanczosResult
from ...krylov.lanczos import RunOptions, check_count, check_time_budget, clamp_steps, run_lanczos
from ...krylov.result import KrylovVectors
from ...krylov.storage import Reorthogonalize
from ...krylov.tridiagonal import ritz
from ...operators import LinearOperator
from ...spectra import SpectralDensity
from ...spectra.density import SpectralMeasure
from ...spectra.slq import default_probes
from ..objective import Objective
from .influence import BatchInfluence
from .source import Source, density_of, require_data, require_objective

DEFAULT_STEPS = 48
MATRICES = ("hessian", "ggn", "fisher")


@dataclasses.dataclass(frozen=True, eq=False)
class SharedRun:
    """Coefficients of random probes and of the gradient for one matrix of an objective.

    Attributes
    ----------
    objective : Objective
        Whose matrix it is.
    operator : LinearOperator
        The matrix.
    gradient : array
        Gradient of the objective, shape (n,).
    gradient_norm : float
        Its length.
    density : SpectralDensity
        Of the random probes.
    along_gradient : LanczosResult or None
        The run that was started at the gradient; None where that is zero.
    num_matvecs : int
        Products with single vectors, of both.
    seconds : float
        Wall-clock time of the run.
    matrix : str
        Name of the matrix.
    options : dict
        Of `spectral_density`, for the same spectrum of other data.
    """

    objective: Objective
    operator: LinearOperator
    gradient: Array
    gradient_norm: float
    density: SpectralDensity
    along_gradient: LanczosResult | None
    num_matvecs: int
    seconds: float
    matrix: str = "hessian"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls,
        objective: Objective,
        *,
        matrix: Literal["hessian", "ggn", "fisher"] = "hessian",
        num_steps: int | None = None,
        num_probes: int | Literal["auto"] = "auto",
        seed: int = 0,
        reorthogonalize: Reorthogonalize = "auto",
        memory_budget: int | float | str | None = None,
        time_budget: float | None = None,
        progress: Progress = None,
    ) -> SharedRun:
        """The run; ``(probes + 1) * num_steps`` products and a gradient.

        Parameters
        ----------
        objective : Objective
            Model, loss, parameters and data.
        matrix : {"hessian", "ggn", "fisher"}
            Which matrix.
        num_steps : int, optional
            48, or the number of parameters where that is smaller.
        num_probes : int or "auto"
            Random probes: 4 below 100,000 parameters, 1 above.
        seed : int
            Of the probes.
        reorthogonalize, memory_budget, time_budget, progress
            As for `linop_spectra.lanczos`.
        """
        require_objective(objective, "shared run")
        if matrix not in MATRICES:
            raise ValueError(f"The argument matrix is {matrix!r}, but must be one of {', '.join(map(repr, MATRICES))}.")
        check_time_budget(time_budget)
        n, backend = objective.num_parameters, objective.functions.backend
        operator: LinearOperator = getattr(objective, matrix)()
        steps = min(DEFAULT_STEPS, n) if num_steps is None else clamp_steps(check_count("num_steps", num_steps), n)
        probes = (4 if default_probes(n) == 4 else 1) if num_probes == "auto" else check_count("num_probes", num_probes)
        gradient = objective.gradient()
        length = float(np.real(backend.fetch([backend.norm(gradient)])[0]))
        rows = backend.empty((probes + (length > 0), n), operator.dtype)
        rows[:probes, :] = backend.probes(n, range(probes), kind="sphere", seed=seed, domain="probe", dtype=operator.dtype)
        if length > 0:
            rows[probes, :] = gradient / length
        options = RunOptions(time_budget=time_budget, progress=progress, measure_noise=True, description="Lanczos of probes and gradient")
        run = run_lanczos(
            operator,
            steps,
            num_probes=rows.shape[0],
            start=rows.T,
            reorthogonalize=reorthogonalize,
            seed=seed,
            memory_budget=memory_budget,
            options=options,
        )
        random = probes_of(run, range(probes))
        density = SpectralDensity(random, random.counts_eigenvalues)
        along = probes_of(run, [probes]) if length > 0 else None
        again = {"num_steps": steps, "num_probes": probes, "seed": seed}
        return cls(objective, operator, gradient, length, density, along, run.num_matvecs, run.seconds, matrix, again)

    @functools.cached_property
    def influence(self) -> BatchInfluence:
        """What each batch of the objective does to what was measured.

        As many products with all data as there are probes, plus three, and for sums over the spectrum plus 8 to 32.
        """
        return BatchInfluence(self)

    @property
    def keeps_vectors(self) -> bool:
        """Whether there are Ritz vectors."""
        vectors = self.density.run.vectors
        return vectors is not None and bool(vectors.bases)

    def ritz_rows(self, places: list[int]) -> Array:
        """Ritz vectors of the first probe as rows, by their place in ascending order of the Ritz values (negative from the top)."""
        run = self.density.run
        assert run.vectors is not None
        _, vectors = ritz(*run.jacobi(0))
        found = run.vectors.bases[0].combine(vectors.T[places])
        out = self.operator.backend.empty((len(places), run.dimension), self.operator.dtype)
        for index in range(len(places)):
            row = found[index]
            out[index, :] = row / float(np.real(self.operator.backend.fetch([self.operator.backend.norm(row)])[0]))
        return out

    def converged(self, most: int, *, simple: bool = False) -> tuple[list[float], list[int]]:
        """Eigenvalues of largest modulus that have converged, at most so many, and their places for `ritz_rows`.

        Each belongs to an eigenvector; with `simple` only those which are known to have no other, which one probe alone cannot tell.
        """
        d = self.density.deflation
        atoms = [atom for atom in d.atoms if not simple or atom.value in d.pinned]
        atoms = sorted(atoms, key=lambda atom: -abs(atom.value))[:most]
        # Places refer to the rule without copies; Ritz vectors to the run.
        values = self.density.run.ritz_values[0]
        return [atom.value for atom in atoms], [int(np.nanargmin(np.abs(values - d.rules[0].nodes[atom.places[0]]))) for atom in atoms]

    def starts(self) -> tuple[Array, Array]:
        """Starting vectors of the probes and their products, as rows, by the first step of the recurrence; no further products."""
        run, backend = self.density.run, self.operator.backend
        assert run.vectors is not None
        rows, products = (backend.empty((run.num_probes, run.dimension), self.operator.dtype) for _ in range(2))
        for probe, basis in enumerate(run.vectors.bases):
            alphas, betas = run.jacobi(probe)
            rows[probe, :] = basis.row(0)
            products[probe, :] = float(alphas[0]) * rows[probe, :]
            if betas[0] != 0.0:
                backend.axpy(float(betas[0]), backend.contiguous(basis.row(1), self.operator.dtype), products[probe, :])
        return rows, products

    def function_rows(self, f: Any) -> Array:
        """``f(H)`` times the starting vector of each probe, as rows, in its Krylov space."""
        run, backend = self.density.run, self.operator.backend
        assert run.vectors is not None
        out = backend.empty((run.num_probes, run.dimension), self.operator.dtype)
        for probe, basis in enumerate(run.vectors.bases):
            values, vectors = ritz(*run.jacobi(probe))
            coefficients = vectors @ (np.asarray(f(values), dtype=np.float64) * vectors[0])
            out[probe, :] = basis.combine(coefficients[None, :])[0]
        return out


def spectrum_of(source: Source, options: dict[str, Any], sampling: bool) -> tuple[SpectralMeasure, BatchInfluence | None]:
    """A spectral density, and what the choice of the data does to it where that is asked for.

    Parameters
    ----------
    source : Objective, SharedRun, operator or SpectralDensity
        With `sampling` one of the first two.
    options : dict
        Of `spectral_density`, with `sampling` of `SharedRun.of`; none for a density or a run, which are there already.
    sampling : bool
        Whether the data count.

    Raises
    ------
    TypeError
        When the source has no data, or the options do not fit.
    """
    if isinstance(source, SharedRun):
        if options:
            raise TypeError(f"A shared run has no use for the options {', '.join(sorted(options))}; pass the objective with them.")
        return source.density, source.influence if sampling else None
    if not sampling:
        return density_of(source, options), None
    shared = run_of(require_data(source), options)
    return shared.density, shared.influence


def run_of(objective: Objective, options: dict[str, Any]) -> SharedRun:
    """`SharedRun.of` with options that a user gave.

    Raises
    ------
    TypeError
        When it does not take one of them.
    """
    known = ("matrix", "num_steps", "num_probes", "seed", "reorthogonalize", "memory_budget", "time_budget", "progress")
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise TypeError(f"A shared run does not take the options {', '.join(unknown)}; it takes {', '.join(known)}.")
    return SharedRun.of(objective, **options)


def probes_of(run: LanczosResult, probes: Any) -> LanczosResult:
    """Some probes of a run as a run of their own."""
    chosen = list(probes)
    vectors = run.vectors
    if vectors is not None:
        parts: dict[str, Any] = {"bases": tuple(vectors.bases[p] for p in chosen)} if vectors.bases else {}
        for name in ("previous", "current", "captured", "newest", "removing"):
            rows = getattr(vectors, name)
            parts[name] = None if rows is None else rows[chosen]
        vectors = KrylovVectors(locked=vectors.locked, **parts)
    overlaps = run.start_overlaps
    # Overlaps are with the Krylov vectors of the first probe.
    overlaps = overlaps[chosen] if overlaps is not None and chosen[0] == 0 and len(chosen) > 1 else None
    locked = run.locked_overlaps[chosen] if run.locked_overlaps.shape[0] == run.num_probes else run.locked_overlaps
    loss = run.orthogonality_loss[chosen] if len(run.orthogonality_loss) == run.num_probes else run.orthogonality_loss
    return dataclasses.replace(
        run, alphas=run.alphas[chosen], betas=run.betas[chosen], num_steps_taken=run.num_steps_taken[chosen],
        start_norms=run.start_norms[chosen], num_matvecs=int(run.num_steps_taken[chosen].sum()), start_overlaps=overlaps,
        locked_overlaps=locked, orthogonality_loss=loss, vectors=vectors,
    )  # fmt: skip
